/* cpu_reference.c - GPT-2's operations in plain C, one after the other, as they are defined.
 *
 * Written to be read, and to be believed when a faster backend disagrees: no library, no threads, no
 * blocking. Numbers are stored as float32, as everywhere, but every sum is a double, so that what differs
 * between this file and another backend is the other's rounding. */
#include <math.h>

#include "clock.h"
#include "cpu_measure.h"
#include "cpu_plain.h"
#include "fail.h"

/* out[R,D] = (in - mean) / sqrt(variance + epsilon) * gain + bias, mean and variance of each row */
static void norm(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    size_t d = p->program->width;
    const float *gain = cpu_weight(p, op->weight), *bias = cpu_weight(p, op->bias);
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        const float *in = p->rows[op->in] + r * d;
        float *out = p->rows[op->out] + r * d;
        double mean = 0, variance = 0;
        for (size_t i = 0; i < d; i++)
            mean += in[i];
        mean /= (double)d;
        for (size_t i = 0; i < d; i++)
            variance += (in[i] - mean) * (in[i] - mean);
        variance /= (double)d;
        double scale = 1 / sqrt(variance + (double)op->epsilon);
        for (size_t i = 0; i < d; i++)
            out[i] = (float)((in[i] - mean) * scale * gain[i] + (bias ? bias[i] : 0));
    }
}

static double activate(enum cinf_activation activation, double x)
{
    switch (activation) {
    case CINF_ACTIVATION_GELU_NEW:
        return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x))); /* sqrt(2/pi) */
    case CINF_ACTIVATION_GELU:
        return 0.5 * x * (1 + erf(x * 0.70710678118654752)); /* 1/sqrt(2) */
    case CINF_ACTIVATION_RELU:
        return x < 0 ? 0 : x;
    case CINF_ACTIVATION_SILU:
        return x / (1 + exp(-x));
    case CINF_ACTIVATION_TANH:
        return tanh(x);
    case CINF_ACTIVATION_GELU_10:
        return fmin(10, fmax(-10, activate(CINF_ACTIVATION_GELU, x)));
    case CINF_ACTIVATION_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case CINF_ACTIVATION_MISH:
        return x * tanh(x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)));
    case CINF_ACTIVATION_RELU2:
        return x < 0 ? 0 : x * x;
    case CINF_ACTIVATION_RELU6:
        return x < 0 ? 0 : x > 6 ? 6 : x;
    case CINF_ACTIVATION_SIGMOID:
        return 1 / (1 + exp(-x));
    case CINF_ACTIVATION_LEAKY_RELU:
        return x < 0 ? 0.01 * x : x;
    case CINF_ACTIVATION_LINEAR:
        return x;
    case CINF_ACTIVATION_LAPLACE:
        return 0.5 * (1 + erf((x - 0.707107) / (0.282095 * 1.4142135623730951))); /* sqrt(2) */
    }
    return x;
}

/* y[R,cols] = in[R,rows] * w[rows,cols] + bias[cols], and then the epilogue */
static void linear(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    const struct weight_spec *spec = &p->weights->specs[op->weight];
    const float *w = cpu_weight(p, op->weight), *bias = cpu_weight(p, op->bias);
    size_t rows = spec->rows, cols = spec->cols, d_head = p->kv->head_width;
    double *y = p->scratch; /* [cols] */
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        const float *in = p->rows[op->in] + r * rows;
        for (size_t c = 0; c < cols; c++)
            y[c] = bias ? bias[c] : 0;
        for (size_t i = 0; i < rows; i++) {
            for (size_t c = 0; c < cols; c++)
                y[c] += (double)in[i] * w[i * cols + c];
        }
        float *out = p->rows[op->out] + r * row_width(p->program, op->out);
        switch (op->epilogue) {
        case EPILOGUE_NONE:
            for (size_t c = 0; c < cols; c++)
                out[c] = (float)y[c];
            break;
        case EPILOGUE_ACTIVATION:
            for (size_t c = 0; c < cols; c++)
                out[c] = (float)activate(op->activation, y[c]);
            break;
        case EPILOGUE_ADD:
            for (size_t c = 0; c < cols; c++)
                out[c] = (float)(out[c] + y[c]);
            break;
        case EPILOGUE_QKV:
            /* y is query[q_cols], key[k_cols], value[v_cols]; column c of each belongs to head c / (D/H). */
            for (size_t c = 0; c < op->q_cols; c++)
                out[c] = (float)y[c];
            for (size_t c = 0; c < op->k_cols; c++) {
                float *keys = cpu_keys(p->kv, batch->slots[r], op->layer, (uint32_t)(c / d_head));
                keys[batch->positions[r] * d_head + c % d_head] = (float)y[op->q_cols + c];
            }
            for (size_t c = 0; c < op->v_cols; c++) {
                float *values = cpu_values(p->kv, batch->slots[r], op->layer, (uint32_t)(c / d_head));
                values[batch->positions[r] * d_head + c % d_head] = (float)y[op->q_cols + op->k_cols + c];
            }
            break;
        }
    }
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* out[D/H] = sum over t of softmax(scale * q . keys[t]) * values[t], t = 0 … n-1
 *
 * exp() overflows above 709, and scores may be larger.  Dividing all terms by exp(max) changes nothing in
 * their ratios and makes the largest one 1. */
static void attend_head(float *out, const float *q, const float *keys, const float *values, size_t n,
                        size_t d_head, double scale, double *scores)
{
    double max = -INFINITY, sum = 0;
    for (size_t t = 0; t < n; t++) {
        scores[t] = scale * dot(q, keys + t * d_head, d_head);
        max = fmax(max, scores[t]);
    }
    for (size_t t = 0; t < n; t++) {
        scores[t] = exp(scores[t] - max);
        sum += scores[t];
    }
    for (size_t i = 0; i < d_head; i++) {
        double y = 0;
        for (size_t t = 0; t < n; t++)
            y += scores[t] * values[t * d_head + i];
        out[i] = (float)(y / sum);
    }
}

/* Each row looks at its own slot's positions, from 0 to its own: causal attention, head by head. */
static void attend(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    size_t d = p->program->width, d_head = p->kv->head_width;
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        uint32_t slot = batch->slots[r];
        for (uint32_t h = 0; h < p->kv->heads; h++) {
            attend_head(p->rows[op->out] + r * d + h * d_head, p->rows[op->in] + r * d + h * d_head,
                        cpu_keys(p->kv, slot, op->layer, h), cpu_values(p->kv, slot, op->layer, h),
                        batch->positions[r] + 1, d_head, (double)op->scale, p->scratch);
        }
    }
}

/* logits[wanted rows, V] = in[wanted rows, D] * w[V,D]^T: how well a row fits each token */
static void logits(struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    const float *w = cpu_weight(p, op->weight);
    size_t width = row_width(p->program, op->in), vocab = p->program->vocab;
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        if (batch->wants_logits[r] == LOGITS_NONE)
            continue;
        for (size_t v = 0; v < vocab; v++)
            p->logits[p->n_logits * vocab + v] =
                (float)dot(p->rows[op->in] + r * width, w + v * width, width);
        p->n_logits++;
    }
}

static enum cinf_status run(struct prepared *prepared, const struct batch *batch)
{
    static const struct cpu_ops ops = { norm, linear, attend, logits };
    return cpu_run(prepared, batch, &ops);
}

static enum cinf_status prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max)
{
    /* One row of sums (3D or I of them), or one row of scores. */
    uint64_t n = 3 * (uint64_t)program->width;
    n = n > program->inner ? n : program->inner;
    n = n > program->positions ? n : program->positions;
    return cpu_prepared_new(out, weights, kv, program, rows_max, n * sizeof(double));
}

static enum cinf_status open_device(struct device **out, const struct device_options *options)
{
    (void)options;
    return cpu_device_open(out, &backend_cpu_reference, "plain C", 1);
}

/* A small product and a sum over 16 MiB: a backend this slow is limited by neither cache nor memory. */
static enum cinf_status measure(struct device *base, struct device_speed *out)
{
    enum { ROWS = 16, WIDTH = 256, REPEATS = 3 };
    struct cpu_device *device = (struct cpu_device *)base;
    const size_t n = (size_t)4 << 20;
    float *numbers = cpu_new(device, n, sizeof *numbers);
    if (!numbers)
        return cinf_fail(CINF_ENOMEM, "no memory to measure device %s", base->backend->name);
    for (size_t i = 0; i < n; i++)
        numbers[i] = (float)(i % 7);
    uint64_t product_ns[REPEATS], read_ns[REPEATS];
    volatile double keep = 0;
    for (uint32_t i = 0; i < REPEATS; i++) {
        uint64_t start = clock_monotonic_ns();
        for (size_t r = 0; r < ROWS * WIDTH; r++)
            keep += dot(numbers, numbers + r % WIDTH * WIDTH, WIDTH);
        product_ns[i] = clock_monotonic_ns() - start;
        start = clock_monotonic_ns();
        keep += dot(numbers, numbers, n);
        read_ns[i] = clock_monotonic_ns() - start;
    }
    (void)keep;
    cpu_free(device, numbers);
    out->as_per_flop = attoseconds_each(cpu_median(product_ns, REPEATS), 2 * ROWS * WIDTH * WIDTH);
    out->as_per_byte = attoseconds_each(cpu_median(read_ns, REPEATS), n * sizeof(float));
    return CINF_OK;
}

const struct backend backend_cpu_reference = {
    .name = "cpu-reference",
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
