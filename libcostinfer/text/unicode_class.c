#include "unicode_class.h"

#include "unicode_table.h"
#include "utf8.h"

enum unicode_class unicode_class(uint32_t c)
{
    if (c < 128)
        return unicode_ascii[c];
    /* The last change at or before c; the first one is at 0. */
    size_t low = 0, high = sizeof unicode_changes / sizeof unicode_changes[0];
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (unicode_changes[middle] >> 2 <= c)
            low = middle;
        else
            high = middle;
    }
    return unicode_changes[low] & 3;
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
