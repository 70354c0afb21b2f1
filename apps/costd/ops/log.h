/* log.h - what costd writes to stderr: one JSON object a line, built in memory and written with one
 * write(), so that lines of different threads never mix.  Every text goes through the JSON escaper,
 * so that a client cannot forge a line; prompts and generated text are never given to it. */
#ifndef LOG_H
#define LOG_H

#include <stdint.h>

#include "json_write.h"

struct log_line {
    struct strbuf text;
    struct json_writer json; /* into `text`: for members that have no function below */
};

/* Begins a line with the time, a level ("info", "warn", "error") and an event.  The line must not be moved
 * until log_end(). */
void log_begin(struct log_line *line, const char *level, const char *event);
void log_text(struct log_line *line, const char *key, const char *value); /* NULL: null */
void log_u64(struct log_line *line, const char *key, uint64_t value);
void log_seconds(struct log_line *line, const char *key, uint64_t ns); /* nine decimals */
void log_end(struct log_line *line);                                   /* writes it and frees its memory */

/* Writes a line that has only a message. */
void log_message(const char *level, const char *event, const char *format, ...) CINF_PRINTF(3, 4);

#endif
