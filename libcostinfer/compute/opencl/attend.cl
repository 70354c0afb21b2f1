/* attend.cl - out[R,D] = attention of q[R,D] over each row's slot, positions 0 to its own; built for one head
 * width.
 *
 * Softmax is computed online: with m the largest score so far, l = sum of exp(s - m) and
 * a = sum of exp(s - m) * value, a new score above m scales both by exp(m - new).  So a past of any length
 * needs no room for its scores, and the same rule joins pieces of it.  A position that a row must not see is
 * skipped, not multiplied by 0: it might hold a NaN.
 *
 * The cache is [2, slots, H, P, WIDE], keys then values, zero from HEAD_WIDTH to WIDE. */

#define WIDE ((HEAD_WIDTH + 15) / 16 * 16)
#define HV   (WIDE / 16)

#define ATTEND_PARAMETERS                                                                                    \
    __global const float *q, __global float *out, __global const CACHE *cache, __global const uint *step,    \
        uint rows_max, uint stride, uint heads, uint positions, ulong values_at, float scale
#define PART (WIDE + 16) /* a[WIDE], m, l, padded to a multiple of 16 */

/* Loads scale * q of one head, zero from HEAD_WIDTH on.  The next head's q must not be multiplied by the
 * cache's zeros: it might be a NaN. */
void head_load(float16 to[HV], __global const float *from, float scale)
{
#if HEAD_WIDTH == WIDE
    for (uint v = 0; v < HV; v++)
        to[v] = vload16(v, from) * scale;
#else
    float all[WIDE];
    for (uint i = 0; i < WIDE; i++)
        all[i] = i < HEAD_WIDTH ? from[i] * scale : 0;
    for (uint v = 0; v < HV; v++)
        to[v] = vload16(v, all);
#endif
}

void head_store(float16 from[HV], __global float *to, float factor)
{
#if HEAD_WIDTH == WIDE
    for (uint v = 0; v < HV; v++)
        vstore16(from[v] * factor, v, to);
#else
    float all[WIDE];
    for (uint v = 0; v < HV; v++)
        vstore16(from[v] * factor, v, all);
    for (uint i = 0; i < HEAD_WIDTH; i++)
        to[i] = all[i];
#endif
}

float attend_sum16(float16 x)
{
    float8 a = x.lo + x.hi;
    float4 b = a.lo + a.hi;
    float2 c = b.lo + b.hi;
    return c.x + c.y;
}

#define GLOBAL_DOT(q, key)                                                                                   \
    float16 dot_ = 0;                                                                                        \
    for (uint v = 0; v < HV; v++)                                                                            \
        dot_ = FMA((q)[v], CACHE_LOAD16(v, (key)), dot_);                                                    \
    float s = attend_sum16(dot_)

/* Adds the score s and its value to (m, l, a). */
#define ONLINE(m, l, a, value)                                                                               \
    do {                                                                                                     \
        float m_new_ = fmax((m), s), old_ = exp((m) - m_new_), new_ = exp(s - m_new_);                       \
        (m) = m_new_;                                                                                        \
        (l) = (l) * old_ + new_;                                                                             \
        for (uint v = 0; v < HV; v++)                                                                        \
            (a)[v] = (a)[v] * old_ + new_ * CACHE_LOAD16(v, (value));                                        \
    } while (0)

/* One row alone, its past in pieces.  Group (head, single, piece) of LANES work-items.  A row of one piece is
 * finished here, any other by attend_join. */
__kernel void attend_single(ATTEND_PARAMETERS, __global float *parts)
{
    uint h = get_group_id(0), single = get_group_id(1), piece = get_group_id(2), lane = get_local_id(0);
    uint r = STEP_ARRAY(step, STEP_SINGLES, rows_max)[single];
    uint slot = STEP_ARRAY(step, STEP_SLOTS, rows_max)[r];
    uint n = STEP_ARRAY(step, STEP_POSITIONS, rows_max)[r] + 1;
    uint splits = step[STEP_SPLITS], length = step[STEP_SPLIT_LENGTH];
    uint begin = piece * length, end = splits == 1 ? n : min(begin + length, n);
    __global const CACHE *keys = cache + ((size_t)slot * heads + h) * positions * WIDE;
    __global const CACHE *values = keys + values_at;
    float16 query[HV], a[HV];
    float m = -INFINITY, l = 0;
    head_load(query, q + (size_t)r * stride + h * HEAD_WIDTH, scale);
    for (uint v = 0; v < HV; v++)
        a[v] = 0;
    for (uint t = begin + lane; t < end; t += LANES) {
        GLOBAL_DOT(query, keys + (size_t)t * WIDE);
        ONLINE(m, l, a, values + (size_t)t * WIDE);
    }
#if LANES > 1
    /* All lanes take the largest m; then l and a are sums.  A lane that saw no position has l = 0 and adds
     * nothing: if no lane saw one, its m - m would be a NaN. */
    __local float16 shared[LANES];
    __local float largest[LANES];
    largest[lane] = m;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint width = LANES / 2; width > 0; width /= 2) {
        if (lane < width)
            largest[lane] = fmax(largest[lane], largest[lane + width]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float factor = l == 0 ? 0 : exp(m - largest[0]);
    m = largest[0];
    for (uint v = 0; v <= HV; v++) {
        if (v < HV)
            shared[lane] = factor == 0 ? (float16)0 : a[v] * factor;
        else
            shared[lane] = (float16)(factor == 0 ? 0 : l * factor);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint width = LANES / 2; width > 0; width /= 2) {
            if (lane < width)
                shared[lane] += shared[lane + width];
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (v < HV)
            a[v] = shared[0];
        else
            l = shared[0].s0;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (lane > 0)
        return;
#endif
    if (splits == 1) {
        head_store(a, out + (size_t)r * stride + h * HEAD_WIDTH, 1 / l);
    } else {
        __global float *part = parts + (((size_t)single * heads + h) * splits + piece) * PART;
        for (uint v = 0; v < HV; v++)
            vstore16(a[v], v, part);
        part[WIDE] = m;
        part[WIDE + 1] = l;
    }
}

/* Joins the pieces of a row.  Work-item (head, single). */
__kernel void attend_join(__global const float *parts, __global float *out, __global const uint *step,
                          uint rows_max, uint stride, uint heads)
{
    uint h = get_global_id(0), single = get_global_id(1), splits = step[STEP_SPLITS];
    uint r = STEP_ARRAY(step, STEP_SINGLES, rows_max)[single];
    parts += ((size_t)single * heads + h) * splits * PART;
    float largest = -INFINITY, sum = 0;
    for (uint i = 0; i < splits; i++)
        largest = fmax(largest, parts[i * PART + WIDE]);
    float16 a[HV];
    for (uint v = 0; v < HV; v++)
        a[v] = 0;
    for (uint i = 0; i < splits; i++) {
        __global const float *part = parts + i * PART;
        if (part[WIDE + 1] == 0)
            continue;
        float factor = exp(part[WIDE] - largest);
        sum += part[WIDE + 1] * factor;
        for (uint v = 0; v < HV; v++)
            a[v] += vload16(v, part) * factor;
    }
    head_store(a, out + (size_t)r * stride + h * HEAD_WIDTH, 1 / sum);
}

#if LANES == 1

/* TILE_ROWS rows of one slot, for which each key and value is read once.  Work-item (head, tile). */
__kernel void attend_tile(ATTEND_PARAMETERS)
{
    uint h = get_global_id(0), tile = get_global_id(1);
    uint r0 = STEP_ARRAY(step, STEP_TILES, rows_max)[tile];
    uint n_rows = STEP_ARRAY(step, STEP_TILE_COUNTS, rows_max)[tile];
    uint slot = STEP_ARRAY(step, STEP_SLOTS, rows_max)[r0];
    uint first = STEP_ARRAY(step, STEP_POSITIONS, rows_max)[r0];
    __global const CACHE *keys = cache + ((size_t)slot * heads + h) * positions * WIDE;
    __global const CACHE *values = keys + values_at;
    float16 query[TILE_ROWS][HV], a[TILE_ROWS][HV];
    float m[TILE_ROWS], l[TILE_ROWS];
    for (uint i = 0; i < TILE_ROWS; i++) {
        m[i] = -INFINITY;
        l[i] = 0;
        /* Rows beyond n_rows repeat the last one and are not stored. */
        head_load(query[i], q + (size_t)(r0 + min(i, n_rows - 1)) * stride + h * HEAD_WIDTH, scale);
        for (uint v = 0; v < HV; v++)
            a[i][v] = 0;
    }
    for (uint t = 0; t <= first; t++) {
        for (uint i = 0; i < TILE_ROWS; i++) {
            GLOBAL_DOT(query[i], keys + (size_t)t * WIDE);
            ONLINE(m[i], l[i], a[i], values + (size_t)t * WIDE);
        }
    }
    for (uint t = first + 1; t < first + n_rows; t++) {
        for (uint i = 0; i < TILE_ROWS; i++) {
            if (t <= first + i) {
                GLOBAL_DOT(query[i], keys + (size_t)t * WIDE);
                ONLINE(m[i], l[i], a[i], values + (size_t)t * WIDE);
            }
        }
    }
    for (uint i = 0; i < n_rows; i++)
        head_store(a[i], out + (size_t)(r0 + i) * stride + h * HEAD_WIDTH, 1 / l[i]);
}

#else

/* Each lane has a row.  The group reads KEYS keys and values into local memory, then every lane uses all of
 * them.  Group (head, tile). */
#define KEYS (WIDE >= 256 ? 4 : 1024 / WIDE)
__kernel __attribute__((reqd_work_group_size(TILE_ROWS, 1, 1))) void attend_tile(ATTEND_PARAMETERS)
{
    __local float16 shared_keys[KEYS * HV], shared_values[KEYS * HV];
    uint h = get_group_id(0), tile = get_group_id(1), lane = get_local_id(0);
    uint r0 = STEP_ARRAY(step, STEP_TILES, rows_max)[tile];
    uint n_rows = STEP_ARRAY(step, STEP_TILE_COUNTS, rows_max)[tile];
    uint slot = STEP_ARRAY(step, STEP_SLOTS, rows_max)[r0];
    uint first = STEP_ARRAY(step, STEP_POSITIONS, rows_max)[r0];
    uint mine = min(lane, n_rows - 1), end = first + n_rows;
    __global const CACHE *keys = cache + ((size_t)slot * heads + h) * positions * WIDE;
    __global const CACHE *values = keys + values_at;
    float16 query[HV], a[HV];
    float m = -INFINITY, l = 0;
    head_load(query, q + (size_t)(r0 + mine) * stride + h * HEAD_WIDTH, scale);
    for (uint v = 0; v < HV; v++)
        a[v] = 0;
    for (uint t0 = 0; t0 < end; t0 += KEYS) {
        uint n = min((uint)KEYS, end - t0);
        for (uint e = lane; e < n * HV; e += TILE_ROWS) {
            shared_keys[e] = CACHE_LOAD16(e, keys + (size_t)t0 * WIDE);
            shared_values[e] = CACHE_LOAD16(e, values + (size_t)t0 * WIDE);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint t = 0; t < n && t0 + t <= first + mine; t++) {
            float16 products = 0;
            for (uint v = 0; v < HV; v++)
                products = FMA(query[v], shared_keys[t * HV + v], products);
            float s = attend_sum16(products);
            float m_new = fmax(m, s), old = exp(m - m_new), new_ = exp(s - m_new);
            m = m_new;
            l = l * old + new_;
            for (uint v = 0; v < HV; v++)
                a[v] = a[v] * old + new_ * shared_values[t * HV + v];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (lane < n_rows)
        head_store(a, out + (size_t)(r0 + lane) * stride + h * HEAD_WIDTH, 1 / l);
}

#endif
