#include "unicode_class.h"

#include <ctype.h>
#include <string.h>

#include "support.h"

START_TEST(ascii_is_as_c_has_it)
{
    for (int c = 0; c < 128; c++) {
        enum unicode_class class = unicode_class((uint32_t)c);
        enum unicode_class expected = isalpha(c)   ? UNICODE_LETTER
                                      : isdigit(c) ? UNICODE_NUMBER
                                      : isspace(c) ? UNICODE_SPACE
                                                   : UNICODE_OTHER;
        ck_assert_msg(class == expected, "U+%04X: class %d", (unsigned)c, (int)class);
    }
}
END_TEST

START_TEST(places_that_are_easy_to_get_wrong)
{
    static const struct {
        uint32_t c;
        enum unicode_class class;
    } cases[] = {
        { 0x84, UNICODE_OTHER },     { 0x85, UNICODE_SPACE },     { 0x86, UNICODE_OTHER },
        { 0xA0, UNICODE_SPACE },     { 0xAA, UNICODE_LETTER },    { 0xB2, UNICODE_NUMBER },
        { 0xBD, UNICODE_NUMBER },    { 0xD7, UNICODE_OTHER },     { 0x301, UNICODE_OTHER },
        { 0x430, UNICODE_LETTER },   { 0x660, UNICODE_NUMBER },   { 0x93E, UNICODE_OTHER },
        { 0x1680, UNICODE_SPACE },   { 0x180E, UNICODE_OTHER },   { 0x1FFF, UNICODE_OTHER },
        { 0x2000, UNICODE_SPACE },   { 0x200A, UNICODE_SPACE },   { 0x200B, UNICODE_OTHER },
        { 0x2028, UNICODE_SPACE },   { 0x2029, UNICODE_SPACE },   { 0x202F, UNICODE_SPACE },
        { 0x205F, UNICODE_SPACE },   { 0x2167, UNICODE_NUMBER },  { 0x3000, UNICODE_SPACE },
        { 0x3042, UNICODE_LETTER },  { 0x4E00, UNICODE_LETTER },  { 0x9FFC, UNICODE_LETTER },
        { 0xAC00, UNICODE_LETTER },  { 0xD800, UNICODE_OTHER },   { 0xE000, UNICODE_OTHER },
        { 0xFEFF, UNICODE_OTHER },   { 0xFFFD, UNICODE_OTHER },   { 0x10000, UNICODE_LETTER },
        { 0x1D7D8, UNICODE_NUMBER }, { 0x1F600, UNICODE_OTHER },  { 0x20000, UNICODE_LETTER },
        { 0x3134A, UNICODE_LETTER }, { 0x10FFFF, UNICODE_OTHER },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(unicode_class(cases[i].c) == cases[i].class, "U+%04X: class %d", (unsigned)cases[i].c,
                      (int)unicode_class(cases[i].c));
}
END_TEST

/* The number of characters of each class.  Spaces are fixed; the others only grow with each version of
 * Unicode.
 */
START_TEST(every_character_is_counted)
{
    size_t counts[4] = { 0 };
    for (uint32_t c = 0; c <= 0x10FFFF; c++)
        counts[unicode_class(c)]++;
    ck_assert_uint_eq(counts[UNICODE_SPACE], 25);
    ck_assert_uint_ge(counts[UNICODE_LETTER], 131756); /* Unicode 14 */
    ck_assert_uint_lt(counts[UNICODE_LETTER], 160000);
    ck_assert_uint_ge(counts[UNICODE_NUMBER], 1791);
    ck_assert_uint_lt(counts[UNICODE_NUMBER], 2500);
}
END_TEST

START_TEST(a_class_in_text_comes_with_a_length)
{
    static const struct {
        const char *text;
        size_t used;
        enum unicode_class class;
    } cases[] = {
        { "a", 1, UNICODE_LETTER },           { "\xC3\xA9", 2, UNICODE_LETTER },
        { "\xE3\x80\x80", 3, UNICODE_SPACE }, { "\xF0\x9D\x9F\x98", 4, UNICODE_NUMBER },
        { "\xE3\x80", 2, UNICODE_OTHER }, /* ends early */
        { "\xE3\x80z", 2, UNICODE_OTHER },    { "\x80", 1, UNICODE_OTHER },
        { "\xC0\xA0", 1, UNICODE_OTHER }, /* a space, overlong */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t used = 0;
        ck_assert_int_eq(unicode_class_at(cases[i].text, strlen(cases[i].text), &used), cases[i].class);
        ck_assert_uint_eq(used, cases[i].used);
    }
}
END_TEST

/* Every character was compared with Rust's \w (tests/peers/added_tokens_agreement.py). */
START_TEST(words)
{
    static const uint32_t in[] = { '0',     '9',     'A',     'z',     '_',     0xAA,    0xE9,
                                   0x301,   0x345,   0x660,   0x93E,   0x200C,  0x200D,  0x203F,
                                   0x2167,  0x24B6,  0x24E9,  0x4E00,  0xFE0F,  0x10400, 0x1D7D8,
                                   0x1F130, 0x1F149, 0x1F150, 0x1F189, 0x3134A, 0xE0100 },
                          out[] = { 0,       ' ',      '-',      '\'',      0x7F,    0xA0,    0xB2,
                                    0xBD,    0xD7,     0x200B,   0x200E,    0x24B5,  0x24EA,  0x2460,
                                    0x3000,  0xD800,   0xFEFF,   0xFFFD,    0x1F12F, 0x1F14A, 0x1F18A,
                                    0x1F600, 0x10FFFF, 0x110000, UINT32_MAX };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        ck_assert_msg(unicode_is_word(in[i]), "U+%04X is of a word", (unsigned)in[i]);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        ck_assert_msg(!unicode_is_word(out[i]), "U+%04X is of no word", (unsigned)out[i]);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("unicode_class");
    TCase *c = tcase_create("classes");
    suite_add_tcase(s, c);
    tcase_add_test(c, ascii_is_as_c_has_it);
    tcase_add_test(c, places_that_are_easy_to_get_wrong);
    tcase_add_test(c, every_character_is_counted);
    tcase_add_test(c, words);
    tcase_add_test(c, a_class_in_text_comes_with_a_length);
    return s;
}
