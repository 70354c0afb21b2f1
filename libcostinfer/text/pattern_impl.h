/* pattern_impl.h - what the files of the regular expressions share: the program, its classes and the parser.
 *
 * pattern_parse.c writes a program, pattern_class.c reads the classes in it and looks characters up in them,
 * and pattern_match.c runs it.  Nothing else includes this header; others see pattern.h.
 *
 * Jumps are relative, so that a piece of program can be copied: x{2,4} is xx(x(x)?)?. */
#ifndef PATTERN_IMPL_H
#define PATTERN_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#include "pattern.h"

/* Limits of a program; a pattern beyond one of them is unsupported. */
enum {
    PROGRAM_MAX = 4096, /* instructions; the longest pattern in use has about 100 */
    DEPTH_MAX = 32,     /* of groups and classes */
};

/* One part of a class. */
struct class_item {
    enum { ITEM_RANGE, ITEM_CATEGORIES, ITEM_WORD, ITEM_SPACE, ITEM_CLASS } is;
    bool negated;
    uint32_t low, high;  /* ITEM_RANGE; ITEM_CLASS: low is its index */
    uint32_t categories; /* one bit each */
};

struct class
{
    uint32_t first, n; /* in items */
    bool negated;
    uint64_t ascii[2]; /* what it holds of the first 128 characters; `negated` is in it */
};

enum operation {
    OP_CLASS,   /* one character of class a */
    OP_LITERAL, /* the character a */
    OP_REPEAT,  /* low to high characters of class a, as `how` says */
    OP_SPLIT,   /* go on at +a; failing that, at +b */
    OP_JUMP,    /* go on at +a */
    OP_LOOK,    /* whether the program from here to +a, which ends in OP_MATCH, matches; negated by b */
    OP_BEHIND,  /* whether the character before is of class a; negated by b */
    OP_LINE_START,
    OP_LINE_END,
    OP_TEXT_START,
    OP_TEXT_END,
    OP_LAST_LINE_END, /* the end, or a line feed before it */
    OP_WORD_EDGE,     /* negated by b */
    OP_MATCH,
};

enum greed { GREEDY, LAZY, POSSESSIVE };

struct instruction {
    enum operation is;
    enum greed how;
    int32_t a, b;
    int32_t low, high;
};

struct pattern {
    char *expression;
    enum pattern_language language;
    bool nullable;
    struct instruction *program;
    struct class *classes;
    struct class_item *items;
    size_t n_program, program_cap, n_classes, classes_cap, n_items, items_cap;
};

/* What OP_LOOK does with its inner program. */
enum { LOOK_AHEAD, LOOK_NOT, LOOK_ATOMIC };

struct parser {
    struct pattern *p;
    const char *text; /* terminated */
    size_t at;
    int depth, looks;
    bool fold;                /* (?i) */
    uint32_t last_letter;     /* under (?i), when the last thing read was one; else 0 */
    struct class_item *items; /* of the classes that have not ended: an inner one's behind its outer one's */
    size_t n_items, items_cap;
};

/* ---- Classes (pattern_class.c) ------------------------------------------------------------- */

bool pattern_is_word(const struct pattern *p, uint32_t c);
bool pattern_class_looked_up(const struct pattern *p, const struct class *k, uint32_t c);

/* A byte that is not UTF-8 is UTF8_BAD, which only negated classes hold. */
static inline bool pattern_class_holds(const struct pattern *p, uint32_t class,
                                       uint32_t c) /* NOLINT(misc-no-recursion) */
{
    const struct class *k = &p->classes[class];
    if (c < 128)
        return k->ascii[c / 64] >> c % 64 & 1;
    return pattern_class_looked_up(p, k, c);
}

static inline bool pattern_is_letter(uint32_t c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

enum cinf_status pattern_add_item(struct parser *r, struct class_item item);

/* Makes a class of the parser's items[first...) and returns its index through *out. */
enum cinf_status pattern_add_class(struct parser *r, size_t first, bool negated, int32_t *out);

/* A range, and under (?i) the other case of ASCII's letters with the two letters outside that fold to them.
 */
enum cinf_status pattern_add_range(struct parser *r, uint32_t low, uint32_t high);

/* What follows a backslash: *is_class tells a class, added to the items, from the character *c. */
enum cinf_status pattern_read_escape(struct parser *r, bool *is_class, uint32_t *c);

/* What follows a '['. */
enum cinf_status pattern_read_class(struct parser *r, int32_t *out);

/* ---- Reading (pattern_parse.c) ------------------------------------------------------------- */

enum cinf_status pattern_malformed(const struct parser *r, const char *what);
enum cinf_status pattern_unsupported(const struct parser *r, const char *what);
enum cinf_status pattern_no_memory(const struct parser *r);

/* Skips `text` if it is next, and tells whether it was. */
bool pattern_take(struct parser *r, const char *text);

/* The character at hand, not the end. */
uint32_t pattern_take_character(struct parser *r);

#endif
