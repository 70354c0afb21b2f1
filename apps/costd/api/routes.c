#include "routes.h"

#include <stdio.h>
#include <string.h>

#include "access_log.h"
#include "fail.h"
#include "handlers.h"
#include "mem.h"
#include "percent.h"
#include "problem.h"
#include "service.h"

#define PUBLIC      AUDIENCE_ALL
#define OF_THE_PAGE RIGHT_NONE, LISTENER_ADMIN, true, AUDIENCE_PAGE, NULL, BODY_NONE, 200
#define OF_OTHERS   RIGHT_NONE, LISTENER_MAIN, false, AUDIENCE_LOST, NULL, BODY_NONE, 404

const struct route routes[] = {
    { "POST", "/v1/generate/{model}", post_generate, RIGHT_USE, LISTENER_MAIN, false, PUBLIC,
      "Continues a text; answers with text, tokens, seconds and cost", BODY_GENERATE, 200 },
    { "POST", "/v1/completions", post_completions, RIGHT_USE, LISTENER_MAIN, false, PUBLIC,
      "OpenAI's completions, with usage and a cost object", BODY_COMPLETIONS, 200 },
    { "GET", "/v1/models", get_models, RIGHT_USE, LISTENER_BOTH, false, PUBLIC, "Lists the models", BODY_NONE,
      200 },
    { "GET", "/v1/models/{model}", get_model, RIGHT_USE, LISTENER_BOTH, false, PUBLIC, "Describes one model",
      BODY_NONE, 200 },
    { "POST", "/tokenize", post_tokenize, RIGHT_USE, LISTENER_MAIN, false, PUBLIC, "Turns a text into tokens",
      BODY_TOKENIZE, 200 },
    { "POST", "/detokenize", post_detokenize, RIGHT_USE, LISTENER_MAIN, false, PUBLIC,
      "Turns tokens back into a text", BODY_DETOKENIZE, 200 },
    { "GET", "/props", get_props, RIGHT_USE, LISTENER_BOTH, false, PUBLIC,
      "Describes the device and the limits", BODY_NONE, 200 },
    { "GET", "/metrics", get_metrics, RIGHT_USE, LISTENER_ADMIN, true, PUBLIC,
      "Metrics for Prometheus, text 0.0.4 or OpenMetrics 1.0; for a key that is not an admin's, its own",
      BODY_NONE, 200 },
    { "GET", "/health", get_health, RIGHT_NONE, LISTENER_BOTH, true, PUBLIC,
      "200 once the models are loaded, 503 before", BODY_NONE, 200 },
    { "GET", "/ready", get_ready, RIGHT_NONE, LISTENER_BOTH, true, PUBLIC,
      "200 if requests are taken, and which models are missing; 503 while loading or draining, or without "
      "any "
      "model",
      BODY_NONE, 200 },
    { "POST", "/admin/models", admin_load, RIGHT_ADMIN, LISTENER_ADMIN, false, PUBLIC,
      "Loads a model, or loads it again if its files have changed", BODY_LOAD, 202 },
    { "DELETE", "/admin/models/{model}", admin_unload, RIGHT_ADMIN, LISTENER_ADMIN, false, PUBLIC,
      "Unloads a model", BODY_NONE, 202 },
    /* After the others of their path, which are logged and counted. */
    { "GET", "/admin/models", admin_models, RIGHT_ADMIN, LISTENER_ADMIN, true, PUBLIC,
      "Lists the models: what is served, what is to be, and what came of the last load of each", BODY_NONE,
      200 },
    { "GET", "/admin/models/{model}", admin_model, RIGHT_ADMIN, LISTENER_ADMIN, true, PUBLIC,
      "Follows a load to its outcome: queued, loading, loaded, failed or unloading", BODY_NONE, 200 },
    { "PUT", "/admin/price", admin_price, RIGHT_ADMIN, LISTENER_ADMIN, false, PUBLIC, "Changes the price",
      BODY_PRICE, 202 },
    { "GET", "/openapi.json", get_openapi, RIGHT_NONE, LISTENER_BOTH, false, PUBLIC,
      "Every route, field and bound, in OpenAPI 3.1", BODY_NONE, 200 },
    /* The page is not secret; the figures it asks for are. */
    { "GET", "/", get_page, OF_THE_PAGE },
    { "GET", "/page/{file}", get_page, OF_THE_PAGE },
    { "GET", "/api/history", get_history, RIGHT_ALL_FIGURES, LISTENER_ADMIN, true, AUDIENCE_PAGE, NULL,
      BODY_NONE, 200 },
    { "GET", "/api/recent", get_recent, RIGHT_USE, LISTENER_ADMIN, true, AUDIENCE_PAGE, NULL, BODY_NONE,
      200 },
    { NULL, "/v1/chat/completions", no_chat, OF_OTHERS },
    { NULL, "/v1/responses", no_chat, OF_OTHERS },
    { NULL, "/v1/embeddings", no_embeddings, OF_OTHERS },
};
const size_t n_routes = sizeof routes / sizeof routes[0];

/* The rest of the path for a route that takes one, "" for the others; NULL when it is another path. */
static const char *match(const struct route *r, const char *path)
{
    size_t n = strcspn(r->path, "{");
    if (r->path[n])
        return strncmp(path, r->path, n) == 0 && path[n] ? path + n : NULL;
    return strcmp(path, r->path) == 0 ? "" : NULL;
}

/* One name for the routes that differ in their argument alone. */
static size_t endpoint_bytes(const struct route *r)
{
    const char *argument = strstr(r->path, "/{");
    return argument ? (size_t)(argument - r->path) : strlen(r->path);
}

/* What is not logged when it goes well is not counted then; its failures are among the others. */
static unsigned endpoint_of(const struct route *r)
{
    _Static_assert(sizeof routes / sizeof routes[0] < ENDPOINTS_MAX, "each has a number");
    unsigned number = OTHER_ENDPOINT + 1;
    size_t n = endpoint_bytes(r);
    if (r->audience == AUDIENCE_LOST || r->quiet)
        return OTHER_ENDPOINT;
    for (const struct route *first = routes;
         endpoint_bytes(first) != n || memcmp(first->path, r->path, n) != 0; first++)
        number++;
    return number;
}

bool route_endpoint(unsigned number, char name[ENDPOINT_NAME_BYTES])
{
    if (number == OTHER_ENDPOINT) {
        snprintf(name, ENDPOINT_NAME_BYTES, "other");
        return true;
    }
    if (number > n_routes)
        return false;
    const struct route *r = &routes[number - (OTHER_ENDPOINT + 1)];
    if (endpoint_of(r) != number)
        return false;
    snprintf(name, ENDPOINT_NAME_BYTES, "%.*s", (int)endpoint_bytes(r), r->path);
    return true;
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
    return !service_of(x)->has_admin_listener || (r->listener & exchange_listener(x)) != 0;
}

/* One of the methods that a path takes.  A GET route takes HEAD too. */
static void add_method(char methods[64], const char *method)
{
    size_t n = strlen(methods);
    snprintf(methods + n, 64 - n, "%s%s", n ? ", " : "", strcmp(method, "GET") == 0 ? "GET, HEAD" : method);
}

void route(struct exchange *x)
{
    const char *method = exchange_method(x);
    const struct route *other = NULL; /* at this path, for another method */
    char methods[64] = "";
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (const struct route *r = routes; r < routes + n_routes; r++) {
        const char *rest = is_here(x, r) ? match(r, exchange_path(x)) : NULL;
        if (!rest)
            continue;
        access_of(x)->endpoint = endpoint_of(r);
        if (!r->method || strcmp(r->method, method) == 0) {
            if (admit(x, r->right))
                run(x, r, rest);
            return;
        }
        other = other ? other : r;
        add_method(methods, r->method);
    }
    if (!admit(x, other ? other->right : RIGHT_NONE))
        return;
    if (other)
        problem_method(x, methods);
    else
        problem_no_route(x, "unknown path; /openapi.json lists the routes");
}
