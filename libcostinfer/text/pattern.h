/* pattern.h - the regular expressions that tokenizer.json splits and replaces by.
 *
 * This is the part of Oniguruma's language that such files use: alternatives, groups, classes with ranges,
 * escapes, general categories and classes in them, every quantifier on one character, greedy and lazy ones on
 * groups, looking ahead, looking behind by one character, anchors, and (?i) for ASCII.  pattern_new() refuses
 * anything else and names the pattern. A finished pattern does not change. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#include "json.h"

struct pattern;

/* Whose \w: that of the patterns in tokenizer.json, or of the pre-tokenizer Whitespace. */
enum pattern_language { PATTERN_ONIGURUMA, PATTERN_RUST };

/* Compiles an expression. CINF_EFORMAT when it is not a regular expression, CINF_EUNSUPPORTED when it uses
 * something else than the above. */
enum cinf_status pattern_new(struct pattern **out, const char *expression, enum pattern_language language);

/* Makes the pattern that matches exactly this text. */
enum cinf_status pattern_new_literal(struct pattern **out, const char *text);

/* Reads {"Regex": expression} or {"String": text}, as tokenizer.json has them. */
enum cinf_status pattern_read(struct pattern **out, const cJSON *settings);
void pattern_free(struct pattern *pattern); /* accepts NULL */

/* Tells whether the pattern can match an empty text. */
bool pattern_may_be_empty(const struct pattern *pattern);

/* A walk over the matches of text[0..n), leftmost first, none overlapping.  Zeroed but for the first three;
 * freed by pattern_search_free(). */
struct pattern_search {
    const struct pattern *pattern;
    const char *text;
    size_t n;
    size_t at;       /* where to look next; beyond n: done */
    size_t last_end; /* of the last match, which is not followed by an empty one there */
    bool any;        /* there was a match */
    uint64_t steps;
    struct pattern_choice *choices;
    size_t n_choices, choices_cap;
};

/* Finds the next match, text[*start..*end); *found is false at the end.  CINF_EINVAL when the text makes the
 * pattern take thousands of steps a byte, which no pattern in use does on any but contrived texts. */
enum cinf_status pattern_next(struct pattern_search *search, bool *found, size_t *start, size_t *end);
void pattern_search_free(struct pattern_search *search);

#endif
