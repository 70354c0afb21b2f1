/* openapi_api.c - GET /openapi.json: the routes and every bound of their fields, in OpenAPI 3.1.
 *
 * The operations come from routes.c's table and the bounds from the constants that the fields are read with;
 * a test asks for the document and tries each bound. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "answer.h"
#include "fields.h"
#include "handlers.h"
#include "json_write.h"
#include "routes.h"
#include "settings.h"

enum {
    GENERATE = BODY_GENERATE,
    COMPLETIONS = BODY_COMPLETIONS,
    GENERATING = GENERATE | COMPLETIONS,
    TOKENIZE = BODY_TOKENIZE,
    DETOKENIZE = BODY_DETOKENIZE,
};

/* ---- Schemas ------------------------------------------------------------------------------ */

/* "type": one of JSON's types, or several with spaces between. */
static void put_types(struct json_writer *w, const char *types)
{
    if (!strchr(types, ' ')) {
        json_put_text(w, "type", types);
        return;
    }
    json_open_array(w, "type");
    while (*types) {
        size_t n = strcspn(types, " ");
        json_put_bytes(w, NULL, types, n);
        types += n + (types[n] == ' ');
    }
    json_close(w);
}

static void put_type(struct json_writer *w, const char *key, const char *types)
{
    json_open_object(w, key);
    put_types(w, types);
    json_close(w);
}

static void put_reference(struct json_writer *w, const char *key, const char *to)
{
    json_open_object(w, key);
    json_put_text(w, "$ref", to);
    json_close(w);
}

static void put_stream_options(struct json_writer *w)
{
    json_open_object(w, "properties");
    put_type(w, "include_usage", "boolean");
    json_close(w);
}

static void put_token_items(struct json_writer *w)
{
    json_open_object(w, "items");
    put_types(w, "integer");
    json_put_u64(w, "minimum", 0);
    json_close(w);
}

static void put_stop(struct json_writer *w)
{
    json_open_array(w, "oneOf");
    put_type(w, NULL, "null");
    put_reference(w, NULL, "#/components/schemas/Stop");
    json_open_object(w, NULL);
    put_types(w, "array");
    json_put_u64(w, "maxItems", STOPS_MAX);
    put_reference(w, "items", "#/components/schemas/Stop");
    json_close(w);
    json_close(w);
}

static void put_logit_bias(struct json_writer *w)
{
    json_put_u64(w, "maxProperties", LOGIT_BIASES_MAX);
    json_open_object(w, "additionalProperties");
    put_types(w, "number");
    json_put_i64(w, "minimum", -100);
    json_put_u64(w, "maximum", 100);
    json_close(w);
}

static const struct property {
    unsigned bodies;
    const char *name, *types;
    double low, high; /* of a number; of a string's length, 0: no bound */
    const char *help;
    void (*more)(struct json_writer *w);
} properties[] = {
    { COMPLETIONS, "model", "string null", 0, 0, "may be left out if only one model is loaded", NULL },
    { GENERATE, "prompt", "string null", 0, 0, "the text to continue", NULL },
    { COMPLETIONS, "prompt", "string array null", 0, 0, "a text, texts, tokens, or arrays of tokens", NULL },
    { GENERATE, "max_tokens", "integer null", 1, MAX_TOKENS_MAX, "generate at most this many tokens", NULL },
    { COMPLETIONS, "max_tokens", "integer null", 0, MAX_TOKENS_MAX,
      "generate at most this many tokens; 0 needs echo", NULL },
    { GENERATING, "temperature", "number null", 0, 2, "0 always takes the most likely token", NULL },
    { GENERATING, "top_p", "number null", 0, 1,
      "keep the most likely tokens until their probabilities reach this sum", NULL },
    { GENERATING, "min_p", "number null", 0, 1,
      "keep tokens at least this many times as likely as the most likely one", NULL },
    { GENERATING, "top_k", "integer null", -1, MAX_TOKENS_MAX,
      "keep the k most likely tokens; -1 and 0 keep all", NULL },
    { GENERATING, "presence_penalty", "number null", -2, 2,
      "subtracted once from the logits of generated tokens", NULL },
    { GENERATING, "frequency_penalty", "number null", -2, 2, "subtracted for each time a token was generated",
      NULL },
    { GENERATING, "repetition_penalty", "number null", 0.01, 100,
      "divides the positive logits of tokens seen before, multiplies negative ones", NULL },
    { GENERATING, "seed", "integer null", -SEED_MAX, SEED_MAX, "the same seed gives the same text", NULL },
    { GENERATING, "ignore_eos", "boolean null", 0, 0, "the end-of-text token does not end the generation",
      NULL },
    { GENERATING, "stream", "boolean null", 0, 0, "server-sent events", NULL },
    { COMPLETIONS, "n", "integer null", 1, CHOICES_MAX,
      "choices of each prompt; no more than the model serves concurrently", NULL },
    { COMPLETIONS, "best_of", "integer null", 1, CHOICES_MAX,
      "generate this many choices, as n no more than are served concurrently, and answer the n most likely",
      NULL },
    { COMPLETIONS, "logprobs", "integer null", 0, CINF_TOP_LOGPROBS_MAX,
      "log-probabilities of each token and of this many of the most likely ones", NULL },
    { COMPLETIONS, "echo", "boolean null", 0, 0, "the text begins with the prompt", NULL },
    { COMPLETIONS, "stream_options", "object null", 0, 0, "only with stream", put_stream_options },
    { COMPLETIONS, "user", "string null", 0, 0, "ignored", NULL },
    { TOKENIZE, "content", "string", 0, 0, "the text", NULL },
    { DETOKENIZE, "tokens", "array", 0, 0, "ids of the model's vocabulary", put_token_items },
    { TOKENIZE | DETOKENIZE, "model", "string null", 0, 0, "may be left out if only one model is loaded",
      NULL },
    { BODY_LOAD, "id", "string", 1, MODEL_NAME_BYTES_MAX, "the model's name", NULL },
    { BODY_LOAD, "folder", "string", 1, 0, "of the checkpoint, on the server", NULL },
    { BODY_PRICE, "dollars_per_hour", "string null", 0, 0, "such as \"0.10\"; null: unknown", NULL },
    { GENERATING, "stop", NULL, 0, 0, "the text ends before the first of these", put_stop },
    { GENERATING, "logit_bias", "object null", 0, 0, "tokens, and what is added to their logits",
      put_logit_bias },
};

static void put_property(struct json_writer *w, const struct property *p)
{
    bool is_text = p->types && strncmp(p->types, "string", 6) == 0;
    json_open_object(w, p->name);
    if (p->types)
        put_types(w, p->types);
    if (p->more)
        p->more(w);
    if (p->low < p->high || p->low > 0) {
        json_put_double(w, is_text ? "minLength" : "minimum", p->low);
        if (p->high > p->low)
            json_put_double(w, is_text ? "maxLength" : "maximum", p->high);
    }
    json_put_text(w, "description", p->help);
    json_close(w);
}

static void put_body(struct json_writer *w, enum body body)
{
    json_open_object(w, "requestBody");
    json_put_bool(w, "required", true);
    json_open_object(w, "content");
    json_open_object(w, "application/json");
    json_open_object(w, "schema");
    put_types(w, "object");
    json_open_object(w, "properties");
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++)
        if (properties[i].bodies & body)
            put_property(w, &properties[i]);
    json_close(w);
    json_close(w);
    json_close(w);
    json_close(w);
    json_close(w);
}

/* ---- Operations --------------------------------------------------------------------------- */

/* "delete_admin_models_model": a client's generator makes a function's name of it, so another route does not
 * change it. */
static void put_operation_id(struct json_writer *w, const struct route *r, const char *method)
{
    char id[80];
    size_t n = strlen(method);
    memcpy(id, method, n);
    for (const char *c = r->path; *c && n < sizeof id - 1; c++)
        if (isalnum((unsigned char)*c))
            id[n++] = *c;
        else if (id[n - 1] != '_' && c[1])
            id[n++] = '_';
    json_put_bytes(w, "operationId", id, n);
}

static void put_model_parameter(struct json_writer *w)
{
    json_open_array(w, "parameters");
    json_open_object(w, NULL);
    json_put_text(w, "name", "model");
    json_put_text(w, "in", "path");
    json_put_bool(w, "required", true);
    put_type(w, "schema", "string");
    json_close(w);
    json_close(w);
}

static void put_operation(struct json_writer *w, const struct route *r)
{
    char method[8] = "", status[12];
    for (size_t i = 0; r->method[i] && i < sizeof method - 1; i++)
        method[i] = (char)tolower((unsigned char)r->method[i]);
    snprintf(status, sizeof status, "%u", r->success);
    json_open_object(w, method);
    json_put_text(w, "summary", r->summary);
    put_operation_id(w, r, method);
    if (strchr(r->path, '{'))
        put_model_parameter(w);
    if (r->body != BODY_NONE)
        put_body(w, r->body);
    json_open_object(w, "responses");
    json_open_object(w, status);
    json_put_text(w, "description", "Success");
    json_close(w);
    put_reference(w, "4XX", "#/components/responses/Error");
    put_reference(w, "5XX", "#/components/responses/Error");
    json_close(w);
    json_close(w);
}

static bool is_documented(const struct route *r, const char *path)
{
    return r->audience == AUDIENCE_ALL && strcmp(r->path, path) == 0;
}

/* The operations of one path, where the path comes first in the table. */
static void put_path(struct json_writer *w, size_t first)
{
    const char *path = routes[first].path;
    for (size_t i = 0; i < first; i++)
        if (is_documented(&routes[i], path))
            return;
    json_open_object(w, path);
    for (size_t i = first; i < n_routes; i++)
        if (is_documented(&routes[i], path))
            put_operation(w, &routes[i]);
    json_close(w);
}

/* ---- The document ------------------------------------------------------------------------- */

static void put_info(struct json_writer *w)
{
    json_open_object(w, "info");
    json_put_text(w, "title", "costd");
    json_put_text(w, "version", cinf_version());
    json_put_text(w, "description", "GPT-2 over HTTP, with the exact cost of every request");
    json_open_object(w, "license");
    json_put_text(w, "name", "MIT");
    json_put_text(w, "identifier", "MIT");
    json_close(w);
    json_close(w);
}

/* One server, this one; requests without a key and with one. */
static void put_access(struct json_writer *w)
{
    json_open_array(w, "servers");
    json_open_object(w, NULL);
    json_put_text(w, "url", "/");
    json_close(w);
    json_close(w);
    json_open_array(w, "security");
    json_open_object(w, NULL);
    json_close(w);
    json_open_object(w, NULL);
    json_open_array(w, "key");
    json_close(w);
    json_close(w);
    json_close(w);
}

static void put_error_schema(struct json_writer *w)
{
    static const char *const members[] = { "message", "type", "param", "code" };
    json_open_object(w, "Error");
    put_types(w, "object");
    json_open_array(w, "required");
    json_put_text(w, NULL, "error");
    json_close(w);
    json_open_object(w, "properties");
    json_open_object(w, "error");
    put_types(w, "object");
    json_open_array(w, "required");
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        json_put_text(w, NULL, members[i]);
    json_close(w);
    json_open_object(w, "properties");
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        put_type(w, members[i], i < 2 ? "string" : "string null");
    json_close(w);
    json_close(w);
    json_close(w);
    json_close(w);
}

static void put_components(struct json_writer *w)
{
    json_open_object(w, "components");
    json_open_object(w, "securitySchemes");
    json_open_object(w, "key");
    json_put_text(w, "type", "http");
    json_put_text(w, "scheme", "bearer");
    json_close(w);
    json_close(w);
    json_open_object(w, "responses");
    json_open_object(w, "Error");
    json_put_text(w, "description", "An error");
    json_open_object(w, "content");
    json_open_object(w, "application/json");
    put_reference(w, "schema", "#/components/schemas/Error");
    json_close(w);
    json_close(w);
    json_close(w);
    json_close(w);
    json_open_object(w, "schemas");
    json_open_object(w, "Stop");
    put_types(w, "string");
    json_put_u64(w, "minLength", 1);
    json_put_u64(w, "maxLength", CINF_STOP_BYTES_MAX);
    json_close(w);
    put_error_schema(w);
    json_close(w);
    json_close(w);
}

void get_openapi(struct exchange *x, const char *unused)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    (void)unused;
    json_open_object(&w, NULL);
    json_put_text(&w, "openapi", "3.1.0");
    put_info(&w);
    put_access(&w);
    json_open_object(&w, "paths");
    for (size_t i = 0; i < n_routes; i++)
        if (routes[i].audience == AUDIENCE_ALL)
            put_path(&w, i);
    json_close(&w);
    put_components(&w);
    json_close(&w);
    strbuf_putc(&out, '\n');
    answer_json(x, 200, &out);
}
