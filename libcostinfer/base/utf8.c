/* utf8.c - reading and writing one character at a time. */
#include "utf8.h"

/* What may follow a lead byte: how many bytes, and the range of the first of them (the others are
 * 80..BF).  The narrower ranges of E0, ED, F0 and F4 exclude overlong forms, surrogates and everything
 * above U+10FFFF. */
struct lead {
    unsigned char more, low, high;
};

static struct lead lead_of(unsigned char c)
{
    if (c < 0x80)
        return (struct lead){ 0, 0, 0 };
    if (c >= 0xC2 && c <= 0xDF)
        return (struct lead){ 1, 0x80, 0xBF };
    if (c >= 0xE0 && c <= 0xEF)
        return (struct lead){ 2, c == 0xE0 ? 0xA0 : 0x80, c == 0xED ? 0x9F : 0xBF };
    if (c >= 0xF0 && c <= 0xF4)
        return (struct lead){ 3, c == 0xF0 ? 0x90 : 0x80, c == 0xF4 ? 0x8F : 0xBF };
    return (struct lead){ 0, 1, 0 };
}

/* Length of the longest well-formed beginning of the character that starts at s[0], at most n bytes. */
static size_t good_prefix(const unsigned char *s, size_t n, struct lead lead)
{
    size_t i = 1;
    if (lead.more >= 1 && i < n && s[1] >= lead.low && s[1] <= lead.high) {
        i++;
        while (i < n && i <= lead.more && (s[i] & 0xC0) == 0x80)
            i++;
    }
    return i;
}

uint32_t utf8_read(const char *text, size_t n, size_t *used)
{
    const unsigned char *s = (const unsigned char *)text;
    struct lead lead = lead_of(s[0]);
    if (lead.more == 0) {
        *used = 1;
        return lead.low ? UTF8_BAD : s[0];
    }
    *used = good_prefix(s, n, lead);
    if (*used != lead.more + 1u)
        return UTF8_BAD;
    uint32_t c = s[0] & (0x3Fu >> lead.more);
    for (size_t i = 1; i <= lead.more; i++)
        c = c << 6 | (s[i] & 0x3Fu);
    return c;
}

bool utf8_valid(const char *text, size_t n)
{
    for (size_t i = 0, used; i < n; i += used)
        if (utf8_read(text + i, n - i, &used) == UTF8_BAD)
            return false;
    return true;
}

bool utf8_incomplete(const char *text, size_t n)
{
    if (n == 0)
        return false;
    const unsigned char *s = (const unsigned char *)text;
    struct lead lead = lead_of(s[0]);
    return lead.more >= n && good_prefix(s, n, lead) == n;
}

size_t utf8_write(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}
