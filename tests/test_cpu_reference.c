/* Every operation of cpu-reference against its definition in double. */
#include "backend_ops.h"

START_TEST(programs)
{
    check_program(&backend_cpu_reference, _i);
}
END_TEST

START_TEST(copies)
{
    check_copy(&backend_cpu_reference);
}
END_TEST

START_TEST(extremes)
{
    check_extremes(&backend_cpu_reference);
}
END_TEST

START_TEST(bad_batches)
{
    check_bad_batches(&backend_cpu_reference);
}
END_TEST

START_TEST(allocations)
{
    check_allocations(&backend_cpu_reference);
}
END_TEST

START_TEST(measure)
{
    check_measure(&backend_cpu_reference, 2000000000);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("cpu_reference");
    TCase *t = tcase_create("operations");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, programs, 0, PROGRAMS);
    tcase_add_test(t, copies);
    tcase_add_test(t, extremes);
    tcase_add_test(t, bad_batches);
    tcase_add_test(t, allocations);
    tcase_add_test(t, measure);
    suite_add_tcase(s, t);
    return s;
}
