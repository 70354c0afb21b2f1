/* opencl_rounding.h - rounds a rig's numbers to what weights of fewer bits keep of them, so that the
 * evaluation in double uses the numbers that are on the device.  Included after backend_ops.h. */
#ifndef OPENCL_ROUNDING_H
#define OPENCL_ROUNDING_H

#include "backend_ops.h"
#include "half.h"

/* Rounds a column's or row's numbers, which are `step` apart, to what int8 keeps. */
static void round_to_int8(float *values, uint32_t n, size_t step)
{
    float largest = 0;
    for (uint32_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(values[i * step]));
    for (uint32_t i = 0; i < n; i++)
        values[i * step] = rintf(values[i * step] * (127 / largest)) * (largest / 127);
}

/* Rounds all of the rig's numbers to what the weights' type keeps. */
static void round_values(struct rig *rig, enum weights_type type)
{
    for (uint32_t w = 0; w < rig->program.n_specs; w++) {
        const struct weight_spec *spec = &rig->specs[w];
        if (spec->role == WEIGHT_VECTOR || (type == WEIGHTS_INT8 && spec->role == WEIGHT_TABLE))
            continue;
        for (size_t i = 0; type == WEIGHTS_F16 && i < (size_t)spec->rows * spec->cols; i++)
            rig->values[w][i] = f32_of_f16(f16_of_f32(rig->values[w][i]));
        bool matrix = spec->role == WEIGHT_MATRIX;
        for (uint32_t o = 0; type == WEIGHTS_INT8 && o < (matrix ? spec->cols : spec->rows); o++)
            round_to_int8(rig->values[w] + (matrix ? o : (size_t)o * spec->cols),
                          matrix ? spec->rows : spec->cols, matrix ? spec->cols : 1);
    }
}

#endif
