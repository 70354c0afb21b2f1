#include "access_log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "report.h"

enum {
    STATUS_LATE = 408,
    STATUS_CLIENT_GONE = 499, /* logged for a client that left before its answer began, as nginx does */
};

static void copy_cut(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
}

/* ---- What clients and proxies call a request ----------------------------------------------- */

static bool is_request_id(const char *text)
{
    size_t n = strlen(text);
    return n > 0 && n < sizeof((struct access *)NULL)->request_id &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/+=@-") == n;
}

/* Of `n` lowercase hexadecimal digits, not all of them 0. */
static bool is_hex(const char *text, size_t n)
{
    return strspn(text, "0123456789abcdef") >= n && strspn(text, "0") < n;
}

/* VERSION-TRACE-PARENT-FLAGS (W3C Trace Context, 3.2): later versions than 00 may add to it. */
static bool is_traceparent(const char *text)
{
    size_t n = strlen(text);
    if (n < 55 || n >= sizeof((struct access *)NULL)->traceparent || text[2] != '-' || text[35] != '-' ||
        text[52] != '-' || strspn(text, "0123456789abcdef") != 2 || strncmp(text, "ff", 2) == 0)
        return false;
    for (size_t i = 55; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    return is_hex(text + 3, 32) && is_hex(text + 36, 16) && strspn(text + 53, "0123456789abcdef") == 2 &&
           (n == 55 || (text[55] == '-' && strncmp(text, "00", 2) != 0));
}

static void take_over(struct exchange *x, char *out, size_t size, const char *name,
                      bool (*is_good)(const char *))
{
    const char *text = exchange_header(x, name);
    if (!text || !is_good(text))
        return;
    copy_cut(out, size, text);
    exchange_add_header(x, name, out);
}

void access_begin(struct exchange *x)
{
    struct access *access = access_of(x);
    copy_cut(access->id, sizeof access->id, exchange_id(x));
    copy_cut(access->method, sizeof access->method, exchange_method(x));
    copy_cut(access->path, sizeof access->path, exchange_path(x));
    access->received_ns = exchange_received_ns(x);
    take_over(x, access->request_id, sizeof access->request_id, "x-request-id", is_request_id);
    take_over(x, access->traceparent, sizeof access->traceparent, "traceparent", is_traceparent);
}

/* ---- Counting ------------------------------------------------------------------------------ */

static atomic_uint_fast64_t calls[ENDPOINTS_MAX][CALL_CLASSES];

/* Sums of calls are numbers of lines: none of them is for what is not logged. */
static bool is_logged(const struct access *access, unsigned status)
{
    return !access->quiet || status >= 400;
}

static void count(struct access *access, unsigned status)
{
    if (access->counted)
        return;
    access->counted = true;
    if (!is_logged(access, status))
        return;
    unsigned class = status >= 500 ? CALLS_5XX : status >= 400 ? CALLS_4XX : CALLS_2XX;
    atomic_fetch_add(&calls[access->endpoint][class], 1);
}

uint64_t access_calls(unsigned endpoint, unsigned class)
{
    return atomic_load(&calls[endpoint][class]);
}

void access_answered(struct exchange *x)
{
    count(access_of(x), exchange_status(x));
}

/* ---- The line ------------------------------------------------------------------------------ */

static unsigned logged_status(const struct access *access)
{
    return access->status ? access->status : STATUS_CLIENT_GONE;
}

const struct access *access_end(struct exchange *x)
{
    struct access *access = access_of(x);
    access->status = exchange_status(x);
    if (access->status == STATUS_LATE)
        access->code = CODE_LATE;
    count(access, logged_status(access));
    return access;
}

static void log_outcome(struct log_line *line, const struct outcome *o)
{
    log_text(line, "endpoint", o->endpoint);
    log_text(line, "mode", o->stream ? "stream" : "whole");
    log_u64(line, "requests", o->n_requests);
    log_u64(line, "choices", o->n_choices);
    REPORT_WRITE(&line->json, &o->report, REPORT_FINISH, REPORT_INPUT_TOKENS, REPORT_CACHED_TOKENS,
                 REPORT_OUTPUT_TOKENS, REPORT_QUEUE_SECONDS, REPORT_LATENCY_SECONDS, REPORT_DEVICE_SECONDS);
    report_write_cost(&line->json, "cost_usd", &o->report);
}

void access_log(const struct access *access, const struct outcome *outcome)
{
    struct log_line line;
    unsigned status = logged_status(access);
    if (!is_logged(access, status))
        return;
    log_begin(&line, status >= 500 ? "error" : "info", "request");
    log_text(&line, "id", access->id);
    log_text(&line, "method", access->method);
    log_text(&line, "path", access->path);
    log_u64(&line, "status", status);
    if (access->code)
        log_text(&line, "code", access->code);
    if (access->key_name[0])
        log_text(&line, "key", access->key_name);
    if (access->model[0])
        log_text(&line, "model", access->model);
    if (access->request_id[0])
        log_text(&line, "request_id", access->request_id);
    if (access->traceparent[0])
        log_text(&line, "traceparent", access->traceparent);
    if (access->ignored_log[0])
        log_text(&line, "ignored_fields", access->ignored_log);
    if (outcome)
        log_outcome(&line, outcome);
    log_seconds(&line, "seconds", clock_monotonic_ns() - access->received_ns);
    log_end(&line);
}

void access_log_ended(struct exchange *x)
{
    access_log(access_end(x), NULL);
}
