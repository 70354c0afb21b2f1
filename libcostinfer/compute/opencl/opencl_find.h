/* opencl_find.h - the devices that OpenCL offers, without opening them. */
#ifndef OPENCL_FIND_H
#define OPENCL_FIND_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "backend.h"
#include "opencl_vendor_memory.h"

/* Device `index` over all platforms.  CINF_ENOTFOUND behind the last one. */
enum cinf_status opencl_find(uint32_t index, struct device_info *out);

/* The device of that name ("opencl:0:0"); NULL: a GPU if there is one, else the first device. */
enum cinf_status opencl_find_named(cl_device_id *out, struct device_info *info, const char *name);

/* A number that the driver gives for a device; 0 if it gives none. */
uint64_t opencl_find_number(cl_device_id id, cl_device_info what);

/* Where the device is on its bus, by the extension of all vendors or by one vendor's own query. */
bool opencl_find_address(struct pci_address *out, cl_device_id id);

#endif
