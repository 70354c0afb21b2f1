#include "access_log.h"

#include <stdio.h>

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

void access_begin(struct exchange *x)
{
    struct access *access = access_of(x);
    copy_cut(access->id, sizeof access->id, exchange_id(x));
    copy_cut(access->method, sizeof access->method, exchange_method(x));
    copy_cut(access->path, sizeof access->path, exchange_path(x));
    access->received_ns = exchange_received_ns(x);
}

const struct access *access_end(struct exchange *x)
{
    struct access *access = access_of(x);
    access->status = exchange_status(x);
    if (access->status == STATUS_LATE)
        access->code = CODE_LATE;
    return access;
}

static void log_outcome(struct log_line *line, const struct outcome *o)
{
    log_text(line, "endpoint", o->endpoint);
    log_text(line, "mode", o->stream ? "stream" : "whole");
    REPORT_WRITE(&line->json, &o->report, REPORT_FINISH, REPORT_INPUT_TOKENS, REPORT_CACHED_TOKENS,
                 REPORT_OUTPUT_TOKENS, REPORT_QUEUE_SECONDS, REPORT_LATENCY_SECONDS, REPORT_DEVICE_SECONDS);
    report_write_cost(&line->json, "cost_usd", &o->report);
}

void access_log(const struct access *access, const struct outcome *outcome)
{
    struct log_line line;
    unsigned status = access->status ? access->status : STATUS_CLIENT_GONE;
    if (access->quiet && status < 400)
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
    if (outcome)
        log_outcome(&line, outcome);
    log_seconds(&line, "seconds", clock_monotonic_ns() - access->received_ns);
    log_end(&line);
}

void access_log_ended(struct exchange *x)
{
    access_log(access_end(x), NULL);
}
