/* strbuf.h - text that grows.  A failed allocation is remembered, so that a writer can append a whole
 * document and check once at the end. */
#ifndef STRBUF_H
#define STRBUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

struct strbuf {
    char *text; /* NULL until something was appended; then it ends in NUL, which `len` does not count */
    size_t len;
    size_t cap;
    bool failed; /* memory ran out; text appended since is missing */
};

void strbuf_free(struct strbuf *b);
void strbuf_clear(struct strbuf *b); /* empties, keeps the memory */
void strbuf_add(struct strbuf *b, const void *bytes, size_t n);
void strbuf_puts(struct strbuf *b, const char *text);

/* Makes room for n more bytes after text[len], for a writer that knows only afterwards how many it used and
 * then tells strbuf_extend().  NULL if memory ran out. */
char *strbuf_reserve(struct strbuf *b, size_t n);
void strbuf_extend(struct strbuf *b, size_t n);
void strbuf_putc(struct strbuf *b, char c);
void strbuf_printf(struct strbuf *b, const char *format, ...) CINF_PRINTF(2, 3);
void strbuf_vprintf(struct strbuf *b, const char *format, va_list args) CINF_PRINTF(2, 0);

/* Appends decimal digits in every locale. */
void strbuf_put_u64(struct strbuf *b, uint64_t value);

/* Appends the shortest decimal that reads back as `value` (at most 17 digits), with '.' in every locale;
 * NaN, +Inf and -Inf as Prometheus spells them. */
void strbuf_put_double(struct strbuf *b, double value);

/* Appends `text` as a JSON string with its quotes.  Bytes that are not UTF-8 become U+FFFD, one for each
 * maximal ill-formed part; control characters, '"' and '\' are escaped. */
void strbuf_put_json(struct strbuf *b, const char *text, size_t n);

/* True if `text` ends with `end`. */
bool text_ends_with(const char *text, const char *end);

#endif
