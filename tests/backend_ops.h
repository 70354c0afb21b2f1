/* backend_ops.h - runs small programs, one operation each and all together, on a backend and compares them
 * with an evaluation of their definitions in double.  The test program of each backend includes it once.  It
 * uses only struct backend, so it can test any device. */
#ifndef BACKEND_OPS_H
#define BACKEND_OPS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_impl.h"
#include "exact_activation.h"
#include "clock.h"
#include "mem.h"
#include "support.h"

struct shape {
    uint32_t d, h, i, v, p, l;
};

/* Weights of every rig, in this order, then LAYER_SPECS a layer. */
enum { W_TOKENS, W_POSITIONS, W_HEAD, W_NORM_F, W_NORM_F_BIAS, W_LAYERS };
enum {
    W_NORM1,
    W_NORM1_BIAS,
    W_QKV,
    W_QKV_BIAS,
    W_PROJ,
    W_PROJ_BIAS,
    W_NORM2,
    W_NORM2_BIAS,
    W_UP,
    W_UP_BIAS,
    W_DOWN,
    W_DOWN_BIAS,
    LAYER_SPECS
};

enum { LAYERS_MAX = 2, SPECS_MAX = W_LAYERS + LAYERS_MAX * LAYER_SPECS, OPS_MAX = 24, SLOTS = 4 };

/* A program with its weights, in double and on a device. */
struct rig {
    struct program program;
    struct weight_spec specs[SPECS_MAX];
    struct op ops[OPS_MAX];
    float *values[SPECS_MAX]; /* what was written to the device */

    const struct backend *backend;
    struct device *device;
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared;

    double *rows[ROWS_COUNT]; /* [rows_max, width] */
    double *keys, *cached;    /* [L, SLOTS, P, D]: keys and values */
};

static uint64_t random_state;

static double random_uniform(void) /* in (0, 1) */
{
    random_state += 0x9E3779B97F4A7C15u;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) * 0x1p-53;
}

static double random_normal(void)
{
    return sqrt(-2 * log(random_uniform())) * cos(6.283185307179586 * random_uniform());
}

static void *array_new(size_t n, size_t size)
{
    void *array = calloc(n, size);
    ck_assert_ptr_nonnull(array);
    return array;
}

static uint32_t layer_weight(uint32_t layer, uint32_t weight)
{
    return W_LAYERS + layer * LAYER_SPECS + weight;
}

static void rig_add_op(struct rig *rig, struct op op)
{
    ck_assert_uint_lt(rig->program.n_ops, OPS_MAX);
    op.epsilon = 1e-5f;
    op.scale = (float)(1 / sqrt((double)(rig->program.width / rig->program.heads)));
    if (op.epilogue == EPILOGUE_QKV)
        op.q_cols = op.k_cols = op.v_cols = rig->program.width;
    rig->ops[rig->program.n_ops++] = op;
}

static void rig_begin(struct rig *rig, struct shape s)
{
    memset(rig, 0, sizeof *rig);
    rig->program = (struct program){ .ops = rig->ops,
                                     .specs = rig->specs,
                                     .n_specs = W_LAYERS + s.l * LAYER_SPECS,
                                     .width = s.d,
                                     .inner = s.i,
                                     .heads = s.h,
                                     .layers = s.l,
                                     .vocab = s.v,
                                     .positions = s.p };
    rig->specs[W_TOKENS] = (struct weight_spec){ WEIGHT_TOKENS, s.v, s.d };
    rig->specs[W_POSITIONS] = (struct weight_spec){ WEIGHT_TABLE, s.p, s.d };
    rig->specs[W_HEAD] = (struct weight_spec){ WEIGHT_HEAD, s.v, s.d };
    rig->specs[W_NORM_F] = rig->specs[W_NORM_F_BIAS] = (struct weight_spec){ WEIGHT_VECTOR, 1, s.d };
    for (uint32_t l = 0; l < s.l; l++) {
        struct weight_spec *specs = rig->specs + layer_weight(l, 0);
        for (uint32_t w = 0; w < LAYER_SPECS; w++)
            specs[w] = (struct weight_spec){ WEIGHT_VECTOR, 1, s.d };
        specs[W_QKV] = (struct weight_spec){ WEIGHT_MATRIX, s.d, 3 * s.d };
        specs[W_QKV_BIAS].cols = 3 * s.d;
        specs[W_PROJ] = (struct weight_spec){ WEIGHT_MATRIX, s.d, s.d };
        specs[W_UP] = (struct weight_spec){ WEIGHT_MATRIX, s.d, s.i };
        specs[W_UP_BIAS].cols = s.i;
        specs[W_DOWN] = (struct weight_spec){ WEIGHT_MATRIX, s.i, s.d };
    }
    for (uint32_t w = 0; w < rig->program.n_specs; w++) {
        struct weight_spec spec = rig->specs[w];
        double deviation = spec.role == WEIGHT_MATRIX ? 1 / sqrt((double)spec.rows)
                           : spec.role == WEIGHT_HEAD ? 1 / sqrt((double)spec.cols)
                                                      : 0.7;
        rig->values[w] = array_new((size_t)spec.rows * spec.cols, sizeof(float));
        for (size_t n = 0; n < (size_t)spec.rows * spec.cols; n++)
            rig->values[w][n] = (float)(deviation * random_normal());
    }
}

static void rig_start(struct rig *rig, const struct backend *backend, uint32_t rows_max)
{
    struct program *p = &rig->program;
    rig->backend = backend;
    ck_ok(backend->open(&rig->device, &(struct device_options){ 0 }));
    ck_ok(backend->weights_new(&rig->weights, rig->device, rig->specs, p->n_specs, WEIGHTS_F32));
    for (uint32_t w = 0; w < p->n_specs; w++) {
        /* Writes in two pieces, as a loader does. */
        uint32_t rows = rig->specs[w].rows, half = rows / 2;
        ck_ok(backend->weights_write(rig->weights, w, half, rows - half,
                                     rig->values[w] + (size_t)half * rig->specs[w].cols, CINF_DTYPE_F32));
        ck_ok(backend->weights_write(rig->weights, w, 0, half, rig->values[w], CINF_DTYPE_F32));
    }
    bool done = false;
    while (!done)
        ck_ok(backend->weights_finish(rig->weights, &done));
    ck_ok(backend->kv_new(&rig->kv, rig->device, p, SLOTS));
    ck_ok(backend->prepare(&rig->prepared, rig->weights, rig->kv, p, rows_max));
    for (int b = 0; b < ROWS_COUNT; b++)
        rig->rows[b] = array_new((size_t)rows_max * row_width(p, (enum row_buffer)b), sizeof(double));
    rig->keys = array_new((size_t)p->layers * SLOTS * p->positions * p->width, sizeof(double));
    rig->cached = array_new((size_t)p->layers * SLOTS * p->positions * p->width, sizeof(double));
}

static void rig_end(struct rig *rig)
{
    const struct backend *backend = rig->backend;
    backend->prepared_free(rig->prepared);
    backend->kv_free(rig->kv);
    backend->weights_free(rig->weights);
    struct device_info info;
    backend->info(rig->device, &info);
    ck_assert_uint_eq(info.memory_used, 0);
    backend->close(rig->device);
    for (int b = 0; b < ROWS_COUNT; b++)
        free(rig->rows[b]);
    for (uint32_t w = 0; w < SPECS_MAX; w++)
        free(rig->values[w]);
    free(rig->keys);
    free(rig->cached);
}

/* ---- The evaluation in double -------------------------------------------------------------- */

static double *exact_cache(const struct rig *rig, double *cache, uint32_t layer, uint32_t slot,
                           uint32_t position)
{
    const struct program *p = &rig->program;
    return cache + (((size_t)layer * SLOTS + slot) * p->positions + position) * p->width;
}

static double exact_bias(const struct rig *rig, const struct op *op, uint32_t c)
{
    return op->bias == NO_WEIGHT ? 0 : (double)rig->values[op->bias][c];
}

static void exact_linear(struct rig *rig, const struct op *op, const struct batch *b, uint32_t r)
{
    const struct program *p = &rig->program;
    const struct weight_spec *spec = &rig->specs[op->weight];
    const double *in = rig->rows[op->in] + (size_t)r * spec->rows;
    double *out = rig->rows[op->out] + (size_t)r * row_width(p, op->out);
    for (uint32_t c = 0; c < spec->cols; c++) {
        double y = exact_bias(rig, op, c);
        for (uint32_t k = 0; k < spec->rows; k++)
            y += in[k] * (double)rig->values[op->weight][(size_t)k * spec->cols + c];
        if (op->epilogue == EPILOGUE_NONE || (op->epilogue == EPILOGUE_QKV && c < op->q_cols))
            out[c] = y;
        else if (op->epilogue == EPILOGUE_ACTIVATION)
            out[c] = exact_activation(op->activation, y);
        else if (op->epilogue == EPILOGUE_ADD)
            out[c] += y;
        else if (c < op->q_cols + op->k_cols)
            exact_cache(rig, rig->keys, op->layer, b->slots[r], b->positions[r])[c - op->q_cols] = y;
        else
            exact_cache(rig, rig->cached, op->layer, b->slots[r],
                        b->positions[r])[c - op->q_cols - op->k_cols] = y;
    }
}

static void exact_attend(struct rig *rig, const struct op *op, const struct batch *b, uint32_t r)
{
    const struct program *p = &rig->program;
    uint32_t width = p->width / p->heads, n = b->positions[r] + 1;
    double *scores = array_new(n, sizeof *scores);
    for (uint32_t h = 0; h < p->heads; h++) {
        const double *q = rig->rows[op->in] + (size_t)r * p->width + h * width;
        double *out = rig->rows[op->out] + (size_t)r * p->width + h * width;
        double sum = 0, max = -INFINITY;
        for (uint32_t t = 0; t < n; t++) {
            const double *key = exact_cache(rig, rig->keys, op->layer, b->slots[r], t) + h * width;
            scores[t] = 0;
            for (uint32_t c = 0; c < width; c++)
                scores[t] += (double)op->scale * q[c] * key[c];
            max = fmax(max, scores[t]);
        }
        memset(out, 0, width * sizeof *out);
        for (uint32_t t = 0; t < n; t++)
            sum += exp(scores[t] - max);
        for (uint32_t t = 0; t < n; t++) {
            const double *value = exact_cache(rig, rig->cached, op->layer, b->slots[r], t) + h * width;
            for (uint32_t c = 0; c < width; c++)
                out[c] += exp(scores[t] - max) / sum * value[c];
        }
    }
    free(scores);
}

static void exact_norm(struct rig *rig, const struct op *op, uint32_t r)
{
    uint32_t d = rig->program.width;
    const double *in = rig->rows[op->in] + (size_t)r * d;
    double *out = rig->rows[op->out] + (size_t)r * d, mean = 0, variance = 0;
    for (uint32_t c = 0; c < d; c++)
        mean += in[c] / d;
    for (uint32_t c = 0; c < d; c++)
        variance += (in[c] - mean) * (in[c] - mean) / d;
    for (uint32_t c = 0; c < d; c++)
        out[c] = (in[c] - mean) / sqrt(variance + (double)op->epsilon) * (double)rig->values[op->weight][c] +
                 exact_bias(rig, op, c);
}

/* Evaluates all operations except the last; the logits are computed during the comparison. */
static void exact_run(struct rig *rig, const struct batch *b)
{
    uint32_t d = rig->program.width;
    for (uint32_t i = 0; i < rig->program.n_ops; i++) {
        const struct op *op = &rig->ops[i];
        for (uint32_t r = 0; r < b->n_rows; r++) {
            if (op->kind == OP_EMBED) {
                for (uint32_t c = 0; c < d; c++) {
                    double x = (double)rig->values[op->weight][(size_t)b->tokens[r] * d + c];
                    if (op->weight2 != NO_WEIGHT)
                        x += (double)rig->values[op->weight2][(size_t)b->positions[r] * d + c];
                    rig->rows[op->out][(size_t)r * d + c] = x;
                }
            } else if (op->kind == OP_NORM) {
                exact_norm(rig, op, r);
            } else if (op->kind == OP_LINEAR) {
                exact_linear(rig, op, b, r);
            }
        }
        for (uint32_t r = 0; r < b->n_rows && op->kind == OP_ATTEND; r++)
            exact_attend(rig, op, b, r);
    }
}

/* ---- Steps --------------------------------------------------------------------------------- */

enum { STEP_ROWS_MAX = 160 };

/* Rows of one step, as the tests write them down. */
struct run_of_rows {
    uint32_t slot, first, n;
};

/* Which rows need logits. */
enum wants { WANT_ALL, WANT_LAST, WANT_SOME, WANT_NONE };

struct step_rows {
    struct batch batch;
    int32_t tokens[STEP_ROWS_MAX];
    uint32_t positions[STEP_ROWS_MAX], slots[STEP_ROWS_MAX];
    uint8_t wants[STEP_ROWS_MAX];
};

static void step_begin(struct step_rows *s)
{
    s->batch = (struct batch){ 0, s->tokens, s->positions, s->slots, s->wants };
}

static void step_add(struct step_rows *s, struct run_of_rows run, uint32_t vocab, enum wants wants)
{
    for (uint32_t i = 0; i < run.n; i++) {
        uint32_t r = s->batch.n_rows++;
        ck_assert_uint_lt(r, STEP_ROWS_MAX);
        s->tokens[r] = (int32_t)((run.slot * 31 + (run.first + i) * 17 + 5) % vocab);
        s->positions[r] = run.first + i;
        s->slots[r] = run.slot;
        bool wanted =
            wants == WANT_ALL || (wants == WANT_LAST && i + 1 == run.n) || (wants == WANT_SOME && r % 3 == 1);
        s->wants[r] = wanted ? LOGITS_ALL : LOGITS_NONE;
    }
}

/* Runs one step on the device and here, and compares every logit: the difference is at most 1e-5 of 1 + its
 * size. */
static void step_check(struct rig *rig, const struct batch *batch, const char *what)
{
    const struct program *p = &rig->program;
    const struct op *head = &rig->ops[p->n_ops - 1];
    uint32_t width = row_width(p, head->in), n_logits = 0;
    ck_ok(rig->backend->run(rig->prepared, batch));
    ck_ok(rig->backend->wait(rig->prepared));
    exact_run(rig, batch);
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        if (batch->wants_logits[r] == LOGITS_NONE)
            continue;
        const float *logits;
        ck_ok(rig->backend->logits(rig->prepared, n_logits++, &logits));
        for (uint32_t v = 0; v < p->vocab; v++) {
            double exact = 0;
            for (uint32_t c = 0; c < width; c++)
                exact += rig->rows[head->in][(size_t)r * width + c] *
                         (double)rig->values[head->weight][(size_t)v * width + c];
            ck_assert_msg(fabs((double)logits[v] - exact) <= 1e-5 * (1 + fabs(exact)),
                          "%s: D=%u H=%u I=%u R=%u row %u, logit %u: %.9g, not %.9g", what, p->width,
                          p->heads, p->inner, batch->n_rows, r, v, (double)logits[v], exact);
        }
    }
    const float *untouched = NULL;
    ck_fails(rig->backend->logits(rig->prepared, n_logits, &untouched), CINF_EINVAL, "logits");
    ck_assert_ptr_null(untouched);
}

/* A few steps over several slots: a single row, many rows, rows of several slots, depth. */
static void check_steps(struct rig *rig, const char *what)
{
    static const struct {
        struct run_of_rows runs[SLOTS];
        enum wants wants;
    } steps[] = {
        { { { 0, 0, 1 } }, WANT_ALL },
        { { { 1, 0, 33 } }, WANT_SOME },
        { { { 0, 1, 7 } }, WANT_LAST },
        { { { 0, 8, 1 }, { 1, 33, 1 }, { 3, 0, 1 } }, WANT_ALL },
        { { { 2, 0, 5 }, { 1, 34, 1 }, { 3, 1, 20 }, { 0, 9, 2 } }, WANT_LAST },
        { { { 1, 35, 1 } }, WANT_NONE },
        { { { 1, 36, 101 }, { 0, 11, 1 } }, WANT_SOME },
        { { { 1, 137, 1 } }, WANT_ALL },
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct step_rows s;
        step_begin(&s);
        for (size_t k = 0; k < SLOTS; k++)
            step_add(&s, steps[i].runs[k], rig->program.vocab, steps[i].wants);
        step_check(rig, &s.batch, what);
    }
}

/* ---- Programs ------------------------------------------------------------------------------ */

static const struct op op_embed = {
    .kind = OP_EMBED, .out = ROWS_X, .weight = W_TOKENS, .weight2 = W_POSITIONS
};

static struct op op_norm_of(enum row_buffer in, enum row_buffer out, uint32_t weight)
{
    return (struct op){ .kind = OP_NORM, .in = in, .out = out, .weight = weight, .bias = weight + 1 };
}

static struct op op_linear_of(enum row_buffer in, enum row_buffer out, uint32_t layer, uint32_t weight,
                              enum op_epilogue epilogue, enum cinf_activation activation)
{
    return (struct op){ .kind = OP_LINEAR,
                        .in = in,
                        .out = out,
                        .weight = layer_weight(layer, weight),
                        .bias = layer_weight(layer, weight + 1),
                        .layer = layer,
                        .epilogue = epilogue,
                        .activation = activation };
}

static struct op op_head_of(enum row_buffer in, uint32_t weight)
{
    return (struct op){ .kind = OP_LOGITS, .in = in, .weight = weight };
}

/* GPT-2 itself, except for the tied head, whose large logits would hide small errors. */
static void add_gpt2(struct rig *rig)
{
    rig_add_op(rig, op_embed);
    for (uint32_t l = 0; l < rig->program.layers; l++) {
        rig_add_op(rig, op_norm_of(ROWS_X, ROWS_H, layer_weight(l, W_NORM1)));
        rig_add_op(rig, op_linear_of(ROWS_H, ROWS_Q, l, W_QKV, EPILOGUE_QKV, 0));
        rig_add_op(rig, (struct op){ .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_A, .layer = l });
        rig_add_op(rig, op_linear_of(ROWS_A, ROWS_X, l, W_PROJ, EPILOGUE_ADD, 0));
        rig_add_op(rig, op_norm_of(ROWS_X, ROWS_H, layer_weight(l, W_NORM2)));
        rig_add_op(rig, op_linear_of(ROWS_H, ROWS_F, l, W_UP, EPILOGUE_ACTIVATION, CINF_ACTIVATION_GELU_NEW));
        rig_add_op(rig, op_linear_of(ROWS_F, ROWS_X, l, W_DOWN, EPILOGUE_ADD, 0));
    }
    rig_add_op(rig, op_norm_of(ROWS_X, ROWS_H, W_NORM_F));
    rig_add_op(rig, op_head_of(ROWS_H, W_HEAD));
}

enum {
    PROGRAM_EMBED,
    PROGRAM_TIED_HEAD,
    PROGRAM_NORM,
    PROGRAM_NORM_IN_PLACE,
    PROGRAM_LINEAR,
    PROGRAM_RESIDUAL,
    PROGRAM_ATTEND,
    PROGRAM_GPT2,
    PROGRAM_ACTIVATION, /* and the others: enum cinf_activation */
    PROGRAM_SOME_BIASES = PROGRAM_ACTIVATION + ACTIVATIONS,
    PROGRAM_BARE, /* the first of these programs again, to PROGRAM_ACTIVATION, without biases and positions */
    PROGRAMS = PROGRAM_BARE + PROGRAM_ACTIVATION + 1
};

static const char *add_program(struct rig *rig, int which)
{
    if (which >= PROGRAM_BARE) {
        static char name[32];
        snprintf(name, sizeof name, "bare %s", add_program(rig, which - PROGRAM_BARE));
        for (uint32_t i = 0; i < rig->program.n_ops; i++)
            rig->ops[i].weight2 = rig->ops[i].bias = NO_WEIGHT;
        return name;
    }
    if (which == PROGRAM_SOME_BIASES) { /* of each kind of operation, some have one and some do not */
        add_gpt2(rig);
        for (uint32_t i = 1; i < rig->program.n_ops; i += 2)
            rig->ops[i].bias = NO_WEIGHT;
        return "some biases";
    }
    if (which == PROGRAM_GPT2) {
        add_gpt2(rig);
        return "gpt2";
    }
    rig_add_op(rig, op_embed);
    switch (which) {
    case PROGRAM_EMBED:
        rig_add_op(rig, op_head_of(ROWS_X, W_HEAD));
        return "embed";
    case PROGRAM_TIED_HEAD:
        rig_add_op(rig, op_head_of(ROWS_X, W_TOKENS));
        return "tied head";
    case PROGRAM_NORM:
        rig_add_op(rig, op_norm_of(ROWS_X, ROWS_H, W_NORM_F));
        rig_add_op(rig, op_head_of(ROWS_H, W_HEAD));
        return "norm";
    case PROGRAM_NORM_IN_PLACE:
        rig_add_op(rig, op_norm_of(ROWS_X, ROWS_X, W_NORM_F));
        rig_add_op(rig, op_head_of(ROWS_X, W_HEAD));
        return "norm in place";
    case PROGRAM_LINEAR:
        rig_add_op(rig, op_linear_of(ROWS_X, ROWS_F, 0, W_UP, EPILOGUE_NONE, 0));
        rig_add_op(rig, op_linear_of(ROWS_F, ROWS_H, 0, W_DOWN, EPILOGUE_NONE, 0));
        rig_add_op(rig, op_head_of(ROWS_H, W_HEAD));
        return "linear";
    case PROGRAM_RESIDUAL:
        rig_add_op(rig, op_norm_of(ROWS_X, ROWS_H, W_NORM_F));
        rig_add_op(rig, op_linear_of(ROWS_H, ROWS_X, 0, W_PROJ, EPILOGUE_ADD, 0));
        rig_add_op(rig, op_head_of(ROWS_X, W_HEAD));
        return "residual";
    case PROGRAM_ATTEND:
        rig_add_op(rig, op_linear_of(ROWS_X, ROWS_Q, 0, W_QKV, EPILOGUE_QKV, 0));
        rig_add_op(rig, (struct op){ .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_A });
        rig_add_op(rig, op_head_of(ROWS_A, W_HEAD));
        return "attend";
    default: {
        enum cinf_activation activation = (enum cinf_activation)(which - PROGRAM_ACTIVATION);
        rig_add_op(rig, op_linear_of(ROWS_X, ROWS_F, 0, W_UP, EPILOGUE_ACTIVATION, activation));
        rig_add_op(rig, op_linear_of(ROWS_F, ROWS_H, 0, W_DOWN, EPILOGUE_NONE, 0));
        rig_add_op(rig, op_head_of(ROWS_H, W_HEAD));
        return cinf_activation_name(activation);
    }
    }
}

/* ---- What every backend must pass ----------------------------------------------------------- */

static void check_program(const struct backend *backend, int which)
{
    /* The shapes have widths that no vector length divides, one head, GPT-2's head width, and I below and
     * above 4D. */
    static const struct shape shapes[] = { { 6, 3, 10, 257, 138, 2 },
                                           { 64, 1, 300, 31, 138, 1 },
                                           { 35, 5, 33, 50, 200, 2 },
                                           { 48, 2, 192, 65, 138, 1 } };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct rig rig;
        random_state = 1000 * i + (uint64_t)which;
        rig_begin(&rig, shapes[i]);
        const char *name = add_program(&rig, which);
        rig_start(&rig, backend, STEP_ROWS_MAX);
        check_steps(&rig, name);
        rig_end(&rig);
    }
}

/* A copied prefix is as good as a computed one, and leaves the rest of the slot and its neighbours alone. */
static void check_copy(const struct backend *backend)
{
    struct rig rig;
    struct step_rows s;
    const struct shape shape = { 14, 2, 20, 40, 24, 2 };
    rig_begin(&rig, shape);
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, backend, 64);
    for (uint32_t slot = 0; slot < 3; slot++) {
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ slot, 0, 20 }, shape.v, WANT_LAST);
        step_check(&rig, &s.batch, "before the copy");
    }
    ck_ok(backend->kv_copy(rig.kv, 1, 1, 20));
    ck_ok(backend->kv_copy(rig.kv, 1, 0, 0));
    ck_ok(backend->kv_copy(rig.kv, 1, 0, 9));
    for (uint32_t l = 0; l < shape.l; l++) {
        for (uint32_t t = 0; t < 9; t++) {
            memcpy(exact_cache(&rig, rig.keys, l, 1, t), exact_cache(&rig, rig.keys, l, 0, t),
                   shape.d * sizeof(double));
            memcpy(exact_cache(&rig, rig.cached, l, 1, t), exact_cache(&rig, rig.cached, l, 0, t),
                   shape.d * sizeof(double));
        }
    }
    step_begin(&s);
    for (uint32_t slot = 0; slot < 3; slot++)
        step_add(&s, (struct run_of_rows){ slot, 20, 1 }, shape.v, WANT_ALL);
    step_check(&rig, &s.batch, "after the copy");
    ck_fails(backend->kv_copy(rig.kv, SLOTS, 0, 1), CINF_EINVAL, "slot 4");
    ck_fails(backend->kv_copy(rig.kv, 0, SLOTS, 1), CINF_EINVAL, "slot 4");
    ck_fails(backend->kv_copy(rig.kv, 0, 1, shape.p + 1), CINF_EINVAL, "25 positions");
    rig_end(&rig);
}

/* Scores far beyond what exp() can take, and a NaN that must not outlive its request. */
static void check_extremes(const struct backend *backend)
{
    struct rig rig;
    struct step_rows s;
    const struct shape shape = { 14, 2, 8, 16, 100, 1 };
    rig_begin(&rig, shape);
    add_program(&rig, PROGRAM_ATTEND);
    for (uint32_t i = 0; i < shape.d * 3 * shape.d; i++)
        rig.values[layer_weight(0, W_QKV)][i] *= i % (3 * shape.d) < 2 * shape.d ? 64.0f : 1.0f;
    for (uint32_t c = 0; c < shape.d; c++)
        rig.values[W_POSITIONS][99 * shape.d + c] = NAN;
    rig_start(&rig, backend, 100);

    step_begin(&s); /* one row, so that the largest score alone decides */
    step_add(&s, (struct run_of_rows){ 0, 0, 1 }, shape.v, WANT_ALL);
    step_check(&rig, &s.batch, "one large score");
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 2, 0, 100 }, shape.v, WANT_LAST);
    ck_ok(backend->run(rig.prepared, &s.batch));
    const float *logits;
    ck_ok(backend->logits(rig.prepared, 0, &logits));
    ck_assert(isnan(logits[0]));
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, 1, 1 }, shape.v, WANT_ALL);
    ck_ok(backend->run(rig.prepared, &s.batch));
    ck_ok(backend->logits(rig.prepared, 0, &logits));
    ck_assert(isfinite(logits[0]));
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 2, 0, 70 }, shape.v, WANT_ALL);
    ck_ok(backend->run(rig.prepared, &s.batch));
    for (uint32_t r = 0; r < 70; r++) {
        ck_ok(backend->logits(rig.prepared, r, &logits));
        for (uint32_t v = 0; v < shape.v; v++)
            ck_assert(isfinite(logits[v]));
    }
    rig_end(&rig);
}

/* Every batch that lies outside the program's shape is refused, and no part of it runs. */
static void check_bad_batches(const struct backend *backend)
{
    struct rig rig;
    struct step_rows s;
    const struct shape shape = { 6, 3, 10, 20, 30, 1 };
    rig_begin(&rig, shape);
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, backend, 5);

    step_begin(&s);
    ck_fails(backend->run(rig.prepared, &s.batch), CINF_EINVAL, "0 rows");
    step_add(&s, (struct run_of_rows){ 0, 0, 6 }, shape.v, WANT_ALL);
    ck_fails(backend->run(rig.prepared, &s.batch), CINF_EINVAL, "6 rows, 1 to 5");
    s.batch.n_rows = 5;
    step_check(&rig, &s.batch, "as many rows as there may be");
    s.tokens[4] = (int32_t)shape.v;
    ck_fails(backend->run(rig.prepared, &s.batch), CINF_EINVAL, "token 20");
    s.tokens[4] = -1;
    ck_fails(backend->run(rig.prepared, &s.batch), CINF_EINVAL, "token -1");
    s.tokens[4] = (int32_t)shape.v - 1;
    s.slots[4] = SLOTS;
    ck_fails(backend->run(rig.prepared, &s.batch), CINF_EINVAL, "slot 4");
    s.slots[4] = 0;
    s.positions[4] = 3;
    ck_fails(backend->run(rig.prepared, &s.batch), CINF_EINVAL, "position 3 follows 3");
    const float *logits = NULL;
    ck_fails(backend->logits(rig.prepared, 0, &logits), CINF_EINVAL, "a step that made 0");
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, shape.p, 1 }, shape.v, WANT_ALL);
    ck_fails(backend->run(rig.prepared, &s.batch), CINF_EINVAL, "position 30 of 30");
    rig_end(&rig);
}

/* The contract is a quarter of a second; `limit_ns` allows for a slower machine, and a limit that holds once
 * is kept by the device: a busy machine may put it aside.  An emulator sets CK_TIMEOUT_MULTIPLIER as it does
 * for Check. */
static void check_measure(const struct backend *backend, uint64_t limit_ns)
{
    const char *slower = getenv("CK_TIMEOUT_MULTIPLIER");
    limit_ns *= slower ? strtoul(slower, NULL, 10) : 1;
    struct device *device;
    struct device_speed speed = { 0 };
    struct device_info info;
    ck_ok(backend->open(&device, &(struct device_options){ 0 }));
    uint64_t took_ns = UINT64_MAX;
    for (int tries = 0; tries < 10 && took_ns >= limit_ns; tries++) {
        uint64_t start = clock_monotonic_ns();
        ck_ok(backend->measure(device, &speed));
        took_ns = clock_monotonic_ns() - start;
    }
    ck_assert_uint_lt(took_ns, limit_ns);
    ck_assert_uint_gt(speed.as_per_flop, 0);
    ck_assert_uint_gt(speed.as_per_byte, 0);
    backend->info(device, &info);
    ck_assert(strncmp(info.name, backend->name, strlen(backend->name)) == 0); /* "opencl:0:0" */
    ck_assert_uint_gt(strlen(info.description), 0);
    ck_assert_uint_gt(info.memory_total, 1 << 20);
    ck_assert_uint_eq(info.memory_used, 0);
    backend->close(device);
}

/* Whichever allocation fails, the call that needed it reports it and everything else can be freed. */
static __attribute__((unused)) void check_allocations(const struct backend *backend)
{
    struct rig rig;
    rig_begin(&rig, (struct shape){ 6, 3, 10, 20, 30, 1 });
    add_program(&rig, PROGRAM_SOME_BIASES);
    uint64_t n = 0;
    bool hit = true;
    while (hit) {
        struct device *device = NULL;
        struct device_speed speed;
        struct weights *weights = NULL;
        struct kv *kv = NULL;
        struct prepared *prepared = NULL;
        mem_fail_at(++n);
        enum cinf_status status = backend->open(&device, &(struct device_options){ 0 });
        if (status == CINF_OK)
            status = backend->weights_new(&weights, device, rig.specs, rig.program.n_specs, WEIGHTS_F32);
        if (status == CINF_OK)
            status = backend->kv_new(&kv, device, &rig.program, 2);
        if (status == CINF_OK)
            status = backend->prepare(&prepared, weights, kv, &rig.program, 3);
        if (status == CINF_OK) /* last, because it takes the longest */
            status = backend->measure(device, &speed);
        hit = mem_fail_hit();
        mem_fail_at(0);
        ck_assert_int_eq(status, hit ? CINF_ENOMEM : CINF_OK);
        ck_assert(hit || prepared);
        backend->prepared_free(prepared);
        backend->kv_free(kv);
        backend->weights_free(weights);
        struct device_info info = { .memory_used = 0 };
        if (device) {
            backend->info(device, &info);
            backend->close(device);
        }
        ck_assert_uint_eq(info.memory_used, 0);
    }
    ck_assert_uint_gt(n, 8);
    for (uint32_t w = 0; w < SPECS_MAX; w++)
        free(rig.values[w]);
}

#endif
