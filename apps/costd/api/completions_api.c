/* completions_api.c - POST /v1/completions: OpenAI's legacy completions, whole and as a stream.
 *
 * A body may hold several prompts and ask for n choices of each; each prompt is one request to the engine,
 * and choice c of prompt p has index p * n + c.  What a choice has to say is collected in struct choice:
 * until the end, or until the next chunk of a stream. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <costinfer/costinfer.h>

#include "fail.h"
#include "fields.h"
#include "handlers.h"
#include "generation.h"
#include "mem.h"
#include "problem.h"
#include "report.h"
#include "unknown_fields.h"
#include "utf8.h"

enum { MAX_TOKENS_DEFAULT = 16 };

/* A token with what is said of it. */
struct scored_token {
    int32_t id;
    float logprob;   /* NaN: unknown, as for a prompt's first token */
    uint64_t offset; /* characters of text before it */
    uint32_t rank;   /* of a prompt's token */
    uint32_t n_top;
    struct cinf_logprob top[CINF_TOP_LOGPROBS_MAX]; /* most likely first */
};

/* A prompt, with its tokens where prompt_logprobs asks for them. */
struct prompt {
    bool is_seen;
    struct scored_token *scored; /* [n_scored] */
    size_t n_scored, cap_scored;
};

struct choice {
    struct strbuf text;
    struct scored_token *scored; /* [n_scored] */
    size_t n_scored, cap_scored;
    int32_t *ids; /* [n_ids] where the model has no tokenizer */
    size_t n_ids, cap_ids;
    struct cinf_decoder decoder; /* for offsets: decodes the tokens so far */
    uint64_t n_characters;       /* from the beginning of the prompt */
    double logprob_sum;          /* of its n_tokens tokens, for best_of */
    uint32_t n_tokens;
    bool chosen;
    enum cinf_finish finish;
    bool said_finish;
};

struct completion {
    struct cinf_model *model;
    enum cinf_kv kv;
    char id[48];
    int64_t created;
    bool stream, include_usage, echo, logprobs, prompt_logprobs;
    uint32_t n_top, n_prompt_top; /* of the most likely tokens, for logprobs and prompt_logprobs */
    uint32_t keep;                /* of a prompt's tokens, the last; 0: all */
    uint32_t n;                   /* choices of a prompt (best_of) */
    uint32_t n_answered;          /* the best of these */
    uint32_t n_choices;           /* of all */
    struct prompt *prompts;       /* [n_choices / n] */
    struct choice *choices;       /* [n_choices] */
};

/* ---- Log-probabilities -------------------------------------------------------------------- */

static uint64_t count_characters(const char *text, size_t n)
{
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

/* Counts the characters that this token completes.  They are decoded separately, because an event's text may
 * lag behind its token. */
static uint64_t characters_of(struct choice *c, const struct cinf_tokenizer *tokenizer, int32_t id)
{
    size_t n;
    if (!tokenizer || !cinf_tokenizer_token(tokenizer, id, &n))
        return 0;
    char *text = mem_new(CINF_DECODER_TEXT_MAX(n), 1);
    uint64_t count = 0;
    if (text && cinf_decoder_push(&c->decoder, tokenizer, id, text, &n) == CINF_OK)
        count = count_characters(text, n);
    else
        c->text.failed = true;
    mem_free(text);
    return count;
}

static struct scored_token scored(const struct cinf_event *event, uint64_t offset)
{
    struct scored_token t = { .id = event->token,
                              .logprob = event->logprob,
                              .offset = offset,
                              .rank = event->rank,
                              .n_top = event->n_top };
    assert(event->n_top <= CINF_TOP_LOGPROBS_MAX);
    if (event->n_top)
        memcpy(t.top, event->top, event->n_top * sizeof *t.top);
    return t;
}

static bool add_prompt_logprob(struct prompt *p, const struct cinf_event *event)
{
    if (!mem_reserve(&p->scored, &p->cap_scored, p->n_scored + 1, sizeof *p->scored))
        return false;
    p->scored[p->n_scored++] = scored(event, 0);
    return true;
}

static void add_logprob(struct choice *c, const struct cinf_tokenizer *tokenizer,
                        const struct cinf_event *event)
{
    if (!mem_reserve(&c->scored, &c->cap_scored, c->n_scored + 1, sizeof *c->scored)) {
        c->text.failed = true;
        return;
    }
    c->scored[c->n_scored++] = scored(event, c->n_characters);
    c->n_characters += characters_of(c, tokenizer, event->token);
}

/* A token's bytes are often not UTF-8 on their own; such ones are spelt so that different tokens stay
 * different keys. */
static void spell_token(struct json_writer *w, struct strbuf *text, const struct cinf_tokenizer *tokenizer,
                        int32_t id)
{
    size_t n;
    const char *piece = tokenizer ? cinf_tokenizer_token(tokenizer, id, &n) : NULL;
    strbuf_clear(text);
    if (!tokenizer) {
        strbuf_printf(text, "token_id:%" PRId32, id);
    } else if (piece && utf8_valid(piece, n)) {
        strbuf_add(text, piece, n);
    } else {
        strbuf_puts(text, "bytes:");
        for (size_t i = 0; piece && i < n; i++)
            strbuf_printf(text, "\\x%02x", (unsigned char)piece[i]);
    }
    w->out->failed = w->out->failed || text->failed;
}

static void put_logprob(struct json_writer *w, const char *key, float logprob)
{
    if (isnan(logprob))
        json_put_null(w, key);
    else
        json_put_format(w, key, "%.9g", isinf(logprob) ? -9999.0 : (double)logprob);
}

static void put_top_logprob(struct json_writer *w, struct strbuf *spelt,
                            const struct cinf_tokenizer *tokenizer, struct cinf_logprob top)
{
    spell_token(w, spelt, tokenizer, top.token);
    put_logprob(w, spelt->failed ? "" : spelt->text, top.logprob);
}

/* The most likely tokens, and the one that was chosen where it is not among them. */
static void put_top(struct json_writer *w, struct strbuf *spelt, const struct cinf_tokenizer *tokenizer,
                    const struct scored_token *t, uint32_t n_top)
{
    bool listed = false;
    if (isnan(t->logprob)) {
        json_put_null(w, NULL);
        return;
    }
    json_open_object(w, NULL);
    for (uint32_t i = 0; i < t->n_top && i < n_top; i++) {
        listed = listed || t->top[i].token == t->id;
        put_top_logprob(w, spelt, tokenizer, t->top[i]);
    }
    if (!listed)
        put_top_logprob(w, spelt, tokenizer, (struct cinf_logprob){ .token = t->id, .logprob = t->logprob });
    json_close(w);
}

static void put_logprobs(struct json_writer *w, const struct completion *c, const struct choice *choice)
{
    struct strbuf spelt = { 0 };
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(c->model);
    if (!c->logprobs) {
        json_put_null(w, "logprobs");
        return;
    }
    json_open_object(w, "logprobs");
    json_open_array(w, "tokens");
    for (size_t i = 0; i < choice->n_scored; i++) {
        spell_token(w, &spelt, tokenizer, choice->scored[i].id);
        json_put_bytes(w, NULL, spelt.text, spelt.len);
    }
    json_close(w);
    json_open_array(w, "token_logprobs");
    for (size_t i = 0; i < choice->n_scored; i++)
        put_logprob(w, NULL, choice->scored[i].logprob);
    json_close(w);
    json_open_array(w, "top_logprobs");
    for (size_t i = 0; i < choice->n_scored; i++)
        put_top(w, &spelt, tokenizer, &choice->scored[i], c->n_top);
    json_close(w);
    json_open_array(w, "text_offset");
    for (size_t i = 0; i < choice->n_scored; i++)
        json_put_u64(w, NULL, choice->scored[i].offset);
    json_close(w);
    json_close(w);
    strbuf_free(&spelt);
}

/* "id": {"logprob": …, "rank": …, "decoded_token": …} */
static void put_ranked(struct json_writer *w, const struct cinf_tokenizer *tokenizer,
                       struct cinf_logprob token, uint32_t rank)
{
    char id[16];
    size_t n;
    const char *piece = tokenizer ? cinf_tokenizer_token(tokenizer, token.token, &n) : NULL;
    snprintf(id, sizeof id, "%" PRId32, token.token);
    json_open_object(w, id);
    put_logprob(w, "logprob", token.logprob);
    json_put_u64(w, "rank", rank);
    if (piece)
        json_put_bytes(w, "decoded_token", piece, n);
    else
        json_put_null(w, "decoded_token");
    json_close(w);
}

/* In vLLM's shape: null for the first token, then each token and the most likely ones at its place. */
static void put_prompt_logprobs(struct json_writer *w, const struct completion *c, const struct prompt *p)
{
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(c->model);
    json_open_array(w, "prompt_logprobs");
    for (size_t i = 0; i < p->n_scored; i++) {
        const struct scored_token *t = &p->scored[i];
        if (t->rank == 0) {
            json_put_null(w, NULL);
            continue;
        }
        json_open_object(w, NULL);
        put_ranked(w, tokenizer, (struct cinf_logprob){ .token = t->id, .logprob = t->logprob }, t->rank);
        for (uint32_t k = 0; k < t->n_top && k < c->n_prompt_top; k++)
            if (t->top[k].token != t->id)
                put_ranked(w, tokenizer, t->top[k], k + 1);
        json_close(w);
    }
    json_close(w);
}

/* ---- The object --------------------------------------------------------------------------- */

static void put_head(struct json_writer *w, const struct completion *c)
{
    struct cinf_model_info info = { CINF_MODEL_INFO };
    char fingerprint[96];
    cinf_model_info(c->model, &info);
    /* With the same fingerprint and the same seed the answer is the same. */
    snprintf(fingerprint, sizeof fingerprint, "costinfer-%s-%s%s", cinf_version(),
             cinf_weights_name(info.weights), c->kv == CINF_KV_F16 ? "-kv-f16" : "");
    json_put_text(w, "id", c->id);
    json_put_text(w, "object", "text_completion");
    json_put_i64(w, "created", c->created);
    json_put_text(w, "model", info.name);
    json_put_text(w, "system_fingerprint", fingerprint);
}

static void put_choice(struct json_writer *w, const struct completion *c, const struct choice *choice,
                       uint32_t index)
{
    json_open_object(w, NULL);
    json_put_bytes(w, "text", choice->text.text, choice->text.len);
    if (!cinf_model_tokenizer(c->model)) {
        json_open_array(w, "token_ids");
        for (size_t i = 0; i < choice->n_ids; i++)
            json_put_i64(w, NULL, choice->ids[i]);
        json_close(w);
    }
    json_put_u64(w, "index", index);
    put_logprobs(w, c, choice);
    if (c->prompt_logprobs)
        put_prompt_logprobs(w, c, &c->prompts[index / c->n_answered]);
    json_put_text(w, "finish_reason", choice->finish ? cinf_finish_name(choice->finish) : NULL);
    json_close(w);
    w->out->failed = w->out->failed || choice->text.failed;
}

static void put_usage(struct json_writer *w, const struct generation *generation)
{
    struct cinf_report r;
    generation_report(generation, &r);
    json_open_object(w, "usage");
    json_put_u64(w, "prompt_tokens", r.input_tokens);
    json_put_u64(w, "completion_tokens", r.output_tokens);
    json_put_u64(w, "total_tokens", (uint64_t)r.input_tokens + r.output_tokens);
    json_open_object(w, "prompt_tokens_details");
    REPORT_WRITE(w, &r, REPORT_CACHED_TOKENS);
    json_close(w);
    json_close(w);
    json_open_object(w, "cost");
    report_write_cost(w, "dollars", &r);
    REPORT_WRITE(w, &r, REPORT_LATENCY_SECONDS, REPORT_USE);
    json_close(w);
}

/* ---- Streams ------------------------------------------------------------------------------ */

/* Appends what the choice has collected, if anything. */
static void put_chunk(struct strbuf *out, const struct completion *c, uint32_t index)
{
    struct choice *choice = &c->choices[index];
    bool finishes = choice->finish && !choice->said_finish;
    if (choice->text.len == 0 && choice->n_scored == 0 && choice->n_ids == 0 && !finishes)
        return;
    choice->said_finish = choice->finish != 0;
    struct json_writer w = json_write_to(out);
    strbuf_puts(out, "data: ");
    json_open_object(&w, NULL);
    put_head(&w, c);
    json_open_array(&w, "choices");
    put_choice(&w, c, choice, index);
    json_close(&w);
    if (c->include_usage)
        json_put_null(&w, "usage");
    json_close(&w);
    strbuf_puts(out, "\n\n");
    strbuf_clear(&choice->text);
    choice->n_scored = choice->n_ids = 0;
}

static void end_stream(struct strbuf *out, const struct completion *c, const struct generation *generation)
{
    if (c->include_usage) {
        struct json_writer w = json_write_to(out);
        strbuf_puts(out, "data: ");
        json_open_object(&w, NULL);
        put_head(&w, c);
        json_open_array(&w, "choices");
        json_close(&w);
        put_usage(&w, generation);
        json_close(&w);
        strbuf_puts(out, "\n\n");
    }
    strbuf_puts(out, "data: [DONE]\n\n");
}

/* ---- Events ------------------------------------------------------------------------------- */

/* Without a tokenizer the ids are the answer. */
static void add_id(struct choice *choice, int32_t id)
{
    if (mem_reserve(&choice->ids, &choice->cap_ids, choice->n_ids + 1, sizeof *choice->ids))
        choice->ids[choice->n_ids++] = id;
    else
        choice->text.failed = true;
}

/* The token that stands for an empty prompt is not part of any text. */
static bool is_empty(const int32_t *ids, uint32_t n_ids, const struct cinf_tokenizer *tokenizer)
{
    return tokenizer && n_ids == 1 && ids[0] == cinf_tokenizer_end_of_text(tokenizer);
}

/* Called at a prompt's first event: offsets count from the prompt's text, and echo repeats it. */
static void begin_prompt(struct completion *c, const struct generation *generation, uint32_t prompt)
{
    uint32_t n_ids;
    size_t n = 0;
    char *text = NULL;
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(c->model);
    const int32_t *ids = cinf_request_prompt(generation_request(generation, prompt), &n_ids);
    c->prompts[prompt].is_seen = true;
    if (!tokenizer) {
        for (uint32_t i = prompt * c->n; c->echo && i < (prompt + 1) * c->n; i++)
            for (uint32_t t = 0; t < n_ids; t++)
                add_id(&c->choices[i], ids[t]);
        return;
    }
    if ((!c->echo && !c->logprobs) || is_empty(ids, n_ids, tokenizer))
        return;
    bool failed = cinf_tokenizer_decode(tokenizer, ids, n_ids, &text, &n) != CINF_OK;
    for (uint32_t i = prompt * c->n; i < (prompt + 1) * c->n; i++) {
        /* With logprobs the prompt's own tokens follow as events, and count themselves. */
        if (failed)
            c->choices[i].text.failed = true;
        else if (!c->echo)
            c->choices[i].n_characters = count_characters(text, n);
        else
            strbuf_add(&c->choices[i].text, text, n);
    }
    cinf_text_free(text);
}

static void on_event(void *api, const struct generation *generation, uint32_t prompt,
                     const struct cinf_event *event, struct strbuf *out)
{
    struct completion *c = api;
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(c->model);
    if (!c->prompts[prompt].is_seen)
        begin_prompt(c, generation, prompt);
    if (event->kind == CINF_EVENT_PROMPT) {
        uint32_t n_ids;
        const int32_t *ids = cinf_request_prompt(generation_request(generation, prompt), &n_ids);
        if (c->prompt_logprobs && !add_prompt_logprob(&c->prompts[prompt], event))
            c->choices[(size_t)prompt * c->n].text.failed = true;
        if (!c->logprobs || !c->echo)
            return;
        for (uint32_t i = prompt * c->n; i < (prompt + 1) * c->n; i++) {
            add_logprob(&c->choices[i], tokenizer, event);
            if (is_empty(ids, n_ids, tokenizer))
                c->choices[i].n_characters = 0;
        }
        return;
    }
    uint32_t index = prompt * c->n + event->choice;
    struct choice *choice = &c->choices[index];
    strbuf_add(&choice->text, event->text, event->text_bytes);
    if (event->kind == CINF_EVENT_TOKEN && !tokenizer)
        add_id(choice, event->token);
    if (event->kind == CINF_EVENT_TOKEN && c->logprobs)
        add_logprob(choice, tokenizer, event);
    if (event->kind == CINF_EVENT_TOKEN) {
        choice->logprob_sum += (double)event->logprob; /* not a number, and not used, without best_of */
        choice->n_tokens++;
    }
    if (event->kind == CINF_EVENT_FINISH)
        choice->finish = event->finish;
    if (c->stream)
        put_chunk(out, c, index);
}

static double mean_logprob(const struct choice *choice)
{
    return choice->n_tokens ? choice->logprob_sum / choice->n_tokens : -INFINITY;
}

/* Takes the best of a prompt's choices that is left: the one with the highest mean log-probability of a
 * token, the first of equals. */
static struct choice *next_best(const struct completion *c, uint32_t prompt)
{
    struct choice *best = NULL;
    for (uint32_t i = prompt * c->n; i < (prompt + 1) * c->n; i++) {
        struct choice *choice = &c->choices[i];
        if (choice->chosen)
            continue;
        if (!best || (c->n_answered < c->n && mean_logprob(choice) > mean_logprob(best)))
            best = choice;
    }
    assert(best); /* asked no more often than there are choices */
    best->chosen = true;
    return best;
}

static void on_end(void *api, const struct generation *generation, struct strbuf *out)
{
    struct completion *c = api;
    if (c->stream) {
        end_stream(out, c, generation);
        return;
    }
    struct json_writer w = json_write_to(out);
    json_open_object(&w, NULL);
    put_head(&w, c);
    json_open_array(&w, "choices");
    for (uint32_t i = 0; i < c->n_choices / c->n * c->n_answered; i++)
        put_choice(&w, c, next_best(c, i / c->n_answered), i);
    json_close(&w);
    put_usage(&w, generation);
    json_close(&w);
}

static void free_completion(void *api)
{
    struct completion *c = api;
    for (uint32_t i = 0; i < c->n_choices / c->n; i++)
        mem_free(c->prompts[i].scored);
    for (uint32_t i = 0; i < c->n_choices; i++) {
        strbuf_free(&c->choices[i].text);
        mem_free(c->choices[i].scored);
        mem_free(c->choices[i].ids);
    }
    cinf_model_release(c->model);
    mem_free(c->choices);
    mem_free(c->prompts);
    mem_free(c);
}

static const struct generation_format format = { on_event, on_end, free_completion };

/* ---- Prompts ------------------------------------------------------------------------------ */

struct prompts {
    struct cinf_request_options *options; /* [n] */
    uint32_t n;
    int32_t *ids; /* of all prompts that are given as ids, one after the other */
    size_t n_ids;
};

static bool is_array_of(const cJSON *value, cJSON_bool (*is_kind)(const cJSON *))
{
    const cJSON *element;
    if (!cJSON_IsArray(value) || !value->child)
        return false;
    cJSON_ArrayForEach(element, value)
    {
        if (!is_kind(element))
            return false;
    }
    return true;
}

static enum cinf_status prompt_of_ids(struct prompts *p, struct fields *f, const cJSON *tokens)
{
    struct cinf_request_options *o = &p->options[p->n++];
    const cJSON *token;
    o->prompt_ids = p->ids + p->n_ids;
    cJSON_ArrayForEach(token, tokens)
    {
        TRY(fields_token(f, token, &p->ids[p->n_ids++]));
        o->n_prompt_ids++;
    }
    return CINF_OK;
}

static enum cinf_status read_prompt(struct prompts *p, struct fields *f, const cJSON *prompt)
{
    const cJSON *element;
    if (cJSON_IsString(prompt)) {
        p->options[p->n++].prompt = prompt->valuestring;
        return CINF_OK;
    }
    if (is_array_of(prompt, cJSON_IsNumber))
        return prompt_of_ids(p, f, prompt);
    cJSON_ArrayForEach(element, prompt)
    {
        if (cJSON_IsString(element))
            p->options[p->n++].prompt = element->valuestring;
        else
            TRY(prompt_of_ids(p, f, element));
    }
    return CINF_OK;
}

/* Checks the prompts' type and allocates room for them. */
static enum cinf_status prepare_prompts(struct prompts *p, const cJSON *prompt, uint32_t n_choices)
{
    const cJSON *element;
    size_t n = 1, n_ids = 0;
    if (!prompt)
        return cinf_fail(CINF_EINVAL, "\"prompt\" is missing");
    if (is_array_of(prompt, cJSON_IsNumber)) {
        n_ids = (size_t)cJSON_GetArraySize(prompt);
    } else if (is_array_of(prompt, cJSON_IsString) || is_array_of(prompt, cJSON_IsArray)) {
        n = (size_t)cJSON_GetArraySize(prompt);
        cJSON_ArrayForEach(element, prompt) n_ids += (size_t)cJSON_GetArraySize(element);
    } else if (!cJSON_IsString(prompt)) {
        return cinf_fail(
            CINF_EINVAL,
            "\"prompt\" must be a string, an array of strings, tokens, or an array of token arrays");
    }
    if (n * n_choices > CHOICES_MAX)
        return cinf_fail(CINF_EINVAL, "%zu prompts of %u choices each; there may be %d choices", n, n_choices,
                         CHOICES_MAX);
    p->options = mem_new(n, sizeof *p->options);
    p->ids = mem_new(n_ids, sizeof *p->ids);
    return p->options && p->ids ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for %zu prompts", n);
}

static enum cinf_status read_prompts(struct prompts *p, struct fields *f, const struct completion *c)
{
    const cJSON *prompt = json_member(f->body, "prompt");
    f->param = "prompt";
    TRY(prepare_prompts(p, prompt, c->n));
    TRY(read_prompt(p, f, prompt));
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->options[i].prompt)
            TRY(fields_need_text(f, c->model));
        struct cinf_request_options o = f->options;
        o.prompt = p->options[i].prompt;
        o.prompt_ids = p->options[i].prompt_ids;
        o.n_prompt_ids = p->options[i].n_prompt_ids;
        TRY(fields_truncate(f, c->model, c->keep, &o));
        p->options[i] = o;
    }
    return CINF_OK;
}

/* ---- Reading ------------------------------------------------------------------------------ */

static enum cinf_status read_choices(struct fields *f, struct completion *c)
{
    int64_t n = 1;
    TRY(field_int(f, "n", 1, CHOICES_MAX, &n));
    int64_t best_of = n;
    TRY(field_int(f, "best_of", 1, CHOICES_MAX, &best_of));
    if (best_of < n)
        return cinf_fail(CINF_EINVAL, "\"best_of\" is less than \"n\"");
    if (best_of > n && c->stream)
        return cinf_fail(CINF_EINVAL, "\"best_of\" cannot be streamed: which is best is known at the end");
    c->n = f->options.n = (uint32_t)best_of;
    c->n_answered = (uint32_t)n;
    return CINF_OK;
}

static enum cinf_status read_stream(struct fields *f, struct completion *c)
{
    TRY(field_bool(f, "stream", &c->stream));
    const cJSON *given = json_member(f->body, "stream_options");
    f->param = "stream_options";
    if (!given)
        return CINF_OK;
    if (!cJSON_IsObject(given) || !c->stream)
        return cinf_fail(CINF_EINVAL, "\"stream_options\" must be an object, and needs \"stream\": true");
    return json_read_bool(&c->include_usage, given, "include_usage");
}

static enum cinf_status read_fields(struct fields *f, struct completion *c)
{
    struct cinf_request_options *o = &f->options;
    int64_t max_tokens = MAX_TOKENS_DEFAULT, top = -1, prompt_top = -1;
    o->temperature = 1;
    TRY(read_stream(f, c));
    TRY(read_choices(f, c));
    TRY(field_bool(f, "echo", &c->echo));
    TRY(field_int(f, "logprobs", 0, CINF_TOP_LOGPROBS_MAX, &top));
    TRY(field_int(f, "prompt_logprobs", 0, CINF_TOP_LOGPROBS_MAX, &prompt_top));
    c->logprobs = top >= 0;
    c->prompt_logprobs = prompt_top >= 0;
    if (c->prompt_logprobs && c->stream)
        return cinf_fail(CINF_EINVAL, "\"prompt_logprobs\" cannot be streamed");
    c->n_top = top > 0 ? (uint32_t)top : 0;
    c->n_prompt_top = prompt_top > 0 ? (uint32_t)prompt_top : 0;
    o->logprobs = c->logprobs || c->n_answered < c->n;
    o->top_logprobs = c->n_top > c->n_prompt_top ? c->n_top : c->n_prompt_top;
    o->prompt_logprobs = c->prompt_logprobs || (c->logprobs && c->echo);
    TRY(fields_sampling(f));
    TRY(fields_truncation(f, &c->keep));
    TRY(field_int(f, "max_tokens", 0, MAX_TOKENS_MAX, &max_tokens));
    if (max_tokens == 0 && !c->echo && !c->prompt_logprobs)
        return cinf_fail(CINF_EINVAL,
                         "\"max_tokens\" can be 0 with \"echo\": true or \"prompt_logprobs\" only");
    o->max_tokens = (uint32_t)max_tokens;
    o->prompt_only = max_tokens == 0;
    return CINF_OK;
}

static enum cinf_status new_completion(struct completion **out, const struct completion *read,
                                       uint32_t n_prompts, const char *request_id)
{
    struct completion *c = mem_copy(read, sizeof *read);
    if (c) {
        c->n_choices = n_prompts * c->n;
        c->choices = mem_new(c->n_choices, sizeof *c->choices);
        c->prompts = mem_new(n_prompts, sizeof *c->prompts);
    }
    if (!c || !c->choices || !c->prompts) {
        if (c) {
            mem_free(c->choices);
            mem_free(c->prompts);
        }
        mem_free(c);
        return cinf_fail(CINF_ENOMEM, "no memory for the request");
    }
    snprintf(c->id, sizeof c->id, "cmpl-%s", request_id + strlen("req-"));
    c->created = (int64_t)time(NULL);
    *out = c;
    return CINF_OK;
}

void post_completions(struct exchange *x, const char *unused)
{
    struct cinf_model_info info = { CINF_MODEL_INFO };
    struct fields f;
    struct prompts prompts = { 0 };
    struct completion read = { 0 }, *completion = NULL;
    const char *name = NULL;
    (void)unused;
    cJSON *body = fields_body(x, false);
    if (!body)
        return;
    fields_init(&f, body, &info);
    f.options.endpoint = ENDPOINT_COMPLETIONS;
    int64_t account = NO_ACCOUNT;
    enum cinf_status status = field_text(&f, "model", &name);
    if (status == CINF_OK) {
        read.model = model_for(x, name, &info);
        struct cinf_device_info device = { CINF_DEVICE_INFO };
        cinf_engine_device(service_of(x)->engine, &device);
        read.kv = device.kv;
        if (!read.model) {
            cJSON_Delete(body);
            return;
        }
        account = info.account;
        status = unknown_fields_judge(&f, x, BODY_COMPLETIONS);
    }
    if (status == CINF_OK)
        status = read_fields(&f, &read);
    if (status == CINF_OK)
        fields_note(&f, exchange_id(x));
    if (status == CINF_OK)
        status = read_prompts(&prompts, &f, &read);
    if (status == CINF_OK) {
        f.param = NULL;
        status = new_completion(&completion, &read, prompts.n, exchange_id(x));
    }
    if (status == CINF_OK) {
        generation_start(x, read.model, prompts.options, prompts.n, read.stream, &format, completion);
    } else {
        problem_answer(x, status, f.param, account);
        cinf_model_release(read.model);
    }
    mem_free(prompts.options);
    mem_free(prompts.ids);
    fields_free(&f);
    cJSON_Delete(body);
}
