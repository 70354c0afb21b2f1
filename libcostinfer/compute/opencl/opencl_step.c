/* opencl_step.c - running a prepared program: one transfer in, a launch or more for each operation, and the
 * logits' way back, all enqueued before the host waits. */
#include "opencl_step.h"

#include <math.h>
#include <string.h>

#include "fail.h"
#include "half.h"
#include "opencl_blas.h"
#include "opencl_prepare.h"

/* ---- Products by CLBlast ------------------------------------------------------------------ */

/* Rows of weights that fit the panel, whose last group of work-items may write beyond them. */
static uint32_t panel_rows(const struct opencl_prepared *p, const struct opencl_weight *weight)
{
    return (uint32_t)((p->panel.bytes / sizeof(float) - WIDEN_GROUP * VECTOR) / weight->stride);
}

/* y[rows, n] = in[rows, k] * weight^T by CLBlast.  Weights that are not float32 are widened a panel of rows
 * at a time, so that there is never a second copy of the whole matrix. */
static enum cinf_status blas_product(struct opencl_prepared *p, const struct opencl_weight *weight,
                                     cl_kernel widen, cl_mem in, cl_mem y, uint32_t rows)
{
    struct opencl_device *device = prepared_device(p);
    struct opencl_gemm gemm = { .x = in,
                                .w = weight->buffer.mem,
                                .y = y,
                                .m = rows,
                                .n = weight->rows,
                                .k = weight->stride,
                                .y_stride = weight->rows };
    if (!widen)
        return opencl_blas_gemm(device, &gemm, p->temp.mem);
    const uint32_t rows_max = panel_rows(p, weight);
    const size_t vectors = weight->stride / VECTOR; /* of a row */
    gemm.w = p->panel.mem;
    for (uint32_t first = 0; first < weight->rows; first += rows_max) {
        gemm.n = weight->rows - first < rows_max ? weight->rows - first : rows_max;
        gemm.y_first = first;
        TRY(opencl_launch_from(device, widen, first * vectors, gemm.n * vectors, WIDEN_GROUP));
        TRY(opencl_blas_gemm(device, &gemm, p->temp.mem));
    }
    return CINF_OK;
}

/* ---- A step ------------------------------------------------------------------------------- */

struct step_shape {
    uint32_t rows, wanted, singles, tiles, splits;
};

/* Writes the step's words.  Rows of one slot stand together: runs of two and more attend in tiles.
 * `splits_wanted` overrides the number of pieces of a single row's past; 0: as its length asks for. */
static struct step_shape describe_step(struct opencl_prepared *p, const struct batch *b,
                                       uint32_t splits_wanted)
{
    uint32_t tile_rows = prepared_device(p)->tuning.tile_rows, longest = 0;
    uint32_t *arrays[STEP_ARRAYS];
    struct step_shape s = { .rows = b->n_rows, .splits = 1 };
    p->best_max = 0;
    for (uint32_t a = 0; a < STEP_ARRAYS; a++)
        arrays[a] = STEP_ARRAY(p->step_words, a, (size_t)p->rows_max);
    for (uint32_t r = 0; r < b->n_rows; r++) {
        arrays[STEP_TOKENS][r] = (uint32_t)b->tokens[r];
        arrays[STEP_POSITIONS][r] = b->positions[r];
        arrays[STEP_SLOTS][r] = b->slots[r];
        if (!b->wants_logits[r])
            continue;
        uint8_t best = b->wants_logits[r] - 1;
        p->best_max = best > p->best_max ? best : p->best_max;
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
        uint32_t length = prepared_device(p)->tuning.split_length;
        s.splits = splits_wanted ? splits_wanted : (longest + length - 1) / length;
        s.splits = s.splits < p->splits_max ? s.splits : p->splits_max;
    }
    p->step_words[STEP_ROWS] = s.rows;
    p->step_words[STEP_MOST] = p->best_max;
    p->step_words[STEP_SPLITS] = s.splits;
    p->step_words[STEP_SPLIT_LENGTH] = (longest + s.splits - 1) / s.splits;
    return s;
}

static enum cinf_status run_linear(struct opencl_prepared *p, const struct op *op,
                                   const struct op_kernels *kernels, uint32_t rows)
{
    struct opencl_device *device = prepared_device(p);
    const struct opencl_weight *w = &p->weights->parts[op->weight];
    enum product_kernel which = product_kernel_for(rows);
    if (which != PRODUCT_MATRIX || !device->tuning.clblast)
        return product_launch(device, kernels->product[which], which, rows, w->rows);
    TRY(blas_product(p, w, kernels->product[PRODUCT_WIDEN], p->rows[op->in].mem, p->product.mem, rows));
    return opencl_launch(device, kernels->product[PRODUCT_FINISH], (const size_t[]){ w->rows, rows, 1 },
                         (const size_t[]){ 64, 1, 1 });
}

static enum cinf_status run_attend(struct opencl_prepared *p, const struct op_kernels *kernels,
                                   const struct step_shape *s)
{
    struct opencl_device *device = prepared_device(p);
    size_t heads = p->program->heads, lanes = device->tuning.lanes;
    size_t tile_lanes = lanes == 1 ? 1 : device->tuning.tile_rows;
    if (s->singles > 0)
        TRY(opencl_launch(device, kernels->attend[ATTEND_SINGLE],
                          (const size_t[]){ heads * lanes, s->singles, s->splits },
                          (const size_t[]){ lanes, 1, 1 }));
    if (s->singles > 0 && s->splits > 1)
        TRY(opencl_launch(device, kernels->attend[ATTEND_JOIN], (const size_t[]){ heads, s->singles, 1 },
                          (const size_t[]){ 1, 1, 1 }));
    if (s->tiles > 0)
        TRY(opencl_launch(device, kernels->attend[ATTEND_TILE],
                          (const size_t[]){ heads * tile_lanes, s->tiles, 1 },
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

/* Reads back the logits of n rows from `first` on, but not of rows that the device picks from. */
static enum cinf_status read_logits(struct opencl_prepared *p, uint32_t first, uint32_t n)
{
    size_t row = p->program->vocab * sizeof(float);
    for (uint32_t i = 0, same; i < n; i += same) {
        bool all = p->best[first + i] == 0;
        for (same = 1; i + same < n && (p->best[first + i + same] == 0) == all; same++)
            ;
        if (all)
            TRY(read_back(prepared_device(p), p->logits.mem, i * row, same * row, logits_at(p, first + i)));
    }
    return CINF_OK;
}

static enum cinf_status run_picks(struct opencl_prepared *p, const cl_kernel *kernels, uint32_t first,
                                  uint32_t n)
{
    struct opencl_device *device = prepared_device(p);
    size_t lanes = device->tuning.lanes, bytes = PICK_WORDS(p->best_max) * sizeof(cl_uint);
    bool any = false;
    for (uint32_t i = 0; i < n; i++)
        any = any || p->best[first + i] > 0;
    if (!any)
        return CINF_OK;
    TRY(opencl_launch(device, kernels[CHUNK_PICK], (const size_t[]){ prepared_pieces(p) * lanes, n, 1 },
                      (const size_t[]){ lanes, 1, 1 }));
    TRY(opencl_launch(device, kernels[CHUNK_JOIN], (const size_t[]){ n * lanes, 1, 1 },
                      (const size_t[]){ lanes, 1, 1 }));
    return read_back(device, p->picks.mem, first * bytes, n * bytes, (char *)p->pick_words + first * bytes);
}

/* Makes logits in chunks of LOGITS_ROWS rows: gather, multiply, pick from or read back. */
static enum cinf_status run_logits(struct opencl_prepared *p, const struct op *op,
                                   const struct op_kernels *kernels, uint32_t wanted)
{
    struct opencl_device *device = prepared_device(p);
    const struct opencl_weight *w = &p->weights->parts[op->weight];
    for (uint32_t first = 0; first < wanted; first += LOGITS_ROWS) {
        const cl_kernel *chunk = p->chunks[first / LOGITS_ROWS];
        uint32_t n = wanted - first < LOGITS_ROWS ? wanted - first : LOGITS_ROWS;
        enum product_kernel which = product_kernel_for(n);
        TRY(opencl_launch(device, chunk[CHUNK_GATHER], (const size_t[]){ prepared_stride(p, op->in), n, 1 },
                          (const size_t[]){ 16, 1, 1 }));
        if (which == PRODUCT_MATRIX && device->tuning.clblast)
            TRY(blas_product(p, w, kernels->product[PRODUCT_WIDEN], p->wanted.mem, p->logits.mem, n));
        else
            TRY(product_launch(device, kernels->product[which], which, n, w->rows));
        TRY(run_picks(p, chunk, first, n));
        TRY(read_logits(p, first, n));
    }
    return CINF_OK;
}

static enum cinf_status begin_step(struct opencl_prepared *p, const struct batch *batch, uint32_t splits,
                                   struct step_shape *shape)
{
    struct opencl_device *device = prepared_device(p);
    *shape = describe_step(p, batch, splits);
    cl_int error = clEnqueueWriteBuffer(device->queue, p->step.mem, CL_FALSE, 0, p->step.bytes, p->step_words,
                                        0, NULL, NULL);
    return opencl_status(device, error, "sending a step");
}

static enum cinf_status run_op(struct opencl_prepared *p, uint32_t index, const struct step_shape *s)
{
    struct opencl_device *device = prepared_device(p);
    const struct op *op = &p->program->ops[index];
    const struct op_kernels *kernels = &p->kernels[index];
    size_t lanes = device->tuning.lanes;
    switch (op->kind) {
    case OP_EMBED:
        return opencl_launch(device, kernels->simple, (const size_t[]){ p->program->width, s->rows, 1 },
                             (const size_t[]){ 16, 1, 1 });
    case OP_NORM:
        return opencl_launch(device, kernels->simple, (const size_t[]){ s->rows * lanes, 1, 1 },
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
    struct opencl_device *device = prepared_device(p);
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
    TRY(opencl_wait(base)); /* the step under way still needs its words and logits */
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
    return done ? opencl_wait_event(prepared_device(p), done) : CINF_OK;
}

enum cinf_status opencl_logits(struct prepared *base, uint32_t i, const float **out)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    if (i >= p->n_logits)
        return cinf_fail(CINF_EINVAL, "logits %u of a step that made %u", i, p->n_logits);
    if (p->best[i] > 0)
        return cinf_fail(CINF_EINVAL, "logits %u: the step asked only for the best of them", i);
    TRY(opencl_wait(base));
    *out = logits_at(p, i);
    return CINF_OK;
}

enum cinf_status opencl_allow(struct prepared *base, const uint8_t *allowed)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    struct opencl_device *device = prepared_device(p);
    if (!p->allowed.mem)
        return cinf_fail(CINF_EINVAL, "a program without logits picks no tokens");
    cl_int error = clEnqueueWriteBuffer(device->queue, p->allowed.mem, CL_TRUE, 0,
                                        (p->program->vocab + 7) / 8, allowed, 0, NULL, NULL);
    return opencl_status(device, error, "allowed tokens");
}

enum cinf_status opencl_top_k(struct prepared *base, uint32_t i, struct top_k *out)
{
    struct opencl_prepared *p = (struct opencl_prepared *)base;
    if (i >= p->n_logits || p->best[i] == 0)
        return cinf_fail(CINF_EINVAL, "row %u of %u has no best logits", i, p->n_logits);
    TRY(opencl_wait(base));
    const uint32_t *words = p->pick_words + (size_t)i * PICK_WORDS(p->best_max);
    out->log_sum = (double)f32_of_bits(words[0]) + log((double)f32_of_bits(words[1]));
    out->n = 0;
    for (words += 2; out->n < p->best[i] && words[1] != UINT32_MAX; words += 2, out->n++) {
        out->logits[out->n] = f32_of_bits(words[0]);
        out->ids[out->n] = (int32_t)words[1];
    }
    return CINF_OK;
}

/* ---- Warming up --------------------------------------------------------------------------- */

static const uint32_t warm_sizes[] = { 1, 4, 8, 2 * LINEAR_ROWS_MAX };
enum { WARM_SIZES = sizeof warm_sizes / sizeof *warm_sizes };

/* Runs one operation of a step of one size; every size that has kernels of its own gets its turn.  Many
 * drivers compile at the first launch, and that is loading, not a request's time.  The entries left in slot 0
 * do no harm: a request writes a position before it reads it. */
static enum cinf_status warm_up(struct prepared *base, bool *done)
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

enum cinf_status opencl_prepare_more(struct prepared *prepared, bool *done)
{
    struct opencl_profile *profile = ((struct opencl_device *)prepared->device)->profile;
    opencl_profile_pause(profile, true);
    enum cinf_status status = warm_up(prepared, done);
    opencl_profile_pause(profile, false);
    return status;
}
