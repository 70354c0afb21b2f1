/* fake_nvml.c - a management library with one device, as a shared object.  COSTINFER_FAKE_NVML gives the
 * bytes in use and in total ("used total"), or names the function that fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct memory {
    unsigned long long total, free, used;
};

static int started;
static _Atomic unsigned long long used_now; /* overrides the environment's value if not 0 */

static int fails(const char *name)
{
    const char *fault = getenv("COSTINFER_FAKE_NVML");
    return fault && strcmp(fault, name) == 0 ? 999 : 0;
}

#define EXPORT __attribute__((visibility("default")))

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlShutdown(void);
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **out);
EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *out);
EXPORT int fake_nvml_started(void);
EXPORT void fake_nvml_use(unsigned long long bytes);

int nvmlInit_v2(void)
{
    started += !fails("init");
    return fails("init");
}

int nvmlShutdown(void)
{
    started--;
    return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **out)
{
    *out = &started;
    return strcmp(address, "0000:65:00.0") == 0 ? fails("find") : 6; /* not found */
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *out)
{
    const char *text = getenv("COSTINFER_FAKE_NVML");
    if (device != &started || fails("memory"))
        return 999;
    out->total = 1000;
    if (used_now) {
        *out = (struct memory){ .total = 1ull << 40, .used = used_now };
        return 0;
    }
    return text && sscanf(text, "%llu %llu", &out->used, &out->total) == 2 ? 0 : 3;
}

int fake_nvml_started(void)
{
    return started;
}

void fake_nvml_use(unsigned long long bytes)
{
    used_now = bytes;
}
