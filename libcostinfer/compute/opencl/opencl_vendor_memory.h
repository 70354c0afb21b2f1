/* opencl_vendor_memory.h - how much of a device's memory is in use, as its vendor's driver says.
 *
 * OpenCL does not tell.  NVIDIA's management library does for the whole device, so does the file system of
 * Linux for AMD's; other drivers tell what this process has. */
#ifndef OPENCL_VENDOR_MEMORY_H
#define OPENCL_VENDOR_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct pci_address {
    uint32_t domain, bus, device, function;
};

/* Where to look; NULL: where it is. */
struct vendor_sources {
    const char *nvml;   /* "libnvidia-ml.so.1" */
    const char *sysfs;  /* "/sys/bus/pci/devices" */
    const char *fdinfo; /* "/proc/self/fdinfo" */
};

struct vendor_memory;

/* NULL when nobody knows about the device at that address, or there is no memory. */
struct vendor_memory *vendor_memory_open(const struct pci_address *at, const struct vendor_sources *sources);
void vendor_memory_close(struct vendor_memory *memory); /* accepts NULL */

/* Bytes in use: by everybody, or by this process where the driver tells no more. */
bool vendor_memory_used(const struct vendor_memory *memory, uint64_t *bytes);

#endif
