/* opencl_queue.h - binding a kernel's arguments, launching it, and waiting. */
#ifndef OPENCL_QUEUE_H
#define OPENCL_QUEUE_H

#include "opencl_device.h"

struct opencl_argument {
    const void *value;
    size_t size;
};
#define ARGUMENT(x)                                                                                          \
    {                                                                                                        \
        &(x), sizeof(x)                                                                                      \
    }

/* Binds all arguments of a kernel: `arguments` ends with a zeroed one. */
enum cinf_status opencl_arguments(const struct opencl_device *device, cl_kernel kernel,
                                  const struct opencl_argument *arguments);

/* Enqueues work-items x, y, z in groups of `local`; x and y are rounded up to whole groups. */
enum cinf_status opencl_launch(const struct opencl_device *device, cl_kernel kernel, const size_t global[3],
                               const size_t local[3]);

/* Enqueues x work-items in one dimension, numbered from `first` on. */
enum cinf_status opencl_launch_from(const struct opencl_device *device, cl_kernel kernel, size_t first,
                                    size_t x, size_t local);

/* Waits for an event and releases it. */
enum cinf_status opencl_wait_event(const struct opencl_device *device, cl_event event);

#endif
