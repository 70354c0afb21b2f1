#include "generation.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "access_log.h"
#include "clock.h"
#include "fail.h"
#include "keys.h"
#include "mem.h"
#include "problem.h"
#include "recorder.h"
#include "timers.h"
#include "watcher.h"

enum {
    TICK_NS = 250000000,
    UNREAD_MAX = 128, /* events computed ahead of a client; the events of one step are never split */
};

struct generation {
    struct orphan orphan; /* first: the watcher hands it back */
    struct service *service;
    struct generation *next, **link; /* in the service's list */
    struct access access;            /* the exchange's, once that is over */
    const char *endpoint;
    uint32_t account;
    bool stream;
    const struct generation_format *format;
    void *api;

    uint32_t n, n_ended, n_choices;
    struct cinf_request **requests; /* [n] */
    bool *ended;                    /* [n] */
    enum cinf_finish end_reason;    /* the first that is neither stop nor length; 0: none */
    struct strbuf out;
    size_t n_sent; /* of `out` */
    bool complete; /* `out` will not grow any more */

    /* Between the engine's thread and the connection's.  The library is never called while it is held: the
     * engine may be waiting for it in wake(). */
    pthread_mutex_t lock;
    struct exchange *x; /* NULL: over */
    bool suspended;
    bool woken; /* events may be waiting to be pulled */
    bool ping;  /* the stream has been silent for long */

    uint64_t sent_ns; /* when something was last sent */

    /* For streams, on the timers' thread. */
    struct timer tick;
    atomic_uint_fast64_t n_reads; /* requests for more to send */
    uint64_t n_reads_seen;        /* n_reads at the last tick */
    uint64_t moved_ns;            /* when a tick last saw a read, or nothing left to send */
};

const struct cinf_request *generation_request(const struct generation *g, uint32_t index)
{
    return g->requests[index];
}

/* Widens the time from `start_ns` on by one part's, which begins when it is submitted. */
static void add_span(struct cinf_report *sum, uint64_t *submitted_ns, const struct cinf_report *r)
{
    if (r->latency_ns == 0) { /* it never ran */
        if (sum->latency_ns == 0 && r->queue_ns > sum->queue_ns)
            sum->queue_ns = r->queue_ns;
        return;
    }
    bool first = sum->latency_ns == 0;
    uint64_t end_ns = sum->start_ns + sum->latency_ns, r_end_ns = r->start_ns + r->latency_ns;
    if (first || r->start_ns < sum->start_ns)
        sum->start_ns = r->start_ns;
    if (first || r->start_ns - r->queue_ns < *submitted_ns)
        *submitted_ns = r->start_ns - r->queue_ns;
    sum->latency_ns = (first || r_end_ns > end_ns ? r_end_ns : end_ns) - sum->start_ns;
    sum->queue_ns = sum->start_ns - *submitted_ns;
}

/* The device's time is added up, and the client's is that of the whole: from the first start to the last end.
 */
void generation_report(const struct generation *g, struct cinf_report *total)
{
    struct cinf_report sum = { CINF_REPORT, .finish = g->end_reason, .model = g->account };
    uint64_t submitted_ns = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        struct cinf_report r = { CINF_REPORT };
        cinf_request_report(g->requests[i], &r);
        sum.input_tokens += r.input_tokens;
        sum.cached_tokens += r.cached_tokens;
        sum.output_tokens += r.output_tokens;
        sum.device_ns += r.device_ns;
        sum.prefill_ns += r.prefill_ns;
        sum.decode_ns += r.decode_ns;
        sum.unpriced_ns += r.unpriced_ns;
        sum.cost = cinf_cost_add(sum.cost, r.cost);
        add_span(&sum, &submitted_ns, &r);
        sum.first_token_ns = r.first_token_ns > sum.first_token_ns ? r.first_token_ns : sum.first_token_ns;
        sum.lost_ns = r.lost_ns > sum.lost_ns ? r.lost_ns : sum.lost_ns;
        if (!sum.finish)
            sum.finish = r.finish;
    }
    *total = sum;
}

/* ---- Waking ------------------------------------------------------------------------------- */

/* The engine has events.  Runs on the engine's thread, so it only leaves a note. */
static void wake(void *context)
{
    struct generation *g = context;
    pthread_mutex_lock(&g->lock);
    g->woken = true;
    if (!g->x) {
        watcher_wake(g->service->watcher);
    } else if (g->suspended) {
        g->suspended = false;
        exchange_resume(g->x);
    }
    pthread_mutex_unlock(&g->lock);
}

/* Returns whether events may be waiting; if not, suspends the connection until there are some. */
static bool take_wake_or_suspend(struct generation *g, struct exchange *x)
{
    pthread_mutex_lock(&g->lock);
    bool woken = g->woken;
    g->woken = false;
    if (!woken) {
        g->suspended = true;
        exchange_suspend(x);
    }
    pthread_mutex_unlock(&g->lock);
    return woken;
}

static bool take_ping(struct generation *g)
{
    pthread_mutex_lock(&g->lock);
    bool ping = g->ping;
    g->ping = false;
    pthread_mutex_unlock(&g->lock);
    return ping;
}

static void cancel(struct generation *g, enum cinf_finish why)
{
    for (uint32_t i = 0; i < g->n; i++)
        cinf_request_cancel(g->requests[i], why);
}

/* The client hung up. */
static void client_gone(void *context)
{
    cancel(context, CINF_FINISH_CLIENT_GONE);
}

/* ---- Stalled and vanished clients ---------------------------------------------------------- */

static void note_sent(struct generation *g)
{
    pthread_mutex_lock(&g->lock);
    g->sent_ns = clock_monotonic_ns();
    pthread_mutex_unlock(&g->lock);
}

/* Returns whether the connection waits for the engine and not for its client.  If it has waited for long,
 * proxies and clients may think it dead: it is woken to send a comment. */
static bool is_waiting(struct generation *g, uint64_t now)
{
    pthread_mutex_lock(&g->lock);
    bool waiting = g->suspended;
    if (waiting && now - g->sent_ns >= g->service->ping_ns) {
        g->ping = true;
        g->sent_ns = now;
        g->suspended = false;
        exchange_resume(g->x);
    }
    pthread_mutex_unlock(&g->lock);
    return waiting;
}

/* Nothing is computed for a client that reads nothing (UNREAD_MAX), but its request holds memory. */
static uint64_t tick(void *context)
{
    struct generation *g = context;
    uint64_t now = clock_monotonic_ns(), n_reads = atomic_load(&g->n_reads);
    bool lost = exchange_is_lost(g->x);
    if (is_waiting(g, now) || n_reads != g->n_reads_seen) {
        g->n_reads_seen = n_reads;
        g->moved_ns = now;
    }
    if (!lost && now - g->moved_ns < g->service->stall_ns)
        return TICK_NS;
    cancel(g, lost ? CINF_FINISH_CLIENT_GONE : CINF_FINISH_TIMEOUT);
    exchange_hang_up(g->x);
    return 0;
}

/* ---- Pulling ------------------------------------------------------------------------------ */

static enum cinf_status status_of_finish(enum cinf_finish finish)
{
    return finish == CINF_FINISH_FAILED    ? CINF_EDEVICE
           : finish == CINF_FINISH_TIMEOUT ? CINF_EAGAIN
                                           : CINF_ECANCELLED;
}

static const char *message_of(const struct generation *g)
{
    if (g->end_reason == CINF_FINISH_TIMEOUT)
        return "the request took too long";
    if (g->end_reason != CINF_FINISH_FAILED)
        return "the request was cancelled, because the server or the model is shutting down";
    for (uint32_t i = 0; i < g->n; i++)
        if (*cinf_request_failure(g->requests[i]))
            return cinf_request_failure(g->requests[i]);
    return "the generation failed";
}

static void request_ended(struct generation *g, uint32_t index, enum cinf_finish finish)
{
    g->ended[index] = true;
    g->n_ended++;
    if (finish == CINF_FINISH_STOP || finish == CINF_FINISH_LENGTH || g->end_reason)
        return;
    g->end_reason = finish;
    cancel(g, finish == CINF_FINISH_CLIENT_GONE ? finish : CINF_FINISH_CANCELLED);
}

/* Takes all waiting events.  `orphan`: the client is gone, so nothing is written. */
static void pull(struct generation *g, bool orphan)
{
    for (uint32_t i = 0; i < g->n; i++) {
        struct cinf_event event = { CINF_EVENT };
        enum cinf_status status = CINF_OK;
        while (!g->ended[i] && (status = cinf_request_next(g->requests[i], 0, &event)) == CINF_OK) {
            if (event.kind == CINF_EVENT_END)
                request_ended(g, i, event.finish);
            else if (!orphan && !g->end_reason)
                g->format->event(g->api, g, i, &event, &g->out);
        }
        /* Out of memory is fatal here: no later wake-up would retry this event. */
        if (status != CINF_OK && status != CINF_EAGAIN)
            request_ended(g, i, CINF_FINISH_FAILED);
    }
    if (orphan || g->n_ended < g->n || g->complete)
        return;
    g->complete = true;
    if (!g->end_reason)
        g->format->end(g->api, g, &g->out);
    else if (g->stream && g->end_reason != CINF_FINISH_CLIENT_GONE)
        problem_event(&g->out, status_of_finish(g->end_reason), message_of(g));
}

/* ---- The connection's side ---------------------------------------------------------------- */

static void answer(struct generation *g, struct exchange *x)
{
    if (g->end_reason == CINF_FINISH_CLIENT_GONE || g->out.failed) {
        exchange_abandon(x);
    } else if (g->end_reason) {
        enum cinf_status status = status_of_finish(g->end_reason);
        problem_answer(x, cinf_fail(status, "%s", message_of(g)), NULL, NO_ACCOUNT);
    } else {
        exchange_send(x, 200, "application/json", g->out.text, g->out.len);
    }
}

static void proceed(void *context, struct exchange *x)
{
    struct generation *g = context;
    while (!g->complete) {
        if (!take_wake_or_suspend(g, x))
            return;
        pull(g, false);
    }
    answer(g, x);
}

static ssize_t read_out(void *context, struct exchange *x, char *bytes, size_t max)
{
    struct generation *g = context;
    atomic_fetch_add(&g->n_reads, 1);
    for (;;) {
        if (g->out.failed || g->end_reason == CINF_FINISH_CLIENT_GONE)
            return TASK_BROKEN;
        if (g->n_sent < g->out.len) {
            size_t n = g->out.len - g->n_sent < max ? g->out.len - g->n_sent : max;
            memcpy(bytes, g->out.text + g->n_sent, n);
            g->n_sent += n;
            note_sent(g);
            return (ssize_t)n;
        }
        strbuf_clear(&g->out);
        g->n_sent = 0;
        if (g->complete)
            return TASK_END;
        if (take_ping(g)) {
            strbuf_puts(&g->out, ": ping\n\n");
            continue;
        }
        if (!take_wake_or_suspend(g, x))
            return 0;
        pull(g, false);
    }
}

static void unlist(struct generation *g)
{
    struct generation_list *all = &g->service->generations;
    pthread_mutex_lock(&all->lock);
    if (g->link) {
        *g->link = g->next;
        if (g->next)
            g->next->link = g->link;
    }
    all->n--;
    pthread_mutex_unlock(&all->lock);
}

static void generation_free(struct generation *g)
{
    if (!g)
        return;
    unlist(g);
    for (uint32_t i = 0; i < g->n; i++)
        cinf_request_free(g->requests[i]);
    g->format->free(g->api);
    strbuf_free(&g->out);
    pthread_mutex_destroy(&g->lock);
    mem_free(g->requests);
    mem_free(g->ended);
    mem_free(g);
}

static void finish(struct generation *g)
{
    struct outcome outcome = {
        .endpoint = g->endpoint, .n_requests = g->n, .n_choices = g->n_choices, .stream = g->stream
    };
    generation_report(g, &outcome.report);
    access_log(&g->access, &outcome);
    recorder_add(g->service->recorder, &g->access, &outcome);
    generation_free(g);
}

/* Returns whether the engine will charge nothing more, so that the log has all that is billed. */
static bool is_final(const struct generation *g)
{
    for (uint32_t i = 0; i < g->n; i++) {
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(g->requests[i], &report);
        if (report.finish == CINF_FINISH_RUNNING)
            return false;
    }
    return true;
}

static bool poll_orphan(struct orphan *orphan)
{
    struct generation *g = (struct generation *)orphan;
    pull(g, true);
    if (g->n_ended < g->n)
        return false;
    if (!is_final(g)) {
        /* There was no memory for a request's last events, so it will not wake us, and it was cancelled. */
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        watcher_wake(g->service->watcher);
        return false;
    }
    finish(g);
    return true;
}

static void over(void *context, struct exchange *x)
{
    struct generation *g = context;
    timers_clear(g->service->timers, &g->tick);
    pthread_mutex_lock(&g->lock);
    g->x = NULL;
    g->access = *access_end(x);
    pthread_mutex_unlock(&g->lock);
    if (g->n_ended == g->n && is_final(g)) {
        finish(g);
        return;
    }
    cancel(g, CINF_FINISH_CLIENT_GONE);
    watcher_adopt(g->service->watcher, &g->orphan);
}

static const struct task whole_task = { .proceed = proceed, .gone = client_gone, .over = over };
static const struct task stream_task = { .read = read_out, .gone = client_gone, .over = over };

/* ---- Starting ----------------------------------------------------------------------------- */

static struct generation *new_generation(struct service *service, uint32_t n)
{
    struct generation *g = mem_new(1, sizeof *g);
    if (g) {
        g->requests = mem_new(n, sizeof *g->requests);
        g->ended = mem_new(n, sizeof *g->ended);
    }
    if (!g || !g->requests || !g->ended) {
        if (g)
            mem_free(g->requests);
        mem_free(g);
        return NULL;
    }
    g->service = service;
    g->orphan.poll = poll_orphan;
    g->woken = true;
    pthread_mutex_init(&g->lock, NULL);
    g->tick = (struct timer){ .fire = tick, .context = g };
    return g;
}

/* Counts a generation that is about to be; false while draining. */
static bool enter(struct generation_list *all)
{
    pthread_mutex_lock(&all->lock);
    bool open = !all->closed;
    if (open)
        all->n++;
    pthread_mutex_unlock(&all->lock);
    return open;
}

static void leave(struct generation_list *all)
{
    pthread_mutex_lock(&all->lock);
    all->n--;
    pthread_mutex_unlock(&all->lock);
}

static void list(struct generation *g)
{
    struct generation_list *all = &g->service->generations;
    pthread_mutex_lock(&all->lock);
    g->link = &all->first;
    g->next = all->first;
    if (g->next)
        g->next->link = &g->next;
    all->first = g;
    bool ending = all->ending;
    pthread_mutex_unlock(&all->lock);
    if (ending)
        cancel(g, CINF_FINISH_CANCELLED);
}

static enum cinf_status count_tokens(const struct cinf_model *model, const struct cinf_request_options *o,
                                     size_t *n)
{
    *n = o->n_prompt_ids;
    if (o->prompt_ids)
        return CINF_OK;
    int32_t *ids;
    TRY(cinf_tokenizer_encode(cinf_model_tokenizer(model), o->prompt, strlen(o->prompt), o->tokenize_flags,
                              &ids, n));
    cinf_ids_free(ids);
    return CINF_OK;
}

/* Clients recognize this failure by OpenAI's words, and shorten the first prompt that is too long by the
 * numbers in them. */
static enum cinf_status overflow(const struct cinf_model *model, const struct cinf_request_options *options,
                                 uint32_t n_prompts)
{
    struct cinf_model_info info = { CINF_MODEL_INFO };
    size_t n = 0;
    uint32_t i = 0;
    char which[40] = "your prompt";
    cinf_model_info(model, &info);
    for (; i < n_prompts && n <= info.config.n_positions; i++)
        TRY(count_tokens(model, &options[i], &n));
    if (n_prompts > 1)
        snprintf(which, sizeof which, "prompt %u of %u", i, n_prompts);
    return cinf_fail(CINF_ECONTEXT,
                     "This model's maximum context length is %u tokens. However, %s has %zu tokens. "
                     "Please reduce the length of the prompt.",
                     info.config.n_positions, which, n);
}

/* Submits all requests, or none: what is refused has not been billed. */
static enum cinf_status submit(struct generation *g, struct cinf_model *model,
                               struct cinf_request_options *options, uint32_t n)
{
    const struct cinf_request_options **each = mem_new(n, sizeof *each);
    if (!each)
        return cinf_fail(CINF_ENOMEM, "no memory for the request");
    const char *payer = keys_name(g->service->keys, access_of(g->x)->key);
    for (uint32_t i = 0; i < n; i++) {
        options[i].payer = payer;
        options[i].notify = wake;
        options[i].notify_context = g;
        options[i].unread_max = UNREAD_MAX;
        each[i] = &options[i];
        g->n_choices += options[i].n ? options[i].n : 1;
    }
    enum cinf_status status = cinf_request_submit_all(g->requests, model, each, n);
    mem_free(each);
    if (status == CINF_OK)
        g->n = n;
    return status == CINF_ECONTEXT ? overflow(model, options, n) : status;
}

void generation_start(struct exchange *x, struct cinf_model *model, struct cinf_request_options *options,
                      uint32_t n, bool stream, const struct generation_format *format, void *api)
{
    struct service *service = service_of(x);
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(model, &info);
    if (!enter(&service->generations)) {
        format->free(api);
        problem_draining(x, info.account);
        return;
    }
    struct generation *g = new_generation(service, n);
    if (!g) {
        leave(&service->generations);
        format->free(api);
        problem_answer(x, cinf_fail(CINF_ENOMEM, "no memory for the request"), NULL, info.account);
        return;
    }
    g->endpoint = service_endpoints[options[0].endpoint];
    g->account = info.account;
    g->stream = stream;
    g->format = format;
    g->api = api;
    g->x = x;
    enum cinf_status status = submit(g, model, options, n);
    if (status != CINF_OK) {
        /* The engine has counted it. */
        problem_answer(x, status, status == CINF_ECONTEXT ? "prompt" : NULL, NO_ACCOUNT);
        generation_free(g);
        return;
    }
    list(g);
    if (stream) {
        g->moved_ns = g->sent_ns = clock_monotonic_ns();
        timers_set(service->timers, &g->tick, TICK_NS);
        exchange_stream(x, &stream_task, g);
    } else {
        exchange_begin(x, &whole_task, g);
    }
}

/* ---- Draining ----------------------------------------------------------------------------- */

void generations_init(struct generation_list *all)
{
    *all = (struct generation_list){ 0 };
    pthread_mutex_init(&all->lock, NULL);
}

void generations_free(struct generation_list *all)
{
    pthread_mutex_destroy(&all->lock);
}

void generations_close(struct generation_list *all)
{
    pthread_mutex_lock(&all->lock);
    all->closed = true;
    pthread_mutex_unlock(&all->lock);
}

void generations_end(struct generation_list *all)
{
    pthread_mutex_lock(&all->lock);
    all->ending = true;
    for (struct generation *g = all->first; g; g = g->next)
        cancel(g, CINF_FINISH_CANCELLED);
    pthread_mutex_unlock(&all->lock);
}

bool generations_closed(struct generation_list *all)
{
    pthread_mutex_lock(&all->lock);
    bool closed = all->closed;
    pthread_mutex_unlock(&all->lock);
    return closed;
}

uint32_t generations_count(struct generation_list *all)
{
    pthread_mutex_lock(&all->lock);
    uint32_t n = all->n;
    pthread_mutex_unlock(&all->lock);
    return n;
}
