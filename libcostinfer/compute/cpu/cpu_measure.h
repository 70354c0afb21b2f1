/* cpu_measure.h - what measure() of the CPU backends shares. */
#ifndef CPU_MEASURE_H
#define CPU_MEASURE_H

#include <stddef.h>
#include <stdint.h>

/* How many bytes a device reads to be measured: more than its last cache holds, 64 to 256 MiB. */
size_t cpu_measured_bytes(void);

/* Sorts samples[n] and returns the middle one. */
uint64_t cpu_median(uint64_t *samples, uint32_t n);

enum { CPU_SAMPLES_MAX = 7 };

/* The median time of 1 to `samples` calls of work(argument).  None begins after `deadline_ns`: opening a
 * device must not take long on a busy machine either. */
uint64_t cpu_time_of(void (*work)(const void *argument), const void *argument, uint32_t samples,
                     uint64_t deadline_ns);

#endif
