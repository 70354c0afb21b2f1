/* piece.c - GPT-2's pattern, by hand.
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * The first alternative that matches wins.  Each begins with a different class of character, but for the
 * U+0020 that three of them may begin with, so one look at the next two characters decides. */
#include "piece.h"

#include "unicode_class.h"

/* Returns how far text[at..n) stays in one class. */
static size_t run_end(const char *text, size_t n, size_t at, enum unicode_class class)
{
    size_t used;
    while (at < n && unicode_class_at(text + at, n - at, &used) == class)
        at += used;
    return at;
}

/* Returns the length of the contraction after an apostrophe (s, t, m, d, re, ve or ll), or 0. */
static size_t contraction(const char *text, size_t n)
{
    if (n >= 1 && (text[0] == 's' || text[0] == 't' || text[0] == 'm' || text[0] == 'd'))
        return 1;
    if (n < 2)
        return 0;
    if (text[1] == 'e')
        return text[0] == 'r' || text[0] == 'v' ? 2 : 0;
    return text[0] == 'l' && text[1] == 'l' ? 2 : 0;
}

/* Returns the length of a run of spaces. When something follows, the last space does not count, because it
 * may begin the next piece. */
static size_t spaces(const char *text, size_t n)
{
    size_t at = 0, used = 0, before_last = 0;
    while (at < n && unicode_class_at(text + at, n - at, &used) == UNICODE_SPACE) {
        before_last = at;
        at += used;
    }
    return at == n || before_last == 0 ? at : before_last;
}

size_t piece_length(const char *text, size_t n)
{
    if (text[0] == '\'') {
        size_t tail = contraction(text + 1, n - 1);
        if (tail > 0)
            return 1 + tail;
    }
    size_t used, start = text[0] == ' ' && n > 1;
    enum unicode_class class = unicode_class_at(text + start, n - start, &used);
    return class == UNICODE_SPACE ? spaces(text, n) : run_end(text, n, start + used, class);
}
