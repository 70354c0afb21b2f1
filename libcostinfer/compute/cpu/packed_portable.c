/* packed_portable.c - the kernels in GNU C without any instruction set's own names: x86-64 without AVX2, and
 * every other processor.  A multiply-add is two operations with two roundings here. */
#include <string.h>

#include "half.h"
#include "packed_isa.h"
#include "packed_kernels.h"

#define KERNELS      packed_kernels_portable
#define KERNELS_NAME "portable C"
#define LANES        4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
#define VF             vf
#define VI             vi
#define v_fma(a, b, c) ((a) * (b) + (c))

static inline VF v_load(const float *p)
{
    VF x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void v_store(float *p, VF x)
{
    memcpy(p, &x, sizeof x);
}

static inline VF v_set1(float x)
{
    return (VF){ x, x, x, x };
}

static inline VI v_set1i(int32_t x)
{
    return (VI){ x, x, x, x };
}

static inline VF v_choose(VI mask, VF yes, VF no)
{
    return (VF)((mask & (VI)yes) | (~mask & (VI)no));
}

static inline VF v_max(VF a, VF b)
{
    return v_choose(a > b, a, b);
}

static inline VF v_min(VF a, VF b)
{
    return v_choose(a < b, a, b);
}

static inline VF v_load_f16(const uint16_t *p)
{
    return (VF){ f32_of_f16(p[0]), f32_of_f16(p[1]), f32_of_f16(p[2]), f32_of_f16(p[3]) };
}

static inline VF v_load_bf16(const uint16_t *p)
{
    return (VF){ f32_of_bf16(p[0]), f32_of_bf16(p[1]), f32_of_bf16(p[2]), f32_of_bf16(p[3]) };
}

static inline void v_narrow(int8_t *to, VI x)
{
    for (int i = 0; i < LANES; i++)
        to[i] = (int8_t)x[i];
}

enum { BLOCK_ROWS = 3, BLOCK_VECTORS = 4, INT8_ROWS = 1 };

static void block_int8(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                       const uint8_t *panel, uint32_t k)
{
    (void)rows; /* 1 */
    const int8_t *q = a->q + row * a->stride;
    for (uint32_t first = 0, group = 0; first < k; first += GROUP, group++) {
        uint32_t n = k - first < GROUP ? k - first : GROUP;
        int32_t c[PANEL] = { 0 };
        for (uint32_t i = 0; i < n; i += 4, panel += 4 * PANEL) {
            for (uint32_t o = 0; o < PANEL; o++) {
                for (uint32_t j = 0; j < 4; j++)
                    c[o] += q[first + i + j] * (panel[4 * o + j] - 128);
            }
        }
        float scale = a->scales[row * a->groups + group];
        for (uint32_t o = 0; o < PANEL; o++)
            acc[o] = (float)c[o] * scale + (group ? acc[o] : 0);
    }
}

#include "packed_kernels_body.h"
