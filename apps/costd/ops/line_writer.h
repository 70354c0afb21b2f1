/* line_writer.h - writes lines to a descriptor from a thread of its own, so that a reader that is slow, stuck
 * or gone never holds up the thread that has something to say.
 *
 * The queue is bounded.  When it is full, lines are dropped, the newest first, because what has been queued
 * already is the beginning of the story; they are counted, and a note with their number stands where they
 * would have stood.  Lines keep their order, and lines of up to PIPE_BUF bytes reach a pipe whole. */
#ifndef LINE_WRITER_H
#define LINE_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#include "strbuf.h"

struct line_writer;

/* Writes a line that says that `n` lines are missing at this place.  Called on the writer's thread. */
typedef void line_note(struct strbuf *out, uint64_t n);

/* `fd` stays the caller's; its flags are not changed, because other processes may share them.  Up to
 * `capacity` bytes wait while as many are being written. */
enum cinf_status line_writer_start(struct line_writer **out, int fd, size_t capacity, line_note *note);

/* Queues `n` bytes that end in a line feed, or counts them as dropped.  Never waits for the descriptor. */
void line_writer_put(struct line_writer *writer, const char *line, size_t n);

/* Lines that were not written, because they did not fit or because writing failed. */
uint64_t line_writer_dropped(struct line_writer *writer);

/* Waits until all lines are written, but no longer than `stuck_ms` without progress and `total_ms` in all.
 * Returns whether they are. */
bool line_writer_flush(struct line_writer *writer, uint32_t stuck_ms, uint32_t total_ms);

/* Flushes, and ends the thread.  A thread that is stuck in a write cannot be ended: it is left behind with
 * its memory, for the process is about to end.  Nothing may be put any more.  Accepts NULL. */
void line_writer_stop(struct line_writer *writer, uint32_t stuck_ms, uint32_t total_ms);

#endif
