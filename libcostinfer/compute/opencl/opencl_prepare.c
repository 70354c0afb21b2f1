/* opencl_prepare.c - making a program ready: room for its rows, and every kernel with its arguments bound.
 *
 * Every launch has a kernel object of its own, whose arguments are bound once, here.  What differs from step
 * to step (tokens, positions, the number of rows) lies in one small buffer that the step writes first. */
#include "opencl_prepare.h"

#include "fail.h"
#include "mem.h"
#include "opencl_blas.h"
#include "opencl_program.h"

enum {
    ROWS_MULTIPLE = 16, /* row buffers hold a multiple of this, so that kernels may read beyond the rows */
    PANEL_BYTES = 16 << 20,
};

/* ---- Room --------------------------------------------------------------------------------- */

/* Allocates what CLBlast needs besides weights and rows. */
static enum cinf_status allocate_blas(struct opencl_prepared *p)
{
    struct opencl_device *device = prepared_device(p);
    const struct program *program = p->program;
    uint64_t widest = 0, stride = VECTOR, temp = 0;
    for (uint32_t i = 0; i < program->n_ops; i++) {
        if (program->ops[i].kind != OP_LINEAR && program->ops[i].kind != OP_LOGITS)
            continue;
        const struct opencl_weight *w = &p->weights->parts[program->ops[i].weight];
        bool head = program->ops[i].kind == OP_LOGITS;
        uint64_t bytes;
        struct opencl_gemm gemm = {
            .m = head ? LOGITS_ROWS : p->rows_max, .n = w->rows, .k = w->stride, .y_stride = w->rows
        };
        TRY(opencl_blas_temp_bytes(&bytes, device, &gemm));
        temp = bytes > temp ? bytes : temp;
        stride = w->stride > stride ? w->stride : stride;
        if (!head)
            widest = w->rows > widest ? w->rows : widest;
    }
    if (widest)
        TRY(opencl_buffer_new(&p->product, device, p->rows_max * widest * sizeof(float), 0, false,
                              "products"));
    if (p->weights->type != WEIGHTS_F32) {
        uint64_t bytes = (stride + WIDEN_GROUP * VECTOR) * sizeof(float); /* at least a row */
        TRY(opencl_buffer_new(&p->panel, device, bytes > PANEL_BYTES ? bytes : PANEL_BYTES, 0, false,
                              "widened weights"));
    }
    return temp ? opencl_buffer_new(&p->temp, device, temp, 0, false, "CLBlast's memory") : CINF_OK;
}

static enum cinf_status allocate_picks(struct opencl_prepared *p)
{
    static const char *const names[CHUNK_KERNELS] = {
        [CHUNK_GATHER] = "gather", [CHUNK_PICK] = "pick_pieces", [CHUNK_JOIN] = "pick_join"
    };
    struct opencl_device *device = prepared_device(p);
    uint64_t n = p->rows_max < LOGITS_ROWS ? p->rows_max : LOGITS_ROWS;
    uint64_t words = PICK_WORDS(TOP_K_MAX) * sizeof(cl_uint), bits = round_up(p->program->vocab / 8 + 1, 4);
    TRY(opencl_buffer_new(&p->allowed, device, bits, 0, false, "allowed tokens"));
    TRY(opencl_buffer_new(&p->pick_parts, device, n * prepared_pieces(p) * words, 0, false, "picks"));
    TRY(opencl_buffer_new(&p->picks, device, p->rows_max * words, 0, false, "picks"));
    TRY(opencl_buffer_new(&p->picks_pinned, device, p->rows_max * words, CL_MEM_ALLOC_HOST_PTR, false,
                          "picks"));
    TRY(opencl_buffer_map((void **)&p->pick_words, device, &p->picks_pinned, CL_MAP_READ | CL_MAP_WRITE));
    static const cl_uint all = UINT32_MAX;
    cl_int error =
        clEnqueueFillBuffer(device->queue, p->allowed.mem, &all, sizeof all, 0, bits, 0, NULL, NULL);
    if (error != CL_SUCCESS)
        return opencl_fail(device, error, "allowed tokens");
    p->n_chunks = (p->rows_max + LOGITS_ROWS - 1) / LOGITS_ROWS;
    p->chunks = mem_new(p->n_chunks, sizeof *p->chunks);
    p->best = mem_new(p->rows_max, 1);
    if (!p->chunks || !p->best)
        return cinf_fail(CINF_ENOMEM, "no memory for steps of %u rows", p->rows_max);
    for (uint32_t c = 0; c < p->n_chunks; c++) {
        for (int k = 0; k < CHUNK_KERNELS; k++)
            TRY(opencl_kernel_new(&p->chunks[c][k], device, device->program, names[k]));
    }
    return CINF_OK;
}

/* Allocates as many zeros as the widest of the norms and products without a bias has columns, if there are
 * any: kernels always add a bias. */
static enum cinf_status allocate_no_bias(struct opencl_prepared *p)
{
    const struct program *program = p->program;
    uint64_t cols = 0;
    for (uint32_t i = 0; i < program->n_ops; i++) {
        const struct op *op = &program->ops[i];
        if ((op->kind != OP_NORM && op->kind != OP_LINEAR) || op->bias != NO_WEIGHT)
            continue;
        cols = program->specs[op->weight].cols > cols ? program->specs[op->weight].cols : cols;
    }
    return cols ? opencl_buffer_new(&p->no_bias, prepared_device(p), cols * sizeof(float), 0, true, "zeros")
                : CINF_OK;
}

static enum cinf_status allocate(struct opencl_prepared *p)
{
    struct opencl_device *device = prepared_device(p);
    const struct program *program = p->program;
    uint64_t rows = round_up(p->rows_max, ROWS_MULTIPLE);
    bool named[ROWS_COUNT] = { false };
    const struct op *head = NULL;
    bool attends = false;
    for (uint32_t i = 0; i < program->n_ops; i++) {
        const struct op *op = &program->ops[i];
        named[op->in] = named[op->in] || op->kind != OP_EMBED;
        named[op->out] = named[op->out] || op->kind != OP_LOGITS;
        head = op->kind == OP_LOGITS ? op : head;
        attends = attends || op->kind == OP_ATTEND;
    }
    for (int b = 0; b < ROWS_COUNT; b++) {
        if (named[b])
            TRY(opencl_buffer_new(&p->rows[b], device,
                                  rows * prepared_stride(p, (enum row_buffer)b) * sizeof(float), 0, true,
                                  "rows"));
    }
    uint64_t step_bytes = (STEP_HEADER + STEP_ARRAYS * (uint64_t)p->rows_max) * sizeof(cl_uint);
    TRY(opencl_buffer_new(&p->step, device, step_bytes, 0, false, "a step"));
    TRY(opencl_buffer_new(&p->step_pinned, device, step_bytes, CL_MEM_ALLOC_HOST_PTR, false, "a step"));
    TRY(opencl_buffer_map((void **)&p->step_words, device, &p->step_pinned, CL_MAP_WRITE));
    if (head) {
        uint64_t n = p->rows_max < LOGITS_ROWS ? p->rows_max : LOGITS_ROWS;
        uint64_t bytes = n * program->vocab * sizeof(float);
        uint64_t room = LOGITS_ROWS * (uint64_t)program->vocab * sizeof(float);
        TRY(opencl_buffer_new(&p->wanted, device,
                              (uint64_t)LOGITS_ROWS * prepared_stride(p, head->in) * sizeof(float), 0, true,
                              "rows"));
        TRY(opencl_buffer_new(&p->logits, device, room, 0, false, "logits"));
        TRY(opencl_buffer_new(&p->logits_pinned, device, bytes, CL_MEM_ALLOC_HOST_PTR, false, "logits"));
        TRY(opencl_buffer_map((void **)&p->logits_first, device, &p->logits_pinned,
                              CL_MAP_READ | CL_MAP_WRITE));
        p->logits_rest = mem_new((p->rows_max - n) * program->vocab, sizeof(float));
        if (!p->logits_rest)
            return cinf_fail(CINF_ENOMEM, "no memory for logits of %u rows", p->rows_max);
        TRY(allocate_picks(p));
    }
    if (attends) {
        uint64_t n = SPLIT_ROWS_MAX * (uint64_t)p->splits_max * program->heads * (p->kv->wide + 16u);
        TRY(opencl_buffer_new(&p->parts, device, n * sizeof(float), 0, false, "parts of attention"));
    }
    TRY(allocate_no_bias(p));
    return device->tuning.clblast ? allocate_blas(p) : CINF_OK;
}

/* ---- Kernels and their arguments ---------------------------------------------------------- */

/* The scales of int8 weights.  Kernels for other types do not read them and get any buffer. */
static cl_mem scales_of(const struct opencl_weight *w)
{
    return w->scales.mem ? w->scales.mem : w->buffer.mem;
}

static cl_mem bias_of(const struct opencl_prepared *p, const struct op *op)
{
    return op->bias == NO_WEIGHT ? p->no_bias.mem : p->weights->parts[op->bias].buffer.mem;
}

static enum cinf_status bind_chunks(struct opencl_prepared *p, const struct op *op)
{
    struct opencl_device *device = prepared_device(p);
    const cl_uint stride = prepared_stride(p, op->in), pieces = prepared_pieces(p);
    for (cl_uint c = 0, first = 0; c < p->n_chunks; c++, first += LOGITS_ROWS) {
        const struct opencl_argument gather[] = { ARGUMENT(p->rows[op->in].mem),
                                                  ARGUMENT(p->wanted.mem),
                                                  ARGUMENT(p->step.mem),
                                                  ARGUMENT(p->rows_max),
                                                  ARGUMENT(stride),
                                                  ARGUMENT(first),
                                                  { 0 } };
        const struct opencl_argument pick[] = { ARGUMENT(p->logits.mem),
                                                ARGUMENT(p->program->vocab),
                                                ARGUMENT(p->allowed.mem),
                                                ARGUMENT(p->step.mem),
                                                ARGUMENT(p->rows_max),
                                                ARGUMENT(first),
                                                ARGUMENT(p->pick_parts.mem),
                                                ARGUMENT(pieces),
                                                { 0 } };
        const struct opencl_argument join[] = { ARGUMENT(p->pick_parts.mem),
                                                ARGUMENT(pieces),
                                                ARGUMENT(p->step.mem),
                                                ARGUMENT(p->rows_max),
                                                ARGUMENT(first),
                                                ARGUMENT(p->picks.mem),
                                                { 0 } };
        TRY(opencl_arguments(device, p->chunks[c][CHUNK_GATHER], gather));
        TRY(opencl_arguments(device, p->chunks[c][CHUNK_PICK], pick));
        TRY(opencl_arguments(device, p->chunks[c][CHUNK_JOIN], join));
    }
    return CINF_OK;
}

static enum cinf_status bind_widen(struct opencl_prepared *p, const struct opencl_weight *w,
                                   cl_kernel *kernel)
{
    struct opencl_device *device = prepared_device(p);
    const cl_mem scales = scales_of(w);
    const cl_ulong n = (cl_ulong)w->rows * w->stride;
    TRY(opencl_kernel_new(kernel, device, device->program,
                          p->weights->type == WEIGHTS_F16 ? "widen_f16" : "widen_int8"));
    const struct opencl_argument arguments[] = { ARGUMENT(w->buffer.mem), ARGUMENT(scales),
                                                 ARGUMENT(p->panel.mem),  ARGUMENT(n),
                                                 ARGUMENT(w->stride),     { 0 } };
    return opencl_arguments(device, *kernel, arguments);
}

static enum cinf_status bind_linear(struct opencl_prepared *p, const struct op *op,
                                    struct op_kernels *kernels)
{
    struct opencl_device *device = prepared_device(p);
    const struct opencl_kv *kv = p->kv;
    const struct opencl_weight *w = &p->weights->parts[op->weight];
    bool head = op->kind == OP_LOGITS;
    cl_mem in = head ? p->wanted.mem : p->rows[op->in].mem;
    const struct product product = {
        .w = w->buffer.mem,
        .scales = scales_of(w),
        .in = in,
        .bias = head ? in : bias_of(p, op),
        .out = head ? p->logits.mem : p->rows[op->out].mem,
        .cache = op->epilogue == EPILOGUE_QKV ? kv->caches[op->layer].mem : in,
        .step = p->step.mem,
        .n = w->rows,
        .k = w->stride,
        /* The head's rows are those of a chunk, which has room for as many as a kernel computes. */
        .rows = head ? (cl_uint)LOGITS_ROWS : 0,
        .rows_max = p->rows_max,
        .out_stride = head ? w->rows : prepared_stride(p, op->out),
        .epilogue = head ? (cl_uint)OPENCL_EPILOGUE_HEAD : op->epilogue,
        .activation = op->activation,
        .q_cols = op->q_cols,
        .k_cols = op->k_cols,
        .head_width = kv->head_width,
        .wide = kv->wide,
        .positions = kv->positions,
        .values_at = kv->values_at,
    };
    for (int k = PRODUCT_1; k <= PRODUCT_FINISH; k++) {
        cl_kernel *kernel = &kernels->product[k];
        if (k == (device->tuning.clblast ? PRODUCT_MATRIX : PRODUCT_FINISH))
            continue;
        TRY(opencl_kernel_new(kernel, device, device->program,
                              product_kernel_name((enum product_kernel)k, p->weights->type)));
        if (k != PRODUCT_FINISH)
            TRY(product_bind(device, *kernel, &product));
        else /* the head never runs it, so a program that is a head alone has no buffer for it */
            TRY(product_bind_finish(device, *kernel, &product, p->product.mem ? p->product.mem : in));
    }
    if (device->tuning.clblast && p->weights->type != WEIGHTS_F32)
        TRY(bind_widen(p, w, &kernels->product[PRODUCT_WIDEN]));
    return head ? bind_chunks(p, op) : CINF_OK;
}

static enum cinf_status bind_attend(struct opencl_prepared *p, const struct op *op,
                                    struct op_kernels *kernels)
{
    struct opencl_device *device = prepared_device(p);
    const struct opencl_kv *kv = p->kv;
    const cl_uint stride = prepared_stride(p, op->in);
    const cl_float scale = op->scale;
    static const char *const names[ATTEND_KERNELS] = {
        [ATTEND_SINGLE] = "attend_single", [ATTEND_JOIN] = "attend_join", [ATTEND_TILE] = "attend_tile"
    };
    cl_program program;
    TRY(opencl_program_attend(&program, device, kv->head_width));
    for (int k = 0; k < ATTEND_KERNELS; k++)
        TRY(opencl_kernel_new(&kernels->attend[k], device, program, names[k]));
#define ATTEND_ARGUMENTS                                                                                     \
    ARGUMENT(p->rows[op->in].mem), ARGUMENT(p->rows[op->out].mem), ARGUMENT(kv->caches[op->layer].mem),      \
        ARGUMENT(p->step.mem), ARGUMENT(p->rows_max), ARGUMENT(stride), ARGUMENT(kv->heads),                 \
        ARGUMENT(kv->positions), ARGUMENT(kv->values_at), ARGUMENT(scale)
    const struct opencl_argument single[] = { ATTEND_ARGUMENTS, ARGUMENT(p->parts.mem), { 0 } };
    const struct opencl_argument tile[] = { ATTEND_ARGUMENTS, { 0 } };
#undef ATTEND_ARGUMENTS
    const struct opencl_argument join[] = { ARGUMENT(p->parts.mem),
                                            ARGUMENT(p->rows[op->out].mem),
                                            ARGUMENT(p->step.mem),
                                            ARGUMENT(p->rows_max),
                                            ARGUMENT(stride),
                                            ARGUMENT(kv->heads),
                                            { 0 } };
    TRY(opencl_arguments(device, kernels->attend[ATTEND_SINGLE], single));
    TRY(opencl_arguments(device, kernels->attend[ATTEND_JOIN], join));
    return opencl_arguments(device, kernels->attend[ATTEND_TILE], tile);
}

static enum cinf_status bind_op(struct opencl_prepared *p, const struct op *op, struct op_kernels *kernels)
{
    struct opencl_device *device = prepared_device(p);
    const struct opencl_weight *parts = p->weights->parts;
    const cl_uint d = p->program->width, stride = (cl_uint)round_up(d, VECTOR);
    if (op->kind == OP_LINEAR || op->kind == OP_LOGITS)
        return bind_linear(p, op, kernels);
    if (op->kind == OP_ATTEND)
        return bind_attend(p, op, kernels);
    if (op->kind == OP_EMBED) {
        static const char *const names[] = {
            [WEIGHTS_F32] = "embed_f32", [WEIGHTS_F16] = "embed_f16", [WEIGHTS_INT8] = "embed_int8"
        };
        TRY(opencl_kernel_new(&kernels->simple, device, device->program, names[p->weights->type]));
        const cl_mem scales = scales_of(&parts[op->weight]);
        const cl_uint has_positions = op->weight2 != NO_WEIGHT;
        const cl_mem positions = parts[has_positions ? op->weight2 : op->weight].buffer.mem;
        const struct opencl_argument arguments[] = { ARGUMENT(parts[op->weight].buffer.mem),
                                                     ARGUMENT(scales),
                                                     ARGUMENT(positions),
                                                     ARGUMENT(has_positions),
                                                     ARGUMENT(p->rows[op->out].mem),
                                                     ARGUMENT(p->step.mem),
                                                     ARGUMENT(p->rows_max),
                                                     ARGUMENT(d),
                                                     ARGUMENT(stride),
                                                     { 0 } };
        return opencl_arguments(device, kernels->simple, arguments);
    }
    const cl_float epsilon = op->epsilon;
    const cl_mem bias = bias_of(p, op);
    TRY(opencl_kernel_new(&kernels->simple, device, device->program, "norm"));
    const struct opencl_argument arguments[] = { ARGUMENT(p->rows[op->in].mem),
                                                 ARGUMENT(p->rows[op->out].mem),
                                                 ARGUMENT(parts[op->weight].buffer.mem),
                                                 ARGUMENT(bias),
                                                 ARGUMENT(d),
                                                 ARGUMENT(stride),
                                                 ARGUMENT(epsilon),
                                                 { 0 } };
    return opencl_arguments(device, kernels->simple, arguments);
}

/* ---- Prepared programs -------------------------------------------------------------------- */

static bool fits_cache(const struct opencl_kv *kv, const struct program *p)
{
    return kv->layers == p->layers && kv->heads == p->heads && kv->positions == p->positions &&
           kv->head_width == p->width / p->heads;
}

static enum cinf_status build(struct opencl_prepared *p)
{
    TRY(allocate(p));
    for (uint32_t i = 0; i < p->program->n_ops; i++)
        TRY(bind_op(p, &p->program->ops[i], &p->kernels[i]));
    return CINF_OK;
}

enum cinf_status opencl_prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max)
{
    struct opencl_device *device = (struct opencl_device *)weights->device;
    const struct opencl_weights *w = (struct opencl_weights *)weights;
    TRY(prepare_check(program, w->specs, w->n_specs, rows_max));
    if (!fits_cache((struct opencl_kv *)kv, program))
        return cinf_fail(CINF_EINVAL, "the program needs a cache of another shape");
    struct opencl_prepared *p = mem_new(1, sizeof *p);
    if (p) {
        p->base = (struct prepared){ .device = weights->device, .has_top_k = true, .log_sums = true };
        p->weights = (struct opencl_weights *)weights;
        p->kv = (struct opencl_kv *)kv;
        p->program = program;
        p->rows_max = rows_max;
        p->splits_max = (program->positions + device->tuning.split_length - 1) / device->tuning.split_length;
        p->splits_max = p->splits_max < 2 ? 2 : p->splits_max;
        p->kernels = mem_new(program->n_ops, sizeof *p->kernels);
    }
    enum cinf_status status =
        p && p->kernels ? build(p) : cinf_fail(CINF_ENOMEM, "no memory for %u operations", program->n_ops);
    if (status != CINF_OK) {
        opencl_prepared_free((struct prepared *)p);
        return status;
    }
    *out = &p->base;
    return CINF_OK;
}

void opencl_prepared_free(struct prepared *base)
{
    if (!base)
        return;
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    struct opencl_device *device = prepared_device(p);
    if (p->done)
        clReleaseEvent(p->done);
    if (p->step_words)
        clEnqueueUnmapMemObject(device->queue, p->step_pinned.mem, p->step_words, 0, NULL, NULL);
    if (p->logits_first)
        clEnqueueUnmapMemObject(device->queue, p->logits_pinned.mem, p->logits_first, 0, NULL, NULL);
    clFinish(device->queue); /* a step under way may still write to our memory */
    for (uint32_t i = 0; p->kernels && i < p->program->n_ops; i++) {
        opencl_kernel_free(p->kernels[i].simple);
        for (int k = 0; k < PRODUCT_KERNELS; k++)
            opencl_kernel_free(p->kernels[i].product[k]);
        for (int k = 0; k < ATTEND_KERNELS; k++)
            opencl_kernel_free(p->kernels[i].attend[k]);
    }
    if (p->pick_words)
        clEnqueueUnmapMemObject(device->queue, p->picks_pinned.mem, (void *)p->pick_words, 0, NULL, NULL);
    for (uint32_t c = 0; p->chunks && c < p->n_chunks; c++) {
        for (int k = 0; k < CHUNK_KERNELS; k++)
            opencl_kernel_free(p->chunks[c][k]);
    }
    struct opencl_buffer *const buffers[] = { &p->wanted,        &p->logits,  &p->parts,      &p->product,
                                              &p->panel,         &p->temp,    &p->step,       &p->step_pinned,
                                              &p->logits_pinned, &p->allowed, &p->pick_parts, &p->picks,
                                              &p->picks_pinned,  &p->no_bias };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        opencl_buffer_free(device, buffers[i]);
    for (int b = 0; b < ROWS_COUNT; b++)
        opencl_buffer_free(device, &p->rows[b]);
    mem_free(p->logits_rest);
    mem_free(p->chunks);
    mem_free(p->best);
    mem_free(p->kernels);
    mem_free(p);
}
