#include "routes.h"

#include <stdbool.h>
#include <string.h>

#include "fail.h"
#include "fleet.h"
#include "handlers.h"
#include "job.h"
#include "mem.h"
#include "percent.h"
#include "problem.h"
#include "service.h"

static void get_health(struct exchange *x, const char *unused)
{
    static const char ok[] = "{\"status\":\"ok\"}\n";
    (void)unused;
    if (fleet_loading(service_of(x)->fleet))
        problem_loading(x, "the models");
    else
        exchange_send(x, 200, "application/json", ok, sizeof ok - 1);
}

static void get_ready(struct exchange *x, const char *unused)
{
    if (jobs_closed(&service_of(x)->jobs))
        problem_draining(x, NO_ACCOUNT);
    else
        get_health(x, unused);
}

static void no_chat(struct exchange *x, const char *unused)
{
    (void)unused;
    problem_no_route(x, "GPT-2 has no chat format; send the text to continue to /v1/completions");
}

static void no_embeddings(struct exchange *x, const char *unused)
{
    (void)unused;
    problem_no_route(x, "these models generate text and offer no embeddings");
}

static const struct route {
    const char *path; /* one that ends in '/', but "/", takes the rest, decoded, as its argument */
    bool post;        /* else GET and HEAD */
    bool quiet;       /* asked every few seconds by machines: logged only when it fails */
    void (*handle)(struct exchange *x, const char *argument);
} routes[] = {
    { "/v1/generate/", true, false, post_generate },
    { "/v1/completions", true, false, post_completions },
    { "/v1/models", false, false, get_models },
    { "/v1/models/", false, false, get_model },
    { "/tokenize", true, false, post_tokenize },
    { "/detokenize", true, false, post_detokenize },
    { "/", false, true, get_page },
    { "/page.css", false, true, get_page },
    { "/page.js", false, true, get_page },
    { "/uPlot.min.css", false, true, get_page },
    { "/uPlot.iife.min.js", false, true, get_page },
    { "/api/history", false, true, get_history },
    { "/api/recent", false, true, get_recent },
    { "/metrics", false, true, get_metrics },
    { "/health", false, true, get_health },
    { "/ready", false, true, get_ready },
    { "/v1/chat/completions", true, false, no_chat },
    { "/v1/embeddings", true, false, no_embeddings },
};

/* The rest of the path for a route that takes one, "" for the others; NULL when it is another path. */
static const char *match(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);
    if (n > 1 && r->path[n - 1] == '/')
        return strncmp(path, r->path, n) == 0 && path[n] ? path + n : NULL;
    return strcmp(path, r->path) == 0 ? "" : NULL;
}

static void run(struct exchange *x, const struct route *r, const char *rest)
{
    char *argument;
    enum cinf_status status = percent_decode(&argument, rest, false);
    if (status != CINF_OK) {
        problem_answer(x, status, NULL, NO_ACCOUNT);
        return;
    }
    exchange_access(x)->quiet = r->quiet;
    r->handle(x, argument);
    mem_free(argument);
}

void route(struct exchange *x)
{
    const char *method = exchange_method(x);
    bool post = strcmp(method, "POST") == 0;
    bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *r = &routes[i];
        const char *rest = match(r, exchange_path(x));
        if (!rest)
            continue;
        if (r->post ? post : get)
            run(x, r, rest);
        else
            problem_method(x, r->post ? "POST" : "GET, HEAD");
        return;
    }
    problem_no_route(x, "there is nothing at this path");
}
