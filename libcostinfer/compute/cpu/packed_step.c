/* packed_step.c - a batch becomes phases for the pool, and they run.
 *
 * The list of phases is made anew for each batch, because their tiles depend on its rows; that takes a
 * microsecond. After the last layer has put its keys and values into the cache, only rows that want logits
 * matter: they move to the front there, and the rest of the program runs for them alone. */
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "clock.h"
#include "fail.h"
#include "packed_prepared.h"

enum { FULL_STEPS = 32 }; /* steps without a shortlist after one that did not pay */

static void add_phase(struct packed_prepared *p, const struct packed_task *task,
                      const struct phase_kind *kind, uint32_t n_tiles)
{
    struct packed_task *added = &p->tasks[p->n_phases];
    *added = *task;
    added->name = kind->name;
    p->phases[p->n_phases++] = (struct pool_phase){ kind->work, added, n_tiles };
}

/* Cuts n_panels panels of k lines and the task's rows into tiles; returns how many they are. */
static uint32_t cut(struct packed_task *task, uint32_t n_panels, uint32_t k)
{
    const struct packed_prepared *p = task->p;
    /* Rows of a tile stay in half the second-level cache while panels pass by.  Tiles are as equal as
     * possible, and whole tiles of the microkernel. */
    uint32_t threads = pool_threads(p->device->pool);
    size_t fit = p->device->cache_bytes / 2 / (k * sizeof(float)) / MICRO_ROWS_MAX * MICRO_ROWS_MAX;
    uint32_t max = fit < 4 * MICRO_ROWS_MAX ? 4 * MICRO_ROWS_MAX
                   : fit > ROWS_TILE_MAX    ? ROWS_TILE_MAX
                                            : (uint32_t)fit;
    assert(task->n_rows > 0);
    uint32_t n_row_tiles = (task->n_rows + max - 1) / max;
    task->rows_tile = (task->n_rows + n_row_tiles - 1) / n_row_tiles;
    if (n_row_tiles > 1)
        task->rows_tile = (task->rows_tile + MICRO_ROWS_MAX - 1) / MICRO_ROWS_MAX * MICRO_ROWS_MAX;
    n_row_tiles = (task->n_rows + task->rows_tile - 1) / task->rows_tile;

    task->n_units = n_panels;
    task->n_unit_tiles = task->n_rows > 4 * MICRO_ROWS_MAX ? n_panels : guided_tiles(n_panels, threads);
    return n_row_tiles * task->n_unit_tiles;
}

static void add_product(struct packed_prepared *p, struct packed_task *task, uint32_t rowwise_tiles)
{
    const struct op *op = task->op;
    task->m = &p->weights->matrices[op->weight];
    bool quantised = op > p->program->ops && op[-1].kind == OP_NORM && op[-1].out == op->in &&
                     p->compact_before != (uint32_t)(op - p->program->ops);
    if (quantises(p) && !quantised)
        add_phase(p, task, &phase_quantise, rowwise_tiles);
    add_phase(p, task, &phase_product, cut(task, task->m->n_panels, task->m->k));
}

static void add_shortlist(struct packed_prepared *p, struct packed_task *task, uint32_t rowwise_tiles)
{
    task->m = &p->weights->matrices[task->op->weight];
    p->products = 0;
    add_phase(p, task, &phase_shortlist_rows, rowwise_tiles);
    add_phase(p, task, &phase_logit_bounds, cut(task, p->shortlist->n_panels, p->shortlist->k));
    add_phase(p, task, &phase_shortlist_threshold, task->n_rows);
    add_phase(p, task, &phase_shortlist_products, (task->m->n_panels + KEPT_TILE - 1) / KEPT_TILE);
}

/* Whether a row's bounds and the products after them read less than the head, on average. */
static bool paid(const struct packed_prepared *p)
{
    const struct packed_matrix *m = &p->weights->matrices[p->weights->head];
    return p->shortlist->panel_bytes * m->n_panels + m->panel_bytes * p->products / p->n_logits <
           m->panel_bytes * m->n_panels;
}

/* Whether this step uses the shortlist: every row wants only its best logits, and shortlists have been
 * paying. */
static bool shortlists(struct packed_prepared *p)
{
    bool best = p->shortlist != NULL;
    for (uint32_t i = 0; i < p->n_logits && best; i++)
        best = top_k_of(p->wants[i]) > 0;
    if (best && p->full_steps > 0) {
        p->full_steps--;
        return false;
    }
    return best;
}

static void add_attend(struct packed_prepared *p, struct packed_task *task)
{
    const struct op *op = task->op;
    uint32_t heads = p->program->heads, last = 0;
    task->attend = (struct attend){ .kernels = p->device->kernels,
                                    .kv = p->kv,
                                    .q = p->rows[op->in],
                                    .out = p->rows[op->out],
                                    .ld_q = p->ld[op->in],
                                    .ld_out = p->ld[op->out],
                                    .positions = task->positions,
                                    .layer = op->layer,
                                    .scale = op->scale };
    for (uint32_t r = 0; r < task->n_rows; r++)
        last = task->positions[r] > last ? task->positions[r] : last;
    task->n_chunks = last / ATTEND_CHUNK + 1;
    size_t parts = (size_t)task->n_rows * heads * task->n_chunks * attend_part_size(p->kv);
    bool split = task->n_chunks > 1 && task->n_blocks * heads < 4 * pool_threads(p->device->pool) &&
                 parts <= p->attend_parts_size;
    if (split) {
        add_phase(p, task, &phase_attend_chunks, task->n_blocks * heads * task->n_chunks);
        add_phase(p, task, &phase_attend_merge, task->n_rows);
    } else {
        task->n_units = task->n_blocks * heads;
        task->n_unit_tiles = guided_tiles(task->n_units, pool_threads(p->device->pool));
        add_phase(p, task, &phase_attend, task->n_unit_tiles);
    }
}

/* Groups rows of one slot into blocks.  A chunk's keys are transposed once for all rows of a block, but there
 * must be work for every thread. */
static uint32_t find_blocks(const struct packed_prepared *p, struct attend_rows *blocks,
                            const uint32_t *slots, uint32_t n_rows)
{
    uint32_t heads = p->program->heads, wanted = (4 * pool_threads(p->device->pool) + heads - 1) / heads;
    uint32_t max = (n_rows / wanted + MICRO_ROWS_MAX) / MICRO_ROWS_MAX * MICRO_ROWS_MAX;
    uint32_t n = 0;
    for (uint32_t r = 0; r < n_rows; r++) {
        if (n > 0 && blocks[n - 1].slot == slots[r] && blocks[n - 1].n < smaller(max, ATTEND_ROWS))
            blocks[n - 1].n++;
        else
            blocks[n++] = (struct attend_rows){ .first = r, .n = 1, .slot = slots[r] };
    }
    return n;
}

static void plan(struct packed_prepared *p, const struct batch *batch)
{
    const struct program *program = p->program;
    struct packed_task task = { .p = p,
                                .n_rows = batch->n_rows,
                                .positions = batch->positions,
                                .slots = batch->slots,
                                .blocks = p->blocks,
                                .n_blocks = find_blocks(p, p->blocks, batch->slots, batch->n_rows) };
    p->n_phases = 0;
    for (uint32_t i = 0; i < program->n_ops; i++) {
        const struct op *op = &program->ops[i];
        if (p->has_logits && i == p->compact_before) {
            if (p->n_logits == 0)
                return; /* only the cache is wanted */
            add_phase(p, &task, &phase_compact, 1);
            task.n_rows = p->n_logits;
            task.positions = p->positions;
            task.slots = p->slots;
            task.blocks = p->wanted_blocks;
            task.n_blocks = find_blocks(p, p->wanted_blocks, p->slots, p->n_logits);
        }
        uint32_t rowwise_tiles = (task.n_rows + ROWWISE_ROWS - 1) / ROWWISE_ROWS;
        task.op = op;
        switch (op->kind) {
        case OP_EMBED:
            add_phase(p, &task, &phase_embed, rowwise_tiles);
            break;
        case OP_NORM:
            task.then_quantise =
                quantises(p) && i + 1 < program->n_ops && is_product(op + 1) && op[1].in == op->out;
            add_phase(p, &task, &phase_norm, rowwise_tiles);
            break;
        case OP_LOGITS:
            p->shortlisted = shortlists(p);
            if (p->shortlisted) {
                add_shortlist(p, &task, rowwise_tiles);
                break;
            }
            for (uint32_t r = 0; r < p->n_logits && p->shortlist; r++)
                p->bounds.threshold[r] = -INFINITY;
            /* fall through */
        case OP_LINEAR:
            add_product(p, &task, rowwise_tiles);
            break;
        case OP_ATTEND:
            add_attend(p, &task);
            break;
        }
    }
}

/* Adds up what phases took by wall clock, in a row for each kind and shape of product. */
static void count_phases(const struct packed_prepared *p, uint64_t start_ns)
{
    for (uint32_t i = 0; i < p->n_phases; start_ns = p->end_ns[i++]) {
        const struct packed_task *task = p->phases[i].argument;
        char name[sizeof((struct profile_row *)NULL)->name];
        if (task->name)
            snprintf(name, sizeof name, "%s", task->name);
        else
            snprintf(name, sizeof name, "product %u x %u%s", task->m->k, task->m->n,
                     task->op->epilogue == EPILOGUE_QKV          ? ", to cache"
                     : task->op->epilogue == EPILOGUE_ACTIVATION ? ", activated"
                                                                 : "");
        profile_add(p->device->profile, name, p->end_ns[i] - start_ns);
    }
}

enum cinf_status packed_run(struct prepared *prepared, const struct batch *batch)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    p->n_logits = 0;
    TRY(batch_check(batch, p->program, p->rows_max, p->kv->slots));
    for (uint32_t r = 0; r < batch->n_rows && p->has_logits; r++) {
        if (batch->wants_logits[r] == LOGITS_NONE)
            continue;
        p->wanted[p->n_logits] = r;
        p->wants[p->n_logits] = batch->wants_logits[r];
        p->positions[p->n_logits] = batch->positions[r];
        p->slots[p->n_logits++] = batch->slots[r];
    }
    p->batch = batch;
    p->shortlisted = false;
    plan(p, batch);
    uint64_t start_ns = p->end_ns ? clock_monotonic_ns() : 0;
    pool_run_timed(p->device->pool, p->phases, p->n_phases, p->end_ns);
    if (p->end_ns)
        count_phases(p, start_ns);
    if (p->shortlisted && !paid(p))
        p->full_steps = FULL_STEPS;
    return CINF_OK;
}

enum cinf_status packed_wait(struct prepared *prepared)
{
    (void)prepared; /* run() has done it all */
    return CINF_OK;
}

enum cinf_status packed_logits(struct prepared *prepared, uint32_t i, const float **out)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    if (i >= p->n_logits)
        return cinf_fail(CINF_EINVAL, "logits %u of a step that made %u", i, p->n_logits);
    if (p->shortlist && top_k_of(p->wants[i]) > 0)
        return cinf_fail(CINF_EINVAL, "all logits of row %u, which wanted the best", i);
    *out = p->logits + (size_t)i * p->ld_logits;
    return CINF_OK;
}

enum cinf_status packed_allow(struct prepared *prepared, const uint8_t *allowed)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    if (!p->shortlist)
        return cinf_fail(CINF_EINVAL, "logits of these weights are not picked from");
    for (uint32_t id = 0; id < p->shortlist->n; id++)
        p->bounds.floors[id] = allowed[id / 8] >> id % 8 & 1 ? 0 : -INFINITY;
    return CINF_OK;
}

enum cinf_status packed_top_k(struct prepared *prepared, uint32_t i, struct top_k *out)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    if (i >= p->n_logits || !p->shortlist || top_k_of(p->wants[i]) == 0)
        return cinf_fail(CINF_EINVAL, "the best logits of row %u of %u, which did not want them", i,
                         p->n_logits);
    shortlist_top_k(out, &p->bounds, i, p->shortlist, p->logits + (size_t)i * p->ld_logits,
                    top_k_of(p->wants[i]));
    return CINF_OK;
}
