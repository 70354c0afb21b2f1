/* packed_measure.c - how fast device "cpu" multiplies and reads: one row against more weights than the last
 * cache holds, and many rows against few. */
#include <assert.h>

#include "arena.h"
#include "clock.h"
#include "cpu_measure.h"
#include "fail.h"
#include "packed_prepared.h"

enum { MEASURE_K = 1024, MEASURE_ROWS = 96, PRODUCT_PANELS = 32, SAMPLES = 5 };

struct measure_task {
    struct packed_device *device;
    float *panels; /* [n_panels][MEASURE_K][PANEL] */
    float *rows;   /* [MEASURE_ROWS][row_stride(MEASURE_K)] */
    float *acc;    /* [threads][MEASURE_ROWS][PANEL] */
    uint32_t n_rows, n_panels;
    void *block; /* all of these lie in it */
};

enum { PANEL_SIZE = MEASURE_K * PANEL };

static void lay_out(struct arena *arena, struct measure_task *task)
{
    const size_t threads = pool_threads(task->device->pool);
    task->panels = arena_take(arena, task->n_panels, PANEL_SIZE * sizeof(float), 64);
    task->rows = arena_take(arena, MEASURE_ROWS * row_stride(MEASURE_K), sizeof(float), 64);
    task->acc = arena_take(arena, threads * MEASURE_ROWS * PANEL, sizeof(float), 64);
}

static void multiply_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct measure_task *task = argument;
    task->device->kernels->gemm_f32(task->acc + (size_t)worker * MEASURE_ROWS * PANEL, PANEL, task->rows,
                                    row_stride(MEASURE_K), task->n_rows,
                                    task->panels + (size_t)tile * PANEL_SIZE, PANEL, MEASURE_K, false,
                                    (struct prefetch){ NULL, 0, 0 });
}

/* One row against all panels; then many rows against few. */
static void read_all(const void *argument)
{
    struct measure_task task = *(const struct measure_task *)argument;
    task.n_rows = 1;
    pool_run(task.device->pool, &(struct pool_phase){ multiply_tile, &task, task.n_panels }, 1);
}

static void multiply_many(const void *argument)
{
    struct measure_task task = *(const struct measure_task *)argument;
    task.n_rows = MEASURE_ROWS;
    pool_run(task.device->pool, &(struct pool_phase){ multiply_tile, &task, PRODUCT_PANELS }, 1);
}

enum cinf_status packed_measure(struct device *base, struct device_speed *out)
{
    struct packed_device *device = (struct packed_device *)base;
    const uint64_t start = clock_monotonic_ns();
    struct measure_task task = { .device = device,
                                 .n_panels =
                                     (uint32_t)(cpu_measured_bytes() / (PANEL_SIZE * sizeof(float))) };
    struct arena arena = { 0 };
    lay_out(&arena, &task);
    task.block = cpu_new(&device->cpu, arena.used, 1);
    if (!task.block)
        return cinf_fail(CINF_ENOMEM, "no memory to measure device %s", base->backend->name);
    arena_begin(&arena, task.block);
    lay_out(&arena, &task);
    const size_t n_read = (size_t)task.n_panels * PANEL_SIZE;
    assert(n_read > 0);
    /* Untouched pages are all the same page of zeros, which would be read from the cache. */
    for (size_t i = 0; i < n_read; i += 4096 / sizeof(float))
        task.panels[i] = 1;
    uint64_t product_ns = cpu_time_of(multiply_many, &task, SAMPLES, start + 100000000);
    uint64_t read_ns = cpu_time_of(read_all, &task, SAMPLES, start + 160000000);
    out->as_per_flop = attoseconds_each(product_ns, 2ull * MEASURE_ROWS * PRODUCT_PANELS * PANEL_SIZE);
    out->as_per_byte = attoseconds_each(read_ns, n_read * sizeof(float));
    cpu_free(&device->cpu, task.block);
    return CINF_OK;
}
