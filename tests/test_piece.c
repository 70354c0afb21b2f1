#include "piece.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "unicode_class.h"

/* Each text is written with '|' where it must be cut. */
static const char *const cases[] = {
    "Hello| world",
    "Hello|,| world|!",
    "it|'s| we|'re| I|'ve| I|'m| he|'ll| he|'d| can|'t",
    "'s|ad",
    "it|'|S",
    "''|s",
    "rock|'|n",
    "'ll|l",
    "'|l",
    "'|r",
    "'re|e",
    "x|=|2",
    "abc|123|def",
    " 12| 34|.",
    "a| | b",
    "a|  | b",
    "a|\n|\n|b",
    "a|\n\n",
    "a|   ",
    "   ",
    " ",
    "  | a",
    "\n| a",
    "\t|a",
    " |\t|a",
    " \t| a",
    "a|\xC2\xA0|b",   /* a no-break space does not join what follows */
    "a| |\xC2\xA0|b", /* nor does the space before it */
    "a|\xC2\x85",     /* U+0085 is a space */
    "a|\x1C",         /* U+001C is not */
    "a| \x1C",
    "a|\xEF\xBB\xBF", /* nor is U+FEFF */
    "\xC2\xBD|a",     /* one half is a number */
    "1\xC2\xBD|a",
    "e|\xCC\x81|a", /* an accent of its own is neither letter nor number */
    "\xC3\xA9t\xC3\xA9",
    " \xD0\x94\xD0\xB0|!!",
    "a|\xFF\xFE|b", /* bytes that are not UTF-8 */
    "a| \xE3\x81|b",
    "\xE3\x81|\xE3\x81\x82",
    "a|?!\xE2\x82\xAC| ?",
    "!|\n",
    "!| ",
};

START_TEST(texts_are_cut_where_the_pattern_says)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64], cut[128];
        size_t n = 0, m = 0;
        for (const char *c = cases[i]; *c; c++)
            if (*c != '|')
                text[n++] = *c;
        for (size_t at = 0, used; at < n; at += used) {
            used = piece_length(text + at, n - at);
            ck_assert_uint_ge(used, 1);
            ck_assert_uint_le(at + used, n);
            if (at)
                cut[m++] = '|';
            memcpy(cut + m, text + at, used);
            m += used;
        }
        cut[m] = '\0';
        ck_assert_str_eq(cut, cases[i]);
    }
}
END_TEST

/* The pattern's alternatives one by one, as a regular-expression engine tries them. */
static size_t naive_run(const char *text, size_t n, size_t at, bool (*in)(enum unicode_class))
{
    size_t used, start = at;
    while (at < n && in(unicode_class_at(text + at, n - at, &used)))
        at += used;
    return at - start;
}
static bool letter(enum unicode_class c)
{
    return c == UNICODE_LETTER;
}
static bool number(enum unicode_class c)
{
    return c == UNICODE_NUMBER;
}
static bool other(enum unicode_class c)
{
    return c != UNICODE_LETTER && c != UNICODE_NUMBER && c != UNICODE_SPACE;
}
static bool space(enum unicode_class c)
{
    return c == UNICODE_SPACE;
}

static size_t naive_piece(const char *text, size_t n)
{
    static const char *const contractions[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
    static bool (*const runs[])(enum unicode_class) = { letter, number, other };
    for (int i = 0; i < 7; i++)
        if (n >= strlen(contractions[i]) && memcmp(text, contractions[i], strlen(contractions[i])) == 0)
            return strlen(contractions[i]);
    for (int i = 0; i < 3; i++) {
        size_t blank = text[0] == ' ', length = naive_run(text, n, blank, runs[i]);
        if (length > 0)
            return blank + length;
    }
    size_t length = naive_run(text, n, 0, space), used;
    if (length == n)
        return length;
    /* \s+(?!\S) gives characters back until a space follows; with one character it never does. */
    size_t last = length;
    for (size_t at = 0; at < length; at += used) {
        unicode_class_at(text + at, n - at, &used);
        last = at;
    }
    return last > 0 ? last : length;
}

START_TEST(random_texts_are_cut_as_the_alternatives_say)
{
    static const char *const parts[] = { "a",       "B",        " ",        "  ",       "'",
                                         "s",       "ll",       "re",       "7",        "\n",
                                         "\t",      "\xC2\xA0", "!",        "?!",       "\xC2\xB2",
                                         "\x80",    "\xE2",     "\xE2\x82", "\xCC\x81", "\xE3\x80\x80",
                                         "\xD0\xB6" };
    srand(1);
    for (int round = 0; round < 20000; round++) {
        char text[64];
        size_t n = 0;
        for (int i = 1 + rand() % 12; i > 0; i--) {
            const char *part = parts[(size_t)rand() % (sizeof parts / sizeof parts[0])];
            memcpy(text + n, part, strlen(part));
            n += strlen(part);
        }
        for (size_t at = 0, used; at < n; at += used) {
            used = piece_length(text + at, n - at);
            ck_assert_uint_eq(used, naive_piece(text + at, n - at));
        }
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("piece");
    TCase *c = tcase_create("pieces");
    suite_add_tcase(s, c);
    tcase_add_test(c, texts_are_cut_where_the_pattern_says);
    tcase_add_test(c, random_texts_are_cut_as_the_alternatives_say);
    return s;
}
