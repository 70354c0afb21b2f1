/* request.c - a request from its submission to its release: options checked and copied, room set aside, and
 * the place in its model's queue.  Its events are in request_events.c.
 *
 * The question a reader will ask: why is all of a request's memory taken when it is submitted?  The context
 * bounds how many tokens and events it can give.  So the scheduler never waits for a reader, and a slow
 * reader costs the other clients nothing. */
#include "request.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "engine_state.h"
#include "fail.h"
#include "handles.h"
#include "mem.h"
#include "note.h"
#include "versioned.h"

/* ---- Options ------------------------------------------------------------------------------- */

static enum cinf_status check_range(const char *what, double value, double low, double high)
{
    /* Written so that NaN fails. */
    if (value >= low && value <= high)
        return CINF_OK;
    return cinf_fail(CINF_EINVAL, "%s is %g; it must be from %g to %g", what, value, low, high);
}

/* The sampling options that are a number, each checked and copied by its row here. */
#define NUMBER(name, low, high)                                                                              \
    {                                                                                                        \
#name, offsetof(struct cinf_request_options, name), offsetof(struct sampling, name), low, high       \
    }
static const struct {
    const char *name;
    size_t in_options, in_sampling; /* offsets of the float */
    float low, high;
} sampling_numbers[] = {
    NUMBER(temperature, 0, 100),
    NUMBER(top_p, 0, 1),
    NUMBER(min_p, 0, 1),
    NUMBER(typical_p, 0, 1),
    NUMBER(repetition_penalty, 0, 100),
    NUMBER(presence_penalty, -100, 100),
    NUMBER(frequency_penalty, -100, 100),
};
#undef NUMBER
enum { N_SAMPLING_NUMBERS = sizeof sampling_numbers / sizeof *sampling_numbers };

static enum cinf_status check_options(const struct cinf_model *model, const struct cinf_request_options *o)
{
    uint32_t vocab = model->config.vocab_size;
    for (size_t i = 0; i < N_SAMPLING_NUMBERS; i++) {
        float value;
        memcpy(&value, (const char *)o + sampling_numbers[i].in_options, sizeof value);
        TRY(check_range(sampling_numbers[i].name, value, sampling_numbers[i].low, sampling_numbers[i].high));
    }
    TRY(check_range("n", o->n, 0, CINF_CHOICES_MAX));
    TRY(check_range("the number of stop strings", o->n_stop, 0, CINF_STOPS_MAX));
    TRY(check_range("top_logprobs", o->top_logprobs, 0, CINF_TOP_LOGPROBS_MAX));
    TRY(check_range("the number of logit biases", o->n_logit_bias, 0, vocab));
    TRY(check_range("the number of stop_token_ids", o->n_stop_token_ids, 0, vocab));
    if (o->max_tokens > 0 && o->min_tokens > o->max_tokens)
        return cinf_fail(CINF_EINVAL, "min_tokens is %u and max_tokens %u; the first must not be larger",
                         o->min_tokens, o->max_tokens);
    if (o->n > model->n_slots)
        return cinf_fail(CINF_EINVAL, "n is %u, but model %s serves %u requests concurrently", o->n,
                         model->name, model->n_slots);
    if (o->n_stop > 0 && !model->tokenizer)
        return cinf_fail(CINF_EINVAL, "model %s has no tokenizer: give stop_token_ids, not stop strings",
                         model->name);
    for (uint32_t i = 0; i < o->n_stop; i++) {
        size_t n = o->stop[i] ? strlen(o->stop[i]) : 0;
        if (n == 0 || n > CINF_STOP_BYTES_MAX)
            return cinf_fail(CINF_EINVAL, "stop string %u has %zu bytes; it must have 1 to %d", i, n,
                             CINF_STOP_BYTES_MAX);
    }
    for (uint32_t i = 0; i < o->n_stop_token_ids; i++)
        if ((uint32_t)o->stop_token_ids[i] >= vocab)
            return cinf_fail(CINF_EINVAL, "stop_token_ids names token %d; the model has %u",
                             o->stop_token_ids[i], vocab);
    for (uint32_t i = 0; i < o->n_logit_bias; i++) {
        if ((uint32_t)o->logit_bias[i].token >= vocab)
            return cinf_fail(CINF_EINVAL, "logit_bias names token %d; the model has %u",
                             o->logit_bias[i].token, vocab);
        TRY(check_range("a logit bias", o->logit_bias[i].bias, -100, 100));
    }
    return CINF_OK;
}

/* The prompt as ids in new memory. */
static enum cinf_status read_prompt(struct cinf_request *r, const struct cinf_request_options *o)
{
    const struct cinf_model *model = r->model;
    int32_t *from_text = NULL;
    const int32_t *ids = o->prompt_ids;
    size_t n = o->n_prompt_ids;
    if (!ids && o->prompt && (o->prompt_bytes || o->prompt[0])) {
        if (!model->tokenizer)
            return cinf_fail(
                CINF_EINVAL,
                "model %s has no tokenizer (tokenizer.json, or vocab.json and merges.txt, in its "
                "folder): give the prompt as token ids",
                model->name);
        size_t bytes = o->prompt_bytes ? o->prompt_bytes : strlen(o->prompt);
        TRY(cinf_tokenizer_encode(model->tokenizer, o->prompt, bytes, o->tokenize_flags, &from_text, &n));
        ids = from_text;
    }
    int32_t end_of_text = model->tokenizer ? cinf_tokenizer_end_of_text(model->tokenizer) : -1;
    if (end_of_text < 0 && model->config.n_eos > 0)
        end_of_text = model->config.eos[0];
    enum cinf_status status = CINF_OK;
    if (n == 0) {
        ids = &end_of_text;
        n = 1;
        if (end_of_text < 0)
            status =
                cinf_fail(CINF_EINVAL, "the prompt is empty, and model %s has no <|endoftext|>", model->name);
    }
    uint32_t positions = model->config.n_positions;
    if (status == CINF_OK && n > positions)
        status = cinf_fail(CINF_ECONTEXT, "the prompt has %zu tokens; model %s has a context of %u", n,
                           model->name, positions);
    assert(ids || n == 0 || status != CINF_OK);
    for (size_t i = 0; status == CINF_OK && i < n; i++)
        if ((uint32_t)ids[i] >= model->config.vocab_size)
            status = cinf_fail(CINF_EINVAL, "token %zu of the prompt is %d; the model has %u", i, ids[i],
                               model->config.vocab_size);
    if (status == CINF_OK) {
        r->prompt = mem_copy(ids, n * sizeof *ids);
        r->n_prompt = (uint32_t)n;
        if (!r->prompt)
            status = cinf_fail(CINF_ENOMEM, "no memory for a prompt of %zu tokens", n);
    }
    cinf_ids_free(from_text);
    return status;
}

static bool copy_stops(struct cinf_request *r, const struct cinf_request_options *o)
{
    for (uint32_t i = 0; i < o->n_stop; i++) {
        char *copy = mem_copy_text(o->stop[i]);
        if (!copy)
            return false;
        r->stops[r->n_stops++] = (struct stop_string){ copy, strlen(copy) };
    }
    return true;
}

static bool make_sequences(struct cinf_request *r)
{
    r->sequences = mem_new(r->n_sequences, sizeof *r->sequences);
    if (!r->sequences)
        return false;
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        seq->request = r;
        seq->index = i;
        draft_init(&seq->draft);
        seq->ids = mem_new(r->n_prompt + r->max_new, sizeof *seq->ids);
        seq->ends = mem_new(r->max_new, sizeof *seq->ends);
        seq->logprobs = mem_new(r->max_new, sizeof *seq->logprobs);
        seq->top = mem_new((size_t)r->max_new * r->n_top, sizeof *seq->top);
        if (!seq->ids || !seq->ends || !seq->logprobs || !seq->top)
            return false;
        memcpy(seq->ids, r->prompt, r->n_prompt * sizeof *seq->ids);
        seq->n_ids = r->n_prompt;
        for (uint32_t t = 0; t < r->max_new; t++)
            seq->logprobs[t] = NAN;
    }
    return true;
}

static bool make_queue(struct cinf_request *r)
{
    r->n_events_max = r->n_sequences * (r->max_new + 1) + 1;
    if (r->prompt_logprobs) {
        r->n_events_max += r->n_prompt;
        r->prompt_logprob = mem_new(r->n_prompt, sizeof *r->prompt_logprob);
        r->prompt_top = mem_new((size_t)r->n_prompt * r->n_top, sizeof *r->prompt_top);
        r->prompt_rank = mem_new(r->n_prompt, sizeof *r->prompt_rank);
        r->prompt_ends = mem_new(r->n_prompt, sizeof *r->prompt_ends);
        if (!r->prompt_logprob || !r->prompt_top || !r->prompt_rank || !r->prompt_ends)
            return false;
        r->prompt_logprob[0] = NAN;
    }
    r->events = mem_new(r->n_events_max, sizeof *r->events);
    return r->events != NULL;
}

/* The text of the prompt's tokens, decoded as a stream, for CINF_EVENT_PROMPT. */
static enum cinf_status decode_prompt(struct cinf_request *r)
{
    for (uint32_t i = 0; r->prompt_logprobs && i < r->n_prompt; i++) {
        TRY(textflow_push(&r->prompt_flow, r->model->tokenizer, r->prompt[i], NULL, 0, false));
        if (i + 1 == r->n_prompt)
            TRY(textflow_end(&r->prompt_flow));
        r->prompt_ends[i] = r->prompt_flow.text.len;
    }
    return CINF_OK;
}

static uint64_t random_seed(const struct cinf_request *r)
{
    static atomic_uint_fast64_t counter;
    uint64_t seed = clock_monotonic_ns() * 0x9E3779B97F4A7C15u + (uint64_t)(uintptr_t)r;
    seed ^= ((uint64_t)time(NULL) << 20) + atomic_fetch_add(&counter, 0x9E3779B97F4A7C15u);
    return seed ? seed : 1;
}

/* When a request submitted now must end; UINT64_MAX: never. */
static uint64_t deadline(uint64_t timeout_ns)
{
    uint64_t now = clock_monotonic_ns();
    return timeout_ns && timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
}

/* How the request samples; false without memory. */
static bool copy_sampling(struct cinf_request *r, const struct cinf_request_options *o)
{
    struct cinf_logit_bias *bias = mem_copy(o->logit_bias, o->n_logit_bias * sizeof *bias);
    r->sampling = (struct sampling){
        .top_k = o->top_k,
        .seed = o->seed ? o->seed : random_seed(r),
        .bias = bias,
        .n_bias = o->n_logit_bias,
        .min_tokens = o->min_tokens,
    };
    for (size_t i = 0; i < N_SAMPLING_NUMBERS; i++)
        memcpy((char *)&r->sampling + sampling_numbers[i].in_sampling,
               (const char *)o + sampling_numbers[i].in_options, sizeof(float));
    return bias != NULL;
}

/* stop_token_ids, then the model's end-of-text; false without memory. */
static bool copy_end_ids(struct cinf_request *r, const struct cinf_request_options *o)
{
    const struct cinf_config *config = &r->model->config;
    uint32_t n = o->n_stop_token_ids;
    int32_t *ids = mem_new((size_t)n + config->n_eos, sizeof *ids);
    if (!ids)
        return false;
    if (n > 0)
        memcpy(ids, o->stop_token_ids, n * sizeof *ids);
    memcpy(ids + n, config->eos, config->n_eos * sizeof *ids);
    r->n_stop_ids = n;
    r->sampling.end_ids = ids;
    r->sampling.n_end_ids = n + config->n_eos;
    return true;
}

/* With min_tokens, something must be left that can be sampled. */
static enum cinf_status check_can_go_on(const struct cinf_request *r)
{
    const struct cinf_model *model = r->model;
    const struct sampling *s = &r->sampling;
    if (s->min_tokens == 0)
        return CINF_OK;
    for (uint32_t id = 0; id < model->config.vocab_size; id++) {
        bool left = !model->allowed || (model->allowed[id / 8] >> id % 8 & 1);
        for (uint32_t i = 0; left && i < s->n_end_ids; i++)
            left = (uint32_t)s->end_ids[i] != id;
        if (left)
            return CINF_OK;
    }
    return cinf_fail(CINF_EINVAL, "min_tokens is %u, but each of model %s's tokens ends the text",
                     s->min_tokens, model->name);
}

static enum cinf_status fill_request(struct cinf_request *r, const struct cinf_request_options *o)
{
    const struct cinf_config *config = &r->model->config;
    TRY(check_options(r->model, o));
    TRY(read_prompt(r, o));
    uint32_t max_new = config->n_positions - r->n_prompt + 1; /* the last token is not computed with */
    if (o->max_tokens && o->max_tokens < max_new)
        max_new = o->max_tokens;
    r->max_new = o->prompt_only ? 0 : max_new;
    r->n_sequences = o->n ? o->n : 1;
    r->prompt_only = o->prompt_only;
    r->ignore_eos = o->ignore_eos;
    r->prompt_logprobs = o->prompt_logprobs;
    r->logprobs = o->logprobs || o->top_logprobs > 0;
    r->n_top = o->top_logprobs < config->vocab_size ? o->top_logprobs : config->vocab_size;
    r->prompt_logits = o->prompt_logits;
    r->wants_all = o->prompt_logprobs || o->prompt_logits;
    r->notify = o->notify;
    r->notify_context = o->notify_context;
    r->payer = mem_copy_text(o->payer ? o->payer : "anonymous");
    r->unread_max = o->unread_max ? o->unread_max : UINT32_MAX;
    r->deadline_ns = deadline(o->timeout_ns);
    if (!r->payer || !copy_sampling(r, o) || !copy_end_ids(r, o) || !copy_stops(r, o) || !make_sequences(r) ||
        !make_queue(r))
        return cinf_fail(CINF_ENOMEM, "no memory for a request of %u tokens", r->n_prompt + r->max_new);
    TRY(check_can_go_on(r));
    if (o->note)
        TRY(note_new(&r->note, o->note));
    return decode_prompt(r);
}

/* ---- Submission and release ---------------------------------------------------------------- */

/* An empty request; free_request() frees it however far it has been filled. */
static struct cinf_request *new_request(struct cinf_model *model)
{
    struct cinf_request *r = mem_new(1, sizeof *r);
    if (!r)
        return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->arrived, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&r->lock, NULL);
    model_ref(model);
    r->model = model;
    return r;
}

static void free_request(struct cinf_request *r)
{
    for (uint32_t i = 0; r->sequences && i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        mem_free(seq->ids);
        mem_free(seq->ends);
        mem_free(seq->logprobs);
        mem_free(seq->top);
        textflow_free(&seq->flow);
    }
    for (uint32_t i = 0; i < r->n_stops; i++)
        mem_free((char *)r->stops[i].text);
    mem_free(r->sequences);
    mem_free(r->prompt);
    mem_free(r->payer);
    mem_free(r->note);
    mem_free((struct cinf_logit_bias *)r->sampling.bias);
    mem_free((int32_t *)r->sampling.end_ids);
    mem_free(r->events);
    mem_free(r->prompt_logprob);
    mem_free(r->prompt_top);
    mem_free(r->prompt_rank);
    mem_free(r->prompt_ends);
    textflow_free(&r->prompt_flow);
    strbuf_free(&r->event_text);
    cinf_bill_free(r->bill);
    pthread_cond_destroy(&r->arrived);
    pthread_mutex_destroy(&r->lock);
    model_unref(r->model);
    mem_free(r);
}

/* How many of the requests would wait for a slot behind `n_waiting` others when `n_free` slots are free.  Who
 * comes first is given slots first, so behind one that waits all do. */
static uint32_t count_waits(uint32_t n_waiting, uint32_t n_free, struct cinf_request *const *requests,
                            uint32_t n)
{
    uint32_t started = 0;
    while (n_waiting == 0 && started < n && requests[started]->n_sequences <= n_free)
        n_free -= requests[started++]->n_sequences;
    return n - started;
}

/* The queue bounds what really waits.  What is in it and can start in the scheduler's next round does not.
 * Caller holds engine.lock. */
static enum cinf_status check_room(const struct cinf_model *model, struct cinf_request *const *requests,
                                   uint32_t n)
{
    const struct cinf_engine *e = model->engine;
    uint32_t n_free = atomic_load(&model->n_free), n_waiting = model->n_waiting;
    if (count_waits(0, model->n_slots, requests, n) > e->queue_max)
        return cinf_fail(CINF_EINVAL,
                         "%u prompts are too many: model %s serves %u requests concurrently, and %u can wait",
                         n, model->name, model->n_slots, e->queue_max);
    for (const struct cinf_request *w = model->waiting; w && w->n_sequences <= n_free; w = w->next) {
        n_free -= w->n_sequences;
        n_waiting--;
    }
    uint32_t more = count_waits(n_waiting, n_free, requests, n);
    if (more > 0 && n_waiting + more > e->queue_max)
        return cinf_fail(
            CINF_EFULL,
            "%u requests are waiting for model %s already; %u can, so there is no room for %u more",
            n_waiting, model->name, e->queue_max, more);
    if (more > 0 && e->n_waiting + more > e->queue_total)
        return cinf_fail(CINF_EFULL, "%u requests are waiting already; over all models %u can", e->n_waiting,
                         e->queue_total);
    return CINF_OK;
}

/* Caller holds engine.lock. */
static enum cinf_status enqueue(struct cinf_request *r, uint32_t endpoint)
{
    struct cinf_model *model = r->model;
    struct cinf_engine *e = model->engine;
    TRY(cinf_bill_open_for(&r->bill, e->meter, model->account, endpoint, r->payer));
    note_give(r->bill, &r->note);
    r->submitted_ns = clock_monotonic_ns();
    atomic_store(&r->references, 2);
    *model->waiting_end = r;
    model->waiting_end = &r->next;
    model->n_waiting++;
    e->n_waiting++;
    return CINF_OK;
}

/* The last checks, and all of the requests into the queue, or none.  Caller holds engine.lock. */
static enum cinf_status enqueue_all(struct cinf_model *model, struct cinf_request *const *requests,
                                    const struct cinf_request_options *options, uint32_t n)
{
    struct cinf_engine *e = model->engine;
    if (!model->loaded || model->unloading || e->closing)
        return cinf_fail(CINF_ECLOSED, "model %s is %s", model->name,
                         model->unloading ? "being unloaded" : "not loaded");
    TRY(check_room(model, requests, n));
    enum cinf_status status = CINF_OK;
    uint32_t i = 0;
    while (i < n && (status = enqueue(requests[i], options[i].endpoint)) == CINF_OK)
        i++;
    /* Those before one for which there was no memory have a bill.  The scheduler, which cannot have seen them
     * yet, ends them before they begin, and their caller is not told. */
    for (uint32_t j = 0; status != CINF_OK && j < i; j++) {
        request_cancel(requests[j], CINF_FINISH_CANCELLED);
        requests[j]->notify = NULL;
    }
    pthread_cond_signal(&e->work);
    return status;
}

static enum cinf_error_kind error_kind(enum cinf_status status)
{
    switch (status) {
    case CINF_EINVAL:
        return CINF_ERROR_INVALID_REQUEST;
    case CINF_ECONTEXT:
        return CINF_ERROR_CONTEXT_LENGTH;
    case CINF_EFULL:
        return CINF_ERROR_QUEUE_FULL;
    case CINF_ECLOSED:
        return CINF_ERROR_UNAVAILABLE;
    default:
        return CINF_ERROR_INTERNAL;
    }
}

/* Builds the requests, and queues all of them or none; requests[i] stays NULL where there is nothing to free.
 */
static enum cinf_status submit_all(struct cinf_request **requests, struct cinf_model *model,
                                   const struct cinf_request_options *options, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        requests[i] = new_request(model);
        TRY(requests[i] ? fill_request(requests[i], &options[i])
                        : cinf_fail(CINF_ENOMEM, "no memory for a request"));
    }
    pthread_mutex_lock(&model->engine->lock);
    enum cinf_status status = enqueue_all(model, requests, options, n);
    pthread_mutex_unlock(&model->engine->lock);
    return status;
}

enum cinf_status cinf_request_submit_all(struct cinf_request **out, struct cinf_model *model,
                                         const struct cinf_request_options *const *options, uint32_t n)
{
    struct cinf_request **requests = mem_new(n, sizeof *requests);
    struct cinf_request_options *o = mem_new(n, sizeof *o);
    enum cinf_status status =
        requests && o ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for %u requests", n);
    for (uint32_t i = 0; status == CINF_OK && i < n; i++) {
        o[i] = (struct cinf_request_options){ CINF_REQUEST_OPTIONS };
        status = versioned_read(&o[i], sizeof o[i], options[i]);
    }
    if (status == CINF_OK)
        status = submit_all(requests, model, o, n);
    if (status == CINF_OK)
        memcpy(out, requests, n * sizeof *out);
    else
        cinf_meter_count_error(model->engine->meter, model->account, error_kind(status));
    for (uint32_t i = 0; status != CINF_OK && requests && i < n && requests[i]; i++) {
        if (requests[i]->bill)
            cinf_request_free(requests[i]);
        else
            free_request(requests[i]);
    }
    mem_free(requests);
    mem_free(o);
    return status;
}

enum cinf_status cinf_request_submit(struct cinf_request **out, struct cinf_model *model,
                                     const struct cinf_request_options *options)
{
    return cinf_request_submit_all(out, model, &options, 1);
}

void request_unref(struct cinf_request *r)
{
    if (atomic_fetch_sub(&r->references, 1) == 1)
        free_request(r);
}

void request_cancel(struct cinf_request *r, enum cinf_finish why)
{
    int running = CINF_FINISH_RUNNING;
    atomic_compare_exchange_strong(&r->cancel, &running, (int)why);
}

void request_wake_scheduler(struct cinf_request *r)
{
    struct cinf_engine *e = r->model->engine;
    pthread_mutex_lock(&e->lock);
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

void cinf_request_cancel(struct cinf_request *r, enum cinf_finish why)
{
    bool known = why == CINF_FINISH_CLIENT_GONE || why == CINF_FINISH_TIMEOUT;
    request_cancel(r, known ? why : CINF_FINISH_CANCELLED);
    request_wake_scheduler(r);
}

void cinf_request_pause(struct cinf_request *r, bool pause)
{
    atomic_store(&r->paused, pause);
    request_wake_scheduler(r);
}

void cinf_request_report(const struct cinf_request *r, struct cinf_report *report)
{
    cinf_bill_read(r->bill, report);
}

const int32_t *cinf_request_prompt(const struct cinf_request *r, uint32_t *n)
{
    *n = r->n_prompt;
    return r->prompt;
}

uint64_t cinf_request_seed(const struct cinf_request *r)
{
    return r->sampling.seed;
}

const char *cinf_request_failure(const struct cinf_request *request)
{
    struct cinf_request *r = (struct cinf_request *)request;
    pthread_mutex_lock(&r->lock);
    const char *failure = r->ended && r->finish == CINF_FINISH_FAILED ? r->failure : "";
    pthread_mutex_unlock(&r->lock);
    return failure;
}

void cinf_request_free(struct cinf_request *r)
{
    if (!r)
        return;
    cinf_request_cancel(r, CINF_FINISH_CANCELLED);
    pthread_mutex_lock(&r->lock);
    r->notify = NULL;
    r->prompt_logits = NULL;
    pthread_mutex_unlock(&r->lock);
    request_unref(r);
}
