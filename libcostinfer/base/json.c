/* json.c - the gate before cJSON, and typed reads of its tree. */
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "utf8.h"

enum { DEPTH_DEFAULT = 32, DEPTH_MAX = 512 };

/* The gate: one pass over the text without recursion.  `stack` remembers for each open bracket
 * whether it is an object, and the members it has so far. */
struct gate {
    const char *text;
    size_t n, at;
    size_t members_max, values_max, values;
    size_t python_words; /* NaN, Infinity and -Infinity so far */
    bool python;
    uint32_t depth, depth_max;
    struct {
        bool object;
        size_t members;
    } stack[DEPTH_MAX];
};

static enum cinf_status malformed(const struct gate *g, const char *what)
{
    return cinf_fail(CINF_EFORMAT, "JSON: %s at byte %zu", what, g->at);
}

static void skip_space(struct gate *g)
{
    while (g->at < g->n && memchr(" \t\r\n", g->text[g->at], 4))
        g->at++;
}

static int peek(const struct gate *g)
{
    return g->at < g->n ? (unsigned char)g->text[g->at] : -1;
}

static enum cinf_status read_hex4(struct gate *g, uint32_t *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++, g->at++) {
        int c = peek(g);
        if (c >= '0' && c <= '9')
            *value = *value << 4 | (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f' && c >= 'A')
            *value = *value << 4 | (uint32_t)((c | 32) - 'a' + 10);
        else
            return malformed(g, "\\u is not followed by four hexadecimal digits");
    }
    return CINF_OK;
}

static enum cinf_status check_escape(struct gate *g)
{
    int c = peek(g);
    if (c >= 0 && strchr("\"\\/bfnrt", c) && c != 0) {
        g->at++;
        return CINF_OK;
    }
    if (c != 'u')
        return malformed(g, "unknown escape in a string");
    g->at++;
    uint32_t unit, low;
    TRY(read_hex4(g, &unit));
    if (unit == 0)
        return malformed(g, "\\u0000 in a string");
    if (unit >= 0xDC00 && unit <= 0xDFFF)
        return malformed(g, "lone surrogate in a string");
    if (unit < 0xD800 || unit > 0xDBFF)
        return CINF_OK;
    if (g->n - g->at < 2 || g->text[g->at] != '\\' || g->text[g->at + 1] != 'u')
        return malformed(g, "lone surrogate in a string");
    g->at += 2;
    TRY(read_hex4(g, &low));
    return low >= 0xDC00 && low <= 0xDFFF ? CINF_OK : malformed(g, "lone surrogate in a string");
}

static enum cinf_status check_string(struct gate *g)
{
    g->at++;
    for (;;) {
        int c = peek(g);
        if (c < 0)
            return malformed(g, "unterminated string");
        if (c == '"') {
            g->at++;
            return CINF_OK;
        }
        if (c == '\\') {
            g->at++;
            TRY(check_escape(g));
        } else if (c < 0x20) {
            return malformed(g, "control character in a string");
        } else if (c < 0x80) {
            g->at++;
        } else {
            size_t used;
            if (utf8_read(g->text + g->at, g->n - g->at, &used) == UTF8_BAD)
                return malformed(g, "not UTF-8");
            g->at += used;
        }
    }
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

/* True if the well-formed number text[0..n), n <= 63, is beyond a double.  The decimal point is removed and
 * the exponent adjusted for it, because strtod() reads the point of the locale only. */
static bool overflows(const char *text, size_t n)
{
    char digits[96];
    size_t used = 0, i = 0, fraction = 0;
    bool after_point = false;
    for (; i < n && (text[i] | 32) != 'e'; i++) {
        if (text[i] == '.') {
            after_point = true;
            continue;
        }
        digits[used++] = text[i];
        fraction += after_point;
    }
    char exponent[64] = "0";
    if (i < n) {
        memcpy(exponent, text + i + 1, n - i - 1);
        exponent[n - i - 1] = '\0';
    }
    long e = strtol(exponent, NULL, 10);
    e = e > 9999 ? 9999 : e < -9999 ? -9999 : e;
    snprintf(digits + used, sizeof digits - used, "e%ld", e - (long)fraction);
    return isinf(strtod(digits, NULL));
}

static enum cinf_status check_number(struct gate *g)
{
    size_t start = g->at;
    if (peek(g) == '-')
        g->at++;
    if (!is_digit(peek(g)))
        return malformed(g, "unexpected character");
    if (peek(g) == '0')
        g->at++;
    else
        while (is_digit(peek(g)))
            g->at++;
    if (is_digit(peek(g)))
        return malformed(g, "number with a leading zero");
    if (peek(g) == '.') {
        g->at++;
        if (!is_digit(peek(g)))
            return malformed(g, "number without digits after its point");
        while (is_digit(peek(g)))
            g->at++;
    }
    if (peek(g) == 'e' || peek(g) == 'E') {
        g->at++;
        if (peek(g) == '+' || peek(g) == '-')
            g->at++;
        if (!is_digit(peek(g)))
            return malformed(g, "number without digits in its exponent");
        while (is_digit(peek(g)))
            g->at++;
    }
    /* cJSON reads at most 63 characters of a number and would leave the rest in the text. */
    if (g->at - start > 63)
        return malformed(g, "number of more than 63 characters");
    return overflows(g->text + start, g->at - start) ? malformed(g, "number too large") : CINF_OK;
}

static bool take_word(struct gate *g, const char *word)
{
    size_t n = strlen(word);
    if (g->n - g->at < n || memcmp(g->text + g->at, word, n) != 0)
        return false;
    g->at += n;
    return true;
}

static enum cinf_status check_word(struct gate *g, const char *word)
{
    return take_word(g, word) ? CINF_OK : malformed(g, "unexpected character");
}

/* What Python's json writes for floats that JSON has no number for. */
static const struct {
    const char *word, *json; /* as long as each other */
} python_words[] = { { "NaN", "\"\" " }, { "Infinity", "1e999   " }, { "-Infinity", "-1e999   " } };

static bool take_python_word(struct gate *g)
{
    for (size_t i = 0; i < sizeof python_words / sizeof *python_words; i++)
        if (g->python && take_word(g, python_words[i].word)) {
            g->python_words++;
            return true;
        }
    return false;
}

/* Checks "key": before a member's value. */
static enum cinf_status check_key(struct gate *g)
{
    skip_space(g);
    if (peek(g) != '"')
        return malformed(g, "expected a key");
    if (g->members_max && ++g->stack[g->depth - 1].members > g->members_max)
        return malformed(g, "too many keys in one object");
    TRY(check_string(g));
    skip_space(g);
    if (peek(g) != ':')
        return malformed(g, "expected ':'");
    g->at++;
    return CINF_OK;
}

/* Checks one scalar or an opening bracket.  *closed tells whether a value has ended with it. */
static enum cinf_status check_value(struct gate *g, bool *closed)
{
    skip_space(g);
    int c = peek(g);
    *closed = true;
    if (g->values_max && ++g->values > g->values_max)
        return malformed(g, "too many values");
    if (c == '"')
        return check_string(g);
    if (c == 't')
        return check_word(g, "true");
    if (c == 'f')
        return check_word(g, "false");
    if (c == 'n')
        return check_word(g, "null");
    if (take_python_word(g))
        return CINF_OK;
    if (c != '{' && c != '[')
        return c < 0 ? malformed(g, "unexpected end") : check_number(g);

    if (g->depth == g->depth_max)
        return malformed(g, "nested too deeply");
    g->at++;
    g->stack[g->depth].object = c == '{';
    g->stack[g->depth++].members = 0;
    skip_space(g);
    if (peek(g) == (c == '{' ? '}' : ']')) {
        g->at++;
        g->depth--;
        return CINF_OK;
    }
    *closed = false;
    return c == '{' ? check_key(g) : CINF_OK;
}

/* The whole text. */
static enum cinf_status check(struct gate *g)
{
    bool closed;
    do {
        TRY(check_value(g, &closed));
        while (closed && g->depth > 0) {
            bool object = g->stack[g->depth - 1].object;
            skip_space(g);
            int c = peek(g);
            if (c == ',') {
                g->at++;
                if (object)
                    TRY(check_key(g));
                closed = false;
            } else if (c == (object ? '}' : ']')) {
                g->at++;
                g->depth--;
            } else {
                return malformed(g, c < 0 ? "unexpected end" : "expected ',' or a closing bracket");
            }
        }
    } while (!closed);
    skip_space(g);
    return g->at == g->n ? CINF_OK : malformed(g, "text after the value");
}

static struct gate gate_of(const char *text, size_t n, const struct json_limits *limits)
{
    struct gate g = { .text = text, .n = n, .depth_max = DEPTH_DEFAULT };
    if (limits && limits->depth_max)
        g.depth_max = limits->depth_max < DEPTH_MAX ? limits->depth_max : DEPTH_MAX;
    if (limits) {
        g.members_max = limits->members_max;
        g.values_max = limits->values_max;
        g.python = limits->python;
    }
    if (g.python && n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        g.at = 3;
    return g;
}

enum cinf_status json_check(const char *text, size_t n, const struct json_limits *limits)
{
    struct gate g = gate_of(text, n, limits);
    return check(&g);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum cinf_status refuse_duplicates(const cJSON *object)
{
    size_t n = 0, i = 0;
    for (const cJSON *m = object->child; m; m = m->next)
        n++;
    if (n < 2)
        return CINF_OK;
    const char **keys = mem_new(n, sizeof *keys);
    if (!keys)
        return cinf_fail(CINF_ENOMEM, "JSON: no memory for %zu keys", n);
    for (const cJSON *m = object->child; m; m = m->next)
        keys[i++] = m->string;
    qsort(keys, n, sizeof *keys, by_text);
    enum cinf_status status = CINF_OK;
    for (i = 1; i < n && status == CINF_OK; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            status = cinf_fail(CINF_EFORMAT, "JSON: duplicate key \"%.100s\"", keys[i]);
    mem_free(keys);
    return status;
}

/* The gate's depth limit bounds the recursion. */
static enum cinf_status refuse_duplicates_below(const cJSON *value) /* NOLINT(misc-no-recursion) */
{
    if (cJSON_IsObject(value))
        TRY(refuse_duplicates(value));
    for (const cJSON *child = value->child; child; child = child->next)
        TRY(refuse_duplicates_below(child));
    return CINF_OK;
}

/* ---- Integers that a double would round ------------------------------------------------------ */

/* Every integer of up to 15 digits is a double. */
enum { DIGITS_EXACT = 15 };

/* The number after `at`, skipping strings; its length in *n, or NULL.  The text has passed the gate. */
static const char *next_number(const char *at, const char *end, size_t *n)
{
    while (at < end && *at != '-' && !is_digit((unsigned char)*at)) {
        if (*at++ != '"')
            continue;
        while (*at != '"')
            at += *at == '\\' ? 2 : 1;
        at++;
    }
    *n = 0;
    while (at + *n < end && strchr("+-.0123456789Ee", at[*n]) && at[*n])
        ++*n;
    return at < end ? at : NULL;
}

/* Visits the numbers of the tree in the order of the text and leaves the digits of a long one in valuestring,
 * which cJSON does not use for numbers but frees.  Recursion is bounded by the gate's depth limit. */
static bool keep_digits(cJSON *value, const char **at, const char *end) /* NOLINT(misc-no-recursion) */
{
    if (cJSON_IsNumber(value)) {
        size_t n;
        const char *number = next_number(*at, end, &n);
        *at = number + n;
        if (n > DIGITS_EXACT) {
            value->valuestring = cJSON_malloc(n + 1);
            if (!value->valuestring)
                return false;
            memcpy(value->valuestring, number, n);
            value->valuestring[n] = '\0';
        }
    }
    for (cJSON *child = value->child; child; child = child->next)
        if (!keep_digits(child, at, end))
            return false;
    return true;
}

/* The number as an integer; false if it is none, or may be rounded. */
static bool integer_of(int64_t *out, const cJSON *number)
{
    double d = cJSON_IsNumber(number) ? number->valuedouble : NAN;
    const char *text = number->valuestring;
    if (!cJSON_IsNumber(number) || !text) {
        if (!(fabs(d) < 9007199254740992.0) || d != floor(d))
            return false;
        *out = (int64_t)d;
        return true;
    }
    size_t sign = text[0] == '-';
    if (strspn(text + sign, "0123456789") != strlen(text + sign))
        return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

/* Replaces Python's words in a text that has passed the gate.  cJSON reads 1e999 as infinity; an empty string
 * is refused wherever a number is wanted. */
static void replace_python_words(char *text, size_t n)
{
    bool in_string = false;
    for (size_t at = 0; at < n; at++) {
        if (text[at] == '\\')
            at++;
        else if (text[at] == '"')
            in_string = !in_string;
        for (size_t i = 0; !in_string && i < sizeof python_words / sizeof *python_words; i++) {
            size_t length = strlen(python_words[i].word);
            if (n - at >= length && memcmp(text + at, python_words[i].word, length) == 0) {
                memcpy(text + at, python_words[i].json, length);
                at += length - 1;
                break;
            }
        }
    }
}

/* A text that has passed the gate becomes a tree. */
static enum cinf_status build_tree(cJSON **out, const char *text, size_t n)
{
    /* The gate accepts what RFC 8259 does, so only memory can fail here. */
    cJSON *tree = cJSON_ParseWithLength(text, n);
    if (!tree)
        return cinf_fail(CINF_ENOMEM, "JSON: no memory for the tree of %zu bytes", n);
    enum cinf_status status = refuse_duplicates_below(tree);
    if (status == CINF_OK && !keep_digits(tree, &(const char *){ text }, text + n))
        status = cinf_fail(CINF_ENOMEM, "JSON: no memory for the tree of %zu bytes", n);
    if (status != CINF_OK) {
        cJSON_Delete(tree);
        return status;
    }
    *out = tree;
    return CINF_OK;
}

enum cinf_status json_parse(cJSON **out, const char *text, size_t n, const struct json_limits *limits)
{
    struct gate g = gate_of(text, n, limits);
    size_t start = g.at;
    TRY(check(&g));
    text += start;
    n -= start;
    if (g.python_words == 0)
        return build_tree(out, text, n);
    char *copy = mem_copy(text, n);
    if (!copy)
        return cinf_fail(CINF_ENOMEM, "JSON: no memory for a copy of %zu bytes", n);
    replace_python_words(copy, n);
    enum cinf_status status = build_tree(out, copy, n);
    mem_free(copy);
    return status;
}

const cJSON *json_member(const cJSON *object, const char *key)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, key);
    return m && !cJSON_IsNull(m) ? m : NULL;
}

enum cinf_status json_read_int(int64_t *value, const cJSON *object, const char *key, int64_t low,
                               int64_t high)
{
    const cJSON *m = json_member(object, key);
    if (!m)
        return CINF_OK;
    int64_t integer;
    if (!integer_of(&integer, m) || integer < low || integer > high)
        return cinf_fail(CINF_EINVAL, "\"%s\" must be an integer from %" PRId64 " to %" PRId64, key, low,
                         high);
    *value = integer;
    return CINF_OK;
}

enum cinf_status json_read_double(double *value, const cJSON *object, const char *key, double low,
                                  double high)
{
    const cJSON *m = json_member(object, key);
    if (!m)
        return CINF_OK;
    if (!cJSON_IsNumber(m) || !(m->valuedouble >= low && m->valuedouble <= high))
        return cinf_fail(CINF_EINVAL, "\"%s\" must be a number from %g to %g", key, low, high);
    *value = m->valuedouble;
    return CINF_OK;
}

enum cinf_status json_read_bool(bool *value, const cJSON *object, const char *key)
{
    const cJSON *m = json_member(object, key);
    if (!m)
        return CINF_OK;
    if (!cJSON_IsBool(m))
        return cinf_fail(CINF_EINVAL, "\"%s\" must be true or false", key);
    *value = cJSON_IsTrue(m);
    return CINF_OK;
}

enum cinf_status json_read_text(const char **value, const cJSON *object, const char *key)
{
    const cJSON *m = json_member(object, key);
    if (!m)
        return CINF_OK;
    if (!cJSON_IsString(m))
        return cinf_fail(CINF_EINVAL, "\"%s\" must be a string", key);
    *value = m->valuestring;
    return CINF_OK;
}
