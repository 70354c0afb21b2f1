/* cpu_blas.c - the portable CPU path: every product by OpenBLAS, the rest in loops a compiler vectorises.
 *
 * OpenBLAS belongs to the process, so its threads and settings are taken as they are found.  It packs a
 * matrix anew on every call, so steps of few rows go through sgemv(), which streams the weights. */
#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "cpu_math.h"
#include "cpu_measure.h"
#include "cpu_plain.h"
#include "fail.h"

/* Rows of one slot whose attention is computed together: their scores are an [ATTEND_ROWS, positions]
 * matrix. */
enum { ATTEND_ROWS = 64 };

/* What cpu_prepared.scratch begins with. */
struct scratch {
    float *qkv;    /* [rows_max, 3D] */
    float *scores; /* [ATTEND_ROWS, P] */
};

/* Sums are kept in LANES parts: this lets a compiler use vectors without being told that additions may be
 * reordered, and it is more accurate than one long chain. */
enum { LANES = 16 };

static float sum_of(const float lanes[LANES])
{
    float sum = 0;
    for (size_t j = 0; j < LANES; j++)
        sum += lanes[j];
    return sum;
}

static float dot(const float *a, const float *b, size_t n)
{
    float sum[LANES] = { 0 };
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            sum[j] += a[i + j] * b[i + j];
    }
    for (size_t i = whole; i < n; i++)
        sum[i - whole] += a[i] * b[i];
    return sum_of(sum);
}

/* out[D] = (in - mean) / sqrt(variance + epsilon) * gain + bias, which may be NULL */
static void norm_row(float *out, const float *in, const float *gain, const float *bias, size_t d,
                     float epsilon)
{
    float sum[LANES] = { 0 }, squares[LANES] = { 0 };
    size_t whole = d / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            sum[j] += in[i + j];
    }
    for (size_t i = whole; i < d; i++)
        sum[i - whole] += in[i];
    float mean = sum_of(sum) / (float)d;
    for (size_t i = 0; i < whole; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            squares[j] += (in[i + j] - mean) * (in[i + j] - mean);
    }
    for (size_t i = whole; i < d; i++)
        squares[i - whole] += (in[i] - mean) * (in[i] - mean);
    float scale = 1 / sqrtf(sum_of(squares) / (float)d + epsilon);
    if (bias) {
        for (size_t i = 0; i < d; i++)
            out[i] = (in[i] - mean) * scale * gain[i] + bias[i];
    } else {
        for (size_t i = 0; i < d; i++)
            out[i] = (in[i] - mean) * scale * gain[i];
    }
}

static void norm(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    size_t d = p->program->width;
    for (uint32_t r = 0; r < batch->n_rows; r++)
        norm_row(p->rows[op->out] + r * d, p->rows[op->in] + r * d, cpu_weight(p, op->weight),
                 cpu_weight(p, op->bias), d, op->epsilon);
}

/* y[n] = activation(y[n])
 *
 * tanh(u) = 2s(2u) - 1 with s(u) = 1 / (1 + exp(-u)), so gelu_new, 0.5y(1 + tanh(u)), is y * s(2u), which
 * avoids the cancellation in 1 + tanh(u) for negative u. */
static void activate(enum cinf_activation activation, float *y, size_t n)
{
    switch (activation) {
    case CINF_ACTIVATION_GELU_NEW:
        for (size_t i = 0; i < n; i++) {
            float u = 1.5957691216057308f * (y[i] + 0.044715f * y[i] * y[i] * y[i]); /* 2 sqrt(2/pi) */
            y[i] = y[i] / (1 + exp_near(-u));
        }
        break;
    case CINF_ACTIVATION_GELU:
        for (size_t i = 0; i < n; i++)
            y[i] = 0.5f * y[i] * erfcf(y[i] * -0.70710678118654752f); /* 1/sqrt(2) */
        break;
    case CINF_ACTIVATION_RELU:
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] < 0 ? 0 : y[i];
        break;
    case CINF_ACTIVATION_SILU:
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] / (1 + exp_near(-y[i]));
        break;
    case CINF_ACTIVATION_TANH:
        for (size_t i = 0; i < n; i++)
            y[i] = tanhf(y[i]);
        break;
    case CINF_ACTIVATION_GELU_10:
        activate(CINF_ACTIVATION_GELU, y, n);
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] < -10 ? -10 : y[i] > 10 ? 10 : y[i];
        break;
    case CINF_ACTIVATION_QUICK_GELU:
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] / (1 + exp_near(-1.702f * y[i]));
        break;
    case CINF_ACTIVATION_MISH: /* tanh(log(1 + exp(y))) with e = exp(-|y|), which cannot overflow */
        for (size_t i = 0; i < n; i++) {
            float e = exp_near(-fabsf(y[i])), above = y[i] < 0 ? e * (e + 2) : 1 + 2 * e;
            y[i] = y[i] * above / (above + (y[i] < 0 ? 2 : 2 * e * e));
        }
        break;
    case CINF_ACTIVATION_RELU2:
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] < 0 ? 0 : y[i] * y[i];
        break;
    case CINF_ACTIVATION_RELU6:
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] < 0 ? 0 : y[i] > 6 ? 6 : y[i];
        break;
    case CINF_ACTIVATION_SIGMOID:
        for (size_t i = 0; i < n; i++)
            y[i] = 1 / (1 + exp_near(-y[i]));
        break;
    case CINF_ACTIVATION_LEAKY_RELU:
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] < 0 ? 0.01f * y[i] : y[i];
        break;
    case CINF_ACTIVATION_LINEAR:
        break;
    case CINF_ACTIVATION_LAPLACE: /* 0.707107 and 0.282095 sqrt(2), as in the normal distribution */
        for (size_t i = 0; i < n; i++)
            y[i] = 0.5f * erfcf((y[i] - 0.707107f) * (-1 / 0.39894257f));
        break;
    }
}

/* Up to VECTOR_ROWS rows go through sgemv() one by one, over blocks of weights small enough to stay in a
 * cache from the first row to the last.  sgemm() packs all weights before it multiplies: with 2 rows it takes
 * twice as long as this, and with 8 rows about as long. */
enum { VECTOR_ROWS = 8, VECTOR_BLOCK_BYTES = 2 << 20 };

static int rows_of_block(int rows, int cols, int n_rows)
{
    assert(cols > 0);
    int block = VECTOR_BLOCK_BYTES / (int)sizeof(float) / cols;
    return n_rows == 1 || block > rows ? rows : block < 1 ? 1 : block;
}

/* y[R,cols] += in[R,rows] * w[rows,cols] */
static void add_product(float *y, const float *in, const float *w, int n_rows, int rows, int cols)
{
    if (n_rows > VECTOR_ROWS) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n_rows, cols, rows, 1, in, rows, w, cols, 1, y,
                    cols);
        return;
    }
    int block = rows_of_block(rows, cols, n_rows);
    for (int i = 0; i < rows; i += block) {
        int n = rows - i < block ? rows - i : block;
        for (ptrdiff_t r = 0; r < n_rows; r++)
            cblas_sgemv(CblasRowMajor, CblasTrans, n, cols, 1, w + (ptrdiff_t)i * cols, cols,
                        in + r * rows + i, 1, 1, y + r * cols, 1);
    }
}

/* y[R,rows] = in[R,cols] * w[rows,cols]^T */
static void transposed_product(float *y, const float *in, const float *w, int n_rows, int rows, int cols)
{
    if (n_rows > VECTOR_ROWS) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n_rows, rows, cols, 1, in, cols, w, cols, 0, y,
                    rows);
        return;
    }
    int block = rows_of_block(rows, cols, n_rows);
    for (int i = 0; i < rows; i += block) {
        int n = rows - i < block ? rows - i : block;
        for (ptrdiff_t r = 0; r < n_rows; r++)
            cblas_sgemv(CblasRowMajor, CblasNoTrans, n, cols, 1, w + (ptrdiff_t)i * cols, cols, in + r * cols,
                        1, 0, y + r * rows + i, 1);
    }
}

static void copy_heads(const struct cpu_prepared *p, uint32_t layer, uint32_t slot, uint32_t position,
                       const float *key, const float *value)
{
    size_t d_head = p->kv->head_width;
    for (uint32_t h = 0; h < p->kv->heads; h++) {
        memcpy(cpu_keys(p->kv, slot, layer, h) + position * d_head, key + h * d_head, d_head * sizeof *key);
        memcpy(cpu_values(p->kv, slot, layer, h) + position * d_head, value + h * d_head,
               d_head * sizeof *value);
    }
}

/* y[R,cols] = in[R,rows] * w[rows,cols] + bias[cols], and then the epilogue.  BLAS adds the product to y,
 * which holds the bias already: this saves one pass over y. */
static void linear(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    const struct weight_spec *spec = &p->weights->specs[op->weight];
    const struct scratch *scratch = p->scratch;
    const float *bias = cpu_weight(p, op->bias);
    size_t cols = spec->cols;
    float *y = op->epilogue == EPILOGUE_QKV ? scratch->qkv : p->rows[op->out];
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        float *row = y + r * cols;
        if (op->epilogue == EPILOGUE_ADD && bias) {
            for (size_t c = 0; c < cols; c++)
                row[c] += bias[c];
        } else if (bias) {
            memcpy(row, bias, cols * sizeof *row);
        } else if (op->epilogue != EPILOGUE_ADD) {
            memset(row, 0, cols * sizeof *row);
        }
    }
    add_product(y, p->rows[op->in], cpu_weight(p, op->weight), (int)batch->n_rows, (int)spec->rows,
                (int)cols);
    if (op->epilogue == EPILOGUE_ACTIVATION)
        activate(op->activation, y, batch->n_rows * cols);
    if (op->epilogue == EPILOGUE_QKV) {
        for (uint32_t r = 0; r < batch->n_rows; r++) {
            const float *query = y + r * cols, *key = query + op->q_cols, *value = key + op->k_cols;
            memcpy(p->rows[op->out] + r * row_width(p->program, op->out), query, op->q_cols * sizeof *query);
            copy_heads(p, op->layer, batch->slots[r], batch->positions[r], key, value);
        }
    }
}

/* Softmax in place over x[n].
 *
 * exp() overflows above 88, and scores may be larger.  Dividing all terms by exp(max) changes nothing in
 * their ratios, makes the largest one 1 and the sum at least 1. */
static void softmax(float *x, size_t n)
{
    float max[LANES], sum[LANES] = { 0 };
    size_t whole = n / LANES * LANES;
    for (size_t j = 0; j < LANES; j++)
        max[j] = x[0];
    for (size_t i = 0; i < whole; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            max[j] = x[i + j] > max[j] ? x[i + j] : max[j];
    }
    for (size_t i = whole; i < n; i++)
        max[0] = x[i] > max[0] ? x[i] : max[0];
    for (size_t j = 1; j < LANES; j++)
        max[0] = max[j] > max[0] ? max[j] : max[0];
    float top = max[0];
    for (size_t i = 0; i < whole; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            x[i + j] = exp_near(x[i + j] - top);
            sum[j] += x[i + j];
        }
    }
    for (size_t i = whole; i < n; i++) {
        x[i] = exp_near(x[i] - top);
        sum[i - whole] += x[i];
    }
    float scale = 1 / sum_of(sum);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

/* out[D/H] = softmax(scale * q[D/H] * keys[n,D/H]^T) * values[n,D/H]
 *
 * sgemv() is not used: a head's past is so little work that waking OpenBLAS's threads for each of 2H products
 * a layer costs more than the products (124M, depth 512, 2 cores: 2 to 7 ms a token; these loops 1.2 ms). */
static void attend_one(float *out, const float *q, const float *keys, const float *values, size_t n,
                       size_t d_head, float scale, float *scores)
{
    for (size_t t = 0; t < n; t++)
        scores[t] = scale * dot(q, keys + t * d_head, d_head);
    softmax(scores, n);
    memset(out, 0, d_head * sizeof *out);
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < d_head; i++)
            out[i] += scores[t] * values[t * d_head + i];
    }
}

/* The same for m rows at positions first, first + 1, …; rows of q and out are D apart.  The scores of
 * positions that a row must not see are computed and thrown away: at most a triangle of ATTEND_ROWS. */
static void attend_block(float *out, const float *q, const float *keys, const float *values, int m, int first,
                         int d, int d_head, float scale, float *scores)
{
    int n = first + m;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, d_head, scale, q, d, keys, d_head, 0, scores,
                n);
    for (int i = 0; i < m; i++) {
        float *row = scores + (size_t)i * (size_t)n;
        int seen = first + i + 1;
        softmax(row, (size_t)seen);
        memset(row + seen, 0, (size_t)(n - seen) * sizeof *row);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, d_head, n, 1, scores, n, values, d_head, 0, out,
                d);
}

static void attend(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    const struct scratch *scratch = p->scratch;
    size_t d = p->program->width, d_head = p->kv->head_width;
    uint32_t m;
    for (uint32_t r = 0; r < batch->n_rows; r += m) {
        uint32_t slot = batch->slots[r], first = batch->positions[r];
        for (m = 1; m < ATTEND_ROWS && r + m < batch->n_rows && batch->slots[r + m] == slot; m++)
            ;
        for (uint32_t h = 0; h < p->kv->heads; h++) {
            const float *q = p->rows[op->in] + r * d + h * d_head;
            float *out = p->rows[op->out] + r * d + h * d_head;
            const float *keys = cpu_keys(p->kv, slot, op->layer, h);
            const float *values = cpu_values(p->kv, slot, op->layer, h);
            if (m == 1)
                attend_one(out, q, keys, values, first + 1, d_head, op->scale, scratch->scores);
            else
                attend_block(out, q, keys, values, (int)m, (int)first, (int)d, (int)d_head, op->scale,
                             scratch->scores);
        }
    }
}

/* logits[wanted rows, V] = in[wanted rows, D] * w[V,D]^T */
static void logits(struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    const float *w = cpu_weight(p, op->weight);
    size_t width = row_width(p->program, op->in);
    float *in = p->rows[op->in];
    /* The wanted rows move to the front; no operation reads the buffer after this one. */
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        if (batch->wants_logits[r] != LOGITS_NONE)
            memmove(in + p->n_logits++ * width, in + r * width, width * sizeof *in);
    }
    transposed_product(p->logits, in, w, (int)p->n_logits, (int)p->program->vocab, (int)width);
}

static enum cinf_status run(struct prepared *prepared, const struct batch *batch)
{
    static const struct cpu_ops ops = { norm, linear, attend, logits };
    return cpu_run(prepared, batch, &ops);
}

static enum cinf_status prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max)
{
    size_t n_qkv = (size_t)rows_max * 3 * program->width, n_scores = (size_t)ATTEND_ROWS * program->positions;
    struct prepared *base;
    TRY(cpu_prepared_new(&base, weights, kv, program, rows_max,
                         sizeof(struct scratch) + (n_qkv + n_scores) * sizeof(float)));
    struct scratch *scratch = ((struct cpu_prepared *)base)->scratch;
    scratch->qkv = (float *)(scratch + 1);
    scratch->scores = scratch->qkv + n_qkv;
    *out = base;
    return CINF_OK;
}

static enum cinf_status open_device(struct device **out, const struct device_options *options)
{
    (void)options; /* OpenBLAS has its own threads */
    char library[64], version[16] = "";
    sscanf(openblas_get_config(), "OpenBLAS %15s", version);
    snprintf(library, sizeof library, "OpenBLAS %s for %.20s", version, openblas_get_corename());
    return cpu_device_open(out, &backend_cpu_blas, library, (uint32_t)openblas_get_num_threads());
}

enum { MEASURE_ROWS = 256, MEASURE_WIDTH = 768, MEASURE_SAMPLES = 7 };

struct measure_task {
    float *matrix; /* [n_lines, MEASURE_WIDTH] */
    float *y;      /* [n_lines] */
    size_t n_lines;
};

/* [rows, width] * [width, width], all three within the matrix */
static void measure_product(const void *argument)
{
    const struct measure_task *task = argument;
    float *b = task->matrix + MEASURE_ROWS * MEASURE_WIDTH, *c = b + MEASURE_WIDTH * MEASURE_WIDTH;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, MEASURE_ROWS, MEASURE_WIDTH, MEASURE_WIDTH, 1,
                task->matrix, MEASURE_WIDTH, b, MEASURE_WIDTH, 0, c, MEASURE_WIDTH);
}

/* y[n_lines] = matrix * [width] */
static void measure_read(const void *argument)
{
    const struct measure_task *task = argument;
    cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)task->n_lines, MEASURE_WIDTH, 1, task->matrix,
                MEASURE_WIDTH, task->matrix + MEASURE_ROWS * MEASURE_WIDTH, 1, 0, task->y, 1);
}

/* A matrix product of a prefill's shape, and the matrix-vector product of decoding over more memory than
 * the last cache holds. */
static enum cinf_status measure(struct device *base, struct device_speed *out)
{
    struct cpu_device *device = (struct cpu_device *)base;
    const uint64_t start = clock_monotonic_ns();
    const size_t n_lines = cpu_measured_bytes() / (MEASURE_WIDTH * sizeof(float));
    const struct measure_task task = {
        .matrix = cpu_new(device, n_lines * MEASURE_WIDTH, sizeof(float)),
        .y = cpu_new(device, n_lines, sizeof(float)),
        .n_lines = n_lines,
    };
    const size_t read_bytes = n_lines * MEASURE_WIDTH * sizeof(float);
    const bool complete = task.matrix && task.y;
    assert(read_bytes > 0);
    if (complete) {
        /* Untouched pages are all the same page of zeros, which would be read from the cache. */
        for (size_t i = 0; i < n_lines * MEASURE_WIDTH; i += 4096 / sizeof(float))
            task.matrix[i] = 1;
        uint64_t product_ns = cpu_time_of(measure_product, &task, MEASURE_SAMPLES, start + 100000000);
        uint64_t read_ns = cpu_time_of(measure_read, &task, MEASURE_SAMPLES, start + 160000000);
        out->as_per_flop = attoseconds_each(product_ns, 2ull * MEASURE_ROWS * MEASURE_WIDTH * MEASURE_WIDTH);
        out->as_per_byte = attoseconds_each(read_ns, read_bytes);
    }
    cpu_free(device, task.matrix);
    cpu_free(device, task.y);
    return complete ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory to measure device %s", base->backend->name);
}

const struct backend backend_cpu_blas = {
    .name = "cpu-blas",
    .open = open_device,
    .close = cpu_device_close,
    .info = cpu_device_info,
    .measure = measure,
    .weights_new = cpu_weights_new,
    .weights_free = cpu_weights_free,
    .weights_write = cpu_weights_write,
    .weights_finish = cpu_weights_finish,
    .weights_bytes = cpu_weights_bytes,
    .kv_new = cpu_kv_new,
    .kv_free = cpu_kv_free,
    .kv_slot_bytes = cpu_kv_slot_bytes,
    .kv_copy = cpu_kv_copy,
    .prepare = prepare,
    .prepared_free = cpu_prepared_free,
    .run = run,
    .wait = cpu_wait,
    .logits = cpu_logits,
};
