/* packed_isa.h - the tables of kernels that this build has; see packed_kernels.c. */
#ifndef PACKED_ISA_H
#define PACKED_ISA_H

struct packed_kernels;

#if defined(__x86_64__)
extern const struct packed_kernels packed_kernels_avx512, packed_kernels_avx2;
#endif
extern const struct packed_kernels packed_kernels_portable;

#endif
