#include "unicode_class.h"

#include "unicode_table.h"
#include "utf8.h"

/* Of changes[0..n), the last one at or before c; the first one is at 0. */
static uint32_t change_at(const uint32_t *changes, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (changes[middle] >> 2 <= c)
            low = middle;
        else
            high = middle;
    }
    return changes[low] & 3;
}

enum unicode_class unicode_class(uint32_t c)
{
    if (c < 128)
        return unicode_ascii[c];
    return change_at(unicode_changes, sizeof unicode_changes / sizeof *unicode_changes, c);
}

bool unicode_is_word(uint32_t c)
{
    return c <= 0x10FFFF && change_at(unicode_words, sizeof unicode_words / sizeof *unicode_words, c);
}

enum unicode_class unicode_class_at(const char *text, size_t n, size_t *used)
{
    unsigned char first = (unsigned char)text[0];
    if (first < 128) {
        *used = 1;
        return unicode_ascii[first];
    }
    uint32_t c = utf8_read(text, n, used);
    return c == UTF8_BAD ? UNICODE_OTHER : unicode_class(c);
}
