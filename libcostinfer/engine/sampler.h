/* sampler.h - from logits to a token.  A new sampling option must be known to sampler_needs(), too. */
#ifndef SAMPLER_H
#define SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/request.h>

#include "backend.h"
#include "sampler_scan.h"

enum { SAMPLER_RANKS = 1024 };

/* Scratch space of one thread, sized for the largest vocabulary of its engine. */
struct sampler {
    uint32_t cap;
    const struct sampler_scan *scan;
    float *logits;   /* [cap] */
    uint32_t *marks; /* [cap] tokens seen in this call carry `stamp` */
    uint32_t stamp;
    float *maxima;                                  /* [blocks of cap] the largest logit of each */
    float *weights;                                 /* [blocks of cap, SCAN_BLOCK] */
    double *sums;                                   /* [blocks of cap] of weights */
    struct sampler_candidate *candidates, *of_rank; /* [cap] */
    uint16_t *ranks;                                /* [cap + 3] the rank of each candidate */
    double rank_sums[SAMPLER_RANKS];
};

/* How one request samples; struct cinf_request_options says what each member does. */
struct sampling {
    float temperature, top_p, min_p, typical_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint32_t top_k;
    uint64_t seed;
    const struct cinf_logit_bias *bias;
    uint32_t n_bias;
    const int32_t *end_ids; /* not sampled among the first min_tokens: end-of-text and stop_token_ids */
    uint32_t n_end_ids;
    uint32_t min_tokens;
};

enum cinf_status sampler_reserve(struct sampler *s, uint32_t vocab);
void sampler_free(struct sampler *s);

/* Returns a token for position `n_tokens` of a sequence whose tokens so far are tokens[0..n_tokens), the
 * first n_prompt of them the prompt.  logits [vocab]; only ids for which allowed[id / 8] has bit id % 8 are
 * sampled (NULL: all).  -1 when no logit of an allowed id is finite: the model's numbers are broken. */
int32_t sampler_pick(struct sampler *s, const float *logits, uint32_t vocab, const uint8_t *allowed,
                     const struct sampling *sampling, uint32_t choice, const int32_t *tokens,
                     uint32_t n_tokens, uint32_t n_prompt);

/* How many top logits suffice for sampler_pick_best() to return what sampler_pick() would after `n_new`
 * sampled tokens and for all later ones; 0 if it needs the full row. */
uint32_t sampler_needs(const struct sampling *sampling, uint32_t n_new);
int32_t sampler_pick_best(struct sampler *sampler, const struct top_k *best, const struct sampling *sampling,
                          uint32_t choice, uint32_t n_tokens);

/* log-softmax of the unmodified logits [vocab]: of `token` in *logprob, and of the n_top most likely tokens,
 * most likely first and the smaller id first among equals. */
void sampler_logprobs(struct sampler *s, const float *logits, uint32_t vocab, int32_t token, float *logprob,
                      struct cinf_logprob *top, uint32_t n_top);

/* The same from the top logits: `token` is one of them, and n_top is at most their number. */
void sampler_logprobs_best(const struct top_k *best, int32_t token, float *logprob, struct cinf_logprob *top,
                           uint32_t n_top);

/* Returns a number in [0, 1) that depends on its arguments alone. */
double sampler_random(uint64_t seed, uint32_t choice, uint32_t position);

#endif
