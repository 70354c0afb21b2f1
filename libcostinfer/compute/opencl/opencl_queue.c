/* opencl_queue.c - kernels on their way to the device, and the end of what was enqueued. */
#include "opencl_queue.h"

#include <time.h>

#include "clock.h"

enum cinf_status opencl_arguments(const struct opencl_device *device, cl_kernel kernel,
                                  const struct opencl_argument *arguments)
{
    for (cl_uint i = 0; arguments[i].size; i++) {
        cl_int error = clSetKernelArg(kernel, i, arguments[i].size, arguments[i].value);
        if (error != CL_SUCCESS)
            return opencl_fail(device, error, "binding a kernel's arguments");
    }
    return CINF_OK;
}

static enum cinf_status launch(const struct opencl_device *device, cl_kernel kernel, const size_t *first,
                               const size_t global[3], const size_t local[3])
{
    const size_t whole[3] = { round_up(global[0], local[0]), round_up(global[1], local[1]), global[2] };
    cl_event timed = NULL;
    cl_int error = clEnqueueNDRangeKernel(device->queue, kernel, 3, first, whole, local, 0, NULL,
                                          device->profile ? &timed : NULL);
    if (timed)
        opencl_profile_add(device->profile, kernel, timed);
    return opencl_status(device, error, "starting a kernel");
}

enum cinf_status opencl_launch(const struct opencl_device *device, cl_kernel kernel, const size_t global[3],
                               const size_t local[3])
{
    return launch(device, kernel, NULL, global, local);
}

enum cinf_status opencl_launch_from(const struct opencl_device *device, cl_kernel kernel, size_t first,
                                    size_t x, size_t local)
{
    return launch(device, kernel, (const size_t[]){ first, 0, 0 }, (const size_t[]){ x, 1, 1 },
                  (const size_t[]){ local, 1, 1 });
}

/* Many GPU drivers busy-wait.  There the host polls instead and sleeps 1/16 of the time it has waited so far
 * (20 us to 1 ms): a short step is seen promptly, and a long one costs little processor time. */
enum cinf_status opencl_wait_event(const struct opencl_device *device, cl_event event)
{
    cl_int state = CL_QUEUED, error = CL_SUCCESS;
    if (device->sleeps)
        error = clWaitForEvents(1, &event);
    for (uint64_t start = clock_monotonic_ns(), pause = 0; error == CL_SUCCESS;) {
        error = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
        if (error != CL_SUCCESS || state <= CL_COMPLETE)
            break;
        pause = (clock_monotonic_ns() - start) / 16;
        pause = pause < 20000 ? 20000 : pause < 1000000 ? pause : 1000000;
        nanosleep(&(struct timespec){ .tv_nsec = (long)pause }, NULL);
    }
    clReleaseEvent(event);
    error = error == CL_SUCCESS && state < 0 ? state : error;
    return opencl_status(device, error, "waiting for a step");
}
