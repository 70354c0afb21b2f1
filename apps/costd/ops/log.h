/* log.h - what costd writes to stderr: one JSON object a line.  Every text goes through the JSON escaper, so
 * that a client cannot forge a line; prompts and generated text are never given to it.
 *
 * A line is built in memory, queued, and written by a thread of its own (line_writer.h): stderr may be a pipe
 * that is not read, and service must not wait for it.  The price is that a process that crashes or is killed
 * loses the lines that are queued: without a slow reader those of the last microseconds, with one up to 2
 * MiB. */
#ifndef LOG_H
#define LOG_H

#include <stdint.h>

#include <costinfer/status.h>

#include "json_write.h"

/* Nothing may be logged before log_open() or after log_close().  Both of the latter wait a few seconds at
 * most for what is queued; log_flush() is for _exit(), when other threads may still log. */
enum cinf_status log_open(void);
void log_flush(void);
void log_close(void);

/* Lines that were not written. */
uint64_t log_dropped(void);

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
void log_end(struct log_line *line);                                   /* queues it and frees its memory */

/* Writes a line that has only a message. */
void log_message(const char *level, const char *event, const char *format, ...) CINF_PRINTF(3, 4);

#endif
