/* The weight of a request's part of a step: its definition, and that it neither overflows nor loses precision
 * on the fastest and the slowest devices. */
#include "support.h"

#include "split.h"
#include "step_weight.h"

/* GPT-2 XL: 1.5e9 parameters in f32, 512 rows of one request and one row of another. */
static const struct model_work many = { .flops = 512ull * 3115 * 1000000,
                                        .weight_bytes = 6230ull * 1000000,
                                        .kv_bytes = 512ull * 614400 * 2 };
static const struct model_work one = { .flops = 3115ull * 1000000,
                                       .weight_bytes = 6230ull * 1000000,
                                       .kv_bytes = 614400 };

static const struct {
    uint64_t as_per_flop, as_per_byte;
    double many_s, one_s; /* what they take alone */
} devices[] = {
    { 1000, 100000, 1.594880e-3 + 6.29e-5, 6.23e-4 + 6.1e-8 },      /* 1 PFLOPS, 10 TB/s */
    { 1, 1, 1.594880e-6 + 6.3e-10, 6.23e-9 + 6.1e-13 },             /* the smallest constants */
    { 1000000000, 200000000, 1594.88 + 0.1258, 3.115 + 0.0001229 }, /* 1 GFLOPS, 5 GB/s */
    { UINT64_C(1) << 62, UINT64_C(1) << 62, 0, 0 },                 /* slower than any device */
};
enum { DEVICES = sizeof devices / sizeof *devices };

static double seconds(u128 as)
{
    return (double)as / 1e18;
}

static bool near(double a, double b)
{
    return a > b * 0.999 && a < b * 1.001;
}

START_TEST(extremes)
{
    uint64_t per_flop = devices[_i].as_per_flop, per_byte = devices[_i].as_per_byte;
    u128 a = step_weight(&many, 0, per_flop, per_byte), b = step_weight(&one, 0, per_flop, per_byte);
    ck_assert(a > b);
    ck_assert(a / per_flop >= many.flops); /* no overflow */
    if (devices[_i].many_s > 0) {
        ck_assert_msg(near(seconds(a), devices[_i].many_s), "%g", seconds(a));
        ck_assert_msg(near(seconds(b), devices[_i].one_s), "%g", seconds(b));
    }

    /* With many parts in a step, its time is still split by these weights. */
    enum { PARTS = 1024 };
    static struct split_part parts[PARTS];
    u128 total = a + (PARTS - 1) * b;
    unsigned shift = step_weight_shift(total);
    for (int i = 0; i < PARTS; i++)
        parts[i] = (struct split_part){ .next = i + 1 < PARTS ? &parts[i + 1] : NULL,
                                        .weight = (uint64_t)((i == 0 ? a : b) >> shift) };
    uint64_t turn = 0, sum = 0, ns = 3000000000;
    split_interval(parts, ns, &turn);
    for (int i = 0; i < PARTS; i++)
        sum += parts[i].ns;
    ck_assert_uint_eq(sum, ns);
    double share = seconds(a) / seconds(total);
    ck_assert_msg(near((double)parts[0].ns / (double)ns, share), "%g and %g",
                  (double)parts[0].ns / (double)ns, share);
    ck_assert_uint_gt(parts[1].ns, 0);
}
END_TEST

START_TEST(parts_of_a_weight)
{
    struct model_work w = { .flops = 7, .weight_bytes = 5, .kv_bytes = 3 };
    ck_assert(step_weight(&w, 0, 10, 1) == 73);  /* arithmetic takes longer */
    ck_assert(step_weight(&w, 0, 1, 10) == 80);  /* reading does */
    ck_assert(step_weight(&w, 4, 1, 10) == 120); /* a copied prefix is read and written as well */
    ck_assert(step_weight(&w, UINT64_MAX, 0, 1) == (u128)UINT64_MAX + 8);
    w = (struct model_work){ 0 };
    ck_assert(step_weight(&w, 0, 1000, 1000) == 0);
}
END_TEST

START_TEST(shifts)
{
    ck_assert_uint_eq(step_weight_shift(0), 0);
    ck_assert_uint_eq(step_weight_shift(UINT64_MAX), 0);
    ck_assert_uint_eq(step_weight_shift((u128)UINT64_MAX + 1), 1);
    ck_assert_uint_eq(step_weight_shift((u128)UINT64_MAX * 4), 2);
    ck_assert_uint_eq(step_weight_shift(~(u128)0), 64);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("step_weight");
    TCase *t = tcase_create("step_weight");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, extremes, 0, DEVICES);
    tcase_add_test(t, parts_of_a_weight);
    tcase_add_test(t, shifts);
    suite_add_tcase(s, t);
    return s;
}
