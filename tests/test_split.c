#include <string.h>

#include "split.h"
#include "support.h"
#include "u128.h"

enum { PARTS_MAX = 64 };

static struct split_part parts[PARTS_MAX];

static uint64_t random_u64(void)
{
    static uint64_t state = 0x9E3779B97F4A7C15;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Returns a number of up to `bits` bits; small ones are as likely as large ones. */
static uint64_t random_up_to(unsigned bits)
{
    unsigned n = (unsigned)(random_u64() % (bits + 1));
    return n == 0 ? 0 : random_u64() >> (64 - n);
}

static void split(uint64_t ns, const uint64_t *weights, int n, uint64_t *turn)
{
    memset(parts, 0xA5, sizeof parts);
    for (int i = 0; i < n; i++) {
        parts[i].weight = weights[i];
        parts[i].next = i + 1 < n ? &parts[i + 1] : NULL;
    }
    split_interval(parts, ns, turn);
}

static void check_against_definition(uint64_t ns, const uint64_t *weights, int n)
{
    u128 total = 0, sum = 0;
    for (int i = 0; i < n; i++)
        total += weights[i];
    bool equal = total == 0;
    if (equal)
        total = (u128)n;
    uint64_t lowest_up = UINT64_MAX, highest_down = 0;
    for (int i = 0; i < n; i++) {
        u128 share = (u128)ns * (equal ? 1 : weights[i]);
        uint64_t floor = (uint64_t)(share / total), remainder = (uint64_t)(share % total);
        sum += parts[i].ns;
        ck_assert(parts[i].ns == floor || parts[i].ns == floor + 1);
        if (weights[i] == 0 && !equal)
            ck_assert_uint_eq(parts[i].ns, 0);
        if (parts[i].ns > floor && remainder < lowest_up)
            lowest_up = remainder;
        if (parts[i].ns == floor && remainder > highest_down)
            highest_down = remainder;
        for (int j = 0; j < i; j++)
            if (weights[j] == weights[i])
                ck_assert(parts[i].ns + 1 >= parts[j].ns && parts[j].ns + 1 >= parts[i].ns);
    }
    ck_assert(sum == ns);
    /* No part that was rounded down had a larger remainder than one that was rounded up. */
    ck_assert(lowest_up >= highest_down);
}

START_TEST(every_split_is_the_largest_remainder_one)
{
    uint64_t weights[PARTS_MAX], turn = 0;
    for (int round = 0; round < 6000; round++) {
        int n = 1 + (int)(random_u64() % (round % 100 == 0 ? PARTS_MAX : 9));
        unsigned bits = 64u - (unsigned)(n > 1 ? 32 - __builtin_clz((unsigned)n - 1) : 0);
        bool few = random_u64() % 3 == 0; /* many equal weights */
        for (int i = 0; i < n; i++)
            weights[i] = few ? random_u64() % 3 : random_up_to(bits);
        uint64_t ns = random_up_to(round % 2 ? 64 : 34);
        split(ns, weights, n, &turn);
        check_against_definition(ns, weights, n);
    }
}
END_TEST

START_TEST(known_splits)
{
    uint64_t turn = 0;
    split(100, (uint64_t[]){ 3, 1 }, 2, &turn);
    ck_assert_uint_eq(parts[0].ns, 75);
    ck_assert_uint_eq(parts[1].ns, 25);
    /* 10 * 1/6 = 1.67, 10 * 2/6 = 3.33, 10 * 3/6 = 5 */
    split(10, (uint64_t[]){ 1, 2, 3 }, 3, &turn);
    ck_assert_uint_eq(parts[0].ns, 2);
    ck_assert_uint_eq(parts[1].ns, 3);
    ck_assert_uint_eq(parts[2].ns, 5);
    split(7, (uint64_t[]){ 0, 5, 0 }, 3, &turn);
    ck_assert_uint_eq(parts[0].ns, 0);
    ck_assert_uint_eq(parts[1].ns, 7);
    ck_assert_uint_eq(parts[2].ns, 0);
    split(0, (uint64_t[]){ 1, 2, 3 }, 3, &turn);
    ck_assert_uint_eq(parts[0].ns + parts[1].ns + parts[2].ns, 0);
    /* A day, and weights that fill 64 bits. */
    split(86400000000000, (uint64_t[]){ UINT64_MAX - 1, 1 }, 2, &turn);
    ck_assert_uint_eq(parts[0].ns, 86400000000000);
    ck_assert_uint_eq(parts[1].ns, 0);
    split(UINT64_MAX, (uint64_t[]){ UINT64_MAX / 2, UINT64_MAX / 2 + 1 }, 2, &turn);
    ck_assert_uint_eq(parts[0].ns, UINT64_MAX / 2);
    ck_assert_uint_eq(parts[1].ns, UINT64_MAX / 2 + 1);
}
END_TEST

START_TEST(no_weights_means_equal_parts)
{
    uint64_t turn = 0;
    split(10, (uint64_t[]){ 0, 0, 0 }, 3, &turn);
    check_against_definition(10, (uint64_t[]){ 0, 0, 0 }, 3);
    ck_assert_uint_ge(parts[0].ns, 3);
    ck_assert_uint_ge(parts[2].ns, 3);
}
END_TEST

/* Nanoseconds that cannot be divided go to each part in turn, whatever the intervals' lengths.  Here every
 * second interval has one, so counting intervals would always give it to the same part. */
START_TEST(ties_go_round)
{
    for (int n = 2; n <= 7; n++) {
        uint64_t weights[7], sums[7] = { 0 }, turn = 0;
        for (int i = 0; i < n; i++)
            weights[i] = 12345;
        for (uint64_t step = 0; step < 1000; step++) {
            split(1000 * (uint64_t)n + (step % 2 ? 1 + step % 5 % (unsigned)n : 0), weights, n, &turn);
            uint64_t low = UINT64_MAX, high = 0;
            for (int i = 0; i < n; i++) {
                sums[i] += parts[i].ns;
                low = sums[i] < low ? sums[i] : low;
                high = sums[i] > high ? sums[i] : high;
            }
            ck_assert_uint_le(high - low, 1);
        }
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("split");
    TCase *t = tcase_create("split");
    tcase_add_test(t, every_split_is_the_largest_remainder_one);
    tcase_add_test(t, known_splits);
    tcase_add_test(t, no_weights_means_equal_parts);
    tcase_add_test(t, ties_go_round);
    suite_add_tcase(s, t);
    return s;
}
