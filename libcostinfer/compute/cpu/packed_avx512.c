/* packed_avx512.c - the kernels for AVX-512 (F, BW, DQ, VL) with VNNI.
 *
 * vpdpbusd is written in assembly, because gcc 12 copies registers around the intrinsic, which halves the
 * speed. */
#include "packed_isa.h"

#ifdef __AVX512BW__
#include <immintrin.h>
#include <string.h>

#include "packed_kernels.h"

#define KERNELS      packed_kernels_avx512
#define KERNELS_NAME "AVX-512"
#define LANES        16
#define VF           __m512
typedef int32_t vi __attribute__((vector_size(64)));
#define VI             vi
#define v_load(p)      _mm512_loadu_ps(p)
#define v_store(p, x)  _mm512_storeu_ps(p, x)
#define v_set1(x)      _mm512_set1_ps(x)
#define v_set1i(x)     ((VI)_mm512_set1_epi32(x))
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_max(a, b)    _mm512_max_ps(a, b)
#define v_min(a, b)    _mm512_min_ps(a, b)
#define v_load_f16(p)  _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define v_load_bf16(p)                                                                                       \
    ((VF)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p))), 16))
#define v_store_f16(p, x)                                                                                    \
    _mm256_storeu_si256((__m256i *)(void *)(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT))
#define v_store_int8(p, i) _mm_storeu_si128((__m128i *)(void *)(p), _mm512_cvtepi32_epi8((__m512i)(i)))
#define v_reduce_sum(x)    _mm512_reduce_add_ps(x)
#define v_reduce_sumi(i)   _mm512_reduce_add_epi32((__m512i)(i))
#define v_reduce_max(x)    _mm512_reduce_max_ps(x)

/* x[i][j] becomes x[j][i]: first within the quarters of vectors, then the quarters. */
INLINE void v_transpose(VF x[LANES])
{
    VF t[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2)
    {
        t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4)
    {
        for (int j = 0; j < 2; j++) {
            __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + 2 + j]);
            x[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            x[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        VF a = _mm512_shuffle_f32x4(x[j], x[4 + j], 0x44), b = _mm512_shuffle_f32x4(x[j], x[4 + j], 0xEE);
        VF c = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0x44),
           d = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0xEE);
        x[j] = _mm512_shuffle_f32x4(a, c, 0x88);
        x[4 + j] = _mm512_shuffle_f32x4(a, c, 0xDD);
        x[8 + j] = _mm512_shuffle_f32x4(b, d, 0x88);
        x[12 + j] = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
}

enum { MICRO_ROWS = 12, MICRO_VECTORS = 2, INT8_ROWS = 12, INT4_ROWS = 6 };

/* c += four u8 of w times four s8 of x, in each lane */
#define DOT4(c, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(w), "v"(x))

INLINE void microkernel_int8_of(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                                const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    const int8_t *base[4];
    UNROLL for (uint32_t i = 0; i < (rows + 2) / 3; i++) base[i] = a->q + (row + 3 * i) * a->stride;
    const size_t stride = a->stride;
    for (uint32_t first = 0, group = 0; first < k; first += GROUP, group++) {
        uint32_t n = k - first < GROUP ? k - first : GROUP;
        __m512i c[12][2];
        UNROLL for (uint32_t r = 0; r < rows; r++) c[r][0] = c[r][1] =
            _mm512_set1_epi32(a->offsets[(row + r) * a->groups + group]);
        for (uint32_t i = 0; i < n; i += 4, panel += 4 * PANEL) {
            __m512i w0 = _mm512_loadu_si512(panel), w1 = _mm512_loadu_si512(panel + 64);
            __builtin_prefetch(cursor.next);
            __builtin_prefetch(cursor.next + 64);
            cursor.next += cursor.step;
            UNROLL for (uint32_t r = 0; r < rows; r++)
            {
                int32_t four;
                memcpy(&four, base[r / 3] + r % 3 * stride + first + i, sizeof four);
                __m512i x = _mm512_set1_epi32(four);
                DOT4(c[r][0], w0, x);
                DOT4(c[r][1], w1, x);
            }
        }
        UNROLL for (uint32_t r = 0; r < rows; r++)
        {
            __m512 scale = _mm512_set1_ps(a->scales[(row + r) * a->groups + group]);
            UNROLL for (uint32_t v = 0; v < 2; v++)
            {
                float *to = acc + (size_t)r * PANEL + v * 16;
                __m512 before = group ? _mm512_loadu_ps(to) : _mm512_setzero_ps();
                _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(c[r][v]), scale, before));
            }
        }
    }
}

#define INT8_CASE(n)                                                                                         \
    case n:                                                                                                  \
        microkernel_int8_of(n, acc, a, row, panel, k, cursor);                                               \
        break;

static void microkernel_int8(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                             const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    switch (rows) {
        INT8_CASE(1)
        INT8_CASE(2)
        INT8_CASE(3)
        INT8_CASE(4)
        INT8_CASE(5)
        INT8_CASE(6)
        INT8_CASE(7)
        INT8_CASE(8)
        INT8_CASE(9)
        INT8_CASE(10)
        INT8_CASE(11)
        INT8_CASE(12)
    }
}

INLINE void microkernel_int4_of(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                                const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    const int8_t *base[2];
    UNROLL for (uint32_t i = 0; i < (rows + 2) / 3; i++) base[i] = a->q + (row + 3 * i) * a->stride;
    const size_t stride = a->stride;
    const __m512i lower = _mm512_set1_epi8(15);
    __m512 y[6][2];
    UNROLL for (uint32_t r = 0; r < rows; r++) y[r][0] = y[r][1] = _mm512_setzero_ps();
    for (uint32_t first = 0; first < k; first += GROUP4, panel += GROUP4_BYTES) {
        __m512i c[6][2];
        UNROLL for (uint32_t r = 0; r < rows; r++) c[r][0] = c[r][1] =
            _mm512_set1_epi32(a->offsets4[(row + r) * a->groups * GROUPS4 + first / GROUP4]);
        for (uint32_t i = 0; i < GROUP4; i += 4) {
            __m512i both = _mm512_loadu_si512(panel + 16 * i);
            __m512i w0 = _mm512_and_si512(both, lower),
                    w1 = _mm512_and_si512(_mm512_srli_epi16(both, 4), lower);
            __builtin_prefetch(cursor.next);
            cursor.next += cursor.step;
            UNROLL for (uint32_t r = 0; r < rows; r++)
            {
                int32_t four;
                memcpy(&four, base[r / 3] + r % 3 * stride + first + i, sizeof four);
                __m512i x = _mm512_set1_epi32(four);
                DOT4(c[r][0], w0, x);
                DOT4(c[r][1], w1, x);
            }
        }
        __builtin_prefetch(cursor.next); /* the scales' line */
        cursor.next += cursor.step;
        __m512 scale0 = v_load_f16(panel + 512), scale1 = v_load_f16(panel + 544);
        UNROLL for (uint32_t r = 0; r < rows; r++)
        {
            __m512 scale = _mm512_set1_ps(a->scales[(row + r) * a->groups + first / GROUP]);
            y[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(c[r][0]), scale0 * scale, y[r][0]);
            y[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(c[r][1]), scale1 * scale, y[r][1]);
        }
    }
    UNROLL for (uint32_t r = 0; r < rows; r++)
    {
        _mm512_storeu_ps(acc + r * PANEL, y[r][0]);
        _mm512_storeu_ps(acc + r * PANEL + 16, y[r][1]);
    }
}

#define INT4_CASE(n)                                                                                         \
    case n:                                                                                                  \
        microkernel_int4_of(n, acc, a, row, panel, k, cursor);                                               \
        break;

static void microkernel_int4(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                             const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    switch (rows) {
        INT4_CASE(1)
        INT4_CASE(2)
        INT4_CASE(3)
        INT4_CASE(4)
        INT4_CASE(5)
        INT4_CASE(6)
    }
}

#include "packed_kernels_body.h"
#endif
