/* packed_device.h - device "cpu": the kernels for its processor, its threads and its profile. */
#ifndef PACKED_DEVICE_H
#define PACKED_DEVICE_H

#include "cpu_device.h"
#include "packed_kernels.h"
#include "packed_pool.h"
#include "profile.h"

struct packed_device {
    struct cpu_device cpu;
    struct pool *pool;
    const struct packed_kernels *kernels;
    size_t cache_bytes;      /* second-level cache of a core */
    bool kv_f16;             /* keys and values in f16 */
    struct profile *profile; /* NULL: phases are not timed */
};

/* Entries of struct backend. */
enum cinf_status packed_open(struct device **out, const struct device_options *options);
void packed_close(struct device *device);
void packed_info(const struct device *device, struct device_info *out);
bool packed_profile(struct device *device, uint32_t index, struct profile_row *out);
void packed_parallel(struct device *device, void (*work)(const void *argument, uint32_t i, uint32_t worker),
                     const void *argument, uint32_t n);
enum cinf_status packed_measure(struct device *device, struct device_speed *out); /* packed_measure.c */

#endif
