/* utf8.h - UTF-8 as RFC 3629 and Unicode's table 3-7 define it, for readers of untrusted bytes. */
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_BAD UINT32_MAX

/* The character at the start of text[0..n), n >= 1, and in *used its length in bytes.  For bytes
 * that are not UTF-8: UTF8_BAD, and *used is the length of the maximal ill-formed part (1 to 3), the
 * unit that one U+FFFD replaces (Unicode 15, section 3.9; WHATWG's decoder does the same). */
uint32_t utf8_read(const char *text, size_t n, size_t *used);

/* Whether text[0..n) is well-formed. */
bool utf8_valid(const char *text, size_t n);

/* Whether text[0..n) is a proper beginning of one longer well-formed character (so n is 1 to 3). */
bool utf8_incomplete(const char *text, size_t n);

/* Writes `c` (not a surrogate, at most 0x10FFFF) to out[0..4) and returns its length. */
size_t utf8_write(char out[4], uint32_t c);

#endif
