/* openapi_api.c - GET /openapi.json: the routes and every bound of their fields, in OpenAPI 3.1.
 *
 * The built-in page's own files and /api are not in it: nobody else is meant to rely on them.
 * The bounds come from the constants that the fields are read with; a test asks for the document and tries
 * each bound. */
#include <stdio.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "answer.h"
#include "fields.h"
#include "handlers.h"

enum body { GENERATE = 1, COMPLETIONS = 2, BOTH = 3, TOKENIZE = 4, DETOKENIZE = 8, LOAD = 16, PRICE = 32 };

static const struct property {
    unsigned bodies;
    const char *name, *type; /* "integer", "number": with bounds; otherwise a schema's members */
    double low, high;
    const char *help;
} properties[] = {
    { COMPLETIONS, "model", "\"type\":[\"string\",\"null\"]", 0, 0,
      "may be left out if one model is loaded" },
    { GENERATE, "prompt", "\"type\":[\"string\",\"null\"]", 0, 0, "the text to continue" },
    { COMPLETIONS, "prompt", "\"type\":[\"string\",\"array\",\"null\"]", 0, 0,
      "a text, texts, tokens, or arrays of tokens" },
    { GENERATE, "max_tokens", "integer", 1, MAX_TOKENS_MAX, "at most so many new tokens" },
    { COMPLETIONS, "max_tokens", "integer", 0, MAX_TOKENS_MAX, "at most so many new tokens; 0 needs echo" },
    { BOTH, "temperature", "number", 0, 2, "0: the most likely token" },
    { BOTH, "top_p", "number", 0, 1, "keep the most likely tokens up to this probability" },
    { BOTH, "min_p", "number", 0, 1, "keep tokens at least so many times as likely as the first" },
    { BOTH, "top_k", "integer", -1, MAX_TOKENS_MAX, "keep the k most likely; -1 and 0: all" },
    { BOTH, "presence_penalty", "number", -2, 2, "taken off tokens that were generated" },
    { BOTH, "frequency_penalty", "number", -2, 2, "taken off for each time" },
    { BOTH, "repetition_penalty", "number", 0.01, 100, "divides the logits of tokens seen" },
    { BOTH, "seed", "integer", -SEED_MAX, SEED_MAX, "the same seed, the same text" },
    { BOTH, "ignore_eos", "\"type\":[\"boolean\",\"null\"]", 0, 0, "end-of-text does not end the text" },
    { BOTH, "stream", "\"type\":[\"boolean\",\"null\"]", 0, 0, "server-sent events" },
    { COMPLETIONS, "n", "integer", 1, CHOICES_MAX,
      "choices of each prompt; no more than the model serves at once" },
    { COMPLETIONS, "best_of", "integer", 1, CHOICES_MAX,
      "generate so many, as n no more than are served at once, and answer the n most likely" },
    { COMPLETIONS, "logprobs", "integer", 0, CINF_TOP_LOGPROBS_MAX, "so many alternatives of each token" },
    { COMPLETIONS, "echo", "\"type\":[\"boolean\",\"null\"]", 0, 0, "the prompt stands before the text" },
    { COMPLETIONS, "stream_options",
      "\"type\":[\"object\",\"null\"],\"properties\":{\"include_usage\":{\"type\":\"boolean\"}}", 0, 0,
      "with stream alone" },
    { COMPLETIONS, "user", "\"type\":[\"string\",\"null\"]", 0, 0, "ignored" },
    { TOKENIZE, "content", "\"type\":\"string\"", 0, 0, "the text" },
    { DETOKENIZE, "tokens", "\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0}", 0, 0,
      "ids of the model's vocabulary" },
    { TOKENIZE | DETOKENIZE, "model", "\"type\":[\"string\",\"null\"]", 0, 0,
      "may be left out if one model is loaded" },
    { LOAD, "id", "\"type\":\"string\",\"minLength\":1,\"maxLength\":256", 0, 0, "the model's name" },
    { LOAD, "folder", "\"type\":\"string\",\"minLength\":1", 0, 0, "of the checkpoint, on the server" },
    { PRICE, "dollars_per_hour", "\"type\":[\"string\",\"null\"]", 0, 0,
      "such as \\\"0.10\\\"; null: unknown" },
};

static const struct operation {
    const char *path, *method, *summary;
    unsigned body;
    const char *good; /* status */
} operations[] = {
    { "/v1/generate/{model}", "post", "Continues a text", GENERATE, "200" },
    { "/v1/completions", "post", "OpenAI's completions, with the cost", COMPLETIONS, "200" },
    { "/v1/models", "get", "The models", 0, "200" },
    { "/v1/models/{model}", "get", "One model", 0, "200" },
    { "/tokenize", "post", "A text's tokens", TOKENIZE, "200" },
    { "/detokenize", "post", "The text of tokens", DETOKENIZE, "200" },
    { "/props", "get", "Device and limits", 0, "200" },
    { "/metrics", "get", "Metrics for Prometheus", 0, "200" },
    { "/health", "get", "Whether the models are loaded", 0, "200" },
    { "/ready", "get", "Whether requests are taken", 0, "200" },
    { "/admin/models", "post", "Loads a model, or loads it again", LOAD, "202" },
    { "/admin/models/{model}", "delete", "Unloads a model", 0, "202" },
    { "/admin/price", "put", "Changes the price", PRICE, "202" },
};

static void put_property(struct strbuf *out, const struct property *p)
{
    strbuf_printf(out, "\"%s\":{", p->name);
    if (p->type[0] == '"') {
        strbuf_puts(out, p->type);
    } else {
        strbuf_printf(out, "\"type\":[\"%s\",\"null\"],\"minimum\":", p->type);
        strbuf_put_double(out, p->low);
        strbuf_puts(out, ",\"maximum\":");
        strbuf_put_double(out, p->high);
    }
    strbuf_printf(out, ",\"description\":\"%s\"}", p->help);
}

static void put_body(struct strbuf *out, unsigned body)
{
    const char *comma = "";
    strbuf_puts(out, ",\"requestBody\":{\"required\":true,\"content\":{\"application/json\":{\"schema\":{"
                     "\"type\":\"object\",\"properties\":{");
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++) {
        if (!(properties[i].bodies & body))
            continue;
        strbuf_puts(out, comma);
        put_property(out, &properties[i]);
        comma = ",";
    }
    if (body & BOTH)
        strbuf_printf(
            out,
            ",\"stop\":{\"oneOf\":[{\"type\":\"null\"},{\"$ref\":\"#/components/schemas/Stop\"},"
            "{\"type\":\"array\",\"maxItems\":%d,\"items\":{\"$ref\":\"#/components/schemas/Stop\"}}]},"
            "\"logit_bias\":{\"type\":[\"object\",\"null\"],\"maxProperties\":%d,"
            "\"additionalProperties\":{\"type\":\"number\",\"minimum\":-100,\"maximum\":100}}",
            STOPS_MAX, LOGIT_BIASES_MAX);
    strbuf_puts(out, "}}}}}");
}

static void put_operation(struct strbuf *out, const struct operation *o)
{
    strbuf_printf(out, "\"%s\":{\"%s\":{\"summary\":\"%s\"", o->path, o->method, o->summary);
    strbuf_printf(out, ",\"operationId\":\"%s_%zu\"", o->method, (size_t)(o - operations));
    if (strchr(o->path, '{'))
        strbuf_puts(out, ",\"parameters\":[{\"name\":\"model\",\"in\":\"path\",\"required\":true,"
                         "\"schema\":{\"type\":\"string\"}}]");
    if (o->body)
        put_body(out, o->body);
    strbuf_printf(out,
                  ",\"responses\":{\"%s\":{\"description\":\"well\"},"
                  "\"4XX\":{\"$ref\":\"#/components/responses/Error\"},"
                  "\"5XX\":{\"$ref\":\"#/components/responses/Error\"}}}}",
                  o->good);
}

void get_openapi(struct exchange *x, const char *unused)
{
    struct strbuf out = { 0 };
    (void)unused;
    strbuf_printf(&out,
                  "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"costd\",\"version\":\"%s\",\"description\":"
                  "\"GPT-2 over HTTP, with the exact cost of every request\","
                  "\"license\":{\"name\":\"MIT\",\"identifier\":\"MIT\"}},"
                  "\"servers\":[{\"url\":\"/\"}],\"security\":[{},{\"key\":[]}],"
                  "\"paths\":{",
                  cinf_version());
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        strbuf_puts(&out, i ? "," : "");
        put_operation(&out, &operations[i]);
    }
    strbuf_printf(
        &out,
        "},\"components\":{\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\"}},"
        "\"responses\":{\"Error\":{\"description\":\"an error\",\"content\":{\"application/json\":{"
        "\"schema\":{\"$ref\":\"#/components/schemas/Error\"}}}}},"
        "\"schemas\":{\"Stop\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":%d},"
        "\"Error\":{\"type\":\"object\",\"required\":[\"error\"],\"properties\":{\"error\":{"
        "\"type\":\"object\",\"required\":[\"message\",\"type\",\"param\",\"code\"],\"properties\":{"
        "\"message\":{\"type\":\"string\"},\"type\":{\"type\":\"string\"},"
        "\"param\":{\"type\":[\"string\",\"null\"]},\"code\":{\"type\":[\"string\",\"null\"]}}}}}}}}\n",
        CINF_STOP_BYTES_MAX);
    answer_json(x, 200, &out);
}
