#include <math.h>
#include <string.h>

#include "histogram.h"
#include "support.h"

START_TEST(a_value_on_a_bound_lands_in_that_bucket)
{
    /* le="0.1" reads "0.1 or less". */
    const struct histogram_bounds bounds = { 2, { 100, 200 } };
    struct histogram h = { 0 };
    static const uint64_t values[] = { 0, 99, 100, 101, 200, 201, UINT32_MAX };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        histogram_observe(&h, &bounds, values[i], 1);
    ck_assert_uint_eq(h.counts[0], 3);
    ck_assert_uint_eq(h.counts[1], 2);
    ck_assert_uint_eq(h.counts[2], 2);
    ck_assert_uint_eq(h.sum_ns, 0 + 99 + 100 + 101 + 200 + 201 + (uint64_t)UINT32_MAX);
}
END_TEST

START_TEST(several_at_once_count_several_times)
{
    const struct histogram_bounds bounds = { 1, { 100 } };
    struct histogram h = { 0 };
    histogram_observe(&h, &bounds, 50, 4);
    histogram_observe(&h, &bounds, 500, 3);
    ck_assert_uint_eq(h.counts[0], 4);
    ck_assert_uint_eq(h.counts[1], 3);
    ck_assert_uint_eq(h.sum_ns, 4 * 50 + 3 * 500);
}
END_TEST

START_TEST(bounds_are_read_from_seconds)
{
    struct histogram_bounds b;
    ck_ok(histogram_bounds_read(&b, (double[]){ 1e-9, 0.05, 0.1, 2.5, 1e9 }, 5));
    ck_assert_uint_eq(b.n, 5);
    ck_assert_uint_eq(b.ns[0], 1);
    ck_assert_uint_eq(b.ns[1], 50000000);
    ck_assert_uint_eq(b.ns[2], 100000000);
    ck_assert_uint_eq(b.ns[3], 2500000000);
    ck_assert_uint_eq(b.ns[4], 1000000000000000000);
}
END_TEST

START_TEST(bounds_that_are_refused)
{
    struct histogram_bounds b, before;
    memset(&b, 7, sizeof b);
    before = b;
    double many[HISTOGRAM_BOUNDS_MAX + 1];
    for (int i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
        many[i] = i + 1;
    ck_fails(histogram_bounds_read(&b, many, HISTOGRAM_BOUNDS_MAX + 1), CINF_EINVAL, "33 buckets");
    ck_fails(histogram_bounds_read(&b, many, 0), CINF_EINVAL, "0 buckets");
    ck_fails(histogram_bounds_read(&b, (double[]){ 0 }, 1), CINF_EINVAL, "bucket 0");
    ck_fails(histogram_bounds_read(&b, (double[]){ 1, -1 }, 2), CINF_EINVAL, "bucket 1");
    ck_fails(histogram_bounds_read(&b, (double[]){ NAN }, 1), CINF_EINVAL, "bucket 0");
    ck_fails(histogram_bounds_read(&b, (double[]){ INFINITY }, 1), CINF_EINVAL, "bucket 0");
    ck_fails(histogram_bounds_read(&b, (double[]){ 1e-10 }, 1), CINF_EINVAL, "bucket 0");
    ck_fails(histogram_bounds_read(&b, (double[]){ 1, 1 }, 2), CINF_EINVAL, "not above");
    ck_fails(histogram_bounds_read(&b, (double[]){ 2, 1 }, 2), CINF_EINVAL, "not above");
    ck_fails(histogram_bounds_read(&b, (double[]){ 1, 1 + 1e-12 }, 2), CINF_EINVAL, "not above");
    ck_assert(memcmp(&b, &before, sizeof b) == 0);
    ck_ok(histogram_bounds_read(&b, many, HISTOGRAM_BOUNDS_MAX));
}
END_TEST

START_TEST(fixed_bounds_ascend)
{
    const struct histogram_bounds *all[] = { &histogram_latency_bounds, &histogram_first_token_bounds,
                                             &histogram_inter_token_bounds, &histogram_queue_bounds };
    for (int k = 0; k < 4; k++) {
        ck_assert_uint_gt(all[k]->ns[0], 0);
        for (uint32_t i = 1; i < all[k]->n; i++)
            ck_assert_uint_lt(all[k]->ns[i - 1], all[k]->ns[i]);
        for (uint32_t i = all[k]->n; i < HISTOGRAM_BOUNDS_MAX; i++)
            ck_assert_uint_eq(all[k]->ns[i], 0);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("histogram");
    TCase *t = tcase_create("histogram");
    tcase_add_test(t, a_value_on_a_bound_lands_in_that_bucket);
    tcase_add_test(t, several_at_once_count_several_times);
    tcase_add_test(t, bounds_are_read_from_seconds);
    tcase_add_test(t, bounds_that_are_refused);
    tcase_add_test(t, fixed_bounds_ascend);
    suite_add_tcase(s, t);
    return s;
}
