/* strbuf.c - text that grows, and numbers that do not follow the locale. */
#include "strbuf.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "utf8.h"

static bool strbuf_room(struct strbuf *b, size_t more)
{
    if (b->failed)
        return false;
    if (more >= SIZE_MAX - b->len || !mem_reserve(&b->text, &b->cap, b->len + more + 1, 1)) {
        b->failed = true;
        return false;
    }
    return true;
}

void strbuf_free(struct strbuf *b)
{
    mem_free(b->text);
    *b = (struct strbuf){ 0 };
}

void strbuf_clear(struct strbuf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->text)
        b->text[0] = '\0';
}

void strbuf_add(struct strbuf *b, const void *bytes, size_t n)
{
    if (!strbuf_room(b, n))
        return;
    if (n)
        memcpy(b->text + b->len, bytes, n);
    b->len += n;
    b->text[b->len] = '\0';
}

char *strbuf_reserve(struct strbuf *b, size_t n)
{
    return strbuf_room(b, n) ? b->text + b->len : NULL;
}

void strbuf_extend(struct strbuf *b, size_t n)
{
    assert(n < b->cap - b->len);
    b->len += n;
    b->text[b->len] = '\0';
}

void strbuf_puts(struct strbuf *b, const char *text)
{
    strbuf_add(b, text, strlen(text));
}

void strbuf_putc(struct strbuf *b, char c)
{
    strbuf_add(b, &c, 1);
}

void strbuf_vprintf(struct strbuf *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0)
        b->failed = true;
    if (n >= 0 && strbuf_room(b, (size_t)n)) {
        vsnprintf(b->text + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void strbuf_printf(struct strbuf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    strbuf_vprintf(b, format, args);
    va_end(args);
}

void strbuf_put_u64(struct strbuf *b, uint64_t value)
{
    strbuf_printf(b, "%" PRIu64, value);
}

void strbuf_put_double(struct strbuf *b, double value)
{
    if (isnan(value)) {
        strbuf_puts(b, "NaN");
        return;
    }
    if (isinf(value)) {
        strbuf_puts(b, value > 0 ? "+Inf" : "-Inf");
        return;
    }
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    /* printf writes the locale's decimal point, which may be any short text. */
    for (size_t i = 0; text[i];) {
        if (strchr("0123456789+-e", text[i])) {
            strbuf_putc(b, text[i++]);
            continue;
        }
        strbuf_putc(b, '.');
        while (text[i] && !strchr("0123456789", text[i]))
            i++;
    }
}

void strbuf_put_json(struct strbuf *b, const char *text, size_t n)
{
    strbuf_putc(b, '"');
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        size_t used;
        if (c >= 0x20 && c < 0x80) {
            if (c == '"' || c == '\\')
                strbuf_putc(b, '\\');
            strbuf_putc(b, (char)c);
            i++;
        } else if (c < 0x20) {
            const char *at = strchr("\b\f\n\r\t", c);
            if (c && at)
                strbuf_printf(b, "\\%c", "bfnrt"[at - "\b\f\n\r\t"]);
            else
                strbuf_printf(b, "\\u%04x", c);
            i++;
        } else if (utf8_read(text + i, n - i, &used) != UTF8_BAD) {
            strbuf_add(b, text + i, used);
            i += used;
        } else {
            strbuf_puts(b, "\xEF\xBF\xBD");
            i += used;
        }
    }
    strbuf_putc(b, '"');
}

bool text_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && memcmp(text + n - n_end, end, n_end) == 0;
}
