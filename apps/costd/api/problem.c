#include "problem.h"

#include <stdio.h>
#include <string.h>

#include "access_log.h"
#include "fail.h"
#include "json_write.h"
#include "service.h"

#define INVALID "invalid_request_error"
#define SERVER  "server_error"

static const struct problem {
    enum cinf_status status;
    unsigned http;
    const char *type, *code;
    enum cinf_error_kind kind;
    unsigned retry_after; /* seconds; 0: a retry will not help */
} problems[] = {
    { CINF_EINVAL, 400, INVALID, "invalid_value", CINF_ERROR_INVALID_REQUEST, 0 },
    { CINF_EFORMAT, 400, INVALID, "invalid_json", CINF_ERROR_INVALID_REQUEST, 0 },
    { CINF_EUNSUPPORTED, 400, INVALID, "unsupported", CINF_ERROR_INVALID_REQUEST, 0 },
    { CINF_ECONTEXT, 400, INVALID, "context_length_exceeded", CINF_ERROR_CONTEXT_LENGTH, 0 },
    { CINF_EFULL, 429, "rate_limit_error", "queue_full", CINF_ERROR_QUEUE_FULL, 1 },
    { CINF_ECLOSED, 503, SERVER, "unavailable", CINF_ERROR_UNAVAILABLE, 5 },
    { CINF_ECANCELLED, 503, SERVER, "cancelled", CINF_ERROR_UNAVAILABLE, 5 },
    { CINF_EDEVICE, 503, SERVER, "device_failed", CINF_ERROR_DEVICE, 5 },
    { CINF_ENOMEM, 503, SERVER, "out_of_memory", CINF_ERROR_INTERNAL, 5 },
    { CINF_EAGAIN, 504, SERVER, "timeout", CINF_ERROR_TIMEOUT, 1 },
};
static const struct problem internal = { CINF_EIO, 500, SERVER, "internal", CINF_ERROR_INTERNAL, 0 };

static const struct problem *problem_of(enum cinf_status status)
{
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        if (problems[i].status == status)
            return &problems[i];
    return &internal;
}

void problem_write(struct strbuf *out, const char *type, const char *param, const char *code,
                   const char *message)
{
    struct json_writer w = json_write_to(out);
    json_open_object(&w, NULL);
    json_open_object(&w, "error");
    json_put_text(&w, "message", message);
    json_put_text(&w, "type", type);
    json_put_text(&w, "param", param);
    json_put_text(&w, "code", code);
    json_close(&w);
    json_close(&w);
}

/* `retry_after` in seconds; 0: a retry will not help.  `type` and `code` live for ever; param may be NULL. */
static void answer(struct exchange *x, unsigned status, const char *type, const char *param, const char *code,
                   const char *message, unsigned retry_after)
{
    struct strbuf body = { 0 };
    char seconds[16], milliseconds[16];
    access_of(x)->code = code;
    if (retry_after) {
        snprintf(seconds, sizeof seconds, "%u", retry_after);
        snprintf(milliseconds, sizeof milliseconds, "%u", retry_after * 1000);
        exchange_add_header(x, "Retry-After", seconds);
        exchange_add_header(x, "retry-after-ms", milliseconds);
    } else {
        /* OpenAI's clients would try again what cannot become better. */
        exchange_add_header(x, "x-should-retry", "false");
    }
    problem_write(&body, type, param, code, message);
    strbuf_putc(&body, '\n');
    if (body.failed)
        exchange_abandon(x);
    else
        exchange_send(x, status, "application/json", body.text, body.len);
    strbuf_free(&body);
}

void problem_answer(struct exchange *x, enum cinf_status status, const char *param, int64_t account)
{
    const struct problem *p = problem_of(status);
    if (account != NO_ACCOUNT)
        cinf_engine_count_error(service_of(x)->engine, (uint32_t)account, p->kind);
    answer(x, p->http, p->type, param, p->code, cinf_last_error(), p->retry_after);
}

void problem_event(struct strbuf *out, enum cinf_status status, const char *message)
{
    const struct problem *p = problem_of(status);
    strbuf_puts(out, "data: ");
    problem_write(out, p->type, NULL, p->code, message);
    strbuf_puts(out, "\n\n");
}

static const char *code_of_http(unsigned status)
{
    switch (status) {
    case 408:
        return CODE_LATE;
    case 413:
        return "body_too_large";
    case 414:
        return "target_too_long";
    case 415:
        return "unsupported_encoding";
    case 431:
        return "headers_too_large";
    case 505:
        return "unsupported_version";
    default:
        return "malformed_request";
    }
}

void problem_http(struct exchange *x, unsigned status, const char *why)
{
    answer(x, status, INVALID, NULL, code_of_http(status), why, 0);
}

void problem_write_http(struct strbuf *out, unsigned status, const char *why)
{
    problem_write(out, INVALID, NULL, code_of_http(status), why);
    strbuf_putc(out, '\n');
}

void problem_no_route(struct exchange *x, const char *message)
{
    answer(x, 404, INVALID, NULL, "not_found", message, 0);
}

void problem_no_model(struct exchange *x, const char *name)
{
    char message[400];
    snprintf(message, sizeof message, "the model \"%.300s\" does not exist here (see /v1/models)", name);
    answer(x, 404, INVALID, "model", "model_not_found", message, 0);
}

void problem_method(struct exchange *x, const char *allowed)
{
    char message[80];
    snprintf(message, sizeof message, "this path takes %s", allowed);
    exchange_add_header(x, "Allow", allowed);
    answer(x, 405, INVALID, NULL, "method_not_allowed", message, 0);
}

void problem_content_type(struct exchange *x)
{
    answer(x, 415, INVALID, NULL, "unsupported_content_type",
           "the body must be JSON, with Content-Type: application/json", 0);
}

void problem_no_key(struct exchange *x)
{
    exchange_add_header(x, "WWW-Authenticate", "Bearer realm=\"costd\"");
    answer(x, 401, "authentication_error", NULL, "invalid_api_key",
           "an API key is needed: Authorization: Bearer KEY", 0);
}

void problem_no_right(struct exchange *x)
{
    answer(x, 403, "permission_error", NULL, "forbidden",
           "this needs an admin key, or the metrics listener on a private address", 0);
}

void problem_host(struct exchange *x, const char *host)
{
    char message[400];
    snprintf(message, sizeof message,
             "this server does not accept the host name \"%.*s\"; --allow-host names those that it does "
             "(docs/proxies.md)",
             (int)strcspn(host, ":") < 200 ? (int)strcspn(host, ":") : 200, host);
    answer(x, 421, INVALID, NULL, "host_not_allowed", message, 0);
}

void problem_origin(struct exchange *x, const char *origin)
{
    char message[400];
    snprintf(message, sizeof message,
             "this server does not take this request from a web page of another origin%s%.200s; --allow-host "
             "names the hosts whose pages may send it (docs/proxies.md)",
             origin ? ", " : "", origin ? origin : "");
    answer(x, 403, "permission_error", NULL, "origin_not_allowed", message, 0);
}

void problem_loading(struct exchange *x, const char *what)
{
    char message[400];
    snprintf(message, sizeof message, "%.300s: still loading", what);
    answer(x, 503, SERVER, NULL, "loading", message, 2);
}

void problem_none_loaded(struct exchange *x)
{
    answer(x, 503, SERVER, NULL, "no_model_loaded", "none of the models that should be served is loaded", 5);
}

void problem_draining(struct exchange *x, int64_t account)
{
    if (account != NO_ACCOUNT)
        cinf_engine_count_error(service_of(x)->engine, (uint32_t)account, CINF_ERROR_UNAVAILABLE);
    answer(x, 503, SERVER, NULL, "shutting_down", "the server is shutting down", 5);
}
