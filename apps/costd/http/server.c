/* For TCP_USER_TIMEOUT and the like. */
#define _DEFAULT_SOURCE

#include "server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "access_log.h"
#include "clock.h"
#include "fail.h"
#include "guard.h"
#include "log.h"
#include "mem.h"
#include "problem.h"
#include "settings.h"
#include "strbuf.h"
#include "timers.h"

enum {
    THREADS = 2,
    ADMIN_THREADS = 2, /* a pool of one is not a pool */
    /* What the kernel keeps for a client that does not read: enough for a network, little enough to notice.
     */
    UNSENT_BYTES = 32 * 1024,
    CONNECTION_BYTES = 16 * 1024,               /* request head and write buffer of one connection */
    BODY_BYTES_SWALLOWED = 16 * BODY_BYTES_MAX, /* of a body that is too large, so that its answer arrives */
    STREAM_BLOCK_BYTES = 4096,
    /* A peer that vanished without a word is noticed within 15 seconds: by these probes while nothing is on
     * its way to it, else by exchange_is_lost(). */
    PROBE_AFTER_SECONDS = 5,
    PROBE_EVERY_SECONDS = 3,
    PROBES = 3,
    LOST_AFTER_MS = 10000,
    SPARE_DESCRIPTORS = 24, /* for the HTTP threads themselves, models' files and what /metrics reads */
    MESSAGES_A_SECOND = 2,  /* of libmicrohttpd; the first ones say it all */
};

struct server {
    struct MHD_Daemon *daemon;
    struct server_options options;
    uint16_t port;
    bool is_unix, is_private;
    char *unlink_path; /* of a Unix socket that we made */
    uint64_t run;      /* random; makes request ids differ between runs */
    _Atomic uint64_t n_requests;
    _Atomic uint64_t n_messages, messages_second; /* in the second of the monotonic clock that is named */
};

enum phase { SILENT, ARRIVING, ANSWERED, IDLE };

struct connection {
    struct server *server;
    int fd;
    struct timer deadline;
    _Atomic enum phase phase;
    char id[REQUEST_ID_BYTES]; /* of the request; the deadline reads it while that is arriving */
    bool bad_target;           /* of the request */
    bool timed_out;
};

struct exchange {
    struct server *server;
    struct MHD_Connection *connection;
    struct access access;
    const char *method, *path; /* libmicrohttpd's, valid as long as the exchange */
    struct strbuf body;
    uint64_t body_bytes; /* received, kept or not */
    const char *allow;
    unsigned retry_after;
    bool challenge;
    char etag[40]; /* of a file of the page; else "" */
    bool gzip;
    bool handled;
    const struct task *task;
    void *task_context;
    enum MHD_Result verdict; /* of the call that is under way */
};

/* ---- Deadlines ---------------------------------------------------------------------------- */

/* What libmicrohttpd would write if it knew of the deadline; it is not writing while a request arrives. */
static void send_timeout(struct connection *c)
{
    static const char body[] = "{\"error\":{\"message\":\"the request took too long to arrive\",\"type\":"
                               "\"invalid_request_error\",\"param\":null,\"code\":\"request_timeout\"}}\n";
    char answer[512];
    int n =
        snprintf(answer, sizeof answer,
                 "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nx-request-id: %s\r\n"
                 "Content-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %zu\r\n\r\n%s",
                 c->id, sizeof body - 1, body);
    c->timed_out = send(c->fd, answer, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n;
}

/* libmicrohttpd's own timeout begins anew with every byte, so it is no limit for a client that drips. */
static uint64_t deadline_passed(void *context)
{
    struct connection *c = context;
    if (atomic_load(&c->phase) == ARRIVING)
        send_timeout(c);
    shutdown(c->fd, SHUT_RDWR);
    return 0;
}

static struct connection *connection_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* 0 seconds: it has no end. */
static void begin_phase(struct connection *c, enum phase phase, uint32_t seconds)
{
    atomic_store(&c->phase, phase);
    if (seconds)
        timers_set(c->server->options.timers, &c->deadline, seconds * UINT64_C(1000000000));
    else
        timers_clear(c->server->options.timers, &c->deadline);
}

static void new_request_id(struct server *server, char id[REQUEST_ID_BYTES])
{
    uint64_t number = atomic_fetch_add_explicit(&server->n_requests, 1, memory_order_relaxed) + 1;
    snprintf(id, REQUEST_ID_BYTES, "req-%016" PRIx64 "-%06" PRIx64, server->run, number);
}

/* ---- The request -------------------------------------------------------------------------- */

void *exchange_context(const struct exchange *x)
{
    return x->server->options.context;
}

struct access *exchange_access(struct exchange *x)
{
    return &x->access;
}

const char *exchange_method(const struct exchange *x)
{
    return x->method;
}

const char *exchange_path(const struct exchange *x)
{
    return x->path;
}

const char *exchange_header(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *exchange_query(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *exchange_body(const struct exchange *x, size_t *n)
{
    *n = x->body.len;
    return x->body.len ? x->body.text : "";
}

int exchange_socket(const struct exchange *x)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

/* TCP_USER_TIMEOUT would not do: it also takes a peer for gone that is there and has no room to receive.
 * Such a one answers every probe. */
bool exchange_is_lost(const struct exchange *x)
{
    struct tcp_info info = { 0 };
    socklen_t size = sizeof info;
    return getsockopt(exchange_socket(x), IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_retransmits + info.tcpi_probes >= 2 && info.tcpi_last_ack_recv >= LOST_AFTER_MS;
}

bool exchange_is_admin(const struct exchange *x)
{
    return x->server->options.admin;
}

bool exchange_is_private(const struct exchange *x)
{
    return x->server->is_private;
}

bool exchange_is_unix(const struct exchange *x)
{
    return x->server->is_unix;
}

/* ---- The answer --------------------------------------------------------------------------- */

void exchange_retry_after(struct exchange *x, unsigned seconds)
{
    x->retry_after = seconds;
}

void exchange_allow(struct exchange *x, const char *methods)
{
    x->allow = methods;
}

void exchange_challenge(struct exchange *x)
{
    x->challenge = true;
}

void exchange_page(struct exchange *x, const char *etag, bool gzip)
{
    snprintf(x->etag, sizeof x->etag, "%s", etag);
    x->gzip = gzip;
}

void exchange_hang_up(struct exchange *x)
{
    shutdown(exchange_socket(x), SHUT_RDWR);
}

void exchange_abandon(struct exchange *x)
{
    x->verdict = MHD_NO;
}

static bool add_page_headers(const struct exchange *x, struct MHD_Response *response)
{
    static const char policy[] =
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'";
    return MHD_add_response_header(response, "ETag", x->etag) == MHD_YES &&
           MHD_add_response_header(response, "Vary", "Accept-Encoding") == MHD_YES &&
           MHD_add_response_header(response, "Content-Security-Policy", policy) == MHD_YES &&
           MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES &&
           MHD_add_response_header(response, "Referrer-Policy", "no-referrer") == MHD_YES &&
           (!x->gzip || MHD_add_response_header(response, "Content-Encoding", "gzip") == MHD_YES);
}

/* Takes the response over; NULL is no memory for one. */
static void queue_response(struct exchange *x, unsigned status, const char *content_type,
                           struct MHD_Response *response)
{
    char seconds[16];
    bool good = response != NULL;
    good = good && MHD_add_response_header(response, "x-request-id", x->access.id) == MHD_YES;
    good = good && MHD_add_response_header(response, "Content-Type", content_type) == MHD_YES;
    good = good && MHD_add_response_header(response, "Cache-Control", x->etag[0] ? "no-cache" : "no-store") ==
                       MHD_YES;
    good = good && (!x->etag[0] || add_page_headers(x, response));
    if (good && x->allow)
        good = MHD_add_response_header(response, "Allow", x->allow) == MHD_YES;
    if (good && x->challenge)
        good = MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"costd\"") == MHD_YES;
    if (good && x->retry_after) {
        snprintf(seconds, sizeof seconds, "%u", x->retry_after);
        good = MHD_add_response_header(response, "Retry-After", seconds) == MHD_YES;
        snprintf(seconds, sizeof seconds, "%u", x->retry_after * 1000);
        good = good && MHD_add_response_header(response, "retry-after-ms", seconds) == MHD_YES;
    } else if (good && status >= 400) {
        /* The clients would try again what cannot become better. */
        good = MHD_add_response_header(response, "x-should-retry", "false") == MHD_YES;
    }
    /* Proxies would collect a stream's events before they pass them on. */
    if (good && strcmp(content_type, "text/event-stream") == 0)
        good = MHD_add_response_header(response, "X-Accel-Buffering", "no") == MHD_YES;
    /* An answer to a request that was not read to its end must be the connection's last. */
    if (good && !x->handled)
        good = MHD_add_response_header(response, "Connection", "close") == MHD_YES;
    x->verdict = good ? MHD_queue_response(x->connection, status, response) : MHD_NO;
    if (x->verdict == MHD_YES) {
        x->access.status = status;
        begin_phase(connection_of(x->connection), ANSWERED, x->task && x->task->read ? 0 : SEND_SECONDS);
    }
    if (response)
        MHD_destroy_response(response);
}

void exchange_send(struct exchange *x, unsigned status, const char *content_type, const void *body, size_t n)
{
    queue_response(x, status, content_type,
                   MHD_create_response_from_buffer(n, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY));
}

void exchange_error(struct exchange *x, unsigned status, const char *type, const char *param,
                    const char *code, const char *message)
{
    struct strbuf body = { 0 };
    x->access.code = code;
    problem_write(&body, type, param, code, message);
    strbuf_putc(&body, '\n');
    if (body.failed)
        exchange_abandon(x);
    else
        exchange_send(x, status, "application/json", body.text, body.len);
    strbuf_free(&body);
}

void exchange_begin(struct exchange *x, const struct task *task, void *context)
{
    x->task = task;
    x->task_context = context;
    begin_phase(connection_of(x->connection), ANSWERED, 0);
    task->proceed(context, x);
}

static ssize_t read_stream(void *context, uint64_t at, char *bytes, size_t max)
{
    struct exchange *x = context;
    (void)at;
    _Static_assert(TASK_END == MHD_CONTENT_READER_END_OF_STREAM, "passed on as it is");
    _Static_assert(TASK_BROKEN == MHD_CONTENT_READER_END_WITH_ERROR, "passed on as it is");
    return x->task->read(x->task_context, x, bytes, max);
}

void exchange_stream(struct exchange *x, const struct task *task, void *context)
{
    x->task = task;
    x->task_context = context;
    queue_response(
        x, 200, "text/event-stream",
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, x, NULL));
}

void exchange_suspend(struct exchange *x)
{
    MHD_suspend_connection(x->connection);
}

void exchange_resume(struct exchange *x)
{
    MHD_resume_connection(x->connection);
}

/* ---- Glue --------------------------------------------------------------------------------- */

static void copy_cut(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
}

static struct exchange *open_exchange(struct server *server, struct MHD_Connection *connection,
                                      const char *method, const char *path)
{
    struct exchange *x = mem_new(1, sizeof *x);
    if (!x)
        return NULL;
    x->server = server;
    x->connection = connection;
    x->method = method;
    x->path = path;
    x->access.received_ns = clock_monotonic_ns();
    memcpy(x->access.id, connection_of(connection)->id, sizeof x->access.id);
    copy_cut(x->access.method, sizeof x->access.method, method);
    copy_cut(x->access.path, sizeof x->access.path, path);
    return x;
}

/* With the head read and the body still to come: refuses what need not be read. */
static void look_at_head(struct exchange *x, const char *version)
{
    const char *fault = connection_of(x->connection)->bad_target
                            ? "the request's target has spaces or control characters"
                            : guard_check(x->connection, x->method, version);
    const char *length = exchange_header(x, "Content-Length");
    uint64_t bytes = length && !fault ? strtoull(length, NULL, 10) : 0;
    if (fault)
        exchange_error(x, 400, "invalid_request_error", NULL, "malformed_request", fault);
    else if (bytes > BODY_BYTES_SWALLOWED || (bytes > BODY_BYTES_MAX && exchange_header(x, "Expect")))
        problem_body_too_large(x);
}

static void take_body(struct exchange *x, const char *bytes, size_t n)
{
    x->body_bytes += n;
    if (x->body_bytes <= BODY_BYTES_MAX)
        strbuf_add(&x->body, bytes, n);
    else
        strbuf_free(&x->body);
    if (x->body_bytes > BODY_BYTES_SWALLOWED)
        exchange_abandon(x);
}

static void handle(struct exchange *x)
{
    x->handled = true;
    if (x->body_bytes > BODY_BYTES_MAX)
        problem_body_too_large(x);
    else if (x->body.failed)
        exchange_abandon(x);
    else
        x->server->options.handle(x);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **exchange)
{
    struct exchange *x = *exchange;
    if (!x) {
        struct connection *c = connection_of(connection);
        x = c ? open_exchange(context, connection, method, path) : NULL;
        if (!x)
            return MHD_NO;
        *exchange = x;
        x->verdict = MHD_YES;
        begin_phase(c, ARRIVING, x->server->options.body_seconds);
        look_at_head(x, version);
        return x->verdict;
    }
    x->verdict = MHD_YES;
    if (*upload_bytes > 0) {
        take_body(x, upload, *upload_bytes);
        *upload_bytes = 0;
    } else if (x->task) {
        x->task->proceed(x->task_context, x);
    } else {
        handle(x);
    }
    return x->verdict;
}

static void on_completed(void *context, struct MHD_Connection *connection, void **exchange,
                         enum MHD_RequestTerminationCode code)
{
    struct exchange *x = *exchange;
    struct connection *c = connection_of(connection);
    (void)context, (void)code;
    if (c)
        begin_phase(c, IDLE, c->server->options.idle_seconds);
    if (!x)
        return;
    *exchange = NULL;
    assert(c); /* a connection without memory for one has no exchange */
    if (c->timed_out) {
        x->access.status = 408;
        x->access.code = "request_timeout";
    }
    if (x->task)
        x->task->over(x->task_context, x);
    else
        access_log(&x->access, NULL);
    strbuf_free(&x->body);
    mem_free(x);
}

/* A request's first line has come; the first request's head has had its deadline since the connection came.
 */
static void *on_first_line(void *context, const char *target, struct MHD_Connection *connection)
{
    struct connection *c = connection_of(connection);
    (void)context;
    if (!c)
        return NULL;
    new_request_id(c->server, c->id);
    c->bad_target = !guard_target(target);
    if (atomic_load(&c->phase) == IDLE)
        begin_phase(c, ARRIVING, c->server->options.head_seconds);
    else
        atomic_store(&c->phase, ARRIVING);
    return NULL;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *server = context;
    if (code != MHD_CONNECTION_NOTIFY_STARTED) {
        struct connection *c = *socket_context;
        if (c)
            timers_clear(server->options.timers, &c->deadline);
        mem_free(c);
        *socket_context = NULL;
        return;
    }
    int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    struct connection *c = mem_new(1, sizeof *c);
    *socket_context = c;
    if (c) {
        *c = (struct connection){ .server = server, .fd = fd };
        c->deadline = (struct timer){ .fire = deadline_passed, .context = c };
        timers_set(server->options.timers, &c->deadline, server->options.head_seconds * UINT64_C(1000000000));
    } else {
        shutdown(fd, SHUT_RDWR); /* without a deadline nobody is served */
    }
    const int on = 1, after = PROBE_AFTER_SECONDS, every = PROBE_EVERY_SECONDS, probes = PROBES;
    const int unsent = UNSENT_BYTES;
    /* Where one of these fails (a socket of another family), peers that vanish are noticed later. */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &after, sizeof after);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
}

/* Paths and queries stay as they were sent: libmicrohttpd would turn %00 into the end of a text. */
static size_t keep_escapes(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context, (void)connection;
    return strlen(text);
}

static bool may_log(struct server *server)
{
    uint64_t second = clock_monotonic_ns() / 1000000000;
    if (atomic_exchange(&server->messages_second, second) != second)
        atomic_store(&server->n_messages, 0);
    return atomic_fetch_add(&server->n_messages, 1) < MESSAGES_A_SECOND;
}

/* What libmicrohttpd has to say.  When accept() finds no descriptor for a thread's first connection, it would
 * call it again without a pause, and log each time; as that thread has nothing else to do, it waits here. */
static void on_message(void *context, const char *format, va_list args)
{
    static const struct timespec pause = { .tv_nsec = 50000000 };
    struct strbuf message = { 0 };
    if (strstr(format, "FIRST connection"))
        (void)nanosleep(&pause, NULL);
    if (!may_log(context))
        return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    strbuf_vprintf(&message, format, args);
#pragma GCC diagnostic pop
    if (!message.failed && message.len) {
        if (message.text[message.len - 1] == '\n')
            message.text[message.len - 1] = '\0';
        log_message("warn", "http", "%s", message.text);
    }
    strbuf_free(&message);
}

/* ---- Starting and stopping ---------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    return address->ss_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127;
}

/* What the socket is bound to, whoever has bound it. */
static enum cinf_status look_at_socket(struct server *server, int fd)
{
    struct sockaddr_storage address = { 0 };
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return cinf_fail(CINF_EIO, "the inherited descriptor %d is no socket", fd);
    server->is_unix = address.ss_family == AF_UNIX;
    server->is_private = server->is_unix || is_loopback(&address);
    if (!server->is_unix)
        server->port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                           : ((struct sockaddr_in *)&address)->sin_port);
    if (!server->is_private && !server->options.may_be_public)
        return cinf_fail(CINF_EINVAL,
                         "%s is not a loopback address: others could use the models without a key; "
                         "give --keys FILE, or --insecure if something else keeps them out",
                         server->options.inherited >= 0 ? "the inherited socket" : server->options.address);
    return CINF_OK;
}

static enum cinf_status bind_tcp(int fd, const struct addrinfo *found, const char *address)
{
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, strerror(errno));
    return CINF_OK;
}

static enum cinf_status open_tcp(int *out, const char *address)
{
    char host[256], port[6];
    struct addrinfo *found, hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    settings_split_address(address, host, port);
    int error = getaddrinfo(host, port, &hints, &found);
    if (error)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, gai_strerror(error));
    *out = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    enum cinf_status status = *out < 0
                                  ? cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, strerror(errno))
                                  : bind_tcp(*out, found, address);
    freeaddrinfo(found);
    return status;
}

/* A socket that is there already and that nobody listens on is the rest of a process that was killed. */
static enum cinf_status open_unix(int *out, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path)
        return cinf_fail(CINF_EINVAL, "the path of the socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path));
    *out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*out >= 0 && connect(*out, (struct sockaddr *)&address, sizeof address) != 0 && errno == ECONNREFUSED)
        (void)unlink(path);
    if (*out < 0 || bind(*out, (struct sockaddr *)&address, sizeof address) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", path, strerror(errno));
    return CINF_OK;
}

static enum cinf_status open_socket(struct server *server, int *out)
{
    const char *address = server->options.address;
    if (server->options.inherited >= 0) {
        *out = server->options.inherited;
        return CINF_OK;
    }
    if (strncmp(address, "unix:", 5) != 0)
        return open_tcp(out, address);
    TRY(open_unix(out, address + 5));
    server->unlink_path = mem_copy_text(address + 5);
    return CINF_OK;
}

static enum cinf_status listen_on(struct server *server, int *out)
{
    TRY(open_socket(server, out));
    TRY(look_at_socket(server, *out));
    if (server->options.inherited < 0 && listen(*out, 1024) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", server->options.address, strerror(errno));
    return CINF_OK;
}

static void free_server(struct server *server)
{
    if (server->unlink_path)
        (void)unlink(server->unlink_path);
    mem_free(server->unlink_path);
    mem_free(server);
}

/* Makes room for the connections, as far as the administrator lets us, and returns how many there is room
 * for: who comes when it is full waits in the kernel's queue, which costs no descriptor. */
static uint32_t room_for_connections(const struct server_options *o, int fd)
{
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
    log_message("warn", "connections", "the descriptor limit has room for %u of %u (see ulimit -n)",
                (unsigned)room, (unsigned)o->connections);
    return (uint32_t)room;
}

enum cinf_status server_start(struct server **out, const struct server_options *o)
{
    int fd = -1;
    struct server *server = mem_new(1, sizeof *server);
    if (!server)
        return cinf_fail(CINF_ENOMEM, "no memory for the server");
    server->options = *o;
    if (getrandom(&server->run, sizeof server->run, 0) != (ssize_t)sizeof server->run)
        server->run = clock_monotonic_ns() ^ (uint64_t)getpid() << 32;
    enum cinf_status status = listen_on(server, &fd);
    if (status != CINF_OK) {
        if (fd >= 0)
            close(fd);
        free_server(server);
        return status;
    }
    uint32_t connections = room_for_connections(o, fd);
    /* epoll is asked for: the automatic choice may be poll() or a thread a connection, which cannot suspend.
     * With it a thread that has nothing to do may leave a connection that is over unclosed until it wakes,
     * for the next event or by the timeout. */
    server->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
            MHD_USE_ERROR_LOG,
        server->port, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, on_message, server,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)(o->admin ? ADMIN_THREADS : THREADS), MHD_OPTION_CONNECTION_LIMIT, (unsigned)connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 0,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->silent_seconds, MHD_OPTION_URI_LOG_CALLBACK,
        on_first_line, NULL, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
    if (!server->daemon) {
        close(fd);
        free_server(server);
        return cinf_fail(CINF_EIO, "cannot start the HTTP server on %s", o->address);
    }
    *out = server;
    return CINF_OK;
}

uint16_t server_port(const struct server *server)
{
    return server->port;
}

void server_stop(struct server *server)
{
    if (!server)
        return;
    int fd = MHD_quiesce_daemon(server->daemon);
    if (fd >= 0)
        close(fd);
    MHD_stop_daemon(server->daemon);
    free_server(server);
}
