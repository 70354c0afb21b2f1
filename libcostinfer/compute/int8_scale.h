/* int8_scale.h - how weights become integers, the same on every device: an output's largest weight is 127,
 * and each of its weights the nearest integer to weight * factor, ties to even. */
#ifndef INT8_SCALE_H
#define INT8_SCALE_H

#include <stdbool.h>

/* The factor that takes numbers up to `max` to -127 … 127, and back. */
static inline float int8_factor(float max, float *scale)
{
    bool nothing = max < 1e-35f; /* below, 127 / max would overflow */
    *scale = nothing ? 0 : max / 127;
    return nothing ? 0 : 127 / max;
}

#endif
