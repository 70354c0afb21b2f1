/* opencl_check.h - whether a device's kernels compute what they should. */
#ifndef OPENCL_CHECK_H
#define OPENCL_CHECK_H

#include "opencl_device.h"

/* CINF_EDEVICE if the kernels compute something wrong.  Takes some milliseconds, and what compiling takes. */
enum cinf_status opencl_check(struct opencl_device *device);

#endif
