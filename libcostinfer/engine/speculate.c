/* speculate.c - see speculate.h.
 *
 * The question a reader will ask: how many draft tokens?  An additional row takes a known share of a step's
 * time (measured once a model, while it loads), and its worth is known from how often drafts were accepted in
 * this sequence.  One more is added as long as that raises the tokens per second of the whole step.  A
 * sequence that does not repeat itself gets no drafts after a few wrong ones; because drafts are judged even
 * when no row was spent on them, one that begins to repeat itself is noticed. */
#include "speculate.h"

#include <stdbool.h>

/* Weight of the newest draft token in the running share. */
static const float newest = 1.0f / 16;

/* A draft token must promise this many times what it takes: both are known roughly, and where little can be
 * won, little is risked. */
static const float margin = 1.5f;

void draft_init(struct draft *draft)
{
    *draft = (struct draft){ .accepted = { 0.125f, 0.25f, 0.5f } };
}

void draft_find(struct draft *draft, const int32_t *ids, uint32_t n)
{
    uint32_t best = 0, after = 0;
    for (uint32_t end = n - 1; end > 0 && best < DRAFT_MATCH_MAX; end--) {
        uint32_t match = 0;
        while (match < DRAFT_MATCH_MAX && match < end && ids[end - 1 - match] == ids[n - 1 - match])
            match++;
        if (match > best) {
            best = match;
            after = end;
        }
    }
    draft->from = n;
    draft->match = best;
    /* At the end of the sequence the draft continues with itself, as a loop does. */
    for (uint32_t i = 0; i < DRAFT_MAX && best > 0; i++)
        draft->tokens[i] = ids[after + i % (n - after)];
}

uint32_t draft_length(const struct draft *draft, uint32_t max, struct draft_step *step)
{
    uint32_t n = 0;
    float likely = 1;
    if (draft->match == 0)
        return 0;
    while (n < max && n < DRAFT_MAX) {
        likely *= draft->accepted[draft->match - 1];
        if (likely * step->time <= margin * step->row_time * step->tokens)
            break;
        step->tokens += likely;
        step->time += step->row_time;
        n++;
    }
    return n;
}

void draft_learn(struct draft *draft, const int32_t *ids, uint32_t n)
{
    if (draft->match == 0)
        return;
    float *accepted = &draft->accepted[draft->match - 1];
    for (uint32_t i = 0; i < DRAFT_MAX && draft->from + i < n; i++) {
        bool hit = ids[draft->from + i] == draft->tokens[i];
        *accepted += ((hit ? 1.0f : 0.0f) - *accepted) * newest;
        if (!hit)
            break;
    }
    draft->match = 0;
}
