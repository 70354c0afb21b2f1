/* json_write.h - writing JSON: brackets, commas, keys and escapes, so that no caller spells them.
 *
 * A writer appends to a strbuf that its caller owns, so text may stand before the value (an event's "data: ")
 * and after it.  A failure for want of memory sticks to the strbuf and is checked a single time, at the end.
 *
 * Every function takes the member's key; NULL means that the value is an array's element or the outermost
 * value.  Keys are the program's own identifiers, or any text: they are escaped too. */
#ifndef JSON_WRITE_H
#define JSON_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "strbuf.h"

enum { JSON_WRITE_DEPTH_MAX = 64 };

struct json_writer {
    struct strbuf *out;
    uint64_t objects; /* bit d: the bracket at depth d opened an object */
    uint32_t depth;
    bool comma; /* the innermost bracket has a value already */
    bool line;  /* the next value begins on a new line */
};

struct json_writer json_write_to(struct strbuf *out);

void json_open_object(struct json_writer *w, const char *key);
void json_open_array(struct json_writer *w, const char *key);
void json_close(struct json_writer *w); /* the innermost bracket */

/* Starts the next value, or the closing bracket, on a new line, for output that people read. */
void json_new_line(struct json_writer *w);

void json_put_null(struct json_writer *w, const char *key);
void json_put_bool(struct json_writer *w, const char *key, bool value);
void json_put_u64(struct json_writer *w, const char *key, uint64_t value);
void json_put_i64(struct json_writer *w, const char *key, int64_t value);

/* The shortest decimal that reads back as `value`; null for NaN and infinities, which JSON cannot express. */
void json_put_double(struct json_writer *w, const char *key, double value);

/* Nanoseconds as exact seconds with nine decimals. */
void json_put_seconds(struct json_writer *w, const char *key, uint64_t ns);

void json_put_text(struct json_writer *w, const char *key, const char *text); /* NULL: null */
void json_put_bytes(struct json_writer *w, const char *key, const char *text, size_t n);

/* A value that the format spells out in JSON: a number in a form of its own. */
void json_put_format(struct json_writer *w, const char *key, const char *format, ...) CINF_PRINTF(3, 4);

/* A key alone; the caller appends its value to the strbuf, in JSON. */
void json_put_key(struct json_writer *w, const char *key);

#endif
