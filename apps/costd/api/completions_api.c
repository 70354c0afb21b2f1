/* completions_api.c - POST /v1/completions: OpenAI's legacy completions, whole and as a stream.
 *
 * A body may hold several prompts and ask for n choices of each; each prompt is one request to the engine,
 * and choice c of prompt p has index p * n + c.  What a choice has to say is collected in struct choice:
 * until the end, or until the next chunk of a stream.  completions_prompts.c reads the prompts, and
 * completions_logprobs.c collects and writes log-probabilities. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <costinfer/costinfer.h>

#include "completions_logprobs.h"
#include "completions_prompts.h"
#include "fail.h"
#include "fields.h"
#include "handlers.h"
#include "generation.h"
#include "mem.h"
#include "problem.h"
#include "report.h"
#include "unknown_fields.h"

enum { MAX_TOKENS_DEFAULT = 16 };

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
