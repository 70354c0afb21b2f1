/* opencl_weights.c - weights on their way to the device.
 *
 * Every tensor has a buffer of its own, since a device gives only a part of its memory at a time.
 *
 * Weights travel through two pinned pieces of host memory in turn: the host converts a chunk to float32 in
 * one while the other travels, and a kernel puts the chunk into its place.  Matrices are kept as [out, in]: a
 * product of few rows spends its time on reading weights, and so each output's are contiguous.  An int8
 * matrix waits on the device, in float32, for its last row. */
#include "opencl_weights.h"

#include <math.h>
#include <string.h>

#include "fail.h"
#include "half.h"
#include "int8_scale.h"
#include "mem.h"
#include "opencl_program.h"
#include "opencl_queue.h"

enum { STAGE_BYTES = 1 << 20 };

static enum cinf_status stage_new(struct opencl_stage *stage, struct opencl_device *device, uint64_t bytes)
{
    TRY(opencl_buffer_new(&stage->pinned, device, bytes, CL_MEM_ALLOC_HOST_PTR, false, "staging memory"));
    TRY(opencl_buffer_new(&stage->buffer, device, bytes, 0, false, "staging memory"));
    return opencl_buffer_map(&stage->host, device, &stage->pinned, CL_MAP_WRITE);
}

static void stage_free(struct opencl_stage *stage, struct opencl_device *device)
{
    if (stage->free) {
        clWaitForEvents(1, &stage->free);
        clReleaseEvent(stage->free);
    }
    if (stage->host)
        clEnqueueUnmapMemObject(device->queue, stage->pinned.mem, stage->host, 0, NULL, NULL);
    opencl_buffer_free(device, &stage->buffer);
    opencl_buffer_free(device, &stage->pinned);
    *stage = (struct opencl_stage){ 0 };
}

static void stages_free(struct opencl_weights *w)
{
    for (int i = 0; i < 2; i++)
        stage_free(&w->stages[i], (struct opencl_device *)w->base.device);
}

static bool is_int8(const struct opencl_weights *w, uint32_t index)
{
    enum weight_role role = w->specs[index].role;
    return w->type == WEIGHTS_INT8 && role != WEIGHT_VECTOR && role != WEIGHT_TABLE;
}

static size_t element_bytes(const struct opencl_weights *w, uint32_t index)
{
    if (is_int8(w, index))
        return 1;
    return w->type == WEIGHTS_F16 && w->specs[index].role != WEIGHT_VECTOR ? 2 : sizeof(float);
}

static enum cinf_status allocate(struct opencl_weights *w)
{
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    w->stage_elements = STAGE_BYTES / sizeof(float);
    for (uint32_t i = 0; i < w->n_specs; i++) {
        struct opencl_weight *part = &w->parts[i];
        const struct weight_spec *spec = &w->specs[i];
        bool transposed = spec->role == WEIGHT_MATRIX;
        part->rows = transposed ? spec->cols : spec->rows;
        part->cols = transposed ? spec->rows : spec->cols;
        part->stride = (uint32_t)round_up(part->cols, VECTOR);
        /* The matrix kernel for CPUs reads four rows at a time. */
        uint64_t bytes = round_up(part->rows, 4);
        if (!mul_u64(&bytes, bytes, part->stride) || !mul_u64(&bytes, bytes, element_bytes(w, i)))
            return cinf_fail(CINF_ENOMEM, "weight %u of %u x %u elements", i, spec->rows, spec->cols);
        TRY(opencl_buffer_new(&part->buffer, device, bytes, 0, true, "weights"));
        if (is_int8(w, i))
            TRY(opencl_buffer_new(&part->scales, device, part->rows * sizeof(float), 0, false, "scales"));
        /* A stage holds at least a row and the factors of int8: this row's or those of all columns. */
        size_t least = is_int8(w, i) ? 2 * (size_t)spec->cols + 2 : spec->cols;
        w->stage_elements = w->stage_elements > least ? w->stage_elements : least;
    }
    for (int i = 0; i < 2; i++)
        TRY(stage_new(&w->stages[i], device, w->stage_elements * sizeof(float)));
    bool half = w->type == WEIGHTS_F16;
    if (w->type == WEIGHTS_INT8)
        TRY(opencl_kernel_new(&w->quantise, device, device->program, "quantise"));
    TRY(opencl_kernel_new(&w->pack_rows, device, device->program, half ? "pack_rows_f16" : "pack_rows_f32"));
    return opencl_kernel_new(&w->pack_columns, device, device->program,
                             half ? "pack_columns_f16" : "pack_columns_f32");
}

enum cinf_status opencl_weights_new(struct weights **out, struct device *base,
                                    const struct weight_spec *specs, uint32_t n_specs, enum weights_type type)
{
    if (type != WEIGHTS_F32 && type != WEIGHTS_F16 && type != WEIGHTS_INT8)
        return cinf_fail(CINF_EUNSUPPORTED, "device %s keeps weights only in f32, f16 or int8",
                         ((struct opencl_device *)base)->name);
    TRY(specs_check(specs, n_specs));
    struct opencl_weights *w = mem_new(1, sizeof *w);
    if (w) {
        w->base.device = base;
        w->type = type;
        w->n_specs = n_specs;
        w->specs = mem_new(n_specs, sizeof *specs);
        w->parts = mem_new(n_specs, sizeof *w->parts);
    }
    if (!w || !w->specs || !w->parts) {
        opencl_weights_free((struct weights *)w);
        return cinf_fail(CINF_ENOMEM, "no memory for %u weights", n_specs);
    }
    memcpy(w->specs, specs, n_specs * sizeof *specs);
    enum cinf_status status = allocate(w);
    if (status != CINF_OK) {
        opencl_weights_free(&w->base);
        return status;
    }
    *out = &w->base;
    return CINF_OK;
}

void opencl_weights_free(struct weights *base)
{
    if (!base)
        return;
    struct opencl_weights *w = (struct opencl_weights *)base;
    struct opencl_device *device = (struct opencl_device *)base->device;
    stages_free(w);
    opencl_kernel_free(w->pack_rows);
    opencl_kernel_free(w->pack_columns);
    opencl_kernel_free(w->quantise);
    for (uint32_t i = 0; w->parts && i < w->n_specs; i++) {
        opencl_buffer_free(device, &w->parts[i].buffer);
        opencl_buffer_free(device, &w->parts[i].scales);
        opencl_buffer_free(device, &w->parts[i].wide);
        mem_free(w->parts[i].largest);
    }
    mem_free(w->parts);
    mem_free(w->specs);
    mem_free(w);
}

/* Converts n elements of any floating-point type, at any address, to float32. */
static void convert(float *to, const unsigned char *from, size_t n, enum cinf_dtype dtype)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        double value;
        switch (dtype) {
        case CINF_DTYPE_F16:
            memcpy(&bits, from + 2 * i, sizeof bits);
            to[i] = f32_of_f16(bits);
            break;
        case CINF_DTYPE_BF16:
            memcpy(&bits, from + 2 * i, sizeof bits);
            to[i] = f32_of_bf16(bits);
            break;
        case CINF_DTYPE_F64:
            memcpy(&value, from + 8 * i, sizeof value);
            to[i] = (float)value;
            break;
        default:
            memcpy(to + i, from + 4 * i, sizeof *to);
        }
    }
}

/* Returns the index of the first of n elements that the weights' type cannot hold, or n.  `values` are the
 * elements as float32. */
static size_t first_misfit(const float *values, const unsigned char *from, size_t n, enum cinf_dtype dtype,
                           enum weights_type type)
{
    const float max = type == WEIGHTS_F16 ? 65520.0f : INFINITY; /* from there on f16 rounds to infinity */
    for (size_t i = 0; i < n; i++) {
        double value = (double)values[i];
        if (dtype == CINF_DTYPE_F64)
            memcpy(&value, from + 8 * i, sizeof value);
        if ((isfinite(value) || type == WEIGHTS_INT8) && !(fabsf(values[i]) < max))
            return i;
    }
    return n;
}

/* Returns the next stage, once the host may write to it. */
static enum cinf_status take_stage(struct opencl_stage **out, struct opencl_weights *w)
{
    struct opencl_stage *stage = &w->stages[w->stage];
    if (stage->free) {
        cl_event event = stage->free;
        stage->free = NULL;
        TRY(opencl_wait_event((struct opencl_device *)w->base.device, event));
    }
    w->stage = 1 - w->stage;
    *out = stage;
    return CINF_OK;
}

/* Sends the first n numbers of the stage to the device. */
static enum cinf_status send(struct opencl_device *device, struct opencl_stage *stage, cl_mem to, size_t n)
{
    cl_int error = clEnqueueWriteBuffer(device->queue, to, CL_FALSE, 0, n * sizeof(float), stage->host, 0,
                                        NULL, &stage->free);
    return opencl_status(device, error, "sending weights");
}

/* Puts the stage's n rows of a weight into place, from row `first` on: as rows of `to`, or for a matrix as
 * its columns. */
static enum cinf_status pack(struct opencl_weights *w, const struct opencl_stage *stage, uint32_t index,
                             uint32_t first, uint32_t n, cl_mem to)
{
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    const struct weight_spec *spec = &w->specs[index];
    cl_kernel kernel = spec->role == WEIGHT_MATRIX ? w->pack_columns : w->pack_rows;
    const struct opencl_argument arguments[] = {
        ARGUMENT(stage->buffer.mem),      ARGUMENT(to), ARGUMENT(first), ARGUMENT(n), ARGUMENT(spec->cols),
        ARGUMENT(w->parts[index].stride), { 0 }
    };
    TRY(opencl_arguments(device, kernel, arguments));
    const size_t global[3] = { spec->cols, spec->role == WEIGHT_MATRIX ? (n + 15) / 16 : n, 1 };
    return opencl_launch(device, kernel, global, (const size_t[]){ 64, 1, 1 });
}

/* Makes rows [first, first + n) of int8 weights from n rows of `source`, with the stage's factors. */
static enum cinf_status quantise(struct opencl_weights *w, const struct opencl_stage *stage, uint32_t index,
                                 uint32_t first, uint32_t n, cl_mem source, cl_uint source_stride,
                                 cl_uint factors_at)
{
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    const struct opencl_weight *part = &w->parts[index];
    const struct opencl_argument arguments[] = { ARGUMENT(source),
                                                 ARGUMENT(stage->buffer.mem),
                                                 ARGUMENT(factors_at),
                                                 ARGUMENT(part->buffer.mem),
                                                 ARGUMENT(part->scales.mem),
                                                 ARGUMENT(first),
                                                 ARGUMENT(n),
                                                 ARGUMENT(part->cols),
                                                 ARGUMENT(source_stride),
                                                 ARGUMENT(part->stride),
                                                 { 0 } };
    TRY(opencl_arguments(device, w->quantise, arguments));
    return opencl_launch(device, w->quantise, (const size_t[]){ part->cols, n, 1 },
                         (const size_t[]){ 64, 1, 1 });
}

/* Writes the stage's n rows of int8 weights, each of which is an output. */
static enum cinf_status write_int8_rows(struct opencl_weights *w, struct opencl_stage *stage, uint32_t index,
                                        uint32_t first, uint32_t n)
{
    uint32_t cols = w->parts[index].cols;
    float *rows = stage->host, *factors = rows + (size_t)n * cols;
    for (uint32_t r = 0; r < n; r++) {
        float largest = 0;
        for (uint32_t c = 0; c < cols; c++)
            largest = fmaxf(largest, fabsf(rows[(size_t)r * cols + c]));
        factors[2 * r] = int8_factor(largest, &factors[2 * r + 1]);
    }
    TRY(send((struct opencl_device *)w->base.device, stage, stage->buffer.mem, (size_t)n * (cols + 2)));
    return quantise(w, stage, index, first, n, stage->buffer.mem, cols, n * cols);
}

/* Writes the stage's n rows of an int8 matrix, whose columns are outputs. */
static enum cinf_status write_int8_matrix(struct opencl_weights *w, struct opencl_stage *stage,
                                          uint32_t index, uint32_t first, uint32_t n)
{
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    struct opencl_weight *part = &w->parts[index];
    if (!part->wide.mem) {
        TRY(opencl_buffer_new(&part->wide, device, (uint64_t)part->rows * part->stride * sizeof(float), 0,
                              false, "a matrix before it is int8"));
        part->largest = mem_new(part->rows, sizeof *part->largest);
    }
    if (!part->largest)
        return cinf_fail(CINF_ENOMEM, "no memory for the largest of %u columns", part->rows);
    const float *rows = stage->host;
    for (uint32_t r = 0; r < n; r++) {
        for (uint32_t c = 0; c < part->rows; c++)
            part->largest[c] = fmaxf(part->largest[c], fabsf(rows[(size_t)r * part->rows + c]));
    }
    TRY(send(device, stage, stage->buffer.mem, (size_t)n * part->rows));
    TRY(pack(w, stage, index, first, n, part->wide.mem));
    part->n_written += n;
    if (part->n_written < part->cols)
        return CINF_OK;

    TRY(take_stage(&stage, w));
    float *factors = stage->host;
    for (uint32_t c = 0; c < part->rows; c++)
        factors[2 * c] = int8_factor(part->largest[c], &factors[2 * c + 1]);
    TRY(send(device, stage, stage->buffer.mem, 2 * (size_t)part->rows));
    TRY(quantise(w, stage, index, 0, part->rows, part->wide.mem, part->stride, 0));
    opencl_buffer_free(device, &part->wide); /* the driver keeps it until the kernel has run */
    mem_free(part->largest);
    part->largest = NULL;
    part->n_written = 0;
    return CINF_OK;
}

static enum cinf_status write_piece(struct opencl_weights *w, uint32_t index, uint32_t first, uint32_t n,
                                    const unsigned char *elements, enum cinf_dtype dtype)
{
    static const char *const names[] = {
        [WEIGHTS_F32] = "f32", [WEIGHTS_F16] = "f16", [WEIGHTS_INT8] = "int8"
    };
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    const struct weight_spec *spec = &w->specs[index];
    struct opencl_stage *stage;
    size_t count = (size_t)n * spec->cols;
    TRY(take_stage(&stage, w));
    convert(stage->host, elements, count, dtype);
    size_t bytes = element_bytes(w, index);
    enum weights_type type = bytes == 1 ? WEIGHTS_INT8 : bytes == 2 ? WEIGHTS_F16 : WEIGHTS_F32;
    size_t bad = type == WEIGHTS_F32 && dtype != CINF_DTYPE_F64
                     ? count
                     : first_misfit(stage->host, elements, count, dtype, type);
    if (bad < count)
        return cinf_fail(CINF_EUNSUPPORTED, "weight %u holds %g in row %zu, column %zu: %s %s", index,
                         (double)((float *)stage->host)[bad], first + bad / spec->cols, bad % spec->cols,
                         type == WEIGHTS_INT8 ? "not a number for" : "too large for", names[type]);
    if (type == WEIGHTS_INT8) {
        TRY(spec->role == WEIGHT_MATRIX ? write_int8_matrix(w, stage, index, first, n)
                                        : write_int8_rows(w, stage, index, first, n));
    } else if (spec->role == WEIGHT_VECTOR) { /* one row, which needs no kernel */
        TRY(send(device, stage, w->parts[index].buffer.mem, count));
    } else {
        TRY(send(device, stage, stage->buffer.mem, count));
        TRY(pack(w, stage, index, first, n, w->parts[index].buffer.mem));
    }
    cl_int error = clFlush(device->queue);
    return opencl_status(device, error, "sending weights");
}

static enum cinf_status write_pieces(struct opencl_weights *w, uint32_t index, uint32_t first, uint32_t n,
                                     const void *elements, enum cinf_dtype dtype)
{
    static const size_t sizes[] = {
        [CINF_DTYPE_F32] = 4, [CINF_DTYPE_F16] = 2, [CINF_DTYPE_BF16] = 2, [CINF_DTYPE_F64] = 8
    };
    TRY(write_check(w->specs, w->n_specs, index, first, n, dtype));
    uint32_t cols = w->specs[index].cols;
    if (!w->stages[0].host)
        return cinf_fail(CINF_EINVAL, "weight %u: written after the last write", index);
    const uint32_t piece_max = (uint32_t)(w->stage_elements / (is_int8(w, index) ? cols + 2 : cols));
    const unsigned char *from = elements;
    for (uint32_t done = 0; done < n;) {
        uint32_t piece = n - done < piece_max ? n - done : piece_max;
        TRY(write_piece(w, index, first + done, piece, from, dtype));
        from += (size_t)piece * cols * sizes[dtype];
        done += piece;
    }
    return CINF_OK;
}

enum cinf_status opencl_weights_write(struct weights *base, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype)
{
    struct opencl_profile *profile = ((struct opencl_device *)base->device)->profile;
    opencl_profile_pause(profile, true);
    enum cinf_status status = write_pieces((struct opencl_weights *)base, index, first, n, elements, dtype);
    opencl_profile_pause(profile, false);
    return status;
}

enum cinf_status opencl_weights_finish(struct weights *base, bool *done)
{
    struct opencl_weights *w = (struct opencl_weights *)base;
    struct opencl_device *device = (struct opencl_device *)base->device;
    stages_free(w);
    cl_int error = clFinish(device->queue);
    if (error != CL_SUCCESS)
        return opencl_fail(device, error, "storing weights");
    *done = true;
    return CINF_OK;
}

uint64_t opencl_weights_bytes(const struct weights *base)
{
    const struct opencl_weights *w = (const struct opencl_weights *)base;
    struct weights_sum sum = { 0 };
    for (uint32_t i = 0; i < w->n_specs; i++)
        weights_sum_add(&sum, w->specs[i].role,
                        (uint64_t)w->parts[i].rows * w->parts[i].stride * element_bytes(w, i) +
                            w->parts[i].scales.bytes);
    return weights_sum_read(&sum);
}
