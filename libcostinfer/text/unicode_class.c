#include "unicode_class.h"

#include "unicode_table.h"
#include "utf8.h"

/* Returns the value, of `bits` bits, at the last of changes[0..n) at or before c. The first one is at 0. */
static uint32_t change_at(const uint32_t *changes, size_t n, unsigned bits, uint32_t c)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (changes[middle] >> bits <= c)
            low = middle;
        else
            high = middle;
    }
    return changes[low] & ((1u << bits) - 1);
}

enum unicode_class unicode_class(uint32_t c)
{
    if (c < 128)
        return unicode_ascii[c];
    return change_at(unicode_changes, sizeof unicode_changes / sizeof *unicode_changes, 2, c);
}

bool unicode_is_word(uint32_t c)
{
    return c <= 0x10FFFF && change_at(unicode_words, sizeof unicode_words / sizeof *unicode_words, 2, c);
}

enum unicode_category unicode_category(uint32_t c)
{
    if (c > 0x10FFFF)
        return CATEGORY_CN;
    return change_at(unicode_categories, sizeof unicode_categories / sizeof *unicode_categories, 5, c);
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
