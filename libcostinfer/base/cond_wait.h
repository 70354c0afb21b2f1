/* cond_wait.h - waiting on a condition until a moment of clock_monotonic_ns(). */
#ifndef COND_WAIT_H
#define COND_WAIT_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* `condition` was initialized for CLOCK_MONOTONIC.  UINT64_MAX: as long as it takes. */
static inline void cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_ns)
{
    struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000u),
                              .tv_nsec = (long)(until_ns % 1000000000u) };
    if (until_ns == UINT64_MAX)
        pthread_cond_wait(condition, lock);
    else
        pthread_cond_timedwait(condition, lock, &until);
}

#endif
