/* speculate.h - guesses at how a text goes on, which a step checks in one go.
 *
 * A text that repeats itself goes on as it did the last time: the guess is what followed the latest earlier
 * occurrence of its last tokens.  Guesses never change a text, only how many steps it takes. */
#ifndef SPECULATE_H
#define SPECULATE_H

#include <stdint.h>

enum {
    DRAFT_MAX = 8,       /* tokens guessed at once */
    DRAFT_MATCH_MAX = 3, /* a longer match is not looked for */
};

/* The guess for one text, and how good such guesses were there. */
struct draft {
    float right[DRAFT_MATCH_MAX]; /* share that came true of late, after matches of 1, 2, 3 tokens */
    uint32_t from;                /* the position of the first guessed token */
    uint32_t match;               /* tokens before it that have occurred before; 0: nothing was found */
    int32_t tokens[DRAFT_MAX];
};

/* What a step is expected to give, while it is being put together. */
struct draft_step {
    float tokens;   /* the number of its texts, and the guesses in it by how likely they are */
    float time;     /* in steps of one row */
    float row_time; /* what one row more takes */
};

void draft_init(struct draft *draft);

/* Guesses what follows ids[0..n), n > 0. */
void draft_find(struct draft *draft, const int32_t *ids, uint32_t n);

/* How many of the guessed tokens, at most `most`, pay in this step; they are added to it. */
uint32_t draft_length(const struct draft *draft, uint32_t most, struct draft_step *step);

/* The text has become ids[0..n): which guesses have come true.  Also after a step without them, so that
 * finding out costs nothing. */
void draft_learn(struct draft *draft, const int32_t *ids, uint32_t n);

#endif
