/* packed_kernels.h - the inner loops of the packed CPU backend, one table of them for each instruction set.
 *
 * A weight matrix is cut into panels of 32 outputs; a panel is [K][32], so that one step along K reads one
 * contiguous line of 128 bytes (f32) and multiplies it by one number of each row:
 *
 *            outputs 0…31 | 32…63 | …            panel 0:  k=0: w[0][0…31]   k=1: w[1][0…31]   …
 *     k=0    ............ | ..... | ..           panel 1:  k=0: w[0][32…63]  …
 *     k=1    ............ | ..... | ..           int8:     k=0…3 of output 0, k=0…3 of output 1, …
 *
 * int4: a group of 32 k is 8 lines of 64 bytes, then 32 scales in f16.  Byte i of line l holds element
 * k = 4 * l + i % 4 of two outputs, i / 4 in its lower half and 16 + i / 4 in its upper one; an element is
 * (half - 8) * the output's scale.
 *
 * Invariant: the result of a row never depends on how many rows are computed with it.  Every kernel sums an
 * output over ascending k in one chain of fused multiply-adds (int8: exact integers, then one chain over
 * groups), whatever the number of rows; code that splits K continues the same chain.  Different instruction
 * sets may differ in the last bits. */
#ifndef PACKED_KERNELS_H
#define PACKED_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/types.h>

enum {
    PANEL = 32,  /* outputs of a panel */
    GROUP = 256, /* int8: activations along K that share a scale */
    GROUP4 = 32, /* int4: weights along K that share a scale */
    GROUP4_BYTES = GROUP4 * PANEL / 2 + PANEL * 2,
    GROUPS4 = GROUP / GROUP4,
    OUTLIERS_MAX = 16,   /* int8: numbers of a row that are kept in f32 */
    MICRO_ROWS_MAX = 12, /* rows that a microkernel computes together, at most */
};

enum finish {
    FINISH_STORE,    /* out = y */
    FINISH_ADD,      /* out = out + y */
    FINISH_ACTIVATE, /* out = activation(y) */
};

/* A row of activations in int8: numbers[k] ~ q[k] * scales[k / GROUP], except for the outliers, whose q is
 * 0.  Fields point to arrays of consecutive rows, `stride` numbers apart. */
struct int8_rows {
    const int8_t *q;         /* [rows][stride], zero beyond K up to a multiple of GROUP */
    const float *scales;     /* [rows][groups] */
    const int32_t *offsets;  /* [rows][groups], -128 * sum of the group's q: weights are stored as w + 128 */
    const uint32_t *n_out;   /* [rows] */
    const uint32_t *out_at;  /* [rows][OUTLIERS_MAX], k */
    const float *out_number; /* [rows][OUTLIERS_MAX] */
    size_t stride, groups;
    const int32_t *offsets4; /* [rows][groups * GROUPS4], -8 * sum of q: int4 is stored as w + 8 */
};

/* Memory to prefetch while a product computes.  start NULL: only what follows the operand. */
struct prefetch {
    const void *start;
    size_t bytes;
    size_t step; /* bytes to prefetch with each line: 64, or 128 where a line has that many */
};

/* What is known of the int8 copy of a panel of the head, see packed_shortlist.h.  An output's product with
 * the copy is acc * scale, and its distance from the logit is at most residual * a + norm * b, with the row's
 * a and b. */
struct shortlist_panel {
    float scale[PANEL];
    float residual[PANEL]; /* upper bound of the length of what the copy leaves out */
    float norm[PANEL];     /* upper bound of the length of the copy */
};

/* acc[rows][0…31] = a[rows][k] * b[k][32], or += when `add`.  ld_: elements from one row to the next. */
typedef void gemm_kernel(float *acc, size_t ld_acc, const float *a, size_t ld_a, uint32_t rows, const void *b,
                         size_t ld_b, uint32_t k, bool add, struct prefetch prefetch);

typedef void transpose_kernel(float *to, size_t ld_to, const void *rows, size_t ld, uint32_t n,
                              uint32_t width, const void *prefetch);
typedef void gemv_kernel(float *acc, const float *a, const void *b, size_t ld_b, uint32_t n, uint32_t k,
                         bool add, const void *prefetch);

struct packed_kernels {
    const char *name; /* "AVX-512 VNNI" */

    gemm_kernel *gemm_f32, *gemm_f16, *gemm_bf16;

    /* acc[rows][32] = a * panel, before the outputs' scales.  k is a multiple of 4, and the panel has k
     * lines. */
    void (*gemm_int8)(float *acc, const struct int8_rows *a, uint32_t first_row, uint32_t rows,
                      const uint8_t *panel, uint32_t k);

    /* The same in int4; k is a multiple of GROUP4. */
    void (*gemm_int4)(float *acc, const struct int8_rows *a, uint32_t first_row, uint32_t rows,
                      const uint8_t *panel, uint32_t k);

    /* to[n] = from[n] as float32; n is a multiple of 32. */
    void (*convert_f16)(float *to, const uint16_t *from, size_t n);
    void (*convert_bf16)(float *to, const uint16_t *from, size_t n);

    /* to[n] = from[n], rounded to the nearest: as f16_of_f32(), except for the bits of a NaN. */
    void (*convert_to_f16)(uint16_t *to, const float *from, size_t n);

    /* to[width][n] from n rows of `width`, ld_to and ld elements apart: row r becomes column r.  n and width
     * are rounded up to 16, and there must be room for that.  Memory of the rows' shape at `prefetch` is
     * prefetched. */
    transpose_kernel *transpose_f32, *transpose_f16;

    /* acc[n] = a[k] * b[k][n], or += when `add`: as gemm, for one row and more outputs; n is a multiple of
     * 32.  The k * n elements at `prefetch`, of b's type or of the one named, are prefetched. */
    gemv_kernel *gemv_f32, *gemv_f32_before_f16, *gemv_f16;

    /* y = acc * scale + bias, [rows][32], then as `how` says.  scale and bias are [32]. */
    void (*finish)(float *out, size_t ld_out, const float *acc, uint32_t rows, const float *scale,
                   const float *bias, enum finish how, enum cinf_activation activation);

    /* The greatest upper and the greatest lower bound of the logits acc[32] * scale + floor; NaN is less than
     * any. */
    void (*logit_bounds)(float *upper, float *lower, const float *acc, const struct shortlist_panel *panel,
                         const float *floors, float a, float b);

    /* out[d] = (in - mean) / sqrt(variance + epsilon) * gain + bias; in two passes, as it is defined. */
    void (*norm)(float *out, const float *in, const float *gain, const float *bias, uint32_t d,
                 float epsilon);

    /* One row to int8; q has room for k rounded up to GROUP.  The pointers are those of the row; offsets4 may
     * be NULL. */
    void (*quantise)(int8_t *q, float *scales, int32_t *offsets, int32_t *offsets4, uint32_t *n_out,
                     uint32_t *out_at, float *out_number, const float *in, uint32_t k);

    /* Replaces scores[n] of one row, n at most a chunk, by exp(scale * score - *max), with a positive scale;
     * *sum is their sum.  There is room for n rounded up to 16, and the rest of it may hold anything. */
    void (*softmax)(float *scores, uint32_t n, float scale, float *max, float *sum);

    /* Adds a part of a softmax's sum of values [n] to another, each with the maximum and the sum of its
     * weights; n is a multiple of 32.  The first is not empty. */
    void (*merge)(float *values, float *max, float *sum, const float *part, float part_max, float part_sum,
                  uint32_t n);

    /* out[n] = sum * a; n is a multiple of 32. */
    void (*scale)(float *out, const float *sum, uint32_t n, float a);
    float (*exp)(float x);
};

/* The best table that this processor runs. */
const struct packed_kernels *packed_kernels_best(void);

/* Table number `index` that this processor runs, best first; NULL beyond. */
const struct packed_kernels *packed_kernels_at(uint32_t index);

/* For tests and benchmarks: devices that are opened from now on use these; NULL: the best. */
void packed_kernels_force(const struct packed_kernels *kernels);

#endif
