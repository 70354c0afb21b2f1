/* opencl_vendor_memory.h - how much of a device's memory is in use, according to its vendor's driver.
 *
 * OpenCL cannot say.  NVIDIA's management library counts the whole device, and so does sysfs for AMD's GPUs;
 * other drivers report this process's memory only. */
#ifndef OPENCL_VENDOR_MEMORY_H
#define OPENCL_VENDOR_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct pci_address {
    uint32_t domain, bus, device, function;
};

/* Where to look; NULL: in the usual place. */
struct vendor_sources {
    const char *nvml;   /* "libnvidia-ml.so.1" */
    const char *sysfs;  /* "/sys/bus/pci/devices" */
    const char *fdinfo; /* "/proc/self/fdinfo" */
};

struct vendor_memory;

/* NULL if no source knows the device at that address, or no memory can be allocated. */
struct vendor_memory *vendor_memory_open(const struct pci_address *at, const struct vendor_sources *sources);
void vendor_memory_close(struct vendor_memory *memory); /* accepts NULL */

/* Bytes in use by all processes, or by this one where the driver reports no more. */
bool vendor_memory_used(const struct vendor_memory *memory, uint64_t *bytes);

#endif
