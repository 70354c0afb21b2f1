/* opencl_measure.c - how fast a device multiplies and reads, measured by the kernels that steps use. */
#include "opencl_measure.h"

#include "clock.h"
#include "fail.h"
#include "opencl_blas.h"
#include "opencl_device.h"
#include "opencl_product.h"
#include "opencl_program.h"

struct trial {
    struct opencl_buffer w, in, out, temp;
    cl_kernel one, many;
};

/* Keeps the shortest of a few tries, after one that compiles. */
static enum cinf_status time_product(struct opencl_device *device, struct trial *t, uint32_t rows, uint32_t n,
                                     uint32_t k, uint64_t *best_ns)
{
    enum { TRIES = 3 };
    bool blas = rows > LINEAR_ROWS_MAX && device->tuning.clblast;
    cl_kernel kernel = rows == 1 ? t->one : t->many;
    const struct product product = { .w = t->w.mem,
                                     .scales = t->w.mem,
                                     .in = t->in.mem,
                                     .bias = t->in.mem,
                                     .out = t->out.mem,
                                     .cache = t->in.mem,
                                     .step = t->in.mem,
                                     .n = n,
                                     .k = k,
                                     .rows = rows,
                                     .out_stride = n,
                                     .epilogue = OPENCL_EPILOGUE_HEAD };
    const struct opencl_gemm gemm = {
        .x = t->in.mem, .w = t->w.mem, .y = t->out.mem, .m = rows, .n = n, .k = k, .y_stride = n
    };
    TRY(product_bind(device, kernel, &product));
    if (blas) {
        uint64_t bytes;
        TRY(opencl_blas_temp_bytes(&bytes, device, &gemm));
        if (bytes)
            TRY(opencl_buffer_new(&t->temp, device, bytes, 0, false, "CLBlast's memory"));
    }
    for (int i = 0; i <= TRIES; i++) {
        uint64_t start = clock_monotonic_ns();
        if (blas)
            TRY(opencl_blas_gemm(device, &gemm, t->temp.mem));
        else
            TRY(product_launch(device, kernel, product_kernel_for(rows), rows, n));
        cl_int error = clFinish(device->queue);
        if (error != CL_SUCCESS)
            return opencl_fail(device, error, "measuring");
        uint64_t ns = clock_monotonic_ns() - start;
        if (i == 1 || (i > 1 && ns < *best_ns))
            *best_ns = ns;
    }
    return CINF_OK;
}

/* Measures a product of many rows, and one of a single row with more weights than a device's cache holds. */
static enum cinf_status measure(struct opencl_device *device, struct trial *t, struct device_speed *out)
{
    bool cpu = device->sleeps;
    const uint32_t rows = cpu ? 64 : 1024, k = 1024, n = cpu ? 512 : 1024, tall = cpu ? 8192 : 65536;
    uint64_t ns = 0;
    TRY(opencl_buffer_new(&t->w, device, (uint64_t)tall * k * sizeof(float), 0, true, "weights to measure"));
    TRY(opencl_buffer_new(&t->in, device, (uint64_t)rows * k * sizeof(float), 0, true, "rows to measure"));
    uint64_t outs = (uint64_t)rows * n > tall ? (uint64_t)rows * n : tall;
    TRY(opencl_buffer_new(&t->out, device, outs * sizeof(float), 0, false, "sums to measure"));
    TRY(opencl_kernel_new(&t->one, device, device->program, "linear_f32_1"));
    TRY(opencl_kernel_new(&t->many, device, device->program, "matrix_f32"));
    struct device_speed speed;
    TRY(time_product(device, t, rows, n, k, &ns));
    speed.as_per_flop = attoseconds_each(ns, 2 * (uint64_t)rows * n * k);
    TRY(time_product(device, t, 1, tall, k, &ns));
    speed.as_per_byte = attoseconds_each(ns, (uint64_t)tall * k * sizeof(float));
    *out = speed;
    return CINF_OK;
}

enum cinf_status opencl_measure(struct device *base, struct device_speed *out)
{
    struct opencl_device *device = (struct opencl_device *)base;
    struct trial trial = { 0 };
    enum cinf_status status = measure(device, &trial, out);
    opencl_kernel_free(trial.one);
    opencl_kernel_free(trial.many);
    struct opencl_buffer *const buffers[] = { &trial.w, &trial.in, &trial.out, &trial.temp };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        opencl_buffer_free(device, buffers[i]);
    if (device->profile)
        opencl_profile_clear(device->profile);
    return status;
}
