/* half.h - 16-bit floating point to 32 bits and back (IEEE 754 binary16, and bfloat16). */
#ifndef HALF_H
#define HALF_H

#include <stdint.h>
#include <string.h>

static inline float f32_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t bits_of_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float f32_of_bf16(uint16_t h)
{
    return f32_of_bits((uint32_t)h << 16);
}

/* The conversion is exact, subnormals and infinities included; a NaN stays a NaN. */
static inline float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t magnitude = h & 0x7FFFu;
    if (magnitude >= 0x7C00u)
        return f32_of_bits(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
    /* Reading the bits as a binary32 gives an exponent that is 112 too small.  Scaling by 2^112 is exact,
     * so normal and subnormal values alike come out right. */
    return f32_of_bits(sign | bits_of_f32(f32_of_bits(magnitude << 13) * 0x1p112f));
}

/* Rounds to nearest, ties to even; what is too large becomes infinity, and a NaN stays a NaN. */
static inline uint16_t f16_of_f32(float f)
{
    uint32_t bits = bits_of_f32(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7FFFFFFFu;
    if (bits > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u);
    if (bits >= 0x477FF000u) /* 65520 and above rounds beyond 65504 */
        return (uint16_t)(sign | 0x7C00u);
    if (bits < 0x38800000u) { /* below 2^-14: the sum's last bit is worth 2^-24, a subnormal's unit */
        return (uint16_t)(sign | (bits_of_f32(f32_of_bits(bits) + 0.5f) - bits_of_f32(0.5f)));
    }
    bits += 0xFFFu + (bits >> 13 & 1u);
    return (uint16_t)(sign | (bits - 0x38000000u) >> 13);
}

#endif
