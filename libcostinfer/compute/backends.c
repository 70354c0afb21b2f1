/* backends.c - the backends of this build.  A new one is a file, its name in backend_impl.h and a line here.
 */
#include "backend_impl.h"

/* The reference is last: it is opened only by its name. */
const struct backend_entry backends[BACKENDS_MAX] = {
    { &backend_cpu_packed, "packed kernels on the CPU" },
#if CINF_HAVE_BLAS
    { &backend_cpu_blas, "OpenBLAS on the CPU" },
#endif
#if CINF_HAVE_OPENCL
    { &backend_opencl, NULL },
#endif
    { &backend_cpu_reference, "plain C on the CPU, slow" },
};
