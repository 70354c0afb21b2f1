#include "unknown_fields.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "access_log.h"
#include "fail.h"
#include "service.h"

enum {
    GENERATING = BODY_GENERATE | BODY_COMPLETIONS,
    ADMIN = BODY_LOAD | BODY_PRICE,
    NAME_BYTES_MAX = 64, /* of a name that is quoted */
};

/* The values with which a field asks for what happens anyway; null always does. */
enum neutral {
    ONLY_NULL,
    OFF, /* false, 0, "", [] or {} */
    ONE, /* 1 too */
    ON,  /* true */
    TEXT_FORMAT,
    NO_TOOL,
};

static const struct refused {
    unsigned bodies;
    const char *name;
    enum neutral neutral;
} refused[] = {
    /* Forms that the answer must have. */
    { GENERATING, "response_format", TEXT_FORMAT },
    { GENERATING, "guided_json", OFF },
    { GENERATING, "guided_regex", OFF },
    { GENERATING, "guided_choice", OFF },
    { GENERATING, "guided_grammar", OFF },
    { GENERATING, "structured_outputs", OFF },
    { GENERATING, "grammar", OFF },
    { GENERATING, "json_schema", OFF },
    { GENERATING, "regex", OFF },
    { GENERATING, "ebnf", OFF },
    /* Chats and tools. */
    { GENERATING, "messages", OFF },
    { GENERATING, "input", OFF },
    { GENERATING, "tools", OFF },
    { GENERATING, "tool_choice", NO_TOOL },
    { GENERATING, "functions", OFF },
    { GENERATING, "function_call", NO_TOOL },
    { GENERATING, "modalities", OFF },
    { GENERATING, "images", OFF },
    { GENERATING, "image_data", OFF },
    /* Where the text begins and ends. */
    { GENERATING, "suffix", OFF },
    { GENERATING, "input_prefix", OFF },
    { GENERATING, "input_suffix", OFF },
    { GENERATING, "min_new_tokens", OFF },
    { GENERATING, "min_length", OFF },
    { GENERATING, "max_new_tokens", ONLY_NULL },
    { GENERATING, "max_completion_tokens", ONLY_NULL },
    { GENERATING, "max_length", ONLY_NULL },
    { GENERATING, "n_predict", ONLY_NULL },
    { GENERATING, "num_predict", ONLY_NULL },
    { GENERATING, "stop_sequences", OFF },
    { GENERATING, "stop_regex", OFF },
    { GENERATING, "include_stop_str_in_output", OFF },
    { GENERATING, "add_special_tokens", OFF },
    { GENERATING, "skip_special_tokens", ON },
    { GENERATING, "prompt_token_ids", OFF },
    { GENERATING, "prompt_embeds", OFF },
    { GENERATING, "inputs", OFF },
    /* Which tokens are chosen. */
    { GENERATING, "bad_words", OFF },
    { GENERATING, "allowed_token_ids", OFF },
    { GENERATING, "logits_processors", OFF },
    { GENERATING, "use_beam_search", OFF },
    { GENERATING, "num_beams", ONE },
    { GENERATING, "length_penalty", ONE },
    { GENERATING, "do_sample", ONLY_NULL },
    { GENERATING, "typical", ONE },
    { GENERATING, "repeat_penalty", ONE },
    { GENERATING, "repeat_last_n", ONLY_NULL },
    { GENERATING, "tfs_z", ONE },
    { GENERATING, "top_a", OFF },
    { GENERATING, "top_n_sigma", OFF },
    { GENERATING, "mirostat", OFF },
    { GENERATING, "dry_multiplier", OFF },
    { GENERATING, "xtc_probability", OFF },
    { GENERATING, "dynatemp_range", OFF },
    { GENERATING, "samplers", OFF },
    { GENERATING, "no_repeat_ngram_size", OFF },
    { GENERATING, "watermark", OFF },
    { GENERATING, "lora", OFF },
    { GENERATING, "adapter_id", OFF },
    /* What the answer reports. */
    { GENERATING, "top_logprobs", ONLY_NULL },
    { GENERATING, "n_probs", OFF },
    { GENERATING, "return_tokens_as_token_ids", OFF },
    { GENERATING, "return_token_ids", OFF },
    { GENERATING, "detokenize", ON },
    /* Fields of /v1/completions. */
    { BODY_GENERATE, "n", ONE },
    { BODY_GENERATE, "best_of", ONE },
    { BODY_GENERATE, "logprobs", ONLY_NULL },
    { BODY_GENERATE, "prompt_logprobs", ONLY_NULL },
    { BODY_GENERATE, "echo", ON }, /* the prompt is part of the text */
    { BODY_TOKENIZE, "add_special", OFF },
    { BODY_TOKENIZE, "add_special_tokens", OFF },
};

static bool is_off(const cJSON *value)
{
    return cJSON_IsFalse(value) || (cJSON_IsNumber(value) && value->valuedouble == 0) ||
           (cJSON_IsString(value) && !value->valuestring[0]) ||
           ((cJSON_IsArray(value) || cJSON_IsObject(value)) && !value->child);
}

static bool has_text(const cJSON *value, const char *text)
{
    return cJSON_IsString(value) && strcmp(value->valuestring, text) == 0;
}

static bool is_neutral(const cJSON *value, enum neutral neutral)
{
    switch (neutral) {
    case ONLY_NULL:
        return false;
    case OFF:
        return is_off(value);
    case ONE:
        return is_off(value) || (cJSON_IsNumber(value) && value->valuedouble == 1);
    case ON:
        return cJSON_IsTrue(value);
    case TEXT_FORMAT:
        return is_off(value) || has_text(json_member(value, "type"), "text");
    case NO_TOOL:
        return is_off(value) || has_text(value, "none") || has_text(value, "auto");
    }
    return false;
}

static const struct refused *find_refused(enum body body, const char *name)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if ((refused[i].bodies & body) && strcmp(refused[i].name, name) == 0)
            return &refused[i];
    return NULL;
}

/* Fields of other APIs that change no answer: the log may name them. */
static const char *const harmless[] = {
    "store",      "service_tier",      "prompt_cache_key", "prompt_cache_retention",
    "priority",   "request_id",        "cache_prompt",     "cache_salt",
    "id_slot",    "timings_per_token", "verbosity",        "return_full_text",
    "extra_body",
};

/* The least number of letters to change, add or leave out to make `b` of `a`, if that is at most `most`; else
 * more.  Names differ near their ends or in one place, so a plain search is short.  Recursion is bounded by
 * `most`. */
static unsigned edits(const char *a, const char *b, unsigned most) /* NOLINT(misc-no-recursion) */
{
    while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b))
        a++, b++;
    if (!*a && !*b)
        return 0;
    if (most == 0)
        return 1;
    unsigned least = most;
    if (*a && *b)
        least = edits(a + 1, b + 1, most - 1);
    if (*a) {
        unsigned without = edits(a + 1, b, most - 1);
        least = without < least ? without : least;
    }
    if (*b) {
        unsigned with = edits(a, b + 1, most - 1);
        least = with < least ? with : least;
    }
    return least + 1;
}

static bool is_like(const char *a, const char *b)
{
    return edits(a, b, 2) <= 2;
}

/* The known field that `name` is a misspelling of, or a field of other APIs; NULL: neither. */
static const char *resembling(enum body body, const char *name)
{
    const char *known = schema_find(body, name, is_like);
    for (size_t i = 0; !known && i < sizeof harmless / sizeof harmless[0]; i++)
        if (strcmp(harmless[i], name) == 0)
            known = harmless[i];
    return known;
}

/* A name is a client's text: one that does not look like a name could break the header. */
static const char *quotable(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= NAME_BYTES_MAX &&
                   strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n
               ? name
               : "?";
}

/* Adds to a list "a, b, ..." that has IGNORED_BYTES. */
static void add_name(char *list, const char *within, const char *name)
{
    static const char more[] = ", ...";
    size_t used = strlen(list), need = strlen(", ") + strlen(within) + strlen(name);
    if (used >= strlen(more) && strcmp(list + used - strlen(more), more) == 0)
        return;
    if (used + need + sizeof more > IGNORED_BYTES)
        snprintf(list + used, IGNORED_BYTES - used, "%s", more);
    else
        snprintf(list + used, IGNORED_BYTES - used, "%s%s%s", used ? ", " : "", within, name);
}

/* The client is told the name; the log has it only where it resembles one of ours, as a client can put
 * anything there, a prompt too. */
static void tell_ignored(struct exchange *x, enum body body, const char *within, const char *name)
{
    struct access *access = access_of(x);
    const char *quoted = quotable(name);
    if (!access->ignored[0])
        exchange_add_header(x, "x-ignored-fields", access->ignored);
    add_name(access->ignored, within, quoted);
    add_name(access->ignored_log, within, resembling(body, name) ? quoted : "?");
}

static enum cinf_status unknown(enum body body, const char *name)
{
    const char *meant = schema_find(body, name, is_like);
    return cinf_fail(CINF_EINVAL, "unknown field \"%s\"%s%s%s", quotable(name),
                     meant ? "; did you mean \"" : "", meant ? meant : " (see /openapi.json)",
                     meant ? "\"?" : "");
}

static enum cinf_status judge(struct fields *f, struct exchange *x, enum body body, const cJSON *value)
{
    const char *name = value->string;
    const struct refused *r = find_refused(body, name);
    f->param = name;
    if (r && !cJSON_IsNull(value) && !is_neutral(value, r->neutral))
        return cinf_fail(CINF_EUNSUPPORTED, "\"%s\" is not supported here, and the answer would ignore it",
                         name);
    if (r || schema_has(body, name))
        return CINF_OK;
    /* The model is named by the path. */
    if (body == BODY_GENERATE && strcmp(name, "model") == 0 && f->model) {
        if (cJSON_IsNull(value) || has_text(value, f->model->name))
            return CINF_OK;
        return cinf_fail(CINF_EINVAL, "\"model\" is not the model that the path names, %s", f->model->name);
    }
    if (service_of(x)->strict || (body & ADMIN))
        return unknown(body, name);
    tell_ignored(x, body, "", name);
    return CINF_OK;
}

/* stream_options has members of its own. */
static enum cinf_status judge_stream_options(struct fields *f, struct exchange *x)
{
    const cJSON *options = json_member(f->body, "stream_options"), *member;
    if (!cJSON_IsObject(options))
        return CINF_OK;
    cJSON_ArrayForEach(member, options)
    {
        if (strcmp(member->string, "include_usage") == 0)
            continue;
        f->param = "stream_options";
        if (service_of(x)->strict)
            return cinf_fail(CINF_EINVAL, "\"stream_options\" has an unknown field, \"%s\"",
                             quotable(member->string));
        tell_ignored(x, BODY_NONE, "stream_options.", member->string);
    }
    return CINF_OK;
}

enum cinf_status unknown_fields_judge(struct fields *f, struct exchange *x, enum body body)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, f->body) TRY(judge(f, x, body, member));
    if (body == BODY_COMPLETIONS)
        TRY(judge_stream_options(f, x));
    f->param = NULL;
    return CINF_OK;
}

static bool is_listed(const char *const *names, const char *name)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

enum cinf_status unknown_parameters_judge(struct fields *f, struct exchange *x, enum body body,
                                          const char *const *names)
{
    for (const char *pair = exchange_query_pairs(x); *pair; pair += strlen(pair) + 1) {
        char name[NAME_BYTES_MAX + 2]; /* one more than can be quoted */
        snprintf(name, sizeof name, "%.*s", (int)strcspn(pair, "="), pair);
        if (is_listed(names, name))
            continue;
        if (schema_has(body, name) || find_refused(body, name))
            return cinf_fail(CINF_EUNSUPPORTED, "\"%s\" is not read from the query; give it in the body",
                             name);
        if (service_of(x)->strict)
            return unknown(body, name);
        tell_ignored(x, body, "", name);
    }
    f->param = NULL;
    return CINF_OK;
}
