/* speculate.h - draft tokens: predictions of a sequence's next tokens, which one step verifies together.
 *
 * A sequence that repeats itself is predicted to continue as it did before: the draft is what followed the
 * latest earlier occurrence of its last tokens.  Drafts never change a sequence, only how many steps it
 * takes. */
#ifndef SPECULATE_H
#define SPECULATE_H

#include <stdint.h>

enum {
    DRAFT_MAX = 8,       /* tokens of a draft */
    DRAFT_MATCH_MAX = 3, /* tokens of the longest match that is looked for */
};

/* The draft of one sequence, and how often such drafts were accepted there. */
struct draft {
    float accepted[DRAFT_MATCH_MAX]; /* recent share that was right, after matches of 1, 2, 3 tokens */
    uint32_t from;                   /* the position of the first draft token */
    uint32_t match;                  /* how many tokens before it have occurred earlier; 0: no draft */
    int32_t tokens[DRAFT_MAX];
};

/* What a step is expected to give, while it is being built. */
struct draft_step {
    float tokens;   /* one a sequence, and each draft token by its likelihood */
    float time;     /* in steps of one row */
    float row_time; /* what an additional row takes, in the same unit */
};

void draft_init(struct draft *draft);

/* Drafts what follows ids[0..n), n > 0. */
void draft_find(struct draft *draft, const int32_t *ids, uint32_t n);

/* How many of the draft tokens, at most `max`, pay in this step, to which they are then added. */
uint32_t draft_length(const struct draft *draft, uint32_t max, struct draft_step *step);

/* Learns from ids[0..n), what the sequence has become, which draft tokens were right.  It is called after
 * steps without draft rows as well: judging a draft costs no row. */
void draft_learn(struct draft *draft, const int32_t *ids, uint32_t n);

#endif
