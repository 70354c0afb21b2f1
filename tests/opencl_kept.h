/* opencl_kept.h - devices that stay open from one test to the next, because opening one builds all kernels.
 * The test programs of the OpenCL backend include it. */
#ifndef OPENCL_KEPT_H
#define OPENCL_KEPT_H

#include "opencl_open.h"
#include "support.h"

enum { KEPT_MAX = 8 };

static struct kept {
    const struct opencl_tuning *tuning; /* NULL: chosen by the device's type */
    bool kv_f16;
    struct device *device;
} kept[KEPT_MAX];

/* Returns a device of that tuning and type of cache, opened when it is first asked for. */
static struct device *kept_device(const struct opencl_tuning *tuning, bool kv_f16)
{
    struct kept *k = kept;
    while (k->device && (k->tuning != tuning || k->kv_f16 != kv_f16))
        k++;
    ck_assert(k < kept + KEPT_MAX - 1);
    if (!k->device) {
        const struct device_options options = { .kv_f16 = kv_f16 };
        ck_ok(opencl_open(&k->device, &backend_opencl, &options, tuning));
        k->tuning = tuning;
        k->kv_f16 = kv_f16;
    }
    return k->device;
}

/* Replaces close() in a backend whose devices are kept. */
static void kept_stays_open(struct device *device)
{
    (void)device;
}

static void kept_close_all(void)
{
    for (struct kept *k = kept; k->device; k++) {
        backend_opencl.close(k->device);
        *k = (struct kept){ 0 };
    }
}

#endif
