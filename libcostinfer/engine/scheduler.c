/* scheduler.c - the one thread that serves an engine's models, and the only writer of its meter.
 *
 * Continuous batching: each step takes the model that has had least of the device, and of that model one row
 * of every request that is generating and a piece of every prompt that is still being computed.  A request
 * joins when enough slots are free and leaves between two steps.  One that is paused stays in its slots until
 * another request wants them.
 *
 *     loop:  calls of other threads -> ended and cancelled requests leave -> waiting ones are admitted
 *            -> one step (step.c), and one piece of a load (model_load.c)
 *
 * The question a reader will ask: why one thread?  The device is used by one thread at a time anyway, and
 * with a single writer neither the models' state nor the meter needs a lock between two boundaries of time.
 *
 * And: why are a paused request's keys and values not copied out when it loses its slots?  A copy would have
 * to be charged to it while it is paused, for a reader who may never come back.  They are computed again when
 * it goes on, in its own rows, as far as no slot holds them any more: a slot keeps them until another request
 * has overwritten them. */
#include "scheduler.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "cond_wait.h"
#include "engine_state.h"
#include "memory_gauges.h"
#include "model_load.h"
#include "models.h"
#include "request.h"
#include "request_events.h"
#include "scheduler_call.h"
#include "slots.h"
#include "step.h"

enum {
    LOAD_WAIT_NS = 20000000, /* how often time is charged while a load's files are being opened */
    PARK_NS = 20000000,      /* a request that has been paused for so long may lose its slots */
};

/* ---- Policy: who leaves, who enters, whose step is next ------------------------------------ */

/* Why a request must end before the next step; CINF_FINISH_RUNNING if it need not. */
static enum cinf_finish must_end(const struct cinf_request *r, uint64_t now)
{
    enum cinf_finish why = (enum cinf_finish)atomic_load(&r->cancel);
    return why == CINF_FINISH_RUNNING && now >= r->deadline_ns ? CINF_FINISH_TIMEOUT : why;
}

/* Moves the requests that must end from a list to the front of *out; returns how many. */
static uint32_t take_ended(struct cinf_request **list, struct cinf_request ***list_end, uint64_t now,
                           struct cinf_request **out)
{
    uint32_t n = 0;
    struct cinf_request **at = list;
    while (*at) {
        struct cinf_request *r = *at;
        if (must_end(r, now) == CINF_FINISH_RUNNING) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        r->next = *out;
        *out = r;
        n++;
    }
    if (list_end)
        *list_end = at;
    return n;
}

static void end_requests(struct cinf_engine *e, struct cinf_request *list, uint64_t now)
{
    while (list) {
        struct cinf_request *r = list;
        list = r->next;
        slots_release(e, r);
        request_end(r, must_end(r, now));
    }
}

/* Caller holds engine.lock.  True if no request was active at the last charge; the time since then, in which
 * the last tokens were handed out, must not be billed to a request that arrived later. */
static bool was_idle(const struct cinf_engine *e, const struct cinf_model *next)
{
    for (const struct cinf_model *m = e->models; m; m = m->next) {
        for (struct cinf_request *r = m->running; r; r = r->next)
            if (!r->paused_ns)
                return false;
        /* The first in the queue is the one that arrived first. */
        if (m->waiting && (m != next || m->waiting->submitted_ns < e->charged_ns))
            return false;
    }
    return !e->loads;
}

/* Notes which requests are paused, and since when, for this round of the loop.  Caller holds engine.lock. */
static void look_at_pauses(struct cinf_engine *e, uint64_t now)
{
    for (struct cinf_model *m = e->models; m; m = m->next)
        for (struct cinf_request *r = m->running; r; r = r->next)
            r->paused_ns = !request_is_paused(r) ? 0 : r->paused_ns ? r->paused_ns : now;
}

/* The next request that is to be given slots: one that has given its own up, else the first of the queue that
 * is not paused.  Caller holds engine.lock. */
static struct cinf_request **next_to_enter(struct cinf_model *model)
{
    for (struct cinf_request **at = &model->running; *at; at = &(*at)->next)
        if ((*at)->parked && !(*at)->paused_ns)
            return at;
    for (struct cinf_request **at = &model->waiting; *at; at = &(*at)->next)
        if (!atomic_load(&(*at)->paused))
            return at;
    return NULL;
}

static bool can_be_parked(const struct cinf_request *r, uint64_t now)
{
    return r->paused_ns && !r->parked && now - r->paused_ns >= PARK_NS;
}

/* Caller holds engine.lock, as for the next three. */
static bool has_room(const struct cinf_model *model, const struct cinf_request *entering, uint64_t now)
{
    uint32_t n = atomic_load(&model->n_free);
    for (const struct cinf_request *r = model->running; r; r = r->next)
        n += can_be_parked(r, now) ? slots_held(r) : 0;
    return n >= slots_needed(entering);
}

/* The paused request that has least to compute again. */
static struct cinf_request *next_to_park(const struct cinf_model *model, uint64_t now)
{
    struct cinf_request *next = NULL;
    uint64_t next_tokens = 0;
    for (struct cinf_request *r = model->running; r; r = r->next) {
        uint64_t tokens = 0;
        for (uint32_t i = 0; i < r->n_sequences; i++)
            tokens += r->sequences[i].slot ? r->sequences[i].slot->n_tokens : 0;
        if (can_be_parked(r, now) && (!next || tokens < next_tokens)) {
            next = r;
            next_tokens = tokens;
        }
    }
    return next;
}

/* Has paused requests give up as many slots as the request needs. */
static void make_room(struct cinf_engine *e, struct cinf_model *model, const struct cinf_request *entering,
                      uint64_t now)
{
    while (atomic_load(&model->n_free) < slots_needed(entering)) {
        struct cinf_request *r = next_to_park(model, now);
        assert(r); /* has_room() was asked */
        slots_release(e, r);
        request_set_parked(r, true);
    }
    atomic_fetch_sub(&model->n_free, slots_needed(entering));
}

/* Admits requests, oldest first, as long as they fit.  Only the model whose step comes next admits any: a
 * prefix copy then falls into the interval that its request is charged for. */
static void admit_waiting(struct cinf_engine *e, struct cinf_model *model, uint64_t now)
{
    struct cinf_request **at, **end = &model->running;
    pthread_mutex_lock(&e->lock);
    while ((at = next_to_enter(model)) && has_room(model, *at, now)) {
        struct cinf_request *r = *at;
        make_room(e, model, r, now);
        if (!r->parked) {
            *at = r->next;
            if (!*at)
                model->waiting_end = at;
            model->n_waiting--;
            e->n_waiting--;
            r->next = NULL;
            while (*end)
                end = &(*end)->next;
            *end = r;
        }
        request_set_parked(r, false);
        pthread_mutex_unlock(&e->lock);
        slots_take(e, r);
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
}

/* Caller holds engine.lock.  True if a request can have rows in a step, or can enter. */
static bool has_work(struct cinf_model *model, uint64_t now)
{
    for (struct cinf_request *r = model->running; r; r = r->next)
        if (!r->paused_ns && !r->parked)
            return true;
    struct cinf_request **next = next_to_enter(model);
    return next && has_room(model, *next, now);
}

/* Caller holds engine.lock.  Among the models with work, the one that has had least of the device.  A model
 * that had no work for a while does not catch up on that time: it starts level with the others. */
static struct cinf_model *next_model(struct cinf_engine *e, uint64_t now)
{
    uint64_t min_ns = UINT64_MAX;
    for (struct cinf_model *m = e->models; m; m = m->next)
        if (m->was_active && has_work(m, now) && m->served_ns < min_ns)
            min_ns = m->served_ns;
    struct cinf_model *best = NULL;
    for (struct cinf_model *m = e->models; m; m = m->next) {
        if (!has_work(m, now)) {
            m->was_active = false;
            continue;
        }
        if (!m->was_active && min_ns != UINT64_MAX && m->served_ns < min_ns)
            m->served_ns = min_ns;
        m->was_active = true;
        if (!best || m->served_ns < best->served_ns)
            best = m;
    }
    return best;
}

/* ---- The loop ------------------------------------------------------------------------------ */

/* Cancels every request, has every model unload and fails every load.  Caller holds engine.lock, which is
 * released in between. */
static void close_all(struct cinf_engine *e)
{
    model_loads_abort(e);
    for (struct cinf_model *m = e->models; m; m = m->next) {
        m->unloading = true;
        struct cinf_request *lists[] = { m->waiting, m->running };
        for (int i = 0; i < 2; i++)
            for (struct cinf_request *r = lists[i]; r; r = r->next)
                request_cancel(r, CINF_FINISH_CANCELLED);
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When something is to be done although nothing new has come: a deadline passes, or a request has been paused
 * for long enough to give its slots to one that waits.  Caller holds engine.lock. */
static uint64_t next_event(const struct cinf_engine *e, uint64_t now)
{
    uint64_t next = e->gauges_due_ns;
    for (const struct cinf_model *m = e->models; m; m = m->next) {
        const struct cinf_request *lists[] = { m->waiting, m->running };
        for (int i = 0; i < 2; i++)
            for (const struct cinf_request *r = lists[i]; r; r = r->next) {
                next = earlier(next, r->deadline_ns);
                if (r->paused_ns && !r->parked && !can_be_parked(r, now))
                    next = earlier(next, r->paused_ns + PARK_NS);
            }
    }
    return next;
}

/* Ends the requests that must end.  Caller holds engine.lock, which is released during that; true if there
 * were any. */
static bool run_ends(struct cinf_engine *e)
{
    struct cinf_request *ended = NULL;
    uint64_t now = clock_monotonic_ns();
    for (struct cinf_model *m = e->models; m; m = m->next) {
        uint32_t n = take_ended(&m->waiting, &m->waiting_end, now, &ended);
        m->n_waiting -= n;
        e->n_waiting -= n;
        take_ended(&m->running, NULL, now, &ended);
    }
    if (!ended)
        return false;
    pthread_mutex_unlock(&e->lock);
    end_requests(e, ended, now);
    pthread_mutex_lock(&e->lock);
    return true;
}

/* A step of the model and a piece of the load; either may be NULL.  Caller holds engine.lock, which is
 * released during both. */
static void run_work(struct cinf_engine *e, struct cinf_model *model, struct model_load *load, uint64_t now)
{
    if (was_idle(e, model))
        cinf_meter_idle(e->meter);
    pthread_mutex_unlock(&e->lock);
    cinf_meter_busy(e->meter);
    if (model) {
        admit_waiting(e, model, now);
        step_run(e, model);
    }
    if (load)
        model_load_run(e, load);
    pthread_mutex_lock(&e->lock);
}

/* Every load still waits for its caller's thread to open its files: that is loading time too.  Caller holds
 * engine.lock. */
static void wait_for_files(struct cinf_engine *e)
{
    uint32_t account = e->loads->model->account;
    cinf_meter_busy(e->meter);
    cond_wait_until(&e->work, &e->lock, clock_monotonic_ns() + LOAD_WAIT_NS);
    cinf_meter_charge_load(e->meter, account);
}

void *scheduler_main(void *engine)
{
    struct cinf_engine *e = engine;
    device_threads_add_self(&e->threads);
    pthread_mutex_lock(&e->lock);
    for (;;) {
        if (e->gauges_due_ns < UINT64_MAX && clock_monotonic_ns() >= e->gauges_due_ns) {
            pthread_mutex_unlock(&e->lock);
            memory_gauges_update(e);
            pthread_mutex_lock(&e->lock);
        }
        scheduler_run_calls(e);
        if (e->closing)
            close_all(e);
        bool ended = run_ends(e);
        /* What was looked at so far may have changed while the lock was released. */
        if (models_run_unloads(e) || ended)
            continue;

        uint64_t now = clock_monotonic_ns();
        look_at_pauses(e, now);
        struct cinf_model *model = next_model(e, now);
        struct model_load *load = model_load_ready(e);
        if (model || load) {
            run_work(e, model, load, now);
        } else if (e->loads) {
            wait_for_files(e);
        } else if (!e->calls) {
            cinf_meter_idle(e->meter);
            if (e->closing && !e->models)
                break;
            /* Every remaining request is paused or is waiting for a slot held by a paused one. */
            cond_wait_until(&e->work, &e->lock, next_event(e, now));
        }
    }
    e->stopped = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}
