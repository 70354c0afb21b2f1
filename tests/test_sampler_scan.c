/* The loops over a vocabulary: what they compute, and that every version of them gives the same bits. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"
#include "sampler_scan.h"

enum { N = 5 * SCAN_BLOCK + 77, BLOCKS = 6 };

static const struct weighing plain = { .best = 0, .temperature = 1, .floor = -INFINITY };

static uint32_t n_scans(void)
{
    uint32_t n = 0;
    while (sampler_scan_at(n))
        n++;
    return n;
}

START_TEST(a_weight_is_the_exponential_to_2_35)
{
    static const float temperatures[] = { 0.01f, 0.7f, 1, 3, 100 };
    for (uint32_t v = 0; v < n_scans(); v++) {
        for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
            struct weighing how = { .best = 3, .temperature = temperatures[t], .floor = -INFINITY };
            for (int first = 0; first < 64 * SCAN_BLOCK; first += SCAN_BLOCK) {
                float x[SCAN_BLOCK], w[SCAN_BLOCK];
                for (int i = 0; i < SCAN_BLOCK; i++)
                    x[i] = 3 - (float)(first + i) * how.temperature / 256;
                sampler_scan_at(v)->weights(w, x, SCAN_BLOCK, &how);
                for (int i = 0; i < SCAN_BLOCK; i++) {
                    double quotient = (x[i] - how.best) / how.temperature, right = exp(quotient);
                    ck_assert_msg(fabs(w[i] - right) <= 4e-7 * right + 0x1p-36, "exp(%g) is %g, not %g",
                                  quotient, right, w[i]);
                    ck_assert_double_eq(rint(w[i] * 0x1p35), w[i] * 0x1p35);
                    ck_assert_double_le(w[i], 1);
                }
                ck_assert(first > 0 || (w[0] == 1 && w[1] < 1));
            }
        }
    }
}
END_TEST

START_TEST(what_has_no_weight)
{
    const float x[] = { 0, -1, -24, -25, -40, -1e30f, -FLT_MAX, -INFINITY, -2, -0.999f, -0.0f };
    enum { HERE = sizeof x / sizeof *x };
    for (uint32_t v = 0; v < n_scans(); v++) {
        struct weighing how = plain;
        float w[SCAN_BLOCK];
        sampler_scan_at(v)->weights(w, x, HERE, &how);
        for (uint32_t i = 0; i < SCAN_BLOCK; i++)
            ck_assert_int_eq(w[i] > 0, i < 3 || (i >= 8 && i < HERE));
        how.floor = -1;
        sampler_scan_at(v)->weights(w, x, HERE, &how);
        for (uint32_t i = 0; i < SCAN_BLOCK; i++)
            ck_assert_int_eq(w[i] > 0, i < 2 || (i >= 9 && i < HERE));
        how = (struct weighing){ .best = 0, .temperature = FLT_MIN, .floor = -FLT_MAX };
        sampler_scan_at(v)->weights(w, x, HERE, &how);
        for (uint32_t i = 0; i < SCAN_BLOCK; i++)
            ck_assert_float_eq(w[i], i == 0 || i == 10);
    }
}
END_TEST

START_TEST(maxima_are_of_each_block)
{
    float x[N], maxima[BLOCKS + 1];
    for (uint32_t v = 0; v < n_scans(); v++) {
        const struct sampler_scan *scan = sampler_scan_at(v);
        for (uint32_t at = 0; at < N; at++) {
            for (uint32_t i = 0; i < N; i++)
                x[i] = -(float)i;
            x[at] = 9;
            maxima[BLOCKS] = 77;
            ck_assert(scan->maxima(maxima, x, N));
            for (uint32_t b = 0; b < BLOCKS; b++)
                ck_assert_float_eq(maxima[b], b == at / SCAN_BLOCK ? 9 : -(float)b * SCAN_BLOCK);
            ck_assert_float_eq(maxima[BLOCKS], 77);
            x[at] = -INFINITY;
            ck_assert(scan->maxima(maxima, x, N));
            x[at] = NAN;
            ck_assert(!scan->maxima(maxima, x, N));
            ck_assert_float_eq(maxima[at / SCAN_BLOCK],
                               -(float)(at % SCAN_BLOCK ? at - at % SCAN_BLOCK : at + 1));
            ck_assert(at == N - 1 || scan->maxima(maxima, x + at + 1, N - at - 1));
            ck_assert(at == 0 || scan->maxima(maxima, x, at));
            x[at] = INFINITY;
            ck_assert(!scan->maxima(maxima, x, N));
        }
        for (uint32_t i = 0; i < N; i++)
            x[i] = i < SCAN_BLOCK ? -INFINITY : -FLT_MAX;
        ck_assert(scan->maxima(maxima, x, N));
        ck_assert_float_eq(maxima[0], -INFINITY);
        ck_assert_float_eq(maxima[1], -FLT_MAX);
    }
}
END_TEST

/* Flat logits have the largest sums. */
START_TEST(sums_are_exact)
{
    float x[N], weights[BLOCKS * SCAN_BLOCK];
    for (uint32_t trial = 0; trial < 200; trial++) {
        for (uint32_t i = 0; i < N; i++)
            x[i] = (float)(-sampler_random(1, trial, i) * (trial % 4 ? trial : 1e-5));
        for (uint32_t v = 0; v < n_scans(); v++) {
            double sums[BLOCKS + 1];
            sums[BLOCKS] = 77;
            double total = sampler_scan_at(v)->sums(sums, weights, x, N, &plain);
            int64_t whole = 0;
            for (uint32_t b = 0; b < BLOCKS; b++) {
                int64_t sum = 0;
                for (uint32_t i = b * SCAN_BLOCK; i < (b + 1) * SCAN_BLOCK; i++)
                    sum += (int64_t)((double)weights[i] * 0x1p35);
                ck_assert_double_eq(sums[b] * 0x1p35, (double)sum);
                whole += sum;
            }
            ck_assert_double_eq(total * 0x1p35, (double)whole);
            ck_assert_double_eq(sums[BLOCKS], 77);
        }
    }
}
END_TEST

START_TEST(every_version_gives_the_same_bits)
{
    static const float odd[] = { 0, -0.0f, -INFINITY, -FLT_MAX, FLT_MIN, -1e30f, 3, 3 };
    static const float temperatures[] = { FLT_MIN, 1e-3f, 0.7f, 1, 1.3f, 100 };
    for (uint32_t trial = 0; trial < 2000; trial++) {
        float x[N], first_weights[BLOCKS * SCAN_BLOCK], first_maxima[BLOCKS];
        double first_sums[BLOCKS], first_total = 0, spread = 30 * sampler_random(3, trial, 1);
        uint32_t n = 1 + (uint32_t)(sampler_random(3, trial, 0) * (trial % 2 ? N : 10));
        for (uint32_t i = 0; i < n; i++)
            x[i] = trial % 5 == 0 ? odd[(int)(sampler_random(4, trial, i) * 8)]
                                  : (float)((sampler_random(4, trial, i) - 0.5) * spread);
        struct weighing how = { -INFINITY, temperatures[trial % 6], trial % 3 ? -INFINITY : -1 };
        for (uint32_t i = 0; i < n; i++)
            how.best = x[i] > how.best ? x[i] : how.best;
        if (how.best == -INFINITY)
            continue;
        for (uint32_t v = 0; v < n_scans(); v++) {
            float weights[BLOCKS * SCAN_BLOCK], maxima[BLOCKS], block[SCAN_BLOCK];
            double sums[BLOCKS];
            uint32_t n_blocks = (n + SCAN_BLOCK - 1) / SCAN_BLOCK;
            ck_assert(sampler_scan_at(v)->maxima(maxima, x, n));
            double total = sampler_scan_at(v)->sums(sums, weights, x, n, &how);
            sampler_scan_at(v)->weights(block, x, n, &how);
            ck_assert_mem_eq(block, weights, sizeof block);
            if (v == 0) {
                memcpy(first_weights, weights, sizeof weights);
                memcpy(first_maxima, maxima, sizeof maxima);
                memcpy(first_sums, sums, sizeof sums);
                first_total = total;
                continue;
            }
            ck_assert_mem_eq(weights, first_weights, n_blocks * sizeof block);
            for (uint32_t b = 0; b < n_blocks; b++)
                ck_assert_float_eq(maxima[b], first_maxima[b]);
            ck_assert_mem_eq(sums, first_sums, n_blocks * sizeof *sums);
            ck_assert_mem_eq(&total, &first_total, sizeof total);
        }
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("sampler_scan");
    TCase *t = tcase_create("sampler_scan");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_weight_is_the_exponential_to_2_35);
    tcase_add_test(t, what_has_no_weight);
    tcase_add_test(t, maxima_are_of_each_block);
    tcase_add_test(t, sums_are_exact);
    tcase_add_test(t, every_version_gives_the_same_bits);
    suite_add_tcase(s, t);
    return s;
}
