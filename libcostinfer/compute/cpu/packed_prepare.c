/* packed_prepare.c - binds a program: finds what can be known before there is a batch, and takes all buffers
 * of a step in one block. */
#include <math.h>

#include "arena.h"
#include "fail.h"
#include "packed_prepared.h"

enum { CACHE_LINE = 64 };

/* Columns of the widest row that is quantised for a product or for the shortlist; 0: none is. */
static size_t quantised_k_max(const struct packed_prepared *p)
{
    size_t k_max = p->shortlist ? p->shortlist->k : 0;
    for (uint32_t i = 0; i < p->program->n_ops && quantises(p); i++) {
        const struct op *op = &p->program->ops[i];
        if (is_product(op) && row_width(p->program, op->in) > k_max)
            k_max = row_width(p->program, op->in);
    }
    return k_max;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Fills in the sizes that depend on the program. */
static void find_sizes(struct packed_prepared *p)
{
    const struct program *program = p->program;
    for (int b = 0; b < ROWS_COUNT; b++)
        p->ld[b] = row_stride(row_width(program, (enum row_buffer)b));
    p->ld_logits = row_stride(program->vocab);
    p->q_groups = (quantised_k_max(p) + GROUP - 1) / GROUP;
    p->q_stride = p->q_groups * GROUP + 64;
    const size_t product = (size_t)(ROWS_TILE_MAX + K_BLOCK) * PANEL;
    p->scratch_size = row_stride(larger(larger(product, attend_scratch(p->kv)), program->width));
    /* Steps that are split have fewer than 4 * threads blocks x heads, and steps whose parts do not fit are
     * not split. */
    const size_t chunks = (program->positions + ATTEND_CHUNK - 1) / ATTEND_CHUNK;
    p->attend_parts_size = 4 * pool_threads(p->device->pool) * chunks * attend_part_size(p->kv);
}

static bool has_norm_without_bias(const struct program *program)
{
    for (uint32_t i = 0; i < program->n_ops; i++) {
        if (program->ops[i].kind == OP_NORM && program->ops[i].bias == NO_WEIGHT)
            return true;
    }
    return false;
}

static void lay_out_shortlist(struct arena *arena, struct packed_prepared *p)
{
    struct shortlist_rows *bounds = &p->bounds;
    const size_t rows = p->rows_max, panels = p->shortlist->n_panels;
    bounds->upper = arena_take(arena, rows * panels, sizeof *bounds->upper, CACHE_LINE);
    bounds->lower = arena_take(arena, rows * panels, sizeof *bounds->lower, CACHE_LINE);
    bounds->a = arena_take(arena, rows, sizeof *bounds->a, CACHE_LINE);
    bounds->b = arena_take(arena, rows, sizeof *bounds->b, CACHE_LINE);
    bounds->threshold = arena_take(arena, rows, sizeof *bounds->threshold, CACHE_LINE);
    bounds->floors = arena_take(arena, panels * PANEL, sizeof *bounds->floors, CACHE_LINE);
}

static void lay_out(struct arena *arena, struct packed_prepared *p)
{
    const size_t rows = p->rows_max, threads = pool_threads(p->device->pool);
    for (int b = 0; b < ROWS_COUNT; b++)
        p->rows[b] = arena_take(arena, rows * p->ld[b], sizeof *p->rows[b], CACHE_LINE);
    p->logits = arena_take(arena, rows * p->ld_logits, sizeof *p->logits, CACHE_LINE);
    if (p->shortlist)
        lay_out_shortlist(arena, p);

    p->q = arena_take(arena, rows * p->q_stride, sizeof *p->q, CACHE_LINE);
    p->q_scales = arena_take(arena, rows * p->q_groups, sizeof *p->q_scales, CACHE_LINE);
    p->q_offsets = arena_take(arena, rows * p->q_groups, sizeof *p->q_offsets, CACHE_LINE);
    p->q_offsets4 = arena_take(arena, rows * p->q_groups * GROUPS4, sizeof *p->q_offsets4, CACHE_LINE);
    p->q_n_out = arena_take(arena, rows, sizeof *p->q_n_out, CACHE_LINE);
    p->q_out_at = arena_take(arena, rows * OUTLIERS_MAX, sizeof *p->q_out_at, CACHE_LINE);
    p->q_out_number = arena_take(arena, rows * OUTLIERS_MAX, sizeof *p->q_out_number, CACHE_LINE);

    if (has_norm_without_bias(p->program))
        p->no_bias = arena_take(arena, p->program->width, sizeof *p->no_bias, CACHE_LINE);
    p->scratch = arena_take(arena, threads * p->scratch_size, sizeof *p->scratch, CACHE_LINE);
    p->attend_parts = arena_take(arena, p->attend_parts_size, sizeof *p->attend_parts, CACHE_LINE);

    const size_t n_phases = (size_t)p->program->n_ops * PHASES_PER_OP + 1;
    p->blocks = arena_take(arena, rows, sizeof *p->blocks, CACHE_LINE);
    p->wanted_blocks = arena_take(arena, rows, sizeof *p->wanted_blocks, CACHE_LINE);
    p->wanted = arena_take(arena, rows, sizeof *p->wanted, CACHE_LINE);
    p->wants = arena_take(arena, rows, sizeof *p->wants, CACHE_LINE);
    p->positions = arena_take(arena, rows, sizeof *p->positions, CACHE_LINE);
    p->slots = arena_take(arena, rows, sizeof *p->slots, CACHE_LINE);
    p->tasks = arena_take(arena, n_phases, sizeof *p->tasks, CACHE_LINE);
    p->phases = arena_take(arena, n_phases, sizeof *p->phases, CACHE_LINE);
    if (p->device->profile)
        p->end_ns = arena_take(arena, n_phases, sizeof *p->end_ns, CACHE_LINE);
}

/* Uses the shortlist if the program's head is the one that the weights have a copy of. */
static void find_shortlist(struct packed_prepared *p)
{
    struct packed_weights *w = p->weights;
    if (!p->has_logits || w->shortlist.n_panels == 0 ||
        p->program->ops[p->program->n_ops - 1].weight != w->head)
        return;
    const struct packed_matrix *head = &w->matrices[w->head];
    p->shortlist = &w->shortlist;
    p->base.has_top_k = true;
    p->base.top_k_saved_bytes = head->n_panels * (head->panel_bytes - p->shortlist->panel_bytes);
}

/* The operation behind the last one that every row must go through: those that embed rows or fill the
 * cache. */
static uint32_t find_compact_before(const struct program *program)
{
    uint32_t before = 0;
    for (uint32_t i = 0; i < program->n_ops; i++) {
        const struct op *op = &program->ops[i];
        if (op->kind == OP_EMBED || (op->kind == OP_LINEAR && op->epilogue == EPILOGUE_QKV))
            before = i + 1;
    }
    return before;
}

enum cinf_status packed_prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max)
{
    struct packed_device *device = (struct packed_device *)weights->device;
    const struct packed_weights *its = (const struct packed_weights *)weights;
    TRY(prepare_check(program, its->specs, its->n_specs, rows_max));
    TRY(cpu_kv_check(kv, program));

    struct packed_prepared *p = cpu_new(&device->cpu, 1, sizeof *p);
    struct arena arena = { 0 };
    if (p) {
        p->base.device = weights->device;
        p->device = device;
        p->weights = (struct packed_weights *)weights;
        p->kv = (struct cpu_kv *)kv;
        p->program = program;
        p->rows_max = rows_max;
        p->has_logits = program->n_ops > 0 && program->ops[program->n_ops - 1].kind == OP_LOGITS;
        p->compact_before = find_compact_before(program);
        find_shortlist(p);
        find_sizes(p);
        lay_out(&arena, p);
        p->block = cpu_new(&device->cpu, arena.used, 1);
    }
    if (!p || !p->block) {
        packed_prepared_free((struct prepared *)p);
        return cinf_fail(CINF_ENOMEM, "no memory for steps of %u rows of width %u and logits of %u tokens",
                         rows_max, program->width, program->vocab);
    }
    arena_begin(&arena, p->block);
    lay_out(&arena, p);
    if (p->shortlist) { /* outputs that only fill the last panel are excluded */
        for (size_t id = p->shortlist->n; id < (size_t)p->shortlist->n_panels * PANEL; id++)
            p->bounds.floors[id] = -INFINITY;
    }
    *out = &p->base;
    return CINF_OK;
}

void packed_prepared_free(struct prepared *base)
{
    if (!base)
        return;
    struct packed_prepared *p = (struct packed_prepared *)base;
    struct cpu_device *device = &p->device->cpu;
    cpu_free(device, p->block);
    cpu_free(device, p);
}
