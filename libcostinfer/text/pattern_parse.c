/* pattern_parse.c - a regular expression becomes a short program; pattern_match.c runs it.
 *
 * This file owns the grammar, apart from that of classes, and the life of a struct pattern.  A quantifier on
 * one character is one instruction; a quantifier on a group copies the group's instructions. */
#include "pattern_impl.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "json.h"
#include "mem.h"
#include "utf8.h"

enum {
    REPEAT_MAX = 1000,
    UNLIMITED = INT32_MAX,
    LOOKS_MAX = 8, /* looking ahead within looking ahead */
};

enum cinf_status pattern_malformed(const struct parser *r, const char *what)
{
    return cinf_fail(CINF_EFORMAT, "the pattern \"%.200s\" is not a regular expression: %s at byte %zu",
                     r->text, what, r->at);
}

enum cinf_status pattern_unsupported(const struct parser *r, const char *what)
{
    return cinf_fail(CINF_EUNSUPPORTED, "the pattern \"%.200s\" is not supported: %s at byte %zu", r->text,
                     what, r->at);
}

enum cinf_status pattern_no_memory(const struct parser *r)
{
    return cinf_fail(CINF_ENOMEM, "no memory for the pattern \"%.200s\"", r->text);
}

bool pattern_take(struct parser *r, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(r->text + r->at, text, n) != 0)
        return false;
    r->at += n;
    return true;
}

uint32_t pattern_take_character(struct parser *r)
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
        return pattern_unsupported(r, "it is too long");
    if (!mem_reserve(&p->program, &p->program_cap, p->n_program + 1, sizeof *p->program))
        return pattern_no_memory(r);
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

/* One character that is `low` or, under (?i), equal to it. */
static enum cinf_status emit_character(struct parser *r, uint32_t c)
{
    static const char *const multiple[] = { "ss", "st", "ff", "fi", "fl" };
    size_t first = r->n_items;
    int32_t class;
    if (!r->fold || !pattern_is_letter(c)) {
        r->last_letter = 0;
        if (r->fold && c >= 128)
            return pattern_unsupported(r, "(?i) with characters outside of ASCII");
        return emit(r, (struct instruction){ .is = OP_LITERAL, .a = (int32_t)c });
    }
    for (size_t i = 0; i < sizeof multiple / sizeof *multiple; i++)
        if (r->last_letter == (unsigned char)multiple[i][0] && (c | 32) == (unsigned char)multiple[i][1])
            return pattern_unsupported(r, "(?i) with two letters that are equal to one");
    r->last_letter = c | 32;
    TRY(pattern_add_range(r, c, c));
    TRY(pattern_add_class(r, first, false, &class));
    return emit(r, (struct instruction){ .is = OP_CLASS, .a = class });
}

static enum cinf_status emit_class_of(struct parser *r, size_t first, bool negated)
{
    int32_t class;
    TRY(pattern_add_class(r, first, negated, &class));
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
        if (pattern_take(r, edges[i].letter)) {
            *nullable = true;
            return emit(r, (struct instruction){ .is = edges[i].is, .b = edges[i].negated });
        }
    TRY(pattern_read_escape(r, &is_class, &c));
    return is_class ? emit_class_of(r, first, false) : emit_character(r, c);
}

static enum cinf_status read_alternatives(struct parser *r, bool *nullable);

/* A group whose inside is a program of its own: a look ahead, or an atomic group. */
static enum cinf_status read_inner_program(struct parser *r, int kind,
                                           bool *nullable) /* NOLINT(misc-no-recursion) */
{
    size_t start = r->p->n_program;
    bool inner;
    if (++r->looks > LOOKS_MAX)
        return pattern_unsupported(r, "nested too deeply");
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
        return pattern_unsupported(r, "looking behind by other than one character");
    if (i->is == OP_LITERAL) {
        size_t first = r->n_items;
        uint32_t c = (uint32_t)i->a;
        TRY(pattern_add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = c, .high = c }));
        TRY(pattern_add_class(r, first, false, &i->a));
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
        return pattern_unsupported(r, "nested too deeply");
    r->last_letter = 0;
    *nullable = true;
    if (pattern_take(r, "?=")) {
        TRY(read_inner_program(r, LOOK_AHEAD, nullable));
    } else if (pattern_take(r, "?!")) {
        TRY(read_inner_program(r, LOOK_NOT, nullable));
    } else if (pattern_take(r, "?>")) {
        TRY(read_inner_program(r, LOOK_ATOMIC, nullable));
    } else if (pattern_take(r, "?<=") || pattern_take(r, "?<!")) {
        TRY(read_behind(r, r->text[r->at - 1] == '!'));
    } else {
        if (pattern_take(r, "?i:"))
            r->fold = true;
        else if (pattern_take(r, "?-i:"))
            r->fold = false;
        else if (!pattern_take(r, "?:") && r->text[r->at] == '?')
            return pattern_unsupported(r, "a group of this kind");
        TRY(read_alternatives(r, nullable));
    }
    r->fold = fold;
    r->last_letter = 0;
    r->depth--;
    return pattern_take(r, ")") ? CINF_OK : pattern_malformed(r, "a group without its )");
}

/* One character, class, group or anchor. */
static enum cinf_status read_atom(struct parser *r, bool *nullable) /* NOLINT(misc-no-recursion) */
{
    size_t first = r->n_items;
    int32_t class;
    *nullable = false;
    if (strchr("*+?", r->text[r->at]))
        return pattern_malformed(r, "a quantifier of nothing");
    if (pattern_take(r, "("))
        return read_group(r, nullable);
    if (pattern_take(r, "\\"))
        return read_escaped(r, nullable);
    if (strchr("[.^$", r->text[r->at]))
        r->last_letter = 0;
    if (pattern_take(r, "[")) {
        TRY(pattern_read_class(r, &class));
        return emit(r, (struct instruction){ .is = OP_CLASS, .a = class });
    }
    if (pattern_take(r, ".")) {
        TRY(pattern_add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = '\n', .high = '\n' }));
        return emit_class_of(r, first, true);
    }
    *nullable = r->text[r->at] == '^' || r->text[r->at] == '$';
    if (pattern_take(r, "^"))
        return emit(r, (struct instruction){ .is = OP_LINE_START });
    if (pattern_take(r, "$"))
        return emit(r, (struct instruction){ .is = OP_LINE_END });
    return emit_character(r, pattern_take_character(r));
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
    if (pattern_take(r, "+"))
        low = 1;
    else if (pattern_take(r, "?"))
        high = 1;
    else if (!pattern_take(r, "*") && !(interval = take_interval(r, &low, &high)))
        return CINF_OK;
    r->last_letter = 0;
    if (high < low || low > REPEAT_MAX || (high != UNLIMITED && high > REPEAT_MAX))
        return pattern_unsupported(r, "a quantifier beyond bounds");
    char next = r->text[r->at];
    /* Oniguruma takes {n}? for (?:x{n})?, and {n,m}+ for (?:x{n,m})+. */
    if (interval && (next == '+' || (next == '?' && low == high)))
        return pattern_unsupported(r, "a quantifier of a quantifier");
    enum greed how = pattern_take(r, "?") ? LAZY : pattern_take(r, "+") ? POSSESSIVE : GREEDY;
    if (strchr("*+?", r->text[r->at]) && r->text[r->at])
        return pattern_unsupported(r, "a quantifier of a quantifier");
    struct instruction *i = &r->p->program[start];
    if (r->p->n_program == start + 1 && i->is == OP_LITERAL) {
        size_t first = r->n_items;
        uint32_t c = (uint32_t)i->a;
        TRY(pattern_add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = c, .high = c }));
        TRY(pattern_add_class(r, first, false, &i->a));
        i->is = OP_CLASS;
    }
    if (r->p->n_program == start + 1 && i->is == OP_CLASS) {
        *i = (struct instruction){ .is = OP_REPEAT, .how = how, .a = i->a, .low = low, .high = high };
    } else {
        if (*nullable)
            return pattern_unsupported(r, "a quantifier of what may be empty");
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
        if (!pattern_take(r, "|"))
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
    if (pattern_take(r, "(?i)"))
        r->fold = true;
    TRY(read_alternatives(r, &r->p->nullable));
    if (r->text[r->at])
        return pattern_malformed(r, "a ) without its group");
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
        return pattern_no_memory(&r);
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
        TRY(emit_character(r, pattern_take_character(r)));
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
