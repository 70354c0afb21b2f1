/* opencl_device.c - which OpenCL devices there are, opening one, its programs and its buffers.
 *
 * A driver is code of somebody else that may lack anything: no loader, no platform, a platform whose
 * devices vanish.  All of that is a status, whose message says what was asked and what came back. */
#include "opencl_device.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "fail.h"
#include "kernel_sources.h"
#include "mem.h"
#include "opencl_blas.h"
#include "opencl_cache.h"
#include "strbuf.h"

/* ---- Errors ------------------------------------------------------------------------------- */

static const char *error_name(cl_int error)
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
                     error_name(error), error);
}

enum cinf_status opencl_status(const struct opencl_device *device, cl_int error, const char *doing)
{
    return error == CL_SUCCESS ? CINF_OK : opencl_fail(device, error, doing);
}

/* ---- Which there are ---------------------------------------------------------------------- */

struct found {
    cl_device_id id;
    uint32_t platform, device; /* their numbers in the loader's order */
};

/* Every device of every platform.  None is CINF_ENOTFOUND. */
static enum cinf_status find_all(struct found found[OPENCL_DEVICES_MAX], uint32_t *n_found)
{
    cl_platform_id platforms[OPENCL_DEVICES_MAX];
    cl_uint n_platforms = 0;
    cl_int error = clGetPlatformIDs(OPENCL_DEVICES_MAX, platforms, &n_platforms);
    if (error != CL_SUCCESS || n_platforms == 0)
        return cinf_fail(CINF_ENOTFOUND, "OpenCL has no platform: %s (%d)", error_name(error), error);
    *n_found = 0;
    char last[128] = "";
    for (uint32_t p = 0; p < n_platforms && p < OPENCL_DEVICES_MAX; p++) {
        cl_device_id ids[OPENCL_DEVICES_MAX];
        cl_uint n = 0;
        error = clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, OPENCL_DEVICES_MAX, ids, &n);
        if (error != CL_SUCCESS) {
            char name[64] = "?";
            clGetPlatformInfo(platforms[p], CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
            snprintf(last, sizeof last, "%.60s: %s (%d)", name, error_name(error), error);
            continue;
        }
        for (uint32_t d = 0; d < n && d < OPENCL_DEVICES_MAX && *n_found < OPENCL_DEVICES_MAX; d++)
            found[(*n_found)++] = (struct found){ ids[d], p, d };
    }
    return *n_found > 0
               ? CINF_OK
               : cinf_fail(CINF_ENOTFOUND, "OpenCL has %u platforms and no device; %s", n_platforms, last);
}

/* Text of a device, or "?". */
static void device_text(cl_device_id id, cl_device_info what, char *out, size_t size)
{
    char text[256] = "?";
    clGetDeviceInfo(id, what, sizeof text - 1, text, NULL);
    text[sizeof text - 1] = 0;
    snprintf(out, size, "%s", text + strspn(text, " "));
}

static uint64_t device_number(cl_device_id id, cl_device_info what)
{
    cl_ulong number = 0;
    clGetDeviceInfo(id, what, sizeof number, &number, NULL);
    return number;
}

static cl_uint device_uint(cl_device_id id, cl_device_info what)
{
    cl_uint number = 0;
    clGetDeviceInfo(id, what, sizeof number, &number, NULL);
    return number;
}

/* Returns what the driver says when asked for the type; a device whose type nobody knows is of none. */
static cl_int describe(const struct found *f, struct device_info *out)
{
    char name[64], version[48], driver[32];
    cl_device_type type = 0;
    cl_int error = clGetDeviceInfo(f->id, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    device_text(f->id, CL_DEVICE_NAME, name, sizeof name);
    device_text(f->id, CL_DEVICE_VERSION, version, sizeof version);
    device_text(f->id, CL_DRIVER_VERSION, driver, sizeof driver);
    char *space = strchr(version, ' '); /* "OpenCL 3.0 and what the vendor adds" */
    if (space)
        version[strcspn(space + 1, " ") + (size_t)(space + 1 - version)] = 0;
    *out = (struct device_info){ .is_gpu = (type & CL_DEVICE_TYPE_GPU) != 0,
                                 .shares_cpu = (type & CL_DEVICE_TYPE_CPU) != 0,
                                 .threads = device_uint(f->id, CL_DEVICE_MAX_COMPUTE_UNITS),
                                 .memory_total = device_number(f->id, CL_DEVICE_GLOBAL_MEM_SIZE) };
    snprintf(out->name, sizeof out->name, "opencl:%u:%u", f->platform, f->device);
    snprintf(out->description, sizeof out->description, "%s, %s, driver %s", name, version, driver);
    return error;
}

static enum cinf_status find(uint32_t index, struct device_info *out)
{
    struct found found[OPENCL_DEVICES_MAX];
    uint32_t n;
    TRY(find_all(found, &n));
    if (index >= n)
        return cinf_fail(CINF_ENOTFOUND, "OpenCL device %u of %u", index, n);
    describe(&found[index], out);
    return CINF_OK;
}

/* ---- Opening ------------------------------------------------------------------------------ */

/* NULL: a GPU, or else the first of whatever there is. */
static enum cinf_status find_named(struct found *out, struct device_info *info, const char *name)
{
    struct found found[OPENCL_DEVICES_MAX];
    uint32_t n, chosen = 0;
    bool is_found = !name;
    TRY(find_all(found, &n));
    for (uint32_t i = n; i-- > 0;) {
        describe(&found[i], info);
        if (name ? strcmp(name, info->name) == 0 : info->is_gpu) {
            chosen = i;
            is_found = true;
        }
    }
    if (!is_found)
        return cinf_fail(CINF_ENOTFOUND, "no OpenCL device %s", name);
    cl_int error = describe(&found[chosen], info);
    if (error != CL_SUCCESS) /* a CPU would get the kernels of a GPU */
        return cinf_fail(CINF_EDEVICE, "device %s: asking for its type: %s (%d)", info->name,
                         error_name(error), error);
    *out = found[chosen];
    return CINF_OK;
}

static const char *const step_sources[] = { "opencl_layout.h", "cache.cl", "step.cl", "epilogue.cl",
                                            "pick.cl" };

/* The products once for each type of weights and number of rows; the preprocessor is our template engine. */
static const struct variant {
    const char *defines, *source;
} variants[] = {
#define F32                                                                                                  \
    "#define WEIGHT float\n#define LOAD1(i, p) (p)[i]\n#define LOAD4 vload4\n#define LOAD16 vload16\n"       \
    "#define SCALED(y, c) (y)\n"
#define F16                                                                                                  \
    "#define WEIGHT half\n#define LOAD1 vload_half\n#define LOAD4 vloada_half4\n#define LOAD16 "             \
    "vloada_half16\n#define SCALED(y, c) (y)\n"
#define INT8                                                                                                 \
    "#define WEIGHT char\n#define LOAD1(i, p) (float)(p)[i]\n"                                               \
    "#define LOAD4(i, p) convert_float4(vload4(i, p))\n"                                                     \
    "#define LOAD16(i, p) convert_float16(vload16(i, p))\n#define SCALED(y, c) ((y) * scales[c])\n"
    { F32 "#define M 1\n#define KERNEL(name) name##_f32_1\n", "linear.cl" },
    { F32 "#define M 4\n#define KERNEL(name) name##_f32_4\n", "linear.cl" },
    { F32 "#define M 8\n#define KERNEL(name) name##_f32_8\n", "linear.cl" },
    { F32 "#define KERNEL(name) name##_f32\n", "matrix.cl" },
    { F16 "#define M 1\n#define KERNEL(name) name##_f16_1\n", "linear.cl" },
    { F16 "#define M 4\n#define KERNEL(name) name##_f16_4\n", "linear.cl" },
    { F16 "#define M 8\n#define KERNEL(name) name##_f16_8\n", "linear.cl" },
    { F16 "#define KERNEL(name) name##_f16\n", "matrix.cl" },
    { INT8 "#define M 1\n#define KERNEL(name) name##_int8_1\n", "linear.cl" },
    { INT8 "#define M 4\n#define KERNEL(name) name##_int8_4\n", "linear.cl" },
    { INT8 "#define M 8\n#define KERNEL(name) name##_int8_8\n", "linear.cl" },
    { INT8 "#define KERNEL(name) name##_int8\n", "matrix.cl" },
#undef F32
#undef F16
#undef INT8
};
static const char undefine[] =
    "\n#undef WEIGHT\n#undef LOAD1\n#undef LOAD4\n#undef LOAD16\n#undef SCALED\n#undef M\n#undef KERNEL\n";

static const char *source_of(const char *name)
{
    for (const struct kernel_source *s = kernel_sources; s->name; s++) {
        if (strcmp(s->name, name) == 0)
            return s->text;
    }
    return name; /* text of its own */
}

static enum cinf_status build_device_program(struct opencl_device *device)
{
    enum {
        FIXED = sizeof step_sources / sizeof *step_sources,
        VARIANTS = sizeof variants / sizeof *variants
    };
    const char *sources[FIXED + 3 * VARIANTS];
    uint32_t n = 0;
    for (; n < FIXED; n++)
        sources[n] = step_sources[n];
    for (uint32_t i = 0; i < VARIANTS; i++) {
        sources[n++] = variants[i].defines;
        sources[n++] = variants[i].source;
        sources[n++] = undefine;
    }
    char options[512];
    snprintf(options, sizeof options,
             "-DEPILOGUE_ACTIVATION=%d -DEPILOGUE_ADD=%d -DEPILOGUE_QKV=%d -DEPILOGUE_HEAD=%d "
             "-DACTIVATION_GELU_NEW=%d -DACTIVATION_GELU=%d -DACTIVATION_RELU=%d -DACTIVATION_SILU=%d",
             EPILOGUE_ACTIVATION, EPILOGUE_ADD, EPILOGUE_QKV, OPENCL_EPILOGUE_HEAD, CINF_ACTIVATION_GELU_NEW,
             CINF_ACTIVATION_GELU, CINF_ACTIVATION_RELU, CINF_ACTIVATION_SILU);
    return opencl_program_new(&device->program, device, options, sources, n);
}

static void stop(struct opencl_device *device)
{
    opencl_blas_end(device);
    if (device->attend)
        clReleaseProgram(device->attend);
    if (device->program)
        clReleaseProgram(device->program);
    if (device->queue)
        clReleaseCommandQueue(device->queue);
    if (device->context)
        clReleaseContext(device->context);
    device->attend = NULL;
    device->program = NULL;
    device->queue = NULL;
    device->context = NULL;
}

static void close_device(struct device *base)
{
    stop((struct opencl_device *)base);
    opencl_profile_free(((struct opencl_device *)base)->profile);
    vendor_memory_close(((struct opencl_device *)base)->vendor);
    mem_free(base);
}

static enum cinf_status start(struct opencl_device *device)
{
    cl_int error;
    device->context = clCreateContext(NULL, 1, &device->id, NULL, NULL, &error);
    if (!device->context)
        return opencl_fail(device, error, "creating a context");
    device->queue = clCreateCommandQueue(device->context, device->id,
                                         device->profile ? CL_QUEUE_PROFILING_ENABLE : 0, &error);
    if (!device->queue)
        return opencl_fail(device, error, "creating a queue");
    return build_device_program(device);
}

bool opencl_address(struct pci_address *out, cl_device_id id)
{
    enum { PCI_KHR = 0x410F, TOPOLOGY_AMD = 0x4037, BUS_NV = 0x4008, SLOT_NV = 0x4009, DOMAIN_NV = 0x400A };
    cl_uint khr[4], bus, slot, domain;
    unsigned char amd[24]; /* a type, 17 bytes of nothing, bus, device, function */
    if (clGetDeviceInfo(id, PCI_KHR, sizeof khr, khr, NULL) == CL_SUCCESS) {
        *out = (struct pci_address){ khr[0], khr[1], khr[2], khr[3] };
        return true;
    }
    if (clGetDeviceInfo(id, TOPOLOGY_AMD, sizeof amd, amd, NULL) == CL_SUCCESS) {
        *out = (struct pci_address){ 0, amd[21], amd[22], amd[23] };
        return true;
    }
    if (clGetDeviceInfo(id, BUS_NV, sizeof bus, &bus, NULL) != CL_SUCCESS ||
        clGetDeviceInfo(id, SLOT_NV, sizeof slot, &slot, NULL) != CL_SUCCESS)
        return false;
    if (clGetDeviceInfo(id, DOMAIN_NV, sizeof domain, &domain, NULL) != CL_SUCCESS)
        domain = 0;
    *out = (struct pci_address){ domain, bus, slot >> 3, slot & 7 };
    return true;
}

/* The kernels for CPUs are the plain ones: no barriers, no local memory, no assumption about the hardware. */
static struct opencl_tuning tuning_as(bool cpu)
{
    return cpu ? (struct opencl_tuning){ .lanes = 1, .tile_rows = 4, .split_length = 256 }
               : (struct opencl_tuning){
                     .lanes = 64, .tile_rows = 32, .split_length = 256, .clblast = true, .check = true
                 };
}

/* By the device's type; COSTINFER_OPENCL_SHAPE = cpu or gpu has it the other way. */
static struct opencl_tuning tuning_of(const struct opencl_device *device, bool cpu)
{
    const char *shape = getenv("COSTINFER_OPENCL_SHAPE");
    bool as_cpu = shape && (strcmp(shape, "cpu") == 0 || strcmp(shape, "gpu") == 0) ? *shape == 'c' : cpu;
    struct opencl_tuning tuning = tuning_as(as_cpu);
    tuning.clblast = tuning.clblast && !cpu; /* a CPU takes a minute to compile it */
    tuning.cache = opencl_cache_wanted(device->id);
    return tuning;
}

/* What is special is done without where it is wrong, and the device's description says so. */
static void step_aside(struct opencl_device *device, const char *what)
{
    size_t used = strlen(device->description);
    snprintf(device->description + used, sizeof device->description - used, "; without %s: %s", what,
             cinf_last_error());
}

static enum cinf_status start_checked(struct opencl_device *device)
{
    const struct opencl_tuning tuning = device->tuning;
    device->tuning.clblast = false;
    enum cinf_status status = start(device);
    if (status == CINF_OK && tuning.check)
        status = opencl_check(device);
    if (status == CINF_EDEVICE && tuning.check) {
        step_aside(device, "kernels for GPUs");
        stop(device);
        device->tuning = tuning_as(true);
        device->tuning.cache = tuning.cache;
        status = start(device);
        if (status == CINF_OK)
            status = opencl_check(device);
    }
    if (status == CINF_OK && tuning.clblast) {
        device->tuning.clblast = true;
        opencl_blas_begin(device);
        if (tuning.check && opencl_check(device) == CINF_EDEVICE) {
            step_aside(device, "CLBlast");
            device->tuning.clblast = false;
        }
    }
    return status;
}

enum cinf_status opencl_open_tuned(struct device **out, const struct device_options *options,
                                   const struct opencl_tuning *tuning)
{
    struct found found = { 0 };
    struct device_info info;
    TRY(find_named(&found, &info, options->which));
    struct opencl_device *device = mem_new(1, sizeof *device);
    if (!device)
        return cinf_fail(CINF_ENOMEM, "no memory for device %s", info.name);
    device->base.backend = &backend_opencl;
    device->id = found.id;
    device->is_gpu = info.is_gpu;
    device->half_cache = options->half_cache;
    device->sleeps = info.shares_cpu;
    device->units = info.threads;
    device->memory_total = info.memory_total;
    device->alloc_max = device_number(found.id, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    memcpy(device->name, info.name, sizeof device->name);
    memcpy(device->description, info.description, sizeof device->description);
    device->tuning = tuning ? *tuning : tuning_of(device, info.shares_cpu);
    device->tuning.clblast = device->tuning.clblast && opencl_blas_exists();
    enum cinf_status status = CINF_OK;
    if (options->profile && !(device->profile = opencl_profile_new()))
        status = cinf_fail(CINF_ENOMEM, "no memory to profile device %s", info.name);
    if (status == CINF_OK)
        status = start_checked(device);
    if (status != CINF_OK) {
        close_device(&device->base);
        return status;
    }
    struct pci_address at;
    if (device->is_gpu && opencl_address(&at, device->id))
        device->vendor = vendor_memory_open(&at, NULL);
    *out = &device->base;
    return CINF_OK;
}

static enum cinf_status open_device(struct device **out, const struct device_options *options)
{
    return opencl_open_tuned(out, options, NULL);
}

/* 0: nobody knows. */
static uint64_t taken(const struct opencl_device *device)
{
    uint64_t bytes;
    return device->vendor && vendor_memory_used(device->vendor, &bytes) ? bytes : 0;
}

static void info_of(const struct device *base, struct device_info *out)
{
    const struct opencl_device *device = (const struct opencl_device *)base;
    *out = (struct device_info){ .is_gpu = device->is_gpu,
                                 .shows_memory = true,
                                 .half_cache = device->half_cache,
                                 .shares_cpu = device->sleeps,
                                 .threads = device->units,
                                 .memory_total = device->memory_total,
                                 .memory_used = atomic_load(&device->memory_used),
                                 .memory_taken = taken(device) };
    memcpy(out->name, device->name, sizeof out->name);
    memcpy(out->description, device->description, sizeof out->description);
}

static bool profile(struct device *base, uint32_t index, struct profile_row *out)
{
    struct opencl_device *device = (struct opencl_device *)base;
    return device->profile && opencl_profile_row(device->profile, index, out);
}

/* A fifth of what is free stays so: steps need rows and logits, and drivers memory of their own.  A layer's
 * cache is one buffer. */
enum cinf_status opencl_kv_slots_max(uint32_t *out, const struct device *base, const struct program *program)
{
    const struct opencl_device *device = (const struct opencl_device *)base;
    uint64_t slot = opencl_kv_slot_bytes(base, program), layer = slot / program->layers;
    uint64_t ours = atomic_load(&device->memory_used), everybody = taken(device);
    uint64_t used = everybody > ours ? everybody : ours;
    uint64_t left = used < device->memory_total ? device->memory_total - used : 0;
    uint64_t by_memory = left / 5 * 4 / slot, by_buffer = device->alloc_max / layer;
    uint64_t n = by_memory < by_buffer ? by_memory : by_buffer;
    if (n == 0)
        return cinf_fail(CINF_ENOMEM,
                         "device %s: the cache of one context takes %" PRIu64 " bytes, %" PRIu64
                         " a layer; besides the weights %" PRIu64 " of its %" PRIu64
                         " are left, of which caches may take 4/5, and it gives %" PRIu64
                         " at a time at most",
                         device->name, slot, layer, left, device->memory_total, device->alloc_max);
    *out = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    return CINF_OK;
}

/* ---- Buffers ------------------------------------------------------------------------------ */

enum cinf_status opencl_buffer_new(struct opencl_buffer *out, struct opencl_device *device, uint64_t bytes,
                                   cl_mem_flags flags, bool zero, const char *what)
{
    uint64_t used = atomic_load(&device->memory_used);
    if (bytes > device->alloc_max)
        return cinf_fail(CINF_ENOMEM,
                         "device %s: %s of %" PRIu64 " bytes, and it gives %" PRIu64 " at a time at most",
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

/* ---- Programs ----------------------------------------------------------------------------- */

/* The compiler's first complaint, for the message. */
static enum cinf_status build_failed(struct opencl_device *device, cl_program program, cl_int error)
{
    char log[2048] = "";
    if (clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL) !=
        CL_SUCCESS)
        snprintf(log, sizeof log, "no build log");
    char *first = strstr(log, "error");
    first = first ? first : log;
    first[strcspn(first, "\n")] = 0;
    return cinf_fail(CINF_EDEVICE, "device %s: building its kernels: %s (%d): %.160s", device->name,
                     error_name(error), error, first);
}

enum cinf_status opencl_program_new(cl_program *out, struct opencl_device *device, const char *options,
                                    const char *const *sources, uint32_t n_sources)
{
    enum { SOURCES_MAX = 48 };
    const char *texts[SOURCES_MAX];
    char all[768];
    if (n_sources > SOURCES_MAX)
        return cinf_fail(CINF_EINVAL, "a program of %u sources", n_sources);
    for (uint32_t i = 0; i < n_sources; i++)
        texts[i] = source_of(sources[i]);
    snprintf(all, sizeof all, "-cl-std=CL1.2 -cl-mad-enable -DLANES=%u -DTILE_ROWS=%u -DHALF_CACHE=%d %s %s",
             device->tuning.lanes, device->tuning.tile_rows, device->half_cache, options,
             device->tuning.options ? device->tuning.options : "");

    cl_program program = NULL;
    struct strbuf key = { 0 };
    if (device->tuning.cache) {
        opencl_cache_key(&key, device->id, all, texts, n_sources);
        program = opencl_cache_load(device->context, device->id, &key);
    }
    bool from_cache = program != NULL;
    cl_int error = CL_SUCCESS;
    if (!program)
        program = clCreateProgramWithSource(device->context, n_sources, texts, NULL, &error);
    if (!program) {
        strbuf_free(&key);
        return opencl_fail(device, error, "creating a program");
    }
    error = from_cache ? CL_SUCCESS : clBuildProgram(program, 1, &device->id, all, NULL, NULL);
    if (error != CL_SUCCESS) {
        enum cinf_status status = build_failed(device, program, error);
        clReleaseProgram(program);
        strbuf_free(&key);
        return status;
    }
    if (device->tuning.cache && !from_cache)
        opencl_cache_save(program, &key);
    strbuf_free(&key);
    *out = program;
    return CINF_OK;
}

/* Kept, since models of one family have heads of one width. */
enum cinf_status opencl_attend_program(cl_program *out, struct opencl_device *device, uint32_t head_width)
{
    static const char *const sources[] = { "opencl_layout.h", "cache.cl", "attend.cl" };
    if (!device->attend || device->attend_width != head_width) {
        cl_program program;
        char options[32];
        snprintf(options, sizeof options, "-DHEAD_WIDTH=%u", head_width);
        TRY(opencl_program_new(&program, device, options, sources, 3));
        if (device->attend)
            clReleaseProgram(device->attend);
        device->attend = program;
        device->attend_width = head_width;
    }
    *out = device->attend;
    return CINF_OK;
}

enum cinf_status opencl_kernel_new(cl_kernel *out, struct opencl_device *device, cl_program program,
                                   const char *name)
{
    cl_int error;
    cl_kernel kernel = clCreateKernel(program, name, &error);
    if (!kernel)
        return opencl_fail(device, error, name);
    *out = kernel;
    return CINF_OK;
}

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

/* Many drivers wait by spinning, and the processor is somebody's cost too: there we sleep and look, for a
 * sixteenth of what we have waited, so that neither a short step is told late nor a long one costs much. */
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

const struct backend backend_opencl = {
    .name = "opencl",
    .find = find,
    .open = open_device,
    .close = close_device,
    .info = info_of,
    .profile = profile,
    .measure = opencl_measure,
    .weights_new = opencl_weights_new,
    .weights_free = opencl_weights_free,
    .weights_write = opencl_weights_write,
    .weights_finish = opencl_weights_finish,
    .weights_bytes = opencl_weights_bytes,
    .kv_new = opencl_kv_new,
    .kv_free = opencl_kv_free,
    .kv_slot_bytes = opencl_kv_slot_bytes,
    .kv_slots_max = opencl_kv_slots_max,
    .kv_copy = opencl_kv_copy,
    .prepare = opencl_prepare,
    .prepared_free = opencl_prepared_free,
    .prepare_more = opencl_prepare_more,
    .run = opencl_run,
    .wait = opencl_wait,
    .logits = opencl_logits,
    .allow = opencl_allow,
    .picked = opencl_picked,
};
