/* The OpenCL backend with CLBlast for its large products.  Slow: CLBlast's kernels take PoCL a minute to
 * compile, once for a cache folder. */
#include "opencl_suite.h"

#if CINF_HAVE_CLBLAST
#include "backend_ops.h"
#include "half.h"
#include "opencl_device.h"

static bool f16;

static enum cinf_status open_with_clblast(struct device **out, const struct device_options *options)
{
    return opencl_open_tuned(
        out, options,
        &(struct opencl_tuning){ .lanes = 1, .tile_rows = 4, .split_length = 256, .clblast = true });
}

static enum cinf_status weights_new(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs, enum weights_type type)
{
    (void)type;
    return opencl_weights_new(out, device, specs, n_specs, f16 ? WEIGHTS_F16 : WEIGHTS_F32);
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
    f16 = false;
    check_program(with_clblast(), PROGRAM_GPT2);
    check_program(with_clblast(), PROGRAM_RESIDUAL);
}
END_TEST

/* Weights that are widened in panels: of 16 MiB, so that the head is two of them. */
START_TEST(panels)
{
    struct rig rig;
    struct step_rows s;
    f16 = true;
    rig_begin(&rig, (struct shape){ 256, 4, 600, 20000, 64, 1 });
    add_program(&rig, PROGRAM_GPT2);
    for (uint32_t w = 0; w < rig.program.n_specs; w++) {
        for (size_t i = 0; i < (size_t)rig.specs[w].rows * rig.specs[w].cols; i++)
            rig.values[w][i] = f32_of_f16(f16_of_f32(rig.values[w][i]));
    }
    rig_start(&rig, with_clblast(), 64);
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 1, 0, 40 }, 20000, WANT_ALL);
    step_check(&rig, &s.batch, "panels");
    rig_end(&rig);
}
END_TEST

START_TEST(the_rest)
{
    f16 = false;
    check_copy(with_clblast());
    check_extremes(with_clblast());
    check_bad_batches(with_clblast());
    check_allocations(with_clblast());
}
END_TEST

START_TEST(measure)
{
    f16 = false;
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
    tcase_add_test(t, measure);
    tcase_add_test(t, programs);
    tcase_add_test(t, panels);
    tcase_add_test(t, the_rest);
#endif
    return s;
}
