/* generate.c - the calls that submit a request and wait for its end.
 *
 * A client of the public interface: nothing here is known to the rest of the engine, and nothing of the
 * engine's state is read. */
#include <costinfer/request.h>

#include "fail.h"
#include "mem.h"
#include "strbuf.h"
#include "versioned.h"

/* ---- Generating ---------------------------------------------------------------------------- */

/* What has arrived of one choice. */
struct collected {
    struct strbuf text;
    int32_t *ids;
    float *logprobs;
    uint32_t n;
    size_t ids_cap, logprobs_cap;
    enum cinf_finish finish;
};

static bool collect_token(struct collected *c, const struct cinf_event *event)
{
    if (!mem_reserve(&c->ids, &c->ids_cap, c->n + 1, sizeof *c->ids) ||
        !mem_reserve(&c->logprobs, &c->logprobs_cap, c->n + 1, sizeof *c->logprobs))
        return false;
    c->ids[c->n] = event->token;
    c->logprobs[c->n++] = event->logprob;
    return true;
}

static enum cinf_status collect(struct cinf_request *r, struct collected *choices, cinf_text_fn *on_text,
                                void *context)
{
    for (;;) {
        struct cinf_event event = { CINF_EVENT };
        TRY(cinf_request_next(r, UINT64_MAX, &event));
        if (event.kind == CINF_EVENT_END && event.finish == CINF_FINISH_FAILED)
            return cinf_fail(CINF_EDEVICE, "%s", cinf_request_failure(r));
        if (event.kind == CINF_EVENT_END)
            return CINF_OK;
        if (event.kind == CINF_EVENT_PROMPT)
            continue;
        struct collected *c = &choices[event.choice];
        strbuf_add(&c->text, event.text, event.text_bytes);
        if (c->text.failed || (event.kind == CINF_EVENT_TOKEN && !collect_token(c, &event)))
            return cinf_fail(CINF_ENOMEM, "no memory for a text of %zu bytes", c->text.len);
        if (event.kind == CINF_EVENT_FINISH)
            c->finish = event.finish;
        if (event.text_bytes && on_text && !on_text(context, event.choice, event.text, event.text_bytes))
            cinf_request_cancel(r, CINF_FINISH_CANCELLED);
    }
}

/* Moves what was collected into a result. */
static enum cinf_status make_result(struct cinf_result **out, const struct cinf_request *r,
                                    struct collected *choices, const struct cinf_request_options *o)
{
    struct cinf_result *result = mem_new(1, sizeof *result);
    if (result)
        result->choices = mem_new(o->n, sizeof *result->choices);
    if (!result || !result->choices) {
        mem_free(result);
        return cinf_fail(CINF_ENOMEM, "no memory for a result");
    }
    result->n_choices = o->n;
    for (uint32_t i = 0; i < o->n; i++) {
        struct collected *c = &choices[i];
        strbuf_add(&c->text, "", 0); /* so that an empty text has its NUL */
        if (c->text.failed) {
            cinf_result_free(result);
            return cinf_fail(CINF_ENOMEM, "no memory for a result");
        }
        result->choices[i] = (struct cinf_choice){ .text = c->text.text,
                                                   .text_bytes = c->text.len,
                                                   .ids = c->ids,
                                                   .logprobs = c->logprobs,
                                                   .n_ids = c->n,
                                                   .finish = c->finish };
        if (!o->logprobs) {
            mem_free(c->logprobs);
            result->choices[i].logprobs = NULL;
        }
        *c = (struct collected){ 0 };
    }
    result->report = (struct cinf_report){ CINF_REPORT };
    cinf_request_report(r, &result->report);
    *out = result;
    return CINF_OK;
}

enum cinf_status cinf_generate(struct cinf_result **out, struct cinf_model *model,
                               const struct cinf_request_options *options, cinf_text_fn *on_text,
                               void *context)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS };
    struct cinf_request *r;
    TRY(versioned_read(&o, sizeof o, options));
    /* The defaults that shape the result are made explicit, so that it cannot differ from the request. */
    o.n = o.n ? o.n : 1;
    o.logprobs = o.logprobs || o.top_logprobs > 0;
    TRY(cinf_request_submit(&r, model, &o));
    struct collected *choices = mem_new(o.n, sizeof *choices);
    enum cinf_status status = choices ? collect(r, choices, on_text, context)
                                      : cinf_fail(CINF_ENOMEM, "no memory for %u choices", o.n);
    if (status == CINF_OK)
        status = make_result(out, r, choices, &o);
    for (uint32_t i = 0; choices && i < o.n; i++) {
        strbuf_free(&choices[i].text);
        mem_free(choices[i].ids);
        mem_free(choices[i].logprobs);
    }
    mem_free(choices);
    cinf_request_free(r);
    return status;
}

void cinf_result_free(struct cinf_result *result)
{
    if (!result)
        return;
    for (uint32_t i = 0; i < result->n_choices; i++) {
        mem_free(result->choices[i].text);
        mem_free(result->choices[i].ids);
        mem_free(result->choices[i].logprobs);
    }
    mem_free(result->choices);
    mem_free(result);
}

/* ---- Scoring ------------------------------------------------------------------------------- */

/* Submits a prompt_only request and waits for its end. */
static enum cinf_status compute_prompt(struct cinf_model *model, const struct cinf_request_options *o,
                                       float *logprobs, struct cinf_report *report)
{
    struct cinf_request *r;
    TRY(cinf_request_submit(&r, model, o));
    struct cinf_event event = { CINF_EVENT };
    enum cinf_status status;
    uint32_t n = 0;
    do {
        status = cinf_request_next(r, UINT64_MAX, &event);
        if (status == CINF_OK && event.kind == CINF_EVENT_PROMPT && logprobs)
            logprobs[n++] = event.logprob;
    } while (status == CINF_OK && event.kind != CINF_EVENT_END);
    if (status == CINF_OK && event.finish == CINF_FINISH_FAILED)
        status = cinf_fail(CINF_EDEVICE, "%s", cinf_request_failure(r));
    else if (status == CINF_OK && event.finish != CINF_FINISH_LENGTH)
        status = cinf_fail(CINF_ECANCELLED, "the engine was closed");
    if (status == CINF_OK && report)
        cinf_request_report(r, report);
    cinf_request_free(r);
    return status;
}

enum cinf_status cinf_score(struct cinf_model *model, const int32_t *ids, uint32_t n, float *logprobs,
                            struct cinf_report *report)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = ids, .n_prompt_ids = n,
                                      .prompt_only = true, .prompt_logprobs = true };
    if (n == 0)
        return cinf_fail(CINF_EINVAL, "there is nothing to score");
    return compute_prompt(model, &o, logprobs, report);
}

enum cinf_status cinf_logits(struct cinf_model *model, const int32_t *ids, uint32_t n, float *logits,
                             struct cinf_report *report)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = ids, .n_prompt_ids = n,
                                      .prompt_only = true, .prompt_logits = logits };
    if (n == 0)
        return cinf_fail(CINF_EINVAL, "there are no tokens to compute");
    return compute_prompt(model, &o, NULL, report);
}
