/* opencl_memory.c - weights on their way to the device, and the cache of keys and values.
 *
 * One buffer a tensor and a layer, not one for all: a device gives a quarter of its memory at a time.
 *
 * Weights go through two pinned pieces of host memory by turns: the host converts a chunk to float32 in one
 * while the other travels, and a kernel puts what arrived into its place: [out, in], since reading a row's
 * weights one after the other is what a product of few rows spends its time on. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "fail.h"
#include "half.h"
#include "mem.h"
#include "opencl_device.h"

/* ---- Weights ------------------------------------------------------------------------------ */

enum { STAGE_BYTES = 1 << 20 };

static enum cinf_status stage_new(struct opencl_stage *stage, struct opencl_device *device, uint64_t bytes)
{
    TRY(opencl_buffer_new(&stage->pinned, device, bytes, CL_MEM_ALLOC_HOST_PTR, false, "staging memory"));
    TRY(opencl_buffer_new(&stage->buffer, device, bytes, 0, false, "staging memory"));
    cl_int error;
    stage->host = clEnqueueMapBuffer(device->queue, stage->pinned.mem, CL_TRUE, CL_MAP_WRITE, 0, bytes, 0,
                                     NULL, NULL, &error);
    return stage->host ? CINF_OK : opencl_fail(device, error, "mapping staging memory");
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

static size_t element_bytes(const struct opencl_weights *w, uint32_t index)
{
    return w->type == WEIGHTS_F16 && w->specs[index].role != WEIGHT_VECTOR ? 2 : sizeof(float);
}

static enum cinf_status allocate(struct opencl_weights *w)
{
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    w->stage_elements = STAGE_BYTES / sizeof(float);
    for (uint32_t i = 0; i < w->n_specs; i++) {
        struct opencl_weight *part = &w->parts[i];
        const struct weight_spec *spec = &w->specs[i];
        bool turned = spec->role == WEIGHT_MATRIX;
        part->rows = turned ? spec->cols : spec->rows;
        part->cols = turned ? spec->rows : spec->cols;
        part->stride = (uint32_t)round_up(part->cols, VECTOR);
        /* Four rows at a time are read by the kernels for many. */
        uint64_t bytes = round_up(part->rows, 4);
        if (!mul_u64(&bytes, bytes, part->stride) || !mul_u64(&bytes, bytes, element_bytes(w, i)))
            return cinf_fail(CINF_ENOMEM, "weight %u of %u x %u elements", i, spec->rows, spec->cols);
        TRY(opencl_buffer_new(&part->buffer, device, bytes, 0, true, "weights"));
        w->stage_elements = w->stage_elements > spec->cols ? w->stage_elements : spec->cols;
    }
    for (int i = 0; i < 2; i++)
        TRY(stage_new(&w->stages[i], device, w->stage_elements * sizeof(float)));
    bool half = w->type == WEIGHTS_F16;
    TRY(opencl_kernel_new(&w->pack_rows, device, device->program, half ? "pack_rows_f16" : "pack_rows_f32"));
    return opencl_kernel_new(&w->pack_columns, device, device->program,
                             half ? "pack_columns_f16" : "pack_columns_f32");
}

enum cinf_status opencl_weights_new(struct weights **out, struct device *base,
                                    const struct weight_spec *specs, uint32_t n_specs, enum weights_type type)
{
    if (type != WEIGHTS_F32 && type != WEIGHTS_F16)
        return cinf_fail(CINF_EUNSUPPORTED, "device %s keeps weights in f32 or f16 only",
                         ((struct opencl_device *)base)->name);
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
    if (w->pack_rows)
        clReleaseKernel(w->pack_rows);
    if (w->pack_columns)
        clReleaseKernel(w->pack_columns);
    for (uint32_t i = 0; w->parts && i < w->n_specs; i++)
        opencl_buffer_free(device, &w->parts[i].buffer);
    mem_free(w->parts);
    mem_free(w->specs);
    mem_free(w);
}

/* to[n] from elements of any floating-point type at any address. */
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

/* The first of n elements that is finite and too large for the weights' type, or n.  `values` are the
 * elements as float32. */
static size_t first_too_large(const float *values, const unsigned char *from, size_t n, enum cinf_dtype dtype,
                              float max)
{
    for (size_t i = 0; i < n; i++) {
        double value = (double)values[i];
        if (dtype == CINF_DTYPE_F64)
            memcpy(&value, from + 8 * i, sizeof value);
        if (isfinite(value) && !(fabsf(values[i]) < max))
            return i;
    }
    return n;
}

/* Enqueues the stage's n rows of weight `index`, from row `first` on. */
static enum cinf_status send(struct opencl_weights *w, struct opencl_stage *stage, uint32_t index,
                             uint32_t first, uint32_t n)
{
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    const struct weight_spec *spec = &w->specs[index];
    struct opencl_weight *part = &w->parts[index];
    size_t bytes = (size_t)n * spec->cols * sizeof(float);
    bool vector = spec->role == WEIGHT_VECTOR; /* of one row: it goes where it belongs at once */
    cl_int error = clEnqueueWriteBuffer(device->queue, vector ? part->buffer.mem : stage->buffer.mem,
                                        CL_FALSE, 0, bytes, stage->host, 0, NULL, &stage->free);
    if (error != CL_SUCCESS)
        return opencl_fail(device, error, "sending weights");
    if (!vector) {
        cl_kernel kernel = spec->role == WEIGHT_MATRIX ? w->pack_columns : w->pack_rows;
        const struct opencl_argument arguments[] = { ARGUMENT(stage->buffer.mem),
                                                     ARGUMENT(part->buffer.mem),
                                                     ARGUMENT(first),
                                                     ARGUMENT(n),
                                                     ARGUMENT(spec->cols),
                                                     ARGUMENT(part->stride),
                                                     { 0 } };
        TRY(opencl_arguments(device, kernel, arguments));
        const size_t global[3] = { spec->cols, spec->role == WEIGHT_MATRIX ? (n + 15) / 16 : n, 1 };
        TRY(opencl_launch(device, kernel, global, (const size_t[]){ 64, 1, 1 }, NULL));
    }
    error = clFlush(device->queue);
    return error == CL_SUCCESS ? CINF_OK : opencl_fail(device, error, "sending weights");
}

static enum cinf_status write_piece(struct opencl_weights *w, uint32_t index, uint32_t first, uint32_t n,
                                    const unsigned char *elements, enum cinf_dtype dtype)
{
    struct opencl_device *device = (struct opencl_device *)w->base.device;
    struct opencl_stage *stage = &w->stages[w->stage];
    uint32_t cols = w->specs[index].cols;
    size_t count = (size_t)n * cols;
    if (stage->free) {
        cl_event event = stage->free;
        stage->free = NULL;
        TRY(opencl_wait_event(device, event));
    }
    convert(stage->host, elements, count, dtype);
    bool half = element_bytes(w, index) == 2;
    /* 65520 and above rounds beyond f16's 65504. */
    size_t bad = half || dtype == CINF_DTYPE_F64
                     ? first_too_large(stage->host, elements, count, dtype, half ? 65520.0f : INFINITY)
                     : count;
    if (bad < count)
        return cinf_fail(CINF_EUNSUPPORTED, "weight %u holds %g in row %zu, column %zu: too large for %s",
                         index, (double)((float *)stage->host)[bad], first + bad / cols, bad % cols,
                         half ? "f16" : "f32");
    w->stage = 1 - w->stage;
    return send(w, stage, index, first, n);
}

enum cinf_status opencl_weights_write(struct weights *base, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype)
{
    struct opencl_weights *w = (struct opencl_weights *)base;
    static const size_t sizes[] = {
        [CINF_DTYPE_F32] = 4, [CINF_DTYPE_F16] = 2, [CINF_DTYPE_BF16] = 2, [CINF_DTYPE_F64] = 8
    };
    if (index >= w->n_specs)
        return cinf_fail(CINF_EINVAL, "weight %u of %u", index, w->n_specs);
    uint32_t rows = w->specs[index].rows, cols = w->specs[index].cols;
    if (first > rows || n > rows - first)
        return cinf_fail(CINF_EINVAL, "weight %u: rows %u to %" PRIu64 " of %u", index, first,
                         (uint64_t)first + n, rows);
    if (dtype >= CINF_DTYPE_OTHER)
        return cinf_fail(CINF_EUNSUPPORTED, "weight %u: elements are not of a floating-point type", index);
    if (!w->stages[0].host)
        return cinf_fail(CINF_EINVAL, "weight %u: written after the last write", index);
    uint32_t at_once = (uint32_t)(w->stage_elements / cols);
    const unsigned char *from = elements;
    for (uint32_t done = 0; done < n;) {
        uint32_t piece = n - done < at_once ? n - done : at_once;
        TRY(write_piece(w, index, first + done, piece, from, dtype));
        from += (size_t)piece * cols * sizes[dtype];
        done += piece;
    }
    return CINF_OK;
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
    uint64_t products = 0, head = 0, tokens = 0;
    for (uint32_t i = 0; i < w->n_specs; i++) {
        uint64_t bytes = (uint64_t)w->parts[i].rows * w->parts[i].stride * element_bytes(w, i);
        switch (w->specs[i].role) {
        case WEIGHT_TABLE: /* a row of it, which is nothing */
            break;
        case WEIGHT_TOKENS:
            tokens += bytes;
            break;
        case WEIGHT_HEAD:
            head += bytes;
            break;
        case WEIGHT_MATRIX:
        case WEIGHT_VECTOR:
            products += bytes;
            break;
        }
    }
    return products + (head ? head : tokens);
}

/* ---- The cache ---------------------------------------------------------------------------- */

/* Bytes of one slot in one layer; UINT64_MAX when they cannot be counted. */
static uint64_t layer_bytes(const struct program *p)
{
    uint64_t n = 2 * sizeof(float) * (uint64_t)p->heads;
    if (!mul_u64(&n, n, round_up(p->width / p->heads, VECTOR)) || !mul_u64(&n, n, p->positions))
        return UINT64_MAX;
    return n;
}

uint64_t opencl_kv_slot_bytes(const struct device *device, const struct program *program)
{
    (void)device;
    uint64_t n = layer_bytes(program);
    return mul_u64(&n, n, program->layers) ? n : UINT64_MAX;
}

enum cinf_status opencl_kv_new(struct kv **out, struct device *base, const struct program *program,
                               uint32_t slots)
{
    struct opencl_device *device = (struct opencl_device *)base;
    TRY(program_check(program));
    uint64_t bytes = layer_bytes(program);
    if (slots == 0 || !mul_u64(&bytes, bytes, slots))
        return cinf_fail(CINF_ENOMEM, "a cache of %u slots of %" PRIu64 " bytes", slots,
                         opencl_kv_slot_bytes(base, program));
    struct opencl_kv *kv = mem_new(1, sizeof *kv);
    if (kv) {
        kv->base.device = base;
        kv->slots = slots;
        kv->layers = program->layers;
        kv->heads = program->heads;
        kv->positions = program->positions;
        kv->head_width = program->width / program->heads;
        kv->wide = (uint32_t)round_up(kv->head_width, VECTOR);
        kv->caches = mem_new(kv->layers, sizeof *kv->caches);
    }
    enum cinf_status status = kv && kv->caches ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for a cache");
    /* What is read before it is written is the end of a head only, where it does not fill its vectors. */
    bool zero = kv && kv->wide != kv->head_width;
    for (uint32_t l = 0; status == CINF_OK && l < kv->layers; l++)
        status = opencl_buffer_new(&kv->caches[l], device, bytes, 0, zero, "a layer's keys and values");
    if (status == CINF_OK)
        status = opencl_kernel_new(&kv->copy, device, device->program, "copy_slot");
    if (status != CINF_OK) {
        opencl_kv_free((struct kv *)kv);
        return status;
    }
    *out = &kv->base;
    return CINF_OK;
}

void opencl_kv_free(struct kv *base)
{
    if (!base)
        return;
    struct opencl_kv *kv = (struct opencl_kv *)base;
    struct opencl_device *device = (struct opencl_device *)base->device;
    for (uint32_t l = 0; kv->caches && l < kv->layers; l++)
        opencl_buffer_free(device, &kv->caches[l]);
    if (kv->copy)
        clReleaseKernel(kv->copy);
    mem_free(kv->caches);
    mem_free(kv);
}

enum cinf_status opencl_kv_copy(struct kv *base, uint32_t to, uint32_t from, uint32_t n)
{
    struct opencl_kv *kv = (struct opencl_kv *)base;
    struct opencl_device *device = (struct opencl_device *)base->device;
    if (to >= kv->slots || from >= kv->slots || n > kv->positions)
        return cinf_fail(CINF_EINVAL,
                         "copy of %u positions from slot %u to slot %u of %u slots x %u positions", n, from,
                         to, kv->slots, kv->positions);
    if (to == from || n == 0)
        return CINF_OK;
    cl_ulong values_at = (cl_ulong)kv->slots * kv->heads * kv->positions * kv->wide;
    const size_t global[3] = { (size_t)n * kv->wide, kv->heads, 2 };
    for (uint32_t l = 0; l < kv->layers; l++) {
        const struct opencl_argument arguments[] = { ARGUMENT(kv->caches[l].mem),
                                                     ARGUMENT(kv->heads),
                                                     ARGUMENT(kv->positions),
                                                     ARGUMENT(kv->wide),
                                                     ARGUMENT(values_at),
                                                     ARGUMENT(to),
                                                     ARGUMENT(from),
                                                     ARGUMENT(n),
                                                     { 0 } };
        TRY(opencl_arguments(device, kv->copy, arguments));
        TRY(opencl_launch(device, kv->copy, global, (const size_t[]){ 64, 1, 1 }, NULL));
    }
    return CINF_OK;
}
