/* schema.c - the table of all fields of all bodies. */
#include "schema.h"

#include <string.h>

#include <costinfer/request.h>

#include "fields.h"
#include "settings.h"

enum {
    GENERATE = BODY_GENERATE,
    COMPLETIONS = BODY_COMPLETIONS,
    GENERATING = GENERATE | COMPLETIONS,
    TOKENIZE = BODY_TOKENIZE,
    DETOKENIZE = BODY_DETOKENIZE,
};

void schema_put_types(struct json_writer *w, const char *types)
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

void schema_put_type(struct json_writer *w, const char *key, const char *types)
{
    json_open_object(w, key);
    schema_put_types(w, types);
    json_close(w);
}

void schema_put_reference(struct json_writer *w, const char *key, const char *to)
{
    json_open_object(w, key);
    json_put_text(w, "$ref", to);
    json_close(w);
}

static void put_stream_options(struct json_writer *w)
{
    json_open_object(w, "properties");
    schema_put_type(w, "include_usage", "boolean");
    json_close(w);
}

static void put_token_items(struct json_writer *w)
{
    json_open_object(w, "items");
    schema_put_types(w, "integer");
    json_put_u64(w, "minimum", 0);
    json_close(w);
}

static void put_stop(struct json_writer *w)
{
    json_open_array(w, "oneOf");
    schema_put_type(w, NULL, "null");
    schema_put_reference(w, NULL, "#/components/schemas/Stop");
    json_open_object(w, NULL);
    schema_put_types(w, "array");
    json_put_u64(w, "maxItems", STOPS_MAX);
    schema_put_reference(w, "items", "#/components/schemas/Stop");
    json_close(w);
    json_close(w);
}

static void put_stop_ids(struct json_writer *w)
{
    json_put_u64(w, "maxItems", STOP_IDS_MAX);
    put_token_items(w);
}

/* The greatest is the model's context. */
static void put_truncation(struct json_writer *w)
{
    json_open_array(w, "oneOf");
    schema_put_type(w, NULL, "null");
    json_open_object(w, NULL);
    json_put_i64(w, "const", -1);
    json_close(w);
    json_open_object(w, NULL);
    schema_put_types(w, "integer");
    json_put_u64(w, "minimum", 1);
    json_close(w);
    json_close(w);
}

static void put_seed_bounds(struct json_writer *w)
{
    json_put_i64(w, "minimum", INT64_MIN);
    json_put_i64(w, "maximum", INT64_MAX);
}

static void put_logit_bias(struct json_writer *w)
{
    json_put_u64(w, "maxProperties", LOGIT_BIASES_MAX);
    json_open_object(w, "additionalProperties");
    schema_put_types(w, "number");
    json_put_i64(w, "minimum", -100);
    json_put_u64(w, "maximum", 100);
    json_close(w);
}

static void put_metadata(struct json_writer *w)
{
    schema_put_type(w, "additionalProperties", "string");
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
    { COMPLETIONS, "prompt", "string array", 0, 0,
      "the text to continue, or several, or token ids, or arrays of these", NULL },
    { GENERATE, "max_tokens", "integer null", 1, MAX_TOKENS_MAX, "generate at most this many tokens", NULL },
    { COMPLETIONS, "max_tokens", "integer null", 0, MAX_TOKENS_MAX,
      "generate at most this many tokens; 0 needs echo or prompt_logprobs", NULL },
    { GENERATING, "temperature", "number null", 0, 2, "0 always takes the most likely token", NULL },
    { GENERATING, "top_p", "number null", 0, 1,
      "keep the most likely tokens until their probabilities reach this sum", NULL },
    { GENERATING, "min_p", "number null", 0, 1,
      "keep tokens at least this many times as likely as the most likely one", NULL },
    { GENERATING, "typical_p", "number null", 0, 1,
      "of what the other fields keep, keep the tokens whose surprise is nearest to the entropy until their "
      "probabilities reach this sum; 0 and 1 keep all",
      NULL },
    { GENERATING, "top_k", "integer null", -1, MAX_TOKENS_MAX,
      "keep the k most likely tokens; -1 and 0 keep all", NULL },
    { GENERATING, "presence_penalty", "number null", -2, 2,
      "subtracted once from the logits of generated tokens", NULL },
    { GENERATING, "frequency_penalty", "number null", -2, 2, "subtracted for each time a token was generated",
      NULL },
    { GENERATING, "repetition_penalty", "number null", 0.01, 100,
      "divides the positive logits of tokens seen before, multiplies negative ones", NULL },
    { GENERATING, "seed", "integer null", 0, 0, "the same seed gives the same text", put_seed_bounds },
    { GENERATING, "ignore_eos", "boolean null", 0, 0, "the end-of-text token does not end the generation",
      NULL },
    { GENERATING, "min_tokens", "integer null", 0, MAX_TOKENS_MAX,
      "before so many tokens, at most max_tokens, neither end-of-text nor stop nor stop_token_ids ends the "
      "text",
      NULL },
    { GENERATING, "stop_token_ids", "array null", 0, 0, "tokens that end the text and are not part of it",
      put_stop_ids },
    { GENERATING, "stream", "boolean null", 0, 0, "server-sent events", NULL },
    { COMPLETIONS, "n", "integer null", 1, CHOICES_MAX,
      "choices of each prompt; no more than the model serves concurrently", NULL },
    { COMPLETIONS, "best_of", "integer null", 1, CHOICES_MAX,
      "generate this many choices, as n no more than are served concurrently, and answer the n most likely",
      NULL },
    { COMPLETIONS, "logprobs", "integer null", 0, CINF_TOP_LOGPROBS_MAX,
      "log-probabilities of each token and of this many of the most likely ones", NULL },
    { COMPLETIONS, "prompt_logprobs", "integer null", 0, CINF_TOP_LOGPROBS_MAX,
      "as logprobs, for each token of the prompt but the first, with ranks; not with stream", NULL },
    { COMPLETIONS, "echo", "boolean null", 0, 0, "the text begins with the prompt", NULL },
    { COMPLETIONS, "stream_options", "object null", 0, 0, "only with stream", put_stream_options },
    { GENERATING, "user", "string null", 0, 0,
      "the end user, for the ledger, which leaves out more than 256 bytes", NULL },
    { GENERATING, "safety_identifier", "string null", 0, 0, "the same, and takes precedence", NULL },
    { GENERATING, "metadata", "object null", 0, 0,
      "up to 16 tags for the ledger: names of at most 64 bytes, texts of at most 512", put_metadata },
    { TOKENIZE, "content", "string", 0, 0, "the text", NULL },
    { TOKENIZE, "with_pieces", "boolean null", 0, 0, "also each token's text, or its bytes", NULL },
    { GENERATING | TOKENIZE, "parse_special", "boolean null", 0, 0,
      "special tokens in the text are tokens; only for text that you trust", NULL },
    { DETOKENIZE, "tokens", "array", 0, 0, "ids of the model's vocabulary", put_token_items },
    { TOKENIZE | DETOKENIZE, "model", "string null", 0, 0, "may be left out if only one model is loaded",
      NULL },
    { BODY_LOAD, "id", "string", 1, MODEL_NAME_BYTES_MAX, "the model's name", NULL },
    { BODY_LOAD, "folder", "string", 1, 0, "of the checkpoint, on the server", NULL },
    { BODY_LOAD, "unload_first", "boolean null", 0, 0,
      "unload the old model before the new one is loaded, where memory has no room for two", NULL },
    { BODY_PRICE, "dollars_per_hour", "string null", 0, 0, "such as \"0.10\"; null: unknown", NULL },
    { GENERATING, "truncate_prompt_tokens", NULL, 0, 0,
      "keep only the last k tokens of the prompt, which are counted and billed; -1 keeps the model's context",
      put_truncation },
    { GENERATING, "stop", NULL, 0, 0, "the text ends before the first of these", put_stop },
    { GENERATING, "logit_bias", "object null", 0, 0, "tokens, and what is added to their logits",
      put_logit_bias },
};

static void put_property(struct json_writer *w, const struct property *p)
{
    bool is_text = p->types && strncmp(p->types, "string", 6) == 0;
    json_open_object(w, p->name);
    if (p->types)
        schema_put_types(w, p->types);
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

/* What may not be null may not be missing either. */
static void put_required(struct json_writer *w, enum body body)
{
    bool begun = false;
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++) {
        const struct property *p = &properties[i];
        if (!(p->bodies & body) || !p->types || strstr(p->types, "null"))
            continue;
        if (!begun)
            json_open_array(w, "required");
        begun = true;
        json_put_text(w, NULL, p->name);
    }
    if (begun)
        json_close(w);
}

void schema_put_body(struct json_writer *w, enum body body)
{
    json_open_object(w, "requestBody");
    json_put_bool(w, "required", true);
    json_open_object(w, "content");
    json_open_object(w, "application/json");
    json_open_object(w, "schema");
    schema_put_types(w, "object");
    json_open_object(w, "properties");
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++)
        if (properties[i].bodies & body)
            put_property(w, &properties[i]);
    json_close(w);
    put_required(w, body);
    json_close(w);
    json_close(w);
    json_close(w);
    json_close(w);
}

const char *schema_find(enum body body, const char *name, bool (*is_like)(const char *a, const char *b))
{
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++)
        if ((properties[i].bodies & body) && is_like(name, properties[i].name))
            return properties[i].name;
    return NULL;
}

static bool is_same(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

bool schema_has(enum body body, const char *name)
{
    return schema_find(body, name, is_same) != NULL;
}
