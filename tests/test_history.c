/* The page's history: ticks, gaps, ranges and quantiles, over more than a day of a fake clock. */
#include <stdio.h>
#include <string.h>

#include "history.h"
#include "mem.h"
#include "support.h"

#define S(n) ((uint64_t)(n)*1000000000)

/* A device that has been up `at` seconds and serves one model for half of that: ten seconds out of twenty. */
static struct cinf_model_totals models[70];
static struct cinf_snapshot world(uint64_t at, uint32_t n_models)
{
    struct cinf_snapshot s = { CINF_SNAPSHOT, .n_endpoints = 2, .n_models = n_models, .models = models };
    memset(models, 0, sizeof models);
    for (uint32_t m = 0; m < n_models; m++) {
        models[m].name = "m";
        models[m].prefill_ns = at;
        models[m].decode_ns = at * 3;
        models[m].serve_cost = cinf_cost_of(at * 4, 1000000000);
        models[m].requests[0] = at;
        models[m].requests[1] = m;
        models[m].errors[CINF_ERROR_QUEUE_FULL] = 1;
        models[m].errors[CINF_ERROR_KINDS - 1] = 2;
        models[m].output_tokens = 5 * at;
        models[m].waiting = 2;
        s.serve_ns += at * 4;
    }
    s.idle_ns = S(at) - s.serve_ns;
    s.idle_cost = cinf_cost_of(s.idle_ns, 1000000000);
    return s;
}

static void record(struct history *h, uint64_t at, uint32_t n_models)
{
    struct cinf_snapshot s = world(at, n_models);
    ck_assert_int_eq(history_record(h, S(at), &s, at, 2 * at), CINF_OK);
}

static struct history *new_history(void)
{
    struct history *h;
    ck_assert_int_eq(history_new(&h), CINF_OK);
    return h;
}

START_TEST(the_start_is_zero)
{
    struct history *h = new_history();
    struct history_device d;
    struct history_model m;
    memset(&d, 1, sizeof d);
    ck_assert(history_device_at(h, 0, &d));
    ck_assert_uint_eq(d.idle_ns, 0);
    ck_assert(history_model_at(h, 3, 0, &m));
    ck_assert_uint_eq(m.requests, 0);
    ck_assert(!history_device_at(h, 1, &d));
    struct history_window w = history_window(h, S(4), S(900));
    ck_assert_uint_eq(w.base, 0);
    ck_assert_uint_eq(w.n_points, 0);
    ck_assert_uint_eq(w.step, 1);
    ck_assert_uint_eq(history_latency(h, 0, 0, HISTORY_NOW).latency.n, 0);
    history_free(h);
    history_free(NULL);
}
END_TEST

START_TEST(totals_are_kept)
{
    struct history *h = new_history();
    struct history_device d;
    struct history_model m;
    record(h, 10, 2);
    ck_assert(history_device_at(h, 1, &d));
    ck_assert_uint_eq(d.serve_ns, 80);
    ck_assert_uint_eq(d.serve_ns + d.load_ns + d.idle_ns, S(10));
    ck_assert_uint_eq(d.device_bytes, 10);
    ck_assert_uint_eq(d.process_bytes, 20);
    ck_assert(history_model_at(h, 1, 1, &m));
    ck_assert_uint_eq(m.prefill_ns, 10);
    ck_assert_uint_eq(m.decode_ns, 30);
    ck_assert_uint_eq(m.requests, 11); /* over the endpoints */
    ck_assert_uint_eq(m.errors, 3);    /* over the kinds */
    ck_assert_uint_eq(m.output_tokens, 50);
    ck_assert_uint_eq(m.waiting, 2);
    ck_assert_int_eq(cinf_cost_compare(m.serve_cost, cinf_cost_of(40, 1000000000)), 0);
    history_free(h);
}
END_TEST

START_TEST(a_tick_is_recorded_once)
{
    struct history *h = new_history();
    struct history_device d;
    struct cinf_snapshot s = world(9, 1);
    ck_assert_int_eq(history_record(h, S(9), &s, 9, 0), CINF_OK); /* a timer that was early: tick 1 */
    record(h, 11, 1);                                             /* too */
    ck_assert(history_device_at(h, 1, &d));
    ck_assert_uint_eq(d.device_bytes, 9);
    s = world(4, 1);
    ck_assert_int_eq(history_record(h, S(4), &s, 4, 0), CINF_OK); /* the past stays as it was */
    ck_assert(history_device_at(h, 0, &d));
    ck_assert_uint_eq(d.device_bytes, 0);
    history_free(h);
}
END_TEST

START_TEST(gaps_are_gaps)
{
    struct history *h = new_history();
    struct history_device d;
    struct history_model m;
    record(h, 10, 1);
    record(h, 50, 1);
    for (uint64_t tick = 2; tick <= 4; tick++) {
        d.serve_ns = 77;
        ck_assert(!history_device_at(h, tick, &d));
        ck_assert_uint_eq(d.serve_ns, 77);
        ck_assert(!history_model_at(h, 0, tick, &m));
    }
    ck_assert(history_device_at(h, 5, &d));
    /* A range that begins within the gap begins after it. */
    struct history_window w = history_window(h, S(50), S(20));
    ck_assert_uint_eq(w.base, 5);
    history_free(h);
}
END_TEST

START_TEST(a_model_that_comes_later_has_zeros_before)
{
    struct history *h = new_history();
    struct history_model m;
    record(h, 10, 1);
    record(h, 20, 2);
    ck_assert(history_model_at(h, 1, 1, &m));
    ck_assert_uint_eq(m.prefill_ns, 0);
    ck_assert(history_model_at(h, 1, 2, &m));
    ck_assert_uint_eq(m.prefill_ns, 20);
    history_free(h);
}
END_TEST

START_TEST(many_models_share_the_last_series)
{
    struct history *h = new_history();
    struct history_model m;
    record(h, 10, 70);
    struct cinf_snapshot s = world(10, 70);
    ck_assert_uint_eq(history_n_series(&s), HISTORY_SERIES_MAX);
    ck_assert(history_model_at(h, HISTORY_OTHERS, 1, &m));
    ck_assert_uint_eq(m.prefill_ns, 6 * 10); /* models 64 to 69 */
    ck_assert_uint_eq(m.waiting, 12);
    ck_assert(history_model_at(h, HISTORY_OTHERS - 1, 1, &m));
    ck_assert_uint_eq(m.prefill_ns, 10);
    history_observe(h, 69, S(1), 0);
    history_observe(h, 64, S(1), 0);
    ck_assert_uint_eq(history_latency(h, HISTORY_OTHERS, 0, HISTORY_NOW).latency.n, 2);
    s = world(10, 64);
    ck_assert_uint_eq(history_n_series(&s), 64);
    history_free(h);
}
END_TEST

START_TEST(latencies_belong_to_their_tick)
{
    struct history *h = new_history();
    record(h, 10, 1);
    for (int i = 0; i < 90; i++)
        history_observe(h, 0, 20000000, 2000000);
    for (int i = 0; i < 10; i++)
        history_observe(h, 0, S(2), 0);
    struct history_latency l = history_latency(h, 0, 1, HISTORY_NOW);
    ck_assert_uint_eq(l.latency.n, 100);
    ck_assert_uint_eq(l.first_token.n, 90);
    ck_assert_uint_eq(history_latency(h, 0, 0, 1).latency.n, 0); /* that tick was over */
    record(h, 20, 1);
    l = history_latency(h, 0, 1, 2);
    ck_assert_uint_eq(l.latency.n, 100);
    ck_assert(l.latency.p50_ns > 17700000 && l.latency.p50_ns <= 31700000);
    ck_assert(l.latency.p95_ns > 1778000000 && l.latency.p95_ns <= 3163000000);
    ck_assert(l.first_token.p95_ns > 1778000 && l.first_token.p95_ns <= 3163000);
    ck_assert_uint_eq(history_latency(h, 0, 2, HISTORY_NOW).latency.n, 0);
    history_free(h);
}
END_TEST

START_TEST(extreme_latencies)
{
    struct history *h = new_history();
    record(h, 10, 1);
    history_observe(h, 0, 0, 1);
    struct history_latency l = history_latency(h, 0, 0, HISTORY_NOW);
    ck_assert(l.latency.p95_ns <= 1000000 && l.latency.p50_ns >= 500000);
    history_observe(h, 0, UINT64_MAX, UINT64_MAX);
    history_observe(h, 0, UINT64_MAX, UINT64_MAX);
    l = history_latency(h, 0, 0, HISTORY_NOW);
    ck_assert_uint_eq(l.latency.p95_ns, S(100)); /* "at least" */
    for (int i = 0; i < 70000; i++)
        history_observe(h, 0, 5000000, 0); /* a full bucket stays full */
    ck_assert_uint_eq(history_latency(h, 0, 0, HISTORY_NOW).latency.n, 65535 + 3);
    history_free(h);
}
END_TEST

START_TEST(windows_are_bounded_and_stable)
{
    static const uint64_t ranges[] = { S(900), S(3600), S(21600), S(86400) };
    struct history *h = new_history();
    for (uint64_t tick = 1; tick <= 9000; tick++) {
        record(h, tick * 10, 1);
        for (int r = 0; r < 4 && tick % 7 == 0; r++) {
            struct history_window w = history_window(h, S(tick * 10 + 3), ranges[r]);
            uint64_t ticks = ranges[r] / HISTORY_TICK_NS;
            ck_assert_uint_eq(w.base, tick > ticks ? tick - ticks : 0);
            ck_assert_uint_le(w.n_points, HISTORY_POINTS_MAX);
            ck_assert_uint_eq(w.first % w.step, 0);
            ck_assert_uint_ge(w.first, w.base);
            ck_assert_uint_le(w.first + (uint64_t)w.n_points * w.step, tick);
            ck_assert_uint_gt(w.first + (uint64_t)(w.n_points + 1) * w.step, tick);
        }
    }
    history_free(h);
}
END_TEST

/* Days pass: the oldest ticks are dropped, totals stay exact, and no memory is allocated. */
START_TEST(three_days_in_the_same_memory)
{
    struct history *h = new_history();
    struct history_device a, b, d;
    struct history_model m, n;
    record(h, 10, 2);
    mem_fail_at(1); /* the next allocation would fail, and be noticed */
    for (uint64_t tick = 2; tick <= 3 * HISTORY_TICKS; tick++) {
        record(h, tick * 10, 2);
        history_observe(h, tick % 2, S(1), 1000);
    }
    ck_assert(!mem_fail_hit());
    mem_fail_at(0);
    uint64_t now = 3 * HISTORY_TICKS;
    struct history_window w = history_window(h, S(now * 10), S(86400));
    ck_assert_uint_eq(w.base, now - HISTORY_TICKS);
    ck_assert_uint_eq(w.n_points, HISTORY_POINTS_MAX);
    ck_assert(history_device_at(h, w.base, &a));
    ck_assert(history_device_at(h, now, &b));
    ck_assert_uint_eq(b.idle_ns + b.serve_ns - a.idle_ns - a.serve_ns, S(86400));
    ck_assert(!history_device_at(h, w.base - 1, &d));
    ck_assert(!history_device_at(h, 0, &d));
    ck_assert(!history_device_at(h, now + 1, &d));
    ck_assert(history_model_at(h, 1, w.base, &m) && history_model_at(h, 1, now, &n));
    ck_assert_uint_eq(n.output_tokens - m.output_tokens, 5 * 86400);
    ck_assert_uint_eq(history_latency(h, 1, w.base, HISTORY_NOW).latency.n, HISTORY_TICKS / 2);
    /* The points add up to the range. */
    struct cinf_cost sum = { 0 };
    for (uint32_t i = 0; i < w.n_points; i++) {
        ck_assert(history_model_at(h, 0, w.first + (uint64_t)i * w.step, &m));
        ck_assert(history_model_at(h, 0, w.first + (uint64_t)(i + 1) * w.step, &n));
        sum = cinf_cost_add(sum, history_cost_minus(n.serve_cost, m.serve_cost));
    }
    ck_assert_int_eq(cinf_cost_compare(sum, cinf_cost_of(4 * 86400, 1000000000)), 0);
    history_free(h);
}
END_TEST

START_TEST(differences_borrow)
{
    struct cinf_cost a = { .hi = 5, .lo = 1 }, b = { .hi = 4, .lo = 2 };
    struct cinf_cost d = history_cost_minus(a, b);
    ck_assert_uint_eq(d.hi, 0);
    ck_assert_uint_eq(d.lo, UINT64_MAX);
    ck_assert_int_eq(cinf_cost_compare(cinf_cost_add(d, b), a), 0);
}
END_TEST

/* Without memory, nothing is recorded, and the next tick is recorded again. */
START_TEST(no_memory)
{
    struct history *h = (void *)1;
    mem_fail_at(1);
    ck_assert_int_eq(history_new(&h), CINF_ENOMEM);
    ck_assert_ptr_eq(h, (void *)1);
    h = new_history();
    struct cinf_snapshot s = world(10, 3);
    struct history_device d;
    for (uint64_t n = 1; n <= 3; n++) {
        mem_fail_at(1);
        if (n == 1)
            history_observe(h, 0, S(1), 1);
        mem_fail_at(1);
        ck_assert_int_eq(history_record(h, S(10), &s, 0, 0), CINF_ENOMEM);
        ck_assert(!history_device_at(h, 1, &d));
    }
    mem_fail_at(0);
    ck_assert_int_eq(history_record(h, S(20), &s, 0, 0), CINF_OK);
    ck_assert(history_device_at(h, 2, &d));
    history_free(h);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("history");
    TCase *t = tcase_create("history");
    tcase_add_test(t, the_start_is_zero);
    tcase_add_test(t, totals_are_kept);
    tcase_add_test(t, a_tick_is_recorded_once);
    tcase_add_test(t, gaps_are_gaps);
    tcase_add_test(t, a_model_that_comes_later_has_zeros_before);
    tcase_add_test(t, many_models_share_the_last_series);
    tcase_add_test(t, latencies_belong_to_their_tick);
    tcase_add_test(t, extreme_latencies);
    tcase_add_test(t, windows_are_bounded_and_stable);
    tcase_add_test(t, three_days_in_the_same_memory);
    tcase_add_test(t, differences_borrow);
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    return s;
}
