/* elements.c - see elements.h. */
#include "elements.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "half.h"

static void read_f16(float *to, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        to[i] = f32_of_f16(bits);
    }
}

static void read_bf16(float *to, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        to[i] = f32_of_bf16(bits);
    }
}

static size_t read_f64(float *to, const unsigned char *from, size_t n)
{
    size_t bad = n;
    for (size_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, from + 8 * i, sizeof value);
        to[i] = (float)value;
        if (isinf(to[i]) && !isinf(value) && i < bad)
            bad = i;
    }
    return bad;
}

size_t elements_read(float *to, const void *elements, enum cinf_dtype dtype, size_t first, size_t n)
{
    const unsigned char *from = elements;
    if (n == 0)
        return 0;
    switch (dtype) {
    case CINF_DTYPE_F32:
        memcpy(to, from + 4 * first, n * sizeof *to);
        return n;
    case CINF_DTYPE_F16:
        read_f16(to, from + 2 * first, n);
        return n;
    case CINF_DTYPE_BF16:
        read_bf16(to, from + 2 * first, n);
        return n;
    default: /* CINF_DTYPE_F64 */
        return read_f64(to, from + 8 * first, n);
    }
}

double element_read(const void *elements, enum cinf_dtype dtype, size_t at)
{
    if (dtype == CINF_DTYPE_F64) {
        double value;
        memcpy(&value, (const unsigned char *)elements + 8 * at, sizeof value);
        return value;
    }
    float value;
    elements_read(&value, elements, dtype, at, 1);
    return (double)value;
}
