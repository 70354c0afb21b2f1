/* opencl_product.h - out[R,n] = epilogue(in[R,k] * w[n,k]^T) by our own kernels (linear.cl, matrix.cl). */
#ifndef OPENCL_PRODUCT_H
#define OPENCL_PRODUCT_H

#include "opencl_queue.h"

enum { LINEAR_ROWS_MAX = 16 }; /* more rows than this are a matrix product */

/* The kernels of a product.  The first four compute it, each for a number of rows. */
enum product_kernel {
    PRODUCT_1,
    PRODUCT_4,
    PRODUCT_8,
    PRODUCT_MATRIX,
    PRODUCT_FINISH, /* the epilogue, after CLBlast */
    PRODUCT_WIDEN,  /* weights to float32, before CLBlast */
    PRODUCT_KERNELS
};

/* The arguments of the first four, named as in the kernels.  rows = 0: as many as the step has. */
struct product {
    cl_mem w, scales, in, bias, out, cache, step;
    cl_uint n, k, rows, rows_max, out_stride, epilogue, activation, q_cols, k_cols, head_width, wide,
        positions;
    cl_ulong values_at;
};

enum product_kernel product_kernel_for(uint32_t rows);

/* The name of one of the first five for weights of that type. */
const char *product_kernel_name(enum product_kernel which, enum weights_type type);

/* Binds the arguments of one of the first four, or of PRODUCT_FINISH, whose input is CLBlast's `product`. */
enum cinf_status product_bind(const struct opencl_device *device, cl_kernel kernel, const struct product *p);
enum cinf_status product_bind_finish(const struct opencl_device *device, cl_kernel kernel,
                                     const struct product *p, cl_mem product);

/* Launches one of the first four for `rows` rows and n outputs. */
enum cinf_status product_launch(const struct opencl_device *device, cl_kernel kernel,
                                enum product_kernel which, uint32_t rows, uint32_t n);

#endif
