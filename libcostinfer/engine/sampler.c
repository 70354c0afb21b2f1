/* sampler.c - logits to a token.
 *
 * The random number of a token depends on (seed, choice, position) only, so a sequence does not depend on
 * what else the engine was doing: equal logits give equal tokens.  Candidates are ordered by logit, the
 * smaller id first among equals, which makes every cut well-defined.
 *
 * The question a reader will ask: where is the sort?  The vocabulary is never sorted.  top_p keeps the
 * shortest prefix of the order whose weights sum to at least a mark, and the sampled token is the one at
 * which that sum passes another mark.  Sums of weights are exact in any order (sampler_scan.h), so candidates
 * are put into ranks by their logits, the ranks are summed, and only the rank that contains a mark is sorted.
 * The result is, bit by bit, that of sorting everything.  typical_p keeps a prefix of another order, so it
 * gives what the other cuts have kept a new key in place of the logit and is cut in the same way. */
#include "sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

struct sampler_candidate {
    float logit;
    float weight; /* of sampler_scan.h: its probability up to a common factor */
    int32_t id;
};

static uint32_t blocks_of(uint32_t n)
{
    return (n + SCAN_BLOCK - 1) / SCAN_BLOCK;
}

enum cinf_status sampler_reserve(struct sampler *s, uint32_t vocab)
{
    if (vocab <= s->cap)
        return CINF_OK;
    struct sampler bigger = { .cap = vocab, .scan = sampler_scan_at(0) };
    bigger.logits = mem_new(vocab, sizeof *bigger.logits);
    bigger.marks = mem_new(vocab, sizeof *bigger.marks);
    bigger.maxima = mem_new(blocks_of(vocab), sizeof *bigger.maxima);
    bigger.weights = mem_new((size_t)blocks_of(vocab) * SCAN_BLOCK, sizeof *bigger.weights);
    bigger.sums = mem_new(blocks_of(vocab), sizeof *bigger.sums);
    bigger.candidates = mem_new(vocab, sizeof *bigger.candidates);
    bigger.of_rank = mem_new(vocab, sizeof *bigger.of_rank);
    bigger.ranks = mem_new((size_t)vocab + 3, sizeof *bigger.ranks);
    if (!bigger.logits || !bigger.marks || !bigger.maxima || !bigger.weights || !bigger.sums ||
        !bigger.candidates || !bigger.of_rank || !bigger.ranks) {
        sampler_free(&bigger);
        return cinf_fail(CINF_ENOMEM, "no memory to sample from %u logits", vocab);
    }
    sampler_free(s);
    *s = bigger;
    return CINF_OK;
}

void sampler_free(struct sampler *s)
{
    mem_free(s->logits);
    mem_free(s->marks);
    mem_free(s->maxima);
    mem_free(s->weights);
    mem_free(s->sums);
    mem_free(s->candidates);
    mem_free(s->of_rank);
    mem_free(s->ranks);
    *s = (struct sampler){ 0 };
}

/* SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection that mixes every bit into every other. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

double sampler_random(uint64_t seed, uint32_t choice, uint32_t position)
{
    uint64_t counter = (uint64_t)choice << 32 | position;
    uint64_t bits = mix(mix(seed + 0x9E3779B97F4A7C15u) + 0x9E3779B97F4A7C15u * (counter + 1));
    return (double)(bits >> 11) * 0x1p-53;
}

/* Marks the token as seen; true the first time since new_stamp(). */
static bool first_seen(struct sampler *s, int32_t token)
{
    if (s->marks[token] == s->stamp)
        return false;
    s->marks[token] = s->stamp;
    return true;
}

static void new_stamp(struct sampler *s)
{
    if (++s->stamp == 0) {
        memset(s->marks, 0, s->cap * sizeof *s->marks);
        s->stamp = 1;
    }
}

static void modify(struct sampler *s, uint32_t vocab, const struct sampling *sampling, const int32_t *tokens,
                   uint32_t n_tokens, uint32_t n_prompt)
{
    for (uint32_t i = 0; i < sampling->n_bias; i++)
        if ((uint32_t)sampling->bias[i].token < vocab)
            s->logits[sampling->bias[i].token] += sampling->bias[i].bias;

    if (sampling->repetition_penalty > 0 && sampling->repetition_penalty != 1) {
        new_stamp(s);
        for (uint32_t i = 0; i < n_tokens; i++) {
            float *logit = &s->logits[tokens[i]];
            if (first_seen(s, tokens[i]))
                *logit = *logit > 0 ? *logit / sampling->repetition_penalty
                                    : *logit * sampling->repetition_penalty;
        }
    }
    if (sampling->presence_penalty != 0 || sampling->frequency_penalty != 0) {
        new_stamp(s);
        for (uint32_t i = n_prompt; i < n_tokens; i++) {
            s->logits[tokens[i]] -= sampling->frequency_penalty;
            if (first_seen(s, tokens[i]))
                s->logits[tokens[i]] -= sampling->presence_penalty;
        }
    }
}

/* Excludes the tokens that must not be sampled. */
static void forbid(float *logits, uint32_t vocab, const uint8_t *allowed)
{
    for (uint32_t first = 0; first < vocab; first += 8) {
        if (allowed[first / 8] == 0xFF)
            continue;
        for (uint32_t i = first; i < first + 8 && i < vocab; i++)
            if (!(allowed[i / 8] >> i % 8 & 1))
                logits[i] = -INFINITY;
    }
}

/* Whether the next token, after `n_new` sampled ones, must not end the sequence. */
static bool must_go_on(const struct sampling *sampling, uint32_t n_new)
{
    return n_new < sampling->min_tokens && sampling->n_end_ids > 0;
}

static float largest(const float *x, uint32_t n)
{
    float max = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* The index of the first logit that equals `max`. */
static uint32_t index_of(float max, const float *maxima, const float *logits)
{
    uint32_t i = 0;
    while (maxima[i] != max)
        i++;
    i *= SCAN_BLOCK;
    while (logits[i] != max)
        i++;
    return i;
}

static bool ranks_above(struct sampler_candidate a, struct sampler_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Makes the subtree at `i` a heap with the best candidate at its root; both subtrees of i are heaps. */
static void sift_down(struct sampler_candidate *heap, uint32_t n, uint32_t i)
{
    struct sampler_candidate moved = heap[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && ranks_above(heap[child + 1], heap[child]))
            child++;
        if (!ranks_above(heap[child], moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* After make_heap(), each take_best() moves the best remaining candidate to the end of what remains: the best
 * ones are then c[n-1], c[n-2] … in order, and no more is sorted than is asked for. */
static void make_heap(struct sampler_candidate *c, uint32_t n)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(c, n, i);
}

static struct sampler_candidate take_best(struct sampler_candidate *heap, uint32_t n)
{
    struct sampler_candidate best = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = best;
    if (n > 1)
        sift_down(heap, n - 1, 0);
    return best;
}

static bool is_modified(const struct sampling *sampling)
{
    return sampling->n_bias > 0 || (sampling->repetition_penalty > 0 && sampling->repetition_penalty != 1) ||
           sampling->presence_penalty != 0 || sampling->frequency_penalty != 0;
}

static bool is_greedy(const struct sampling *sampling)
{
    return sampling->temperature <= 0 || sampling->top_k == 1;
}

/* top_p is a share of everything that top_k kept, so where it cuts, min_p must be applied after it. */
static bool cuts_p(const struct sampling *sampling)
{
    return sampling->top_p > 0 && sampling->top_p < 1;
}

/* typical_p is a share of what all other cuts have kept, so it is applied after them. */
static bool cuts_typical(const struct sampling *sampling)
{
    return sampling->typical_p > 0 && sampling->typical_p < 1;
}

/* The lowest logit that min_p keeps.  min_p needs no order, so it is applied first where top_p does not cut:
 * its threshold is relative to the most likely token and therefore the same before and after the other two
 * cuts. */
static float floor_of(const struct sampling *sampling, float best)
{
    float floor = sampling->min_p > 0 ? best + sampling->temperature * logf(sampling->min_p) : -FLT_MAX;
    return floor > -FLT_MAX ? floor : -FLT_MAX;
}

/* A bound that at least k logits reach, and not many more: the k-th largest of the blocks' maxima. */
static float top_k_bound(struct sampler *s, uint32_t n_blocks, uint32_t k)
{
    struct sampler_candidate *heap = s->candidates, last = { .logit = -INFINITY };
    if (k > n_blocks)
        return -INFINITY;
    for (uint32_t i = 0; i < n_blocks; i++)
        heap[i] = (struct sampler_candidate){ .logit = s->maxima[i], .id = (int32_t)i };
    make_heap(heap, n_blocks);
    for (uint32_t i = 0; i < k; i++)
        last = take_best(heap, n_blocks - i);
    return last.logit;
}

/* Makes candidates, in the order of their ids, of the logits that are not below `min`; returns how many. With
 * `weighing` it computes their blocks' weights; NULL: all weights have been computed. */
static uint32_t collect(struct sampler *s, const float *logits, uint32_t vocab, float min,
                        const struct weighing *weighing)
{
    struct sampler_candidate *c = s->candidates;
    uint32_t n = 0;
    for (uint32_t first = 0; first < vocab; first += SCAN_BLOCK) {
        uint32_t end = vocab - first < SCAN_BLOCK ? vocab : first + SCAN_BLOCK;
        if (s->maxima[first / SCAN_BLOCK] < min)
            continue;
        if (weighing)
            s->scan->weights(s->weights + first, logits + first, end - first, weighing);
        for (uint32_t i = first; i < end; i++) {
            c[n] = (struct sampler_candidate){ logits[i], s->weights[i], (int32_t)i };
            n += !(logits[i] < min);
        }
    }
    return n;
}

/* The sum of the weights of the candidates that are not below `floor`. */
static double sum_of(const struct sampler_candidate *c, uint32_t n, float floor)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i].logit < floor ? 0 : (double)c[i].weight;
    return sum;
}

/* Candidates in ranks: every candidate of a lower rank precedes every one of a higher rank. */
struct ranking {
    struct sampler *s;
    const struct sampler_candidate *c;
    uint32_t n, n_ranks;
};

/* Puts n candidates, whose logits are from `min` to `best`, into ranks. */
static struct ranking rank(struct sampler *s, const struct sampler_candidate *c, uint32_t n, double best,
                           double min)
{
    uint32_t n_ranks = n / 8 + 1 < SAMPLER_RANKS ? n / 8 + 1 : SAMPLER_RANKS;
    double ranks_per_logit = min < best ? (n_ranks - 1) / (best - min) : 0;
    memset(s->rank_sums, 0, n_ranks * sizeof *s->rank_sums);
    for (uint32_t i = 0; i < n; i++) {
        uint16_t at = (uint16_t)((best - (double)c[i].logit) * ranks_per_logit);
        s->ranks[i] = at;
        s->rank_sums[at] += c[i].weight;
    }
    return (struct ranking){ s, c, n, n_ranks };
}

/* Gathers the candidates of a rank, which are few: the ranks of four are compared in one word. */
static uint32_t members(const struct ranking *r, uint32_t rank)
{
    const uint64_t ones = 0x0001000100010001u;
    uint32_t n = 0;
    for (uint32_t first = 0; first < r->n; first += 4) {
        uint64_t four;
        memcpy(&four, r->s->ranks + first, sizeof four);
        four ^= rank * ones;
        if (!((four - ones) & ~four & ones << 15))
            continue;
        for (uint32_t i = first; i < first + 4 && i < r->n; i++)
            if (r->s->ranks[i] == rank)
                r->s->of_rank[n++] = r->c[i];
    }
    return n;
}

/* The first candidate, in order, at which the running sum of weights exceeds `mark`; *sum is that sum. */
static struct sampler_candidate find_mark(const struct ranking *r, double mark, double *sum)
{
    uint32_t at = 0;
    double before = 0;
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        double of_rank = r->s->rank_sums[i];
        if (of_rank == 0)
            continue;
        at = i;
        if (before + of_rank > mark)
            break;
        before += of_rank;
    }
    struct sampler_candidate *c = r->s->of_rank, next;
    uint32_t n = members(r, at);
    make_heap(c, n);
    do {
        next = take_best(c, n--);
        before += next.weight;
    } while (before <= mark && n > 0);
    *sum = before;
    return next;
}

/* The mark that is exceeded where `share` of `total` is reached. */
static double mark_of(float share, double total)
{
    return nextafter(share * total, 0);
}

/* Draws one of n candidates, which all other cuts have kept, after typical_p.  A candidate's surprise is
 *
 *     -log p = gap + log(sum of weights),  gap = (best - logit) / temperature
 *
 * and the entropy H is the mean surprise, so |-log p - H| = |gap - mean gap|.  The negative of that replaces
 * the logit, so the most typical candidates come first.  Candidates that weigh nothing are dropped. */
static int32_t draw_typical(struct sampler *s, struct sampler_candidate *c, uint32_t n,
                            const struct sampling *sampling, float best, double random)
{
    double total = 0, mean = 0, kept;
    uint32_t n_left = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (c[i].weight > 0) {
            c[n_left++] = c[i];
            total += c[i].weight;
            mean += c[i].weight * ((double)best - c[i].logit) / sampling->temperature;
        }
    }
    mean /= total;
    float first = -INFINITY, last = 0;
    for (uint32_t i = 0; i < n_left; i++) {
        double gap = ((double)best - c[i].logit) / sampling->temperature;
        c[i].logit = (float)-fabs(gap - mean);
        first = c[i].logit > first ? c[i].logit : first;
        last = c[i].logit < last ? c[i].logit : last;
    }
    struct ranking ranking = rank(s, c, n_left, first, last);
    find_mark(&ranking, mark_of(sampling->typical_p, total), &kept);
    return find_mark(&ranking, random * kept, &kept).id;
}

/* Moves what top_p and min_p keep of the candidates to the front; returns how many. */
static uint32_t keep(struct sampler_candidate *c, uint32_t n, struct sampler_candidate last, float floor)
{
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!ranks_above(last, c[i]) && c[i].logit >= floor)
            c[n_kept++] = c[i];
    }
    return n_kept;
}

/* Draws one of n candidates whose logits are from `min` to `best`.  `total` sums their weights and those of
 * lower candidates that were left out, because every mark is reached before them. */
static int32_t draw_in_order(struct sampler *s, struct sampler_candidate *c, uint32_t n, double total,
                             const struct sampling *sampling, float best, double min, double random)
{
    struct ranking ranking = rank(s, c, n, best, min);
    double kept = total;
    if (cuts_p(sampling)) {
        struct sampler_candidate last = find_mark(&ranking, mark_of(sampling->top_p, total), &kept);
        if (cuts_typical(sampling))
            return draw_typical(s, c, keep(c, n, last, floor_of(sampling, best)), sampling, best, random);
    }
    /* What min_p keeps is a prefix of the same order. */
    double above = sampling->min_p > 0 ? sum_of(c, n, floor_of(sampling, best)) : total;
    return find_mark(&ranking, random * (above < kept ? above : kept), &kept).id;
}

/* Draws one of n candidates, going through them from the last. */
static int32_t draw_backwards(const struct sampler_candidate *c, uint32_t n, double random)
{
    double mark = random * sum_of(c, n, -INFINITY), sum = 0;
    while (n > 1 && (sum += c[n - 1].weight) <= mark)
        n--;
    return c[n - 1].id;
}

/* Draws one of the whole vocabulary, going through it from the last id. */
static int32_t draw_from_all(struct sampler *s, const float *logits, uint32_t vocab,
                             const struct weighing *weighing, double random)
{
    double mark = random * s->scan->sums(s->sums, s->weights, logits, vocab, weighing), sum = 0;
    uint32_t picked = index_of(weighing->best, s->maxima, logits), block = blocks_of(vocab) - 1;
    for (; block > 0 && sum + s->sums[block] <= mark; block--)
        sum += s->sums[block];
    for (uint32_t i = (block + 1) * SCAN_BLOCK; i-- > 0 && sum <= mark;) {
        sum += s->weights[i];
        picked = s->weights[i] > 0 ? i : picked;
    }
    return (int32_t)picked;
}

/* Draws one of n candidates, which are in the order of their ids, after top_k and the other cuts; `random` is
 * in [0, 1). */
static int32_t draw(struct sampler *s, struct sampler_candidate *c, uint32_t n,
                    const struct sampling *sampling, float best, double random)
{
    bool cut_k = sampling->top_k > 0 && sampling->top_k < n;
    if (!cut_k && !cuts_p(sampling) && !cuts_typical(sampling))
        return draw_backwards(c, n, random);
    if (cut_k) {
        make_heap(c, n);
        for (uint32_t i = 0; i < sampling->top_k; i++)
            take_best(c, n - i);
        c += n - sampling->top_k;
        n = sampling->top_k;
    }
    if (!cuts_p(sampling) && cuts_typical(sampling))
        return draw_typical(s, c, n, sampling, best, random);
    float min = best;
    for (uint32_t i = 0; i < n; i++)
        min = c[i].logit < min ? c[i].logit : min;
    return draw_in_order(s, c, n, sum_of(c, n, -INFINITY), sampling, best, min, random);
}

int32_t sampler_pick(struct sampler *s, const float *logits, uint32_t vocab, const uint8_t *allowed,
                     const struct sampling *sampling, uint32_t choice, const int32_t *tokens,
                     uint32_t n_tokens, uint32_t n_prompt)
{
    bool goes_on = must_go_on(sampling, n_tokens - n_prompt);
    if (is_modified(sampling) || allowed || goes_on) {
        memcpy(s->logits, logits, vocab * sizeof *logits);
        if (is_modified(sampling))
            modify(s, vocab, sampling, tokens, n_tokens, n_prompt);
        if (allowed)
            forbid(s->logits, vocab, allowed);
        for (uint32_t i = 0; goes_on && i < sampling->n_end_ids; i++)
            s->logits[sampling->end_ids[i]] = -INFINITY;
        logits = s->logits;
    }
    if (!s->scan->maxima(s->maxima, logits, vocab)) {
        for (uint32_t i = 0; i < vocab; i++)
            s->logits[i] = logits[i] < INFINITY ? logits[i] : -INFINITY;
        logits = s->logits;
        s->scan->maxima(s->maxima, logits, vocab);
    }
    uint32_t n_blocks = blocks_of(vocab);
    float best = largest(s->maxima, n_blocks);
    if (!(best > -INFINITY))
        return -1;
    if (is_greedy(sampling))
        return (int32_t)index_of(best, s->maxima, logits);

    bool cut_k = sampling->top_k > 0 && sampling->top_k < vocab, cut_p = cuts_p(sampling);
    double random = sampler_random(sampling->seed, choice, n_tokens);
    struct weighing weighing = { best, sampling->temperature, cut_p ? -FLT_MAX : floor_of(sampling, best) };
    if (cut_k) {
        /* One candidate more than top_k shows whether top_k cuts anything. */
        float min = top_k_bound(s, n_blocks, sampling->top_k + 1);
        min = min > weighing.floor ? min : weighing.floor;
        return draw(s, s->candidates, collect(s, logits, vocab, min, &weighing), sampling, best, random);
    }
    if (!cut_p && cuts_typical(sampling))
        return draw(s, s->candidates, collect(s, logits, vocab, weighing.floor, &weighing), sampling, best,
                    random);
    if (!cut_p)
        return draw_from_all(s, logits, vocab, &weighing, random);
    /* Candidates that each weigh less than 1/V of what top_p cuts off weigh less than all of it together, so
     * every mark is reached before them.  The bound is a quarter of that, because logarithms and weights are
     * not exact. */
    double total = s->scan->sums(s->sums, s->weights, logits, vocab, &weighing);
    double light = (1 - (double)sampling->top_p) * total / vocab / 4;
    double min = best + sampling->temperature * log(light);
    min = min > -FLT_MAX ? min : -FLT_MAX;
    uint32_t n = collect(s, logits, vocab, (float)min, NULL);
    return draw_in_order(s, s->candidates, n, total, sampling, best, (float)min, random);
}

/* One more than top_k: draw() then sees whether top_k cuts anything, as it does with the full row. */
uint32_t sampler_needs(const struct sampling *sampling, uint32_t n_new)
{
    if (is_modified(sampling) || must_go_on(sampling, n_new))
        return 0;
    if (is_greedy(sampling))
        return 1;
    return sampling->top_k > 0 && sampling->top_k < TOP_K_MAX ? sampling->top_k + 1 : 0;
}

int32_t sampler_pick_best(struct sampler *s, const struct top_k *best, const struct sampling *sampling,
                          uint32_t choice, uint32_t n_tokens)
{
    if (best->n == 0 || !isfinite(best->logits[0]))
        return -1;
    if (is_greedy(sampling))
        return best->ids[0];
    uint32_t max = sampling->top_k + 1 < best->n ? sampling->top_k + 1 : best->n, n = 0;
    float first = best->logits[0], floor = cuts_p(sampling) ? -FLT_MAX : floor_of(sampling, first);
    struct sampler_candidate *c = s->candidates;
    float weights[SCAN_BLOCK];
    _Static_assert((int)SCAN_BLOCK >= (int)TOP_K_MAX, "the top logits fit a block");
    s->scan->weights(weights, best->logits, max, &(struct weighing){ first, sampling->temperature, floor });
    for (uint32_t i = 0; i < max && best->logits[i] >= floor; i++) {
        struct sampler_candidate next = { best->logits[i], weights[i], best->ids[i] };
        uint32_t at = n++;
        for (; at > 0 && c[at - 1].id > next.id; at--)
            c[at] = c[at - 1];
        c[at] = next;
    }
    return draw(s, c, n, sampling, first, sampler_random(sampling->seed, choice, n_tokens));
}

void sampler_logprobs(struct sampler *s, const float *logits, uint32_t vocab, int32_t token, float *logprob,
                      struct cinf_logprob *top, uint32_t n_top)
{
    bool fine = s->scan->maxima(s->maxima, logits, vocab);
    uint32_t n_blocks = blocks_of(vocab);
    struct weighing weighing = { largest(s->maxima, n_blocks), 1, -INFINITY };
    double log_sum = fine && weighing.best > -INFINITY
                         ? weighing.best + log(s->scan->sums(s->sums, s->weights, logits, vocab, &weighing))
                         : NAN;
    *logprob = (float)(logits[token] - log_sum);

    if (n_top == 0)
        return;
    float min = fine ? top_k_bound(s, n_blocks, n_top) : -INFINITY;
    uint32_t n = collect(s, logits, vocab, min, NULL);
    make_heap(s->candidates, n);
    for (uint32_t i = 0; i < n_top; i++) {
        struct sampler_candidate best = take_best(s->candidates, n - i);
        top[i] = (struct cinf_logprob){ best.id, (float)(best.logit - log_sum) };
    }
}

void sampler_logprobs_best(const struct top_k *best, int32_t token, float *logprob, struct cinf_logprob *top,
                           uint32_t n_top)
{
    for (uint32_t i = 0; i < best->n; i++) {
        float value = (float)(best->logits[i] - best->log_sum);
        if (best->ids[i] == token)
            *logprob = value;
        if (i < n_top)
            top[i] = (struct cinf_logprob){ best->ids[i], value };
    }
}
