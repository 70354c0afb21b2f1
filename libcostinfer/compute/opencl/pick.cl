/* pick.cl - the few best logits of each row, in order, and what log-probabilities need, so that the host does not
 * need all of them.
 *
 * Candidates rank by logit, and among equals the smaller id first; ids that may not be picked, NaNs and
 * positive infinity do not qualify.  A row is cut into pieces, and the best of its pieces are joined.  A piece,
 * like the whole row, yields PICK_WORDS(step[STEP_MOST]) words: the largest of all its logits, the sum of
 * exp(logit - largest), then pairs of logit and id. */

#define NO_ID 0xFFFFFFFFu

bool ranks_before(float a, uint a_id, float b, uint b_id)
{
    return a > b || (a == b && a_id < b_id);
}

bool may_be_picked(__global const uchar *allowed, uint id, float logit)
{
    return logit < INFINITY && (allowed[id / 8] >> id % 8 & 1);
}

/* What to subtract before exp().  In a piece of -INFINITY alone, the largest would make exp() a NaN.  NaNs among
 * the logits still reach the sum. */
float exponent_base(float largest)
{
    return largest == -INFINITY ? 0 : largest;
}

/* Joins the largest and the sum of all pieces into the row's words. */
void join_sums(__global const uint *parts, uint pieces, uint words, __global uint *to)
{
    float largest = -INFINITY, sum = 0;
    for (uint i = 0; i < pieces; i++)
        largest = fmax(largest, as_float(parts[i * words]));
    for (uint i = 0; i < pieces; i++)
        sum += as_float(parts[i * words + 1]) * exp(as_float(parts[i * words]) - largest);
    to[0] = as_uint(largest);
    to[1] = as_uint(sum);
}

#define PICK_PARAMETERS                                                                                      \
    __global const float *logits, uint n_logits, __global const uchar *allowed, __global const uint *step,   \
        uint rows_max, uint first, __global uint *parts, uint pieces
#define JOIN_PARAMETERS                                                                                      \
    __global const uint *parts, uint pieces, __global const uint *step, uint rows_max, uint first,           \
        __global uint *picks

#if LANES == 1

/* Inserts a candidate into a list of the n best; false if it is not among them. */
bool insert(__global uint *list, uint n, float x, uint id)
{
    uint at = n - 1;
    if (!ranks_before(x, id, as_float(list[2 * at]), list[2 * at + 1]))
        return false;
    for (; at > 0 && ranks_before(x, id, as_float(list[2 * at - 2]), list[2 * at - 1]); at--) {
        list[2 * at] = list[2 * at - 2];
        list[2 * at + 1] = list[2 * at - 1];
    }
    list[2 * at] = as_uint(x);
    list[2 * at + 1] = id;
    return true;
}

void list_begin(__global uint *list, uint n)
{
    for (uint i = 0; i < n; i++) {
        list[2 * i] = as_uint(-INFINITY);
        list[2 * i + 1] = NO_ID;
    }
}

/* Work-item (piece, row). */
__kernel void pick_pieces(PICK_PARAMETERS)
{
    uint piece = get_global_id(0), i = get_global_id(1), words = PICK_WORDS(step[STEP_MOST]);
    uint n = STEP_ARRAY(step, STEP_BEST, rows_max)[first + i];
    uint begin = piece * PICK_PIECE, end = min(begin + PICK_PIECE, n_logits);
    __global uint *to = parts + ((size_t)i * pieces + piece) * words;
    if (n == 0)
        return;
    logits += (size_t)i * n_logits;
    list_begin(to + 2, n);
    float largest = -INFINITY, sum = 0;
    for (uint v = begin; v < end; v++) {
        float x = logits[v];
        largest = fmax(largest, x);
        if (ranks_before(x, v, as_float(to[2 * n]), to[2 * n + 1]) && may_be_picked(allowed, v, x))
            insert(to + 2, n, x, v);
    }
    float base = exponent_base(largest);
    for (uint v = begin; v < end; v++)
        sum += exp(logits[v] - base);
    to[0] = as_uint(largest);
    to[1] = as_uint(sum);
}

/* Work-item (row). */
__kernel void pick_join(JOIN_PARAMETERS)
{
    uint i = get_global_id(0), words = PICK_WORDS(step[STEP_MOST]);
    uint n = STEP_ARRAY(step, STEP_BEST, rows_max)[first + i];
    if (n == 0)
        return;
    parts += (size_t)i * pieces * words;
    picks += (size_t)(first + i) * words;
    join_sums(parts, pieces, words, picks);
    list_begin(picks + 2, n);
    for (uint piece = 0; piece < pieces; piece++) {
        __global const uint *list = parts + piece * words + 2;
        for (uint k = 0; k < n; k++) {
            if (!insert(picks + 2, n, as_float(list[2 * k]), list[2 * k + 1]))
                break;
        }
    }
}

#else

/* Finds the lane's best candidate, among every LANES-th of n, that ranks after the last one taken. */
#define SCAN(n_candidates, LOGIT, ID)                                                                        \
    do {                                                                                                     \
        best = -INFINITY;                                                                                    \
        best_id = NO_ID;                                                                                    \
        for (uint e = lane; e < (n_candidates); e += LANES) {                                                \
            float x_ = LOGIT(e);                                                                             \
            uint id_ = ID(e);                                                                                \
            if (ranks_before(last, last_id, x_, id_) && ranks_before(x_, id_, best, best_id)) {                \
                best = x_;                                                                                   \
                best_id = id_;                                                                               \
            }                                                                                                \
        }                                                                                                    \
    } while (0)

/* Takes the n best of all lanes' candidates, one after the other: the lane that had the last one looks for its
 * next. */
#define TAKE_BEST(n, list, n_candidates, LOGIT, ID)                                                          \
    do {                                                                                                     \
        float last = INFINITY, best;                                                                         \
        uint last_id = 0, best_id;                                                                           \
        SCAN(n_candidates, LOGIT, ID);                                                                       \
        for (uint k = 0; k < (n); k++) {                                                                     \
            shared[lane] = best;                                                                            \
            shared_ids[lane] = best_id;                                                                     \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                    \
            for (uint width = LANES / 2; width > 0; width /= 2) {                                            \
                if (lane < width && ranks_before(shared[lane + width], shared_ids[lane + width],            \
                                                shared[lane], shared_ids[lane])) {                         \
                    shared[lane] = shared[lane + width];                                                   \
                    shared_ids[lane] = shared_ids[lane + width];                                           \
                }                                                                                            \
                barrier(CLK_LOCAL_MEM_FENCE);                                                                \
            }                                                                                                \
            last = shared[0];                                                                               \
            last_id = shared_ids[0];                                                                        \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                    \
            if (lane == 0) {                                                                                 \
                (list)[2 * k] = as_uint(last);                                                               \
                (list)[2 * k + 1] = last_id;                                                                 \
            }                                                                                                \
            if (best_id == last_id && best_id != NO_ID)                                                     \
                SCAN(n_candidates, LOGIT, ID);                                                               \
        }                                                                                                    \
    } while (0)

/* Group (piece, row). */
__kernel void pick_pieces(PICK_PARAMETERS)
{
    __local float shared[LANES];
    __local uint shared_ids[LANES];
    uint lane = get_local_id(0), piece = get_group_id(0), i = get_global_id(1);
    uint words = PICK_WORDS(step[STEP_MOST]), n = STEP_ARRAY(step, STEP_BEST, rows_max)[first + i];
    uint begin = piece * PICK_PIECE, count = min((uint)PICK_PIECE, n_logits - begin);
    __global uint *to = parts + ((size_t)i * pieces + piece) * words;
    if (n == 0)
        return;
    logits += (size_t)i * n_logits + begin;
#define ALLOWED_LOGIT(e) (may_be_picked(allowed, begin + (e), logits[e]) ? logits[e] : -INFINITY)
#define ALLOWED_ID(e)    (may_be_picked(allowed, begin + (e), logits[e]) ? begin + (e) : NO_ID)
    TAKE_BEST(n, to + 2, count, ALLOWED_LOGIT, ALLOWED_ID);
    float largest = -INFINITY, sum = 0;
    for (uint e = lane; e < count; e += LANES)
        largest = fmax(largest, logits[e]);
    shared[lane] = largest;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint width = LANES / 2; width > 0; width /= 2) {
        if (lane < width)
            shared[lane] = fmax(shared[lane], shared[lane + width]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    largest = shared[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    float base = exponent_base(largest);
    for (uint e = lane; e < count; e += LANES)
        sum += exp(logits[e] - base);
    sum = lanes_sum(sum, shared);
    if (lane == 0) {
        to[0] = as_uint(largest);
        to[1] = as_uint(sum);
    }
}

/* Group (row).  Candidate e is entry e % n of piece e / n. */
__kernel void pick_join(JOIN_PARAMETERS)
{
    __local float shared[LANES];
    __local uint shared_ids[LANES];
    uint lane = get_local_id(0), i = get_group_id(0), words = PICK_WORDS(step[STEP_MOST]);
    uint n = STEP_ARRAY(step, STEP_BEST, rows_max)[first + i];
    if (n == 0)
        return;
    parts += (size_t)i * pieces * words;
    picks += (size_t)(first + i) * words;
    if (lane == 0)
        join_sums(parts, pieces, words, picks);
#define PART_LOGIT(e) as_float(parts[(e) / n * words + 2 + (e) % n * 2])
#define PART_ID(e)    parts[(e) / n * words + 3 + (e) % n * 2]
    TAKE_BEST(n, picks + 2, pieces * n, PART_LOGIT, PART_ID);
}

#endif
