/* packed_device.c - see packed_device.h. */
#define _GNU_SOURCE /* _SC_LEVEL2_CACHE_SIZE */
#include "packed_device.h"

#include <stdio.h>
#include <unistd.h>

#include "fail.h"
#include "mem.h"

enum cinf_status packed_open(struct device **out, const struct device_options *options)
{
    struct packed_device *device = mem_new(1, sizeof *device);
    if (!device)
        return cinf_fail(CINF_ENOMEM, "no memory for device %s", backend_cpu_packed.name);
    enum cinf_status status = pool_new(&device->pool, options->threads);
    if (status == CINF_OK && options->profile && !(device->profile = mem_new(1, sizeof *device->profile)))
        status = cinf_fail(CINF_ENOMEM, "no memory to profile device %s", backend_cpu_packed.name);
    if (status != CINF_OK) {
        packed_close((struct device *)device);
        return status;
    }
    char what[64];
    const long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    device->kernels = packed_kernels_best();
    device->kv_f16 = options->kv_f16;
    device->cache_bytes = cache > 0 ? (size_t)cache : 512 << 10;
    snprintf(what, sizeof what, "packed %s kernels", device->kernels->name);
    cpu_device_init(&device->cpu, &backend_cpu_packed, what, pool_threads(device->pool));
    *out = &device->cpu.base;
    return CINF_OK;
}

void packed_close(struct device *base)
{
    struct packed_device *device = (struct packed_device *)base;
    pool_free(device->pool);
    mem_free(device->profile);
    mem_free(device);
}

void packed_info(const struct device *device, struct device_info *out)
{
    cpu_device_info(device, out);
    out->kv_f16 = ((const struct packed_device *)device)->kv_f16;
    out->rows_independent = true;
}

bool packed_profile(struct device *base, uint32_t index, struct profile_row *out)
{
    struct packed_device *device = (struct packed_device *)base;
    return device->profile && profile_row(device->profile, index, out);
}

void packed_parallel(struct device *base, void (*work)(const void *argument, uint32_t i, uint32_t worker),
                     const void *argument, uint32_t n)
{
    pool_run(((struct packed_device *)base)->pool, &(struct pool_phase){ work, argument, n }, 1);
}
