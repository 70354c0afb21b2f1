#include "timers.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "clock.h"
#include "fail.h"
#include "mem.h"

struct timers {
    pthread_t thread;
    pthread_mutex_t lock; /* held while fire() runs */
    pthread_cond_t earlier;
    struct timer *first;
    uint64_t wakes_ns; /* when the thread will next walk the list */
    bool stopping;
};

static void put(struct timers *t, struct timer *timer, uint64_t at_ns)
{
    timer->at_ns = at_ns;
    if (timer->link)
        return;
    timer->link = &t->first;
    timer->next = t->first;
    if (timer->next)
        timer->next->link = &timer->next;
    t->first = timer;
}

static void take(struct timer *timer)
{
    if (!timer->link)
        return;
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    timer->link = NULL;
}

/* Fires the timers that are due and returns when the next one will be. */
static uint64_t fire_due(struct timers *t)
{
    uint64_t next_ns = UINT64_MAX, now = clock_monotonic_ns();
    for (struct timer *timer = t->first, *next; timer; timer = next) {
        next = timer->next;
        if (timer->at_ns <= now) {
            uint64_t again = timer->fire(timer->context);
            if (again)
                timer->at_ns = now + again;
            else
                take(timer);
        }
        if (timer->link && timer->at_ns < next_ns)
            next_ns = timer->at_ns;
    }
    return next_ns;
}

static void *timers_run(void *context)
{
    struct timers *t = context;
    pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        t->wakes_ns = fire_due(t);
        struct timespec until = { .tv_sec = (time_t)(t->wakes_ns / 1000000000u),
                                  .tv_nsec = (long)(t->wakes_ns % 1000000000u) };
        if (t->wakes_ns == UINT64_MAX)
            pthread_cond_wait(&t->earlier, &t->lock);
        else
            pthread_cond_timedwait(&t->earlier, &t->lock, &until);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

enum cinf_status timers_start(struct timers **out)
{
    pthread_condattr_t monotonic;
    struct timers *t = mem_new(1, sizeof *t);
    if (!t)
        return cinf_fail(CINF_ENOMEM, "no memory for timers");
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t->earlier, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&t->thread, NULL, timers_run, t) != 0) {
        pthread_cond_destroy(&t->earlier);
        pthread_mutex_destroy(&t->lock);
        mem_free(t);
        return cinf_fail(CINF_EIO, "cannot start the timers' thread");
    }
    *out = t;
    return CINF_OK;
}

void timers_stop(struct timers *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_signal(&t->earlier);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->earlier);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

void timers_set(struct timers *t, struct timer *timer, uint64_t after_ns)
{
    uint64_t at_ns = clock_monotonic_ns() + after_ns;
    pthread_mutex_lock(&t->lock);
    put(t, timer, at_ns);
    if (at_ns < t->wakes_ns)
        pthread_cond_signal(&t->earlier);
    pthread_mutex_unlock(&t->lock);
}

void timers_clear(struct timers *t, struct timer *timer)
{
    pthread_mutex_lock(&t->lock);
    take(timer);
    pthread_mutex_unlock(&t->lock);
}
