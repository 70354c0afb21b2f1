#include "server.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "mem.h"
#include "server_impl.h"

enum {
    THREADS = 2,                  /* libmicrohttpd does not take a pool of one for a pool */
    CONNECTION_BYTES = 16 * 1024, /* request head and write buffer of one connection */
    SPARE_DESCRIPTORS = 24, /* for the HTTP threads themselves and what the application opens for a while */
    MESSAGES_A_SECOND = 2,  /* of libmicrohttpd; the first ones say it all */
};

/* ---- What libmicrohttpd calls -------------------------------------------------------------- */

/* Takes the query away from libmicrohttpd (see target.h).  The text is in its read buffer, so it may be
 * changed. */
static void *on_first_line(void *unused, const char *target, struct MHD_Connection *connection)
{
    struct connection *c = connection_of(connection);
    const char *query = target ? strchr(target, '?') : NULL;
    (void)unused;
    if (c)
        connection_first_line(c, target);
    if (query && query[1])
        *(char *)(uintptr_t)(query + 1) = '\0';
    return NULL;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *server = context;
    atomic_uint *n_open = server->options.n_open;
    if (n_open && code == MHD_CONNECTION_NOTIFY_STARTED)
        atomic_fetch_add(n_open, 1);
    else if (n_open)
        atomic_fetch_sub(n_open, 1);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = connection_open(
            &server->rules,
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
    } else {
        connection_close(*socket_context);
        *socket_context = NULL;
    }
}

/* Paths and queries stay as they were sent: libmicrohttpd would turn %00 into the end of a text. */
static size_t keep_escapes(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context, (void)connection;
    return strlen(text);
}

static bool may_warn(struct server *server)
{
    uint64_t second = clock_monotonic_ns() / 1000000000;
    if (atomic_exchange(&server->messages_second, second) != second)
        atomic_store(&server->n_messages, 0);
    return atomic_fetch_add(&server->n_messages, 1) < MESSAGES_A_SECOND;
}

/* libmicrohttpd's own messages.  When accept() finds no descriptor for a thread's first connection, it would
 * call accept() again without a pause, and log each time; as that thread has nothing else to do, it waits
 * here. */
static void on_message(void *context, const char *format, va_list args)
{
    static const struct timespec pause = { .tv_nsec = 50000000 };
    struct server *server = context;
    struct strbuf message = { 0 };
    if (strstr(format, "FIRST connection"))
        (void)nanosleep(&pause, NULL);
    if (!may_warn(server))
        return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    strbuf_vprintf(&message, format, args);
#pragma GCC diagnostic pop
    if (!message.failed && message.len) {
        if (message.text[message.len - 1] == '\n')
            message.text[message.len - 1] = '\0';
        server->options.warn("http", message.text);
    }
    strbuf_free(&message);
}

/* ---- Starting and stopping ---------------------------------------------------------------- */

/* Makes room for the connections, as far as the descriptor limit lets us, and returns how many there is room
 * for.  The others wait in the kernel's queue, which takes no descriptor. */
static uint32_t room_for_connections(const struct server_options *o, int fd)
{
    char message[96];
    struct rlimit limit;
    int next = dup(fd); /* the lowest number that is free: about as many are open */
    rlim_t taken = (rlim_t)(next < 0 ? fd : next) + SPARE_DESCRIPTORS + o->others;
    rlim_t wanted = taken + o->connections;
    if (next >= 0)
        close(next);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return o->connections;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= wanted)
        return o->connections;
    rlim_t room = limit.rlim_cur > taken + THREADS ? limit.rlim_cur - taken : THREADS;
    snprintf(message, sizeof message, "the descriptor limit has room for %u of %u (see ulimit -n)",
             (unsigned)room, (unsigned)o->connections);
    o->warn("connections", message);
    return (uint32_t)room;
}

static enum cinf_status prepare(struct server *server)
{
    const struct server_options *o = &server->options;
    struct connection_rules *rules = &server->rules;
    o->write_refusal(&server->late, 408, "the request took too long to arrive");
    if (server->late.failed)
        return cinf_fail(CINF_ENOMEM, "no memory for the server");
    rules->server = server;
    rules->timers = o->timers;
    rules->watcher = o->watcher;
    rules->head_seconds = o->head_seconds;
    rules->body_seconds = o->body_seconds;
    rules->idle_seconds = o->idle_seconds;
    rules->late_body = server->late.text;
    if (getrandom(&rules->run, sizeof rules->run, 0) != (ssize_t)sizeof rules->run)
        rules->run = clock_monotonic_ns() ^ (uint64_t)getpid() << 32;
    return listener_begin(&server->listener);
}

/* epoll is asked for: the automatic choice may be poll() or a thread a connection, which cannot suspend. With
 * it a thread that has nothing to do may leave a connection that is over unclosed until it wakes, for the
 * next event or by the timeout. */
static enum cinf_status start_daemon(struct server *server)
{
    const struct server_options *o = &server->options;
    int fd = server->listener.fd;
    uint32_t connections = room_for_connections(o, fd);
    server->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
            MHD_USE_ERROR_LOG,
        server->listener.port, NULL, NULL, exchange_receive, server, MHD_OPTION_EXTERNAL_LOGGER, on_message,
        server, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        (unsigned)o->per_address, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_NOTIFY_COMPLETED, exchange_complete, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)o->silent_seconds, MHD_OPTION_URI_LOG_CALLBACK, on_first_line, NULL,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
    return server->daemon ? CINF_OK : cinf_fail(CINF_EIO, "cannot start the HTTP server");
}

static void server_free(struct server *server)
{
    listener_close(&server->listener);
    strbuf_free(&server->late);
    mem_free(server);
}

enum cinf_status server_start(struct server **out, struct listener *listener, const struct server_options *o)
{
    struct server *server = mem_new(1, sizeof *server);
    if (!server) {
        listener_close(listener);
        return cinf_fail(CINF_ENOMEM, "no memory for the server");
    }
    server->options = *o;
    server->listener = *listener;
    enum cinf_status status = prepare(server);
    if (status == CINF_OK)
        status = start_daemon(server);
    if (status != CINF_OK) {
        server_free(server);
        return status;
    }
    *out = server;
    return CINF_OK;
}

const struct listener *server_listener(const struct server *server)
{
    return &server->listener;
}

void server_stop(struct server *server)
{
    if (!server)
        return;
    /* Gives the socket back, which its threads use until they have stopped.  If not, stopping closes it. */
    if (MHD_quiesce_daemon(server->daemon) < 0)
        server->listener.fd = -1;
    MHD_stop_daemon(server->daemon);
    server_free(server);
}
