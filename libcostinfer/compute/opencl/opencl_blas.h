/* opencl_blas.h - CLBlast's part: products of many rows.  In builds without it there is none, and matrix.cl
 * does them. */
#ifndef OPENCL_BLAS_H
#define OPENCL_BLAS_H

#include "opencl_device.h"

/* y[m,n] = x[m,k] * w[n,k]^T, all row-major without gaps, except that y's rows are `y_stride` long and y
 * begins at element y_first. */
struct opencl_gemm {
    cl_mem x, w, y;
    size_t m, n, k, y_first, y_stride;
};

bool opencl_blas_exists(void);

/* Before a device's first product, and when it closes: CLBlast keeps its programs for the process, and gives
 * them up when no device uses it any more. */
void opencl_blas_begin(struct opencl_device *device);
void opencl_blas_end(struct opencl_device *device);

/* Bytes that a product needs beside its matrices. */
enum cinf_status opencl_blas_temp_bytes(uint64_t *out, struct opencl_device *device,
                                        const struct opencl_gemm *gemm);

/* Enqueues it; `temp` is at least that large, or NULL where nothing is needed. */
enum cinf_status opencl_blas_gemm(struct opencl_device *device, const struct opencl_gemm *gemm, cl_mem temp);

#endif
