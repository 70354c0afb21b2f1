/* sampler.c - logits to a token.
 *
 * The random number of a token depends on (seed, choice, position) only, so a text does not depend on what
 * else the engine was doing: equal logits give equal tokens.  Candidates are ordered by logit, the smaller
 * id first among equals, which makes every cut well-defined. */
#include "sampler.h"

#include <math.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

struct sampler_candidate {
    float logit;
    float weight; /* exp((logit - the largest) / temperature): its probability but for the common factor */
    int32_t id;
};

enum cinf_status sampler_reserve(struct sampler *s, uint32_t vocab)
{
    if (vocab <= s->cap)
        return CINF_OK;
    struct sampler bigger = { .cap = vocab };
    bigger.logits = mem_new(vocab, sizeof *bigger.logits);
    bigger.marks = mem_new(vocab, sizeof *bigger.marks);
    bigger.candidates = mem_new(vocab, sizeof *bigger.candidates);
    if (!bigger.logits || !bigger.marks || !bigger.candidates) {
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
    mem_free(s->candidates);
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

static bool is_allowed(const uint8_t *allowed, uint32_t id)
{
    return !allowed || (allowed[id / 8] >> id % 8 & 1);
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

static int32_t most_likely(const float *logits, uint32_t vocab, const uint8_t *allowed)
{
    int32_t best = -1;
    for (uint32_t i = 0; i < vocab; i++)
        if ((best < 0 || logits[i] > logits[best]) && isfinite(logits[i]) && is_allowed(allowed, i))
            best = (int32_t)i;
    return best;
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
    return how->min_p > 0 ? best + how->temperature * logf(how->min_p) : -INFINITY;
}

/* One of the n candidates, which stand in the order of their ids; `random` in [0, 1). */
static int32_t draw(struct sampler_candidate *c, uint32_t n, const struct sampling *how,
                    struct sampler_candidate best, double random)
{
    uint32_t k = how->top_k > 0 && how->top_k < n ? how->top_k : n;
    bool cut_p = cuts_p(how), ordered = k < n || cut_p;
    if (ordered)
        make_heap(c, n);
    /* The candidates in question are the k at c[n-1], c[n-2] … when they are ordered, as far as they have
     * been taken from the heap, and all n otherwise. */
    uint32_t heap = n;
    while (k < n && heap > n - k)
        take_best(c, heap--);
    double total = 0, kept = 0;
    for (uint32_t i = n - k; i < n; i++) {
        c[i].weight = expf((c[i].logit - best.logit) / how->temperature);
        total += c[i].weight;
    }

    uint32_t n_kept = k;
    if (cut_p) {
        float floor = floor_of(how, best.logit);
        n_kept = 0;
        while (n_kept < k && (n_kept == 0 || kept < how->top_p * total)) {
            if (heap == n - n_kept)
                take_best(c, heap--);
            const struct sampler_candidate *next = &c[n - 1 - n_kept];
            if (n_kept > 0 && next->logit < floor)
                break;
            kept += next->weight;
            n_kept++;
        }
    } else {
        kept = total;
    }

    double target = random * kept, sum = 0;
    int32_t picked = best.id;
    for (uint32_t i = 0; i < n_kept && sum <= target; i++) {
        sum += c[n - 1 - i].weight;
        picked = c[n - 1 - i].id;
    }
    return picked;
}

int32_t sampler_pick(struct sampler *s, const float *logits, uint32_t vocab, const uint8_t *allowed,
                     const struct sampling *how, uint32_t choice, const int32_t *tokens, uint32_t n_tokens,
                     uint32_t n_prompt)
{
    if (is_modified(how)) {
        memcpy(s->logits, logits, vocab * sizeof *logits);
        modify(s, vocab, how, tokens, n_tokens, n_prompt);
        logits = s->logits;
    }
    int32_t best = most_likely(logits, vocab, allowed);
    if (best < 0 || is_greedy(how))
        return best;

    float floor = cuts_p(how) ? -INFINITY : floor_of(how, logits[best]);
    struct sampler_candidate *c = s->candidates, first = { .logit = logits[best], .id = best };
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        if (isfinite(logits[i]) && !(logits[i] < floor) && is_allowed(allowed, i))
            c[n++] = (struct sampler_candidate){ .logit = logits[i], .id = (int32_t)i };
    }
    return draw(c, n, how, first, sampler_random(how->seed, choice, n_tokens));
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
    float floor = cuts_p(how) ? -INFINITY : floor_of(how, best->logits[0]);
    struct sampler_candidate *c = s->candidates, first = { .logit = best->logits[0], .id = best->ids[0] };
    for (uint32_t i = 0; i < most; i++) {
        struct sampler_candidate next = { .logit = best->logits[i], .id = best->ids[i] };
        if (!isfinite(next.logit) || next.logit < floor)
            continue;
        uint32_t at = n++;
        for (; at > 0 && c[at - 1].id > next.id; at--)
            c[at] = c[at - 1];
        c[at] = next;
    }
    return draw(c, n, how, first, sampler_random(how->seed, choice, n_tokens));
}

void sampler_logprobs(struct sampler *s, const float *logits, uint32_t vocab, int32_t token, float *logprob,
                      struct cinf_logprob *top, uint32_t n_top)
{
    float max = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] > max)
            max = logits[i];
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++)
        sum += expf(logits[i] - max);
    double log_sum = max + log(sum);
    *logprob = (float)(logits[token] - log_sum);

    if (n_top == 0)
        return;
    for (uint32_t i = 0; i < vocab; i++)
        s->candidates[i] = (struct sampler_candidate){ .logit = logits[i], .id = (int32_t)i };
    make_heap(s->candidates, vocab);
    for (uint32_t i = 0; i < n_top; i++) {
        struct sampler_candidate best = take_best(s->candidates, vocab - i);
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
