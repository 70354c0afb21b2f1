/* packed_pool.c - see packed_pool.h.
 *
 * One word holds the whole state: the upper half is the number of the current phase since the pool began, the
 * lower half is the number of tiles that no thread has taken yet, or NO_JOB.  A thread takes a tile by
 * decrementing it with compare-and-swap, which fails for a thread that slept through the end of its phase.
 * So only a thread that holds a tile reads the fields of the job, and they cannot change while it does. */
#define _GNU_SOURCE /* sched_getaffinity() */
#include "packed_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "fail.h"
#include "mem.h"

/* About what it costs to sleep and be woken, so spinning that long doubles the price of a wait at most. */
enum { SPIN_NS = 50000, SPINS_PER_LOOK = 64 };

#define NO_JOB ((uint64_t)1 << 31)

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t index;
};

struct pool {
    /* Written all the time, so each has a cache line of its own. */
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) _Atomic uint32_t tiles_done;
    _Alignas(64) atomic_uint sleepers;
    atomic_bool closing;

    /* The job; stable for a thread that holds a tile. */
    const struct pool_phase *phases;
    uint32_t n_phases, at;
    uint64_t *end_ns; /* [n_phases] or NULL */

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t n_threads, n_started;
    struct worker workers[POOL_THREADS_MAX];
};

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wake_sleepers(struct pool *pool)
{
    /* Sequentially consistent, as in sleep_until_changed(): either this thread sees the sleeper, or the
     * sleeper sees the new state. */
    if (atomic_load(&pool->sleepers) == 0)
        return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->mutex);
}

static bool changed(const struct pool *pool, uint64_t state)
{
    return atomic_load(&pool->state) != state || atomic_load(&pool->closing);
}

static void sleep_until_changed(struct pool *pool, uint64_t state)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!changed(pool, state))
        pthread_cond_wait(&pool->changed, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void wait_until_changed(struct pool *pool, uint64_t state)
{
    uint64_t start = 0;
    for (;;) {
        for (uint32_t i = 0; i < SPINS_PER_LOOK; i++) {
            if (changed(pool, state))
                return;
            pause_briefly();
        }
        uint64_t now = clock_monotonic_ns();
        if (start == 0)
            start = now;
        if (now - start > SPIN_NS)
            break;
    }
    sleep_until_changed(pool, state);
}

static void note_end(const struct pool *pool, uint32_t at)
{
    if (pool->end_ns)
        pool->end_ns[at] = clock_monotonic_ns();
}

/* Opens phase `at` or the next one that more than one thread can work on; after the last the job is over.
 * The caller is the only thread that has anything to do at that moment. */
static void advance(struct pool *pool, uint32_t at, uint32_t worker)
{
    for (; at < pool->n_phases && pool->phases[at].n_tiles <= 1; at++) {
        if (pool->phases[at].n_tiles == 1)
            pool->phases[at].work(pool->phases[at].argument, 0, worker);
        note_end(pool, at);
    }
    uint64_t tiles = at < pool->n_phases ? pool->phases[at].n_tiles : NO_JOB;
    uint64_t number = (atomic_load_explicit(&pool->state, memory_order_relaxed) >> 32) + 1;
    pool->at = at;
    atomic_store_explicit(&pool->tiles_done, 0, memory_order_relaxed);
    /* From here on other threads may be in the next phase. */
    atomic_store(&pool->state, number << 32 | tiles);
    wake_sleepers(pool);
}

/* One tile of the current phase, if one is left. */
static bool work_on_tile(struct pool *pool, uint64_t state, uint32_t worker)
{
    uint32_t left = (uint32_t)state;
    if (left == 0 || left == NO_JOB)
        return false;
    if (!atomic_compare_exchange_strong(&pool->state, &state, state - 1))
        return true; /* another thread was faster: look again */
    uint32_t at = pool->at;
    const struct pool_phase *phase = &pool->phases[at];
    uint32_t n_tiles = phase->n_tiles;
    phase->work(phase->argument, n_tiles - left, worker);
    if (atomic_fetch_add(&pool->tiles_done, 1) + 1 == n_tiles) {
        note_end(pool, at);
        advance(pool, at + 1, worker);
    }
    return true;
}

static void *work(void *argument)
{
    struct worker *self = argument;
    struct pool *pool = self->pool;
    while (!atomic_load(&pool->closing)) {
        uint64_t state = atomic_load(&pool->state);
        if (!work_on_tile(pool, state, self->index))
            wait_until_changed(pool, state);
    }
    return NULL;
}

void pool_run(struct pool *pool, const struct pool_phase *phases, uint32_t n_phases)
{
    pool_run_timed(pool, phases, n_phases, NULL);
}

void pool_run_timed(struct pool *pool, const struct pool_phase *phases, uint32_t n_phases, uint64_t *end_ns)
{
    pool->phases = phases;
    pool->n_phases = n_phases;
    pool->end_ns = end_ns;
    advance(pool, 0, 0);
    uint64_t state;
    while (!((state = atomic_load(&pool->state)) & NO_JOB)) {
        if (!work_on_tile(pool, state, 0))
            wait_until_changed(pool, state);
    }
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->n_threads;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->closing, true);
    wake_sleepers(pool);
    for (uint32_t i = 1; i <= pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->mutex);
    mem_free(pool);
}

enum cinf_status pool_new(struct pool **out, uint32_t threads)
{
    if (threads > POOL_THREADS_MAX)
        return cinf_fail(CINF_EINVAL, "%u threads; at most %d are possible", threads, POOL_THREADS_MAX);
    if (threads == 0)
        threads = pool_threads_default();
    struct pool *pool = mem_new_aligned(64, 1, sizeof *pool);
    if (!pool)
        return cinf_fail(CINF_ENOMEM, "no memory for %u threads", threads);
    memset(pool, 0, sizeof *pool);
    atomic_store(&pool->state, NO_JOB);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->changed, NULL);
    pool->n_threads = threads;
    for (uint32_t i = 1; i < threads; i++) {
        pool->workers[i] = (struct worker){ .pool = pool, .index = i };
        int error = pthread_create(&pool->workers[i].thread, NULL, work, &pool->workers[i]);
        if (error != 0) {
            pool_free(pool);
            return cinf_fail(CINF_ENOMEM, "thread %u of %u cannot be started: %s", i + 1, threads,
                             strerror(error));
        }
        pool->n_started = i;
    }
    *out = pool;
    return CINF_OK;
}

/* ---- How many ------------------------------------------------------------------------------ */

/* Whether `cpu` is the first of its core's hardware threads; true where that is unknown. */
static bool is_first_of_core(int cpu, const cpu_set_t *allowed)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "r");
    if (!f)
        return true;
    /* "0,64" or "0-1": the first one that this process may use stands for the core. */
    bool first = true;
    int a, b, c;
    while (fscanf(f, "%d", &a) == 1) {
        b = a;
        c = fgetc(f);
        if (c == '-' && fscanf(f, "%d", &b) == 1)
            c = fgetc(f);
        for (int i = a; i <= b && i < cpu && i < CPU_SETSIZE; i++)
            first = first && !(i >= 0 && CPU_ISSET(i, allowed));
        if (c != ',')
            break;
    }
    fclose(f);
    return first;
}

uint32_t pool_quota_of(const char *text)
{
    char *end;
    double quota = strtod(text, &end); /* "max" and version 1's -1 are not limits */
    double period = strtod(end, NULL);
    if (end == text || !(quota > 0) || !(period > 0))
        return 0;
    double cpus = quota / period + 0.5;
    return cpus < 1 ? 1 : cpus > POOL_THREADS_MAX ? POOL_THREADS_MAX : (uint32_t)cpus;
}

static bool read_line(const char *path, char *line, int size)
{
    FILE *f = fopen(path, "r");
    bool read = f && fgets(line, size, f);
    if (f)
        fclose(f);
    return read;
}

static uint32_t quota_in(const char *path)
{
    char line[64];
    return read_line(path, line, sizeof line) ? pool_quota_of(line) : 0;
}

static uint32_t quota_of_version_1(void)
{
    char quota[32], period[32], both[64];
    if (!read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota, sizeof quota) ||
        !read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period, sizeof period))
        return 0;
    snprintf(both, sizeof both, "%s%s", quota, period); /* each with its line feed */
    return pool_quota_of(both);
}

/* The tightest limit from the process's own control group up to the root. */
static uint32_t cgroup_quota(void)
{
    char line[512], path[640];
    uint32_t quota = quota_in("/sys/fs/cgroup/cpu.max");
    if (quota == 0)
        quota = quota_of_version_1();
    FILE *f = fopen("/proc/self/cgroup", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        line[strcspn(line, "\n")] = 0;
        for (char *slash; (slash = strrchr(line + 3, '/')) && slash[1]; *slash = 0) {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
            uint32_t q = quota_in(path);
            if (q > 0 && (quota == 0 || q < quota))
                quota = q;
        }
    }
    if (f)
        fclose(f);
    return quota;
}

uint32_t pool_threads_default(void)
{
    cpu_set_t allowed;
    uint32_t cores = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        cores += CPU_ISSET(cpu, &allowed) && is_first_of_core(cpu, &allowed);
    uint32_t quota = cgroup_quota();
    if (quota > 0 && quota < cores)
        cores = quota;
    return cores == 0 ? 1 : cores > POOL_THREADS_MAX ? POOL_THREADS_MAX : cores;
}
