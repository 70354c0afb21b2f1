/* spelling.h - one character a byte, as byte-level vocabularies write tokens.
 *
 * So no spelling has a space or a control character in it: the bytes that Latin-1 prints are their own
 * character, the other 68 are U+0100 and up. */
#ifndef SPELLING_H
#define SPELLING_H

#include "strbuf.h"

/* Appends the bytes that the spelling text[0..n) stands for; false, with some of them appended, when it has
 * a character that stands for none. */
bool spelling_read(struct strbuf *bytes, const char *text, size_t n);

/* Appends the spelling of bytes[0..n). */
void spelling_write(struct strbuf *out, const char *bytes, size_t n);

#endif
