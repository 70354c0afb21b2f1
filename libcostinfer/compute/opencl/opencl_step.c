/* opencl_step.c - a program as a list of kernels with their arguments bound, and running it.
 *
 * Every launch has a kernel object of its own, whose arguments prepare() sets once.  What differs from step
 * to step (tokens, positions, how many rows) lies in one small buffer, written by one transfer at its
 * beginning; so a step is that, a launch for each operation, and the logits' way back. */
#include <math.h>
#include <string.h>

#include "clock.h"
#include "fail.h"
#include "half.h"
#include "mem.h"
#include "opencl_blas.h"
#include "opencl_device.h"

enum {
    SPLIT_ROWS_MAX = 16, /* with more single rows than this there is work enough without splitting */
    PANEL_BYTES = 16 << 20,
    WIDEN_GROUP = 64, /* work-items, of VECTOR elements each */
};

/* The kernels of an operation, as far as its kind has them. */
enum {
    KERNEL_ONLY = 0,
    KERNEL_1 = 0, /* products, by rows */
    KERNEL_4,
    KERNEL_8,
    KERNEL_MATRIX,
    KERNEL_FINISH, /* after CLBlast */
    KERNEL_WIDEN,  /* before it */
    KERNEL_SINGLE = 0,
    KERNEL_JOIN,
    KERNEL_TILE,
    KERNELS = KERNEL_WIDEN + 1
};

/* Of each LOGITS_ROWS rows that want logits. */
enum { CHUNK_GATHER, CHUNK_PICK, CHUNK_JOIN, CHUNK_KERNELS };

struct opencl_prepared {
    struct prepared base;
    struct opencl_weights *weights;
    struct opencl_kv *kv;
    const struct program *program;
    uint32_t rows_max, splits_max;

    cl_kernel (*kernels)[KERNELS];         /* [n_ops] */
    cl_kernel (*chunks)[CHUNK_KERNELS];    /* [n_chunks] */
    struct opencl_buffer rows[ROWS_COUNT]; /* [rows_max and a few, stride]; those that the program names */
    struct opencl_buffer wanted;           /* [LOGITS_ROWS, stride] the head's input */
    struct opencl_buffer logits;           /* [LOGITS_ROWS, V] */
    struct opencl_buffer parts;            /* of split attention */
    struct opencl_buffer product, panel, temp; /* for CLBlast: [rows_max, n]; weights as float32; its own */

    struct opencl_buffer step, step_pinned, logits_pinned;
    uint32_t *step_words; /* step_pinned, mapped */
    float *logits_first;  /* logits_pinned, mapped: [LOGITS_ROWS, V] */
    float *logits_rest;   /* [rows_max - LOGITS_ROWS, V], for scoring; touched when used */
    uint32_t n_logits, n_chunks;
    struct opencl_buffer allowed, pick_parts; /* bits; [LOGITS_ROWS, pieces, PICK_WORDS(PICK_MAX)] at most */
    struct opencl_buffer picks, picks_pinned; /* [rows_max, PICK_WORDS(most of the step)] */
    const uint32_t *pick_words;               /* picks_pinned, mapped */
    uint8_t *best;                            /* [rows_max] of the i-th row that wants logits: how many */
    uint32_t most;                            /* of them in this step */
    uint32_t n_warm;                          /* of WARM_SIZES steps the operations that ran */
    cl_event done;                            /* the end of the step that is under way, or NULL */
};

static struct opencl_device *device_of(const struct opencl_prepared *p)
{
    return (struct opencl_device *)p->base.device;
}

static uint32_t stride_of(const struct opencl_prepared *p, enum row_buffer buffer)
{
    return (uint32_t)round_up(row_width(p->program, buffer), VECTOR);
}

/* ---- Products ----------------------------------------------------------------------------- */

/* What linear.cl and matrix.cl are asked for; names as there. */
struct product {
    cl_mem w, scales, in, bias, out, cache, step;
    cl_uint n, k, rows, rows_max, out_stride, epilogue, activation, d, head_width, wide, positions;
    cl_ulong values_at;
};

#define EPILOGUE_ARGUMENTS(p)                                                                                \
    ARGUMENT((p)->bias), ARGUMENT((p)->out), ARGUMENT((p)->cache), ARGUMENT((p)->step),                      \
        ARGUMENT((p)->rows_max), ARGUMENT((p)->out_stride), ARGUMENT((p)->epilogue),                         \
        ARGUMENT((p)->activation), ARGUMENT((p)->d), ARGUMENT((p)->head_width), ARGUMENT((p)->wide),         \
        ARGUMENT((p)->positions), ARGUMENT((p)->values_at)

static enum cinf_status bind_product(const struct opencl_device *device, cl_kernel kernel,
                                     const struct product *p)
{
    const struct opencl_argument arguments[] = { ARGUMENT(p->w),        ARGUMENT(p->scales),
                                                 ARGUMENT(p->in),       ARGUMENT(p->n),
                                                 ARGUMENT(p->k),        ARGUMENT(p->rows),
                                                 EPILOGUE_ARGUMENTS(p), { 0 } };
    return opencl_arguments(device, kernel, arguments);
}

/* The kernel for so many rows, of KERNEL_1 to KERNEL_MATRIX. */
static int kernel_for(uint32_t rows)
{
    return rows == 1 ? KERNEL_1 : rows <= 4 ? KERNEL_4 : rows <= LINEAR_ROWS_MAX ? KERNEL_8 : KERNEL_MATRIX;
}

static enum cinf_status launch_product(const struct opencl_device *device, cl_kernel kernel, int which,
                                       uint32_t rows, uint32_t n)
{
    static const uint32_t rows_at_once[] = { 1, 4, 8 };
    size_t lanes = device->tuning.lanes;
    if (which == KERNEL_MATRIX && lanes == 1)
        return opencl_launch(device, kernel, (const size_t[]){ (n + 3) / 4, (rows + 3) / 4, 1 },
                             (const size_t[]){ 4, 1, 1 });
    if (which == KERNEL_MATRIX)
        return opencl_launch(device, kernel,
                             (const size_t[]){ round_up(n, 64) / 8, round_up(rows, 64) / 8, 1 },
                             (const size_t[]){ 8, 8, 1 });
    const size_t global[3] = { n * lanes, (rows + rows_at_once[which] - 1) / rows_at_once[which], 1 };
    return opencl_launch(device, kernel, global, (const size_t[]){ lanes == 1 ? 8 : lanes, 1, 1 });
}

static const char *const product_names[][KERNELS] = {
    [WEIGHTS_F32] = { "linear_f32_1", "linear_f32_4", "linear_f32_8", "matrix_f32", "finish_product" },
    [WEIGHTS_F16] = { "linear_f16_1", "linear_f16_4", "linear_f16_8", "matrix_f16", "finish_product" },
    [WEIGHTS_INT8] = { "linear_int8_1", "linear_int8_4", "linear_int8_8", "matrix_int8", "finish_product" },
};

/* The scales of int8 weights; any other buffer where there are none and no kernel looks. */
static cl_mem scales_of(const struct opencl_weight *w)
{
    return w->scales.mem ? w->scales.mem : w->buffer.mem;
}

/* The last group of a panel may write beyond its rows. */
static uint32_t panel_rows(const struct opencl_prepared *p, const struct opencl_weight *weight)
{
    return (uint32_t)((p->panel.bytes / sizeof(float) - WIDEN_GROUP * VECTOR) / weight->stride);
}

/* y[rows, n] = in[rows, k] * weight^T by CLBlast.  Weights that are not float32 are widened a panel of rows
 * at a time, so that there is never a second copy of them all. */
static enum cinf_status blas_product(struct opencl_prepared *p, const struct opencl_weight *weight,
                                     cl_kernel widen, cl_mem in, cl_mem y, uint32_t rows)
{
    struct opencl_device *device = device_of(p);
    struct opencl_gemm gemm = { .x = in,
                                .w = weight->buffer.mem,
                                .y = y,
                                .m = rows,
                                .n = weight->rows,
                                .k = weight->stride,
                                .y_stride = weight->rows };
    if (!widen)
        return opencl_blas_gemm(device, &gemm, p->temp.mem);
    const uint32_t at_once = panel_rows(p, weight);
    const size_t vectors = weight->stride / VECTOR; /* of a row */
    gemm.w = p->panel.mem;
    for (uint32_t first = 0; first < weight->rows; first += at_once) {
        gemm.n = weight->rows - first < at_once ? weight->rows - first : at_once;
        gemm.y_first = first;
        TRY(opencl_launch_from(device, widen, first * vectors, gemm.n * vectors, WIDEN_GROUP));
        TRY(opencl_blas_gemm(device, &gemm, p->temp.mem));
    }
    return CINF_OK;
}

/* ---- Preparation -------------------------------------------------------------------------- */

static bool fits_cache(const struct opencl_kv *kv, const struct program *p)
{
    return kv->layers == p->layers && kv->heads == p->heads && kv->positions == p->positions &&
           kv->head_width == p->width / p->heads;
}

static enum cinf_status map(void **out, struct opencl_device *device, const struct opencl_buffer *buffer,
                            cl_map_flags flags)
{
    cl_int error;
    void *host = clEnqueueMapBuffer(device->queue, buffer->mem, CL_TRUE, flags, 0, buffer->bytes, 0, NULL,
                                    NULL, &error);
    if (!host)
        return opencl_fail(device, error, "mapping pinned memory");
    *out = host;
    return CINF_OK;
}

/* What CLBlast works on besides weights and rows. */
static enum cinf_status allocate_blas(struct opencl_prepared *p)
{
    struct opencl_device *device = device_of(p);
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

static uint32_t pieces_of(const struct opencl_prepared *p)
{
    return (p->program->vocab + PICK_PIECE - 1) / PICK_PIECE;
}

static enum cinf_status allocate_picks(struct opencl_prepared *p)
{
    static const char *const names[] = { "gather", "pick_pieces", "pick_join" };
    struct opencl_device *device = device_of(p);
    uint64_t n = p->rows_max < LOGITS_ROWS ? p->rows_max : LOGITS_ROWS;
    uint64_t words = PICK_WORDS(PICK_MAX) * sizeof(cl_uint), bits = round_up(p->program->vocab / 8 + 1, 4);
    TRY(opencl_buffer_new(&p->allowed, device, bits, 0, false, "allowed tokens"));
    TRY(opencl_buffer_new(&p->pick_parts, device, n * pieces_of(p) * words, 0, false, "picks"));
    TRY(opencl_buffer_new(&p->picks, device, p->rows_max * words, 0, false, "picks"));
    TRY(opencl_buffer_new(&p->picks_pinned, device, p->rows_max * words, CL_MEM_ALLOC_HOST_PTR, false,
                          "picks"));
    TRY(map((void **)&p->pick_words, device, &p->picks_pinned, CL_MAP_READ | CL_MAP_WRITE));
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

static enum cinf_status allocate(struct opencl_prepared *p)
{
    struct opencl_device *device = device_of(p);
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
                                  rows * stride_of(p, (enum row_buffer)b) * sizeof(float), 0, true, "rows"));
    }
    uint64_t step_bytes = (STEP_HEADER + STEP_ARRAYS * (uint64_t)p->rows_max) * sizeof(cl_uint);
    TRY(opencl_buffer_new(&p->step, device, step_bytes, 0, false, "a step"));
    TRY(opencl_buffer_new(&p->step_pinned, device, step_bytes, CL_MEM_ALLOC_HOST_PTR, false, "a step"));
    TRY(map((void **)&p->step_words, device, &p->step_pinned, CL_MAP_WRITE));
    if (head) {
        uint64_t n = p->rows_max < LOGITS_ROWS ? p->rows_max : LOGITS_ROWS;
        uint64_t bytes = n * program->vocab * sizeof(float);
        uint64_t room = LOGITS_ROWS * (uint64_t)program->vocab * sizeof(float);
        TRY(opencl_buffer_new(&p->wanted, device,
                              (uint64_t)LOGITS_ROWS * stride_of(p, head->in) * sizeof(float), 0, true,
                              "rows"));
        TRY(opencl_buffer_new(&p->logits, device, room, 0, false, "logits"));
        TRY(opencl_buffer_new(&p->logits_pinned, device, bytes, CL_MEM_ALLOC_HOST_PTR, false, "logits"));
        TRY(map((void **)&p->logits_first, device, &p->logits_pinned, CL_MAP_READ | CL_MAP_WRITE));
        p->logits_rest = mem_new((p->rows_max - n) * program->vocab, sizeof(float));
        if (!p->logits_rest)
            return cinf_fail(CINF_ENOMEM, "no memory for logits of %u rows", p->rows_max);
        TRY(allocate_picks(p));
    }
    if (attends) {
        uint64_t n = SPLIT_ROWS_MAX * (uint64_t)p->splits_max * program->heads * (p->kv->wide + 16u);
        TRY(opencl_buffer_new(&p->parts, device, n * sizeof(float), 0, false, "parts of attention"));
    }
    return device->tuning.clblast ? allocate_blas(p) : CINF_OK;
}

static enum cinf_status bind_chunks(struct opencl_prepared *p, const struct op *op)
{
    struct opencl_device *device = device_of(p);
    const cl_uint stride = stride_of(p, op->in), pieces = pieces_of(p);
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
    struct opencl_device *device = device_of(p);
    const cl_mem scales = scales_of(w);
    const cl_ulong n = (cl_ulong)w->rows * w->stride;
    TRY(opencl_kernel_new(kernel, device, device->program,
                          p->weights->type == WEIGHTS_F16 ? "widen_f16" : "widen_int8"));
    const struct opencl_argument arguments[] = { ARGUMENT(w->buffer.mem), ARGUMENT(scales),
                                                 ARGUMENT(p->panel.mem),  ARGUMENT(n),
                                                 ARGUMENT(w->stride),     { 0 } };
    return opencl_arguments(device, *kernel, arguments);
}

static enum cinf_status bind_linear(struct opencl_prepared *p, const struct op *op, cl_kernel *kernels)
{
    struct opencl_device *device = device_of(p);
    const struct opencl_kv *kv = p->kv;
    const struct opencl_weight *w = &p->weights->parts[op->weight];
    bool head = op->kind == OP_LOGITS;
    cl_mem in = head ? p->wanted.mem : p->rows[op->in].mem;
    const struct product product = {
        .w = w->buffer.mem,
        .scales = scales_of(w),
        .in = in,
        .bias = head ? in : p->weights->parts[op->bias].buffer.mem,
        .out = head ? p->logits.mem : p->rows[op->out].mem,
        .cache = op->epilogue == EPILOGUE_QKV ? kv->caches[op->layer].mem : in,
        .step = p->step.mem,
        .n = w->rows,
        .k = w->stride,
        /* The head's rows are not the step's.  It computes all that a kernel takes at once: there is room. */
        .rows = head ? (cl_uint)LOGITS_ROWS : 0,
        .rows_max = p->rows_max,
        .out_stride = head ? w->rows : stride_of(p, op->out),
        .epilogue = head ? (cl_uint)OPENCL_EPILOGUE_HEAD : op->epilogue,
        .activation = op->activation,
        .d = p->program->width,
        .head_width = kv->head_width,
        .wide = kv->wide,
        .positions = kv->positions,
        .values_at = kv->values_at,
    };
    for (int k = KERNEL_1; k <= KERNEL_FINISH; k++) {
        if (k == (device->tuning.clblast ? KERNEL_MATRIX : KERNEL_FINISH))
            continue;
        TRY(opencl_kernel_new(&kernels[k], device, device->program, product_names[p->weights->type][k]));
        if (k != KERNEL_FINISH) {
            TRY(bind_product(device, kernels[k], &product));
            continue;
        }
        cl_mem from =
            p->product.mem ? p->product.mem : in; /* none for the head alone, which needs no finish */
        const struct opencl_argument arguments[] = {
            ARGUMENT(from), ARGUMENT(product.n), EPILOGUE_ARGUMENTS(&product), { 0 }
        };
        TRY(opencl_arguments(device, kernels[k], arguments));
    }
    if (device->tuning.clblast && p->weights->type != WEIGHTS_F32)
        TRY(bind_widen(p, w, &kernels[KERNEL_WIDEN]));
    return head ? bind_chunks(p, op) : CINF_OK;
}

static enum cinf_status bind_attend(struct opencl_prepared *p, const struct op *op, cl_kernel *kernels)
{
    struct opencl_device *device = device_of(p);
    const struct opencl_kv *kv = p->kv;
    const cl_uint stride = stride_of(p, op->in);
    const cl_float scale = op->scale;
    static const char *const names[] = { "attend_single", "attend_join", "attend_tile" };
    cl_program program;
    TRY(opencl_attend_program(&program, device, kv->head_width));
    for (int k = KERNEL_SINGLE; k <= KERNEL_TILE; k++)
        TRY(opencl_kernel_new(&kernels[k], device, program, names[k]));
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
    TRY(opencl_arguments(device, kernels[KERNEL_SINGLE], single));
    TRY(opencl_arguments(device, kernels[KERNEL_JOIN], join));
    return opencl_arguments(device, kernels[KERNEL_TILE], tile);
}

static enum cinf_status bind_op(struct opencl_prepared *p, const struct op *op, cl_kernel *kernels)
{
    struct opencl_device *device = device_of(p);
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
        TRY(opencl_kernel_new(&kernels[KERNEL_ONLY], device, device->program, names[p->weights->type]));
        const cl_mem scales = scales_of(&parts[op->weight]);
        const struct opencl_argument arguments[] = { ARGUMENT(parts[op->weight].buffer.mem),
                                                     ARGUMENT(scales),
                                                     ARGUMENT(parts[op->weight2].buffer.mem),
                                                     ARGUMENT(p->rows[op->out].mem),
                                                     ARGUMENT(p->step.mem),
                                                     ARGUMENT(p->rows_max),
                                                     ARGUMENT(d),
                                                     ARGUMENT(stride),
                                                     { 0 } };
        return opencl_arguments(device, kernels[KERNEL_ONLY], arguments);
    }
    const cl_float epsilon = op->epsilon;
    TRY(opencl_kernel_new(&kernels[KERNEL_ONLY], device, device->program, "norm"));
    const struct opencl_argument arguments[] = { ARGUMENT(p->rows[op->in].mem),
                                                 ARGUMENT(p->rows[op->out].mem),
                                                 ARGUMENT(parts[op->weight].buffer.mem),
                                                 ARGUMENT(parts[op->bias].buffer.mem),
                                                 ARGUMENT(d),
                                                 ARGUMENT(stride),
                                                 ARGUMENT(epsilon),
                                                 { 0 } };
    return opencl_arguments(device, kernels[KERNEL_ONLY], arguments);
}

/* ---- A step ------------------------------------------------------------------------------- */

struct step_shape {
    uint32_t rows, wanted, singles, tiles, splits;
};

/* Writes the step's words.  Rows of one slot stand together: runs of two and more attend in tiles. */
static struct step_shape describe_step(struct opencl_prepared *p, const struct batch *b,
                                       uint32_t splits_wanted)
{
    uint32_t tile_rows = device_of(p)->tuning.tile_rows, longest = 0;
    uint32_t *arrays[STEP_ARRAYS];
    struct step_shape s = { .rows = b->n_rows, .splits = 1 };
    p->most = 0;
    for (uint32_t a = 0; a < STEP_ARRAYS; a++)
        arrays[a] = STEP_ARRAY(p->step_words, a, (size_t)p->rows_max);
    for (uint32_t r = 0; r < b->n_rows; r++) {
        arrays[STEP_TOKENS][r] = (uint32_t)b->tokens[r];
        arrays[STEP_POSITIONS][r] = b->positions[r];
        arrays[STEP_SLOTS][r] = b->slots[r];
        if (!b->wants_logits[r])
            continue;
        uint8_t best = b->wants_logits[r] - 1;
        p->most = best > p->most ? best : p->most;
        arrays[STEP_BEST][s.wanted] = p->best[s.wanted] = best;
        arrays[STEP_WANTED][s.wanted++] = r;
    }
    for (uint32_t r = 0; r < b->n_rows;) {
        uint32_t n = 1;
        while (n < tile_rows && r + n < b->n_rows && b->slots[r + n] == b->slots[r])
            n++;
        if (n == 1) {
            arrays[STEP_SINGLES][s.singles++] = r;
            longest = b->positions[r] >= longest ? b->positions[r] + 1 : longest;
        } else {
            arrays[STEP_TILES][s.tiles] = r;
            arrays[STEP_TILE_COUNTS][s.tiles++] = n;
        }
        r += n;
    }
    if (s.singles > 0 && s.singles <= SPLIT_ROWS_MAX) {
        uint32_t length = device_of(p)->tuning.split_length;
        s.splits = splits_wanted ? splits_wanted : (longest + length - 1) / length;
        s.splits = s.splits < p->splits_max ? s.splits : p->splits_max;
    }
    p->step_words[STEP_ROWS] = s.rows;
    p->step_words[STEP_MOST] = p->most;
    p->step_words[STEP_SPLITS] = s.splits;
    p->step_words[STEP_SPLIT_LENGTH] = (longest + s.splits - 1) / s.splits;
    return s;
}

static enum cinf_status run_linear(struct opencl_prepared *p, const struct op *op, cl_kernel *kernels,
                                   uint32_t rows)
{
    struct opencl_device *device = device_of(p);
    const struct opencl_weight *w = &p->weights->parts[op->weight];
    int which = kernel_for(rows);
    if (which != KERNEL_MATRIX || !device->tuning.clblast)
        return launch_product(device, kernels[which], which, rows, w->rows);
    TRY(blas_product(p, w, kernels[KERNEL_WIDEN], p->rows[op->in].mem, p->product.mem, rows));
    return opencl_launch(device, kernels[KERNEL_FINISH], (const size_t[]){ w->rows, rows, 1 },
                         (const size_t[]){ 64, 1, 1 });
}

static enum cinf_status run_attend(struct opencl_prepared *p, cl_kernel *kernels, const struct step_shape *s)
{
    struct opencl_device *device = device_of(p);
    size_t heads = p->program->heads, lanes = device->tuning.lanes;
    size_t tile_lanes = lanes == 1 ? 1 : device->tuning.tile_rows;
    if (s->singles > 0)
        TRY(opencl_launch(device, kernels[KERNEL_SINGLE],
                          (const size_t[]){ heads * lanes, s->singles, s->splits },
                          (const size_t[]){ lanes, 1, 1 }));
    if (s->singles > 0 && s->splits > 1)
        TRY(opencl_launch(device, kernels[KERNEL_JOIN], (const size_t[]){ heads, s->singles, 1 },
                          (const size_t[]){ 1, 1, 1 }));
    if (s->tiles > 0)
        TRY(opencl_launch(device, kernels[KERNEL_TILE], (const size_t[]){ heads * tile_lanes, s->tiles, 1 },
                          (const size_t[]){ tile_lanes, 1, 1 }));
    return CINF_OK;
}

static float *logits_at(const struct opencl_prepared *p, uint32_t i)
{
    return i < LOGITS_ROWS ? p->logits_first + (size_t)i * p->program->vocab
                           : p->logits_rest + (size_t)(i - LOGITS_ROWS) * p->program->vocab;
}

static enum cinf_status read_back(struct opencl_device *device, cl_mem from, size_t offset, size_t bytes,
                                  void *to)
{
    cl_int error = clEnqueueReadBuffer(device->queue, from, CL_FALSE, offset, bytes, to, 0, NULL, NULL);
    return opencl_status(device, error, "reading logits");
}

/* The logits of n rows from `first` on, but not of those that are picked from. */
static enum cinf_status read_logits(struct opencl_prepared *p, uint32_t first, uint32_t n)
{
    size_t row = p->program->vocab * sizeof(float);
    for (uint32_t i = 0, same; i < n; i += same) {
        bool all = p->best[first + i] == 0;
        for (same = 1; i + same < n && (p->best[first + i + same] == 0) == all; same++)
            ;
        if (all)
            TRY(read_back(device_of(p), p->logits.mem, i * row, same * row, logits_at(p, first + i)));
    }
    return CINF_OK;
}

static enum cinf_status run_picks(struct opencl_prepared *p, const cl_kernel *kernels, uint32_t first,
                                  uint32_t n)
{
    struct opencl_device *device = device_of(p);
    size_t lanes = device->tuning.lanes, bytes = PICK_WORDS(p->most) * sizeof(cl_uint);
    bool any = false;
    for (uint32_t i = 0; i < n; i++)
        any = any || p->best[first + i] > 0;
    if (!any)
        return CINF_OK;
    TRY(opencl_launch(device, kernels[CHUNK_PICK], (const size_t[]){ pieces_of(p) * lanes, n, 1 },
                      (const size_t[]){ lanes, 1, 1 }));
    TRY(opencl_launch(device, kernels[CHUNK_JOIN], (const size_t[]){ n * lanes, 1, 1 },
                      (const size_t[]){ lanes, 1, 1 }));
    return read_back(device, p->picks.mem, first * bytes, n * bytes, (char *)p->pick_words + first * bytes);
}

/* LOGITS_ROWS rows at a time: gathered, multiplied, picked from or read back. */
static enum cinf_status run_logits(struct opencl_prepared *p, const struct op *op, cl_kernel *kernels,
                                   uint32_t wanted)
{
    struct opencl_device *device = device_of(p);
    const struct opencl_weight *w = &p->weights->parts[op->weight];
    for (uint32_t first = 0; first < wanted; first += LOGITS_ROWS) {
        const cl_kernel *chunk = p->chunks[first / LOGITS_ROWS];
        uint32_t n = wanted - first < LOGITS_ROWS ? wanted - first : LOGITS_ROWS;
        int which = kernel_for(n);
        TRY(opencl_launch(device, chunk[CHUNK_GATHER], (const size_t[]){ stride_of(p, op->in), n, 1 },
                          (const size_t[]){ 16, 1, 1 }));
        if (which == KERNEL_MATRIX && device->tuning.clblast)
            TRY(blas_product(p, w, kernels[KERNEL_WIDEN], p->wanted.mem, p->logits.mem, n));
        else
            TRY(launch_product(device, kernels[which], which, n, w->rows));
        TRY(run_picks(p, chunk, first, n));
        TRY(read_logits(p, first, n));
    }
    return CINF_OK;
}

static enum cinf_status begin_step(struct opencl_prepared *p, const struct batch *batch, uint32_t splits,
                                   struct step_shape *shape)
{
    struct opencl_device *device = device_of(p);
    *shape = describe_step(p, batch, splits);
    cl_int error = clEnqueueWriteBuffer(device->queue, p->step.mem, CL_FALSE, 0, p->step.bytes, p->step_words,
                                        0, NULL, NULL);
    return opencl_status(device, error, "sending a step");
}

static enum cinf_status run_op(struct opencl_prepared *p, uint32_t index, const struct step_shape *s)
{
    struct opencl_device *device = device_of(p);
    const struct op *op = &p->program->ops[index];
    cl_kernel *kernels = p->kernels[index];
    size_t lanes = device->tuning.lanes;
    switch (op->kind) {
    case OP_EMBED:
        return opencl_launch(device, kernels[KERNEL_ONLY], (const size_t[]){ p->program->width, s->rows, 1 },
                             (const size_t[]){ 16, 1, 1 });
    case OP_NORM:
        return opencl_launch(device, kernels[KERNEL_ONLY], (const size_t[]){ s->rows * lanes, 1, 1 },
                             (const size_t[]){ lanes, 1, 1 });
    case OP_LINEAR:
        return run_linear(p, op, kernels, s->rows);
    case OP_ATTEND:
        return run_attend(p, kernels, s);
    case OP_LOGITS:
        p->n_logits = s->wanted;
        return run_logits(p, op, kernels, s->wanted);
    }
    return CINF_OK;
}

static enum cinf_status end_step(struct opencl_prepared *p)
{
    struct opencl_device *device = device_of(p);
    cl_int error = clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &p->done);
    error = error == CL_SUCCESS ? clFlush(device->queue) : error;
    return opencl_status(device, error, "ending a step");
}

static enum cinf_status enqueue(struct opencl_prepared *p, const struct batch *batch)
{
    struct step_shape shape;
    TRY(begin_step(p, batch, 0, &shape));
    for (uint32_t i = 0; i < p->program->n_ops; i++)
        TRY(run_op(p, i, &shape));
    return end_step(p);
}

enum cinf_status opencl_run(struct prepared *base, const struct batch *batch)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    TRY(opencl_wait(base)); /* its words and logits are about to be overwritten */
    p->n_logits = 0;
    TRY(batch_check(batch, p->program, p->rows_max, p->kv->slots));
    enum cinf_status status = enqueue(p, batch);
    p->n_logits = status == CINF_OK ? p->n_logits : 0;
    return status;
}

enum cinf_status opencl_wait(struct prepared *base)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    cl_event done = p->done;
    p->done = NULL;
    return done ? opencl_wait_event(device_of(p), done) : CINF_OK;
}

enum cinf_status opencl_logits(struct prepared *base, uint32_t i, const float **out)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    if (i >= p->n_logits)
        return cinf_fail(CINF_EINVAL, "logits %u of a step that made %u", i, p->n_logits);
    if (p->best[i] > 0)
        return cinf_fail(CINF_EINVAL, "logits %u, of which only the best were wanted", i);
    TRY(opencl_wait(base));
    *out = logits_at(p, i);
    return CINF_OK;
}

enum cinf_status opencl_allow(struct prepared *base, const uint8_t *allowed)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    struct opencl_device *device = device_of(p);
    if (!p->allowed.mem)
        return cinf_fail(CINF_EINVAL, "a program without logits picks no tokens");
    cl_int error = clEnqueueWriteBuffer(device->queue, p->allowed.mem, CL_TRUE, 0,
                                        (p->program->vocab + 7) / 8, allowed, 0, NULL, NULL);
    return opencl_status(device, error, "allowed tokens");
}

enum cinf_status opencl_picked(struct prepared *base, uint32_t i, struct picked *out)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    if (i >= p->n_logits || p->best[i] == 0)
        return cinf_fail(CINF_EINVAL, "row %u of %u has no best logits", i, p->n_logits);
    TRY(opencl_wait(base));
    const uint32_t *words = p->pick_words + (size_t)i * PICK_WORDS(p->most);
    out->log_sum = (double)f32_of_bits(words[0]) + log((double)f32_of_bits(words[1]));
    out->n = 0;
    for (words += 2; out->n < p->best[i] && words[1] != UINT32_MAX; words += 2, out->n++) {
        out->logits[out->n] = f32_of_bits(words[0]);
        out->ids[out->n] = (int32_t)words[1];
    }
    return CINF_OK;
}

/* ---- Prepared programs -------------------------------------------------------------------- */

static const uint32_t warm_sizes[] = { 1, 4, 8, 2 * LINEAR_ROWS_MAX };
enum { WARM_SIZES = sizeof warm_sizes / sizeof *warm_sizes };

/* One operation of a step of each size that has kernels of its own: many drivers compile at the first launch,
 * and that is loading, not a request's time.  It leaves entries in slot 0, which every reader overwrites
 * before. */
enum cinf_status opencl_prepare_more(struct prepared *base, bool *done)
{
    enum { MOST = 2 * LINEAR_ROWS_MAX };
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    const uint32_t n_ops = p->program->n_ops;
    uint32_t positions[MOST], slots[MOST] = { 0 };
    int32_t tokens[MOST] = { 0 };
    uint8_t wants[MOST];
    memset(wants, 1 + 2, sizeof wants);
    for (uint32_t i = 0; i < MOST; i++)
        positions[i] = i;
    uint32_t n = warm_sizes[p->n_warm / n_ops];
    n = n < p->rows_max ? n : p->rows_max;
    n = n < p->program->positions ? n : p->program->positions;
    struct step_shape shape;
    TRY(begin_step(p, &(struct batch){ n, tokens, positions, slots, wants }, 2, &shape));
    TRY(run_op(p, p->n_warm % n_ops, &shape));
    TRY(end_step(p));
    TRY(opencl_wait(base));
    p->n_logits = 0;
    if (++p->n_warm < WARM_SIZES * n_ops)
        return CINF_OK;
    *done = true;
    if (p->kv->slots > 1)
        TRY(opencl_kv_copy(&p->kv->base, 1, 0, 1));
    TRY(end_step(p));
    return opencl_wait(base);
}

static enum cinf_status build(struct opencl_prepared *p)
{
    TRY(allocate(p));
    for (uint32_t i = 0; i < p->program->n_ops; i++)
        TRY(bind_op(p, &p->program->ops[i], p->kernels[i]));
    return CINF_OK;
}

enum cinf_status opencl_prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max)
{
    struct opencl_device *device = (struct opencl_device *)weights->device;
    const struct opencl_weights *w = (struct opencl_weights *)weights;
    TRY(prepare_check(program, w->specs, w->n_specs, rows_max));
    if (!fits_cache((struct opencl_kv *)kv, program))
        return cinf_fail(CINF_EINVAL, "the program is made for a cache of another shape");
    struct opencl_prepared *p = mem_new(1, sizeof *p);
    if (p) {
        p->base = (struct prepared){ .device = weights->device, .picks = true, .log_sums = true };
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
    struct opencl_device *device = device_of(p);
    if (p->done)
        clReleaseEvent(p->done);
    if (p->step_words)
        clEnqueueUnmapMemObject(device->queue, p->step_pinned.mem, p->step_words, 0, NULL, NULL);
    if (p->logits_first)
        clEnqueueUnmapMemObject(device->queue, p->logits_pinned.mem, p->logits_first, 0, NULL, NULL);
    clFinish(device->queue); /* what is under way may still write to our memory */
    for (uint32_t i = 0; p->kernels && i < p->program->n_ops; i++) {
        for (int k = 0; k < KERNELS; k++) {
            if (p->kernels[i][k])
                clReleaseKernel(p->kernels[i][k]);
        }
    }
    if (p->pick_words)
        clEnqueueUnmapMemObject(device->queue, p->picks_pinned.mem, (void *)p->pick_words, 0, NULL, NULL);
    for (uint32_t c = 0; p->chunks && c < p->n_chunks; c++) {
        for (int k = 0; k < CHUNK_KERNELS; k++) {
            if (p->chunks[c][k])
                clReleaseKernel(p->chunks[c][k]);
        }
    }
    struct opencl_buffer *const buffers[] = { &p->wanted,        &p->logits,  &p->parts,      &p->product,
                                              &p->panel,         &p->temp,    &p->step,       &p->step_pinned,
                                              &p->logits_pinned, &p->allowed, &p->pick_parts, &p->picks,
                                              &p->picks_pinned };
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

/* ---- Speed -------------------------------------------------------------------------------- */

struct trial {
    struct opencl_buffer w, in, out, temp;
    cl_kernel one, many;
};

/* The shortest of a few tries, after one that compiles. */
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
    TRY(bind_product(device, kernel, &product));
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
            TRY(launch_product(device, kernel, kernel_for(rows), rows, n));
        cl_int error = clFinish(device->queue);
        if (error != CL_SUCCESS)
            return opencl_fail(device, error, "measuring");
        uint64_t ns = clock_monotonic_ns() - start;
        if (i == 1 || (i > 1 && ns < *best_ns))
            *best_ns = ns;
    }
    return CINF_OK;
}

/* A product of many rows, and of one row with weights that no device's cache holds. */
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
    if (trial.one)
        clReleaseKernel(trial.one);
    if (trial.many)
        clReleaseKernel(trial.many);
    struct opencl_buffer *const buffers[] = { &trial.w, &trial.in, &trial.out, &trial.temp };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        opencl_buffer_free(device, buffers[i]);
    if (device->profile)
        opencl_profile_clear(device->profile);
    return status;
}
