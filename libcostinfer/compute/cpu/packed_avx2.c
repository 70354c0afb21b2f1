/* packed_avx2.c - the kernels for AVX2 with FMA and F16C (nearly every x86-64 processor since 2013).
 *
 * Its 8-bit product adds pairs in saturating 16 bits.  A pair of |w| times the activation with w's sign is at
 * most 2 * 127 * 127, which fits; with w + 128 it would not. */
#include "packed_isa.h"

#ifdef __AVX2__
#include <immintrin.h>
#include <string.h>

#include "packed_kernels.h"

#define KERNELS      packed_kernels_avx2
#define KERNELS_NAME "AVX2"
#define LANES        8
#define VF           __m256
typedef int32_t vi __attribute__((vector_size(32)));
#define VI             vi
#define v_load(p)      _mm256_loadu_ps(p)
#define v_store(p, x)  _mm256_storeu_ps(p, x)
#define v_set1(x)      _mm256_set1_ps(x)
#define v_set1i(x)     ((VI)_mm256_set1_epi32(x))
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_max(a, b)    _mm256_max_ps(a, b)
#define v_min(a, b)    _mm256_min_ps(a, b)
#define v_load_f16(p)  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_load_bf16(p)                                                                                       \
    ((VF)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))), 16))
#define v_store_f16(p, x)                                                                                    \
    _mm_storeu_si128((__m128i *)(void *)(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT))

static inline void v_store_int8(int8_t *to, VI x)
{
    for (int i = 0; i < LANES; i++)
        to[i] = (int8_t)x[i];
}

static inline float v_reduce_sum(VF x)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

static inline float v_reduce_max(VF x)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

static inline int32_t v_reduce_sumi(VI x)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}

/* x[i][j] becomes x[j][i]: first within the halves of vectors, then the halves. */
INLINE void v_transpose(VF x[LANES])
{
    VF t[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2)
    {
        t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4)
    {
        for (int j = 0; j < 2; j++) {
            x[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
            x[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xEE);
        }
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        VF a = x[j], b = x[4 + j];
        x[j] = _mm256_permute2f128_ps(a, b, 0x20);
        x[4 + j] = _mm256_permute2f128_ps(a, b, 0x31);
    }
}

enum { MICRO_ROWS = 6, MICRO_VECTORS = 2, INT8_ROWS = 4, INT4_ROWS = 2 };

/* Computes 16 of the panel's 32 outputs, from `panel` on. */
INLINE void microkernel_int8_of(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                                const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    const int8_t *q = a->q + row * a->stride;
    const size_t stride = a->stride;
    const __m256i ones = _mm256_set1_epi16(1), middle = _mm256_set1_epi8(-128);
    for (uint32_t first = 0, group = 0; first < k; first += GROUP, group++) {
        uint32_t n = k - first < GROUP ? k - first : GROUP;
        __m256i c[4][2];
        UNROLL for (uint32_t r = 0; r < rows; r++) c[r][0] = c[r][1] = _mm256_setzero_si256();
        for (uint32_t i = 0; i < n; i += 4, panel += 4 * PANEL) {
            __m256i w[2], size[2];
            UNROLL for (uint32_t v = 0; v < 2; v++)
            {
                w[v] = _mm256_loadu_si256((const __m256i *)(const void *)(panel + 32 * v));
                w[v] = _mm256_xor_si256(w[v], middle);
                size[v] = _mm256_abs_epi8(w[v]);
            }
            __builtin_prefetch(cursor.next);
            cursor.next += cursor.step;
            UNROLL for (uint32_t r = 0; r < rows; r++)
            {
                int32_t four;
                memcpy(&four, q + r * stride + first + i, sizeof four);
                __m256i x = _mm256_set1_epi32(four);
                UNROLL for (uint32_t v = 0; v < 2; v++)
                {
                    __m256i pairs = _mm256_maddubs_epi16(size[v], _mm256_sign_epi8(x, w[v]));
                    c[r][v] = _mm256_add_epi32(c[r][v], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        UNROLL for (uint32_t r = 0; r < rows; r++)
        {
            __m256 scale = _mm256_set1_ps(a->scales[(row + r) * a->groups + group]);
            UNROLL for (uint32_t v = 0; v < 2; v++)
            {
                float *to = acc + (size_t)r * PANEL + v * 8;
                __m256 before = group ? _mm256_loadu_ps(to) : _mm256_setzero_ps();
                _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(c[r][v]), scale, before));
            }
        }
    }
}

#define INT8_CASE(n)                                                                                         \
    case n:                                                                                                  \
        microkernel_int8_of(n, acc, a, row, panel, k, cursor);                                               \
        microkernel_int8_of(n, acc + 16, a, row, panel + 64, k,                                              \
                            (struct prefetch_cursor){ cursor.next + 64, cursor.step });                      \
        break;

static void microkernel_int8(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                             const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    switch (rows) {
        INT8_CASE(1)
        INT8_CASE(2)
        INT8_CASE(3)
        INT8_CASE(4)
    }
}

/* Computes the eight outputs that half `half` of each line holds in its bytes' lower halves, and the eight in
 * their upper ones. 16 bits hold the sums of a group: 16 pairs of at most 15 * 127. */
INLINE void microkernel_int4_of(uint32_t rows, uint32_t half, float *acc, const struct int8_rows *a,
                                uint32_t row, const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    const int8_t *q = a->q + row * a->stride;
    const size_t stride = a->stride;
    const __m256i ones = _mm256_set1_epi16(1), lower = _mm256_set1_epi8(15);
    __m256 y[2][2];
    UNROLL for (uint32_t r = 0; r < rows; r++) y[r][0] = y[r][1] = _mm256_setzero_ps();
    for (uint32_t first = 0; first < k; first += GROUP4, panel += GROUP4_BYTES) {
        __m256i c[2][2];
        UNROLL for (uint32_t r = 0; r < rows; r++) c[r][0] = c[r][1] = _mm256_setzero_si256();
        for (uint32_t i = 0; i < GROUP4; i += 4) {
            __m256i w[2],
                both = _mm256_loadu_si256((const __m256i *)(const void *)(panel + 16 * i + 32 * half));
            w[0] = _mm256_and_si256(both, lower);
            w[1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), lower);
            __builtin_prefetch(cursor.next);
            cursor.next += cursor.step;
            UNROLL for (uint32_t r = 0; r < rows; r++)
            {
                int32_t four;
                memcpy(&four, q + r * stride + first + i, sizeof four);
                __m256i x = _mm256_set1_epi32(four);
                UNROLL for (uint32_t v = 0; v < 2; v++) c[r][v] =
                    _mm256_add_epi16(c[r][v], _mm256_maddubs_epi16(w[v], x));
            }
        }
        __builtin_prefetch(cursor.next); /* the scales' line */
        cursor.next += cursor.step;
        UNROLL for (uint32_t v = 0; v < 2; v++)
        {
            __m256 scales = v_load_f16(panel + 512 + 16 * half + 32 * v);
            UNROLL for (uint32_t r = 0; r < rows; r++)
            {
                __m256 scale = _mm256_set1_ps(a->scales[(row + r) * a->groups + first / GROUP]);
                __m256i offset =
                    _mm256_set1_epi32(a->offsets4[(row + r) * a->groups * GROUPS4 + first / GROUP4]);
                __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(c[r][v], ones), offset);
                y[r][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales * scale, y[r][v]);
            }
        }
    }
    UNROLL for (uint32_t r = 0; r < rows; r++)
    {
        UNROLL for (uint32_t v = 0; v < 2; v++)
            _mm256_storeu_ps(acc + r * PANEL + 8 * half + 16 * v, y[r][v]);
    }
}

#define INT4_CASE(n)                                                                                         \
    case n:                                                                                                  \
        microkernel_int4_of(n, 0, acc, a, row, panel, k, cursor);                                            \
        microkernel_int4_of(n, 1, acc, a, row, panel, k, cursor);                                            \
        break;

static void microkernel_int4(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                             const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    switch (rows) {
        INT4_CASE(1)
        INT4_CASE(2)
    }
}

#include "packed_kernels_body.h"
#endif
