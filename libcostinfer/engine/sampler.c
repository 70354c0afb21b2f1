/* sampler.c - logits to a token.
 *
 * The random number of a token depends on (seed, choice, position) only, so a text does not depend on what
 * else the engine was doing: equal logits give equal tokens.  Candidates are ordered by logit, the smaller
 * id first among equals, which makes every cut well-defined.
 *
 * Nothing sorts the vocabulary.  What is left of it by top_p is the beginning of the order whose sum of
 * weights reaches a mark, and the token that is drawn is where that sum passes another one.  Sums of weights
 * are exact in any order (sampler_scan.h), so candidates are dealt by their logits into ranks, ranks are
 * summed, and only the rank in which a mark lies is put in order.  The result is that of sorting
 * everything, bit by bit. */
#include "sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

struct sampler_candidate {
    float logit;
    float weight; /* of sampler_scan.h: its probability but for a common factor */
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

/* Marks the token; true the first time since the last new stamp. */
static bool first_meeting(struct sampler *s, int32_t token)
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

static void modify(struct sampler *s, uint32_t vocab, const struct sampling *how, const int32_t *tokens,
                   uint32_t n_tokens, uint32_t n_prompt)
{
    for (uint32_t i = 0; i < how->n_bias; i++)
        if ((uint32_t)how->bias[i].token < vocab)
            s->logits[how->bias[i].token] += how->bias[i].bias;

    if (how->repetition_penalty > 0 && how->repetition_penalty != 1) {
        new_stamp(s);
        for (uint32_t i = 0; i < n_tokens; i++) {
            float *logit = &s->logits[tokens[i]];
            if (first_meeting(s, tokens[i]))
                *logit = *logit > 0 ? *logit / how->repetition_penalty : *logit * how->repetition_penalty;
        }
    }
    if (how->presence_penalty != 0 || how->frequency_penalty != 0) {
        new_stamp(s);
        for (uint32_t i = n_prompt; i < n_tokens; i++) {
            s->logits[tokens[i]] -= how->frequency_penalty;
            if (first_meeting(s, tokens[i]))
                s->logits[tokens[i]] -= how->presence_penalty;
        }
    }
}

/* Takes what must not be picked out of the running. */
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

static float largest(const float *x, uint32_t n)
{
    float max = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* Where the first of the largest logits stands. */
static uint32_t place_of(float max, const float *maxima, const float *logits)
{
    uint32_t i = 0;
    while (maxima[i] != max)
        i++;
    i *= SCAN_BLOCK;
    while (logits[i] != max)
        i++;
    return i;
}

static bool goes_before(struct sampler_candidate a, struct sampler_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* The subtree at `i` becomes a heap whose root goes before all others, given that both of i's subtrees are.
 */
static void sift_down(struct sampler_candidate *heap, uint32_t n, uint32_t i)
{
    struct sampler_candidate moved = heap[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && goes_before(heap[child + 1], heap[child]))
            child++;
        if (!goes_before(heap[child], moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* After make_heap, each take_best moves the best of what is left to its end: the best ones then stand at
 * c[n-1], c[n-2] … in order, and only as much is sorted as is asked for. */
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

static bool is_modified(const struct sampling *how)
{
    return how->n_bias > 0 || (how->repetition_penalty > 0 && how->repetition_penalty != 1) ||
           how->presence_penalty != 0 || how->frequency_penalty != 0;
}

static bool is_greedy(const struct sampling *how)
{
    return how->temperature <= 0 || how->top_k == 1;
}

/* top_p measures its share of everything that top_k left, so min_p must not have removed it before. */
static bool cuts_p(const struct sampling *how)
{
    return how->top_p > 0 && how->top_p < 1;
}

/* What min_p leaves needs no order, so it goes first where it may: its threshold is relative to the most
 * likely and therefore the same before and after the other two cuts. */
static float floor_of(const struct sampling *how, float best)
{
    float floor = how->min_p > 0 ? best + how->temperature * logf(how->min_p) : -FLT_MAX;
    return floor > -FLT_MAX ? floor : -FLT_MAX;
}

/* A bound that at least k logits reach, and not many more: each of the k blocks with the largest maxima has
 * one. */
static float reached_by(struct sampler *s, uint32_t n_blocks, uint32_t k)
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

/* Makes candidates, in the order of their ids, of the logits that are not below `least`; returns how many.
 * The weights of all are there already where `weighing` is NULL. */
static uint32_t collect(struct sampler *s, const float *logits, uint32_t vocab, float least,
                        const struct weighing *weighing)
{
    struct sampler_candidate *c = s->candidates;
    uint32_t n = 0;
    for (uint32_t first = 0; first < vocab; first += SCAN_BLOCK) {
        uint32_t end = vocab - first < SCAN_BLOCK ? vocab : first + SCAN_BLOCK;
        if (s->maxima[first / SCAN_BLOCK] < least)
            continue;
        if (weighing)
            s->scan->weights(s->weights + first, logits + first, end - first, weighing);
        for (uint32_t i = first; i < end; i++) {
            c[n] = (struct sampler_candidate){ logits[i], s->weights[i], (int32_t)i };
            n += !(logits[i] < least);
        }
    }
    return n;
}

/* Of the weights of those that are not below `floor`. */
static double sum_of(const struct sampler_candidate *c, uint32_t n, float floor)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i].logit < floor ? 0 : (double)c[i].weight;
    return sum;
}

/* Candidates dealt into ranks: whoever is in a lower one goes before all of a higher one. */
struct ranking {
    struct sampler *s;
    const struct sampler_candidate *c;
    uint32_t n, n_ranks;
};

/* All of the n candidates are between `best` and `least`. */
static struct ranking rank(struct sampler *s, const struct sampler_candidate *c, uint32_t n, double best,
                           double least)
{
    uint32_t n_ranks = n / 8 + 1 < SAMPLER_RANKS ? n / 8 + 1 : SAMPLER_RANKS;
    double steepness = least < best ? (n_ranks - 1) / (best - least) : 0;
    memset(s->rank_sums, 0, n_ranks * sizeof *s->rank_sums);
    for (uint32_t i = 0; i < n; i++) {
        uint16_t at = (uint16_t)((best - (double)c[i].logit) * steepness);
        s->ranks[i] = at;
        s->rank_sums[at] += c[i].weight;
    }
    return (struct ranking){ s, c, n, n_ranks };
}

/* Gathers the members of a rank, which are few, four candidates at a look. */
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

/* In order, the first candidate up to and with which the weights' sum is more than `mark`; *sum is that. */
static int32_t reach(const struct ranking *r, double mark, double *sum)
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
    return next.id;
}

/* One of n candidates between `best` and `least`.  Their weights are in `total`, beside those of others that
 * go after them and before which every mark is reached. */
static int32_t draw_in_order(struct sampler *s, const struct sampler_candidate *c, uint32_t n, double total,
                             const struct sampling *how, float best, double least, double random)
{
    struct ranking ranking = rank(s, c, n, best, least);
    double kept = total;
    if (cuts_p(how))
        reach(&ranking, nextafter(how->top_p * total, 0), &kept);
    /* What min_p leaves is a beginning of the same order. */
    double above = how->min_p > 0 ? sum_of(c, n, floor_of(how, best)) : total;
    return reach(&ranking, random * (above < kept ? above : kept), &kept);
}

/* One of n candidates, the last first. */
static int32_t draw_backwards(const struct sampler_candidate *c, uint32_t n, double random)
{
    double mark = random * sum_of(c, n, -INFINITY), sum = 0;
    while (n > 1 && (sum += c[n - 1].weight) <= mark)
        n--;
    return c[n - 1].id;
}

/* One of all, the last first. */
static int32_t draw_from_all(struct sampler *s, const float *logits, uint32_t vocab,
                             const struct weighing *weighing, double random)
{
    double mark = random * s->scan->sums(s->sums, s->weights, logits, vocab, weighing), sum = 0;
    uint32_t picked = place_of(weighing->best, s->maxima, logits), block = blocks_of(vocab) - 1;
    for (; block > 0 && sum + s->sums[block] <= mark; block--)
        sum += s->sums[block];
    for (uint32_t i = (block + 1) * SCAN_BLOCK; i-- > 0 && sum <= mark;) {
        sum += s->weights[i];
        picked = s->weights[i] > 0 ? i : picked;
    }
    return (int32_t)picked;
}

/* One of the n candidates of top_k, which stand in the order of their ids; `random` in [0, 1). */
static int32_t draw(struct sampler *s, struct sampler_candidate *c, uint32_t n, const struct sampling *how,
                    float best, double random)
{
    bool cut_k = how->top_k < n;
    if (!cut_k && !cuts_p(how))
        return draw_backwards(c, n, random);
    if (cut_k) {
        make_heap(c, n);
        for (uint32_t i = 0; i < how->top_k; i++)
            take_best(c, n - i);
        c += n - how->top_k;
        n = how->top_k;
    }
    float least = best;
    for (uint32_t i = 0; i < n; i++)
        least = c[i].logit < least ? c[i].logit : least;
    return draw_in_order(s, c, n, sum_of(c, n, -INFINITY), how, best, least, random);
}

int32_t sampler_pick(struct sampler *s, const float *logits, uint32_t vocab, const uint8_t *allowed,
                     const struct sampling *how, uint32_t choice, const int32_t *tokens, uint32_t n_tokens,
                     uint32_t n_prompt)
{
    if (is_modified(how) || allowed) {
        memcpy(s->logits, logits, vocab * sizeof *logits);
        if (is_modified(how))
            modify(s, vocab, how, tokens, n_tokens, n_prompt);
        if (allowed)
            forbid(s->logits, vocab, allowed);
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
    if (is_greedy(how))
        return (int32_t)place_of(best, s->maxima, logits);

    bool cut_k = how->top_k > 0 && how->top_k < vocab, cut_p = cuts_p(how);
    double random = sampler_random(how->seed, choice, n_tokens);
    struct weighing weighing = { best, how->temperature, cut_p ? -FLT_MAX : floor_of(how, best) };
    if (cut_k) {
        /* One more than top_k, so that it is known whether it cuts anything. */
        float least = reached_by(s, n_blocks, how->top_k + 1);
        least = least > weighing.floor ? least : weighing.floor;
        return draw(s, s->candidates, collect(s, logits, vocab, least, &weighing), how, best, random);
    }
    if (!cut_p)
        return draw_from_all(s, logits, vocab, &weighing, random);
    /* All that weigh less than a V-th of what top_p leaves out do not weigh more than that together: none of
     * them is before its mark.  A quarter of it, because logarithms and weights are not exact. */
    double total = s->scan->sums(s->sums, s->weights, logits, vocab, &weighing);
    double light = (1 - (double)how->top_p) * total / vocab / 4;
    double least = best + how->temperature * log(light);
    least = least > -FLT_MAX ? least : -FLT_MAX;
    uint32_t n = collect(s, logits, vocab, (float)least, NULL);
    return draw_in_order(s, s->candidates, n, total, how, best, (float)least, random);
}

/* One more than top_k, so that whether top_k cuts anything is the same as with all of them. */
uint32_t sampler_needs(const struct sampling *how)
{
    if (is_modified(how))
        return 0;
    if (is_greedy(how))
        return 1;
    return how->top_k > 0 && how->top_k < PICK_MAX ? how->top_k + 1 : 0;
}

int32_t sampler_pick_best(struct sampler *s, const struct picked *best, const struct sampling *how,
                          uint32_t choice, uint32_t n_tokens)
{
    if (best->n == 0 || !isfinite(best->logits[0]))
        return -1;
    if (is_greedy(how))
        return best->ids[0];
    uint32_t most = how->top_k + 1 < best->n ? how->top_k + 1 : best->n, n = 0;
    float first = best->logits[0], floor = cuts_p(how) ? -FLT_MAX : floor_of(how, first);
    struct sampler_candidate *c = s->candidates;
    float weights[SCAN_BLOCK];
    _Static_assert((int)SCAN_BLOCK >= (int)PICK_MAX, "the best fit a block");
    s->scan->weights(weights, best->logits, most, &(struct weighing){ first, how->temperature, floor });
    for (uint32_t i = 0; i < most && best->logits[i] >= floor; i++) {
        struct sampler_candidate next = { best->logits[i], weights[i], best->ids[i] };
        uint32_t at = n++;
        for (; at > 0 && c[at - 1].id > next.id; at--)
            c[at] = c[at - 1];
        c[at] = next;
    }
    return draw(s, c, n, how, first, sampler_random(how->seed, choice, n_tokens));
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
    float least = fine ? reached_by(s, n_blocks, n_top) : -INFINITY;
    uint32_t n = collect(s, logits, vocab, least, NULL);
    make_heap(s->candidates, n);
    for (uint32_t i = 0; i < n_top; i++) {
        struct sampler_candidate best = take_best(s->candidates, n - i);
        top[i] = (struct cinf_logprob){ best.id, (float)(best.logit - log_sum) };
    }
}

void sampler_logprobs_best(const struct picked *best, int32_t token, float *logprob, struct cinf_logprob *top,
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
