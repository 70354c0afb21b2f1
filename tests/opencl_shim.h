/* opencl_shim.h - stands between the backend and the driver.  One test program includes it, and the linker
 * prefers that program's functions of these names to the loader's.
 *
 * Every buffer gets guard words behind its end, which are verified when it is released.  Every object is
 * counted, so that a test can assert that none is left, whichever way a driver makes it.  The nth call from
 * now can be made to fail, and the queue can be drained after every command. */
#ifndef OPENCL_SHIM_H
#define OPENCL_SHIM_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- What tests set and read --------------------------------------------------------------- */

static struct {
    uint64_t calls;        /* calls so far that could have failed */
    uint64_t fail_at;      /* the number of the call that fails; 0: none */
    const char *fail_name; /* fail_at counts calls of this function only; NULL: of all */
    uint64_t named;        /* calls of that function since it was named */
    const char *failed;
    cl_int error;
    int live; /* contexts, queues, buffers, programs, kernels and events that are not released */
    bool overrun;
    bool synchronous; /* every command has ended when its call returns */
} shim;

/* Lets the nth call from now fail, or the nth of that name; 0: none. */
static void shim_fail_at(uint64_t n, const char *name, cl_int error)
{
    shim.fail_at = n && !name ? shim.calls + n : n;
    shim.fail_name = name;
    shim.named = 0;
    shim.error = error;
    shim.failed = NULL;
}

/* Counts the calls of that name in shim.named from now on; none fails. */
static void shim_count(const char *name)
{
    shim_fail_at(UINT64_MAX, name, 0);
}

static bool shim_fails(const char *name)
{
    shim.calls++;
    if (shim.fail_name ? strcmp(shim.fail_name, name) != 0 || ++shim.named != shim.fail_at
                       : shim.calls != shim.fail_at)
        return false;
    shim.failed = name;
    return true;
}

static void *shim_real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (!function)
        abort();
    return function;
}

static void shim_synchronise(cl_command_queue queue)
{
    static __typeof__(clFinish) *finish;
    if (!shim.synchronous)
        return;
    void *found = shim_real("clFinish");
    memcpy(&finish, &found, sizeof finish);
    if (finish(queue) != CL_SUCCESS)
        abort();
}

/* ---- Guard words ---------------------------------------------------------------------------- */

enum { GUARD_BYTES = 256, GUARD = 0xA5, GUARDED_MAX = 4096 };
static struct {
    cl_mem mem;
    size_t bytes;
    cl_command_queue queue;
} guarded[GUARDED_MAX];

enum { QUEUES_MAX = 16 };
static struct {
    cl_context context;
    cl_command_queue queue;
} shim_queues[QUEUES_MAX]; /* each context has one */

static cl_command_queue shim_queue_of(cl_context context)
{
    for (int i = 0; i < QUEUES_MAX; i++) {
        if (shim_queues[i].context == context)
            return shim_queues[i].queue;
    }
    abort();
}

#pragma GCC visibility push(default)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#define REAL(name)                                                                                           \
    static __typeof__(name) *real;                                                                           \
    if (!real) {                                                                                             \
        void *function_ = shim_real(#name);                                                                  \
        memcpy(&real, &function_, sizeof real);                                                              \
    }

/* A call that returns a status. */
#define STATUS(name, parameters, ...)                                                                        \
    cl_int CL_API_CALL name parameters                                                                       \
    {                                                                                                        \
        REAL(name)                                                                                           \
        return shim_fails(#name) ? shim.error : real(__VA_ARGS__);                                           \
    }

/* A call that returns a status and may make an event. */
#define ENQUEUE(name, parameters, ...)                                                                       \
    cl_int CL_API_CALL name parameters                                                                       \
    {                                                                                                        \
        REAL(name)                                                                                           \
        if (shim_fails(#name))                                                                               \
            return shim.error;                                                                               \
        cl_int status = real(__VA_ARGS__);                                                                   \
        shim.live += status == CL_SUCCESS && event;                                                          \
        shim_synchronise(queue);                                                                             \
        return status;                                                                                       \
    }

/* A call that makes an object. */
#define CREATE(type, name, parameters, ...)                                                                  \
    type CL_API_CALL name parameters                                                                         \
    {                                                                                                        \
        REAL(name)                                                                                           \
        if (shim_fails(#name)) {                                                                             \
            if (error)                                                                                       \
                *error = shim.error;                                                                         \
            return NULL;                                                                                     \
        }                                                                                                    \
        type made = real(__VA_ARGS__);                                                                       \
        shim.live += made != NULL;                                                                           \
        return made;                                                                                         \
    }

#define RELEASE(name, type)                                                                                  \
    cl_int CL_API_CALL name(type object)                                                                     \
    {                                                                                                        \
        REAL(name)                                                                                           \
        shim.live--;                                                                                         \
        return real(object);                                                                                 \
    }

STATUS(clGetPlatformIDs, (cl_uint n, cl_platform_id *out, cl_uint *found), n, out, found)
STATUS(clGetPlatformInfo, (cl_platform_id id, cl_platform_info what, size_t size, void *out, size_t *need),
       id, what, size, out, need)
STATUS(clGetDeviceIDs, (cl_platform_id id, cl_device_type type, cl_uint n, cl_device_id *out, cl_uint *found),
       id, type, n, out, found)
STATUS(clGetDeviceInfo, (cl_device_id id, cl_device_info what, size_t size, void *out, size_t *need), id,
       what, size, out, need)
STATUS(clBuildProgram,
       (cl_program program, cl_uint n, const cl_device_id *ids, const char *options,
        void(CL_CALLBACK *notify)(cl_program, void *), void *user),
       program, n, ids, options, notify, user)
STATUS(clGetProgramInfo, (cl_program program, cl_program_info what, size_t size, void *out, size_t *need),
       program, what, size, out, need)
STATUS(clSetKernelArg, (cl_kernel kernel, cl_uint index, size_t size, const void *value), kernel, index, size,
       value)
STATUS(clFlush, (cl_command_queue queue), queue)
STATUS(clFinish, (cl_command_queue queue), queue)
STATUS(clWaitForEvents, (cl_uint n, const cl_event *events), n, events)
STATUS(clGetEventInfo, (cl_event e, cl_event_info what, size_t size, void *out, size_t *need), e, what, size,
       out, need)
ENQUEUE(clEnqueueFillBuffer,
        (cl_command_queue queue, cl_mem mem, const void *pattern, size_t size, size_t offset, size_t bytes,
         cl_uint n, const cl_event *list, cl_event *event),
        queue, mem, pattern, size, offset, bytes, n, list, event)
ENQUEUE(clEnqueueWriteBuffer,
        (cl_command_queue queue, cl_mem mem, cl_bool wait, size_t offset, size_t bytes, const void *from,
         cl_uint n, const cl_event *list, cl_event *event),
        queue, mem, wait, offset, bytes, from, n, list, event)
ENQUEUE(clEnqueueReadBuffer,
        (cl_command_queue queue, cl_mem mem, cl_bool wait, size_t offset, size_t bytes, void *to, cl_uint n,
         const cl_event *list, cl_event *event),
        queue, mem, wait, offset, bytes, to, n, list, event)
ENQUEUE(clEnqueueNDRangeKernel,
        (cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,
         const size_t *local, cl_uint n, const cl_event *list, cl_event *event),
        queue, kernel, dims, offset, global, local, n, list, event)
ENQUEUE(clEnqueueMarkerWithWaitList,
        (cl_command_queue queue, cl_uint n, const cl_event *list, cl_event *event), queue, n, list, event)
CREATE(cl_context, clCreateContext,
       (const cl_context_properties *properties, cl_uint n, const cl_device_id *ids,
        void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *error),
       properties, n, ids, notify, user, error)
CREATE(cl_program, clCreateProgramWithSource,
       (cl_context context, cl_uint n, const char **texts, const size_t *lengths, cl_int *error), context, n,
       texts, lengths, error)
CREATE(cl_program, clCreateProgramWithBinary,
       (cl_context context, cl_uint n, const cl_device_id *ids, const size_t *lengths,
        const unsigned char **binaries, cl_int *states, cl_int *error),
       context, n, ids, lengths, binaries, states, error)
CREATE(cl_kernel, clCreateKernel, (cl_program program, const char *name, cl_int *error), program, name, error)
RELEASE(clReleaseContext, cl_context)
RELEASE(clReleaseProgram, cl_program)
RELEASE(clReleaseKernel, cl_kernel)
RELEASE(clReleaseEvent, cl_event)

cl_command_queue CL_API_CALL clCreateCommandQueue(cl_context context, cl_device_id id,
                                                  cl_command_queue_properties properties, cl_int *error)
{
    REAL(clCreateCommandQueue)
    if (shim_fails("clCreateCommandQueue")) {
        *error = shim.error;
        return NULL;
    }
    cl_command_queue queue = real(context, id, properties, error);
    if (!queue)
        return NULL;
    shim.live++;
    for (int i = 0; i < QUEUES_MAX; i++) {
        if (!shim_queues[i].context) {
            shim_queues[i].context = context;
            shim_queues[i].queue = queue;
            return queue;
        }
    }
    abort();
}

cl_int CL_API_CALL clReleaseCommandQueue(cl_command_queue queue)
{
    REAL(clReleaseCommandQueue)
    shim.live--;
    for (int i = 0; i < QUEUES_MAX; i++) {
        if (shim_queues[i].queue == queue)
            shim_queues[i].context = NULL;
    }
    return real(queue);
}

void *CL_API_CALL clEnqueueMapBuffer(cl_command_queue queue, cl_mem mem, cl_bool wait, cl_map_flags flags,
                                     size_t offset, size_t bytes, cl_uint n, const cl_event *list,
                                     cl_event *event, cl_int *error)
{
    REAL(clEnqueueMapBuffer)
    if (shim_fails("clEnqueueMapBuffer")) {
        *error = shim.error;
        return NULL;
    }
    return real(queue, mem, wait, flags, offset, bytes, n, list, event, error);
}

cl_mem CL_API_CALL clCreateBuffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host,
                                  cl_int *error)
{
    REAL(clCreateBuffer)
    static __typeof__(clEnqueueFillBuffer) *fill;
    void *found = shim_real("clEnqueueFillBuffer");
    memcpy(&fill, &found, sizeof fill);
    if (shim_fails("clCreateBuffer")) {
        *error = shim.error;
        return NULL;
    }
    cl_mem mem = real(context, flags, bytes ? bytes + GUARD_BYTES : 0, host, error);
    if (!mem)
        return NULL;
    shim.live++;
    const unsigned char guard = GUARD;
    cl_command_queue queue = shim_queue_of(context);
    fill(queue, mem, &guard, 1, bytes, GUARD_BYTES, 0, NULL, NULL);
    for (int i = 0; i < GUARDED_MAX; i++) {
        if (!guarded[i].mem) {
            guarded[i].mem = mem;
            guarded[i].bytes = bytes;
            guarded[i].queue = queue;
            return mem;
        }
    }
    abort();
}

cl_int CL_API_CALL clReleaseMemObject(cl_mem mem)
{
    REAL(clReleaseMemObject)
    static __typeof__(clEnqueueReadBuffer) *read_back;
    void *found = shim_real("clEnqueueReadBuffer");
    memcpy(&read_back, &found, sizeof read_back);
    shim.live--;
    for (int i = 0; i < GUARDED_MAX; i++) {
        if (guarded[i].mem != mem)
            continue;
        unsigned char guard[GUARD_BYTES];
        if (read_back(guarded[i].queue, mem, CL_TRUE, guarded[i].bytes, GUARD_BYTES, guard, 0, NULL, NULL) ==
            CL_SUCCESS) {
            for (int b = 0; b < GUARD_BYTES; b++)
                shim.overrun = shim.overrun || guard[b] != GUARD;
        }
        guarded[i].mem = NULL;
    }
    return real(mem);
}

#pragma GCC diagnostic pop
#pragma GCC visibility pop

#endif
