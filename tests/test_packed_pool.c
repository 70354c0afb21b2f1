/* The pool runs every tile of every phase exactly once and the phases in order, whatever the number of
 * threads. */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "mem.h"
#include "packed_pool.h"
#include "support.h"

enum { PHASES = 40, TILES_MAX = 64 };

struct record {
    _Atomic uint32_t *phase_done; /* tiles done of each phase */
    const uint32_t *n_tiles;
    uint32_t phase, delay_us;
    uint32_t threads;
    atomic_uint times[TILES_MAX];
    atomic_bool early, bad_worker;
};

static void note(const void *job, uint32_t tile, uint32_t worker)
{
    struct record *r = (struct record *)(uintptr_t)job;
    if (r->phase > 0 && atomic_load(&r->phase_done[r->phase - 1]) != r->n_tiles[r->phase - 1])
        atomic_store(&r->early, true);
    if (worker >= r->threads)
        atomic_store(&r->bad_worker, true);
    atomic_fetch_add(&r->times[tile], 1);
    if (r->delay_us && tile % 3 == 0)
        nanosleep(&(struct timespec){ .tv_nsec = r->delay_us * 1000 }, NULL);
    atomic_fetch_add(&r->phase_done[r->phase], 1);
}

static void run_phases(uint32_t threads, uint32_t repeats, uint32_t delay_us)
{
    static struct record records[PHASES];
    static _Atomic uint32_t done[PHASES];
    uint32_t n_tiles[PHASES];
    struct pool_phase phases[PHASES];
    struct pool *pool;
    ck_ok(pool_new(&pool, threads));
    ck_assert_uint_eq(pool_threads(pool), threads);
    for (uint32_t repeat = 0; repeat < repeats; repeat++) {
        memset(records, 0, sizeof records);
        memset(done, 0, sizeof done);
        for (uint32_t i = 0; i < PHASES; i++) {
            n_tiles[i] = (i * 7 + repeat) % 5 == 0 ? 1 : (i * 13 + repeat) % TILES_MAX;
            records[i].phase_done = done;
            records[i].n_tiles = n_tiles;
            records[i].phase = i;
            records[i].threads = threads;
            records[i].delay_us = delay_us;
            phases[i] = (struct pool_phase){ note, &records[i], n_tiles[i] };
        }
        uint64_t end_ns[PHASES], before_ns = clock_monotonic_ns();
        pool_run_timed(pool, phases, PHASES, end_ns);
        for (uint32_t i = 0; i < PHASES; before_ns = end_ns[i++])
            ck_assert_uint_le(before_ns, end_ns[i]);
        ck_assert_uint_le(before_ns, clock_monotonic_ns());
        for (uint32_t i = 0; i < PHASES; i++) {
            ck_assert_uint_eq(done[i], n_tiles[i]);
            ck_assert(!records[i].early && !records[i].bad_worker);
            for (uint32_t t = 0; t < TILES_MAX; t++)
                ck_assert_uint_eq(records[i].times[t], t < n_tiles[i]);
        }
    }
    pool_free(pool);
}

START_TEST(every_tile_runs_once_and_after_the_phase_before)
{
    run_phases((uint32_t)_i, 20, 0);
}
END_TEST

START_TEST(waiting_threads_fall_asleep_and_wake)
{
    run_phases(3, 1, 150); /* longer than a wait spins */
}
END_TEST

START_TEST(more_threads_than_processors_lose_nothing)
{
    run_phases(17, 3, 0);
}
END_TEST

START_TEST(a_job_without_tiles_returns)
{
    struct pool *pool;
    ck_ok(pool_new(&pool, 2));
    pool_run(pool, NULL, 0);
    struct pool_phase none = { note, NULL, 0 };
    pool_run(pool, &none, 1);
    pool_free(pool);
}
END_TEST

START_TEST(quotas_are_rounded_to_whole_processors)
{
    ck_assert_uint_eq(pool_quota_of("max 100000\n"), 0);
    ck_assert_uint_eq(pool_quota_of("-1\n100000\n"), 0);
    ck_assert_uint_eq(pool_quota_of(""), 0);
    ck_assert_uint_eq(pool_quota_of("100000"), 0);
    ck_assert_uint_eq(pool_quota_of("20000 100000"), 1);
    ck_assert_uint_eq(pool_quota_of("140000 100000"), 1);
    ck_assert_uint_eq(pool_quota_of("150000 100000"), 2);
    ck_assert_uint_eq(pool_quota_of("400000 100000"), 4);
    ck_assert_uint_eq(pool_quota_of("99999999999 1"), POOL_THREADS_MAX);
}
END_TEST

START_TEST(the_default_number_is_possible)
{
    uint32_t n = pool_threads_default();
    ck_assert_uint_ge(n, 1);
    ck_assert_uint_le(n, POOL_THREADS_MAX);
    struct pool *pool;
    ck_ok(pool_new(&pool, 0));
    ck_assert_uint_eq(pool_threads(pool), n);
    pool_free(pool);
    pool_free(NULL);
}
END_TEST

START_TEST(failures_leave_the_result_alone)
{
    struct pool *pool = (struct pool *)&pool;
    ck_fails(pool_new(&pool, POOL_THREADS_MAX + 1), CINF_EINVAL, "257 threads");
    mem_fail_at(1);
    ck_fails(pool_new(&pool, 2), CINF_ENOMEM, "2 threads");
    mem_fail_at(0);
    ck_assert_ptr_eq(pool, (struct pool *)&pool);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("packed_pool");
    TCase *c = tcase_create("pool");
    tcase_add_loop_test(c, every_tile_runs_once_and_after_the_phase_before, 1, 5);
    tcase_add_test(c, waiting_threads_fall_asleep_and_wake);
    tcase_add_test(c, more_threads_than_processors_lose_nothing);
    tcase_add_test(c, a_job_without_tiles_returns);
    tcase_add_test(c, quotas_are_rounded_to_whole_processors);
    tcase_add_test(c, the_default_number_is_possible);
    tcase_add_test(c, failures_leave_the_result_alone);
    suite_add_tcase(s, c);
    return s;
}
