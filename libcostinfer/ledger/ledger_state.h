/* ledger_state.h - the struct behind the handle, which the files ledger*.c share: what each thread may touch,
 * and under which lock. */
#ifndef LEDGER_STATE_H
#define LEDGER_STATE_H

#include <costinfer/ledger.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <time.h>

#include "commit.h"
#include "observer.h"

#define SECOND_NS UINT64_C(1000000000)
#define MS_NS     UINT64_C(1000000)

/* An ended request as the charging thread has it: the names are the meter's. */
struct told {
    uint64_t number, ended_ns, age_ns, period;
    const char *model, *payer, *endpoint;
    struct bill_counters counters;
    struct note *note;
};

struct sample {
    struct sample *next;
    struct cinf_snapshot snapshot;
    uint64_t wall_ns;
};

struct cinf_ledger {
    char *instance;
    uint32_t records_max;
    uint64_t commit_ns;
    struct store_lock lock;
    int wake[2];
    pthread_t thread;
    atomic_bool stop;
    struct observer observer;

    /* Written by the charging thread, read by gather(). */
    struct told *ring; /* [records_max] */
    _Atomic uint64_t head, tail;
    atomic_bool woken;
    _Atomic uint64_t dropped; /* requests that found no room */
    _Atomic uint64_t taken;   /* from the ring, and not committed yet */
    uint64_t period;          /* of the price in force */
    pthread_mutex_t samples_lock;
    struct sample *samples, **samples_end;
    bool missed; /* a sample, for want of memory */

    /* Under gather_lock, which is never held during input or output. */
    pthread_mutex_t gather_lock;
    const struct cinf_meter *meter; /* NULL: none, or it has left */
    bool following;                 /* a boot that has not been committed to its end */
    bool left;
    struct tally tally;
    struct batch next;
    struct boot boot;
    char *device;
    char *endpoints[CINF_ENDPOINTS_MAX];

    /* The ledger's thread. */
    struct committer committer;
    ino_t file;
    int64_t next_boot;
    struct batch flight; /* what is being written */
    bool flying;
    struct tally_state committed;
    uint64_t retry_at_ns, retry_ms, committed_at_ns;

    pthread_mutex_t status_lock;
    pthread_cond_t changed;
    struct cinf_ledger_status status;
    uint64_t flush_wanted, flush_done;
};

static inline uint64_t real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

#endif
