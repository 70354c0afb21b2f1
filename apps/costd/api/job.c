#include "job.h"

#include <stdatomic.h>
#include <string.h>

#include "access_log.h"
#include "clock.h"
#include "fail.h"
#include "mem.h"
#include "problem.h"
#include "recorder.h"
#include "timers.h"
#include "watcher.h"

enum {
    TICK_NS = 250000000,
    UNREAD_MAX = 128, /* events that are computed ahead of a client; what one step gives is never cut */
};

struct job {
    struct orphan orphan; /* first: the watcher hands it back */
    struct service *service;
    struct job *next, **link; /* in the service's list */
    struct access access;     /* of the exchange, once that is over */
    const char *endpoint;
    uint32_t account;
    uint32_t key;
    bool stream;
    bool refused; /* one of its requests was not accepted, and `x` is answered */
    const struct job_format *format;
    void *api;

    uint32_t n, n_ended;
    struct cinf_request **requests; /* [n] */
    bool *ended;                    /* [n] */
    enum cinf_finish bad;           /* the first way to end that is neither stop nor length; 0: none */
    struct strbuf out;
    size_t n_sent; /* of `out` */
    bool complete; /* `out` will not grow any more */

    /* Between the engine's thread and the connection's.  No call into the library while it is held: the
     * engine may be waiting for it in wake(). */
    pthread_mutex_t lock;
    struct exchange *x; /* NULL: over */
    bool suspended;
    bool woken; /* there may be events to pull */
    bool ping;  /* the stream was silent for long */

    uint64_t sent_ns; /* when there was last something to send */

    /* Of a stream: on the timers' thread. */
    struct timer tick;
    atomic_uint_fast64_t n_reads; /* calls for more to send */
    uint64_t n_reads_seen;        /* of them, by the last tick */
    uint64_t moved_ns;            /* when a tick last saw it move, or nothing left to send */
};

const struct cinf_request *job_request(const struct job *job, uint32_t index)
{
    return job->requests[index];
}

void job_report(const struct job *job, struct cinf_report *total)
{
    struct cinf_report sum = { CINF_REPORT, .finish = job->bad, .model = job->account };
    for (uint32_t i = 0; i < job->n; i++) {
        struct cinf_report r = { CINF_REPORT };
        cinf_request_report(job->requests[i], &r);
        sum.input_tokens += r.input_tokens;
        sum.cached_tokens += r.cached_tokens;
        sum.output_tokens += r.output_tokens;
        sum.device_ns += r.device_ns;
        sum.prefill_ns += r.prefill_ns;
        sum.decode_ns += r.decode_ns;
        sum.unpriced_ns += r.unpriced_ns;
        sum.cost = cinf_cost_add(sum.cost, r.cost);
        sum.queue_ns = r.queue_ns > sum.queue_ns ? r.queue_ns : sum.queue_ns;
        sum.latency_ns = r.latency_ns > sum.latency_ns ? r.latency_ns : sum.latency_ns;
        sum.first_token_ns = r.first_token_ns > sum.first_token_ns ? r.first_token_ns : sum.first_token_ns;
        if (!sum.finish)
            sum.finish = r.finish;
    }
    *total = sum;
}

/* ---- Waking ------------------------------------------------------------------------------- */

/* The engine has events.  On its thread, so it only leaves word. */
static void wake(void *context)
{
    struct job *job = context;
    pthread_mutex_lock(&job->lock);
    job->woken = true;
    if (!job->x) {
        watcher_wake(job->service->watcher);
    } else if (job->suspended) {
        job->suspended = false;
        exchange_resume(job->x);
    }
    pthread_mutex_unlock(&job->lock);
}

/* Whether there may be events; if not, the connection is suspended until there are. */
static bool take_wake_or_suspend(struct job *job, struct exchange *x)
{
    pthread_mutex_lock(&job->lock);
    bool woken = job->woken;
    job->woken = false;
    if (!woken) {
        job->suspended = true;
        exchange_suspend(x);
    }
    pthread_mutex_unlock(&job->lock);
    return woken;
}

static bool take_ping(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    bool ping = job->ping;
    job->ping = false;
    pthread_mutex_unlock(&job->lock);
    return ping;
}

static void cancel(struct job *job, enum cinf_finish why)
{
    for (uint32_t i = 0; i < job->n; i++)
        cinf_request_cancel(job->requests[i], why);
}

/* The client hung up. */
static void client_gone(void *context)
{
    cancel(context, CINF_FINISH_CLIENT_GONE);
}

/* ---- Stalled and vanished clients ---------------------------------------------------------- */

static void note_sent(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    job->sent_ns = clock_monotonic_ns();
    pthread_mutex_unlock(&job->lock);
}

/* Whether the connection waits for the engine, and not for its client.  If that has been so for long, proxies
 * and clients may think it dead: it is woken to say that it is not. */
static bool is_waiting(struct job *job, uint64_t now)
{
    pthread_mutex_lock(&job->lock);
    bool waiting = job->suspended;
    if (waiting && now - job->sent_ns >= job->service->ping_ns) {
        job->ping = true;
        job->sent_ns = now;
        job->suspended = false;
        exchange_resume(job->x);
    }
    pthread_mutex_unlock(&job->lock);
    return waiting;
}

/* A client that reads nothing has nothing computed for it (UNREAD_MAX), but it holds its slots. */
static uint64_t tick(void *context)
{
    struct job *job = context;
    uint64_t now = clock_monotonic_ns(), n_reads = atomic_load(&job->n_reads);
    bool lost = exchange_is_lost(job->x);
    if (is_waiting(job, now) || n_reads != job->n_reads_seen) {
        job->n_reads_seen = n_reads;
        job->moved_ns = now;
    }
    if (!lost && now - job->moved_ns < job->service->stall_ns)
        return TICK_NS;
    cancel(job, lost ? CINF_FINISH_CLIENT_GONE : CINF_FINISH_TIMEOUT);
    exchange_hang_up(job->x);
    return 0;
}

/* ---- Pulling ------------------------------------------------------------------------------ */

static enum cinf_status status_of_finish(enum cinf_finish finish)
{
    return finish == CINF_FINISH_FAILED    ? CINF_EDEVICE
           : finish == CINF_FINISH_TIMEOUT ? CINF_EAGAIN
                                           : CINF_ECANCELLED;
}

static const char *message_of(const struct job *job)
{
    if (job->bad == CINF_FINISH_TIMEOUT)
        return "the request took too long";
    if (job->bad != CINF_FINISH_FAILED)
        return "the request was cancelled, because the server or the model is shutting down";
    for (uint32_t i = 0; i < job->n; i++)
        if (*cinf_request_failure(job->requests[i]))
            return cinf_request_failure(job->requests[i]);
    return "the generation failed";
}

static void request_ended(struct job *job, uint32_t index, enum cinf_finish finish)
{
    job->ended[index] = true;
    job->n_ended++;
    if (finish == CINF_FINISH_STOP || finish == CINF_FINISH_LENGTH || job->bad)
        return;
    job->bad = finish;
    cancel(job, finish == CINF_FINISH_CLIENT_GONE ? finish : CINF_FINISH_CANCELLED);
}

/* Takes all events that are there.  `orphan`: nobody reads what they would be written to. */
static void pull(struct job *job, bool orphan)
{
    for (uint32_t i = 0; i < job->n; i++) {
        struct cinf_event event = { CINF_EVENT };
        enum cinf_status status = CINF_OK;
        while (!job->ended[i] && (status = cinf_request_next(job->requests[i], 0, &event)) == CINF_OK) {
            if (event.kind == CINF_EVENT_END)
                request_ended(job, i, event.finish);
            else if (!orphan && !job->bad)
                job->format->event(job->api, job, i, &event, &job->out);
        }
        /* Without memory for an event there is no way on: nobody would tell us to try again. */
        if (status != CINF_OK && status != CINF_EAGAIN)
            request_ended(job, i, CINF_FINISH_FAILED);
    }
    if (orphan || job->n_ended < job->n || job->complete)
        return;
    job->complete = true;
    if (!job->bad)
        job->format->end(job->api, job, &job->out);
    else if (job->stream && job->bad != CINF_FINISH_CLIENT_GONE)
        problem_event(&job->out, status_of_finish(job->bad), message_of(job));
}

/* ---- The connection's side ---------------------------------------------------------------- */

static void answer(struct job *job, struct exchange *x)
{
    if (job->bad == CINF_FINISH_CLIENT_GONE || job->out.failed) {
        exchange_abandon(x);
    } else if (job->bad) {
        enum cinf_status status = status_of_finish(job->bad);
        problem_answer(x, cinf_fail(status, "%s", message_of(job)), NULL, NO_ACCOUNT);
    } else {
        exchange_send(x, 200, "application/json", job->out.text, job->out.len);
    }
}

static void proceed(void *context, struct exchange *x)
{
    struct job *job = context;
    while (!job->complete) {
        if (!take_wake_or_suspend(job, x))
            return;
        pull(job, false);
    }
    answer(job, x);
}

static ssize_t read_out(void *context, struct exchange *x, char *bytes, size_t max)
{
    struct job *job = context;
    atomic_fetch_add(&job->n_reads, 1);
    for (;;) {
        if (job->out.failed || job->bad == CINF_FINISH_CLIENT_GONE)
            return TASK_BROKEN;
        if (job->n_sent < job->out.len) {
            size_t n = job->out.len - job->n_sent < max ? job->out.len - job->n_sent : max;
            memcpy(bytes, job->out.text + job->n_sent, n);
            job->n_sent += n;
            note_sent(job);
            return (ssize_t)n;
        }
        strbuf_clear(&job->out);
        job->n_sent = 0;
        if (job->complete)
            return TASK_END;
        if (take_ping(job)) {
            strbuf_puts(&job->out, ": ping\n\n");
            continue;
        }
        if (!take_wake_or_suspend(job, x))
            return 0;
        pull(job, false);
    }
}

static void add_use(struct key_use *use, const struct job *job)
{
    for (uint32_t i = 0; i < job->n; i++) {
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(job->requests[i], &report);
        use->device_ns += report.device_ns;
        use->cost = cinf_cost_add(use->cost, report.cost);
    }
}

static void unlist(struct job *job)
{
    struct job_list *jobs = &job->service->jobs;
    pthread_mutex_lock(&jobs->lock);
    add_use(&jobs->uses[job->key], job);
    if (job->link) {
        *job->link = job->next;
        if (job->next)
            job->next->link = job->link;
    }
    jobs->n--;
    pthread_mutex_unlock(&jobs->lock);
}

static void job_free(struct job *job)
{
    if (!job)
        return;
    unlist(job);
    for (uint32_t i = 0; i < job->n; i++)
        cinf_request_free(job->requests[i]);
    job->format->free(job->api);
    strbuf_free(&job->out);
    pthread_mutex_destroy(&job->lock);
    mem_free(job->requests);
    mem_free(job->ended);
    mem_free(job);
}

static void finish(struct job *job)
{
    struct generation generation = { .endpoint = job->endpoint, .stream = job->stream };
    if (!job->refused) {
        job_report(job, &generation.report);
        access_log(&job->access, &generation);
        recorder_add(job->service->recorder, &job->access, &generation);
    }
    job_free(job);
}

static bool poll_orphan(struct orphan *orphan)
{
    struct job *job = (struct job *)orphan;
    pull(job, true);
    if (job->n_ended < job->n)
        return false;
    finish(job);
    return true;
}

static void over(void *context, struct exchange *x)
{
    struct job *job = context;
    timers_clear(job->service->timers, &job->tick);
    pthread_mutex_lock(&job->lock);
    job->x = NULL;
    job->access = *access_end(x);
    pthread_mutex_unlock(&job->lock);
    if (job->n_ended == job->n) {
        finish(job);
        return;
    }
    cancel(job, CINF_FINISH_CLIENT_GONE);
    watcher_adopt(job->service->watcher, &job->orphan);
}

static const struct task whole_task = { .proceed = proceed, .gone = client_gone, .over = over };
static const struct task stream_task = { .read = read_out, .gone = client_gone, .over = over };

/* ---- Starting ----------------------------------------------------------------------------- */

static struct job *new_job(struct service *service, uint32_t n)
{
    struct job *job = mem_new(1, sizeof *job);
    if (job) {
        job->requests = mem_new(n, sizeof *job->requests);
        job->ended = mem_new(n, sizeof *job->ended);
    }
    if (!job || !job->requests || !job->ended) {
        if (job)
            mem_free(job->requests);
        mem_free(job);
        return NULL;
    }
    job->service = service;
    job->orphan.poll = poll_orphan;
    job->woken = true;
    pthread_mutex_init(&job->lock, NULL);
    job->tick = (struct timer){ .fire = tick, .context = job };
    return job;
}

/* Counts a job that is about to be; false while draining. */
static bool enter(struct job_list *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    bool open = !jobs->closed;
    if (open)
        jobs->n++;
    pthread_mutex_unlock(&jobs->lock);
    return open;
}

static void leave(struct job_list *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->n--;
    pthread_mutex_unlock(&jobs->lock);
}

static void list(struct job *job)
{
    struct job_list *jobs = &job->service->jobs;
    pthread_mutex_lock(&jobs->lock);
    job->link = &jobs->first;
    job->next = jobs->first;
    if (job->next)
        job->next->link = &job->next;
    jobs->first = job;
    bool ending = jobs->ending;
    pthread_mutex_unlock(&jobs->lock);
    if (ending)
        cancel(job, CINF_FINISH_CANCELLED);
}

/* Those that were accepted before the refusal may have used the device already: they are somebody's bill. */
static void refuse(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    job->x = NULL;
    pthread_mutex_unlock(&job->lock);
    job->refused = true;
    list(job);
    cancel(job, CINF_FINISH_CANCELLED);
    watcher_adopt(job->service->watcher, &job->orphan);
}

void job_start(struct exchange *x, struct cinf_model *model, struct cinf_request_options *options, uint32_t n,
               bool stream, const struct job_format *format, void *api)
{
    struct service *service = service_of(x);
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(model, &info);
    if (!enter(&service->jobs)) {
        format->free(api);
        problem_draining(x, info.account);
        return;
    }
    struct job *job = new_job(service, n);
    if (!job) {
        leave(&service->jobs);
        format->free(api);
        problem_answer(x, cinf_fail(CINF_ENOMEM, "no memory for the request"), NULL, info.account);
        return;
    }
    job->endpoint = service_endpoints[options[0].endpoint];
    job->account = info.account;
    job->key = access_of(x)->key;
    job->stream = stream;
    job->format = format;
    job->api = api;
    job->x = x;
    while (job->n < n) {
        options[job->n].notify = wake;
        options[job->n].notify_context = job;
        options[job->n].unread_max = UNREAD_MAX;
        enum cinf_status status = cinf_request_submit(&job->requests[job->n], model, &options[job->n]);
        if (status != CINF_OK) {
            problem_answer(x, status, NULL, NO_ACCOUNT); /* the engine has counted it */
            if (job->n > 0)
                refuse(job);
            else
                job_free(job);
            return;
        }
        job->n++;
    }
    list(job);
    if (stream) {
        job->moved_ns = job->sent_ns = clock_monotonic_ns();
        timers_set(service->timers, &job->tick, TICK_NS);
        exchange_stream(x, &stream_task, job);
    } else {
        exchange_begin(x, &whole_task, job);
    }
}

/* ---- Draining ----------------------------------------------------------------------------- */

enum cinf_status jobs_init(struct job_list *jobs, uint32_t n_keys)
{
    *jobs = (struct job_list){ .n_uses = 1 + n_keys };
    jobs->uses = mem_new(jobs->n_uses, sizeof *jobs->uses);
    pthread_mutex_init(&jobs->lock, NULL);
    return jobs->uses ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for %u keys", n_keys);
}

void jobs_free(struct job_list *jobs)
{
    pthread_mutex_destroy(&jobs->lock);
    mem_free(jobs->uses);
}

void jobs_uses(struct job_list *jobs, struct key_use *uses)
{
    pthread_mutex_lock(&jobs->lock);
    memcpy(uses, jobs->uses, jobs->n_uses * sizeof *uses);
    for (const struct job *job = jobs->first; job; job = job->next)
        add_use(&uses[job->key], job);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_close(struct job_list *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->closed = true;
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_end(struct job_list *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->ending = true;
    for (struct job *job = jobs->first; job; job = job->next)
        cancel(job, CINF_FINISH_CANCELLED);
    pthread_mutex_unlock(&jobs->lock);
}

bool jobs_closed(struct job_list *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    bool closed = jobs->closed;
    pthread_mutex_unlock(&jobs->lock);
    return closed;
}

uint32_t jobs_count(struct job_list *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    uint32_t n = jobs->n;
    pthread_mutex_unlock(&jobs->lock);
    return n;
}
