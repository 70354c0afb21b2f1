/* server.h - HTTP: connections, bodies, answers, request ids.  With guard.c the one place that knows
 * libmicrohttpd.
 *
 * Two threads serve all connections and never wait: work that takes time suspends its connection and
 * resumes it (struct task). */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <costinfer/status.h>

enum {
    BODY_BYTES_MAX = 256 * 1024,
    REQUEST_ID_BYTES = 40,
    SEND_SECONDS = 60, /* for an answer that is no stream */
};

struct server;
struct exchange; /* one request and its answer */

/* What the log says about a request, apart from its generation. */
struct access {
    char id[REQUEST_ID_BYTES]; /* x-request-id; never used twice */
    char method[16];
    char path[192]; /* cut at that length; the log escapes it */
    char model[257];
    uint32_t key; /* number of the API key, 0: none */
    char key_name[65];
    unsigned status;  /* 0: nothing was sent */
    const char *code; /* of the error object, or NULL */
    bool quiet;       /* not logged when it went well */
    uint64_t received_ns;
};

struct timers;

struct server_options {
    const char *address; /* "HOST:PORT", "[V6]:PORT" or "unix:PATH" */
    int inherited;       /* a socket that listens already, instead of `address`; -1: none */
    bool may_be_public;  /* or else only loopback addresses and Unix sockets */
    bool admin;          /* for metrics and administration alone */
    /* Absolute, so that bytes that drip in do not extend them: for a request's head, for its body, and for
     * a connection that asks nothing more. */
    uint32_t head_seconds, body_seconds, idle_seconds;
    /* Longer than anything may take its time: what is silent for so long has been forgotten. */
    uint32_t silent_seconds;
    /* At most, and what another server of this process may have: fewer, if the descriptor limit is low. */
    uint32_t connections, others;
    struct timers *timers;
    /* Called with each request when its body is there; answers by exchange_send(), exchange_begin() or
     * exchange_stream(). */
    void (*handle)(struct exchange *x);
    void *context;
};

/* Listens at once. */
enum cinf_status server_start(struct server **out, const struct server_options *options);
uint16_t server_port(const struct server *server); /* 0: a Unix socket */

/* Stops listening and closes all connections; none may be suspended.  Accepts NULL. */
void server_stop(struct server *server);

/* ---- The request -------------------------------------------------------------------------- */

void *exchange_context(const struct exchange *x);
struct access *exchange_access(struct exchange *x);
const char *exchange_method(const struct exchange *x);
const char *exchange_path(const struct exchange *x); /* as sent: percent-encoded, without the query */
const char *exchange_header(const struct exchange *x, const char *name); /* NULL: absent */
const char *exchange_query(const struct exchange *x, const char *name);  /* percent-encoded; NULL: absent */
const char *exchange_body(const struct exchange *x, size_t *n);          /* "" for none */
int exchange_socket(const struct exchange *x);
bool exchange_is_lost(const struct exchange *x);    /* what was sent is not acknowledged, nor are probes */
bool exchange_is_admin(const struct exchange *x);   /* it came to the listener for that */
bool exchange_is_private(const struct exchange *x); /* only this machine can reach its listener */
bool exchange_is_unix(const struct exchange *x);    /* the listener is a Unix socket */

/* ---- The answer --------------------------------------------------------------------------- */

/* Headers for the answer to come: seconds until a retry makes sense, and the methods of a path. */
void exchange_retry_after(struct exchange *x, unsigned seconds);
void exchange_allow(struct exchange *x, const char *methods);
void exchange_challenge(struct exchange *x); /* WWW-Authenticate */

/* The answer to come is a file of the built-in page: it may be kept and asked for again by its `etag`, and it
 * may load nothing from elsewhere. */
void exchange_page(struct exchange *x, const char *etag, bool gzip);

/* The whole answer; `body` is copied. */
void exchange_send(struct exchange *x, unsigned status, const char *content_type, const void *body, size_t n);

/* {"error":{message, type, param, code}}.  `type` and `code` live for ever; param may be NULL. */
void exchange_error(struct exchange *x, unsigned status, const char *type, const char *param,
                    const char *code, const char *message);

/* Hangs up: whoever writes to the connection gets an error.  From any thread while `x` is there. */
void exchange_hang_up(struct exchange *x);

/* Closes the connection without an answer: nobody is there, or there is no memory for one. */
void exchange_abandon(struct exchange *x);

enum { TASK_END = -1, TASK_BROKEN = -2 };

/* Work that outlives the handler.  All calls come from the connection's thread, one at a time. */
struct task {
    /* Called at once and after every exchange_resume(): answers, or suspends. */
    void (*proceed)(void *context, struct exchange *x);
    /* Of a stream: writes at most max bytes and returns how many; 0 after suspending; TASK_END;
     * TASK_BROKEN closes the connection. */
    ssize_t (*read)(void *context, struct exchange *x, char *bytes, size_t max);
    /* The connection is done with it, well or not, and `x` is about to go.  Writes the log's line. */
    void (*over)(void *context, struct exchange *x);
};

void exchange_begin(struct exchange *x, const struct task *task, void *context);  /* by proceed() */
void exchange_stream(struct exchange *x, const struct task *task, void *context); /* 200, an SSE stream */

/* Suspend in proceed() or read() only; resume from any thread, once a suspension. */
void exchange_suspend(struct exchange *x);
void exchange_resume(struct exchange *x);

#endif
