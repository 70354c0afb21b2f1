/* packed_portable.c - the kernels in GNU C, for every processor without a file of its own; four lanes are
 * what nearly all of them have.  On arm64 the three operations that GNU C cannot express well are NEON's own;
 * elsewhere a multiply-add is two operations with two roundings. */
#include <string.h>

#include "half.h"
#include "packed_isa.h"
#include "packed_kernels.h"

#define KERNELS packed_kernels_portable
#define LANES   4
typedef int32_t vi __attribute__((vector_size(16)));
#define VI vi

#if defined(__aarch64__)
#include <arm_neon.h>
#define KERNELS_NAME      "NEON"
#define VF                float32x4_t
#define v_fma(a, b, c)    vfmaq_f32(c, a, b)
#define v_load_f16(p)     vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define v_store_f16(p, x) vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)))
enum { MICRO_ROWS = 6, MICRO_VECTORS = 4 };
#else
#define KERNELS_NAME   "portable C"
typedef float vf __attribute__((vector_size(16)));
#define VF             vf
#define v_fma(a, b, c) ((a) * (b) + (c))
enum { MICRO_ROWS = 3, MICRO_VECTORS = 4 };
#endif

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

typedef uint16_t vu16 __attribute__((vector_size(8)));
typedef int16_t vs16 __attribute__((vector_size(16)));

static inline VI widen_u16(const uint16_t *p)
{
    vu16 x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, VI);
}

#if !defined(__aarch64__)
/* As f32_of_f16() of half.h.  An infinity or NaN, exponent 31, gets float32's exponent for these. */
static inline VF v_load_f16(const uint16_t *p)
{
    VI h = widen_u16(p), special = (h & 0x7C00) == 0x7C00;
    VF magnitude = (VF)((h & 0x7FFF) << 13) * 0x1p112f;
    return (VF)((VI)magnitude | (h & 0x8000) << 16 | (special & 0x7F800000));
}

static inline void v_store_f16(uint16_t *p, VF x)
{
    for (int i = 0; i < LANES; i++)
        p[i] = f16_of_f32(x[i]);
}
#endif

static inline VF v_load_bf16(const uint16_t *p)
{
    return (VF)(widen_u16(p) << 16);
}

static inline void v_store_int8(int8_t *to, VI x)
{
    for (int i = 0; i < LANES; i++)
        to[i] = (int8_t)x[i];
}

static inline float v_reduce_sum(VF x)
{
    return (x[0] + x[1]) + (x[2] + x[3]);
}

static inline int32_t v_reduce_sumi(VI x)
{
    return (x[0] + x[1]) + (x[2] + x[3]);
}

static inline float v_reduce_max(VF x)
{
    float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}

/* x[i][j] becomes x[j][i]. */
INLINE void v_transpose(VF x[LANES])
{
    VF a = x[0], b = x[1], c = x[2], d = x[3];
    for (int i = 0; i < LANES; i++)
        x[i] = (VF){ a[i], b[i], c[i], d[i] };
}

enum { INT8_ROWS = 1, INT4_ROWS = 1 };

/* Two products of 127 * 128 fit 16 bits, so the four of an output are summed as two pairs. */
static void microkernel_int8(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                             const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    (void)rows; /* 1 */
    (void)cursor;
    const int8_t *q = a->q + row * a->stride;
    for (uint32_t first = 0, group = 0; first < k; first += GROUP, group++) {
        uint32_t n = k - first < GROUP ? k - first : GROUP;
        VI c[PANEL / LANES] = { { 0 } };
        for (uint32_t i = first; i < first + n; i += 4, panel += 4 * PANEL) {
            vs16 even = { q[i], q[i + 2], q[i], q[i + 2], q[i], q[i + 2], q[i], q[i + 2] };
            vs16 odd = { q[i + 1], q[i + 3], q[i + 1], q[i + 3], q[i + 1], q[i + 3], q[i + 1], q[i + 3] };
            for (uint32_t v = 0; v < PANEL / LANES; v++) {
                VI four;
                memcpy(&four, panel + 4 * LANES * v, sizeof four);
                vs16 sums =
                    ((vs16)(four & 0x00FF00FF) - 128) * even + ((vs16)((four >> 8) & 0x00FF00FF) - 128) * odd;
                c[v] += ((VI)sums << 16 >> 16) + ((VI)sums >> 16);
            }
        }
        float scale = a->scales[row * a->groups + group];
        for (uint32_t v = 0; v < PANEL / LANES; v++, acc += LANES) {
            VF y = __builtin_convertvector(c[v], VF) * scale;
            v_store(acc, group ? y + v_load(acc) : y);
        }
        acc -= PANEL;
    }
}

/* 16 bits also hold the sums of a group: eight times two products of 15 * 127. */
static void microkernel_int4(uint32_t rows, float *acc, const struct int8_rows *a, uint32_t row,
                             const uint8_t *panel, uint32_t k, struct prefetch_cursor cursor)
{
    (void)rows; /* 1 */
    (void)cursor;
    enum { CHUNKS = 64 / 16 }; /* of a line */
    const int8_t *q = a->q + row * a->stride;
    for (uint32_t first = 0; first < k; first += GROUP4, panel += GROUP4_BYTES) {
        vs16 c[2][CHUNKS] = { { { 0 } } };
        for (uint32_t i = first; i < first + GROUP4; i += 4) {
            vs16 even = { q[i], q[i + 2], q[i], q[i + 2], q[i], q[i + 2], q[i], q[i + 2] };
            vs16 odd = { q[i + 1], q[i + 3], q[i + 1], q[i + 3], q[i + 1], q[i + 3], q[i + 1], q[i + 3] };
            for (uint32_t chunk = 0; chunk < CHUNKS; chunk++) {
                VI both;
                memcpy(&both, panel + 16 * (i - first) + 16 * chunk, sizeof both);
                c[0][chunk] += (vs16)(both & 0x000F000F) * even + (vs16)(both >> 8 & 0x000F000F) * odd;
                c[1][chunk] += (vs16)(both >> 4 & 0x000F000F) * even + (vs16)(both >> 12 & 0x000F000F) * odd;
            }
        }
        const uint16_t *scales = (const uint16_t *)(const void *)(panel + GROUP4 * PANEL / 2);
        float scale = a->scales[row * a->groups + first / GROUP];
        int32_t offset = a->offsets4[row * a->groups * GROUPS4 + first / GROUP4];
        for (uint32_t v = 0; v < PANEL / LANES; v++) {
            VI pairs = (VI)c[v / CHUNKS][v % CHUNKS], sum = (pairs << 16 >> 16) + (pairs >> 16) + offset;
            VF y = __builtin_convertvector(sum, VF), before = first ? v_load(acc + v * LANES) : v_set1(0);
            v_store(acc + v * LANES, v_fma(y, v_load_f16(scales + v * LANES) * scale, before));
        }
    }
}

#include "packed_kernels_body.h"
