/* sampler_scan.c - see sampler_scan.h.
 *
 * The loops are written once, in sampler_scan_body.h, with GNU C's vectors: of four floats, which the
 * compiler emulates where the processor lacks them, and for x86-64 also of eight and of sixteen.  Those two
 * are compiled for their instruction sets by an attribute, and used only if the processor has these.  No
 * version may use a fused multiply-add, which rounds once where the others round twice: the tree is compiled
 * without contraction. */
#include "sampler_scan.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#define LANES      4
#define NAME(name) name##_4
#define TARGET
#define SCAN_NAME "4 lanes"
#include "sampler_scan_body.h"
#undef LANES
#undef NAME
#undef TARGET
#undef SCAN_NAME

#if defined(__x86_64__)
#define LANES      8
#define NAME(name) name##_8
#define TARGET     __attribute__((target("avx2")))
#define SCAN_NAME  "AVX2"
#include "sampler_scan_body.h"
#undef LANES
#undef NAME
#undef TARGET
#undef SCAN_NAME

#define LANES      16
#define NAME(name) name##_16
#define TARGET     __attribute__((target("avx512f,avx512dq")))
#define SCAN_NAME  "AVX-512"
#include "sampler_scan_body.h"
#endif

const struct sampler_scan *sampler_scan_at(uint32_t index)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && index-- == 0)
        return &scan_16;
    if (__builtin_cpu_supports("avx2") && index-- == 0)
        return &scan_8;
#endif
    return index == 0 ? &scan_4 : NULL;
}
