/* opencl_product.c - which kernel computes a product, its arguments, and its launch. */
#include "opencl_product.h"

enum product_kernel product_kernel_for(uint32_t rows)
{
    return rows == 1                 ? PRODUCT_1
           : rows <= 4               ? PRODUCT_4
           : rows <= LINEAR_ROWS_MAX ? PRODUCT_8
                                     : PRODUCT_MATRIX;
}

const char *product_kernel_name(enum product_kernel which, enum weights_type type)
{
    static const char *const names[][PRODUCT_FINISH] = {
        [WEIGHTS_F32] = { "linear_f32_1", "linear_f32_4", "linear_f32_8", "matrix_f32" },
        [WEIGHTS_F16] = { "linear_f16_1", "linear_f16_4", "linear_f16_8", "matrix_f16" },
        [WEIGHTS_INT8] = { "linear_int8_1", "linear_int8_4", "linear_int8_8", "matrix_int8" },
    };
    return which == PRODUCT_FINISH ? "finish_product" : names[type][which];
}

#define EPILOGUE_ARGUMENTS(p)                                                                                \
    ARGUMENT((p)->bias), ARGUMENT((p)->out), ARGUMENT((p)->cache), ARGUMENT((p)->step),                      \
        ARGUMENT((p)->rows_max), ARGUMENT((p)->out_stride), ARGUMENT((p)->epilogue),                         \
        ARGUMENT((p)->activation), ARGUMENT((p)->q_cols), ARGUMENT((p)->k_cols), ARGUMENT((p)->head_width),  \
        ARGUMENT((p)->wide), ARGUMENT((p)->positions), ARGUMENT((p)->values_at)

enum cinf_status product_bind(const struct opencl_device *device, cl_kernel kernel, const struct product *p)
{
    const struct opencl_argument arguments[] = { ARGUMENT(p->w),        ARGUMENT(p->scales),
                                                 ARGUMENT(p->in),       ARGUMENT(p->n),
                                                 ARGUMENT(p->k),        ARGUMENT(p->rows),
                                                 EPILOGUE_ARGUMENTS(p), { 0 } };
    return opencl_arguments(device, kernel, arguments);
}

enum cinf_status product_bind_finish(const struct opencl_device *device, cl_kernel kernel,
                                     const struct product *p, cl_mem product)
{
    const struct opencl_argument arguments[] = {
        ARGUMENT(product), ARGUMENT(p->n), EPILOGUE_ARGUMENTS(p), { 0 }
    };
    return opencl_arguments(device, kernel, arguments);
}

enum cinf_status product_launch(const struct opencl_device *device, cl_kernel kernel,
                                enum product_kernel which, uint32_t rows, uint32_t n)
{
    static const uint32_t group_rows[] = { [PRODUCT_1] = 1, [PRODUCT_4] = 4, [PRODUCT_8] = 8 };
    size_t lanes = device->tuning.lanes;
    if (which == PRODUCT_MATRIX && lanes == 1)
        return opencl_launch(device, kernel, (const size_t[]){ (n + 3) / 4, (rows + 3) / 4, 1 },
                             (const size_t[]){ 4, 1, 1 });
    if (which == PRODUCT_MATRIX)
        return opencl_launch(device, kernel,
                             (const size_t[]){ round_up(n, 64) / 8, round_up(rows, 64) / 8, 1 },
                             (const size_t[]){ 8, 8, 1 });
    const size_t global[3] = { n * lanes, (rows + group_rows[which] - 1) / group_rows[which], 1 };
    return opencl_launch(device, kernel, global, (const size_t[]){ lanes == 1 ? 8 : lanes, 1, 1 });
}
