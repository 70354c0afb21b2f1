#include "exchange.h"

#include <assert.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "clock.h"
#include "guard.h"
#include "gzip.h"
#include "mem.h"
#include "server_impl.h"
#include "strbuf.h"

enum {
    HEADERS_MAX = 12,
    SWALLOWED = 16, /* times the largest body: read of one that is too large, so that its answer arrives */
    STREAM_BLOCK_BYTES = 4096,
};

struct header {
    const char *name, *value;
};

struct exchange {
    struct server *server;
    struct MHD_Connection *connection;
    const char *id, *method, *path; /* valid as long as the exchange */
    uint64_t received_ns;
    struct strbuf body;
    uint64_t body_bytes; /* received, kept or not */
    enum coding coding;
    struct header headers[HEADERS_MAX]; /* of the answer */
    uint32_t n_headers;
    unsigned status; /* 0: nothing was sent */
    bool handled;
    bool raw; /* answered on the socket, and not through libmicrohttpd */
    const struct task *task;
    void *task_context;
    enum MHD_Result verdict; /* of the call that is under way */
    max_align_t user[];      /* options.user_bytes */
};

struct connection *connection_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* ---- The request -------------------------------------------------------------------------- */

void *exchange_context(const struct exchange *x)
{
    return x->server->options.context;
}

void *exchange_user(struct exchange *x)
{
    return x->user;
}

const char *exchange_id(const struct exchange *x)
{
    return x->id;
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

/* In the absolute form the target's authority counts, and not the header (RFC 9112, section 3.2.2). */
const char *exchange_host(const struct exchange *x)
{
    const char *authority = connection_of(x->connection)->target.authority;
    return authority ? authority : exchange_header(x, "Host");
}

const char *exchange_query(const struct exchange *x, const char *name)
{
    return target_query(&connection_of(x->connection)->target, name);
}

const char *exchange_query_pairs(const struct exchange *x)
{
    return connection_of(x->connection)->target.query;
}

const char *exchange_body(const struct exchange *x, size_t *n)
{
    *n = x->body.len;
    return x->body.len ? x->body.text : "";
}

uint64_t exchange_received_ns(const struct exchange *x)
{
    return x->received_ns;
}

bool exchange_is_lost(const struct exchange *x)
{
    return connection_is_lost(connection_of(x->connection)->fd);
}

unsigned exchange_listener(const struct exchange *x)
{
    return x->server->options.listener;
}

bool exchange_is_private(const struct exchange *x)
{
    return x->server->listener.is_private;
}

bool exchange_is_unix(const struct exchange *x)
{
    return x->server->listener.is_unix;
}

/* ---- The answer --------------------------------------------------------------------------- */

void exchange_add_header(struct exchange *x, const char *name, const char *value)
{
    assert(x->n_headers < HEADERS_MAX);
    x->headers[x->n_headers++] = (struct header){ name, value };
}

unsigned exchange_status(const struct exchange *x)
{
    return x->status;
}

void exchange_hang_up(struct exchange *x)
{
    shutdown(connection_of(x->connection)->fd, SHUT_RDWR);
}

void exchange_abandon(struct exchange *x)
{
    x->verdict = MHD_NO;
}

static bool add_headers(const struct exchange *x, struct MHD_Response *response)
{
    bool good = true, cached = false, named = false;
    for (uint32_t i = 0; i < x->n_headers; i++) {
        const struct header *h = &x->headers[i];
        good = good && MHD_add_response_header(response, h->name, h->value) == MHD_YES;
        cached = cached || strcasecmp(h->name, "Cache-Control") == 0;
        named = named || strcasecmp(h->name, "x-request-id") == 0;
    }
    if (!named)
        good = good && MHD_add_response_header(response, "x-request-id", x->id) == MHD_YES;
    if (!cached)
        good = good && MHD_add_response_header(response, "Cache-Control", "no-store") == MHD_YES;
    /* A request that was not read to its end leaves its connection unusable. */
    if (!x->handled)
        good = good && MHD_add_response_header(response, "Connection", "close") == MHD_YES;
    return good;
}

/* Takes the response over; NULL means that there was no memory for one. */
static void queue_response(struct exchange *x, unsigned status, const char *content_type,
                           struct MHD_Response *response)
{
    bool good = response && MHD_add_response_header(response, "Content-Type", content_type) == MHD_YES &&
                add_headers(x, response);
    x->verdict = good ? refusals_queue(x->connection, status, response) : MHD_NO;
    if (x->verdict == MHD_YES) {
        x->status = status;
        x->server->options.answered(x);
        connection_answer(connection_of(x->connection), x->task && x->task->read ? 0 : SEND_SECONDS);
    }
    if (response)
        MHD_destroy_response(response);
}

/* In place of libmicrohttpd, which then closes the connection; it has written nothing for this request. */
static void send_raw(struct exchange *x, unsigned status, const char *content_type, const void *body,
                     size_t n)
{
    struct strbuf out = { 0 };
    strbuf_printf(&out, "HTTP/1.1 %u %s\r\nConnection: close\r\nx-request-id: %s\r\nContent-Type: %s\r\n",
                  status, MHD_get_reason_phrase_for(status), x->id, content_type);
    for (uint32_t i = 0; i < x->n_headers; i++)
        strbuf_printf(&out, "%s: %s\r\n", x->headers[i].name, x->headers[i].value);
    strbuf_printf(&out, "Cache-Control: no-store\r\nContent-Length: %zu\r\n\r\n", n);
    strbuf_add(&out, body, n);
    int fd = connection_of(x->connection)->fd;
    if (!out.failed && send(fd, out.text, out.len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)out.len)
        x->status = status;
    strbuf_free(&out);
}

void exchange_send(struct exchange *x, unsigned status, const char *content_type, const void *body, size_t n)
{
    if (x->raw) {
        send_raw(x, status, content_type, body, n);
        return;
    }
    queue_response(x, status, content_type,
                   MHD_create_response_from_buffer(n, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY));
}

static void set_task(struct exchange *x, const struct task *task, void *context)
{
    x->task = task;
    x->task_context = context;
    connection_tell(connection_of(x->connection), task->gone, context);
}

void exchange_begin(struct exchange *x, const struct task *task, void *context)
{
    set_task(x, task, context);
    connection_answer(connection_of(x->connection), 0);
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
    set_task(x, task, context);
    /* Otherwise proxies collect a stream's events before they pass them on. */
    exchange_add_header(x, "X-Accel-Buffering", "no");
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

/* ---- Coming and going --------------------------------------------------------------------- */

static struct exchange *exchange_new(struct MHD_Connection *connection, const char *method)
{
    struct connection *c = connection_of(connection);
    struct server *server = c->rules->server;
    struct exchange *x = c->target.text ? mem_new(1, sizeof *x + server->options.user_bytes) : NULL;
    if (!x)
        return NULL;
    x->server = server;
    x->connection = connection;
    x->id = c->id;
    x->method = method;
    x->path = c->target.path;
    x->received_ns = clock_monotonic_ns();
    c->exchange = x;
    server->options.begun(x);
    return x;
}

static uint64_t body_bytes(const struct exchange *x)
{
    return x->server->options.body_bytes;
}

static void exchange_free(struct exchange *x)
{
    struct connection *c = connection_of(x->connection);
    c->exchange = NULL;
    target_free(&c->target);
    strbuf_free(&x->body);
    mem_free(x);
}

static void refuse(struct exchange *x, unsigned status, const char *why)
{
    x->server->options.refuse(x, status, why);
}

static void refuse_body(struct exchange *x)
{
    char why[64];
    snprintf(why, sizeof why, "the body is larger than %" PRIu64 " bytes", body_bytes(x));
    refuse(x, 413, why);
}

static void refuse_coding(struct exchange *x)
{
    exchange_add_header(x, "Accept-Encoding", "gzip");
    refuse(x, 415, "the only Content-Encoding of a body is gzip");
}

static const char *fault_of(const struct exchange *x, const char *version)
{
    const struct connection *c = connection_of(x->connection);
    if (c->bad_target)
        return "the request's target has spaces or control characters";
    if (c->target.authority && !guard_host(c->target.authority))
        return "the request's target is not an http URL";
    return guard_check(x->connection, x->method, version);
}

/* The head has been read and the body has not: refuses what need not be read. */
static void look_at_head(struct exchange *x, const char *version)
{
    const char *fault = fault_of(x, version);
    const char *length = exchange_header(x, "Content-Length");
    uint64_t bytes = length && !fault ? strtoull(length, NULL, 10) : 0;
    bool waits = exchange_header(x, "Expect") != NULL;
    x->coding = guard_coding(x->connection);
    if (fault)
        refuse(x, 400, fault);
    else if (bytes / SWALLOWED > body_bytes(x) || (bytes > body_bytes(x) && waits))
        refuse_body(x);
    else if (x->coding == CODING_UNKNOWN && waits)
        refuse_coding(x);
}

static void take_body(struct exchange *x, const char *bytes, size_t n)
{
    x->body_bytes += n;
    if (x->body_bytes <= body_bytes(x) && x->coding != CODING_UNKNOWN)
        strbuf_add(&x->body, bytes, n);
    else
        strbuf_free(&x->body);
    if (x->body_bytes / SWALLOWED > body_bytes(x))
        exchange_abandon(x);
}

/* The bound is the same for what was sent and for what it becomes. */
static enum cinf_status unzip_body(struct exchange *x)
{
    struct strbuf plain = { 0 };
    enum cinf_status status = gzip_inflate(&plain, x->body.text, x->body.len, body_bytes(x));
    strbuf_free(&x->body);
    x->body = plain;
    return status;
}

static void handle(struct exchange *x)
{
    enum cinf_status unzipped = CINF_OK;
    x->handled = true;
    /* All of it has come, however long the handler takes. */
    connection_answer(connection_of(x->connection), 0);
    if (x->coding == CODING_GZIP && x->body.len > 0)
        unzipped = unzip_body(x);
    if (x->coding == CODING_UNKNOWN && x->body_bytes > 0)
        refuse_coding(x);
    else if (x->body_bytes > body_bytes(x) || unzipped == CINF_EFULL)
        refuse_body(x);
    else if (unzipped == CINF_EFORMAT)
        refuse(x, 400, "the body is not gzip");
    else if (x->body.failed || unzipped != CINF_OK)
        exchange_abandon(x);
    else
        x->server->options.handle(x);
}

enum MHD_Result exchange_receive(void *server, struct MHD_Connection *connection, const char *path,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_bytes, void **exchange)
{
    struct exchange *x = *exchange;
    (void)server, (void)path;
    if (!x) {
        struct connection *c = connection_of(connection);
        x = c ? exchange_new(connection, method) : NULL;
        if (!x)
            return MHD_NO;
        *exchange = x;
        x->verdict = MHD_YES;
        connection_head(c);
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

void exchange_complete(void *unused, struct MHD_Connection *connection, void **exchange,
                       enum MHD_RequestTerminationCode code)
{
    struct exchange *x = *exchange;
    struct connection *c = connection_of(connection);
    (void)unused, (void)code;
    if (c)
        connection_idle(c); /* from here on the deadline does not answer any more */
    if (!x)
        return;
    *exchange = NULL;
    assert(c); /* a connection without memory for one has no exchange */
    if (c->timed_out)
        x->status = 408;
    if (x->task) {
        connection_tell(c, NULL, NULL);
        x->task->over(x->task_context, x);
    } else {
        x->server->options.ended(x);
    }
    exchange_free(x);
}

/* libmicrohttpd's 500 is for a chunk that has no room for itself. */
static const struct refusal {
    unsigned library, status;
    const char *why;
} refusals[] = {
    { 400, 400, "the request is malformed" },
    { 413, 413, "the body is too large" },
    { 414, 414, "the request's target is too long" },
    { 431, 431, "the request's headers are too large" },
    { 500, 400, "a chunk's extensions are too long" },
    { 505, 505, "the version is neither HTTP/1.0 nor HTTP/1.1" },
};

bool exchange_refuse(struct MHD_Connection *connection, unsigned status)
{
    struct refusal r = { status, status, "the request cannot be read" };
    struct connection *c = connection_of(connection);
    struct exchange *x = c ? c->exchange : NULL;
    bool has_head = x != NULL;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        if (refusals[i].library == status)
            r = refusals[i];
    if (c && !has_head) {
        if (atomic_load(&c->phase) != ARRIVING)
            connection_first_line(c, "");
        x = exchange_new(connection, "");
    }
    if (!x)
        return false;
    x->raw = true;
    refuse(x, r.status, r.why);
    bool sent = x->status == r.status;
    if (!has_head) {
        x->server->options.ended(x);
        exchange_free(x);
    }
    return sent;
}
