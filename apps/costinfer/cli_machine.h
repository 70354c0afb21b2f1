/* cli_machine.h - the machine's best speed, for comparing a model's speed with it. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include <stdint.h>

struct machine_speed {
    double gb_per_second;    /* 10^9 bytes a second read from memory by all threads; 0: not measured */
    double gflop_per_second; /* float32 multiply-adds of the widest vectors, two a lane; 0: not measured */
};

/* The best of several passes of `threads` concurrent threads, in about a second.  The code shares nothing
 * with the library's kernels, so that they are compared with an independent limit. */
struct machine_speed machine_measure(uint32_t threads);

#endif
