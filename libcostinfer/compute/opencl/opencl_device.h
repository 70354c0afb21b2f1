/* opencl_device.h - an open OpenCL device: what the backend knows about it, its buffers, and how a failed
 * call becomes a status.
 *
 * A device has one in-order queue.  Everything is enqueued without waiting, in the order in which it must
 * happen; the host waits for the result of a step and for room to stage weights in, and for nothing else. */
#ifndef OPENCL_DEVICE_H
#define OPENCL_DEVICE_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdatomic.h>

#include "backend_impl.h"
#include "opencl_layout.h"
#include "opencl_profile.h"
#include "opencl_vendor_memory.h"

/* How kernels are built and products computed; the device's type decides, or a test. */
struct opencl_tuning {
    uint32_t lanes; /* work-items that share a row; 1 for CPUs, where a barrier costs more than anything */
    uint32_t tile_rows;    /* rows of one slot that attend together */
    uint32_t split_length; /* a single row attends to its past in pieces of about this many positions */
    bool clblast;          /* CLBlast computes products of many rows */
    bool cache;            /* keep built programs in files */
    bool check; /* compare the kernels with the CPU's at opening, and do without those that are wrong */
    const char *options; /* additional options of the kernels' compiler, or NULL */
};

struct opencl_device {
    struct device base;
    char name[96];         /* "opencl:0:0" */
    char description[160]; /* of hardware and driver */
    char aside[160];       /* "; without WHAT: WHY" for each feature that failed its check at opening */
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    cl_program program;
    cl_program attend; /* attend.cl for heads of `attend_width`, the latest that was asked for; or NULL */
    uint32_t attend_width;
    struct opencl_tuning tuning;
    bool kv_f16;         /* keys and values in f16 */
    bool mad;            /* the driver could not build fma(), so kernels call mad() */
    bool has_blas;       /* opencl_blas_begin() has counted it */
    bool is_gpu, sleeps; /* sleeps: waiting for an event costs no processor time */
    uint32_t units;
    uint64_t memory_total, alloc_max;
    struct vendor_memory *vendor;   /* NULL: only our own count is known */
    struct opencl_profile *profile; /* NULL: kernels are not timed */
    _Atomic uint64_t memory_used;   /* atomic: gauges are read from other threads */
};

struct opencl_buffer {
    cl_mem mem;
    uint64_t bytes;
};

/* "CL_OUT_OF_RESOURCES", or words for an error that has no name here. */
const char *opencl_error_name(cl_int error);

/* "device NAME: <doing>: CL_OUT_OF_RESOURCES (-5)": CINF_ENOMEM if memory could not be had, else
 * CINF_EDEVICE. */
enum cinf_status opencl_fail(const struct opencl_device *device, cl_int error, const char *doing);

/* CINF_OK for CL_SUCCESS, else opencl_fail(). */
enum cinf_status opencl_status(const struct opencl_device *device, cl_int error, const char *doing);

/* Allocates device memory and counts it.  `flags` are added to CL_MEM_READ_WRITE.  More than the device has,
 * or more than it gives in one buffer, is CINF_ENOMEM even where the driver would promise it.  With `zero`
 * the queue clears the buffer, without waiting. */
enum cinf_status opencl_buffer_new(struct opencl_buffer *out, struct opencl_device *device, uint64_t bytes,
                                   cl_mem_flags flags, bool zero, const char *what);
void opencl_buffer_free(struct opencl_device *device, struct opencl_buffer *buffer);

/* Maps all of a buffer into host memory, for good. */
enum cinf_status opencl_buffer_map(void **out, struct opencl_device *device,
                                   const struct opencl_buffer *buffer, cl_map_flags flags);

/* Bytes of the device in use by every process, as its vendor's driver says; 0 if it does not say. */
uint64_t opencl_memory_taken(const struct opencl_device *device);

static inline uint64_t round_up(uint64_t n, uint64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

#endif
