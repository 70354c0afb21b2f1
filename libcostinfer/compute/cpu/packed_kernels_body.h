/* packed_kernels_body.h - the kernels' code, included once by each file of an instruction set, which defines
 * these first:
 *
 *   LANES                       floats of a vector
 *   VF, VI                      vectors of LANES floats and of as many int32_t (GNU vector types)
 *   v_load(p) v_store(p, x)     at any address
 *   v_set1(x) v_set1i(x)        all lanes alike
 *   v_fma(a, b, c)              a * b + c
 *   v_max(a, b) v_min(a, b)     b where one is a NaN
 *   v_load_f16(p) v_load_bf16(p) v_store_f16(p, x)
 *   v_store_int8(p, i)          stores each lane's lowest byte
 *   v_transpose(x)              of x[LANES]
 *   v_reduce_sum(x) v_reduce_sumi(i) v_reduce_max(x)  of all lanes
 *   MICRO_ROWS, MICRO_VECTORS   accumulators of a microkernel of many rows; they must fit the registers
 *   microkernel_int8(...), INT8_ROWS  the integer microkernel, see gemm_int8(), and the rows it takes at most
 *   microkernel_int4(...), INT4_ROWS  the same, see gemm_int4()
 *   KERNELS, KERNELS_NAME       the table's name, and the instruction set's
 *
 * Microkernels are forced inline with a constant number of rows and unrolled completely, so that the
 * accumulators are registers: a compiler spills an accumulator array as soon as one loop over it remains. */
#include <math.h>
#include <string.h>

#include "packed_kernels.h"

enum { VECTORS = PANEL / LANES }; /* of a panel's line */

enum stored { STORED_F32, STORED_F16, STORED_BF16 };

INLINE VF load_as(enum stored as, const void *b, size_t at)
{
    switch (as) {
    case STORED_F16:
        return v_load_f16((const uint16_t *)b + at);
    case STORED_BF16:
        return v_load_bf16((const uint16_t *)b + at);
    default:
        return v_load((const float *)b + at);
    }
}

/* ---- Products ----------------------------------------------------------------------------- */

/* Where pass number `pass` of several over the same operand prefetches.  Each prefetches prefetch.step bytes
 * with each of its lines until all of `prefetch` is covered, so that memory delivers evenly while the passes
 * compute. */
INLINE struct prefetch_cursor cursor_of(struct prefetch prefetch, uint32_t pass, uint32_t k,
                                        const void *operand, size_t line_bytes)
{
    size_t done = (size_t)pass * k * prefetch.step;
    if (!prefetch.start)
        return (struct prefetch_cursor){ (const char *)operand + PREFETCH_BYTES, line_bytes };
    if (done >= prefetch.bytes)
        return (struct prefetch_cursor){ operand, 0 };
    return (struct prefetch_cursor){ (const char *)prefetch.start + done, prefetch.step };
}

/* acc[rows][vectors] at `b` of a panel.  Row r is addressed as base[r / 3] + (r % 3) * ld_a, which x86 does
 * in one operand from four pointers; twelve pointers would not fit its registers. */
INLINE void microkernel(uint32_t rows, uint32_t vectors, enum stored as, float *acc, size_t ld_acc,
                        const float *a, size_t ld_a, const void *b, size_t at, size_t ld_b, uint32_t k,
                        bool add, struct prefetch_cursor cursor)
{
    VF c[MICRO_ROWS_MAX][VECTORS];
    const float *base[MICRO_ROWS_MAX / 3];
    UNROLL for (uint32_t i = 0; i < (rows + 2) / 3; i++) base[i] = a + 3 * i * ld_a;
    UNROLL for (uint32_t r = 0; r < rows; r++)
    {
        UNROLL for (uint32_t v = 0; v < vectors; v++) c[r][v] =
            add ? v_load(acc + r * ld_acc + v * LANES) : v_set1(0);
    }
    for (uint32_t i = 0; i < k; i++, at += ld_b) {
        VF w[VECTORS];
        UNROLL for (uint32_t v = 0; v < vectors; v++) w[v] = load_as(as, b, at + v * LANES);
        const size_t size = as == STORED_F32 ? sizeof(float) : sizeof(uint16_t);
        UNROLL for (uint32_t line = 0; line < vectors * LANES * size; line += 64)
            __builtin_prefetch(cursor.next + line);
        cursor.next += cursor.step;
        UNROLL for (uint32_t r = 0; r < rows; r++)
        {
            VF x = v_set1(base[r / 3][r % 3 * ld_a + i]);
            UNROLL for (uint32_t v = 0; v < vectors; v++) c[r][v] = v_fma(x, w[v], c[r][v]);
        }
    }
    UNROLL for (uint32_t r = 0; r < rows; r++)
    {
        UNROLL for (uint32_t v = 0; v < vectors; v++) v_store(acc + r * ld_acc + v * LANES, c[r][v]);
    }
}

/* A panel's line in one pass where the accumulators allow it, in several otherwise. */
INLINE void microkernel_passes(uint32_t rows, enum stored as, float *acc, size_t ld_acc, const float *a,
                               size_t ld_a, const void *b, size_t ld_b, uint32_t k, bool add,
                               struct prefetch_cursor cursor)
{
    const uint32_t vectors = rows * VECTORS <= MICRO_ROWS * MICRO_VECTORS ? VECTORS : MICRO_VECTORS;
    for (uint32_t v = 0; v < VECTORS; v += vectors)
        microkernel(rows, vectors, as, acc + v * LANES, ld_acc, a, ld_a, b, v * LANES, ld_b, k, add, cursor);
}

/* A constant number of rows for each case; those beyond MICRO_ROWS are never reached and cost nothing. */
#define MICROKERNEL_CASE(n)                                                                                  \
    case (n):                                                                                                \
        if ((n) <= MICRO_ROWS)                                                                               \
            microkernel_passes((n), as, acc, ld_acc, a, ld_a, b, ld_b, k, add, cursor);                      \
        break;

INLINE void gemm(enum stored as, float *acc, size_t ld_acc, const float *a, size_t ld_a, uint32_t rows,
                 const void *b, size_t ld_b, uint32_t k, bool add, struct prefetch prefetch)
{
    const size_t line_bytes = ld_b * (as == STORED_F32 ? sizeof(float) : sizeof(uint16_t));
    uint32_t pass = 0;
    /* Tiles of about equal size: 13 rows are 7 and 6, not 12 and 1. */
    for (uint32_t tiles = (rows + MICRO_ROWS - 1) / MICRO_ROWS; tiles > 0; tiles--) {
        uint32_t n = (rows + tiles - 1) / tiles;
        struct prefetch_cursor cursor = cursor_of(prefetch, pass++, k, b, line_bytes);
        switch (n) {
            MICROKERNEL_CASE(1)
            MICROKERNEL_CASE(2)
            MICROKERNEL_CASE(3)
            MICROKERNEL_CASE(4)
            MICROKERNEL_CASE(5)
            MICROKERNEL_CASE(6)
            MICROKERNEL_CASE(7)
            MICROKERNEL_CASE(8)
            MICROKERNEL_CASE(9)
            MICROKERNEL_CASE(10)
            MICROKERNEL_CASE(11)
            MICROKERNEL_CASE(12)
        }
        rows -= n;
        acc += n * ld_acc;
        a += n * ld_a;
    }
}

static void gemm_f32(float *acc, size_t ld_acc, const float *a, size_t ld_a, uint32_t rows, const void *b,
                     size_t ld_b, uint32_t k, bool add, struct prefetch prefetch)
{
    gemm(STORED_F32, acc, ld_acc, a, ld_a, rows, b, ld_b, k, add, prefetch);
}

static void gemm_f16(float *acc, size_t ld_acc, const float *a, size_t ld_a, uint32_t rows, const void *b,
                     size_t ld_b, uint32_t k, bool add, struct prefetch prefetch)
{
    gemm(STORED_F16, acc, ld_acc, a, ld_a, rows, b, ld_b, k, add, prefetch);
}

static void gemm_bf16(float *acc, size_t ld_acc, const float *a, size_t ld_a, uint32_t rows, const void *b,
                      size_t ld_b, uint32_t k, bool add, struct prefetch prefetch)
{
    gemm(STORED_BF16, acc, ld_acc, a, ld_a, rows, b, ld_b, k, add, prefetch);
}

INLINE void convert(enum stored as, float *to, const uint16_t *from, size_t n)
{
    for (size_t i = 0; i < n; i += PANEL) {
        __builtin_prefetch((const char *)(from + i) + PREFETCH_BYTES);
        UNROLL for (uint32_t v = 0; v < VECTORS; v++)
            v_store(to + i + v * LANES, load_as(as, from, i + v * LANES));
    }
}

static void convert_f16(float *to, const uint16_t *from, size_t n)
{
    convert(STORED_F16, to, from, n);
}

static void convert_bf16(float *to, const uint16_t *from, size_t n)
{
    convert(STORED_BF16, to, from, n);
}

static void convert_to_f16(uint16_t *to, const float *from, size_t n)
{
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES)
        v_store_f16(to + i, v_load(from + i));
    if (whole < n) {
        float rest[LANES] = { 0 };
        uint16_t halves[LANES];
        memcpy(rest, from + whole, (n - whole) * sizeof *from);
        v_store_f16(halves, v_load(rest));
        memcpy(to + whole, halves, (n - whole) * sizeof *to);
    }
}

INLINE void transpose(enum stored as, float *to, size_t ld_to, const void *rows, size_t ld, uint32_t n,
                      uint32_t width, const void *prefetch)
{
    const size_t size = as == STORED_F32 ? sizeof(float) : sizeof(uint16_t);
    for (uint32_t first = 0; first < n; first += LANES) {
        for (uint32_t i = 0; i < width; i += LANES) {
            VF x[LANES];
            UNROLL for (uint32_t l = 0; l < LANES; l++)
            {
                size_t at = (first + l) * ld + i;
                x[l] = load_as(as, rows, at);
                __builtin_prefetch((const char *)prefetch + at * size);
            }
            v_transpose(x);
            UNROLL for (uint32_t l = 0; l < LANES; l++) v_store(to + (i + l) * ld_to + first, x[l]);
        }
    }
}

static void transpose_f32(float *to, size_t ld_to, const void *rows, size_t ld, uint32_t n, uint32_t width,
                          const void *prefetch)
{
    transpose(STORED_F32, to, ld_to, rows, ld, n, width, prefetch);
}

static void transpose_f16(float *to, size_t ld_to, const void *rows, size_t ld, uint32_t n, uint32_t width,
                          const void *prefetch)
{
    transpose(STORED_F16, to, ld_to, rows, ld, n, width, prefetch);
}

/* A microkernel for one row and more outputs together: their chains hide each other's latency. */
INLINE void gemv_tile(uint32_t vectors, enum stored as, float *acc, const float *a, const void *b, size_t at,
                      size_t ld_b, uint32_t k, bool add, enum stored prefetch_as, const void *prefetch,
                      size_t ld_prefetch)
{
    const size_t size = prefetch_as == STORED_F32 ? sizeof(float) : sizeof(uint16_t);
    VF c[8];
    UNROLL for (uint32_t v = 0; v < vectors; v++) c[v] = add ? v_load(acc + at + v * LANES) : v_set1(0);
    for (uint32_t i = 0; i < k; i++) {
        VF x = v_set1(a[i]);
        UNROLL for (uint32_t line = 0; line < vectors * LANES * size; line += 64)
            __builtin_prefetch((const char *)prefetch + (i * ld_prefetch + at) * size + line);
        UNROLL for (uint32_t v = 0; v < vectors; v++) c[v] =
            v_fma(x, load_as(as, b, i * ld_b + at + v * LANES), c[v]);
    }
    UNROLL for (uint32_t v = 0; v < vectors; v++) v_store(acc + at + v * LANES, c[v]);
}

INLINE void gemv(enum stored as, float *acc, const float *a, const void *b, size_t ld_b, uint32_t n,
                 uint32_t k, bool add, enum stored prefetch_as, const void *prefetch)
{
    uint32_t at = 0;
    for (; at + 8 * LANES <= n; at += 8 * LANES)
        gemv_tile(8, as, acc, a, b, at, ld_b, k, add, prefetch_as, prefetch, n);
    for (; PANEL < 8 * LANES && at + 4 * LANES <= n; at += 4 * LANES)
        gemv_tile(4, as, acc, a, b, at, ld_b, k, add, prefetch_as, prefetch, n);
    if (PANEL < 4 * LANES && at < n)
        gemv_tile(2, as, acc, a, b, at, ld_b, k, add, prefetch_as, prefetch, n);
}

static void gemv_f32(float *acc, const float *a, const void *b, size_t ld_b, uint32_t n, uint32_t k, bool add,
                     const void *prefetch)
{
    gemv(STORED_F32, acc, a, b, ld_b, n, k, add, STORED_F32, prefetch);
}

static void gemv_f32_before_f16(float *acc, const float *a, const void *b, size_t ld_b, uint32_t n,
                                uint32_t k, bool add, const void *prefetch)
{
    gemv(STORED_F32, acc, a, b, ld_b, n, k, add, STORED_F16, prefetch);
}

static void gemv_f16(float *acc, const float *a, const void *b, size_t ld_b, uint32_t n, uint32_t k, bool add,
                     const void *prefetch)
{
    gemv(STORED_F16, acc, a, b, ld_b, n, k, add, STORED_F16, prefetch);
}

/* acc[32] += x[k] * w[k][32] for the numbers x[k] that quantise() took out of a row. */
static void add_outliers(float *acc, const struct int8_rows *a, uint32_t row, const uint8_t *panel)
{
    for (uint32_t i = 0; i < a->n_out[row]; i++) {
        uint32_t k = a->out_at[row * OUTLIERS_MAX + i];
        VF x = v_set1(a->out_number[row * OUTLIERS_MAX + i]);
        for (uint32_t v = 0; v < VECTORS; v++) {
            VI four;
            memcpy(&four, panel + (size_t)(k / 4) * 4 * PANEL + v * LANES * 4, sizeof four);
            VI w = (four >> (int)(8 * (k % 4)) & 255) - 128;
            v_store(acc + v * LANES, v_fma(x, __builtin_convertvector(w, VF), v_load(acc + v * LANES)));
        }
    }
}

static void gemm_int8(float *acc, const struct int8_rows *a, uint32_t first_row, uint32_t rows,
                      const uint8_t *panel, uint32_t k)
{
    uint32_t row = first_row, left = rows, pass = 0;
    const struct prefetch next_panel = { panel + (size_t)k * PANEL, (size_t)k * PANEL, 64 };
    const struct prefetch prefetch = rows > INT8_ROWS ? next_panel : (struct prefetch){ NULL, 0, 0 };
    for (uint32_t tiles = (rows + INT8_ROWS - 1) / INT8_ROWS; tiles > 0; tiles--) {
        uint32_t n = (left + tiles - 1) / tiles;
        struct prefetch_cursor cursor = cursor_of(prefetch, pass++, k / 4, panel, 4 * PANEL);
        microkernel_int8(n, acc + (size_t)(row - first_row) * PANEL, a, row, panel, k, cursor);
        row += n;
        left -= n;
    }
    for (uint32_t r = 0; r < rows; r++)
        add_outliers(acc + (size_t)r * PANEL, a, first_row + r, panel);
}

static void add_outliers4(float *acc, const struct int8_rows *a, uint32_t row, const uint8_t *panel)
{
    for (uint32_t i = 0; i < a->n_out[row]; i++) {
        uint32_t k = a->out_at[row * OUTLIERS_MAX + i];
        VF x = v_set1(a->out_number[row * OUTLIERS_MAX + i]);
        const uint8_t *group = panel + (size_t)(k / GROUP4) * GROUP4_BYTES,
                      *line = group + k % GROUP4 / 4 * 64;
        const uint16_t *scales = (const uint16_t *)(const void *)(group + GROUP4 * PANEL / 2);
        for (uint32_t v = 0; v < VECTORS; v++) {
            VI four;
            memcpy(&four, line + v * LANES * 4 % 64, sizeof four);
            VI w = (four >> (int)(8 * (k % 4) + (v * LANES < 16 ? 0 : 4)) & 15) - 8;
            VF y = __builtin_convertvector(w, VF) * v_load_f16(scales + v * LANES);
            v_store(acc + v * LANES, v_fma(x, y, v_load(acc + v * LANES)));
        }
    }
}

static void gemm_int4(float *acc, const struct int8_rows *a, uint32_t first_row, uint32_t rows,
                      const uint8_t *panel, uint32_t k)
{
    uint32_t row = first_row, left = rows, pass = 0;
    const size_t bytes = (size_t)(k / GROUP4) * GROUP4_BYTES;
    const struct prefetch next_panel = { panel + bytes, bytes, 64 };
    const struct prefetch prefetch = rows > INT4_ROWS ? next_panel : (struct prefetch){ NULL, 0, 0 };
    for (uint32_t tiles = (rows + INT4_ROWS - 1) / INT4_ROWS; tiles > 0; tiles--) {
        uint32_t n = (left + tiles - 1) / tiles;
        struct prefetch_cursor cursor =
            cursor_of(prefetch, pass++, k / GROUP4 * (GROUP4_BYTES / 64), panel, 64);
        microkernel_int4(n, acc + (size_t)(row - first_row) * PANEL, a, row, panel, k, cursor);
        row += n;
        left -= n;
    }
    for (uint32_t r = 0; r < rows; r++)
        add_outliers4(acc + (size_t)r * PANEL, a, first_row + r, panel);
}

/* ---- Functions ---------------------------------------------------------------------------- */

/* As exp_near() of cpu_math.h, a vector at a time: relative error below 3e-7, clamped to [-87, 88]; a NaN
 * stays one. */
INLINE VF v_exp(VF x)
{
    const VF shift = v_set1(0x1.8p23f);
    x = v_min(v_set1(88), v_max(v_set1(-87), x));
    VF shifted = v_fma(x, v_set1(1.44269504f), shift);
    VF n = shifted - shift;
    VF r = v_fma(n, v_set1(2.12194440e-4f), v_fma(n, v_set1(-0.693359375f), x));
    VF y = v_fma(v_set1(1.0f / 720), r, v_set1(1.0f / 120));
    y = v_fma(y, r, v_set1(1.0f / 24));
    y = v_fma(y, r, v_set1(1.0f / 6));
    y = v_fma(y, r, v_set1(0.5f));
    y = v_fma(y, r, v_set1(1));
    y = v_fma(y, r, v_set1(1));
    return (VF)((VI)y + ((VI)shifted << 23));
}

INLINE VF v_abs(VF x)
{
    return (VF)((VI)x & 0x7FFFFFFF);
}

INLINE VF v_sigmoid(VF x)
{
    return 1 / (1 + v_exp(-x));
}

/* Near 0 the quotient loses digits, and the series x - x^3/3 + 2x^5/15 - … does not. */
INLINE VF v_tanh(VF x)
{
    VF e = v_exp(x + x);
    VF far = 1 - 2 / (e + 1);
    VF x2 = x * x;
    VF near = v_fma(x2, v_set1(-17.0f / 315), v_set1(2.0f / 15));
    near = v_fma(near, x2, v_set1(-1.0f / 3));
    near = v_fma(near * x2, x, x);
    VI is_near = v_abs(x) < 0.25f;
    return (VF)(((VI)near & is_near) | ((VI)far & ~is_near));
}

/* 0.5 * erfc(|x| / sqrt 2) by Abramowitz and Stegun 7.1.26, error below 7.5e-8. */
INLINE VF v_normal_tail(VF x)
{
    VF u = v_abs(x) * 0.70710678f;
    VF t = 1 / v_fma(v_set1(0.3275911f), u, v_set1(1));
    VF y = v_fma(v_set1(1.061405429f), t, v_set1(-1.453152027f));
    y = v_fma(y, t, v_set1(1.421413741f));
    y = v_fma(y, t, v_set1(-0.284496736f));
    y = v_fma(y, t, v_set1(0.254829592f));
    return 0.5f * y * t * v_exp(-u * u);
}

INLINE VF v_select(VI mask, VF yes, VF no)
{
    return (VF)(((VI)yes & mask) | ((VI)no & ~mask));
}

/* The normal distribution up to x. */
INLINE VF v_normal(VF x)
{
    VF tail = v_normal_tail(x);
    return v_select(x < 0, tail, 1 - tail);
}

INLINE VF activate(enum cinf_activation activation, VF x)
{
    switch (activation) {
    case CINF_ACTIVATION_GELU_NEW: /* 0.5x(1 + tanh(u)) = x * sigmoid(2u) */
        return x * v_sigmoid(v_fma(x * x * x, v_set1(0.044715f), x) * 1.5957691216057308f);
    case CINF_ACTIVATION_GELU:
        return x * v_normal(x);
    case CINF_ACTIVATION_RELU:
        return v_max(v_set1(0), x);
    case CINF_ACTIVATION_SILU:
        return x * v_sigmoid(x);
    case CINF_ACTIVATION_TANH:
        return v_tanh(x);
    case CINF_ACTIVATION_GELU_10:
        return v_min(v_set1(10), v_max(v_set1(-10), x * v_normal(x)));
    case CINF_ACTIVATION_QUICK_GELU:
        return x * v_sigmoid(x * 1.702f);
    case CINF_ACTIVATION_MISH: { /* x tanh(log(1 + exp(x))) with e = exp(-|x|), which cannot overflow */
        VF e = v_exp(-v_abs(x));
        VF above = v_select(x < 0, e * (e + 2), 1 + 2 * e);
        return x * above / (above + v_select(x < 0, v_set1(2), 2 * e * e));
    }
    case CINF_ACTIVATION_RELU2:
        return v_max(v_set1(0), x) * v_max(v_set1(0), x);
    case CINF_ACTIVATION_RELU6:
        return v_min(v_set1(6), v_max(v_set1(0), x));
    case CINF_ACTIVATION_SIGMOID:
        return v_sigmoid(x);
    case CINF_ACTIVATION_LEAKY_RELU:
        return v_max(x * 0.01f, x);
    case CINF_ACTIVATION_LINEAR:
        return x;
    case CINF_ACTIVATION_LAPLACE:
        return v_normal((x - 0.707107f) * (1 / 0.282095f));
    }
    return x;
}

INLINE void finish_as(float *out, size_t ld_out, const float *acc, uint32_t rows, const float *scale,
                      const float *bias, enum finish how, enum cinf_activation activation)
{
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t i = 0; i < PANEL; i += LANES) {
            VF y = v_fma(v_load(acc + r * PANEL + i), v_load(scale + i), v_load(bias + i));
            if (how == FINISH_ADD)
                y = v_load(out + r * ld_out + i) + y;
            if (how == FINISH_ACTIVATE)
                y = activate(activation, y);
            v_store(out + r * ld_out + i, y);
        }
    }
}

static void finish(float *out, size_t ld_out, const float *acc, uint32_t rows, const float *scale,
                   const float *bias, enum finish how, enum cinf_activation activation)
{
    if (how == FINISH_STORE)
        finish_as(out, ld_out, acc, rows, scale, bias, FINISH_STORE, activation);
    else if (how == FINISH_ADD)
        finish_as(out, ld_out, acc, rows, scale, bias, FINISH_ADD, activation);
    else if (activation == CINF_ACTIVATION_GELU_NEW)
        finish_as(out, ld_out, acc, rows, scale, bias, FINISH_ACTIVATE, CINF_ACTIVATION_GELU_NEW);
    else
        finish_as(out, ld_out, acc, rows, scale, bias, FINISH_ACTIVATE, activation);
}

/* ---- Rows --------------------------------------------------------------------------------- */

static void logit_bounds(float *upper, float *lower, const float *acc, const struct shortlist_panel *panel,
                         const float *floors, float a, float b)
{
    VF above = v_set1(-INFINITY), below = above;
    for (uint32_t i = 0; i < PANEL; i += LANES) {
        VF logit = v_fma(v_load(acc + i), v_load(panel->scale + i), v_load(floors + i));
        VF off = v_fma(v_load(panel->residual + i), v_set1(a), v_load(panel->norm + i) * b);
        above = v_max(logit + off, above);
        below = v_max(logit - off, below);
    }
    *upper = v_reduce_max(above);
    *lower = v_reduce_max(below);
}

/* The sum of x - mean, or of its squares, in four chains. */
INLINE float sum_of(const float *x, uint32_t d, float mean, bool squares)
{
    VF sums[4] = { v_set1(0), v_set1(0), v_set1(0), v_set1(0) };
    uint32_t i = 0;
    for (; i + 4 * LANES <= d; i += 4 * LANES) {
        UNROLL for (uint32_t v = 0; v < 4; v++)
        {
            VF y = v_load(x + i + v * LANES) - mean;
            if (squares)
                sums[v] = v_fma(y, y, sums[v]);
            else
                sums[v] += y;
        }
    }
    float sum = v_reduce_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < d; i++)
        sum += squares ? (x[i] - mean) * (x[i] - mean) : x[i] - mean;
    return sum;
}

static void norm(float *out, const float *in, const float *gain, const float *bias, uint32_t d, float epsilon)
{
    uint32_t whole = d / LANES * LANES;
    float mean = sum_of(in, d, 0, false) / (float)d;
    float scale = 1 / sqrtf(sum_of(in, d, mean, true) / (float)d + epsilon);
    for (uint32_t i = 0; i < whole; i += LANES)
        v_store(out + i, v_fma((v_load(in + i) - mean) * scale, v_load(gain + i), v_load(bias + i)));
    for (uint32_t i = whole; i < d; i++)
        out[i] = (in[i] - mean) * scale * gain[i] + bias[i];
}

/* Numbers far beyond their neighbours would leave those no digits, so they are taken out.  In a normal
 * distribution one number in 10^15 is above ten times the mean absolute value.  The limit and the numbers
 * taken depend on the row alone. */
enum { OUTLIER_LIMIT = 10 };

/* -factor * sum.  It may overflow where the row holds NaNs, and then its value does not matter. */
INLINE int32_t minus(uint32_t factor, int32_t sum)
{
    return (int32_t)(0 - factor * (uint32_t)sum);
}

static void quantise(int8_t *q, float *scales, int32_t *offsets, int32_t *offsets4, uint32_t *n_out,
                     uint32_t *out_at, float *out_number, const float *in, uint32_t k)
{
    uint32_t taken = 0;
    for (uint32_t first = 0, group = 0; first < k; first += GROUP, group++) {
        float copy[GROUP];
        const float *x = in + first;
        uint32_t n = k - first < GROUP ? k - first : GROUP;
        if (n < GROUP) {
            memcpy(copy, x, n * sizeof *x);
            memset(copy + n, 0, (GROUP - n) * sizeof *x);
            x = copy;
        }
        VF sums = v_set1(0), maxima = v_set1(0);
        for (uint32_t i = 0; i < GROUP; i += LANES) {
            VF size = v_abs(v_load(x + i));
            sums += size;
            maxima = v_max(maxima, size);
        }
        float max = v_reduce_max(maxima), limit = OUTLIER_LIMIT * v_reduce_sum(sums) / (float)n;
        if (max > limit && taken < OUTLIERS_MAX) {
            if (x != copy)
                memcpy(copy, x, sizeof copy);
            x = copy;
            max = 0;
            for (uint32_t i = 0; i < n; i++) {
                if (fabsf(x[i]) > limit && taken < OUTLIERS_MAX) {
                    out_at[taken] = first + i;
                    out_number[taken++] = x[i];
                    copy[i] = 0;
                }
                max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
            }
        }
        /* Below that, 127 / max would overflow; such a group counts as zeros. */
        bool nothing = max < 1e-35f;
        VF to_q = v_set1(nothing ? 0 : 127 / max);
        VI total = v_set1i(0);
        for (uint32_t part = 0; part < GROUP; part += GROUP4) {
            VI sum = v_set1i(0);
            for (uint32_t i = part; i < part + GROUP4; i += LANES) {
                VI number = (VI)v_fma(v_load(x + i), to_q, v_set1(0x1.8p23f)) - 0x4B400000;
                sum += number;
                v_store_int8(q + first + i, number);
            }
            if (offsets4)
                offsets4[(first + part) / GROUP4] = minus(8, v_reduce_sumi(sum));
            total += sum;
        }
        scales[group] = nothing ? 0 : max / 127;
        offsets[group] = minus(128, v_reduce_sumi(total));
    }
    *n_out = taken;
}

/* The first n lanes of x, and `other` in the rest. */
INLINE VF first_lanes(VF x, uint32_t n, float other)
{
    static const int32_t numbers[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    VI lanes;
    memcpy(&lanes, numbers, sizeof lanes);
    VI inside = lanes < (int32_t)n;
    return (VF)(((VI)x & inside) | ((VI)v_set1(other) & ~inside));
}

static void softmax(float *scores, uint32_t n, float scale, float *max, float *sum)
{
    const uint32_t whole = n / LANES * LANES;
    VF maxima = v_set1(-INFINITY), sums = v_set1(0);
    for (uint32_t i = 0; i < whole; i += LANES)
        maxima = v_max(maxima, v_load(scores + i));
    if (whole < n)
        maxima = v_max(maxima, first_lanes(v_load(scores + whole), n - whole, -INFINITY));
    const float top = v_reduce_max(maxima) * scale;
    for (uint32_t i = 0; i < whole; i += LANES) {
        VF y = v_exp(v_fma(v_load(scores + i), v_set1(scale), v_set1(-top)));
        v_store(scores + i, y);
        sums += y;
    }
    if (whole < n) {
        VF y = v_exp(v_fma(v_load(scores + whole), v_set1(scale), v_set1(-top)));
        v_store(scores + whole, y);
        sums += first_lanes(y, n - whole, 0);
    }
    *max = top;
    *sum = v_reduce_sum(sums);
}

/* exp(0) is 1, so only the part with the smaller maximum needs an exponential. */
static void merge(float *values, float *max, float *sum, const float *part, float part_max, float part_sum,
                  uint32_t n)
{
    float d = part_max - *max, less = v_exp(v_set1(d > 0 ? -d : d))[0];
    float old = d > 0 ? less : 1, new = d > 0 ? 1 : less;
    for (uint32_t i = 0; i < n; i += LANES)
        v_store(values + i, v_fma(v_load(values + i), v_set1(old), v_load(part + i) * new));
    *sum = *sum * old + part_sum * new;
    *max = d > 0 ? part_max : *max;
}

static void scale_row(float *out, const float *sum, uint32_t n, float a)
{
    for (uint32_t i = 0; i < n; i += LANES)
        v_store(out + i, v_load(sum + i) * a);
}

static float exp_one(float x)
{
    float lanes[LANES];
    v_store(lanes, v_exp(v_set1(x)));
    return lanes[0];
}

const struct packed_kernels KERNELS = {
    .name = KERNELS_NAME,
    .gemm_f32 = gemm_f32,
    .gemm_f16 = gemm_f16,
    .gemm_bf16 = gemm_bf16,
    .gemm_int8 = gemm_int8,
    .gemm_int4 = gemm_int4,
    .convert_f16 = convert_f16,
    .convert_bf16 = convert_bf16,
    .convert_to_f16 = convert_to_f16,
    .transpose_f32 = transpose_f32,
    .transpose_f16 = transpose_f16,
    .gemv_f32 = gemv_f32,
    .gemv_f32_before_f16 = gemv_f32_before_f16,
    .gemv_f16 = gemv_f16,
    .finish = finish,
    .logit_bounds = logit_bounds,
    .norm = norm,
    .quantise = quantise,
    .softmax = softmax,
    .merge = merge,
    .scale = scale_row,
    .exp = exp_one,
};
