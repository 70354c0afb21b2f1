/* speculate.c - see speculate.h.
 *
 * The question a reader will ask: how many tokens to guess?  A row more in a step takes a known share of the
 * step's time (the scheduler measures it once a model), and what it gives is known from how often guesses
 * came true in this text.  As long as that makes more tokens a second of the whole step, one more is added.
 * Text that does not repeat itself is then left alone after a few wrong guesses, and as guesses are looked at
 * even when no row was spent on them, a text that begins to repeat itself is noticed. */
#include "speculate.h"

#include <stdbool.h>

/* Weight of the newest guess among those before it. */
static const float newest = 1.0f / 16;

/* A guess must promise so many times what it takes: that is known roughly, and where little can be won little
 * shall be lost. */
static const float margin = 1.5f;

void draft_init(struct draft *draft)
{
    *draft = (struct draft){ .right = { 0.125f, 0.25f, 0.5f } };
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
    /* Where the text ends the guess goes on with itself: it is in a loop then. */
    for (uint32_t i = 0; i < DRAFT_MAX && best > 0; i++)
        draft->tokens[i] = ids[after + i % (n - after)];
}

uint32_t draft_length(const struct draft *draft, uint32_t most, struct draft_step *step)
{
    uint32_t n = 0;
    float likely = 1;
    if (draft->match == 0)
        return 0;
    while (n < most && n < DRAFT_MAX) {
        likely *= draft->right[draft->match - 1];
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
    float *right = &draft->right[draft->match - 1];
    for (uint32_t i = 0; i < DRAFT_MAX && draft->from + i < n; i++) {
        bool hit = ids[draft->from + i] == draft->tokens[i];
        *right += ((hit ? 1.0f : 0.0f) - *right) * newest;
        if (!hit)
            break;
    }
    draft->match = 0;
}
