/* cpu_device.h - what every CPU backend's device begins with: a count of its memory, and what it is called.
 */
#ifndef CPU_DEVICE_H
#define CPU_DEVICE_H

#include <stdatomic.h>

#include "backend_impl.h"

struct cpu_device {
    struct device base;
    _Atomic uint64_t memory_used; /* atomic: gauges are read from other threads */
    uint64_t memory_total;
    uint32_t threads;
    char description[160];
};

/* n * size bytes at a multiple of 64, zeroed, counted as the device's until cpu_free().  A large block costs
 * nothing but addresses until it is touched.  NULL when the product overflows or memory is exhausted. */
void *cpu_new(struct cpu_device *device, size_t n, size_t size);
void cpu_free(struct cpu_device *device, void *block);

/* Fills in a device that is zeroed; `library` is named in its description. */
void cpu_device_init(struct cpu_device *device, const struct backend *backend, const char *library,
                     uint32_t threads);

/* Entries of struct backend for a device that is nothing else. */
enum cinf_status cpu_device_open(struct device **out, const struct backend *backend, const char *library,
                                 uint32_t threads);
void cpu_device_close(struct device *device);
void cpu_device_info(const struct device *device, struct device_info *out);

#endif
