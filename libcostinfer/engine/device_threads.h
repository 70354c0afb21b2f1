/* device_threads.h - which threads compute, for an engine that charges CPU time.
 *
 * A step's CPU time is that of the scheduler and of the device's threads.  Those that a driver or a library
 * started, such as OpenBLAS's, are known to that library alone, so they are found by watching which compute.
 */
#ifndef DEVICE_THREADS_H
#define DEVICE_THREADS_H

#include "backend.h"

#include <time.h>

enum { DEVICE_THREADS_MAX = 512 };

struct device_threads {
    uint32_t n;
    struct device_thread {
        clockid_t clock;
        uint64_t used_ns; /* as its clock said last */
    } thread[DEVICE_THREADS_MAX];
};

/* Measures the device as its backend does, and finds its threads: those of the pool that it lends, or else
 * those that computed during the measurement.  The calling thread is not one of them. */
enum cinf_status device_threads_find(struct device_threads *threads, struct device *device,
                                     struct device_speed *speed);

/* Adds the calling thread. */
void device_threads_add_self(struct device_threads *threads);

/* CPU time of all of them so far; a thread that has ended keeps what it has used.  One thread calls it. */
uint64_t device_threads_cpu_ns(struct device_threads *threads);

#endif
