/* The OpenCL backend with CLBlast for its large products.  Slow: PoCL takes a minute to compile CLBlast's
 * kernels, once for each cache folder. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "opencl_suite.h"

#if CINF_HAVE_CLBLAST
#include <dlfcn.h>

#include "backend_ops.h"
#include "opencl_open.h"
#include "opencl_rounding.h"
#include "opencl_weights.h"

static enum weights_type type;

/* ---- Calls into the driver, CLBlast's too --------------------------------------------------- */

static int programs_live;
static uint32_t widen_arguments;

#pragma GCC visibility push(default)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

static void real_function(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

cl_program CL_API_CALL clCreateProgramWithSource(cl_context context, cl_uint n, const char **texts,
                                                 const size_t *lengths, cl_int *error)
{
    static __typeof__(clCreateProgramWithSource) *real;
    if (!real)
        real_function(&real, "clCreateProgramWithSource");
    cl_program program = real(context, n, texts, lengths, error);
    programs_live += program != NULL;
    return program;
}

/* CLBlast makes a program that it has built for another context from its binary. */
cl_program CL_API_CALL clCreateProgramWithBinary(cl_context context, cl_uint n, const cl_device_id *ids,
                                                 const size_t *lengths, const unsigned char **binaries,
                                                 cl_int *states, cl_int *error)
{
    static __typeof__(clCreateProgramWithBinary) *real;
    if (!real)
        real_function(&real, "clCreateProgramWithBinary");
    cl_program program = real(context, n, ids, lengths, binaries, states, error);
    programs_live += program != NULL;
    return program;
}

cl_int CL_API_CALL clReleaseProgram(cl_program program)
{
    static __typeof__(clReleaseProgram) *real;
    if (!real)
        real_function(&real, "clReleaseProgram");
    programs_live--;
    return real(program);
}

cl_int CL_API_CALL clSetKernelArg(cl_kernel kernel, cl_uint index, size_t size, const void *value)
{
    static __typeof__(clSetKernelArg) *real;
    char name[64] = "";
    if (!real)
        real_function(&real, "clSetKernelArg");
    clGetKernelInfo(kernel, CL_KERNEL_FUNCTION_NAME, sizeof name - 1, name, NULL);
    widen_arguments += strncmp(name, "widen", 5) == 0;
    return real(kernel, index, size, value);
}

#pragma GCC diagnostic pop
#pragma GCC visibility pop

/* ---- Tests ----------------------------------------------------------------------------------- */

static bool profiled;

static enum cinf_status open_with_clblast(struct device **out, const struct device_options *options)
{
    struct device_options its = *options;
    its.profile = profiled;
    return opencl_open(
        out, &backend_opencl, &its,
        &(struct opencl_tuning){ .lanes = 1, .tile_rows = 4, .split_length = 256, .clblast = true });
}

static enum cinf_status weights_new(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs, enum weights_type any)
{
    (void)any;
    return opencl_weights_new(out, device, specs, n_specs, type);
}

static const struct backend *with_clblast(void)
{
    static struct backend backend;
    backend = backend_opencl;
    backend.open = open_with_clblast;
    backend.weights_new = weights_new;
    return &backend;
}

START_TEST(programs)
{
    type = WEIGHTS_F32;
    check_program(with_clblast(), PROGRAM_GPT2);
    check_program(with_clblast(), PROGRAM_RESIDUAL);
    check_program(with_clblast(), PROGRAM_BARE + PROGRAM_RESIDUAL);
}
END_TEST

/* Weights are widened in panels of 16 MiB; the head needs two of them. */
START_TEST(panels)
{
    struct rig rig;
    struct step_rows s;
    type = _i ? WEIGHTS_INT8 : WEIGHTS_F16;
    rig_begin(&rig, (struct shape){ 256, 4, 600, 20000, 64, 1 });
    add_program(&rig, PROGRAM_GPT2);
    round_values(&rig, type);
    rig_start(&rig, with_clblast(), 64);
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 1, 0, 40 }, 20000, WANT_ALL);
    widen_arguments = 0;
    step_check(&rig, &s.batch, "panels");
    ck_assert_uint_eq(widen_arguments, 0); /* preparing has bound them */
    rig_end(&rig);
}
END_TEST

/* CLBlast keeps its programs for all devices and nothing after the last of them closes; then it builds them
 * anew. */
START_TEST(nothing_outlives_the_last_device)
{
    struct rig rigs[2];
    struct step_rows s;
    type = WEIGHTS_F32;
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(programs_live, 0);
        for (int i = 0; i < 2; i++) {
            rig_begin(&rigs[i], (struct shape){ 32, 2, 64, 50, 64, 1 });
            add_program(&rigs[i], PROGRAM_GPT2);
            rig_start(&rigs[i], with_clblast(), 40);
            step_begin(&s);
            step_add(&s, (struct run_of_rows){ 0, 0, 33 }, 50, WANT_LAST);
            step_check(&rigs[i], &s.batch, "by one of two");
        }
        rig_end(&rigs[0]);
        const int ours = 2;
        ck_assert_int_gt(programs_live, ours);
        step_check(&rigs[1], &s.batch, "by the other one");
        rig_end(&rigs[1]);
        ck_assert_int_eq(programs_live, 0);
    }
}
END_TEST

START_TEST(products_are_in_the_profile)
{
    struct rig rig;
    struct step_rows s;
    struct profile_row row;
    type = WEIGHTS_F32;
    profiled = true;
    rig_begin(&rig, (struct shape){ 32, 2, 64, 50, 64, 1 });
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, with_clblast(), 40);
    profiled = false;
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, 0, 33 }, 50, WANT_LAST);
    step_check(&rig, &s.batch, "profiled");
    uint64_t launches = 0, ns = 0;
    for (uint32_t i = 0; backend_opencl.profile(rig.device, i, &row); i++) {
        if (strcmp(row.name, "CLBlast's SGEMM") == 0) {
            launches += row.launches;
            ns += row.ns;
        }
    }
    ck_assert_uint_eq(launches, 4); /* the layer's; one row's logits are ours */
    ck_assert_uint_gt(ns, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(the_rest)
{
    type = WEIGHTS_F32;
    check_copy(with_clblast());
    check_extremes(with_clblast());
    check_bad_batches(with_clblast());
    check_allocations(with_clblast());
}
END_TEST

START_TEST(measure)
{
    type = WEIGHTS_F32;
    check_measure(with_clblast(), 100000000000);
    check_measure(with_clblast(), 5000000000);
}
END_TEST
#endif

Suite *suite(void)
{
    TCase *t;
    Suite *s = opencl_suite("opencl_clblast", &t, "", true);
#if CINF_HAVE_CLBLAST
    tcase_add_test(t, nothing_outlives_the_last_device);
    tcase_add_test(t, products_are_in_the_profile);
    tcase_add_test(t, measure);
    tcase_add_test(t, programs);
    tcase_add_loop_test(t, panels, 0, 2);
    tcase_add_test(t, the_rest);
#endif
    return s;
}
