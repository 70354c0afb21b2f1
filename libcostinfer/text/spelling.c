#include "spelling.h"

#include "utf8.h"

/* Returns the byte that a character of a spelling stands for, or -1. */
static int byte_of(uint32_t c)
{
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))
        return (int)c;
    if (c < 256 || c >= 256 + 68)
        return -1;
    c -= 256;
    return c <= 32 ? (int)c : c <= 66 ? (int)c - 33 + 127 : 173;
}

static uint32_t character_of(unsigned char byte)
{
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173))
        return byte;
    return 256u + (byte <= 32 ? byte : byte == 173 ? 67u : byte - 127u + 33u);
}

bool spelling_read(struct strbuf *bytes, const char *text, size_t n)
{
    for (size_t i = 0, used; i < n; i += used) {
        int byte = byte_of(utf8_read(text + i, n - i, &used));
        if (byte < 0)
            return false;
        strbuf_putc(bytes, (char)byte);
    }
    return true;
}

void spelling_write(struct strbuf *out, const char *bytes, size_t n)
{
    char character[4];
    for (size_t i = 0; i < n; i++)
        strbuf_add(out, character, utf8_write(character, character_of((unsigned char)bytes[i])));
}
