/* opencl_open.c - a device from its name to working kernels.
 *
 * A GPU gets kernels for GPUs, and CLBlast, only if they pass a check when it opens: they have not run on
 * every driver.  A feature that fails is done without, and the device's description says why. */
#include "opencl_open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "opencl_blas.h"
#include "opencl_cache.h"
#include "opencl_check.h"
#include "opencl_find.h"
#include "opencl_program.h"

/* ---- Context, queue and program ----------------------------------------------------------- */

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
    return opencl_program_build(device);
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

/* ---- Tuning ------------------------------------------------------------------------------- */

/* The kernels for CPUs are the plain ones: no barriers, no local memory, no assumption about the hardware. */
static struct opencl_tuning tuning_as(bool cpu)
{
    return cpu ? (struct opencl_tuning){ .lanes = 1, .tile_rows = 4, .split_length = 256 }
               : (struct opencl_tuning){
                     .lanes = 64, .tile_rows = 32, .split_length = 256, .clblast = true, .check = true
                 };
}

/* The device's type decides; COSTINFER_OPENCL_SHAPE = cpu or gpu overrides it. */
static struct opencl_tuning tuning_of(const struct opencl_device *device, bool cpu)
{
    const char *shape = getenv("COSTINFER_OPENCL_SHAPE");
    bool as_cpu = shape && (strcmp(shape, "cpu") == 0 || strcmp(shape, "gpu") == 0) ? *shape == 'c' : cpu;
    struct opencl_tuning tuning = tuning_as(as_cpu);
    tuning.clblast = tuning.clblast && !cpu; /* a CPU takes a minute to compile it */
    tuning.cache = opencl_cache_wanted(device->id);
    return tuning;
}

/* ---- Opening ------------------------------------------------------------------------------ */

/* Turns off `what`, which failed its check with the last error, and records why for the description. */
static void step_aside(struct opencl_device *device, const char *what)
{
    const char *why = cinf_last_error();
    size_t used = strlen(device->aside), n = strlen(device->name);
    if (strncmp(why, "device ", 7) == 0 && strncmp(why + 7, device->name, n) == 0 && why[7 + n] == ':')
        why += 7 + n + 2; /* the description is shown beside the name */
    snprintf(device->aside + used, sizeof device->aside - used, "; without %s: %s", what, why);
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

enum cinf_status opencl_open(struct device **out, const struct backend *backend,
                             const struct device_options *options, const struct opencl_tuning *tuning)
{
    cl_device_id id;
    struct device_info info;
    TRY(opencl_find_named(&id, &info, options->which));
    struct opencl_device *device = mem_new(1, sizeof *device);
    if (!device)
        return cinf_fail(CINF_ENOMEM, "no memory for device %s", info.name);
    device->base.backend = backend;
    device->id = id;
    device->is_gpu = info.is_gpu;
    device->kv_f16 = options->kv_f16;
    device->sleeps = info.shares_cpu;
    device->units = info.threads;
    device->memory_total = info.memory_total;
    device->alloc_max = opencl_find_number(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
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
        opencl_close(&device->base);
        return status;
    }
    struct pci_address at;
    if (device->is_gpu && opencl_find_address(&at, device->id))
        device->vendor = vendor_memory_open(&at, NULL);
    *out = &device->base;
    return CINF_OK;
}

void opencl_close(struct device *base)
{
    struct opencl_device *device = (struct opencl_device *)base;
    stop(device);
    opencl_profile_free(device->profile);
    vendor_memory_close(device->vendor);
    mem_free(device);
}

/* ---- What an open device says ------------------------------------------------------------- */

/* Hardware and driver, then what is done without.  The reason is what a report needs, so the hardware's words
 * give way to it, down to HARDWARE_MIN bytes. */
static void describe(const struct opencl_device *device, char *out, size_t size)
{
    enum { HARDWARE_MIN = 40 };
    size_t room = size - 1, aside = strlen(device->aside);
    size_t hardware = room > aside + HARDWARE_MIN ? room - aside : HARDWARE_MIN;
    snprintf(out, hardware + 1, "%s", device->description);
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s", device->aside);
}

void opencl_info(const struct device *base, struct device_info *out)
{
    const struct opencl_device *device = (const struct opencl_device *)base;
    *out = (struct device_info){ .is_gpu = device->is_gpu,
                                 .shows_memory = true,
                                 .kv_f16 = device->kv_f16,
                                 .shares_cpu = device->sleeps,
                                 .threads = device->units,
                                 .memory_total = device->memory_total,
                                 .memory_used = atomic_load(&device->memory_used),
                                 .memory_taken = opencl_memory_taken(device) };
    memcpy(out->name, device->name, sizeof out->name);
    describe(device, out->description, sizeof out->description);
}

bool opencl_device_profile(struct device *base, uint32_t index, struct profile_row *out)
{
    struct opencl_device *device = (struct opencl_device *)base;
    return device->profile && opencl_profile_row(device->profile, index, out);
}
