/* opencl_suite.h - the suite of a test program of the OpenCL backend, which skips on a machine without a
 * device.
 */
#ifndef OPENCL_SUITE_H
#define OPENCL_SUITE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_impl.h"
#include "support.h"

/* Returns a suite with its first case, for a program that runs on the first OpenCL device.  The program ends
 * as skipped if there is none, if its description does not contain `words` ("": any), or if it is a GPU and
 * `also_gpus` is false. */
static inline Suite *opencl_suite(const char *name, TCase **first, const char *words, bool also_gpus)
{
#if CINF_HAVE_OPENCL
    struct device_info info;
    enum cinf_status status = backend_opencl.find(0, &info);
    if (status != CINF_OK || !strstr(info.description, words) || (info.is_gpu && !also_gpus)) {
        printf("skipped: %s\n", status == CINF_OK ? info.description : cinf_last_error());
        exit(77);
    }
    Suite *s = suite_create(name);
    *first = tcase_create(name);
    tcase_set_timeout(*first, 600);
    suite_add_tcase(s, *first);
    return s;
#else
    printf("skipped: %s needs a build with OpenCL\n", name);
    (void)first, (void)words, (void)also_gpus;
    exit(77);
#endif
}

#endif
