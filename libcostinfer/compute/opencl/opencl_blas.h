/* opencl_blas.h - products of many rows by CLBlast.  Builds without it use matrix.cl. */
#ifndef OPENCL_BLAS_H
#define OPENCL_BLAS_H

#include "opencl_device.h"

/* y[m,n] = x[m,k] * w[n,k]^T, row-major.  x and w have no gaps; rows of y are `y_stride` long, and the first
 * begins at element y_first. */
struct opencl_gemm {
    cl_mem x, w, y;
    size_t m, n, k, y_first, y_stride;
};

bool opencl_blas_exists(void);

/* Call the first before a device's first product, and the second when the device closes.  CLBlast keeps its
 * programs for the whole process; they are released when no device uses it any more. */
void opencl_blas_begin(struct opencl_device *device);
void opencl_blas_end(struct opencl_device *device);

/* Bytes of memory that a product needs beside its matrices. */
enum cinf_status opencl_blas_temp_bytes(uint64_t *out, struct opencl_device *device,
                                        const struct opencl_gemm *gemm);

/* Enqueues a product.  `temp` is at least that large; NULL if no memory is needed. */
enum cinf_status opencl_blas_gemm(struct opencl_device *device, const struct opencl_gemm *gemm, cl_mem temp);

#endif
