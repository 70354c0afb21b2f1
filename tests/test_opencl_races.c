/* The kernels of the OpenCL backend on Oclgrind, which simulates every work-item and reports data races and
 * accesses outside of a buffer.  It is a thousand times slower than a device, so the shapes are tiny; slow.
 *
 * Oclgrind is loaded as a driver, not preloaded by its command.  Preloaded, it calls OpenCL's functions by
 * name, and a program that defines some of them itself (opencl_shim.h) would get those calls. */
#include "opencl_suite.h"

#if CINF_HAVE_OPENCL
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* the rest takes Oclgrind too long */
#include "backend_ops.h"
#pragma GCC diagnostic pop
#include "opencl_open.h"
#include "opencl_program.h"
#include "opencl_queue.h"
#include "opencl_rounding.h"
#include "opencl_weights.h"

static const struct opencl_tuning tunings[] = {
    { .lanes = 1, .tile_rows = 4, .split_length = 4 },   /* as a CPU */
    { .lanes = 8, .tile_rows = 4, .split_length = 4 },   /* as a small GPU */
    { .lanes = 64, .tile_rows = 32, .split_length = 8 }, /* as GPUs are */
};
static const char *const names[] = { "as a CPU", "as a small GPU", "as a GPU" };
enum { TUNINGS = sizeof tunings / sizeof *tunings };

/* What is kept in fewer bits.  test_opencl.c checks the results of caches in f16. */
static const struct kind {
    enum weights_type type;
    bool kv_f16;
} kinds[] = {
    { WEIGHTS_F32, false }, { WEIGHTS_F16, false }, { WEIGHTS_INT8, false }, { WEIGHTS_F32, true }
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static const struct opencl_tuning *tuning;
static const struct kind *kind;

static enum cinf_status open_tuned(struct device **out, const struct device_options *options)
{
    struct device_options its = *options;
    its.kv_f16 = kind->kv_f16;
    return opencl_open(out, &backend_opencl, &its, tuning);
}

static enum cinf_status weights_new(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs, enum weights_type any)
{
    (void)any;
    return opencl_weights_new(out, device, specs, n_specs, kind->type);
}

/* What Oclgrind has written since the last call. */
static const char *reports(void)
{
    static char text[65536];
    static long from;
    const char *path = getenv("OCLGRIND_LOG");
    ck_assert(path);
    FILE *file = fopen(path, "r");
    if (!file)
        return "";
    fseek(file, from, SEEK_SET);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    from = ftell(file);
    fclose(file);
    return text;
}

/* Steps that use every kernel: one row, a few, a tile and the end of another, more than 16, pasts in pieces,
 * logits and then the best of them. */
static void check_small_steps(struct rig *rig, const char *what)
{
    enum { PICKS = 3 };
    static const struct {
        struct run_of_rows runs[SLOTS];
        enum wants wants;
    } steps[] = {
        { { { 0, 0, 1 } }, WANT_ALL },
        { { { 1, 0, 17 } }, WANT_LAST },
        { { { 0, 1, 1 }, { 1, 17, 1 }, { 3, 0, 1 } }, WANT_ALL },
        { { { 2, 0, 5 }, { 1, 18, 1 } }, WANT_ALL },
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct step_rows s;
        step_begin(&s);
        for (size_t k = 0; k < SLOTS; k++)
            step_add(&s, steps[i].runs[k], rig->program.vocab, steps[i].wants);
        if (kind->kv_f16)
            ck_ok(rig->backend->run(rig->prepared, &s.batch));
        else
            step_check(rig, &s.batch, what);
        uint32_t n_wanted = 0;
        for (uint32_t r = 0; r < s.batch.n_rows; r++) {
            n_wanted += s.wants[r] != 0;
            s.wants[r] = s.wants[r] ? 1 + PICKS : 0;
        }
        ck_ok(rig->backend->run(rig->prepared, &s.batch)); /* again, with the same keys and values */
        for (uint32_t i_wanted = 0; i_wanted < n_wanted; i_wanted++) {
            struct top_k picked;
            ck_ok(rig->backend->top_k(rig->prepared, i_wanted, &picked));
            ck_assert_uint_eq(picked.n, PICKS);
        }
    }
    ck_ok(rig->backend->kv_copy(rig->kv, 2, 1, 19));
}

START_TEST(no_races)
{
    tuning = &tunings[_i % TUNINGS];
    kind = &kinds[_i / TUNINGS];
    struct backend backend = backend_opencl;
    backend.open = open_tuned;
    backend.weights_new = weights_new;
    struct rig rig;
    rig_begin(&rig, (struct shape){ 12, 2, 20, 18, 24, 1 });
    add_program(&rig, PROGRAM_GPT2);
    round_values(&rig, kind->type);
    rig_start(&rig, &backend, 24);
    check_small_steps(&rig, names[_i % TUNINGS]);
    rig_end(&rig);
    ck_assert_str_eq(reports(), "");
}
END_TEST

/* Oclgrind reports a planted race and an access outside: work-items read what others write. */
START_TEST(planted_races)
{
    static const char *const source[] = {
        "__kernel void race(__global int *x)\n"
        "{\n"
        "    __local int shared[8];\n"
        "    shared[get_local_id(0)] = x[get_local_id(0)];\n"
        "    x[get_local_id(0)] = shared[7 - get_local_id(0)];\n"
        "    x[8] = 1;\n"
        "}\n",
    };
    struct device *device;
    tuning = &tunings[0];
    ck_ok(opencl_open(&device, &backend_opencl, &(struct device_options){ 0 }, tuning));
    struct opencl_device *d = (struct opencl_device *)device;
    cl_program program;
    cl_kernel kernel;
    struct opencl_buffer x;
    ck_ok(opencl_program_new(&program, d, "", source, 1));
    ck_ok(opencl_kernel_new(&kernel, d, program, "race"));
    ck_ok(opencl_buffer_new(&x, d, 8 * sizeof(cl_int), 0, true, "a race"));
    const struct opencl_argument arguments[] = { ARGUMENT(x.mem), { 0 } };
    ck_ok(opencl_arguments(d, kernel, arguments));
    ck_ok(opencl_launch(d, kernel, (const size_t[]){ 8, 1, 1 }, (const size_t[]){ 8, 1, 1 }));
    clFinish(d->queue);
    const char *said = reports();
    ck_assert_msg(strstr(said, "data race at local memory") != NULL, "%s", said);
    ck_assert_msg(strstr(said, "Invalid write") != NULL, "%s", said);
    opencl_buffer_free(d, &x);
    clReleaseKernel(kernel);
    clReleaseProgram(program);
    backend_opencl.close(device);
}
END_TEST
#endif

Suite *suite(void)
{
    TCase *t;
    Suite *s = opencl_suite("opencl_races", &t, "Oclgrind", true);
#if CINF_HAVE_OPENCL
    tcase_add_test(t, planted_races);
    tcase_add_loop_test(t, no_races, 0, KINDS * TUNINGS);
#endif
    return s;
}
