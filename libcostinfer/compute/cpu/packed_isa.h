/* packed_isa.h - what only the files of an instruction set and their table (packed_kernels.c) see. */
#ifndef PACKED_ISA_H
#define PACKED_ISA_H

#include <stddef.h>

struct packed_kernels;

#if defined(__x86_64__)
extern const struct packed_kernels packed_kernels_avx512, packed_kernels_avx2;
#endif
extern const struct packed_kernels packed_kernels_portable;

#define INLINE static inline __attribute__((always_inline))

/* Stands before a loop with a constant number of iterations. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* How far ahead of the multiply-adds weights are prefetched.  The processor's own prefetcher stops at the end
 * of a page and does not keep all memory channels busy.  Measured from 1 to 16 KiB, one thread: 8 rows of f16
 * go from 23 to 31 GB/s, 12 rows of f32 from 28 to 39. */
enum { PREFETCH_BYTES = 8192 };

/* Where a pass over k lines prefetches, and how far that moves with each line. */
struct prefetch_cursor {
    const char *next;
    size_t step;
};

#endif
