/* opencl_open.h - opening and closing a device, and what an open one says about itself. */
#ifndef OPENCL_OPEN_H
#define OPENCL_OPEN_H

#include "opencl_device.h"

/* Opens the device that `options` name for a backend.  `tuning` is for tests, which open a device as if it
 * were of another kind; NULL: as its type asks for. */
enum cinf_status opencl_open(struct device **out, const struct backend *backend,
                             const struct device_options *options, const struct opencl_tuning *tuning);
void opencl_close(struct device *device);
void opencl_info(const struct device *device, struct device_info *out);
bool opencl_device_profile(struct device *device, uint32_t index, struct profile_row *out);

#endif
