#include "fields.h"

#include <inttypes.h>
#include <limits.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <costinfer/costinfer.h>

#include "fail.h"
#include "mem.h"
#include "problem.h"

enum { BODY_DEPTH_MAX = 8 };

void fields_init(struct fields *f, const cJSON *body, const struct cinf_model_info *model)
{
    *f = (struct fields){ .body = body, .model = model, .options = { CINF_REQUEST_OPTIONS } };
}

void fields_free(struct fields *f)
{
    mem_free(f->biases);
    f->biases = NULL;
    mem_free(f->stop_ids);
    f->stop_ids = NULL;
    for (size_t i = 0; i < f->n_encoded; i++)
        cinf_ids_free(f->encoded[i]);
    mem_free(f->encoded);
    f->encoded = NULL;
    f->n_encoded = f->cap_encoded = 0;
}

enum cinf_status field_int(struct fields *f, const char *key, int64_t low, int64_t high, int64_t *value)
{
    f->param = key;
    return json_read_int(value, f->body, key, low, high);
}

enum cinf_status field_number(struct fields *f, const char *key, double low, double high, float *value)
{
    double number = *value;
    f->param = key;
    TRY(json_read_double(&number, f->body, key, low, high));
    *value = (float)number;
    return CINF_OK;
}

enum cinf_status field_bool(struct fields *f, const char *key, bool *value)
{
    f->param = key;
    return json_read_bool(value, f->body, key);
}

enum cinf_status field_text(struct fields *f, const char *key, const char **value)
{
    f->param = key;
    return json_read_text(value, f->body, key);
}

/* ---- Sampling ----------------------------------------------------------------------------- */

static enum cinf_status add_stop(struct fields *f, const cJSON *value)
{
    const char *text = cJSON_IsString(value) ? value->valuestring : "";
    size_t n = strlen(text);
    if (n == 0 || n > CINF_STOP_BYTES_MAX || f->options.n_stop == STOPS_MAX)
        return cinf_fail(CINF_EINVAL, "\"stop\" must be a string of 1 to %d bytes, or an array of at most %d",
                         CINF_STOP_BYTES_MAX, STOPS_MAX);
    f->stops[f->options.n_stop++] = text;
    return CINF_OK;
}

static enum cinf_status read_stop(struct fields *f)
{
    const cJSON *stop = json_member(f->body, "stop"), *element;
    f->param = "stop";
    if (cJSON_IsArray(stop)) {
        cJSON_ArrayForEach(element, stop) TRY(add_stop(f, element));
    } else if (stop) {
        TRY(add_stop(f, stop));
    }
    f->options.stop = f->stops;
    return CINF_OK;
}

enum cinf_status fields_need_text(const struct fields *f, const struct cinf_model *model)
{
    if (cinf_model_tokenizer(model))
        return CINF_OK;
    return cinf_fail(
        CINF_EUNSUPPORTED,
        "model %s has no tokenizer (tokenizer.json, or vocab.json and merges.txt, in its folder): it "
        "takes and gives token ids, at /v1/completions",
        f->model->name);
}

enum cinf_status fields_token(struct fields *f, const cJSON *value, int32_t *id)
{
    double number = cJSON_IsNumber(value) ? value->valuedouble : -1;
    if (!(number >= 0 && number < f->model->config.vocab_size) || number != (double)(int32_t)number)
        return cinf_fail(CINF_EINVAL, "\"%s\" has a token that is not an integer from 0 to %" PRIu32,
                         f->param, f->model->config.vocab_size - 1);
    *id = (int32_t)number;
    return CINF_OK;
}

static enum cinf_status add_bias(struct fields *f, const cJSON *entry)
{
    struct cinf_logit_bias *bias = &f->biases[f->options.n_logit_bias];
    char *end;
    const char *key = entry->string;
    unsigned long id =
        key[0] >= '0' && key[0] <= '9' && strlen(key) < 11 ? strtoul(key, &end, 10) : ULONG_MAX;
    if (id >= f->model->config.vocab_size || *end)
        return cinf_fail(CINF_EINVAL, "a key of \"logit_bias\" is not a token from 0 to %" PRIu32,
                         f->model->config.vocab_size - 1);
    if (!cJSON_IsNumber(entry) || !(entry->valuedouble >= -100 && entry->valuedouble <= 100))
        return cinf_fail(CINF_EINVAL, "a value of \"logit_bias\" is not a number from -100 to 100");
    *bias = (struct cinf_logit_bias){ .token = (int32_t)id, .bias = (float)entry->valuedouble };
    f->options.n_logit_bias++;
    return CINF_OK;
}

static enum cinf_status read_logit_bias(struct fields *f)
{
    const cJSON *bias = json_member(f->body, "logit_bias"), *entry;
    f->param = "logit_bias";
    if (!bias)
        return CINF_OK;
    int n = cJSON_IsObject(bias) ? cJSON_GetArraySize(bias) : -1;
    if (n < 0 || n > LOGIT_BIASES_MAX)
        return cinf_fail(CINF_EINVAL, "\"logit_bias\" must be an object of at most %d tokens",
                         LOGIT_BIASES_MAX);
    f->biases = mem_new((size_t)n, sizeof *f->biases);
    if (!f->biases)
        return cinf_fail(CINF_ENOMEM, "no memory for %d logit biases", n);
    cJSON_ArrayForEach(entry, bias) TRY(add_bias(f, entry));
    f->options.logit_bias = f->biases;
    return CINF_OK;
}

static enum cinf_status read_stop_ids(struct fields *f)
{
    const cJSON *ids = json_member(f->body, "stop_token_ids"), *id;
    f->param = "stop_token_ids";
    if (!ids)
        return CINF_OK;
    int n = cJSON_IsArray(ids) ? cJSON_GetArraySize(ids) : -1;
    if (n < 0 || n > STOP_IDS_MAX)
        return cinf_fail(CINF_EINVAL, "\"stop_token_ids\" must be an array of at most %d tokens",
                         STOP_IDS_MAX);
    f->stop_ids = mem_new((size_t)n, sizeof *f->stop_ids);
    if (!f->stop_ids)
        return cinf_fail(CINF_ENOMEM, "no memory for %d tokens", n);
    cJSON_ArrayForEach(id, ids) TRY(fields_token(f, id, &f->stop_ids[f->options.n_stop_token_ids++]));
    f->options.stop_token_ids = f->stop_ids;
    return CINF_OK;
}

static enum cinf_status read_min_tokens(struct fields *f)
{
    int64_t n = 0;
    TRY(field_int(f, "min_tokens", 0, MAX_TOKENS_MAX, &n));
    f->options.min_tokens = (uint32_t)n;
    return CINF_OK;
}

/* The engine takes 0 for "draw one at random"; to a client 0 is a seed like any other. */
static enum cinf_status read_seed(struct fields *f)
{
    const uint64_t zero = UINT64_C(0x9E3779B97F4A7C15);
    int64_t seed = 0;
    TRY(field_int(f, "seed", INT64_MIN, INT64_MAX, &seed));
    if (json_member(f->body, "seed"))
        f->options.seed = seed ? (uint64_t)seed : zero;
    return CINF_OK;
}

enum cinf_status fields_sampling(struct fields *f)
{
    struct cinf_request_options *o = &f->options;
    int64_t top_k = 0;
    bool parse_special = false;
    TRY(field_number(f, "temperature", 0, 2, &o->temperature));
    TRY(field_number(f, "top_p", 0, 1, &o->top_p));
    /* A client that sends 0 wants the most likely token alone; the engine takes 0 for "off". */
    if (json_member(f->body, "top_p") && o->top_p == 0)
        o->top_p = FLT_MIN;
    TRY(field_number(f, "min_p", 0, 1, &o->min_p));
    TRY(field_number(f, "typical_p", 0, 1, &o->typical_p));
    TRY(field_number(f, "presence_penalty", -2, 2, &o->presence_penalty));
    TRY(field_number(f, "frequency_penalty", -2, 2, &o->frequency_penalty));
    TRY(field_number(f, "repetition_penalty", 0.01, 100, &o->repetition_penalty));
    TRY(field_int(f, "top_k", -1, MAX_TOKENS_MAX, &top_k));
    o->top_k = top_k > 0 ? (uint32_t)top_k : 0;
    TRY(field_bool(f, "ignore_eos", &o->ignore_eos));
    TRY(field_bool(f, "parse_special", &parse_special));
    o->tokenize_flags = parse_special ? CINF_TOKENIZE_SPECIAL : 0;
    TRY(read_seed(f));
    TRY(read_stop(f));
    TRY(read_stop_ids(f));
    TRY(read_min_tokens(f));
    return read_logit_bias(f);
}

/* ---- Truncation --------------------------------------------------------------------------- */

enum cinf_status fields_truncation(struct fields *f, uint32_t *keep)
{
    uint32_t positions = f->model->config.n_positions;
    int64_t n = 0;
    TRY(field_int(f, "truncate_prompt_tokens", -1, positions, &n));
    if (n == 0 && json_member(f->body, "truncate_prompt_tokens"))
        return cinf_fail(CINF_EINVAL,
                         "\"truncate_prompt_tokens\" must be an integer from 1 to %" PRIu32
                         ", or -1 for as many as the model takes",
                         positions);
    *keep = n < 0 ? positions : (uint32_t)n;
    return CINF_OK;
}

/* The fields own the ids. */
static enum cinf_status encode(struct fields *f, const struct cinf_model *model,
                               const struct cinf_request_options *o, int32_t **ids, size_t *n)
{
    if (!mem_reserve(&f->encoded, &f->cap_encoded, f->n_encoded + 1, sizeof *f->encoded))
        return cinf_fail(CINF_ENOMEM, "no memory for the request");
    TRY(cinf_tokenizer_encode(cinf_model_tokenizer(model), o->prompt, strlen(o->prompt), o->tokenize_flags,
                              ids, n));
    f->encoded[f->n_encoded++] = *ids;
    return CINF_OK;
}

enum cinf_status fields_truncate(struct fields *f, const struct cinf_model *model, uint32_t keep,
                                 struct cinf_request_options *o)
{
    const int32_t *ids = o->prompt_ids;
    size_t n = o->n_prompt_ids;
    if (keep == 0)
        return CINF_OK;
    if (!ids) {
        int32_t *encoded;
        TRY(encode(f, model, o, &encoded, &n));
        ids = encoded;
    }
    if (n <= keep)
        return CINF_OK;
    o->prompt = NULL;
    o->prompt_ids = ids + n - keep;
    o->n_prompt_ids = keep;
    return CINF_OK;
}

/* ---- Notes -------------------------------------------------------------------------------- */

static const char *short_text(const cJSON *value, size_t max)
{
    return cJSON_IsString(value) && strlen(value->valuestring) <= max ? value->valuestring : NULL;
}

static void read_tags(struct fields *f)
{
    const cJSON *metadata = json_member(f->body, "metadata"), *tag;
    if (!cJSON_IsObject(metadata))
        return;
    cJSON_ArrayForEach(tag, metadata)
    {
        const char *value = short_text(tag, CINF_TAG_VALUE_MAX);
        if (value && strlen(tag->string) <= CINF_TAG_NAME_MAX && f->note.n_tags < CINF_TAGS_MAX)
            f->tags[f->note.n_tags++] = (struct cinf_tag){ .name = tag->string, .value = value };
    }
}

void fields_note(struct fields *f, const char *request_id)
{
    const cJSON *user = json_member(f->body, "safety_identifier");
    f->note = (struct cinf_note){ CINF_NOTE, .id = request_id, .tags = f->tags };
    f->note.user = short_text(user ? user : json_member(f->body, "user"), CINF_NOTE_TEXT_MAX);
    read_tags(f);
    f->options.note = &f->note;
}

/* ---- Bodies ------------------------------------------------------------------------------- */

static bool is_json(const char *content_type)
{
    static const char json[] = "application/json";
    size_t n = sizeof json - 1;
    return content_type && strncasecmp(content_type, json, n) == 0 &&
           (content_type[n] == '\0' || strchr("; \t", content_type[n]));
}

cJSON *fields_body(struct exchange *x, bool may_be_empty)
{
    static const struct json_limits limits = { .depth_max = BODY_DEPTH_MAX, .members_max = LOGIT_BIASES_MAX };
    size_t n;
    cJSON *tree;
    const char *text = exchange_body(x, &n);
    bool empty = n == 0 && may_be_empty;
    /* Any web page can make a browser post a form to us; for JSON the browser first asks us, and we do not
     * consent.  Empty bodies need no type, unless they come from a page. */
    if (!is_json(exchange_header(x, "Content-Type")) && (!empty || exchange_header(x, "Origin"))) {
        problem_content_type(x);
        return NULL;
    }
    enum cinf_status status = json_parse(&tree, empty ? "{}" : text, empty ? 2 : n, &limits);
    if (status == CINF_OK && !cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        status = cinf_fail(CINF_EFORMAT, "the body is not a JSON object");
    }
    if (status != CINF_OK) {
        problem_answer(x, status, NULL, NO_ACCOUNT);
        return NULL;
    }
    return tree;
}
