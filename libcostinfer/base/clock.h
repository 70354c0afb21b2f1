/* clock.h - the two clocks that can be charged, in nanoseconds since an arbitrary start. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>

uint64_t clock_monotonic_ns(void);   /* CLOCK_MONOTONIC: wall time that never steps */
uint64_t clock_process_cpu_ns(void); /* CPU time of all threads of the process */

#endif
