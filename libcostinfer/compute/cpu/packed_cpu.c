/* packed_cpu.c - device "cpu": weights in panels, kernels for the processor at hand, a pool of threads.
 *
 * A step becomes a list of phases for the pool (packed_pool.h), made anew for each batch because their tiles
 * depend on its rows; that takes a microsecond.  Every phase's result for a row is independent of the other
 * rows and of the threads, see packed_kernels.h, so a request's logits are the same in whatever company.
 *
 * After the last layer has put its keys and values into the cache, only rows that want logits matter: they
 * move to the front there, and the rest of the program runs for them alone. */
#define _GNU_SOURCE /* _SC_LEVEL2_CACHE_SIZE */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "mem.h"
#include "packed_attend.h"
#include "packed_memory.h"

enum {
    K_BLOCK = 192, /* lines of a panel that stay in the first-level cache for many rows: 24 KiB */
    ROWS_TILE_MAX = 240,
    ROWWISE_ROWS = 4, /* rows of a tile of norm, embedding, quantising */
    PHASES_PER_OP = 4,
    KEPT_TILE = 16,  /* panels of a tile after a scan, most of which have nothing to compute */
    FULL_STEPS = 32, /* after a scan that did not pay, steps without */
};

/* ---- A prepared program ------------------------------------------------------------------- */

struct packed_prepared {
    struct prepared base;
    struct packed_device *device;
    struct packed_weights *weights;
    struct packed_kv *kv;
    const struct program *program;
    uint32_t rows_max, n_logits;
    bool has_logits;
    uint32_t compact_before; /* the operation before which wanted rows move to the front */

    float *rows[ROWS_COUNT]; /* [rows_max, ld] */
    size_t ld[ROWS_COUNT];
    float *logits; /* [rows_max, ld_logits] */
    size_t ld_logits;

    /* int8 and int4: the input of the next product. */
    int8_t *q;
    float *q_scales, *q_out_number;
    int32_t *q_offsets, *q_offsets4;
    uint32_t *q_n_out, *q_out_at;
    size_t q_stride, q_groups;

    /* Where the best logits are found by a scan; NULL: all are always computed. */
    struct scan *scan;
    struct scan_rows bounds;
    bool scanned;              /* in this step */
    uint32_t full_steps;       /* that are left */
    _Atomic uint32_t products; /* of a row and a panel, after the scan */

    float *scratch; /* [threads][scratch_size] */
    size_t scratch_size;
    float *attend_parts; /* of steps whose attention is split over chunks */
    size_t attend_parts_size;

    /* The step. */
    const struct batch *batch;
    struct attend_rows *blocks;        /* [rows_max] */
    uint32_t *wanted;                  /* [rows_max], rows that want logits */
    uint8_t *wants;                    /* [rows_max], how many of them */
    uint32_t *positions, *slots;       /* [rows_max], of wanted rows */
    struct attend_rows *wanted_blocks; /* [rows_max] */
    struct job *jobs;
    struct pool_phase *phases;
    uint64_t *end_ns; /* of phases; NULL without a profile */
    uint32_t n_phases;
};

/* What a phase works on. */
struct job {
    struct packed_prepared *p;
    const struct op *op;
    const struct packed_matrix *m; /* products */
    uint32_t n_rows;
    const uint32_t *positions, *slots; /* [n_rows] */
    bool then_quantise;                /* norm: the next product takes int8 */

    /* Tiles of rows_tile rows and some of n_units units, rows outermost.  A unit is a panel of a product; in
     * attention a head of a block of rows, where rows are not cut again. */
    uint32_t rows_tile, n_units, n_unit_tiles;

    /* Attention. */
    struct attend attend;
    const struct attend_rows *blocks;
    uint32_t n_blocks, n_chunks;
};

static const float ones[PANEL] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
static const float zeros[PANEL];

static float *row_of(const struct packed_prepared *p, enum row_buffer buffer, size_t row)
{
    return p->rows[buffer] + row * p->ld[buffer];
}

static float *scratch_of(const struct packed_prepared *p, uint32_t worker)
{
    return p->scratch + worker * p->scratch_size;
}

static const float *vector(const struct packed_prepared *p, uint32_t index)
{
    return (const float *)(const void *)p->weights->matrices[index].elements;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The rows of a row-wise tile. */
static uint32_t end_of_tile(const struct job *job, uint32_t tile)
{
    return smaller((tile + 1) * ROWWISE_ROWS, job->n_rows);
}

/* ---- Phases ------------------------------------------------------------------------------- */

static void embed_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct job *job = argument;
    struct packed_prepared *p = job->p;
    const struct op *op = job->op;
    float *position = scratch_of(p, worker);
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(job, tile); r++) {
        float *out = row_of(p, op->out, r);
        packed_row(out, p->weights, op->weight, (uint32_t)p->batch->tokens[r]);
        packed_row(position, p->weights, op->weight2, job->positions[r]);
        for (uint32_t i = 0; i < p->program->width; i++)
            out[i] += position[i];
    }
}

/* Whether products take their input in int8. */
static bool quantises(const struct packed_prepared *p)
{
    return p->weights->type == WEIGHTS_INT8 || p->weights->type == WEIGHTS_INT4;
}

static void quantise_row(const struct packed_prepared *p, enum row_buffer buffer, size_t row)
{
    p->device->kernels->quantise(
        p->q + row * p->q_stride, p->q_scales + row * p->q_groups, p->q_offsets + row * p->q_groups,
        p->weights->type == WEIGHTS_INT4 ? p->q_offsets4 + row * p->q_groups * GROUPS4 : NULL,
        p->q_n_out + row, p->q_out_at + row * OUTLIERS_MAX, p->q_out_number + row * OUTLIERS_MAX,
        row_of(p, buffer, row), row_width(p->program, buffer));
}

static void norm_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct job *job = argument;
    const struct packed_prepared *p = job->p;
    const struct op *op = job->op;
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(job, tile); r++) {
        p->device->kernels->norm(row_of(p, op->out, r), row_of(p, op->in, r), vector(p, op->weight),
                                 vector(p, op->bias), p->program->width, op->epsilon);
        if (job->then_quantise)
            quantise_row(p, op->out, r);
    }
}

static void quantise_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct job *job = argument;
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(job, tile); r++)
        quantise_row(job->p, job->op->in, r);
}

/* Wanted rows of the buffers that the rest of the program may read move to the front. */
static void compact(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)tile;
    (void)worker;
    struct packed_prepared *p = ((const struct job *)argument)->p;
    for (uint32_t i = 0; i < p->n_logits; i++) {
        for (int b = 0; b < ROWS_COUNT && p->wanted[i] != i; b++)
            memcpy(row_of(p, (enum row_buffer)b, i), row_of(p, (enum row_buffer)b, p->wanted[i]),
                   row_width(p->program, (enum row_buffer)b) * sizeof(float));
    }
}

static struct int8_rows quantised(const struct packed_prepared *p)
{
    return (struct int8_rows){ p->q,        p->q_scales, p->q_offsets,
                               p->q_n_out,  p->q_out_at, p->q_out_number,
                               p->q_stride, p->q_groups, p->q_offsets4 };
}

/* acc[n][PANEL] = in[row … row+n) * panel, before scales. */
static void multiply(const struct job *job, uint32_t panel, uint32_t row, uint32_t n, float *acc,
                     float *expanded)
{
    const struct packed_prepared *p = job->p;
    const struct packed_kernels *kernels = p->device->kernels;
    const struct packed_matrix *m = job->m;
    const unsigned char *elements = m->elements + panel * m->panel_bytes;
    const float *in = row_of(p, job->op->in, row);
    size_t ld = p->ld[job->op->in];
    enum weights_type type = m->type;
    if (quantises(p)) {
        struct int8_rows rows = quantised(p);
        if (type == WEIGHTS_INT8)
            kernels->product_int8(acc, &rows, row, n, elements, (m->k + 3) / 4 * 4);
        else
            kernels->product_int4(acc, &rows, row, n, elements, (m->k + GROUP4 - 1) / GROUP4 * GROUP4);
        return;
    }
    if (n <= ROWS_BLOCK) {
        product_kernel *product = type == WEIGHTS_F32   ? kernels->product_f32
                                  : type == WEIGHTS_F16 ? kernels->product_f16
                                                        : kernels->product_bf16;
        product(acc, PANEL, in, ld, n, elements, PANEL, m->k, false, (struct ahead){ NULL, 0, 0 });
        return;
    }
    const size_t line = m->panel_bytes / m->k;
    for (uint32_t k = 0; k < m->k; k += K_BLOCK) {
        uint32_t lines = smaller(K_BLOCK, m->k - k);
        const unsigned char *block = elements + k * line;
        struct ahead ahead = { block + K_BLOCK * line, K_BLOCK * line, 64 };
        if (type == WEIGHTS_F16)
            kernels->expand_f16(expanded, (const uint16_t *)(const void *)block, (size_t)lines * PANEL);
        if (type == WEIGHTS_BF16)
            kernels->expand_bf16(expanded, (const uint16_t *)(const void *)block, (size_t)lines * PANEL);
        kernels->product_f32(acc, PANEL, in + k, ld, n, type == WEIGHTS_F32 ? (const void *)block : expanded,
                             PANEL, lines, k > 0, ahead);
    }
}

/* Columns [column, column + PANEL) of query, key, value [3D] of n rows, y[n][PANEL], to where they belong. */
static void put_qkv(const struct job *job, uint32_t column, uint32_t row, uint32_t n, const float *y)
{
    const struct packed_prepared *p = job->p;
    const struct packed_kv *kv = p->kv;
    const uint32_t d = p->program->width, width = kv->head_width, layer = job->op->layer;
    const uint32_t end = smaller(column + PANEL, 3 * d);
    for (uint32_t c = column, run; c < end; c += run) { /* columns of one head */
        const uint32_t head = c % d / width, i = c % d % width;
        const float *from = y + (c - column);
        run = smaller(end - c, width - i);
        for (uint32_t r = row; r < row + n; r++, from += PANEL) {
            if (c < d) {
                memcpy(row_of(p, job->op->out, r) + c, from, run * sizeof *from);
                continue;
            }
            unsigned char *to = c < 2 * d ? packed_keys(kv, job->slots[r], layer, head)
                                          : packed_values(kv, job->slots[r], layer, head);
            to += packed_kv_bytes(kv, (size_t)job->positions[r] * kv->line + i);
            if (kv->half)
                p->device->kernels->narrow_f16((uint16_t *)(void *)to, from, run);
            else
                memcpy(to, from, run * sizeof *from);
        }
    }
}

struct range {
    uint32_t begin, end;
};

/* What each thread takes of `left` units that are about equal: three quarters of its share, then of its share
 * of the rest, down to one (guided self-scheduling; Polychronopoulos and Kuck, 1987).  Memory is read in long
 * runs, and in the end nobody waits long. */
static uint32_t guided_units(uint32_t left, uint32_t threads)
{
    uint32_t n = left * 3 / 4 / threads;
    return n > 0 ? n : 1;
}

static uint32_t guided_tiles(uint32_t n_units, uint32_t threads)
{
    uint32_t n = 0;
    for (uint32_t left = n_units; left > 0; n += threads)
        left -= smaller(left, threads * guided_units(left, threads));
    return n;
}

/* The units of a tile, if any are left for it. */
static struct range units_of(const struct job *job, uint32_t tile)
{
    uint32_t threads = pool_threads(job->p->device->pool), left = job->n_units;
    tile %= job->n_unit_tiles;
    if (job->n_unit_tiles == job->n_units) /* one at a time */
        return (struct range){ tile, tile + 1 };
    for (; tile >= threads; tile -= threads)
        left -= smaller(left, threads * guided_units(left, threads));
    uint32_t n = guided_units(left, threads), begin = job->n_units - left + smaller(left, tile * n);
    return (struct range){ begin, smaller(begin + n, job->n_units) };
}

static void product_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct job *job = argument;
    const struct packed_prepared *p = job->p;
    const struct packed_kernels *kernels = p->device->kernels;
    const struct op *op = job->op;
    const struct packed_matrix *m = job->m;
    float *acc = scratch_of(p, worker), *expanded = acc + ROWS_TILE_MAX * PANEL;
    uint32_t row = tile / job->n_unit_tiles * job->rows_tile, n = smaller(job->rows_tile, job->n_rows - row);
    const struct range panels = units_of(job, tile);
    for (uint32_t panel = panels.begin; panel < panels.end; panel++) {
        size_t column = (size_t)panel * PANEL;
        const float *scale = m->scales ? m->scales + column : ones;
        multiply(job, panel, row, n, acc, expanded);
        if (op->kind == OP_LOGITS) {
            kernels->finish(p->logits + row * p->ld_logits + column, p->ld_logits, acc, n, scale, zeros,
                            FINISH_STORE, op->activation);
            continue;
        }
        const float *bias = vector(p, op->bias) + column;
        if (op->epilogue == EPILOGUE_QKV && column + PANEL > p->program->width) {
            kernels->finish(acc, PANEL, acc, n, scale, bias, FINISH_STORE, op->activation);
            put_qkv(job, (uint32_t)column, row, n, acc);
            continue;
        }
        enum finish how = op->epilogue == EPILOGUE_ADD          ? FINISH_ADD
                          : op->epilogue == EPILOGUE_ACTIVATION ? FINISH_ACTIVATE
                                                                : FINISH_STORE;
        kernels->finish(row_of(p, op->out, row) + column, p->ld[op->out], acc, n, scale, bias, how,
                        op->activation);
    }
}

/* The input of the head, for its copy. */
static void scan_row_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct job *job = argument;
    const struct packed_prepared *p = job->p;
    const struct int8_rows rows = quantised(p);
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(job, tile); r++) {
        quantise_row(p, job->op->in, r);
        scan_row(&p->bounds, r, p->scan, row_of(p, job->op->in, r), &rows);
    }
}

static void scan_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct job *job = argument;
    const struct packed_prepared *p = job->p;
    const struct scan_rows *bounds = &p->bounds;
    const struct int8_rows rows = quantised(p);
    const struct scan *scan = p->scan;
    float *acc = scratch_of(p, worker);
    uint32_t row = tile / job->n_unit_tiles * job->rows_tile, n = smaller(job->rows_tile, job->n_rows - row);
    const struct range panels = units_of(job, tile);
    for (uint32_t panel = panels.begin; panel < panels.end; panel++) {
        p->device->kernels->product_int8(acc, &rows, row, n, scan->panels + panel * scan->panel_bytes,
                                         (scan->k + 3) / 4 * 4);
        for (uint32_t i = 0; i < n; i++) {
            size_t place = (size_t)(row + i) * scan->n_panels + panel;
            p->device->kernels->bound(&bounds->upper[place], &bounds->lower[place], acc + (size_t)i * PANEL,
                                      &scan->bounds[panel], bounds->floors + (size_t)panel * PANEL,
                                      bounds->a[row + i], bounds->b[row + i]);
        }
    }
}

static void scan_threshold_tile(const void *argument, uint32_t row, uint32_t worker)
{
    (void)worker;
    const struct packed_prepared *p = ((const struct job *)argument)->p;
    scan_threshold(&p->bounds, row, p->scan, p->wants[row] - 1);
}

/* The logits of panels that may hold one of the best. */
static void scan_product_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct job *job = argument;
    struct packed_prepared *p = job->p;
    float *acc = scratch_of(p, worker), *expanded = acc + ROWS_TILE_MAX * PANEL;
    uint32_t panel = tile * KEPT_TILE, end = smaller(panel + KEPT_TILE, job->m->n_panels);
    for (; panel < end; panel++) {
        for (uint32_t row = 0, n; row < job->n_rows; row += n) {
            for (n = 0; n < ROWS_TILE_MAX && row + n < job->n_rows &&
                        scan_keeps(&p->bounds, row + n, p->scan, panel);)
                n++;
            if (n == 0) {
                n = 1;
                continue;
            }
            multiply(job, panel, row, n, acc, expanded);
            p->device->kernels->finish(p->logits + row * p->ld_logits + (size_t)panel * PANEL, p->ld_logits,
                                       acc, n, ones, zeros, FINISH_STORE, job->op->activation);
            p->products += n;
        }
    }
}

/* Heads of a block of rows stand together.  The last blocks have the longest past, so they come first. */
static const struct attend_rows *block_of(const struct job *job, uint32_t unit)
{
    return &job->blocks[job->n_blocks - 1 - unit / job->p->program->heads];
}

static void attend_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct job *job = argument;
    const uint32_t heads = job->p->program->heads;
    const struct range units = units_of(job, tile);
    for (uint32_t u = units.begin; u < units.end; u++) {
        const unsigned char *then = NULL;
        if (u + 1 < units.end)
            then = packed_keys(job->p->kv, block_of(job, u + 1)->slot, job->op->layer, (u + 1) % heads);
        attend_all(&job->attend, block_of(job, u), u % heads, then, scratch_of(job->p, worker));
    }
}

static float *parts_of(const struct job *job, uint32_t row, uint32_t head)
{
    size_t place = (size_t)head * job->n_rows + row;
    return job->p->attend_parts + place * job->n_chunks * attend_part_size(job->p->kv);
}

static void attend_chunk_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct job *job = argument;
    uint32_t heads = job->p->program->heads, chunk = tile % job->n_chunks,
             head = tile / job->n_chunks % heads;
    const struct attend_rows *block = &job->blocks[tile / job->n_chunks / heads];
    attend_chunk(&job->attend, block, head, chunk, parts_of(job, block->first, head), job->n_chunks,
                 scratch_of(job->p, worker));
}

static void attend_merge_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct job *job = argument;
    uint32_t heads = job->p->program->heads;
    for (uint32_t head = 0; head < heads; head++)
        attend_merge(&job->attend, tile, head, parts_of(job, tile, head), scratch_of(job->p, worker));
}

/* ---- A step ------------------------------------------------------------------------------- */

static struct job *add_phase(struct packed_prepared *p, const struct job *job,
                             void (*work)(const void *, uint32_t, uint32_t), uint32_t n_tiles)
{
    struct job *added = &p->jobs[p->n_phases];
    *added = *job;
    p->phases[p->n_phases++] = (struct pool_phase){ work, added, n_tiles };
    return added;
}

static bool is_product(const struct op *op)
{
    return op->kind == OP_LINEAR || op->kind == OP_LOGITS;
}

/* Cuts n_panels panels of k lines and the job's rows into tiles; returns how many they are. */
static uint32_t cut(struct job *job, uint32_t n_panels, uint32_t k)
{
    const struct packed_prepared *p = job->p;
    /* Rows of a tile stay in half the second-level cache while panels pass by; tiles are as equal as they
     * can be, and whole blocks. */
    uint32_t threads = pool_threads(p->device->pool);
    size_t fit = p->device->cache_bytes / 2 / (k * sizeof(float)) / ROWS_BLOCK * ROWS_BLOCK;
    uint32_t most = fit < 4 * ROWS_BLOCK  ? 4 * ROWS_BLOCK
                    : fit > ROWS_TILE_MAX ? ROWS_TILE_MAX
                                          : (uint32_t)fit;
    assert(job->n_rows > 0);
    uint32_t n_row_tiles = (job->n_rows + most - 1) / most;
    job->rows_tile = (job->n_rows + n_row_tiles - 1) / n_row_tiles;
    if (n_row_tiles > 1)
        job->rows_tile = (job->rows_tile + ROWS_BLOCK - 1) / ROWS_BLOCK * ROWS_BLOCK;
    n_row_tiles = (job->n_rows + job->rows_tile - 1) / job->rows_tile;

    job->n_units = n_panels;
    job->n_unit_tiles = job->n_rows > 4 * ROWS_BLOCK ? n_panels : guided_tiles(n_panels, threads);
    return n_row_tiles * job->n_unit_tiles;
}

static void add_product(struct packed_prepared *p, struct job *job, uint32_t rowwise_tiles)
{
    const struct op *op = job->op;
    job->m = &p->weights->matrices[op->weight];
    bool quantised = op > p->program->ops && op[-1].kind == OP_NORM && op[-1].out == op->in &&
                     p->compact_before != (uint32_t)(op - p->program->ops);
    if (quantises(p) && !quantised)
        add_phase(p, job, quantise_tile, rowwise_tiles);
    add_phase(p, job, product_tile, cut(job, job->m->n_panels, job->m->k));
}

static void add_scan(struct packed_prepared *p, struct job *job, uint32_t rowwise_tiles)
{
    job->m = &p->weights->matrices[job->op->weight];
    p->products = 0;
    add_phase(p, job, scan_row_tile, rowwise_tiles);
    add_phase(p, job, scan_tile, cut(job, p->scan->n_panels, p->scan->k));
    add_phase(p, job, scan_threshold_tile, job->n_rows);
    add_phase(p, job, scan_product_tile, (job->m->n_panels + KEPT_TILE - 1) / KEPT_TILE);
}

/* Whether a row's scan and the products after it read less than the head, on average. */
static bool paid(const struct packed_prepared *p)
{
    const struct packed_matrix *m = &p->weights->matrices[p->weights->scan_of];
    return p->scan->panel_bytes * m->n_panels + m->panel_bytes * p->products / p->n_logits <
           m->panel_bytes * m->n_panels;
}

/* Whether every row wants only its best logits, and scans have been paying. */
static bool scans(struct packed_prepared *p)
{
    bool best = p->scan != NULL;
    for (uint32_t i = 0; i < p->n_logits && best; i++)
        best = p->wants[i] > 1;
    if (best && p->full_steps > 0) {
        p->full_steps--;
        return false;
    }
    return best;
}

static void add_attend(struct packed_prepared *p, struct job *job)
{
    const struct op *op = job->op;
    uint32_t heads = p->program->heads, most = 0;
    job->attend = (struct attend){ .kernels = p->device->kernels,
                                   .kv = p->kv,
                                   .q = p->rows[op->in],
                                   .out = p->rows[op->out],
                                   .ld_q = p->ld[op->in],
                                   .ld_out = p->ld[op->out],
                                   .positions = job->positions,
                                   .layer = op->layer,
                                   .scale = op->scale };
    for (uint32_t r = 0; r < job->n_rows; r++)
        most = job->positions[r] > most ? job->positions[r] : most;
    job->n_chunks = most / ATTEND_CHUNK + 1;
    size_t parts = (size_t)job->n_rows * heads * job->n_chunks * attend_part_size(p->kv);
    bool split = job->n_chunks > 1 && job->n_blocks * heads < 4 * pool_threads(p->device->pool) &&
                 parts <= p->attend_parts_size;
    if (split) {
        add_phase(p, job, attend_chunk_tile, job->n_blocks * heads * job->n_chunks);
        add_phase(p, job, attend_merge_tile, job->n_rows);
    } else {
        job->n_units = job->n_blocks * heads;
        job->n_unit_tiles = guided_tiles(job->n_units, pool_threads(p->device->pool));
        add_phase(p, job, attend_tile, job->n_unit_tiles);
    }
}

/* Rows of one slot in blocks: a chunk's keys are turned once for all of them, but there must be work for
 * every thread. */
static uint32_t find_blocks(const struct packed_prepared *p, struct attend_rows *blocks,
                            const uint32_t *slots, uint32_t n_rows)
{
    uint32_t heads = p->program->heads, wanted = (4 * pool_threads(p->device->pool) + heads - 1) / heads;
    uint32_t most = (n_rows / wanted + ROWS_BLOCK) / ROWS_BLOCK * ROWS_BLOCK;
    uint32_t n = 0;
    for (uint32_t r = 0; r < n_rows; r++) {
        if (n > 0 && blocks[n - 1].slot == slots[r] && blocks[n - 1].n < smaller(most, ATTEND_ROWS))
            blocks[n - 1].n++;
        else
            blocks[n++] = (struct attend_rows){ .first = r, .n = 1, .slot = slots[r] };
    }
    return n;
}

static void plan(struct packed_prepared *p, const struct batch *batch)
{
    const struct program *program = p->program;
    struct job job = { .p = p,
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
                return; /* the cache is all that is wanted */
            add_phase(p, &job, compact, 1);
            job.n_rows = p->n_logits;
            job.positions = p->positions;
            job.slots = p->slots;
            job.blocks = p->wanted_blocks;
            job.n_blocks = find_blocks(p, p->wanted_blocks, p->slots, p->n_logits);
        }
        uint32_t rowwise_tiles = (job.n_rows + ROWWISE_ROWS - 1) / ROWWISE_ROWS;
        job.op = op;
        switch (op->kind) {
        case OP_EMBED:
            add_phase(p, &job, embed_tile, rowwise_tiles);
            break;
        case OP_NORM:
            job.then_quantise =
                quantises(p) && i + 1 < program->n_ops && is_product(op + 1) && op[1].in == op->out;
            add_phase(p, &job, norm_tile, rowwise_tiles);
            break;
        case OP_LOGITS:
            p->scanned = scans(p);
            if (p->scanned) {
                add_scan(p, &job, rowwise_tiles);
                break;
            }
            for (uint32_t r = 0; r < p->n_logits && p->scan; r++)
                p->bounds.least[r] = -INFINITY;
            /* fall through */
        case OP_LINEAR:
            add_product(p, &job, rowwise_tiles);
            break;
        case OP_ATTEND:
            add_attend(p, &job);
            break;
        }
    }
}

/* What phases took by the clock on the wall, a row for each kind and shape of product. */
static void count_phases(const struct packed_prepared *p, uint64_t start_ns)
{
    static const struct {
        void (*work)(const void *job, uint32_t tile, uint32_t worker);
        const char *name;
    } kinds[] = { { embed_tile, "embed" },
                  { norm_tile, "norm" },
                  { quantise_tile, "quantise" },
                  { compact, "compact" },
                  { attend_tile, "attend" },
                  { attend_chunk_tile, "attend, chunks" },
                  { attend_merge_tile, "attend, merge" },
                  { scan_row_tile, "scan, rows" },
                  { scan_tile, "scan" },
                  { scan_threshold_tile, "scan, threshold" },
                  { scan_product_tile, "scan, products" } };
    for (uint32_t i = 0; i < p->n_phases; start_ns = p->end_ns[i++]) {
        const struct job *job = p->phases[i].job;
        char name[sizeof((struct profile_row *)NULL)->name];
        size_t kind = 0;
        while (kind < sizeof kinds / sizeof *kinds && kinds[kind].work != p->phases[i].work)
            kind++;
        if (kind < sizeof kinds / sizeof *kinds)
            snprintf(name, sizeof name, "%s", kinds[kind].name);
        else
            snprintf(name, sizeof name, "product %u x %u%s", job->m->k, job->m->n,
                     job->op->epilogue == EPILOGUE_QKV          ? ", to cache"
                     : job->op->epilogue == EPILOGUE_ACTIVATION ? ", activated"
                                                                : "");
        profile_add(p->device->profile, name, p->end_ns[i] - start_ns);
    }
}

static enum cinf_status run(struct prepared *prepared, const struct batch *batch)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    p->n_logits = 0;
    TRY(batch_check(batch, p->program, p->rows_max, p->kv->slots));
    for (uint32_t r = 0; r < batch->n_rows && p->has_logits; r++) {
        if (!batch->wants_logits[r])
            continue;
        p->wanted[p->n_logits] = r;
        p->wants[p->n_logits] = batch->wants_logits[r];
        p->positions[p->n_logits] = batch->positions[r];
        p->slots[p->n_logits++] = batch->slots[r];
    }
    p->batch = batch;
    p->scanned = false;
    plan(p, batch);
    uint64_t start_ns = p->end_ns ? clock_monotonic_ns() : 0;
    pool_run_timed(p->device->pool, p->phases, p->n_phases, p->end_ns);
    if (p->end_ns)
        count_phases(p, start_ns);
    if (p->scanned && !paid(p))
        p->full_steps = FULL_STEPS;
    return CINF_OK;
}

static enum cinf_status get_logits(struct prepared *prepared, uint32_t i, const float **out)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    if (i >= p->n_logits)
        return cinf_fail(CINF_EINVAL, "logits %u of a step that made %u", i, p->n_logits);
    if (p->scan && p->wants[i] > 1)
        return cinf_fail(CINF_EINVAL, "all logits of row %u, which wanted the best", i);
    *out = p->logits + (size_t)i * p->ld_logits;
    return CINF_OK;
}

static enum cinf_status allow(struct prepared *prepared, const uint8_t *allowed)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    if (!p->scan)
        return cinf_fail(CINF_EINVAL, "logits of these weights are not picked from");
    for (uint32_t id = 0; id < p->scan->n; id++)
        p->bounds.floors[id] = allowed[id / 8] >> id % 8 & 1 ? 0 : -INFINITY;
    return CINF_OK;
}

static enum cinf_status picked(struct prepared *prepared, uint32_t i, struct picked *out)
{
    struct packed_prepared *p = (struct packed_prepared *)prepared;
    if (i >= p->n_logits || !p->scan || p->wants[i] < 2)
        return cinf_fail(CINF_EINVAL, "the best logits of row %u of %u, which did not want them", i,
                         p->n_logits);
    scan_pick(out, &p->bounds, i, p->scan, p->logits + (size_t)i * p->ld_logits, p->wants[i] - 1);
    return CINF_OK;
}

/* ---- Preparing ---------------------------------------------------------------------------- */

static void prepared_free(struct prepared *base)
{
    if (!base)
        return;
    struct packed_prepared *p = (struct packed_prepared *)base;
    struct cpu_device *device = &p->device->cpu;
    void *blocks[] = { p->logits,   p->q,          p->q_scales,     p->q_out_number,  p->q_offsets,
                       p->q_n_out,  p->q_out_at,   p->scratch,      p->attend_parts,  p->blocks,
                       p->wanted,   p->positions,  p->slots,        p->jobs,          p->wanted_blocks,
                       p->phases,   p->q_offsets4, p->wants,        p->bounds.upper,  p->bounds.lower,
                       p->bounds.a, p->bounds.b,   p->bounds.least, p->bounds.floors, p->end_ns };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        cpu_free(device, blocks[i]);
    for (int b = 0; b < ROWS_COUNT; b++)
        cpu_free(device, p->rows[b]);
    cpu_free(device, p);
}

/* Floats from one row to the next: whole panels, and not a multiple of 4096 bytes, at which rows would
 * share lines of the cache. */
static size_t row_stride(size_t width)
{
    return (width + PANEL - 1) / PANEL * PANEL + 16;
}

static bool allocate(struct packed_prepared *p)
{
    struct cpu_device *device = &p->device->cpu;
    const struct program *program = p->program;
    size_t rows = p->rows_max, threads = pool_threads(p->device->pool), k_max = 0;
    bool complete = true;
    for (int b = 0; b < ROWS_COUNT; b++) {
        p->ld[b] = row_stride(row_width(program, (enum row_buffer)b));
        complete = complete && (p->rows[b] = cpu_new(device, rows * p->ld[b], sizeof(float)));
    }
    p->ld_logits = row_stride(program->vocab);
    p->logits = cpu_new(device, rows * p->ld_logits, sizeof(float));

    for (uint32_t i = 0; i < program->n_ops && quantises(p); i++) {
        if (is_product(&program->ops[i]) && row_width(program, program->ops[i].in) > k_max)
            k_max = row_width(program, program->ops[i].in);
    }
    struct scan_rows *bounds = &p->bounds;
    size_t n_bounds = 0, n_scan_rows = 0;
    if (p->scan) {
        k_max = p->scan->k;
        n_scan_rows = rows;
        n_bounds = p->scan->n_panels;
    }
    bounds->upper = cpu_new(device, n_scan_rows * n_bounds, sizeof(float));
    bounds->lower = cpu_new(device, n_scan_rows * n_bounds, sizeof(float));
    bounds->a = cpu_new(device, n_scan_rows, sizeof(float));
    bounds->b = cpu_new(device, n_scan_rows, sizeof(float));
    bounds->least = cpu_new(device, n_scan_rows, sizeof(float));
    bounds->floors = cpu_new(device, n_bounds * PANEL, sizeof(float));
    for (size_t id = p->scan ? p->scan->n : 0; bounds->floors && id < n_bounds * PANEL; id++)
        bounds->floors[id] = -INFINITY;

    p->q_groups = (k_max + GROUP - 1) / GROUP;
    p->q_stride = p->q_groups * GROUP + 64;
    p->q = cpu_new(device, rows * p->q_stride, 1);
    p->q_scales = cpu_new(device, rows * p->q_groups, sizeof(float));
    p->q_offsets = cpu_new(device, rows * p->q_groups, sizeof(int32_t));
    p->q_offsets4 = cpu_new(device, rows * p->q_groups * GROUPS4, sizeof(int32_t));
    p->q_n_out = cpu_new(device, rows, sizeof(uint32_t));
    p->q_out_at = cpu_new(device, rows * OUTLIERS_MAX, sizeof(uint32_t));
    p->q_out_number = cpu_new(device, rows * OUTLIERS_MAX, sizeof(float));

    size_t product = (size_t)(ROWS_TILE_MAX + K_BLOCK) * PANEL, attend = attend_scratch(p->kv);
    p->scratch_size = row_stride(product > attend ? product : attend);
    if (p->scratch_size < row_stride(program->width))
        p->scratch_size = row_stride(program->width);
    p->scratch = cpu_new(device, threads * p->scratch_size, sizeof(float));
    /* Split steps have fewer than 4 * threads blocks x heads; more rows than that in them are not split. */
    size_t chunks = (program->positions + ATTEND_CHUNK - 1) / ATTEND_CHUNK;
    p->attend_parts_size = 4 * threads * chunks * attend_part_size(p->kv);
    p->attend_parts = cpu_new(device, p->attend_parts_size, sizeof(float));

    size_t n_phases = (size_t)program->n_ops * PHASES_PER_OP + 1;
    p->blocks = cpu_new(device, rows, sizeof *p->blocks);
    p->wanted_blocks = cpu_new(device, rows, sizeof *p->wanted_blocks);
    p->wanted = cpu_new(device, rows, sizeof *p->wanted);
    p->wants = cpu_new(device, rows, sizeof *p->wants);
    p->positions = cpu_new(device, rows, sizeof *p->positions);
    p->slots = cpu_new(device, rows, sizeof *p->slots);
    p->jobs = cpu_new(device, n_phases, sizeof *p->jobs);
    p->phases = cpu_new(device, n_phases, sizeof *p->phases);
    if (p->device->profile)
        complete = (p->end_ns = cpu_new(device, n_phases, sizeof *p->end_ns)) && complete;
    return complete && p->logits && p->q && p->q_scales && p->q_offsets && p->q_offsets4 && p->q_n_out &&
           p->q_out_at && p->q_out_number && p->scratch && p->attend_parts && p->blocks && p->wanted_blocks &&
           p->wanted && p->wants && bounds->upper && bounds->lower && bounds->a && bounds->b &&
           bounds->least && bounds->floors && p->positions && p->slots && p->jobs && p->phases;
}

static bool fits_cache(const struct packed_kv *kv, const struct program *p)
{
    return kv->layers == p->layers && kv->heads == p->heads && kv->positions == p->positions &&
           kv->head_width == p->width / p->heads;
}

static enum cinf_status prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max)
{
    struct packed_device *device = (struct packed_device *)weights->device;
    const struct packed_weights *its = (const struct packed_weights *)weights;
    TRY(prepare_check(program, its->specs, its->n_specs, rows_max));
    if (!fits_cache((struct packed_kv *)kv, program))
        return cinf_fail(CINF_EINVAL, "the program is made for a cache of another shape");

    struct packed_prepared *p = cpu_new(&device->cpu, 1, sizeof *p);
    if (p) {
        p->base.device = weights->device;
        p->device = device;
        p->weights = (struct packed_weights *)weights;
        p->kv = (struct packed_kv *)kv;
        p->program = program;
        p->rows_max = rows_max;
        p->has_logits = program->n_ops > 0 && program->ops[program->n_ops - 1].kind == OP_LOGITS;
        if (p->has_logits && its->scan.n_panels > 0 &&
            program->ops[program->n_ops - 1].weight == its->scan_of) {
            p->scan = &p->weights->scan;
            p->base.picks = true;
            const struct packed_matrix *head = &its->matrices[its->scan_of];
            p->base.pick_spares = head->n_panels * (head->panel_bytes - p->scan->panel_bytes);
        }
        for (uint32_t i = 0; i < program->n_ops; i++) {
            if (program->ops[i].kind == OP_EMBED ||
                (program->ops[i].kind == OP_LINEAR && program->ops[i].epilogue == EPILOGUE_QKV))
                p->compact_before = i + 1;
        }
    }
    if (!p || !allocate(p)) {
        prepared_free((struct prepared *)p);
        return cinf_fail(CINF_ENOMEM, "no memory for steps of %u rows of width %u and logits of %u tokens",
                         rows_max, program->width, program->vocab);
    }
    *out = &p->base;
    return CINF_OK;
}

/* ---- The device --------------------------------------------------------------------------- */

static void close_device(struct device *base)
{
    struct packed_device *device = (struct packed_device *)base;
    pool_free(device->pool);
    mem_free(device->profile);
    mem_free(device);
}

static bool profile(struct device *base, uint32_t index, struct profile_row *out)
{
    struct packed_device *device = (struct packed_device *)base;
    return device->profile && profile_row(device->profile, index, out);
}

static void info(const struct device *device, struct device_info *out)
{
    cpu_device_info(device, out);
    out->half_cache = ((const struct packed_device *)device)->half_cache;
    out->rows_independent = true;
}

static enum cinf_status open_device(struct device **out, const struct device_options *options)
{
    const struct packed_kernels *kernels = packed_kernels_best();
    struct packed_device *device = mem_new(1, sizeof *device);
    if (!device)
        return cinf_fail(CINF_ENOMEM, "no memory for device %s", backend_cpu_packed.name);
    enum cinf_status status = pool_new(&device->pool, options->threads);
    if (status == CINF_OK && options->profile && !(device->profile = mem_new(1, sizeof *device->profile)))
        status = cinf_fail(CINF_ENOMEM, "no memory to profile device %s", backend_cpu_packed.name);
    char what[64];
    snprintf(what, sizeof what, "packed %s kernels", kernels->name);
    struct device *plain;
    if (status == CINF_OK)
        status = cpu_device_open(&plain, &backend_cpu_packed, what, pool_threads(device->pool));
    if (status != CINF_OK) {
        close_device((struct device *)device);
        return status;
    }
    const struct cpu_device *found = (const struct cpu_device *)plain;
    device->cpu.base = *plain;
    device->cpu.memory_total = found->memory_total;
    device->cpu.threads = found->threads;
    memcpy(device->cpu.description, found->description, sizeof found->description);
    cpu_device_close(plain);
    long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    device->kernels = kernels;
    device->half_cache = options->half_cache;
    device->cache_bytes = cache > 0 ? (size_t)cache : 512 << 10;
    *out = &device->cpu.base;
    return CINF_OK;
}

/* ---- Measuring ---------------------------------------------------------------------------- */

enum { MEASURE_K = 1024, MEASURE_ROWS = 96, PRODUCT_PANELS = 32, SAMPLES = 5 };

struct measure {
    const struct packed_kernels *kernels;
    float *panels; /* [n_panels][MEASURE_K][PANEL] */
    float *rows;   /* [MEASURE_ROWS][row_stride(MEASURE_K)] */
    float *acc;    /* [threads][MEASURE_ROWS][PANEL] */
    uint32_t n_rows;
};

static void measure_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct measure *job = argument;
    const size_t panel = (size_t)MEASURE_K * PANEL;
    job->kernels->product_f32(job->acc + (size_t)worker * MEASURE_ROWS * PANEL, PANEL, job->rows,
                              row_stride(MEASURE_K), job->n_rows, job->panels + tile * panel, PANEL,
                              MEASURE_K, false, (struct ahead){ NULL, 0, 0 });
}

/* The median of some runs, fewer when they take until `deadline_ns`: opening a device must not take long on
 * a busy machine either. */
static uint64_t time_of(struct pool *pool, struct measure *job, uint32_t rows, uint32_t panels,
                        uint64_t deadline_ns)
{
    uint64_t ns[SAMPLES], now = clock_monotonic_ns();
    uint32_t n = 0;
    struct pool_phase phase = { measure_tile, job, panels };
    job->n_rows = rows;
    while (n == 0 || (n < SAMPLES && now < deadline_ns)) {
        uint64_t start = now;
        pool_run(pool, &phase, 1);
        now = clock_monotonic_ns();
        ns[n++] = now - start;
    }
    return cpu_median(ns, n);
}

/* One row against more weights than the last cache holds, and many rows against few. */
static enum cinf_status measure(struct device *base, struct device_speed *out)
{
    struct packed_device *device = (struct packed_device *)base;
    const uint64_t start = clock_monotonic_ns();
    const size_t panel = (size_t)MEASURE_K * PANEL;
    uint32_t n_panels = (uint32_t)(cpu_measured_bytes() / (panel * sizeof(float)));
    struct measure job = {
        .kernels = device->kernels,
        .panels = cpu_new(&device->cpu, n_panels * panel, sizeof(float)),
        .rows = cpu_new(&device->cpu, MEASURE_ROWS * row_stride(MEASURE_K), sizeof(float)),
        .acc =
            cpu_new(&device->cpu, (size_t)pool_threads(device->pool) * MEASURE_ROWS * PANEL, sizeof(float)),
    };
    bool complete = job.panels && job.rows && job.acc;
    const size_t read_bytes = n_panels * panel * sizeof(float);
    assert(read_bytes > 0);
    if (complete) {
        /* A page that nobody wrote is the one page of zeros, which would be read from the cache. */
        for (size_t i = 0; i < n_panels * panel; i += 4096 / sizeof(float))
            job.panels[i] = 1;
        uint64_t product_ns = time_of(device->pool, &job, MEASURE_ROWS, PRODUCT_PANELS, start + 100000000);
        uint64_t read_ns = time_of(device->pool, &job, 1, n_panels, start + 160000000);
        out->as_per_flop = attoseconds_each(product_ns, 2 * MEASURE_ROWS * PRODUCT_PANELS * panel);
        out->as_per_byte = attoseconds_each(read_ns, read_bytes);
    }
    cpu_free(&device->cpu, job.panels);
    cpu_free(&device->cpu, job.rows);
    cpu_free(&device->cpu, job.acc);
    return complete ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory to measure device %s", base->backend->name);
}

static void parallel(struct device *base, void (*work)(const void *job, uint32_t i, uint32_t worker),
                     const void *job, uint32_t n)
{
    pool_run(((struct packed_device *)base)->pool, &(struct pool_phase){ work, job, n }, 1);
}

const struct backend backend_cpu_packed = {
    .name = "cpu",
    .open = open_device,
    .close = close_device,
    .info = info,
    .profile = profile,
    .measure = measure,
    .weights_new = packed_weights_new,
    .weights_free = packed_weights_free,
    .weights_write = packed_weights_write,
    .weights_finish = cpu_weights_finish,
    .weights_bytes = packed_weights_bytes,
    .kv_new = packed_kv_new,
    .kv_free = packed_kv_free,
    .kv_slot_bytes = packed_kv_slot_bytes,
    .kv_copy = packed_kv_copy,
    .prepare = prepare,
    .prepared_free = prepared_free,
    .run = run,
    .wait = cpu_wait,
    .logits = get_logits,
    .allow = allow,
    .picked = picked,
    .parallel = parallel,
};
