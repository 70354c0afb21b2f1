/* cpu_math.h - exp() that a compiler can put into a vectorised loop; libm's calls cannot be. */
#ifndef CPU_MATH_H
#define CPU_MATH_H

#include "half.h"

/* exp(x) with a relative error below 4e-7, for x in [-87, 80]; clamped to these ends outside.  A NaN stays
 * one.  The range does not reach 88, because a quotient by exp(88) is subnormal, and compilers compute that
 * quotient for every element and throw it away, at a hundred cycles each.
 *
 *     exp(x) = 2^n * exp(r),  n = x / ln 2 rounded,  r = x - n * ln 2,  |r| <= ln(2)/2
 *
 * Adding 1.5 * 2^23 leaves n in the lowest bits of the sum, so rounding and conversion to an integer are one
 * addition.  ln 2 is taken off in two parts, because n * ln 2 would lose bits of x.  The polynomial is exp's
 * own series, whose next term r^7/5040 is below 1.2e-7. */
static inline float exp_near(float x)
{
    const float shift = 0x1.8p23f;
    x = x < -87.0f ? -87.0f : x;
    x = x > 80.0f ? 80.0f : x;
    float shifted = x * 1.44269504f + shift;
    float n = shifted - shift;
    float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float y = 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return f32_of_bits(bits_of_f32(y) + (bits_of_f32(shifted) << 23));
}

#endif
