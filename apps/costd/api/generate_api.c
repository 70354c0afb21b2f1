/* generate_api.c - POST /v1/generate/{model}: prompt and max_tokens in; text, tokens, seconds and cost out.
 *
 * With "stream": true the answer is an SSE stream of {"delta": "text"}, then the object that is the whole
 * answer without it, then [DONE]. */
#include <stdlib.h>
#include <string.h>

#include "access_log.h"
#include "fail.h"
#include "fields.h"
#include "handlers.h"
#include "generation.h"
#include "mem.h"
#include "percent.h"
#include "problem.h"
#include "report.h"
#include "unknown_fields.h"

struct generate {
    struct cinf_model *model;
    bool stream;
    struct strbuf text; /* prompt and continuation */
};

static void on_event(void *api, const struct generation *generation, uint32_t index,
                     const struct cinf_event *event, struct strbuf *out)
{
    struct generate *g = api;
    (void)generation, (void)index;
    strbuf_add(&g->text, event->text, event->text_bytes);
    if (!g->stream || event->text_bytes == 0)
        return;
    struct json_writer w = json_write_to(out);
    strbuf_puts(out, "data: ");
    json_open_object(&w, NULL);
    json_put_bytes(&w, "delta", event->text, event->text_bytes);
    json_close(&w);
    strbuf_puts(out, "\n\n");
}

static void on_end(void *api, const struct generation *generation, struct strbuf *out)
{
    struct generate *g = api;
    struct cinf_report r;
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(g->model, &info);
    generation_report(generation, &r);
    struct json_writer w = json_write_to(out);
    strbuf_puts(out, g->stream ? "data: " : "");
    json_open_object(&w, NULL);
    json_put_text(&w, "model", info.name);
    json_put_bytes(&w, "text", g->text.text, g->text.len);
    REPORT_WRITE(&w, &r, REPORT_INPUT_TOKENS, REPORT_OUTPUT_TOKENS, REPORT_LATENCY_SECONDS);
    report_write_cost(&w, "estimated_cost_usd", &r);
    json_put_text(&w, "finish_reason", cinf_finish_name(r.finish));
    REPORT_WRITE(&w, &r, REPORT_USE);
    json_close(&w);
    strbuf_puts(out, g->stream ? "\n\ndata: [DONE]\n\n" : "");
    out->failed = out->failed || g->text.failed;
}

static void free_generate(void *api)
{
    struct generate *g = api;
    cinf_model_release(g->model);
    strbuf_free(&g->text);
    mem_free(g);
}

static const struct generation_format format = { on_event, on_end, free_generate };

/* The tutorial's client sends prompt and max_tokens as query parameters; a body's fields override them. */
static enum cinf_status read_query(struct exchange *x, struct fields *f, char **prompt, int64_t *max_tokens)
{
    static const char *const names[] = { "prompt", "max_tokens", NULL };
    const char *raw = exchange_query(x, "max_tokens");
    TRY(unknown_parameters_judge(f, x, BODY_GENERATE, names));
    f->param = "max_tokens";
    if (raw) {
        size_t n = strspn(raw, "0123456789");
        if (n == 0 || n > 9 || raw[n])
            return cinf_fail(CINF_EINVAL, "\"max_tokens\" must be an integer from 1 to %d", MAX_TOKENS_MAX);
        *max_tokens = strtol(raw, NULL, 10);
    }
    f->param = "prompt";
    raw = exchange_query(x, "prompt");
    return raw ? percent_decode(prompt, raw, true) : CINF_OK;
}

static enum cinf_status read_fields(struct exchange *x, struct fields *f, const struct cinf_model *model,
                                    char **query_prompt, bool *stream)
{
    int64_t max_tokens = 50;
    uint32_t keep = 0;
    const char *prompt = NULL;
    TRY(unknown_fields_judge(f, x, BODY_GENERATE));
    TRY(read_query(x, f, query_prompt, &max_tokens));
    TRY(field_text(f, "prompt", &prompt));
    f->options.prompt = prompt ? prompt : *query_prompt;
    TRY(field_int(f, "max_tokens", 1, MAX_TOKENS_MAX, &max_tokens));
    if (max_tokens < 1 || max_tokens > MAX_TOKENS_MAX)
        return cinf_fail(CINF_EINVAL, "\"max_tokens\" must be an integer from 1 to %d", MAX_TOKENS_MAX);
    f->options.max_tokens = (uint32_t)max_tokens;
    TRY(field_bool(f, "stream", stream));
    TRY(fields_sampling(f));
    TRY(fields_truncation(f, &keep));
    fields_note(f, exchange_id(x));
    f->param = "prompt";
    if (f->options.prompt)
        return fields_truncate(f, model, keep, &f->options);
    /* The default is part of the tutorial's API.  A field that we do not know is likelier to be a misspelt
     * prompt, and a text that was not asked for is not billed. */
    if (access_of(x)->ignored[0])
        return cinf_fail(CINF_EINVAL, "\"prompt\" is missing, and unknown fields are present: %s",
                         access_of(x)->ignored);
    f->options.prompt = "Hello";
    return fields_truncate(f, model, keep, &f->options);
}

/* The answer's text begins with the prompt: the part that is computed. */
static void put_prompt(struct strbuf *text, const struct fields *f, const struct cinf_model *model)
{
    const struct cinf_request_options *o = &f->options;
    size_t n;
    char *decoded;
    if (o->prompt) {
        strbuf_puts(text, o->prompt);
    } else if (cinf_tokenizer_decode(cinf_model_tokenizer(model), o->prompt_ids, o->n_prompt_ids, &decoded,
                                     &n) == CINF_OK) {
        strbuf_add(text, decoded, n);
        cinf_text_free(decoded);
    } else {
        text->failed = true;
    }
}

static enum cinf_status new_generate(struct generate **out, const struct fields *f, struct cinf_model *model,
                                     bool stream)
{
    struct generate *g = mem_new(1, sizeof *g);
    if (!g)
        return cinf_fail(CINF_ENOMEM, "no memory for the request");
    g->model = model;
    g->stream = stream;
    put_prompt(&g->text, f, model);
    *out = g;
    return CINF_OK;
}

void post_generate(struct exchange *x, const char *name)
{
    struct cinf_model_info info;
    struct fields f;
    struct generate *g = NULL;
    char *query_prompt = NULL;
    bool stream = false;
    cJSON *body = fields_body(x, true);
    struct cinf_model *model = body ? model_for(x, name, &info) : NULL;
    if (!model) {
        cJSON_Delete(body);
        return;
    }
    fields_init(&f, body, &info);
    f.options.endpoint = ENDPOINT_GENERATE;
    enum cinf_status status = fields_need_text(&f, model);
    if (status == CINF_OK)
        status = read_fields(x, &f, model, &query_prompt, &stream);
    if (status == CINF_OK) {
        f.param = NULL;
        status = new_generate(&g, &f, model, stream);
    }
    if (status == CINF_OK) {
        generation_start(x, model, &f.options, 1, stream, &format, g); /* now owns the handle */
    } else {
        problem_answer(x, status, f.param, info.account);
        cinf_model_release(model);
    }
    mem_free(query_prompt);
    fields_free(&f);
    cJSON_Delete(body);
}
