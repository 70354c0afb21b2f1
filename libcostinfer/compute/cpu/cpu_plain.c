/* cpu_plain.c - see cpu_plain.h. */
#include "cpu_plain.h"

#include <string.h>

#include "arena.h"
#include "elements.h"
#include "fail.h"

enum { CACHE_LINE = 64 };

/* ---- Weights ------------------------------------------------------------------------------ */

static void lay_out_weights(struct arena *arena, struct cpu_weights *w, const struct weight_spec *specs)
{
    w->specs = arena_take(arena, w->n_specs, sizeof *w->specs, 0);
    w->matrices = arena_take(arena, w->n_specs, sizeof *w->matrices, 0);
    for (uint32_t i = 0; i < w->n_specs; i++) {
        float *matrix = arena_take(arena, (size_t)specs[i].rows * specs[i].cols, sizeof *matrix, CACHE_LINE);
        if (w->matrices)
            w->matrices[i] = matrix;
    }
}

enum cinf_status cpu_weights_new(struct weights **out, struct device *base, const struct weight_spec *specs,
                                 uint32_t n_specs, enum weights_type type)
{
    struct cpu_device *device = (struct cpu_device *)base;
    if (type != WEIGHTS_F32)
        return cinf_fail(CINF_EUNSUPPORTED, "device %s keeps weights as f32, not as %s", base->backend->name,
                         weights_type_name(type));
    TRY(specs_check(specs, n_specs));
    for (uint32_t i = 0; i < n_specs; i++) {
        if ((uint64_t)specs[i].rows * specs[i].cols > SIZE_MAX / sizeof(float) / 2)
            return cinf_fail(CINF_ENOMEM, "weight %u is %u x %u: too large", i, specs[i].rows, specs[i].cols);
    }
    struct cpu_weights *w = cpu_new(device, 1, sizeof *w);
    struct arena arena = { 0 };
    if (w) {
        w->base.device = base;
        w->n_specs = n_specs;
        lay_out_weights(&arena, w, specs);
        w->block = cpu_new(device, arena.used, 1);
    }
    if (!w || !w->block) {
        cpu_weights_free((struct weights *)w);
        return cinf_fail(CINF_ENOMEM, "no memory for %zu bytes of weights in f32", arena.used);
    }
    arena_begin(&arena, w->block);
    lay_out_weights(&arena, w, specs);
    memcpy(w->specs, specs, n_specs * sizeof *specs);
    *out = &w->base;
    return CINF_OK;
}

void cpu_weights_free(struct weights *weights)
{
    if (!weights)
        return;
    struct cpu_weights *w = (struct cpu_weights *)weights;
    struct cpu_device *device = (struct cpu_device *)w->base.device;
    cpu_free(device, w->block);
    cpu_free(device, w);
}

enum cinf_status cpu_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                   const void *elements, enum cinf_dtype dtype)
{
    struct cpu_weights *w = (struct cpu_weights *)weights;
    TRY(write_check(w->specs, w->n_specs, index, first, n, dtype));
    uint32_t cols = w->specs[index].cols;
    float *to = w->matrices[index] + (size_t)first * cols;
    size_t count = (size_t)n * cols, bad = elements_read(to, elements, dtype, 0, count);
    if (bad < count)
        return cinf_fail(CINF_EUNSUPPORTED, "weight %u holds %g in row %zu, column %zu: too large for f32",
                         index, element_read(elements, dtype, bad), first + bad / cols, bad % cols);
    return CINF_OK;
}

enum cinf_status cpu_weights_finish(struct weights *weights, bool *done)
{
    (void)weights;
    *done = true;
    return CINF_OK;
}

uint64_t cpu_weights_bytes(const struct weights *weights)
{
    const struct cpu_weights *w = (const struct cpu_weights *)weights;
    struct weights_sum sum = { 0 };
    for (uint32_t i = 0; i < w->n_specs; i++)
        weights_sum_add(&sum, w->specs[i].role,
                        (uint64_t)w->specs[i].rows * w->specs[i].cols * sizeof(float));
    return weights_sum_read(&sum);
}

/* ---- The cache ---------------------------------------------------------------------------- */

static const struct cpu_kv_format plain_kv = { .unit = 1 };

uint64_t cpu_kv_slot_bytes(const struct device *device, const struct program *program)
{
    (void)device;
    return cpu_kv_bytes_of_slot(program, plain_kv);
}

enum cinf_status cpu_kv_new(struct kv **out, struct device *device, const struct program *program,
                            uint32_t slots)
{
    return cpu_kv_new_as(out, device, program, slots, plain_kv);
}

/* ---- Prepared programs -------------------------------------------------------------------- */

static void lay_out_rows(struct arena *arena, struct cpu_prepared *p, size_t scratch_bytes)
{
    for (int b = 0; b < ROWS_COUNT; b++)
        p->rows[b] = arena_take(arena, (size_t)p->rows_max * row_width(p->program, (enum row_buffer)b),
                                sizeof *p->rows[b], CACHE_LINE);
    p->logits = arena_take(arena, (size_t)p->rows_max * p->program->vocab, sizeof *p->logits, CACHE_LINE);
    p->scratch = arena_take(arena, scratch_bytes, 1, CACHE_LINE);
}

enum cinf_status cpu_prepared_new(struct prepared **out, struct weights *weights, struct kv *kv,
                                  const struct program *program, uint32_t rows_max, uint64_t scratch_bytes)
{
    struct cpu_device *device = (struct cpu_device *)weights->device;
    const struct cpu_weights *its = (const struct cpu_weights *)weights;
    TRY(prepare_check(program, its->specs, its->n_specs, rows_max));
    TRY(cpu_kv_check(kv, program));
    struct cpu_prepared *p = cpu_new(device, 1, sizeof *p);
    struct arena arena = { 0 };
    if (p) {
        p->base.device = weights->device;
        p->weights = (struct cpu_weights *)weights;
        p->kv = (struct cpu_kv *)kv;
        p->program = program;
        p->rows_max = rows_max;
        lay_out_rows(&arena, p, scratch_bytes);
        p->block = cpu_new(device, arena.used, 1);
    }
    if (!p || !p->block) {
        cpu_prepared_free((struct prepared *)p);
        return cinf_fail(CINF_ENOMEM, "no memory for steps of %u rows of width %u and logits of %u tokens",
                         rows_max, program->width, program->vocab);
    }
    arena_begin(&arena, p->block);
    lay_out_rows(&arena, p, scratch_bytes);
    *out = &p->base;
    return CINF_OK;
}

void cpu_prepared_free(struct prepared *base)
{
    if (!base)
        return;
    struct cpu_prepared *p = (struct cpu_prepared *)base;
    struct cpu_device *device = (struct cpu_device *)p->base.device;
    cpu_free(device, p->block);
    cpu_free(device, p);
}

/* out[R,D] = tokens[token] + positions[position] */
static void embed(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    size_t d = p->program->width;
    const float *tokens = cpu_weight(p, op->weight), *positions = cpu_weight(p, op->weight2);
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        float *out = p->rows[op->out] + r * d;
        memcpy(out, tokens + (size_t)batch->tokens[r] * d, d * sizeof *out);
        if (!positions)
            continue;
        const float *position = positions + batch->positions[r] * d;
        for (size_t i = 0; i < d; i++)
            out[i] += position[i];
    }
}

enum cinf_status cpu_run(struct prepared *prepared, const struct batch *batch, const struct cpu_ops *ops)
{
    struct cpu_prepared *p = (struct cpu_prepared *)prepared;
    p->n_logits = 0;
    TRY(batch_check(batch, p->program, p->rows_max, p->kv->slots));
    for (uint32_t i = 0; i < p->program->n_ops; i++) {
        const struct op *op = &p->program->ops[i];
        switch (op->kind) {
        case OP_EMBED:
            embed(p, op, batch);
            break;
        case OP_NORM:
            ops->norm(p, op, batch);
            break;
        case OP_LINEAR:
            ops->linear(p, op, batch);
            break;
        case OP_ATTEND:
            ops->attend(p, op, batch);
            break;
        case OP_LOGITS:
            ops->logits(p, op, batch);
            break;
        }
    }
    return CINF_OK;
}

enum cinf_status cpu_wait(struct prepared *prepared)
{
    (void)prepared;
    return CINF_OK;
}

enum cinf_status cpu_logits(struct prepared *base, uint32_t i, const float **out)
{
    struct cpu_prepared *p = (struct cpu_prepared *)base;
    if (i >= p->n_logits)
        return cinf_fail(CINF_EINVAL, "logits %u of a step that made %u", i, p->n_logits);
    *out = p->logits + (size_t)i * p->program->vocab;
    return CINF_OK;
}
