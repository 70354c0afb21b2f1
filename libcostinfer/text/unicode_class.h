/* unicode_class.h - the three kinds of character that GPT-2's splitting of text asks for, and what a word is
 * made of. */
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

/* The class of the character at the start of text[0..n), n >= 1, and its length.  Bytes that are not UTF-8
 * are OTHER. */
enum unicode_class unicode_class_at(const char *text, size_t n, size_t *used);

/* What \w is for Unicode's regular expressions: letters and marks, decimal digits, letter-like numbers and
 * symbols, connecting punctuation, and the two joiners.  False for what is no character. */
bool unicode_is_word(uint32_t c);

#endif
