/* opencl_blas.c - the only file that knows CLBlast.  CLBlast compiles its kernels at a product's first call,
 * so warming up makes one of each. */
#include "opencl_blas.h"

#include "fail.h"

#if CINF_HAVE_CLBLAST
#include <clblast_c.h>
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t n_devices; /* with CLBlast in use */

bool opencl_blas_exists(void)
{
    return true;
}

void opencl_blas_begin(struct opencl_device *device)
{
    pthread_mutex_lock(&lock);
    n_devices += !device->has_blas;
    device->has_blas = true;
    pthread_mutex_unlock(&lock);
}

void opencl_blas_end(struct opencl_device *device)
{
    if (!device->has_blas)
        return;
    pthread_mutex_lock(&lock);
    if (--n_devices == 0)
        CLBlastClearCache();
    device->has_blas = false;
    pthread_mutex_unlock(&lock);
}

/* CLBlast's own codes lie below OpenCL's. */
static enum cinf_status blas_fail(const struct opencl_device *device, CLBlastStatusCode code)
{
    return opencl_fail(device, (cl_int)code, "a matrix product by CLBlast");
}

enum cinf_status opencl_blas_temp_bytes(uint64_t *out, struct opencl_device *device,
                                        const struct opencl_gemm *g)
{
    size_t bytes = 0;
    CLBlastStatusCode code =
        CLBlastSGemmTempBufferSize(CLBlastLayoutRowMajor, CLBlastTransposeNo, CLBlastTransposeYes, g->m, g->n,
                                   g->k, 0, g->k, 0, g->k, g->y_first, g->y_stride, &device->queue, &bytes);
    if (code != CLBlastSuccess)
        return blas_fail(device, code);
    *out = bytes;
    return CINF_OK;
}

enum cinf_status opencl_blas_gemm(struct opencl_device *device, const struct opencl_gemm *g, cl_mem temp)
{
    cl_event before = NULL, last = NULL;
    bool times =
        device->profile && clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &before) == CL_SUCCESS;
    CLBlastStatusCode code = CLBlastSgemmWithTempBuffer(
        CLBlastLayoutRowMajor, CLBlastTransposeNo, CLBlastTransposeYes, g->m, g->n, g->k, 1.0f, g->x, 0, g->k,
        g->w, 0, g->k, 0.0f, g->y, g->y_first, g->y_stride, &device->queue, times ? &last : NULL, temp);
    if (last) /* the end of the last of its kernels */
        opencl_profile_span(device->profile, "CLBlast's SGEMM", before, last);
    else if (before)
        clReleaseEvent(before);
    return code == CLBlastSuccess ? CINF_OK : blas_fail(device, code);
}

#else

bool opencl_blas_exists(void)
{
    return false;
}

void opencl_blas_begin(struct opencl_device *device)
{
    (void)device;
}

void opencl_blas_end(struct opencl_device *device)
{
    (void)device;
}

enum cinf_status opencl_blas_temp_bytes(uint64_t *out, struct opencl_device *device,
                                        const struct opencl_gemm *gemm)
{
    (void)out, (void)gemm;
    return cinf_fail(CINF_EUNSUPPORTED, "device %s: this build has no CLBlast", device->name);
}

enum cinf_status opencl_blas_gemm(struct opencl_device *device, const struct opencl_gemm *gemm, cl_mem temp)
{
    (void)gemm, (void)temp;
    return cinf_fail(CINF_EUNSUPPORTED, "device %s: this build has no CLBlast", device->name);
}

#endif
