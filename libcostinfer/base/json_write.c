#include "json_write.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

struct json_writer json_write_to(struct strbuf *out)
{
    return (struct json_writer){ .out = out };
}

void json_put_key(struct json_writer *w, const char *key)
{
    /* A key belongs to an object; an element belongs to an array or stands alone. */
    assert(!key == !(w->depth && (w->objects >> (w->depth - 1) & 1)));
    if (w->comma)
        strbuf_putc(w->out, ',');
    if (w->line)
        strbuf_putc(w->out, '\n');
    w->comma = true;
    w->line = false;
    if (!key)
        return;
    strbuf_put_json(w->out, key, strlen(key));
    strbuf_putc(w->out, ':');
}

static void open_bracket(struct json_writer *w, const char *key, bool object)
{
    assert(w->depth < JSON_WRITE_DEPTH_MAX);
    json_put_key(w, key);
    strbuf_putc(w->out, object ? '{' : '[');
    uint64_t bit = UINT64_C(1) << w->depth++;
    w->objects = object ? w->objects | bit : w->objects & ~bit;
    w->comma = false;
}

void json_open_object(struct json_writer *w, const char *key)
{
    open_bracket(w, key, true);
}

void json_open_array(struct json_writer *w, const char *key)
{
    open_bracket(w, key, false);
}

void json_close(struct json_writer *w)
{
    assert(w->depth > 0);
    if (w->line)
        strbuf_putc(w->out, '\n');
    strbuf_putc(w->out, w->objects >> --w->depth & 1 ? '}' : ']');
    w->comma = true;
    w->line = false;
}

void json_new_line(struct json_writer *w)
{
    w->line = true;
}

void json_put_null(struct json_writer *w, const char *key)
{
    json_put_key(w, key);
    strbuf_puts(w->out, "null");
}

void json_put_bool(struct json_writer *w, const char *key, bool value)
{
    json_put_key(w, key);
    strbuf_puts(w->out, value ? "true" : "false");
}

void json_put_u64(struct json_writer *w, const char *key, uint64_t value)
{
    json_put_key(w, key);
    strbuf_put_u64(w->out, value);
}

void json_put_i64(struct json_writer *w, const char *key, int64_t value)
{
    json_put_key(w, key);
    strbuf_printf(w->out, "%" PRId64, value);
}

void json_put_double(struct json_writer *w, const char *key, double value)
{
    json_put_key(w, key);
    if (isfinite(value))
        strbuf_put_double(w->out, value);
    else
        strbuf_puts(w->out, "null");
}

void json_put_seconds(struct json_writer *w, const char *key, uint64_t ns)
{
    json_put_key(w, key);
    strbuf_printf(w->out, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
}

void json_put_bytes(struct json_writer *w, const char *key, const char *text, size_t n)
{
    json_put_key(w, key);
    strbuf_put_json(w->out, text, n);
}

void json_put_text(struct json_writer *w, const char *key, const char *text)
{
    if (text)
        json_put_bytes(w, key, text, strlen(text));
    else
        json_put_null(w, key);
}

void json_put_format(struct json_writer *w, const char *key, const char *format, ...)
{
    va_list args;
    json_put_key(w, key);
    va_start(args, format);
    strbuf_vprintf(w->out, format, args);
    va_end(args);
}
