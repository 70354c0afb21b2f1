/* packed_phases.c - what each kind of phase of a step does with one of its tiles.
 *
 * The result of every phase for a row is independent of the other rows and of the threads; see
 * packed_kernels.h. */
#include <string.h>

#include "packed_prepared.h"

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

/* The bias of outputs [column, column + PANEL) of a product. */
static const float *product_bias(const struct packed_prepared *p, const struct op *op, size_t column)
{
    return op->kind == OP_LOGITS || op->bias == NO_WEIGHT ? zeros : vector(p, op->bias) + column;
}

/* The row behind a row-wise tile. */
static uint32_t end_of_tile(const struct packed_task *task, uint32_t tile)
{
    return smaller((tile + 1) * ROWWISE_ROWS, task->n_rows);
}

/* ---- Phases ------------------------------------------------------------------------------- */

static void embed_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct packed_task *task = argument;
    struct packed_prepared *p = task->p;
    const struct op *op = task->op;
    float *position = scratch_of(p, worker);
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(task, tile); r++) {
        float *out = row_of(p, op->out, r);
        packed_row(out, p->weights, op->weight, (uint32_t)p->batch->tokens[r]);
        if (op->weight2 == NO_WEIGHT)
            continue;
        packed_row(position, p->weights, op->weight2, task->positions[r]);
        for (uint32_t i = 0; i < p->program->width; i++)
            out[i] += position[i];
    }
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
    const struct packed_task *task = argument;
    const struct packed_prepared *p = task->p;
    const struct op *op = task->op;
    const float *bias = op->bias == NO_WEIGHT ? p->no_bias : vector(p, op->bias);
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(task, tile); r++) {
        p->device->kernels->norm(row_of(p, op->out, r), row_of(p, op->in, r), vector(p, op->weight), bias,
                                 p->program->width, op->epsilon);
        if (task->then_quantise)
            quantise_row(p, op->out, r);
    }
}

static void quantise_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct packed_task *task = argument;
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(task, tile); r++)
        quantise_row(task->p, task->op->in, r);
}

/* Moves the wanted rows to the front in every buffer, because the rest of the program may read any. */
static void compact(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)tile;
    (void)worker;
    struct packed_prepared *p = ((const struct packed_task *)argument)->p;
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
static void multiply(const struct packed_task *task, uint32_t panel, uint32_t row, uint32_t n, float *acc,
                     float *converted)
{
    const struct packed_prepared *p = task->p;
    const struct packed_kernels *kernels = p->device->kernels;
    const struct packed_matrix *m = task->m;
    const unsigned char *elements = m->elements + panel * m->panel_bytes;
    const float *in = row_of(p, task->op->in, row);
    size_t ld = p->ld[task->op->in];
    enum weights_type type = m->type;
    if (quantises(p)) {
        struct int8_rows rows = quantised(p);
        if (type == WEIGHTS_INT8)
            kernels->gemm_int8(acc, &rows, row, n, elements, (m->k + 3) / 4 * 4);
        else
            kernels->gemm_int4(acc, &rows, row, n, elements, (m->k + GROUP4 - 1) / GROUP4 * GROUP4);
        return;
    }
    if (n <= MICRO_ROWS_MAX) {
        gemm_kernel *product = type == WEIGHTS_F32   ? kernels->gemm_f32
                               : type == WEIGHTS_F16 ? kernels->gemm_f16
                                                     : kernels->gemm_bf16;
        product(acc, PANEL, in, ld, n, elements, PANEL, m->k, false, (struct prefetch){ NULL, 0, 0 });
        return;
    }
    const size_t line = m->panel_bytes / m->k;
    for (uint32_t k = 0; k < m->k; k += K_BLOCK) {
        uint32_t lines = smaller(K_BLOCK, m->k - k);
        const unsigned char *block = elements + k * line;
        struct prefetch prefetch = { block + K_BLOCK * line, K_BLOCK * line, 64 };
        if (type == WEIGHTS_F16)
            kernels->convert_f16(converted, (const uint16_t *)(const void *)block, (size_t)lines * PANEL);
        if (type == WEIGHTS_BF16)
            kernels->convert_bf16(converted, (const uint16_t *)(const void *)block, (size_t)lines * PANEL);
        kernels->gemm_f32(acc, PANEL, in + k, ld, n, type == WEIGHTS_F32 ? (const void *)block : converted,
                          PANEL, lines, k > 0, prefetch);
    }
}

/* Puts columns [column, column + PANEL) of the n rows' query, key and value, y[n][PANEL], where they belong.
 */
static void put_qkv(const struct packed_task *task, uint32_t column, uint32_t row, uint32_t n, const float *y)
{
    const struct packed_prepared *p = task->p;
    const struct op *op = task->op;
    const struct cpu_kv *kv = p->kv;
    const uint32_t width = kv->head_width, keys = op->q_cols, values = keys + op->k_cols;
    const uint32_t end = smaller(column + PANEL, values + op->v_cols);
    for (uint32_t c = column, run; c < end; c += run) { /* run: columns of one head */
        const uint32_t first = c < keys ? 0 : c < values ? keys : values;
        const uint32_t head = (c - first) / width, i = (c - first) % width;
        const float *from = y + (c - column);
        run = smaller(end - c, width - i);
        for (uint32_t r = row; r < row + n; r++, from += PANEL) {
            if (c < keys) {
                memcpy(row_of(p, op->out, r) + c, from, run * sizeof *from);
                continue;
            }
            unsigned char *to = c < values ? cpu_kv_keys(kv, task->slots[r], op->layer, head)
                                           : cpu_kv_values(kv, task->slots[r], op->layer, head);
            to += cpu_kv_bytes(kv, (size_t)task->positions[r] * kv->line + i);
            if (kv->format.f16)
                p->device->kernels->convert_to_f16((uint16_t *)(void *)to, from, run);
            else
                memcpy(to, from, run * sizeof *from);
        }
    }
}

struct range {
    uint32_t begin, end;
};

/* How many of `left` units of about equal size a thread takes: three quarters of its share, then of its share
 * of the rest, down to one (guided self-scheduling; Polychronopoulos and Kuck, 1987).  Memory is read in long
 * runs, and at the end no thread waits long. */
static uint32_t guided_units(uint32_t left, uint32_t threads)
{
    uint32_t n = left * 3 / 4 / threads;
    return n > 0 ? n : 1;
}

uint32_t guided_tiles(uint32_t n_units, uint32_t threads)
{
    uint32_t n = 0;
    for (uint32_t left = n_units; left > 0; n += threads)
        left -= smaller(left, threads * guided_units(left, threads));
    return n;
}

/* The units of a tile; none, if too few are left. */
static struct range units_of(const struct packed_task *task, uint32_t tile)
{
    uint32_t threads = pool_threads(task->p->device->pool), left = task->n_units;
    tile %= task->n_unit_tiles;
    if (task->n_unit_tiles == task->n_units) /* one at a time */
        return (struct range){ tile, tile + 1 };
    for (; tile >= threads; tile -= threads)
        left -= smaller(left, threads * guided_units(left, threads));
    uint32_t n = guided_units(left, threads), begin = task->n_units - left + smaller(left, tile * n);
    return (struct range){ begin, smaller(begin + n, task->n_units) };
}

static void product_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct packed_task *task = argument;
    const struct packed_prepared *p = task->p;
    const struct packed_kernels *kernels = p->device->kernels;
    const struct op *op = task->op;
    const struct packed_matrix *m = task->m;
    float *acc = scratch_of(p, worker), *converted = acc + ROWS_TILE_MAX * PANEL;
    uint32_t row = tile / task->n_unit_tiles * task->rows_tile,
             n = smaller(task->rows_tile, task->n_rows - row);
    const struct range panels = units_of(task, tile);
    for (uint32_t panel = panels.begin; panel < panels.end; panel++) {
        size_t column = (size_t)panel * PANEL;
        const float *scale = m->scales ? m->scales + column : ones, *bias = product_bias(p, op, column);
        multiply(task, panel, row, n, acc, converted);
        if (op->kind == OP_LOGITS) {
            kernels->finish(p->logits + row * p->ld_logits + column, p->ld_logits, acc, n, scale, bias,
                            FINISH_STORE, op->activation);
            continue;
        }
        if (op->epilogue == EPILOGUE_QKV && column + PANEL > op->q_cols) {
            kernels->finish(acc, PANEL, acc, n, scale, bias, FINISH_STORE, op->activation);
            put_qkv(task, (uint32_t)column, row, n, acc);
            continue;
        }
        enum finish how = op->epilogue == EPILOGUE_ADD          ? FINISH_ADD
                          : op->epilogue == EPILOGUE_ACTIVATION ? FINISH_ACTIVATE
                                                                : FINISH_STORE;
        kernels->finish(row_of(p, op->out, row) + column, p->ld[op->out], acc, n, scale, bias, how,
                        op->activation);
    }
}

/* Quantises the input of the head, for the product with its copy, and finds the factors of its bounds. */
static void shortlist_row_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct packed_task *task = argument;
    const struct packed_prepared *p = task->p;
    const struct int8_rows rows = quantised(p);
    for (uint32_t r = tile * ROWWISE_ROWS; r < end_of_tile(task, tile); r++) {
        quantise_row(p, task->op->in, r);
        shortlist_row(&p->bounds, r, p->shortlist, row_of(p, task->op->in, r), &rows);
    }
}

static void logit_bounds_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct packed_task *task = argument;
    const struct packed_prepared *p = task->p;
    const struct shortlist_rows *bounds = &p->bounds;
    const struct int8_rows rows = quantised(p);
    const struct shortlist *shortlist = p->shortlist;
    float *acc = scratch_of(p, worker);
    uint32_t row = tile / task->n_unit_tiles * task->rows_tile,
             n = smaller(task->rows_tile, task->n_rows - row);
    const struct range panels = units_of(task, tile);
    for (uint32_t panel = panels.begin; panel < panels.end; panel++) {
        p->device->kernels->gemm_int8(acc, &rows, row, n, shortlist->panels + panel * shortlist->panel_bytes,
                                      (shortlist->k + 3) / 4 * 4);
        for (uint32_t i = 0; i < n; i++) {
            size_t place = (size_t)(row + i) * shortlist->n_panels + panel;
            p->device->kernels->logit_bounds(&bounds->upper[place], &bounds->lower[place],
                                             acc + (size_t)i * PANEL, &shortlist->bounds[panel],
                                             bounds->floors + (size_t)panel * PANEL, bounds->a[row + i],
                                             bounds->b[row + i]);
        }
    }
}

static void shortlist_threshold_tile(const void *argument, uint32_t row, uint32_t worker)
{
    (void)worker;
    const struct packed_prepared *p = ((const struct packed_task *)argument)->p;
    shortlist_threshold(&p->bounds, row, p->shortlist, top_k_of(p->wants[row]));
}

/* Computes the logits of the panels on the shortlist. */
static void shortlist_product_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct packed_task *task = argument;
    struct packed_prepared *p = task->p;
    float *acc = scratch_of(p, worker), *converted = acc + ROWS_TILE_MAX * PANEL;
    uint32_t panel = tile * KEPT_TILE, end = smaller(panel + KEPT_TILE, task->m->n_panels);
    for (; panel < end; panel++) {
        for (uint32_t row = 0, n; row < task->n_rows; row += n) {
            for (n = 0; n < ROWS_TILE_MAX && row + n < task->n_rows &&
                        shortlist_keeps(&p->bounds, row + n, p->shortlist, panel);)
                n++;
            if (n == 0) {
                n = 1;
                continue;
            }
            multiply(task, panel, row, n, acc, converted);
            p->device->kernels->finish(p->logits + row * p->ld_logits + (size_t)panel * PANEL, p->ld_logits,
                                       acc, n, ones, zeros, FINISH_STORE, task->op->activation);
            p->products += n;
        }
    }
}

/* The heads of a block of rows stand together.  The last blocks come first, because they have the longest
 * past. */
static const struct attend_rows *block_of(const struct packed_task *task, uint32_t unit)
{
    return &task->blocks[task->n_blocks - 1 - unit / task->p->program->heads];
}

static void attend_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct packed_task *task = argument;
    const uint32_t heads = task->p->program->heads;
    const struct range units = units_of(task, tile);
    for (uint32_t u = units.begin; u < units.end; u++) {
        const unsigned char *following = NULL;
        if (u + 1 < units.end)
            following =
                cpu_kv_keys(task->p->kv, block_of(task, u + 1)->slot, task->op->layer, (u + 1) % heads);
        attend_all(&task->attend, block_of(task, u), u % heads, following, scratch_of(task->p, worker));
    }
}

static float *parts_of(const struct packed_task *task, uint32_t row, uint32_t head)
{
    size_t place = (size_t)head * task->n_rows + row;
    return task->p->attend_parts + place * task->n_chunks * attend_part_size(task->p->kv);
}

static void attend_chunk_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct packed_task *task = argument;
    uint32_t heads = task->p->program->heads, chunk = tile % task->n_chunks,
             head = tile / task->n_chunks % heads;
    const struct attend_rows *block = &task->blocks[tile / task->n_chunks / heads];
    attend_chunk(&task->attend, block, head, chunk, parts_of(task, block->first, head), task->n_chunks,
                 scratch_of(task->p, worker));
}

static void attend_merge_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    const struct packed_task *task = argument;
    uint32_t heads = task->p->program->heads;
    for (uint32_t head = 0; head < heads; head++)
        attend_merge(&task->attend, tile, head, parts_of(task, tile, head), scratch_of(task->p, worker));
}

/* ---- The kinds ---------------------------------------------------------------------------- */

const struct phase_kind phase_embed = { "embed", embed_tile };
const struct phase_kind phase_norm = { "norm", norm_tile };
const struct phase_kind phase_quantise = { "quantise", quantise_tile };
const struct phase_kind phase_compact = { "compact", compact };
const struct phase_kind phase_product = { NULL, product_tile };
const struct phase_kind phase_attend = { "attend", attend_tile };
const struct phase_kind phase_attend_chunks = { "attend, chunks", attend_chunk_tile };
const struct phase_kind phase_attend_merge = { "attend, merge", attend_merge_tile };
const struct phase_kind phase_shortlist_rows = { "shortlist, rows", shortlist_row_tile };
const struct phase_kind phase_logit_bounds = { "shortlist", logit_bounds_tile };
const struct phase_kind phase_shortlist_threshold = { "shortlist, threshold", shortlist_threshold_tile };
const struct phase_kind phase_shortlist_products = { "shortlist, products", shortlist_product_tile };
