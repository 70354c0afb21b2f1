/* unicode_class.h - the three kinds of character that GPT-2's pattern asks for, what a word is made of, and
 * the general categories that other patterns ask for. */
#ifndef UNICODE_CLASS_H
#define UNICODE_CLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum unicode_class {
    UNICODE_OTHER,  /* also marks, surrogates and what is not assigned */
    UNICODE_LETTER, /* general category L* */
    UNICODE_NUMBER, /* general category N*: digits, but also ², ½ and Ⅷ */
    UNICODE_SPACE,  /* White_Space; the separators U+001C to U+001F, U+200B and U+FEFF are not */
};

enum unicode_class unicode_class(uint32_t c);

/* Returns the class of the character at the start of text[0..n), n >= 1, and its length.  Bytes that are not
 * UTF-8 are OTHER. */
enum unicode_class unicode_class_at(const char *text, size_t n, size_t *used);

/* General categories, in the order of scripts/make_unicode_table.py. */
enum unicode_category {
    CATEGORY_CN, /* not assigned */
    CATEGORY_LU,
    CATEGORY_LL,
    CATEGORY_LT,
    CATEGORY_LM,
    CATEGORY_LO,
    CATEGORY_MN,
    CATEGORY_MC,
    CATEGORY_ME,
    CATEGORY_ND,
    CATEGORY_NL,
    CATEGORY_NO,
    CATEGORY_PC,
    CATEGORY_PD,
    CATEGORY_PS,
    CATEGORY_PE,
    CATEGORY_PI,
    CATEGORY_PF,
    CATEGORY_PO,
    CATEGORY_SM,
    CATEGORY_SC,
    CATEGORY_SK,
    CATEGORY_SO,
    CATEGORY_ZS,
    CATEGORY_ZL,
    CATEGORY_ZP,
    CATEGORY_CC,
    CATEGORY_CF,
    CATEGORY_CS,
    CATEGORY_CO,
    CATEGORIES,
};

enum unicode_category unicode_category(uint32_t c); /* CATEGORY_CN for what is not a character */

/* What \w is for Unicode's regular expressions: letters and marks, decimal digits, letter-like numbers and
 * symbols, connecting punctuation, and the two joiners.  False for what is not a character. */
bool unicode_is_word(uint32_t c);

#endif
