/* piece.h - where GPT-2 cuts a text before it merges: no token spans two pieces. */
#ifndef PIECE_H
#define PIECE_H

#include <stddef.h>

/* Returns the length of the piece that text[0..n), n >= 1, begins with. text[n] is the end of the text:
 * spaces there are one piece, while the last space before a word belongs to the word. */
size_t piece_length(const char *text, size_t n);

#endif
