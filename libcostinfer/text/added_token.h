/* added_token.h - tokens that were added to a finished vocabulary: they are found in a text before the rest
 * of it is cut into pieces.
 *
 * Built by added_put() and added_seal(); from then on read only. */
#ifndef ADDED_TOKEN_H
#define ADDED_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#include "normalizer.h"

/* As Hugging Face's AddedToken has them. */
enum added_flags {
    ADDED_SPECIAL = 1,     /* a token only where the caller asks for special ones, else ordinary text */
    ADDED_LSTRIP = 2,      /* takes the spaces before it */
    ADDED_RSTRIP = 4,      /* takes the spaces behind it */
    ADDED_SINGLE_WORD = 8, /* not a token where a word goes on on either side */
    ADDED_NORMALIZED =
        16, /* looked for in the second round, in what the first left of the text, normalized */
};

struct added_token {
    char *text; /* sealed: as normalized, where it is looked for in normalized text */
    size_t n;
    uint32_t id;
    uint32_t order; /* of the put */
    unsigned flags;
};

enum { ADDED_ROUNDS = 2 };

struct added_tokens {
    struct added_token *tokens; /* sealed: by round, then by text */
    size_t n_tokens, tokens_cap;
    struct added_round {
        uint32_t from[257]; /* where those begin whose first byte is at least this one */
        int only;           /* the byte that all of them begin with, or -1 */
        bool has_ordinary;  /* one at least is not special */
    } rounds[ADDED_ROUNDS];
};

/* Adds a token of n >= 1 bytes.  What was first said of a text holds. */
enum cinf_status added_put(struct added_tokens *a, const char *text, size_t n, uint32_t id, unsigned flags);

/* Ends the tokens.  CINF_EUNSUPPORTED for one of which the normalizer leaves nothing. */
enum cinf_status added_seal(struct added_tokens *a, const struct normalizer *normalizer);
void added_free(struct added_tokens *a); /* leaves *a zeroed */

/* Whether a round can find anything. */
bool added_any(const struct added_tokens *a, int round, bool special);

/* One round over text[0..n), which is a text of its own: nothing beyond it is looked at.  Zeroed but for the
 * first five. */
struct added_search {
    const struct added_tokens *added;
    int round;
    bool special; /* special tokens count */
    const char *text;
    size_t n;
    size_t at;         /* where to look next */
    size_t taken;      /* the end of the last token, with the spaces that it took */
    size_t spaces_end; /* of the last spaces behind a token */
};

/* text[start..end), the spaces that the token takes included. */
struct added_match {
    size_t start, end;
    int32_t id;
};

/* The next token: of those that begin leftmost, the longest.  False when there is none. */
bool added_next(struct added_search *s, struct added_match *out);

#endif
