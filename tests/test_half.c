#include <math.h>

#include "half.h"
#include "support.h"

/* Returns the value of a binary16 by its definition. */
static double value_of(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                      : ldexp(fraction, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

START_TEST(every_f16)
{
    for (uint32_t h = 0; h <= 0xFFFF; h++) {
        float f = f32_of_f16((uint16_t)h);
        double exact = value_of((uint16_t)h);
        if (isnan(exact)) {
            ck_assert_msg(isnan(f) && isnan(f32_of_f16(f16_of_f32(f))), "%04x", h);
            continue;
        }
        ck_assert_msg((double)f == exact && !signbit(f) == !(h & 0x8000), "%04x is %g", h, (double)f);
        ck_assert_msg(f16_of_f32(f) == h, "%04x", h);
    }
}
END_TEST

/* Half-way between each pair of neighbours, and one float32 to either side of it. */
START_TEST(rounds_to_nearest_even)
{
    for (uint16_t h = 0; h < 0x7BFF; h++) {
        float middle = (f32_of_f16(h) + f32_of_f16((uint16_t)(h + 1))) / 2;
        uint16_t even = (uint16_t)(h + (h & 1));
        ck_assert_msg(f16_of_f32(middle) == even, "%04x", h);
        ck_assert_msg(f16_of_f32(nextafterf(middle, 0)) == h, "%04x", h);
        ck_assert_msg(f16_of_f32(nextafterf(middle, INFINITY)) == h + 1, "%04x", h);
        ck_assert_msg(f16_of_f32(-middle) == (even | 0x8000), "%04x", h);
    }
}
END_TEST

START_TEST(ends_of_the_range)
{
    ck_assert_uint_eq(f16_of_f32(65504), 0x7BFF);
    ck_assert_uint_eq(f16_of_f32(nextafterf(65520, 0)), 0x7BFF);
    ck_assert_uint_eq(f16_of_f32(65520), 0x7C00);
    ck_assert_uint_eq(f16_of_f32(-1e30f), 0xFC00);
    ck_assert_uint_eq(f16_of_f32(INFINITY), 0x7C00);
    ck_assert_uint_eq(f16_of_f32(0x1p-25f), 0);
    ck_assert_uint_eq(f16_of_f32(0x1.000002p-25f), 1);
    ck_assert_uint_eq(f16_of_f32(1e-45f), 0);
    ck_assert_uint_eq(f16_of_f32(-1e-45f), 0x8000);
    ck_assert_uint_gt(f16_of_f32(NAN) & 0x3FF, 0);
}
END_TEST

START_TEST(bf16_is_the_upper_half)
{
    ck_assert(f32_of_bf16(0x3F80) == 1.0f);
    ck_assert(f32_of_bf16(0xC040) == -3.0f);
    ck_assert(f32_of_bf16(0x0001) == 0x1p-133f);
    ck_assert(f32_of_bf16(0x7F80) == INFINITY);
    ck_assert(isnan(f32_of_bf16(0x7FC0)));
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("half");
    TCase *t = tcase_create("half");
    tcase_add_test(t, every_f16);
    tcase_add_test(t, rounds_to_nearest_even);
    tcase_add_test(t, ends_of_the_range);
    tcase_add_test(t, bf16_is_the_upper_half);
    suite_add_tcase(s, t);
    return s;
}
