#include "routes.h"

#include <stdbool.h>
#include <string.h>

#include "access_log.h"
#include "admission.h"
#include "answer.h"
#include "fail.h"
#include "fleet.h"
#include "handlers.h"
#include "generation.h"
#include "mem.h"
#include "percent.h"
#include "problem.h"
#include "service.h"

static void get_health(struct exchange *x, const char *unused)
{
    (void)unused;
    if (fleet_loading(service_of(x)->fleet))
        problem_loading(x, "the models");
    else
        answer_status(x, 200, "ok");
}

static void get_ready(struct exchange *x, const char *unused)
{
    if (generations_closed(&service_of(x)->generations))
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
    const char *method; /* GET: and HEAD */
    const char *path;   /* one that ends in '/', but "/", takes the rest, decoded, as its argument */
    enum right right;
    unsigned where; /* if there are two listeners; else everything is everywhere */
    bool quiet;     /* asked every few seconds by machines: logged only when it fails */
    void (*handle)(struct exchange *x, const char *argument);
} routes[] = {
    { "POST", "/v1/generate/", RIGHT_USE, LISTENER_MAIN, false, post_generate },
    { "POST", "/v1/completions", RIGHT_USE, LISTENER_MAIN, false, post_completions },
    { "GET", "/v1/models", RIGHT_USE, LISTENER_BOTH, false, get_models },
    { "GET", "/v1/models/", RIGHT_USE, LISTENER_BOTH, false, get_model },
    { "POST", "/tokenize", RIGHT_USE, LISTENER_MAIN, false, post_tokenize },
    { "POST", "/detokenize", RIGHT_USE, LISTENER_MAIN, false, post_detokenize },
    /* The page is no secret; what it shows is. */
    { "GET", "/", RIGHT_NONE, LISTENER_ADMIN, true, get_page },
    { "GET", "/page.css", RIGHT_NONE, LISTENER_ADMIN, true, get_page },
    { "GET", "/page.js", RIGHT_NONE, LISTENER_ADMIN, true, get_page },
    { "GET", "/uPlot.min.css", RIGHT_NONE, LISTENER_ADMIN, true, get_page },
    { "GET", "/uPlot.iife.min.js", RIGHT_NONE, LISTENER_ADMIN, true, get_page },
    { "GET", "/api/history", RIGHT_USE, LISTENER_ADMIN, true, get_history },
    { "GET", "/api/recent", RIGHT_USE, LISTENER_ADMIN, true, get_recent },
    { "GET", "/metrics", RIGHT_USE, LISTENER_ADMIN, true, get_metrics },
    { "GET", "/props", RIGHT_USE, LISTENER_BOTH, false, get_props },
    { "POST", "/admin/models", RIGHT_ADMIN, LISTENER_ADMIN, false, admin_load },
    { "DELETE", "/admin/models/", RIGHT_ADMIN, LISTENER_ADMIN, false, admin_unload },
    { "PUT", "/admin/price", RIGHT_ADMIN, LISTENER_ADMIN, false, admin_price },
    { "GET", "/openapi.json", RIGHT_NONE, LISTENER_BOTH, false, get_openapi },
    { "GET", "/health", RIGHT_NONE, LISTENER_BOTH, true, get_health },
    { "GET", "/ready", RIGHT_NONE, LISTENER_BOTH, true, get_ready },
    { "POST", "/v1/chat/completions", RIGHT_USE, LISTENER_MAIN, false, no_chat },
    { "POST", "/v1/embeddings", RIGHT_USE, LISTENER_MAIN, false, no_embeddings },
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
    access_of(x)->quiet = r->quiet;
    r->handle(x, argument);
    mem_free(argument);
}

static bool is_here(struct exchange *x, const struct route *r)
{
    return !service_of(x)->has_admin_listener || (r->where & exchange_listener(x)) != 0;
}

void route(struct exchange *x)
{
    const char *method = exchange_method(x);
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *r = &routes[i];
        const char *rest = is_here(x, r) ? match(r, exchange_path(x)) : NULL;
        if (!rest)
            continue;
        if (!admit(x, r->right))
            return;
        if (strcmp(r->method, method) == 0)
            run(x, r, rest);
        else
            problem_method(x, strcmp(r->method, "GET") == 0 ? "GET, HEAD" : r->method);
        return;
    }
    if (admit(x, RIGHT_NONE))
        problem_no_route(x, "there is nothing at this path");
}
