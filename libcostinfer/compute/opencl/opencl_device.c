/* opencl_device.c - errors and buffers of a device.
 *
 * A driver may lack anything: the loader, a platform, a device that was there a moment ago.  Every failure is
 * a status, and its message says what was asked and what came back. */
#include "opencl_device.h"

#include <inttypes.h>

#include "fail.h"

/* ---- Errors ------------------------------------------------------------------------------- */

const char *opencl_error_name(cl_int error)
{
    switch (error) {
#define NAME(code)                                                                                           \
    case code:                                                                                               \
        return #code;
        NAME(CL_DEVICE_NOT_FOUND)
        NAME(CL_DEVICE_NOT_AVAILABLE)
        NAME(CL_COMPILER_NOT_AVAILABLE)
        NAME(CL_MEM_OBJECT_ALLOCATION_FAILURE)
        NAME(CL_OUT_OF_RESOURCES)
        NAME(CL_OUT_OF_HOST_MEMORY)
        NAME(CL_BUILD_PROGRAM_FAILURE)
        NAME(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST)
        NAME(CL_INVALID_VALUE)
        NAME(CL_INVALID_DEVICE)
        NAME(CL_INVALID_CONTEXT)
        NAME(CL_INVALID_COMMAND_QUEUE)
        NAME(CL_INVALID_MEM_OBJECT)
        NAME(CL_INVALID_PROGRAM_EXECUTABLE)
        NAME(CL_INVALID_KERNEL_NAME)
        NAME(CL_INVALID_KERNEL_ARGS)
        NAME(CL_INVALID_ARG_SIZE)
        NAME(CL_INVALID_WORK_GROUP_SIZE)
        NAME(CL_INVALID_BUFFER_SIZE)
#undef NAME
    case -1001:
        return "no OpenCL driver is installed";
    default:
        return "an OpenCL error";
    }
}

enum cinf_status opencl_fail(const struct opencl_device *device, cl_int error, const char *doing)
{
    bool memory = error == CL_MEM_OBJECT_ALLOCATION_FAILURE || error == CL_OUT_OF_HOST_MEMORY ||
                  error == CL_INVALID_BUFFER_SIZE;
    return cinf_fail(memory ? CINF_ENOMEM : CINF_EDEVICE, "device %s: %s: %s (%d)", device->name, doing,
                     opencl_error_name(error), error);
}

enum cinf_status opencl_status(const struct opencl_device *device, cl_int error, const char *doing)
{
    return error == CL_SUCCESS ? CINF_OK : opencl_fail(device, error, doing);
}

/* ---- Buffers ------------------------------------------------------------------------------ */

enum cinf_status opencl_buffer_new(struct opencl_buffer *out, struct opencl_device *device, uint64_t bytes,
                                   cl_mem_flags flags, bool zero, const char *what)
{
    uint64_t used = atomic_load(&device->memory_used);
    if (bytes > device->alloc_max)
        return cinf_fail(CINF_ENOMEM,
                         "device %s: %s of %" PRIu64 " bytes, and it gives at most %" PRIu64 " at a time",
                         device->name, what, bytes, device->alloc_max);
    if (used > device->memory_total || bytes > device->memory_total - used)
        return cinf_fail(CINF_ENOMEM,
                         "device %s: %s of %" PRIu64 " bytes; %" PRIu64 " of its %" PRIu64 " are in use",
                         device->name, what, bytes, used, device->memory_total);
    cl_int error;
    cl_mem mem = clCreateBuffer(device->context, CL_MEM_READ_WRITE | flags, bytes, NULL, &error);
    if (!mem)
        return opencl_fail(device, error == CL_OUT_OF_RESOURCES ? CL_MEM_OBJECT_ALLOCATION_FAILURE : error,
                           what);
    if (zero) {
        static const cl_uint nothing = 0;
        error = clEnqueueFillBuffer(device->queue, mem, &nothing, sizeof nothing, 0, bytes, 0, NULL, NULL);
        if (error != CL_SUCCESS) {
            clReleaseMemObject(mem);
            return opencl_fail(device, error, what);
        }
    }
    atomic_fetch_add(&device->memory_used, bytes);
    *out = (struct opencl_buffer){ mem, bytes };
    return CINF_OK;
}

void opencl_buffer_free(struct opencl_device *device, struct opencl_buffer *buffer)
{
    if (!buffer->mem)
        return;
    clReleaseMemObject(buffer->mem);
    atomic_fetch_sub(&device->memory_used, buffer->bytes);
    *buffer = (struct opencl_buffer){ 0 };
}

enum cinf_status opencl_buffer_map(void **out, struct opencl_device *device,
                                   const struct opencl_buffer *buffer, cl_map_flags flags)
{
    cl_int error;
    void *host = clEnqueueMapBuffer(device->queue, buffer->mem, CL_TRUE, flags, 0, buffer->bytes, 0, NULL,
                                    NULL, &error);
    if (!host)
        return opencl_fail(device, error, "mapping pinned memory");
    *out = host;
    return CINF_OK;
}

uint64_t opencl_memory_taken(const struct opencl_device *device)
{
    uint64_t bytes;
    return device->vendor && vendor_memory_used(device->vendor, &bytes) ? bytes : 0;
}
