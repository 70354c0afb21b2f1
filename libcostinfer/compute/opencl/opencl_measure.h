/* opencl_measure.h - what a device takes for an operation and for a byte of weights. */
#ifndef OPENCL_MEASURE_H
#define OPENCL_MEASURE_H

#include "backend.h"

enum cinf_status opencl_measure(struct device *device, struct device_speed *out);

#endif
