/* utf8.h - UTF-8 for readers of untrusted bytes, as RFC 3629 and Unicode's table 3-7 define it. */
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_BAD UINT32_MAX

/* Returns the character at the start of text[0..n), n >= 1, and its length in *used.  If the bytes are
 * not UTF-8, returns UTF8_BAD, and *used is the length of the maximal ill-formed part (1 to 3 bytes), the
 * unit that one U+FFFD replaces (Unicode 15, section 3.9; WHATWG's decoder does the same). */
uint32_t utf8_read(const char *text, size_t n, size_t *used);

/* True if text[0..n) is well-formed. */
bool utf8_valid(const char *text, size_t n);

/* True if text[0..n) is a proper beginning of one longer well-formed character (so n is 1 to 3). */
bool utf8_incomplete(const char *text, size_t n);

/* Writes `c` (not a surrogate, at most 0x10FFFF) to out[0..4) and returns its length. */
size_t utf8_write(char out[4], uint32_t c);

#endif
