/* service.h - the daemon's parts, as the handlers of requests see them. */
#ifndef SERVICE_H
#define SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <costinfer/engine.h>

#include "exchange.h"

/* The endpoints that requests are counted by, in the meter's order. */
enum endpoint { ENDPOINT_GENERATE, ENDPOINT_COMPLETIONS, ENDPOINT_COUNT };
extern const char *const service_endpoints[ENDPOINT_COUNT];

/* Which of the two listeners a request came to; a route may be on both. */
enum { LISTENER_MAIN = 1, LISTENER_ADMIN = 2, LISTENER_BOTH = LISTENER_MAIN | LISTENER_ADMIN };

struct books;
struct fleet;
struct generation;
struct keys;
struct recorder;
struct timers;
struct watcher;

/* Generations under way, for draining. */
struct generation_list {
    pthread_mutex_t lock;
    struct generation *first;
    uint32_t n;  /* counts also those that are about to be listed */
    bool closed; /* draining: no new ones */
    bool ending; /* no time left: a generation that is listed later is cancelled immediately */
};

struct service {
    struct cinf_engine *engine;
    struct watcher *watcher;
    struct timers *timers;
    struct fleet *fleet;
    struct recorder *recorder;
    struct books *books; /* NULL: no ledger */
    struct generation_list generations;
    struct keys *keys; /* NULL: any client may ask */
    char *allow_hosts; /* see host_name.h; NULL: none */
    bool has_admin_listener;
    atomic_bool leaving;        /* /ready says so; requests are still served */
    atomic_uint n_connections;  /* open, of the main listener */
    uint64_t stall_ns, ping_ns; /* of streams */
    uint32_t queue_max;         /* requests of one model that may wait */
    uint64_t body_bytes;        /* the largest body */
    bool strict;                /* unknown fields are refused */
};

static inline struct service *service_of(struct exchange *x)
{
    return exchange_context(x);
}

#endif
