/* step.h - one step: rows of one model's requests, run together, charged and handed out. */
#ifndef STEP_H
#define STEP_H

#include <stdint.h>

#include <costinfer/status.h>

#include "sampler.h"

struct cinf_engine;
struct cinf_model;
struct cinf_share;
struct sequence;

enum { SAMPLERS_MAX = 16 };

/* A row's next token, where it was sampled before the rows were gone through in order. */
struct sampled_ahead {
    const float *logits; /* NULL: it was not */
    int32_t token;
};

/* The step that is being built, run or handed out.  The scheduler's thread uses it again for every step; the
 * arrays are parallel because a batch wants them so. */
struct step {
    struct cinf_model *model;
    uint32_t n_rows, rows_cap;
    int32_t *tokens;                     /* [rows_cap], and so are the next ones */
    uint32_t *positions, *slots;         /* of the row's token, and of its sequence */
    uint8_t *wants_logits;               /* LOGITS_NONE, LOGITS_ALL or logits_top_k() */
    struct sequence **sequences;         /* whose row it is */
    struct sampled_ahead *sampled_ahead; /* after the run */
    struct cinf_share *shares;           /* one a request */
    struct sampler samplers[SAMPLERS_MAX];
    uint32_t n_samplers; /* as many as threads can sample concurrently */
};

/* Room for steps of `rows` rows and for sampling from `vocab` logits. */
enum cinf_status step_reserve(struct step *step, uint32_t rows, uint32_t vocab);
void step_free(struct step *step);

/* Builds and runs the model's next step, charges it, hands its tokens out and ends the requests it finished.
 * Does nothing if every request is paused. */
void step_run(struct cinf_engine *e, struct cinf_model *model);

#endif
