/* request.c - a request from the caller's side: checked and queued, its events pulled.
 *
 * Room for every event a request can give is set aside when it is submitted: its context bounds them.  So
 * the scheduler never waits for a reader, and a reader that is slow costs nobody anything. */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "engine_state.h"
#include "fail.h"
#include "mem.h"
#include "versioned.h"

/* ---- Submission ---------------------------------------------------------------------------- */

static enum cinf_status check_range(const char *what, double value, double low, double high)
{
    /* Written so that NaN fails. */
    if (value >= low && value <= high)
        return CINF_OK;
    return cinf_fail(CINF_EINVAL, "%s is %g; it must be from %g to %g", what, value, low, high);
}

static enum cinf_status check_options(const struct cinf_model *model, const struct cinf_request_options *o)
{
    uint32_t vocab = model->config.vocab_size;
    TRY(check_range("temperature", o->temperature, 0, 100));
    TRY(check_range("top_p", o->top_p, 0, 1));
    TRY(check_range("min_p", o->min_p, 0, 1));
    TRY(check_range("repetition_penalty", o->repetition_penalty, 0, 100));
    TRY(check_range("presence_penalty", o->presence_penalty, -100, 100));
    TRY(check_range("frequency_penalty", o->frequency_penalty, -100, 100));
    TRY(check_range("n", o->n, 0, CINF_CHOICES_MAX));
    TRY(check_range("the number of stop strings", o->n_stop, 0, CINF_STOPS_MAX));
    TRY(check_range("top_logprobs", o->top_logprobs, 0, CINF_TOP_LOGPROBS_MAX));
    TRY(check_range("the number of logit biases", o->n_logit_bias, 0, vocab));
    if (o->n > model->n_slots)
        return cinf_fail(CINF_EINVAL, "n is %u, but model %s serves %u requests at once", o->n, model->name,
                         model->n_slots);
    if (o->n_stop > 0 && !model->tokenizer)
        return cinf_fail(CINF_EINVAL, "model %s has no tokenizer, so it can have no stop strings",
                         model->name);
    for (uint32_t i = 0; i < o->n_stop; i++) {
        size_t n = o->stop[i] ? strlen(o->stop[i]) : 0;
        if (n == 0 || n > CINF_STOP_BYTES_MAX)
            return cinf_fail(CINF_EINVAL, "stop string %u has %zu bytes; it must have 1 to %d", i, n,
                             CINF_STOP_BYTES_MAX);
    }
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
            return cinf_fail(CINF_EINVAL, "model %s has no tokenizer; give the prompt as ids", model->name);
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
        r->prompt_ends = mem_new(r->n_prompt, sizeof *r->prompt_ends);
        if (!r->prompt_logprob || !r->prompt_top || !r->prompt_ends)
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
        TRY(textflow_push(&r->prompt_flow, r->model->tokenizer, r->prompt[i], NULL, 0));
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

static enum cinf_status fill_request(struct cinf_request *r, const struct cinf_request_options *o)
{
    TRY(check_options(r->model, o));
    TRY(read_prompt(r, o));
    uint32_t most = r->model->config.n_positions - r->n_prompt + 1;
    r->max_new = o->prompt_only ? 0 : o->max_tokens && o->max_tokens < most ? o->max_tokens : most;
    r->n_sequences = o->n ? o->n : 1;
    r->prompt_only = o->prompt_only;
    r->ignore_eos = o->ignore_eos;
    r->prompt_logprobs = o->prompt_logprobs;
    r->logprobs = o->logprobs || o->top_logprobs > 0;
    r->n_top = o->top_logprobs < r->model->config.vocab_size ? o->top_logprobs : r->model->config.vocab_size;
    r->prompt_logits = o->prompt_logits;
    r->wants_all = o->prompt_logprobs || o->prompt_logits;
    r->notify = o->notify;
    r->notify_context = o->notify_context;
    r->unread_max = o->unread_max ? o->unread_max : UINT32_MAX;
    r->deadline_ns = UINT64_MAX;
    uint64_t now = clock_monotonic_ns();
    if (o->timeout_ns && o->timeout_ns < UINT64_MAX - now)
        r->deadline_ns = now + o->timeout_ns;

    struct cinf_logit_bias *bias = mem_copy(o->logit_bias, o->n_logit_bias * sizeof *bias);
    r->sampling = (struct sampling){ .temperature = o->temperature,
                                     .top_p = o->top_p,
                                     .min_p = o->min_p,
                                     .top_k = o->top_k,
                                     .repetition_penalty = o->repetition_penalty,
                                     .presence_penalty = o->presence_penalty,
                                     .frequency_penalty = o->frequency_penalty,
                                     .seed = o->seed ? o->seed : random_seed(r),
                                     .bias = bias,
                                     .n_bias = o->n_logit_bias };
    if (!bias || !copy_stops(r, o) || !make_sequences(r) || !make_queue(r))
        return cinf_fail(CINF_ENOMEM, "no memory for a request of %u tokens", r->n_prompt + r->max_new);
    return decode_prompt(r);
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
    mem_free((struct cinf_logit_bias *)r->sampling.bias);
    mem_free(r->events);
    mem_free(r->prompt_logprob);
    mem_free(r->prompt_top);
    mem_free(r->prompt_ends);
    textflow_free(&r->prompt_flow);
    strbuf_free(&r->event_text);
    cinf_bill_free(r->bill);
    pthread_cond_destroy(&r->arrived);
    pthread_mutex_destroy(&r->lock);
    model_unref(r->model);
    mem_free(r);
}

/* Under engine.lock: the last checks, and into the queue. */
static enum cinf_status enqueue(struct cinf_request *r, uint32_t endpoint)
{
    struct cinf_model *model = r->model;
    struct cinf_engine *e = model->engine;
    if (!model->loaded || model->unloading || e->closing)
        return cinf_fail(CINF_ECLOSED, "model %s is %s", model->name,
                         model->unloading ? "being unloaded" : "not loaded");
    if (e->n_waiting >= e->queue_max)
        return cinf_fail(CINF_EFULL, "%u requests are waiting already", e->n_waiting);
    TRY(cinf_bill_open(&r->bill, e->meter, model->account, endpoint));
    r->submitted_ns = clock_monotonic_ns();
    atomic_store(&r->references, 2);
    *model->waiting_end = r;
    model->waiting_end = &r->next;
    e->n_waiting++;
    pthread_cond_signal(&e->work);
    return CINF_OK;
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

enum cinf_status cinf_request_submit(struct cinf_request **out, struct cinf_model *model,
                                     const struct cinf_request_options *options)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS };
    TRY(versioned_read(&o, sizeof o, options));
    struct cinf_request *r = mem_new(1, sizeof *r);
    enum cinf_status status = CINF_OK;
    if (r) {
        pthread_condattr_t monotonic;
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&r->arrived, &monotonic);
        pthread_condattr_destroy(&monotonic);
        pthread_mutex_init(&r->lock, NULL);
        atomic_fetch_add(&model->references, 1);
        r->model = model;
        status = fill_request(r, &o);
    } else {
        status = cinf_fail(CINF_ENOMEM, "no memory for a request");
    }
    if (status == CINF_OK) {
        pthread_mutex_lock(&model->engine->lock);
        status = enqueue(r, o.endpoint);
        pthread_mutex_unlock(&model->engine->lock);
    }
    if (status != CINF_OK) {
        cinf_meter_count_error(model->engine->meter, model->account, error_kind(status));
        if (r)
            free_request(r);
        return status;
    }
    *out = r;
    return CINF_OK;
}

/* ---- The scheduler's side ------------------------------------------------------------------ */

static void put_event(struct cinf_request *r, struct queued_event event)
{
    assert(r->n_in < r->n_events_max);
    r->events[r->n_in++] = event;
}

/* Tokens whose whole text is certain; after the end of a sequence also one that a stop string cut. */
static void publish_sequence(struct cinf_request *r, struct sequence *seq)
{
    bool over = seq->finish != CINF_FINISH_RUNNING;
    size_t certain = seq->flow.certain;
    while (seq->n_out < seq->n_new) {
        uint32_t i = seq->n_out;
        size_t from = i ? seq->ends[i - 1] : 0, to = seq->ends[i];
        if (to > certain && !over)
            return;
        if (seq->flow.stopped && from >= certain)
            break;
        seq->n_out++;
        put_event(r, (struct queued_event){ .kind = CINF_EVENT_TOKEN,
                                            .choice = seq->index,
                                            .index = i,
                                            .text_from = from,
                                            .text_to = to < certain ? to : certain });
    }
}

/* A sequence that has ended: its last tokens, and what its decoder still held. */
static void publish_finish(struct cinf_request *r, struct sequence *seq)
{
    seq->finish_published = true;
    size_t before = seq->flow.text.len;
    /* Out of memory here costs the mark of an unfinished character at the very end, not the request. */
    if (textflow_end(&seq->flow) != CINF_OK)
        seq->flow.certain = seq->flow.text.len;
    publish_sequence(r, seq);
    if (seq->flow.stopped)
        before = seq->flow.certain;
    put_event(r, (struct queued_event){ .kind = CINF_EVENT_FINISH,
                                        .choice = seq->index,
                                        .text_from = before,
                                        .text_to = seq->flow.certain,
                                        .finish = seq->finish });
}

/* Under the request's lock. */
static void publish_sequences(struct cinf_request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        if (seq->finish == CINF_FINISH_RUNNING)
            publish_sequence(r, seq);
        else if (!seq->finish_published)
            publish_finish(r, seq);
    }
}

static void publish_prompt(struct cinf_request *r)
{
    if (!r->prompt_logprobs || r->prompt_published || r->n_computed < r->n_prompt)
        return;
    r->prompt_published = true;
    for (uint32_t i = 0; i < r->n_prompt; i++)
        put_event(r, (struct queued_event){ .kind = CINF_EVENT_PROMPT,
                                            .index = i,
                                            .text_from = i ? r->prompt_ends[i - 1] : 0,
                                            .text_to = r->prompt_ends[i] });
}

/* Under the request's lock: tells the reader about events it cannot know of yet. */
static void announce(struct cinf_request *r, uint32_t n_before)
{
    if (r->n_in == n_before)
        return;
    pthread_cond_signal(&r->arrived);
    if (r->notify && r->n_out == n_before)
        r->notify(r->notify_context);
}

bool request_is_paused(struct cinf_request *r)
{
    pthread_mutex_lock(&r->lock);
    bool unread = r->n_in - r->n_out >= r->unread_max;
    pthread_mutex_unlock(&r->lock);
    return unread || atomic_load(&r->paused);
}

void request_publish(struct cinf_request *r)
{
    pthread_mutex_lock(&r->lock);
    uint32_t before = r->n_in;
    publish_prompt(r);
    publish_sequences(r);
    announce(r, before);
    pthread_mutex_unlock(&r->lock);
}

void request_end(struct cinf_request *r, enum cinf_finish finish)
{
    cinf_bill_close(r->bill, finish);
    struct cinf_engine *e = r->model->engine;
    if (finish == CINF_FINISH_FAILED)
        cinf_meter_count_error(e->meter, r->model->account, CINF_ERROR_DEVICE);
    if (finish == CINF_FINISH_TIMEOUT)
        cinf_meter_count_error(e->meter, r->model->account, CINF_ERROR_TIMEOUT);

    pthread_mutex_lock(&r->lock);
    uint32_t before = r->n_in;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        if (r->sequences[i].finish == CINF_FINISH_RUNNING)
            r->sequences[i].finish = finish;
    publish_sequences(r);
    put_event(r, (struct queued_event){ .kind = CINF_EVENT_END, .finish = finish });
    r->ended = true;
    r->finish = finish;
    announce(r, before);
    pthread_mutex_unlock(&r->lock);
    request_unref(r);
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

/* ---- The reader's side --------------------------------------------------------------------- */

static enum cinf_status wait_for_event(struct cinf_request *r, uint64_t timeout_ns)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t until = timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
    while (r->n_out == r->n_in) {
        if (timeout_ns == 0 || clock_monotonic_ns() >= until)
            return cinf_fail(CINF_EAGAIN, "no event yet");
        if (until == UINT64_MAX) {
            pthread_cond_wait(&r->arrived, &r->lock);
            continue;
        }
        struct timespec t = { .tv_sec = (time_t)(until / 1000000000u),
                              .tv_nsec = (long)(until % 1000000000u) };
        pthread_cond_timedwait(&r->arrived, &r->lock, &t);
    }
    return CINF_OK;
}

/* Copies what an event points to out of the scheduler's reach. */
static enum cinf_status fill_event(struct cinf_request *r, const struct queued_event *q,
                                   struct cinf_event *event)
{
    const struct sequence *seq = &r->sequences[q->choice];
    const struct textflow *flow = q->kind == CINF_EVENT_PROMPT ? &r->prompt_flow : &seq->flow;
    const struct cinf_logprob *top = NULL;
    *event = (struct cinf_event){ .struct_size = sizeof *event,
                                  .kind = q->kind,
                                  .choice = q->choice,
                                  .token = -1,
                                  .logprob = NAN,
                                  .finish = q->finish };
    if (q->kind == CINF_EVENT_TOKEN) {
        event->token = seq->ids[r->n_prompt + q->index];
        event->logprob = seq->logprobs[q->index];
        event->n_top = r->logprobs ? r->n_top : 0;
        top = seq->top + (size_t)q->index * r->n_top;
    } else if (q->kind == CINF_EVENT_PROMPT) {
        event->token = r->prompt[q->index];
        event->logprob = r->prompt_logprob[q->index];
        event->n_top = q->index ? r->n_top : 0;
        top = r->prompt_top + (size_t)q->index * r->n_top;
    }
    if (event->n_top)
        memcpy(r->event_top, top, event->n_top * sizeof *top);
    event->top = r->event_top;
    strbuf_clear(&r->event_text);
    if (q->kind != CINF_EVENT_END && q->text_to > q->text_from)
        strbuf_add(&r->event_text, flow->text.text + q->text_from, q->text_to - q->text_from);
    if (r->event_text.failed)
        return cinf_fail(CINF_ENOMEM, "no memory for an event's text");
    event->text = r->event_text.len ? r->event_text.text : "";
    event->text_bytes = r->event_text.len;
    return CINF_OK;
}

/* It may be waiting because nobody is there but requests that sit out. */
static void wake_scheduler(struct cinf_request *r)
{
    struct cinf_engine *e = r->model->engine;
    pthread_mutex_lock(&e->lock);
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

enum cinf_status cinf_request_next(struct cinf_request *r, uint64_t timeout_ns, struct cinf_event *event)
{
    struct cinf_event whole;
    pthread_mutex_lock(&r->lock);
    enum cinf_status status = wait_for_event(r, timeout_ns);
    if (status == CINF_OK)
        status = fill_event(r, &r->events[r->n_out], &whole);
    /* The last event stays: it can be pulled for ever. */
    bool sat_out = r->n_in - r->n_out >= r->unread_max;
    if (status == CINF_OK && whole.kind != CINF_EVENT_END)
        r->n_out++;
    bool goes_on = sat_out && r->n_in - r->n_out < r->unread_max;
    pthread_mutex_unlock(&r->lock);
    if (goes_on)
        wake_scheduler(r);
    TRY(status);
    versioned_write(event, &whole, sizeof whole);
    return CINF_OK;
}

void cinf_request_cancel(struct cinf_request *r, enum cinf_finish why)
{
    bool known = why == CINF_FINISH_CLIENT_GONE || why == CINF_FINISH_TIMEOUT;
    request_cancel(r, known ? why : CINF_FINISH_CANCELLED);
    wake_scheduler(r);
}

void cinf_request_pause(struct cinf_request *r, bool pause)
{
    atomic_store(&r->paused, pause);
    wake_scheduler(r);
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
