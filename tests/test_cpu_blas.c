/* Every operation of cpu-blas against its definition in double. */
#include "support.h"

#if CINF_HAVE_BLAS
#include "backend_ops.h"
#include "cpu_math.h"
#include "cpu_plain.h"

START_TEST(programs)
{
    check_program(&backend_cpu_blas, _i);
}
END_TEST

START_TEST(copies)
{
    check_copy(&backend_cpu_blas);
}
END_TEST

START_TEST(extremes)
{
    check_extremes(&backend_cpu_blas);
}
END_TEST

START_TEST(bad_batches)
{
    check_bad_batches(&backend_cpu_blas);
}
END_TEST

START_TEST(allocations)
{
    check_allocations(&backend_cpu_blas);
}
END_TEST

/* A product writes only its own rows, not the memory behind the rows of a step. */
START_TEST(rows_beyond_a_step)
{
    static const uint32_t counts[] = { 1, 7, 33 };
    struct rig rig;
    rig_begin(&rig, (struct shape){ 35, 5, 33, 50, 64, 1 });
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, &backend_cpu_blas, 40);
    struct cpu_prepared *p = (struct cpu_prepared *)rig.prepared;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint32_t n = counts[i];
        struct step_rows s;
        for (int b = 0; b < ROWS_COUNT; b++) {
            for (size_t k = 0; k < 40 * row_width(&rig.program, (enum row_buffer)b); k++)
                p->rows[b][k] = 1234.5f;
        }
        for (size_t k = 0; k < 40 * rig.program.vocab; k++)
            p->logits[k] = 1234.5f;
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ 1, 0, n }, rig.program.vocab, WANT_ALL);
        step_check(&rig, &s.batch, "guarded");
        for (int b = 0; b < ROWS_COUNT; b++) {
            size_t width = row_width(&rig.program, (enum row_buffer)b);
            for (size_t k = n * width; k < 40 * width; k++)
                ck_assert_msg(p->rows[b][k] == 1234.5f, "buffer %d, R=%u, element %zu", b, n, k);
        }
        for (size_t k = n * rig.program.vocab; k < 40 * rig.program.vocab; k++)
            ck_assert_msg(p->logits[k] == 1234.5f, "logits, R=%u, element %zu", n, k);
    }
    /* Slot 1 was written; its neighbours are unchanged. */
    for (uint32_t h = 0; h < 5; h++) {
        for (size_t k = 0; k < 64 * 7; k++) {
            ck_assert(cpu_keys(p->kv, 0, 0, h)[k] == 0 && cpu_keys(p->kv, 2, 0, h)[k] == 0);
            ck_assert(cpu_values(p->kv, 0, 0, h)[k] == 0 && cpu_values(p->kv, 2, 0, h)[k] == 0);
        }
    }
    rig_end(&rig);
}
END_TEST

/* GPT-2's own widths, for which BLAS uses its threaded and blocked paths. */
START_TEST(full_width)
{
    struct rig rig;
    struct step_rows s;
    rig_begin(&rig, (struct shape){ 768, 12, 3072, 300, 64, 1 });
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, &backend_cpu_blas, 8);
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, 0, 3 }, 300, WANT_LAST);
    step_check(&rig, &s.batch, "three rows");
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, 3, 1 }, 300, WANT_ALL);
    step_check(&rig, &s.batch, "one row");
    rig_end(&rig);
}
END_TEST

START_TEST(exp_is_near)
{
    double worst = 0;
    for (float x = -87; x <= 80; x += 0.000731f)
        worst = fmax(worst, fabs((double)exp_near(x) / exp((double)x) - 1));
    ck_assert_double_lt(worst, 4e-7);
    ck_assert(exp_near(0) == 1);
    ck_assert(exp_near(-INFINITY) < 2e-38f && exp_near(-INFINITY) > 0);
    ck_assert(exp_near(INFINITY) > 5e34f && exp_near(INFINITY) < 6e34f);
    ck_assert(isnan(exp_near(NAN)));
}
END_TEST

START_TEST(measure)
{
    check_measure(&backend_cpu_blas, 2000000000);
}
END_TEST

#endif

Suite *suite(void)
{
    Suite *s = suite_create("cpu_blas");
    TCase *t = tcase_create("operations");
#if CINF_HAVE_BLAS
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, programs, 0, PROGRAMS);
    tcase_add_test(t, copies);
    tcase_add_test(t, extremes);
    tcase_add_test(t, bad_batches);
    tcase_add_test(t, allocations);
    tcase_add_test(t, measure);
    tcase_add_test(t, rows_beyond_a_step);
    tcase_add_test(t, full_width);
    tcase_add_test(t, exp_is_near);
#endif
    suite_add_tcase(s, t);
    return s;
}
