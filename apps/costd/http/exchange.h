/* exchange.h - one request and its answer, as the application sees them.
 *
 * Two threads serve all connections and never wait: a handler whose work takes time suspends its connection
 * and resumes it later (struct task).  Error bodies, log lines and whatever else the application remembers of
 * a request are its own: it finds them in exchange_user(). */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    REQUEST_ID_BYTES = 40,
    SEND_SECONDS = 60, /* time to send an answer that is not a stream */
};

struct exchange;

/* ---- The request -------------------------------------------------------------------------- */

void *exchange_context(const struct exchange *x);  /* server_options.context */
void *exchange_user(struct exchange *x);           /* server_options.user_bytes of memory, zeroed at first */
const char *exchange_id(const struct exchange *x); /* never used twice */
const char *exchange_method(const struct exchange *x);
const char *exchange_path(const struct exchange *x); /* as sent: percent-encoded, without the query */
const char *exchange_header(const struct exchange *x, const char *name); /* NULL: absent */
const char *exchange_host(const struct exchange *x); /* the name it was sent to; NULL: none (HTTP/1.0) */
const char *exchange_query(const struct exchange *x, const char *name); /* percent-encoded; NULL: absent */
/* All of the query: "NAME=VALUE", each ending in '\0', then an empty one. */
const char *exchange_query_pairs(const struct exchange *x);
const char *exchange_body(const struct exchange *x, size_t *n); /* "" if there is none */
uint64_t exchange_received_ns(const struct exchange *x); /* on the monotonic clock, when its head had come */
bool exchange_is_lost(const struct exchange *x);         /* the peer acknowledges neither data nor probes */
unsigned exchange_listener(const struct exchange *x);    /* server_options.listener of the one it came to */
bool exchange_is_private(const struct exchange *x);      /* only this machine can reach that listener */
bool exchange_is_unix(const struct exchange *x);         /* that listener is a Unix socket */

/* ---- The answer --------------------------------------------------------------------------- */

/* Adds a header to the answer to come.  Both texts must live until the answer is sent.  Cache-Control is
 * "no-store", and x-request-id is exchange_id(), unless they are set here. */
void exchange_add_header(struct exchange *x, const char *name, const char *value);

/* The whole answer; `body` is copied. */
void exchange_send(struct exchange *x, unsigned status, const char *content_type, const void *body, size_t n);

/* The status that was sent; 0: none. */
unsigned exchange_status(const struct exchange *x);

/* Shuts the socket down, which ends reading and writing.  From any thread while `x` exists. */
void exchange_hang_up(struct exchange *x);

/* Closes the connection without an answer: the client has gone, or there is no memory for one. */
void exchange_abandon(struct exchange *x);

enum { TASK_END = -1, TASK_BROKEN = -2 };

/* Work that outlives the handler.  All calls but gone() come from the connection's thread, one at a time. */
struct task {
    /* Called immediately and after every exchange_resume(): answers, or suspends. */
    void (*proceed)(void *context, struct exchange *x);
    /* For a stream: writes at most max bytes and returns how many; 0 after suspending; TASK_END;
     * TASK_BROKEN closes the connection. */
    ssize_t (*read)(void *context, struct exchange *x, char *bytes, size_t max);
    /* The client has closed its side.  Called once at most, on the watcher's thread or, when the task begins,
     * on the connection's. */
    void (*gone)(void *context);
    /* The connection is done with the task, well or not, and `x` is about to go. */
    void (*over)(void *context, struct exchange *x);
};

void exchange_begin(struct exchange *x, const struct task *task, void *context);  /* by proceed() */
void exchange_stream(struct exchange *x, const struct task *task, void *context); /* 200, an SSE stream */

/* Suspend only in proceed() or read(); resume from any thread, once for each suspension. */
void exchange_suspend(struct exchange *x);
void exchange_resume(struct exchange *x);

#endif
