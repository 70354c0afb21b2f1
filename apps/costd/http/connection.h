/* connection.h - a client's connection: its socket's options, the deadline of the phase it is in, the end
 * that the client makes of it, and the id of its request.
 *
 * libmicrohttpd's own timeout begins anew with every byte, so it does not limit a client that drips, and it
 * may overlook that a client has closed.  Here a timer shuts the socket down when a phase has lasted too
 * long, or shortly after the client has closed; libmicrohttpd then finds the socket closed. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "exchange.h"
#include "target.h"
#include "timers.h"

struct server;

/* What all connections of a server share; outlives them. */
struct connection_rules {
    struct server *server; /* exchange.c's */
    struct timers *timers;
    struct watcher *watcher;
    uint32_t head_seconds, body_seconds, idle_seconds;
    const char *late_body; /* JSON, of the answer 408 */
    uint64_t run;          /* random; makes request ids differ between runs */
    _Atomic uint64_t n_requests;
};

enum phase { SILENT, ARRIVING, ANSWERED, IDLE }; /* SILENT: nothing has come yet */

struct connection {
    struct connection_rules *rules;
    int fd;
    struct timer deadline, farewell;
    uint64_t watch;
    _Atomic enum phase phase;
    char id[REQUEST_ID_BYTES]; /* of the request; the deadline reads it while the request arrives */
    struct target target;      /* of the request */
    bool bad_target;
    struct exchange *exchange; /* NULL: between two, or the request's head has not come */
    bool timed_out;            /* the client was told so, by 408 */

    pthread_mutex_t lock; /* the fields below; held while tell() runs */
    bool gone;            /* the client has closed its side */
    void (*tell)(void *context);
    void *tell_context;
};

/* NULL: no memory, and the socket is shut down, because a connection without a deadline is not served. */
struct connection *connection_open(struct connection_rules *rules, int fd);
void connection_close(struct connection *connection); /* accepts NULL */

/* The phases of a request.  connection_answer() is called when all of it has come, and again with the seconds
 * that sending may take once the answer is known; 0: without a limit. */
void connection_first_line(struct connection *c, const char *target);
void connection_head(struct connection *c);
void connection_answer(struct connection *c, uint32_t seconds);
void connection_idle(struct connection *c);

/* Calls tell(context) once, on the watcher's thread, when the client closes its side, or here if it has
 * already. NULL revokes; after that returns, tell() is not running. */
void connection_tell(struct connection *c, void (*tell)(void *context), void *context);

/* Whether the peer has acknowledged neither data nor probes for too long. */
bool connection_is_lost(int fd);

#endif
