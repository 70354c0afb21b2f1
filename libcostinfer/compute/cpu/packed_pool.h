/* packed_pool.h - threads that live as long as the device, and work in phases of independent tiles.
 *
 * A job is a list of phases.  Threads take the tiles of a phase one by one as they become free, and the next
 * phase begins when all of its tiles are done.  A phase waits for tiles, not for threads: a thread that the
 * system preempts between tiles delays nothing.  A waiting thread spins for a moment and then sleeps, so that
 * an oversubscribed machine gets its processors back. */
#ifndef PACKED_POOL_H
#define PACKED_POOL_H

#include <stdint.h>

#include <costinfer/status.h>

struct pool;

struct pool_phase {
    /* Tiles 0 … n_tiles-1, concurrently and in any order.  `worker` is below pool_threads(). */
    void (*work)(const void *argument, uint32_t tile, uint32_t worker);
    const void *argument;
    uint32_t n_tiles; /* 0: nothing to do; 1: done by the thread that finished the phase before it */
};

enum { POOL_THREADS_MAX = 256 };

/* A pool of `threads` (the caller of pool_run() is one of them); 0: pool_threads_default(). */
enum cinf_status pool_new(struct pool **out, uint32_t threads);
void pool_free(struct pool *pool); /* accepts NULL */

uint32_t pool_threads(const struct pool *pool);

/* Runs the phases and returns when the last is done.  One caller at a time. */
void pool_run(struct pool *pool, const struct pool_phase *phases, uint32_t n_phases);

/* The same, and end_ns[n_phases] = clock_monotonic_ns() when each was done; end_ns may be NULL. */
void pool_run_timed(struct pool *pool, const struct pool_phase *phases, uint32_t n_phases, uint64_t *end_ns);

/* Cores that this process may run on (its affinity, hardware threads of one core counted once), and not
 * more than the CPU time that its control group gets; at least 1. */
uint32_t pool_threads_default(void);

/* CPUs that a cpu.max of "max 100000" or "150000 100000" grants, rounded to the nearest; 0: no limit.  Public
 * for tests. */
uint32_t pool_quota_of(const char *quota_and_period);

#endif
