/* Every operation of the OpenCL backend against its definition in double. */
#include "support.h"

#if CINF_HAVE_OPENCL
#include "backend_ops.h"

START_TEST(programs)
{
    check_program(&backend_opencl, _i);
}
END_TEST

START_TEST(copies)
{
    check_copy(&backend_opencl);
}
END_TEST

START_TEST(extremes)
{
    check_extremes(&backend_opencl);
}
END_TEST

START_TEST(bad_batches)
{
    check_bad_batches(&backend_opencl);
}
END_TEST

START_TEST(allocations)
{
    check_allocations(&backend_opencl);
}
END_TEST

START_TEST(measure)
{
    check_measure(&backend_opencl, 20000000000);
}
END_TEST
#endif

Suite *suite(void)
{
    Suite *s = suite_create("opencl");
    TCase *t = tcase_create("operations");
#if CINF_HAVE_OPENCL
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, programs, 0, PROGRAMS);
    tcase_add_test(t, copies);
    tcase_add_test(t, extremes);
    tcase_add_test(t, bad_batches);
    tcase_add_test(t, allocations);
    tcase_add_test(t, measure);
#endif
    suite_add_tcase(s, t);
    return s;
}
