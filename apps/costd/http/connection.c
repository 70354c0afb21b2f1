/* _DEFAULT_SOURCE declares struct tcp_info and its constants. */
#define _DEFAULT_SOURCE

#include "connection.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "guard.h"
#include "mem.h"
#include "watcher.h"

enum {
    /* What the kernel keeps for a client that does not read: enough for a network, and soon noticed. */
    UNSENT_BYTES = 32 * 1024,
    /* A peer that vanished without a word is noticed within 15 seconds: by these probes while nothing is on
     * its way to it, else by connection_is_lost(). */
    PROBE_AFTER_SECONDS = 5,
    PROBE_EVERY_SECONDS = 3,
    PROBES = 3,
    LOST_AFTER_MS = 10000,
    FAREWELL_NS = 500000000, /* time for libmicrohttpd to read what the client sent before it closed */
};

/* ---- Deadlines ---------------------------------------------------------------------------- */

/* Sends what libmicrohttpd would if it knew of the deadline.  The two cannot mix their bytes, because
 * libmicrohttpd writes nothing while a request arrives. */
static void send_late(struct connection *c)
{
    char answer[512];
    int n =
        snprintf(answer, sizeof answer,
                 "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nx-request-id: %s\r\n"
                 "Content-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %zu\r\n\r\n%s",
                 c->id, strlen(c->rules->late_body), c->rules->late_body);
    c->timed_out = n > 0 && (size_t)n < sizeof answer &&
                   send(c->fd, answer, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n;
}

static uint64_t deadline_passed(void *context)
{
    struct connection *c = context;
    if (atomic_load(&c->phase) == ARRIVING)
        send_late(c);
    shutdown(c->fd, SHUT_RDWR);
    return 0;
}

/* 0 seconds: the phase has no deadline. */
static void begin_phase(struct connection *c, enum phase phase, uint32_t seconds)
{
    atomic_store(&c->phase, phase);
    if (seconds)
        timers_set(c->rules->timers, &c->deadline, seconds * UINT64_C(1000000000));
    else
        timers_clear(c->rules->timers, &c->deadline);
}

void connection_first_line(struct connection *c, const char *sent)
{
    if (!sent)
        sent = "";
    target_free(&c->target);
    uint64_t number = atomic_fetch_add_explicit(&c->rules->n_requests, 1, memory_order_relaxed) + 1;
    snprintf(c->id, sizeof c->id, "req-%016" PRIx64 "-%06" PRIx64, c->rules->run, number);
    c->bad_target = !guard_target(sent);
    if (!target_read(&c->target, sent))
        shutdown(c->fd, SHUT_RDWR);
    /* The first request's head has had its deadline since the connection came. */
    if (atomic_load(&c->phase) == IDLE)
        begin_phase(c, ARRIVING, c->rules->head_seconds);
    else
        atomic_store(&c->phase, ARRIVING);
}

void connection_head(struct connection *c)
{
    begin_phase(c, ARRIVING, c->rules->body_seconds);
}

void connection_answer(struct connection *c, uint32_t seconds)
{
    begin_phase(c, ANSWERED, seconds);
}

void connection_idle(struct connection *c)
{
    begin_phase(c, IDLE, c->rules->idle_seconds);
}

/* ---- Clients that close -------------------------------------------------------------------- */

/* The client has closed its side.  What it asked before is answered, because it may only have shut down its
 * sending half; the rest of a request, or another one, cannot come any more. */
static uint64_t say_farewell(void *context)
{
    struct connection *c = context;
    int unread = 0;
    if (atomic_load(&c->phase) == ANSWERED || (ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0))
        return FAREWELL_NS;
    shutdown(c->fd, SHUT_RDWR);
    return 0;
}

/* On the watcher's thread. */
static void client_gone(void *context)
{
    struct connection *c = context;
    pthread_mutex_lock(&c->lock);
    c->gone = true;
    if (c->tell)
        c->tell(c->tell_context);
    pthread_mutex_unlock(&c->lock);
    timers_set(c->rules->timers, &c->farewell, FAREWELL_NS);
}

void connection_tell(struct connection *c, void (*tell)(void *context), void *context)
{
    pthread_mutex_lock(&c->lock);
    c->tell = tell;
    c->tell_context = context;
    if (tell && c->gone)
        tell(context);
    pthread_mutex_unlock(&c->lock);
}

/* ---- The socket --------------------------------------------------------------------------- */

/* Where one of these fails (a socket of another family), peers that vanish are noticed later. */
static void set_options(int fd)
{
    const int on = 1, after = PROBE_AFTER_SECONDS, every = PROBE_EVERY_SECONDS, probes = PROBES;
    const int unsent = UNSENT_BYTES;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &after, sizeof after);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
}

/* TCP_USER_TIMEOUT would also drop a live client whose receive window is full.  Such a client answers every
 * probe. */
bool connection_is_lost(int fd)
{
    struct tcp_info info = { 0 };
    socklen_t size = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_retransmits + info.tcpi_probes >= 2 && info.tcpi_last_ack_recv >= LOST_AFTER_MS;
}

struct connection *connection_open(struct connection_rules *rules, int fd)
{
    struct connection *c = mem_new(1, sizeof *c);
    if (!c) {
        shutdown(fd, SHUT_RDWR);
        return NULL;
    }
    *c = (struct connection){ .rules = rules, .fd = fd };
    c->deadline = (struct timer){ .fire = deadline_passed, .context = c };
    c->farewell = (struct timer){ .fire = say_farewell, .context = c };
    pthread_mutex_init(&c->lock, NULL);
    timers_set(rules->timers, &c->deadline, rules->head_seconds * UINT64_C(1000000000));
    set_options(fd);
    c->watch = watcher_add(rules->watcher, fd, client_gone, c);
    return c;
}

void connection_close(struct connection *c)
{
    if (!c)
        return;
    watcher_remove(c->rules->watcher, c->watch);
    timers_clear(c->rules->timers, &c->farewell);
    timers_clear(c->rules->timers, &c->deadline);
    pthread_mutex_destroy(&c->lock);
    target_free(&c->target);
    mem_free(c);
}
