/* pattern_class.c - the character classes of a pattern: how one is read, and which characters it holds.
 *
 * A class is a list of items: ranges, general categories, \w, \s and other classes.  The items are asked one
 * after another, which is slow, so each class has a bitmap of its first 128 characters, and pattern_impl.h
 * looks there first. */
#include "pattern_impl.h"

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "unicode_class.h"
#include "utf8.h"

/* ---- What a class holds --------------------------------------------------------------------- */

/* Oniguruma's \w has six numbers of Latin-1, and lacks the two joiners, which Rust's has. */
bool pattern_is_word(const struct pattern *p, uint32_t c)
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
        return pattern_is_word(p, c);
    case ITEM_SPACE:
        return c != UTF8_BAD && unicode_class(c) == UNICODE_SPACE;
    case ITEM_CLASS:
        return pattern_class_holds(p, item->low, c);
    }
    return false;
}

bool pattern_class_looked_up(const struct pattern *p, const struct class *k,
                             uint32_t c) /* NOLINT(misc-no-recursion) */
{
    for (uint32_t i = 0; i < k->n; i++) {
        const struct class_item *item = &p->items[k->first + i];
        if (item_holds(p, item, c) != item->negated)
            return !k->negated;
    }
    return k->negated;
}

/* ---- Reading a class ------------------------------------------------------------------------ */

enum cinf_status pattern_add_item(struct parser *r, struct class_item item)
{
    if (!mem_reserve(&r->items, &r->items_cap, r->n_items + 1, sizeof *r->items))
        return pattern_no_memory(r);
    r->items[r->n_items++] = item;
    return CINF_OK;
}

enum cinf_status pattern_add_class(struct parser *r, size_t first, bool negated, int32_t *out)
{
    struct pattern *p = r->p;
    if (p->n_classes == PROGRAM_MAX)
        return pattern_unsupported(r, "it has too many classes");
    size_t n = r->n_items - first;
    if (!mem_reserve(&p->classes, &p->classes_cap, p->n_classes + 1, sizeof *p->classes) ||
        !mem_reserve(&p->items, &p->items_cap, p->n_items + n, sizeof *p->items))
        return pattern_no_memory(r);
    memcpy(p->items + p->n_items, r->items + first, n * sizeof *p->items);
    r->n_items = first;
    struct class *k = &p->classes[p->n_classes];
    *k = (struct class){ .first = (uint32_t)p->n_items, .n = (uint32_t)n, .negated = negated };
    p->n_items += n;
    for (uint32_t c = 0; c < 128; c++)
        if (pattern_class_looked_up(p, k, c))
            k->ascii[c / 64] |= (uint64_t)1 << c % 64;
    *out = (int32_t)p->n_classes++;
    return CINF_OK;
}

enum cinf_status pattern_add_range(struct parser *r, uint32_t low, uint32_t high)
{
    TRY(pattern_add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = low, .high = high }));
    if (!r->fold)
        return CINF_OK;
    if (high >= 128)
        return pattern_unsupported(r, "(?i) with characters outside of ASCII");
    for (uint32_t c = low; c <= high; c++) {
        if (pattern_is_letter(c))
            TRY(pattern_add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = c ^ 32, .high = c ^ 32 }));
        if ((c | 32) == 's') /* U+017F, the long s */
            TRY(pattern_add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = 0x17F, .high = 0x17F }));
        if ((c | 32) == 'k') /* U+212A, the sign of Kelvin */
            TRY(pattern_add_item(r, (struct class_item){ .is = ITEM_RANGE, .low = 0x212A, .high = 0x212A }));
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
    if (!pattern_take(r, "{"))
        return pattern_malformed(r, "\\p without its {name}");
    if (pattern_take(r, "^"))
        negated = !negated;
    const char *name = r->text + r->at;
    size_t n = strcspn(name, "}");
    if (!name[n])
        return pattern_malformed(r, "\\p without its {name}");
    for (size_t i = 0; i < sizeof category_names / sizeof *category_names; i++)
        if (same_name(name, n, category_names[i].name) || same_name(name, n, category_names[i].long_name)) {
            uint32_t cased = category_names[i].categories & (BIT(LU) | BIT(LL) | BIT(LT));
            if (r->fold && cased && category_names[i].categories != category_names[0].categories)
                return pattern_unsupported(r, "(?i) with a property of one case");
            r->at += n + 1;
            return pattern_add_item(r, (struct class_item){ .is = ITEM_CATEGORIES,
                                                            .negated = negated,
                                                            .categories = category_names[i].categories });
        }
    return pattern_unsupported(r, "a property that is not a general category");
}

/* \x41, \x{41}, \u0041 */
static enum cinf_status read_code(struct parser *r, char kind, uint32_t *c)
{
    bool braces = kind == 'x' && pattern_take(r, "{");
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
    if (n == 0 || (kind == 'u' && n < 4) || (braces && !pattern_take(r, "}")) || *c > 0x10FFFF ||
        (*c >= 0xD800 && *c <= 0xDFFF))
        return pattern_malformed(r, "an escape that is not a character");
    /* Oniguruma takes \x80 to \xFF for bytes, of which two or more make a character. */
    if (kind == 'x' && !braces && *c >= 128)
        return pattern_unsupported(r, "an escape for a byte of a character");
    return CINF_OK;
}

enum cinf_status pattern_read_escape(struct parser *r, bool *is_class, uint32_t *c)
{
    static const char controls[] = "t\tn\nr\rf\fv\va\ae\x1b";
    *is_class = false;
    if (!r->text[r->at])
        return pattern_malformed(r, "a backslash");
    *c = pattern_take_character(r);
    for (size_t i = 0; i + 1 < sizeof controls; i += 2)
        if (*c == (unsigned char)controls[i]) {
            *c = (unsigned char)controls[i + 1];
            return CINF_OK;
        }
    if (*c == 'x' || *c == 'u')
        return read_code(r, (char)*c, c);
    if (*c >= 128 || (!pattern_is_letter(*c) && !(*c >= '0' && *c <= '9')))
        return CINF_OK;
    *is_class = true;
    bool negated = *c < 'a';
    switch (*c | 32) {
    case 'p':
        return read_property(r, negated);
    case 's':
        return pattern_add_item(r, (struct class_item){ .is = ITEM_SPACE, .negated = negated });
    case 'w':
        return pattern_add_item(r, (struct class_item){ .is = ITEM_WORD, .negated = negated });
    case 'd':
        return pattern_add_item(
            r, (struct class_item){ .is = ITEM_CATEGORIES, .negated = negated, .categories = BIT(ND) });
    default:
        return pattern_unsupported(r, "an escape");
    }
}

/* A character of a class or the beginning of a range, up to where a ']' or another part begins. */
static enum cinf_status read_class_part(struct parser *r) /* NOLINT(misc-no-recursion) */
{
    bool is_class;
    uint32_t low = 0, high = 0;
    if (pattern_take(r, "[:") || pattern_take(r, "&&"))
        return pattern_unsupported(r, "[: :] or && in a class");
    if (pattern_take(r, "[")) {
        int32_t inner;
        TRY(pattern_read_class(r, &inner));
        return pattern_add_item(r, (struct class_item){ .is = ITEM_CLASS, .low = (uint32_t)inner });
    }
    is_class = false;
    if (pattern_take(r, "\\"))
        TRY(pattern_read_escape(r, &is_class, &low));
    else
        low = pattern_take_character(r);
    if (is_class)
        return CINF_OK;
    const char *next = r->text + r->at;
    if (next[0] != '-' || next[1] == ']' || !next[1])
        return pattern_add_range(r, low, low);
    r->at++;
    if (r->text[r->at] == '[')
        return pattern_unsupported(r, "a range that ends in a class");
    if (pattern_take(r, "\\"))
        TRY(pattern_read_escape(r, &is_class, &high));
    else
        high = pattern_take_character(r);
    if (is_class || high < low)
        return pattern_malformed(r, "a range that is none");
    return pattern_add_range(r, low, high);
}

enum cinf_status pattern_read_class(struct parser *r, int32_t *out) /* NOLINT(misc-no-recursion) */
{
    size_t first = r->n_items;
    bool negated = pattern_take(r, "^");
    if (++r->depth > DEPTH_MAX)
        return pattern_unsupported(r, "nested too deeply");
    if (r->text[r->at] == ']')
        return pattern_malformed(r, "an empty class");
    while (!pattern_take(r, "]")) {
        if (!r->text[r->at])
            return pattern_malformed(r, "a class without its ]");
        TRY(read_class_part(r));
    }
    r->depth--;
    return pattern_add_class(r, first, negated, out);
}
