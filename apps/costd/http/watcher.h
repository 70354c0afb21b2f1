/* watcher.h - the thread that notices when a client has gone, and looks after what the client left.
 *
 * libmicrohttpd does not look at a suspended connection's socket, so work for a client that has hung up would
 * run to its end.  It also misses the end of a connection that arrives together with its last bytes, because
 * it waits for edges.  The watcher has an epoll set of its own that waits for EPOLLRDHUP: end of file or
 * reset.  A client that shuts down only its sending half counts as gone too. */
#ifndef WATCHER_H
#define WATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/status.h>

struct watcher;

enum cinf_status watcher_start(struct watcher **out);

/* Looks after the orphans until none is left, then stops.  Accepts NULL. */
void watcher_stop(struct watcher *watcher);

/* Calls gone(context) once, on the watcher's thread, when the peer of `fd` has gone, also if it has already.
 * A descriptor can have one watch.  Returns it, for watcher_remove(), or 0 without memory for one.  The
 * number holds a generation, so that an event in flight cannot hit the next owner of the descriptor. */
uint64_t watcher_add(struct watcher *watcher, int fd, void (*gone)(void *context), void *context);

/* After it returns, gone() is not running and will not be called.  Call it before closing `fd`; ignores 0. */
void watcher_remove(struct watcher *watcher, uint64_t watch);

/* An orphan has work under way and no connection any more.  `poll` is called on the watcher's thread,
 * immediately and after every wake, until it returns true; that call may free the orphan. */
struct orphan {
    bool (*poll)(struct orphan *orphan);
    struct orphan *next;
};
void watcher_adopt(struct watcher *watcher, struct orphan *orphan);
void watcher_wake(struct watcher *watcher); /* never blocks */

#endif
