/* server.h - an HTTP server on one listener: starts and stops libmicrohttpd, and hands requests to the
 * application, which decides what every answer says. */
#ifndef SERVER_H
#define SERVER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#include "strbuf.h"

struct exchange;
struct listener;
struct server;
struct timers;
struct watcher;

struct server_options {
    unsigned listener; /* the application's number for it: exchange_listener() */
    /* Absolute, so that bytes that drip in do not extend them: for a request's head, for its body, and for
     * a connection between two requests. */
    uint32_t head_seconds, body_seconds, idle_seconds;
    /* Backstop, longer than all other timeouts together; a connection silent this long has leaked. */
    uint32_t silent_seconds;
    /* The limit of this server, and the connections that other servers of this process may have.  The limit
     * is lowered to what the descriptor limit has room for. */
    uint32_t connections, others;
    atomic_uint *n_open;  /* counts the connections that are open; NULL: nothing does */
    uint32_t per_address; /* the limit for one IP address; 0: none */
    uint64_t body_bytes;  /* the largest body */
    struct timers *timers;
    struct watcher *watcher;

    void *context;     /* exchange_context() */
    size_t user_bytes; /* exchange_user() */
    /* A request's head has come: the application keeps what it wants to know of it later.  The texts of the
     * request may be gone by the time it has ended. */
    void (*begun)(struct exchange *x);
    /* Called with each request when its body has come; answers by exchange_send(), exchange_begin() or
     * exchange_stream(). */
    void (*handle)(struct exchange *x);
    /* Answers a request that HTTP itself refuses; `why` is a sentence without a full stop. */
    void (*refuse)(struct exchange *x, unsigned status, const char *why);
    /* Writes the body, JSON, of such an answer.  Called once, for the 408 that comes without an exchange. */
    void (*write_refusal)(struct strbuf *out, unsigned status, const char *why);
    /* The status of its answer is known, and the client has nothing of it yet.  Not called for a client that
     * is gone before. */
    void (*answered)(struct exchange *x);
    /* The exchange is about to go.  For one that has a task, its over() is called instead. */
    void (*ended)(struct exchange *x);
    /* A warning for the log, from any thread. */
    void (*warn)(const char *event, const char *message);
};

/* Begins to listen and to serve.  The listener is the server's from then on, also when this fails. */
enum cinf_status server_start(struct server **out, struct listener *listener,
                              const struct server_options *options);
const struct listener *server_listener(const struct server *server);

/* Stops listening and closes all connections; none may be suspended.  Accepts NULL. */
void server_stop(struct server *server);

#endif
