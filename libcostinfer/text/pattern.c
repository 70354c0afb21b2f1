/* pattern.c - a regular expression becomes a short program, and a backtracking machine runs it.
 *
 * Backtracking gives what Oniguruma gives, the first alternative that matches, and so does everything that
 * trained with it.  Its price is patterns that take a time exponential in the text: the machine counts its
 * steps and fails at a bound that is linear in the text.  A quantifier on one character is one instruction
 * with one entry on the stack, however far it runs.
 *
 * Jumps are relative, so that a piece of program can be copied: x{2,4} is xx(x(x)?)?. */
#include "pattern.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "json.h"
#include "mem.h"
#include "unicode_class.h"
#include "utf8.h"

enum {
    PROGRAM_MAX = 4096, /* instructions; the longest pattern in use has about 100 */
    DEPTH_MAX = 32,     /* of groups and classes */
    REPEAT_MAX = 1000,
    UNLIMITED = INT32_MAX,
    LOOKS_MAX = 8, /* looking ahead within looking ahead */
};

/* Steps that a search may take: for each byte, and to begin with. */
#define STEPS_PER_BYTE 4096u
#define STEPS_FIRST    (1u << 22)

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

/* ---- Classes ------------------------------------------------------------------------------- */

static bool class_holds(const struct pattern *p, uint32_t class, uint32_t c);

/* Oniguruma's \w has six numbers of Latin-1, and lacks the two joiners, which Rust's has. */
static bool is_word(const struct pattern *p, uint32_t c)
{
    if (p->language == PATTERN_ONIGURUMA) {
        if (c == 0x200C || c == 0x200D)
            return false;
        if (c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0xBC && c <= 0xBE))
            return true;
    }
    return c != UTF8_BAD && unicode_is_word(c);
}

/* Nesting is bounded by the parser. */
static bool item_holds(const struct pattern *p, const struct class_item *item,
                       uint32_t c) /* NOLINT(misc-no-recursion) */
{
    switch (item->is) {
    case ITEM_RANGE:
        return c >= item->low && c <= item->high;
    case ITEM_CATEGORIES:
        return c != UTF8_BAD && (item->categories >> unicode_category(c) & 1) != 0;
    case ITEM_WORD:
        return is_word(p, c);
    case ITEM_SPACE:
        return c != UTF8_BAD && unicode_class(c) == UNICODE_SPACE;
    case ITEM_CLASS:
        return class_holds(p, item->low, c);
    }
    return false;
}

static bool class_looked_up(const struct pattern *p, const struct class *k,
                            uint32_t c) /* NOLINT(misc-no-recursion) */
{
    for (uint32_t i = 0; i < k->n; i++) {
        const struct class_item *item = &p->items[k->first + i];
        if (item_holds(p, item, c) != item->negated)
            return !k->negated;
    }
    return k->negated;
}

/* A byte that is not UTF-8 is UTF8_BAD, which only negated classes hold. */
static bool class_holds(const struct pattern *p, uint32_t class, uint32_t c) /* NOLINT(misc-no-recursion) */
{
    const struct class *k = &p->classes[class];
    if (c < 128)
        return k->ascii[c / 64] >> c % 64 & 1;
    return class_looked_up(p, k, c);
}

/* ---- Reading a pattern --------------------------------------------------------------------- */

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

static enum cinf_status malformed(const struct parser *r, const char *what)
{
    return cinf_fail(CINF_EFORMAT, "the pattern \"%.200s\" is not a regular expression: %s at byte %zu",
                     r->text, what, r->at);
}

static enum cinf_status unsupported(const struct parser *r, const char *what)
{
    return cinf_fail(CINF_EUNSUPPORTED, "the pattern \"%.200s\" is not supported: %s at byte %zu", r->text,
                     what, r->at);
}

static enum cinf_status no_memory(const struct parser *r)
{
    return cinf_fail(CINF_ENOMEM, "no memory for the pattern \"%.200s\"", r->text);
}

static bool take(struct parser *r, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(r->text + r->at, text, n) != 0)
        return false;
    r->at += n;
    return true;
}

/* The character at hand, not the end. */
static uint32_t take_character(struct parser *r)
{
    size_t used;
    uint32_t c = utf8_read(r->text + r->at, strlen(r->text + r->at), &used);
    r->at += used;
    return c;
}

static enum cinf_status emit(struct parser *r, struct instruction instruction)
{
    struct pattern *p = r->p;
    if (p->n_program == PROGRAM_MAX)
        return unsupported(r, "it is too long");
    if (!mem_reserve(&p->program, &p->program_cap, p->n_program + 1, sizeof *p->program))
        return no_memory(r);
    p->program[p->n_program++] = instruction;
    return CINF_OK;
}

/* Puts an instruction before program[at...). */
static enum cinf_status insert(struct parser *r, size_t at, struct instruction instruction)
{
    struct pattern *p = r->p;
    TRY(emit(r, instruction));
    memmove(p->program + at + 1, p->program + at, (p->n_program - 1 - at) * sizeof *p->program);
    p->program[at] = instruction;
    return CINF_OK;
}

static enum cinf_status add_item(struct parser *r, struct class_item item)
{
    if (!mem_reserve(&r->items, &r->items_cap, r->n_items + 1, sizeof *r->items))
        return no_memory(r);
    r->items[r->n_items++] = item;
    return CINF_OK;
}

/* Makes a class of the parser's items[first...) and returns its index through *out. */
static enum cinf_status add_class(struct parser *r, size_t first, bool negated, int32_t *out)
{
    struct pattern *p = r->p;
    if (p->n_classes == PROGRAM_MAX)
        return unsupported(r, "it has too many classes");
    size_t n = r->n_items - first;
    if (!mem_reserve(&p->classes, &p->classes_cap, p->n_classes + 1, sizeof *p->classes) ||
        !mem_reserve(&p->items, &p->items_cap, p->n_items + n, sizeof *p->items))
        return no_memory(r);
    memcpy(p->items + p->n_items, r->items + first, n * sizeof *p->items);
    r->n_items = first;
    struct class *k = &p->classes[p->n_classes];
    *k = (struct class){ .first = (uint32_t)p->n_items, .n = (uint32_t)n, .negated = negated };
    p->n_items += n;
    for (uint32_t c = 0; c < 128; c++)
        if (class_looked_up(p, k, c))
            k->ascii[c / 64] |= (uint64_t)1 << c % 64;
    *out = (int32_t)p->n_classes++;
    return CINF_OK;
}

static bool is_letter(uint32_t c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

/* A range, and under (?i) the other case of ASCII's letters with the two letters outside that fold to them.
 */
static enum cinf_status add_range(struct parser *r, uint32_t low, uint32_t high)
{
    TRY(add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = low, .high = high }));
    if (!r->fold)
        return CINF_OK;
    if (high >= 128)
        return unsupported(r, "(?i) with characters outside of ASCII");
    for (uint32_t c = low; c <= high; c++) {
        if (is_letter(c))
            TRY(add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = c ^ 32, .high = c ^ 32 }));
        if ((c | 32) == 's') /* U+017F, the long s */
            TRY(add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = 0x17F, .high = 0x17F }));
        if ((c | 32) == 'k') /* U+212A, the sign of Kelvin */
            TRY(add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = 0x212A, .high = 0x212A }));
    }
    return CINF_OK;
}

#define BIT(name) (1u << CATEGORY_##name)

static const struct {
    const char *name, *long_name;
    uint32_t categories;
} category_names[] = {
    { "L", "letter", BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO) },
    { "LC", "cased_letter", BIT(LU) | BIT(LL) | BIT(LT) },
    { "Lu", "uppercase_letter", BIT(LU) },
    { "Ll", "lowercase_letter", BIT(LL) },
    { "Lt", "titlecase_letter", BIT(LT) },
    { "Lm", "modifier_letter", BIT(LM) },
    { "Lo", "other_letter", BIT(LO) },
    { "M", "mark", BIT(MN) | BIT(MC) | BIT(ME) },
    { "Mn", "nonspacing_mark", BIT(MN) },
    { "Mc", "spacing_mark", BIT(MC) },
    { "Me", "enclosing_mark", BIT(ME) },
    { "N", "number", BIT(ND) | BIT(NL) | BIT(NO) },
    { "Nd", "decimal_number", BIT(ND) },
    { "Nl", "letter_number", BIT(NL) },
    { "No", "other_number", BIT(NO) },
    { "P", "punctuation", BIT(PC) | BIT(PD) | BIT(PS) | BIT(PE) | BIT(PI) | BIT(PF) | BIT(PO) },
    { "Pc", "connector_punctuation", BIT(PC) },
    { "Pd", "dash_punctuation", BIT(PD) },
    { "Ps", "open_punctuation", BIT(PS) },
    { "Pe", "close_punctuation", BIT(PE) },
    { "Pi", "initial_punctuation", BIT(PI) },
    { "Pf", "final_punctuation", BIT(PF) },
    { "Po", "other_punctuation", BIT(PO) },
    { "S", "symbol", BIT(SM) | BIT(SC) | BIT(SK) | BIT(SO) },
    { "Sm", "math_symbol", BIT(SM) },
    { "Sc", "currency_symbol", BIT(SC) },
    { "Sk", "modifier_symbol", BIT(SK) },
    { "So", "other_symbol", BIT(SO) },
    { "Z", "separator", BIT(ZS) | BIT(ZL) | BIT(ZP) },
    { "Zs", "space_separator", BIT(ZS) },
    { "Zl", "line_separator", BIT(ZL) },
    { "Zp", "paragraph_separator", BIT(ZP) },
    { "C", "other", BIT(CC) | BIT(CF) | BIT(CS) | BIT(CO) | BIT(CN) },
    { "Cc", "control", BIT(CC) },
    { "Cf", "format", BIT(CF) },
    { "Cs", "surrogate", BIT(CS) },
    { "Co", "private_use", BIT(CO) },
    { "Cn", "unassigned", BIT(CN) },
};

/* Oniguruma compares the names of properties without case, spaces, hyphens and underscores. */
static bool same_name(const char *text, size_t n, const char *name)
{
    size_t i = 0;
    for (;; i++, name++) {
        while (i < n && strchr(" -_", text[i]))
            i++;
        while (*name == '_')
            name++;
        if (i == n || !*name)
            return i == n && !*name;
        if ((text[i] | 32) != (*name | 32))
            return false;
    }
}

/* What follows "\p" or "\P". */
static enum cinf_status read_property(struct parser *r, bool negated)
{
    if (!take(r, "{"))
        return malformed(r, "\\p without its {name}");
    if (take(r, "^"))
        negated = !negated;
    const char *name = r->text + r->at;
    size_t n = strcspn(name, "}");
    if (!name[n])
        return malformed(r, "\\p without its {name}");
    for (size_t i = 0; i < sizeof category_names / sizeof *category_names; i++)
        if (same_name(name, n, category_names[i].name) || same_name(name, n, category_names[i].long_name)) {
            uint32_t cased = category_names[i].categories & (BIT(LU) | BIT(LL) | BIT(LT));
            if (r->fold && cased && category_names[i].categories != category_names[0].categories)
                return unsupported(r, "(?i) with a property of one case");
            r->at += n + 1;
            return add_item(r, (struct class_item){ .is = ITEM_CATEGORIES,
                                                    .negated = negated,
                                                    .categories = category_names[i].categories });
        }
    return unsupported(r, "a property that is not a general category");
}

/* \x41, \x{41}, \u0041 */
static enum cinf_status read_code(struct parser *r, char kind, uint32_t *c)
{
    bool braces = kind == 'x' && take(r, "{");
    int most = braces ? 8 : kind == 'x' ? 2 : 4, n = 0;
    *c = 0;
    for (; n < most; n++, r->at++) {
        char digit = r->text[r->at];
        if (digit >= '0' && digit <= '9')
            *c = *c * 16 + (uint32_t)(digit - '0');
        else if ((digit | 32) >= 'a' && (digit | 32) <= 'f')
            *c = *c * 16 + (uint32_t)((digit | 32) - 'a') + 10;
        else
            break;
    }
    if (n == 0 || (kind == 'u' && n < 4) || (braces && !take(r, "}")) || *c > 0x10FFFF ||
        (*c >= 0xD800 && *c <= 0xDFFF))
        return malformed(r, "an escape that is not a character");
    /* Oniguruma takes \x80 to \xFF for bytes, of which two or more make a character. */
    if (kind == 'x' && !braces && *c >= 128)
        return unsupported(r, "an escape for a byte of a character");
    return CINF_OK;
}

/* What follows a backslash: *is_class tells a class, added to the items, from the character *c. */
static enum cinf_status read_escape(struct parser *r, bool *is_class, uint32_t *c)
{
    static const char controls[] = "t\tn\nr\rf\fv\va\ae\x1b";
    *is_class = false;
    if (!r->text[r->at])
        return malformed(r, "a backslash");
    *c = take_character(r);
    for (size_t i = 0; i + 1 < sizeof controls; i += 2)
        if (*c == (unsigned char)controls[i]) {
            *c = (unsigned char)controls[i + 1];
            return CINF_OK;
        }
    if (*c == 'x' || *c == 'u')
        return read_code(r, (char)*c, c);
    if (*c >= 128 || (!is_letter(*c) && !(*c >= '0' && *c <= '9')))
        return CINF_OK;
    *is_class = true;
    bool negated = *c < 'a';
    switch (*c | 32) {
    case 'p':
        return read_property(r, negated);
    case 's':
        return add_item(r, (struct class_item){ .is = ITEM_SPACE, .negated = negated });
    case 'w':
        return add_item(r, (struct class_item){ .is = ITEM_WORD, .negated = negated });
    case 'd':
        return add_item(
            r, (struct class_item){ .is = ITEM_CATEGORIES, .negated = negated, .categories = BIT(ND) });
    default:
        return unsupported(r, "an escape");
    }
}

static enum cinf_status read_class(struct parser *r, int32_t *out);

/* A character of a class or the beginning of a range, up to where a ']' or another part begins. */
static enum cinf_status read_class_part(struct parser *r) /* NOLINT(misc-no-recursion) */
{
    bool is_class;
    uint32_t low = 0, high = 0;
    if (take(r, "[:") || take(r, "&&"))
        return unsupported(r, "[: :] or && in a class");
    if (take(r, "[")) {
        int32_t inner;
        TRY(read_class(r, &inner));
        return add_item(r, (struct class_item){ .is = ITEM_CLASS, .low = (uint32_t)inner });
    }
    is_class = false;
    if (take(r, "\\"))
        TRY(read_escape(r, &is_class, &low));
    else
        low = take_character(r);
    if (is_class)
        return CINF_OK;
    const char *next = r->text + r->at;
    if (next[0] != '-' || next[1] == ']' || !next[1])
        return add_range(r, low, low);
    r->at++;
    if (r->text[r->at] == '[')
        return unsupported(r, "a range that ends in a class");
    if (take(r, "\\"))
        TRY(read_escape(r, &is_class, &high));
    else
        high = take_character(r);
    if (is_class || high < low)
        return malformed(r, "a range that is none");
    return add_range(r, low, high);
}

/* What follows a '['. */
static enum cinf_status read_class(struct parser *r, int32_t *out) /* NOLINT(misc-no-recursion) */
{
    size_t first = r->n_items;
    bool negated = take(r, "^");
    if (++r->depth > DEPTH_MAX)
        return unsupported(r, "nested too deeply");
    if (r->text[r->at] == ']')
        return malformed(r, "an empty class");
    while (!take(r, "]")) {
        if (!r->text[r->at])
            return malformed(r, "a class without its ]");
        TRY(read_class_part(r));
    }
    r->depth--;
    return add_class(r, first, negated, out);
}

/* One character that is `low` or, under (?i), equal to it. */
static enum cinf_status emit_character(struct parser *r, uint32_t c)
{
    static const char *const multiple[] = { "ss", "st", "ff", "fi", "fl" };
    size_t first = r->n_items;
    int32_t class;
    if (!r->fold || !is_letter(c)) {
        r->last_letter = 0;
        if (r->fold && c >= 128)
            return unsupported(r, "(?i) with characters outside of ASCII");
        return emit(r, (struct instruction){ .is = OP_LITERAL, .a = (int32_t)c });
    }
    for (size_t i = 0; i < sizeof multiple / sizeof *multiple; i++)
        if (r->last_letter == (unsigned char)multiple[i][0] && (c | 32) == (unsigned char)multiple[i][1])
            return unsupported(r, "(?i) with two letters that are equal to one");
    r->last_letter = c | 32;
    TRY(add_range(r, c, c));
    TRY(add_class(r, first, false, &class));
    return emit(r, (struct instruction){ .is = OP_CLASS, .a = class });
}

static enum cinf_status emit_class_of(struct parser *r, size_t first, bool negated)
{
    int32_t class;
    TRY(add_class(r, first, negated, &class));
    return emit(r, (struct instruction){ .is = OP_CLASS, .a = class });
}

/* What follows a backslash outside of a class; *nullable when it takes no character. */
static enum cinf_status read_escaped(struct parser *r, bool *nullable)
{
    static const struct {
        const char *letter;
        enum operation is;
        int32_t negated;
    } edges[] = { { "A", OP_TEXT_START, 0 },
                  { "z", OP_TEXT_END, 0 },
                  { "Z", OP_LAST_LINE_END, 0 },
                  { "b", OP_WORD_EDGE, 0 },
                  { "B", OP_WORD_EDGE, 1 } };
    bool is_class;
    uint32_t c;
    size_t first = r->n_items;
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        if (take(r, edges[i].letter)) {
            *nullable = true;
            return emit(r, (struct instruction){ .is = edges[i].is, .b = edges[i].negated });
        }
    TRY(read_escape(r, &is_class, &c));
    return is_class ? emit_class_of(r, first, false) : emit_character(r, c);
}

static enum cinf_status read_alternatives(struct parser *r, bool *nullable);

enum { LOOK_AHEAD, LOOK_NOT, LOOK_ATOMIC };

/* A group whose inside is a program of its own: a look ahead, or an atomic group. */
static enum cinf_status read_inner_program(struct parser *r, int kind,
                                           bool *nullable) /* NOLINT(misc-no-recursion) */
{
    size_t start = r->p->n_program;
    bool inner;
    if (++r->looks > LOOKS_MAX)
        return unsupported(r, "nested too deeply");
    TRY(emit(r, (struct instruction){ .is = OP_LOOK, .b = kind }));
    TRY(read_alternatives(r, &inner));
    TRY(emit(r, (struct instruction){ .is = OP_MATCH }));
    r->p->program[start].a = (int32_t)(r->p->n_program - start);
    *nullable = kind != LOOK_ATOMIC || inner;
    r->looks--;
    return CINF_OK;
}

/* (?<=x) and (?<!x) for one character x. */
static enum cinf_status read_behind(struct parser *r, bool negated) /* NOLINT(misc-no-recursion) */
{
    size_t start = r->p->n_program;
    bool nullable;
    TRY(read_alternatives(r, &nullable));
    struct instruction *i = &r->p->program[start];
    if (r->p->n_program != start + 1 || (i->is != OP_CLASS && i->is != OP_LITERAL))
        return unsupported(r, "looking behind by other than one character");
    if (i->is == OP_LITERAL) {
        size_t first = r->n_items;
        uint32_t c = (uint32_t)i->a;
        TRY(add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = c, .high = c }));
        TRY(add_class(r, first, false, &i->a));
    }
    i->is = OP_BEHIND;
    i->b = negated;
    return CINF_OK;
}

/* What follows a '(', its ')' too. */
static enum cinf_status read_group(struct parser *r, bool *nullable) /* NOLINT(misc-no-recursion) */
{
    bool fold = r->fold;
    if (++r->depth > DEPTH_MAX)
        return unsupported(r, "nested too deeply");
    r->last_letter = 0;
    *nullable = true;
    if (take(r, "?=")) {
        TRY(read_inner_program(r, LOOK_AHEAD, nullable));
    } else if (take(r, "?!")) {
        TRY(read_inner_program(r, LOOK_NOT, nullable));
    } else if (take(r, "?>")) {
        TRY(read_inner_program(r, LOOK_ATOMIC, nullable));
    } else if (take(r, "?<=") || take(r, "?<!")) {
        TRY(read_behind(r, r->text[r->at - 1] == '!'));
    } else {
        if (take(r, "?i:"))
            r->fold = true;
        else if (take(r, "?-i:"))
            r->fold = false;
        else if (!take(r, "?:") && r->text[r->at] == '?')
            return unsupported(r, "a group of this kind");
        TRY(read_alternatives(r, nullable));
    }
    r->fold = fold;
    r->last_letter = 0;
    r->depth--;
    return take(r, ")") ? CINF_OK : malformed(r, "a group without its )");
}

/* One character, class, group or anchor. */
static enum cinf_status read_atom(struct parser *r, bool *nullable) /* NOLINT(misc-no-recursion) */
{
    size_t first = r->n_items;
    int32_t class;
    *nullable = false;
    if (strchr("*+?", r->text[r->at]))
        return malformed(r, "a quantifier of nothing");
    if (take(r, "("))
        return read_group(r, nullable);
    if (take(r, "\\"))
        return read_escaped(r, nullable);
    if (strchr("[.^$", r->text[r->at]))
        r->last_letter = 0;
    if (take(r, "[")) {
        TRY(read_class(r, &class));
        return emit(r, (struct instruction){ .is = OP_CLASS, .a = class });
    }
    if (take(r, ".")) {
        TRY(add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = '\n', .high = '\n' }));
        return emit_class_of(r, first, true);
    }
    *nullable = r->text[r->at] == '^' || r->text[r->at] == '$';
    if (take(r, "^"))
        return emit(r, (struct instruction){ .is = OP_LINE_START });
    if (take(r, "$"))
        return emit(r, (struct instruction){ .is = OP_LINE_END });
    return emit_character(r, take_character(r));
}

/* {n}, {n,}, {,m} or {n,m}; text that is none of these is text. */
static bool take_interval(struct parser *r, int32_t *low, int32_t *high)
{
    const char *at = r->text + r->at;
    int32_t bounds[2] = { -1, -1 };
    if (*at++ != '{')
        return false;
    for (int i = 0; i < 2; i++) {
        for (; *at >= '0' && *at <= '9'; at++) {
            int32_t value = (bounds[i] < 0 ? 0 : bounds[i]) * 10 + (*at - '0');
            bounds[i] = value < 100000 ? value : 100000;
        }
        if (i == 0 && *at != ',') {
            bounds[1] = bounds[0];
            break;
        }
        at += i == 0;
    }
    if (*at != '}' || (bounds[0] < 0 && bounds[1] < 0))
        return false;
    r->at = (size_t)(at - r->text) + 1;
    *low = bounds[0] < 0 ? 0 : bounds[0];
    *high = bounds[1] < 0 ? UNLIMITED : bounds[1];
    return true;
}

/* Repeats program[start...), which is not one character. */
static enum cinf_status repeat_group(struct parser *r, size_t start, int32_t low, int32_t high, bool lazy)
{
    struct pattern *p = r->p;
    int32_t n = (int32_t)(p->n_program - start), optional = high == UNLIMITED ? 1 : high - low;
    if (high == 0) {
        p->n_program = start;
        return CINF_OK;
    }
    /* The copies that must be there, but for the one that is there; then those that may. */
    for (int32_t copy = 1; copy < low; copy++)
        for (int32_t i = 0; i < n; i++)
            TRY(emit(r, p->program[start + (size_t)i]));
    for (int32_t copy = 0; copy < optional; copy++) {
        int32_t inside = 1, outside = (optional - copy) * (n + 1) + (high == UNLIMITED);
        struct instruction split = { .is = OP_SPLIT,
                                     .a = lazy ? outside : inside,
                                     .b = lazy ? inside : outside };
        if (low == 0 && copy == 0) {
            TRY(insert(r, start, split));
            continue;
        }
        /* `start` is behind a split of its own when nothing must be there. */
        size_t from = start + (low == 0);
        TRY(emit(r, split));
        for (int32_t i = 0; i < n; i++)
            TRY(emit(r, p->program[from + (size_t)i]));
    }
    if (high == UNLIMITED)
        TRY(emit(r, (struct instruction){ .is = OP_JUMP, .a = -(n + 1) }));
    return CINF_OK;
}

/* Makes program[start...) one that gives nothing back. */
static enum cinf_status make_atomic(struct parser *r, size_t start)
{
    TRY(insert(r, start, (struct instruction){ .is = OP_LOOK, .b = LOOK_ATOMIC }));
    TRY(emit(r, (struct instruction){ .is = OP_MATCH }));
    r->p->program[start].a = (int32_t)(r->p->n_program - start);
    return CINF_OK;
}

/* The quantifier, if there is one, of the atom at program[start...). */
static enum cinf_status read_quantifier(struct parser *r, size_t start, bool *nullable)
{
    int32_t low = 0, high = UNLIMITED;
    bool interval = false;
    if (take(r, "+"))
        low = 1;
    else if (take(r, "?"))
        high = 1;
    else if (!take(r, "*") && !(interval = take_interval(r, &low, &high)))
        return CINF_OK;
    r->last_letter = 0;
    if (high < low || low > REPEAT_MAX || (high != UNLIMITED && high > REPEAT_MAX))
        return unsupported(r, "a quantifier beyond bounds");
    char next = r->text[r->at];
    /* Oniguruma takes {n}? for (?:x{n})?, and {n,m}+ for (?:x{n,m})+. */
    if (interval && (next == '+' || (next == '?' && low == high)))
        return unsupported(r, "a quantifier of a quantifier");
    enum greed how = take(r, "?") ? LAZY : take(r, "+") ? POSSESSIVE : GREEDY;
    if (strchr("*+?", r->text[r->at]) && r->text[r->at])
        return unsupported(r, "a quantifier of a quantifier");
    struct instruction *i = &r->p->program[start];
    if (r->p->n_program == start + 1 && i->is == OP_LITERAL) {
        size_t first = r->n_items;
        uint32_t c = (uint32_t)i->a;
        TRY(add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = c, .high = c }));
        TRY(add_class(r, first, false, &i->a));
        i->is = OP_CLASS;
    }
    if (r->p->n_program == start + 1 && i->is == OP_CLASS) {
        *i = (struct instruction){ .is = OP_REPEAT, .how = how, .a = i->a, .low = low, .high = high };
    } else {
        if (*nullable)
            return unsupported(r, "a quantifier of what may be empty");
        TRY(repeat_group(r, start, low, high, how == LAZY));
        if (how == POSSESSIVE)
            TRY(make_atomic(r, start));
    }
    *nullable = *nullable || low == 0;
    return CINF_OK;
}

/* Atoms up to a '|', a ')' or the end. */
static enum cinf_status read_branch(struct parser *r, bool *nullable) /* NOLINT(misc-no-recursion) */
{
    *nullable = true;
    r->last_letter = 0;
    while (r->text[r->at] && r->text[r->at] != '|' && r->text[r->at] != ')') {
        size_t start = r->p->n_program;
        bool atom;
        TRY(read_atom(r, &atom));
        TRY(read_quantifier(r, start, &atom));
        *nullable = *nullable && atom;
    }
    return CINF_OK;
}

/* A split before each branch but the last, and behind each a jump to the end. */
static enum cinf_status read_alternatives(struct parser *r, bool *nullable) /* NOLINT(misc-no-recursion) */
{
    struct pattern *p = r->p;
    size_t last_jump = 0; /* a chain: each jump leads to the one before until the end is known */
    bool branch;
    *nullable = false;
    for (;;) {
        size_t start = p->n_program;
        TRY(read_branch(r, &branch));
        *nullable = *nullable || branch;
        if (!take(r, "|"))
            break;
        TRY(insert(r, start, (struct instruction){ .is = OP_SPLIT, .a = 1 }));
        p->program[start].b = (int32_t)(p->n_program + 1 - start);
        TRY(emit(r, (struct instruction){ .is = OP_JUMP, .a = (int32_t)last_jump }));
        last_jump = p->n_program - 1;
    }
    while (last_jump > 0) {
        size_t before = (size_t)p->program[last_jump].a;
        p->program[last_jump].a = (int32_t)(p->n_program - last_jump);
        last_jump = before;
    }
    return CINF_OK;
}

static enum cinf_status read_pattern(struct parser *r)
{
    if (take(r, "(?i)"))
        r->fold = true;
    TRY(read_alternatives(r, &r->p->nullable));
    if (r->text[r->at])
        return malformed(r, "a ) without its group");
    return emit(r, (struct instruction){ .is = OP_MATCH });
}

static enum cinf_status make(struct pattern **out, const char *expression, enum pattern_language language,
                             enum cinf_status (*read)(struct parser *))
{
    struct pattern *p = mem_new(1, sizeof *p);
    struct parser r = { .p = p, .text = expression };
    if (p)
        p->language = language;
    if (!p || !(p->expression = mem_copy_text(expression))) {
        pattern_free(p);
        return no_memory(&r);
    }
    enum cinf_status status = read(&r);
    mem_free(r.items);
    if (status != CINF_OK) {
        pattern_free(p);
        return status;
    }
    *out = p;
    return CINF_OK;
}

enum cinf_status pattern_new(struct pattern **out, const char *expression, enum pattern_language language)
{
    return make(out, expression, language, read_pattern);
}

static enum cinf_status read_literal(struct parser *r)
{
    r->p->nullable = !r->text[0];
    while (r->text[r->at])
        TRY(emit_character(r, take_character(r)));
    return emit(r, (struct instruction){ .is = OP_MATCH });
}

enum cinf_status pattern_new_literal(struct pattern **out, const char *text)
{
    return make(out, text, PATTERN_ONIGURUMA, read_literal);
}

enum cinf_status pattern_read(struct pattern **out, const cJSON *settings)
{
    const char *regex = NULL, *text = NULL;
    TRY(json_read_text(&regex, settings, "Regex"));
    TRY(json_read_text(&text, settings, "String"));
    if (regex)
        return pattern_new(out, regex, PATTERN_ONIGURUMA);
    if (text)
        return pattern_new_literal(out, text);
    return cinf_fail(CINF_EFORMAT, "a \"pattern\" is neither {\"Regex\": ...} nor {\"String\": ...}");
}

bool pattern_may_be_empty(const struct pattern *p)
{
    return p->nullable;
}

void pattern_free(struct pattern *p)
{
    if (!p)
        return;
    mem_free(p->expression);
    mem_free(p->program);
    mem_free(p->classes);
    mem_free(p->items);
    mem_free(p);
}

/* ---- Matching ------------------------------------------------------------------------------ */

/* Where to continue when a choice fails. */
struct pattern_choice {
    enum { CHOICE_OTHER, CHOICE_FEWER, CHOICE_MORE } is;
    int32_t pc;
    int32_t left;   /* CHOICE_MORE: how many more there may be */
    size_t at, low; /* CHOICE_FEWER: where the repetition has got to, and the least */
};

/* Returns the character at text[at], at < n, and its length. */
static uint32_t character_at(const struct pattern_search *s, size_t at, size_t *used)
{
    unsigned char first = (unsigned char)s->text[at];
    *used = 1;
    if (first < 128)
        return first;
    uint32_t c = utf8_read(s->text + at, s->n - at, used);
    if (c == UTF8_BAD)
        *used = 1;
    return c;
}

/* Returns the character before text[at], at > 0, and its length. It cuts as character_at() does. */
static uint32_t character_before(const struct pattern_search *s, size_t at, size_t *used)
{
    for (size_t n = 1; n <= 4 && n <= at; n++) {
        uint32_t c = character_at(s, at - n, used);
        if (*used == n && (c != UTF8_BAD || n > 1))
            return c;
    }
    *used = 1;
    return UTF8_BAD;
}

static bool word_at(const struct pattern_search *s, size_t at)
{
    size_t used;
    return at < s->n && is_word(s->pattern, character_at(s, at, &used));
}

static bool word_before(const struct pattern_search *s, size_t at)
{
    size_t used;
    return at > 0 && is_word(s->pattern, character_before(s, at, &used));
}

/* Whether an instruction that takes nothing holds at text[at]. */
static bool holds(const struct pattern_search *s, const struct instruction *i, size_t at)
{
    size_t used;
    switch (i->is) {
    case OP_BEHIND:
        return (at > 0 && class_holds(s->pattern, (uint32_t)i->a, character_before(s, at, &used))) == !i->b;
    case OP_LINE_START:
        return at == 0 || (s->text[at - 1] == '\n' && at < s->n);
    case OP_LINE_END:
        return at == s->n || s->text[at] == '\n';
    case OP_TEXT_START:
        return at == 0;
    case OP_TEXT_END:
        return at == s->n;
    case OP_LAST_LINE_END:
        return at == s->n || (at + 1 == s->n && s->text[at] == '\n');
    default:
        return (word_at(s, at) != word_before(s, at)) == !i->b;
    }
}

static enum cinf_status push(struct pattern_search *s, struct pattern_choice choice)
{
    if (!mem_reserve(&s->choices, &s->choices_cap, s->n_choices + 1, sizeof *s->choices))
        return cinf_fail(CINF_ENOMEM, "no memory to match the pattern \"%.200s\"", s->pattern->expression);
    s->choices[s->n_choices++] = choice;
    return CINF_OK;
}

/* Takes back the last choice of choices[base...); *chosen is false when none is left. */
static enum cinf_status choose_again(struct pattern_search *s, size_t base, bool *chosen, int32_t *pc,
                                     size_t *at)
{
    size_t used;
    while (s->n_choices > base) {
        struct pattern_choice *c = &s->choices[s->n_choices - 1];
        const struct instruction *i = &s->pattern->program[c->pc];
        *chosen = true;
        if (c->is == CHOICE_OTHER) {
            *pc = c->pc;
            *at = c->at;
            s->n_choices--;
            return CINF_OK;
        }
        *pc = c->pc + 1;
        if (c->is == CHOICE_FEWER) {
            character_before(s, c->at, &used);
            *at = c->at -= used;
            s->n_choices -= c->at == c->low;
            return CINF_OK;
        }
        if (c->left > 0 && c->at < s->n &&
            class_holds(s->pattern, (uint32_t)i->a, character_at(s, c->at, &used))) {
            *at = c->at += used;
            c->left--;
            return CINF_OK;
        }
        s->n_choices--;
    }
    *chosen = false;
    return CINF_OK;
}

/* Runs a repetition from *at; *good when there are enough. */
static enum cinf_status repeat(struct pattern_search *s, int32_t pc, size_t *at, bool *good)
{
    const struct instruction *i = &s->pattern->program[pc];
    int32_t most = i->how == LAZY ? i->low : i->high, n = 0;
    size_t used, low = *at;
    for (; n < most && *at < s->n && class_holds(s->pattern, (uint32_t)i->a, character_at(s, *at, &used));
         n++) {
        *at += used;
        if (n + 1 == i->low)
            low = *at;
    }
    s->steps += (uint64_t)n;
    *good = n >= i->low;
    if (!*good || i->how == POSSESSIVE)
        return CINF_OK;
    if (i->how == LAZY)
        return push(s, (struct pattern_choice){ CHOICE_MORE, pc, i->high - i->low, *at, 0 });
    return *at > low ? push(s, (struct pattern_choice){ CHOICE_FEWER, pc, 0, *at, low }) : CINF_OK;
}

/* Runs the program from `pc` at text[at]; *matched, and then *end. */
static enum cinf_status run(struct pattern_search *s, int32_t pc, size_t at, bool *matched,
                            size_t *end) /* NOLINT(misc-no-recursion) */
{
    const struct pattern *p = s->pattern;
    size_t base = s->n_choices, used, inner_end;
    bool inner;
    for (;;) {
        const struct instruction *i = &p->program[pc];
        bool good = true;
        if (++s->steps > STEPS_FIRST + (uint64_t)STEPS_PER_BYTE * s->n)
            return cinf_fail(CINF_EINVAL,
                             "the pattern \"%.200s\" takes more than %u steps a byte of this text",
                             p->expression, STEPS_PER_BYTE);
        switch (i->is) {
        case OP_MATCH:
            s->n_choices = base;
            *matched = true;
            *end = at;
            return CINF_OK;
        case OP_CLASS:
        case OP_LITERAL:
            good = at < s->n;
            if (good) {
                uint32_t c = character_at(s, at, &used);
                good = i->is == OP_LITERAL ? c == (uint32_t)i->a : class_holds(p, (uint32_t)i->a, c);
                at += used;
            }
            pc++;
            break;
        case OP_REPEAT:
            TRY(repeat(s, pc, &at, &good));
            pc++;
            break;
        case OP_SPLIT:
            TRY(push(s, (struct pattern_choice){ CHOICE_OTHER, pc + i->b, 0, at, 0 }));
            pc += i->a;
            break;
        case OP_JUMP:
            pc += i->a;
            break;
        case OP_LOOK:
            TRY(run(s, pc + 1, at, &inner, &inner_end));
            good = i->b == LOOK_NOT ? !inner : inner;
            if (good && i->b == LOOK_ATOMIC)
                at = inner_end;
            pc += i->a;
            break;
        default:
            good = holds(s, i, at);
            pc++;
        }
        if (!good) {
            TRY(choose_again(s, base, &good, &pc, &at));
            if (!good) {
                *matched = false;
                return CINF_OK;
            }
        }
    }
}

enum cinf_status pattern_next(struct pattern_search *s, bool *found, size_t *start, size_t *end)
{
    *found = false;
    for (size_t used; s->at <= s->n; s->at += used) {
        bool matched;
        used = 1;
        if (s->at < s->n)
            character_at(s, s->at, &used);
        TRY(run(s, 0, s->at, &matched, end));
        /* An empty text where the last match ends is not a match of its own. */
        if (!matched || (*end == s->at && s->any && *end == s->last_end))
            continue;
        *start = s->at;
        s->at = s->last_end = *end;
        s->any = *found = true;
        return CINF_OK;
    }
    return CINF_OK;
}

void pattern_search_free(struct pattern_search *s)
{
    mem_free(s->choices);
    s->choices = NULL;
    s->n_choices = s->choices_cap = 0;
}
