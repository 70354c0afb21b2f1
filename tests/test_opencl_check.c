/* The kernels that GPUs get, on the first OpenCL device of whatever type, and what happens if they are wrong.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "opencl_suite.h"

#if CINF_HAVE_OPENCL
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* test_opencl.c has them */
#include "backend_ops.h"
#pragma GCC diagnostic pop
#include "opencl_check.h"
#include "opencl_kept.h"
#include "opencl_open.h"

#include <dlfcn.h>

enum { SHAPED_PROGRAMS = 4 };

/* A kernel that never runs; new buffers then hold garbage.  NULL: everything is as usual. */
static const char *dropped;

static bool lacks_fma; /* programs that call fma() do not build */

#pragma GCC visibility push(default)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

static void real_function(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

cl_int CL_API_CALL clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dims,
                                          const size_t *offset, const size_t *global, const size_t *local,
                                          cl_uint n, const cl_event *events, cl_event *event)
{
    static __typeof__(clEnqueueNDRangeKernel) *real;
    char name[64] = "";
    if (!real)
        real_function(&real, "clEnqueueNDRangeKernel");
    clGetKernelInfo(kernel, CL_KERNEL_FUNCTION_NAME, sizeof name, name, NULL);
    return dropped && strcmp(name, dropped) == 0
               ? CL_SUCCESS
               : real(queue, kernel, dims, offset, global, local, n, events, event);
}

cl_int CL_API_CALL clBuildProgram(cl_program program, cl_uint n, const cl_device_id *ids, const char *options,
                                  void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
    static __typeof__(clBuildProgram) *real;
    if (!real)
        real_function(&real, "clBuildProgram");
    return lacks_fma && strstr(options, "-DFMA=fma") ? CL_BUILD_PROGRAM_FAILURE
                                                     : real(program, n, ids, options, notify, user);
}

/* Otherwise the results of an earlier check could still be in memory and pass for this one's. */
cl_mem CL_API_CALL clCreateBuffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host,
                                  cl_int *error)
{
    static __typeof__(clCreateBuffer) *real;
    if (!real)
        real_function(&real, "clCreateBuffer");
    if (!dropped || host)
        return real(context, flags, bytes, host, error);
    void *garbage = malloc(bytes);
    ck_assert_ptr_nonnull(garbage);
    memset(garbage, 0x41, bytes);
    cl_mem mem = real(context, flags | CL_MEM_COPY_HOST_PTR, bytes, garbage, error);
    free(garbage);
    return mem;
}

#pragma GCC diagnostic pop
#pragma GCC visibility pop

/* What the device says about itself. */
static const char *description_of(const struct opencl_device *device)
{
    static struct device_info info;
    opencl_info(&device->base, &info);
    return info.description;
}

static struct opencl_device *open_as(const struct opencl_tuning *tuning)
{
    struct device *device;
    ck_ok(opencl_open(&device, &backend_opencl, &(struct device_options){ 0 }, tuning));
    return (struct opencl_device *)device;
}

static enum cinf_status open_as_gpu(struct device **out, const struct device_options *options)
{
    (void)options;
    setenv("COSTINFER_OPENCL_SHAPE", "gpu", 1);
    *out = kept_device(NULL, false);
    ck_assert_uint_eq(((struct opencl_device *)*out)->tuning.lanes, 64);
    return CINF_OK;
}

/* The programs that use all kernels of a GPU, on a device opened as one. */
START_TEST(shape_of_gpus)
{
    static const int which[] = { PROGRAM_NORM_IN_PLACE, PROGRAM_RESIDUAL, PROGRAM_ATTEND,
                                 PROGRAM_SOME_BIASES };
    struct backend backend = backend_opencl;
    backend.open = open_as_gpu;
    backend.close = kept_stays_open;
    if (_i < SHAPED_PROGRAMS)
        check_program(&backend, which[_i]);
    else if (_i == SHAPED_PROGRAMS)
        check_copy(&backend);
    else
        check_extremes(&backend);
}
END_TEST

START_TEST(shape_by_name)
{
    static const struct {
        const char *shape;
        uint32_t lanes;
    } shapes[] = { { "gpu", 64 }, { "cpu", 1 }, { "", 0 }, { "both", 0 } };
    unsetenv("COSTINFER_OPENCL_SHAPE");
    struct opencl_device *device = open_as(NULL);
    uint32_t by_type = device->tuning.lanes;
    backend_opencl.close(&device->base);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        setenv("COSTINFER_OPENCL_SHAPE", shapes[i].shape, 1);
        device = open_as(NULL);
        ck_assert_uint_eq(device->tuning.lanes, shapes[i].lanes ? shapes[i].lanes : by_type);
        ck_assert(strstr(description_of(device), "without") == NULL);
        backend_opencl.close(&device->base);
    }
}
END_TEST

START_TEST(right_kernels_stay)
{
    static const struct opencl_tuning tuning = {
        .lanes = 16, .tile_rows = 8, .split_length = 256, .check = true
    };
    struct opencl_device *device = open_as(&tuning);
    ck_assert_uint_eq(device->tuning.lanes, 16);
    ck_assert_uint_eq(device->tuning.split_length, 256);
    ck_assert(strstr(description_of(device), "without") == NULL);
    uint64_t start = clock_monotonic_ns();
    ck_ok(opencl_check(device));
    printf("checked in %.1f ms\n", (double)(clock_monotonic_ns() - start) / 1e6);
    ck_assert_uint_eq(atomic_load(&device->memory_used), 0);
    backend_opencl.close(&device->base);
}
END_TEST

/* The check fails if any one kernel does not run, for every type of weights. */
START_TEST(every_kernel_is_checked)
{
    static const char *const names[] = {
        "embed_f32",     "embed_f16",     "embed_int8",       "norm",
        "linear_f32_1",  "linear_f32_4",  "linear_f32_8",     "matrix_f32",
        "linear_f16_1",  "linear_f16_4",  "linear_f16_8",     "matrix_f16",
        "linear_int8_1", "linear_int8_4", "linear_int8_8",    "matrix_int8",
        "attend_single", "attend_join",   "attend_tile",      "gather",
        "pack_rows_f32", "pack_rows_f16", "pack_columns_f32", "pack_columns_f16",
        "quantise",      "copy_slot",     "pick_pieces",      "pick_join"
    };
    static const struct opencl_tuning tuning = { .lanes = 16, .tile_rows = 8, .split_length = 256 };
    struct opencl_device *device = open_as(&tuning);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        dropped = names[i];
        ck_assert_msg(opencl_check(device) == CINF_EDEVICE, "the check passes without %s", names[i]);
    }
    dropped = "none of them";
    ck_ok(opencl_check(device));
    dropped = NULL;
    backend_opencl.close(&device->base);
}
END_TEST

/* A driver without fma() gets mad(), attention too, and nothing steps aside; a fault of another kind leaves
 * fma() in place. */
START_TEST(drivers_without_fma)
{
    static const struct opencl_tuning tunings[] = {
        { .lanes = 16, .tile_rows = 8, .split_length = 16, .check = true },
        { .lanes = 16, .tile_rows = 8, .split_length = 16, .check = true, .options = "-DLANES=nonsense" },
    };
    for (int lacks = 0; lacks < 2; lacks++) {
        for (size_t i = 0; i < sizeof tunings / sizeof *tunings; i++) {
            lacks_fma = lacks;
            struct opencl_device *device = open_as(&tunings[i]);
            ck_assert_int_eq(device->mad, lacks);
            ck_assert_int_eq(strstr(description_of(device), "without") != NULL, i == 1);
            ck_ok(opencl_check(device));
            backend_opencl.close(&device->base);
        }
    }
    lacks_fma = false;
}
END_TEST

/* An activation that the kernels do not know, and kernels that do not compile. */
START_TEST(wrong_kernels_step_aside)
{
    static const struct {
        const char *options, *why;
    } faults[] = { { "-DACTIVATION_GELU_NEW=99", "20 rows is wrong" },
                   { "-DLANES=nonsense", "CL_BUILD_PROGRAM_FAILURE" } };
    struct opencl_tuning tuning = { .lanes = 16, .tile_rows = 8, .split_length = 16 };
    tuning.options = faults[0].options;
    struct opencl_device *device = open_as(&tuning); /* unchecked */
    ck_fails(opencl_check(device), CINF_EDEVICE, "is wrong by");
    ck_assert_uint_eq(atomic_load(&device->memory_used), 0);
    backend_opencl.close(&device->base);

    tuning.check = true;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        tuning.options = faults[i].options;
        device = open_as(&tuning);
        ck_assert_uint_eq(device->tuning.lanes, 1);
        ck_assert_ptr_null(device->tuning.options);
        ck_assert_msg(strstr(description_of(device), "; without kernels for GPUs: ") != NULL, "%s",
                      description_of(device));
        ck_assert_msg(strstr(description_of(device), faults[i].why) != NULL, "%s", description_of(device));
        memset(device->description, 'x', sizeof device->description - 1); /* a long name leaves room for it */
        ck_assert_msg(strstr(description_of(device), device->aside) != NULL, "%s", description_of(device));
        ck_assert_msg(strstr(description_of(device), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx;") != NULL,
                      "%s", description_of(device));
        ck_ok(opencl_check(device)); /* the plain kernels compute right */
        backend_opencl.close(&device->base);
    }
    tuning.check = false;
    struct device *none = NULL;
    ck_fails(opencl_open(&none, &backend_opencl, &(struct device_options){ 0 }, &tuning), CINF_EDEVICE,
             "BUILD");
    ck_assert_ptr_null(none);
}
END_TEST
#endif

Suite *suite(void)
{
    TCase *t;
    Suite *s = opencl_suite("opencl_check", &t, "", true);
#if CINF_HAVE_OPENCL
    tcase_add_unchecked_fixture(t, NULL, kept_close_all);
    tcase_add_test(t, right_kernels_stay);
    tcase_add_test(t, every_kernel_is_checked);
    tcase_add_test(t, wrong_kernels_step_aside);
    tcase_add_test(t, drivers_without_fma);
    tcase_add_test(t, shape_by_name);
    tcase_add_loop_test(t, shape_of_gpus, 0, SHAPED_PROGRAMS + 2);
#endif
    return s;
}
