/* packed_attend.c - see packed_attend.h. */
#include "packed_attend.h"

#include <string.h>

/* What some positions contribute to one row: the sums of exp(score - max) * value and of exp(score - max). */
struct part {
    float max, sum;
    float *values; /* [line] */
};

/* A worker's scratch. */
struct scratch {
    float *keys;   /* [line][ATTEND_CHUNK], of the current chunk */
    float *scores; /* [MICRO_ROWS_MAX][ATTEND_CHUNK] */
    float *parts;  /* [MICRO_ROWS_MAX][line] */
    float *sums;   /* [ATTEND_ROWS][line] */
};

static struct scratch scratch_in(float *scratch, const struct cpu_kv *kv)
{
    float *scores = scratch + (size_t)ATTEND_CHUNK * kv->line,
          *parts = scores + MICRO_ROWS_MAX * ATTEND_CHUNK;
    return (struct scratch){ scratch, scores, parts, parts + (size_t)MICRO_ROWS_MAX * kv->line };
}

size_t attend_scratch(const struct cpu_kv *kv)
{
    return MICRO_ROWS_MAX * ATTEND_CHUNK + (size_t)(ATTEND_CHUNK + MICRO_ROWS_MAX + ATTEND_ROWS) * kv->line;
}

size_t attend_part_size(const struct cpu_kv *kv)
{
    return kv->line + 16; /* max and sum, and whole cache lines */
}

/* How many positions of the chunk that begins at `begin` row `row` sees. */
static uint32_t seen(const struct attend *a, uint32_t row, uint32_t begin)
{
    uint32_t past = a->positions[row] + 1;
    return past <= begin ? 0 : past - begin < ATTEND_CHUNK ? past - begin : ATTEND_CHUNK;
}

/* Transposes the keys of the chunk that begins at `begin` into columns, as far as row `last` sees them, and
 * prefetches the values of the same positions. */
static void transpose_keys(const struct attend *a, uint32_t slot, uint32_t head, uint32_t begin,
                           uint32_t last, const struct scratch *s)
{
    const struct cpu_kv *kv = a->kv;
    transpose_kernel *transpose = kv->format.f16 ? a->kernels->transpose_f16 : a->kernels->transpose_f32;
    size_t at = cpu_kv_bytes(kv, (size_t)begin * kv->line);
    transpose(s->keys, ATTEND_CHUNK, cpu_kv_keys(kv, slot, a->layer, head) + at, kv->line,
              seen(a, last, begin), kv->head_width, cpu_kv_values(kv, slot, a->layer, head) + at);
}

/* Rows [row, row + n), n <= MICRO_ROWS_MAX, all of which see some of the chunk, whose keys are transposed.
 * `next_keys` will be read next; NULL: unknown. */
static void chunk_of_rows(const struct attend *a, uint32_t slot, uint32_t head, uint32_t begin, uint32_t row,
                          uint32_t n, const unsigned char *next_keys, const struct scratch *s,
                          struct part *parts)
{
    const struct cpu_kv *kv = a->kv;
    const unsigned char *values =
        cpu_kv_values(kv, slot, a->layer, head) + cpu_kv_bytes(kv, (size_t)begin * kv->line);
    gemv_kernel *scores_of = kv->format.f16 ? a->kernels->gemv_f32_before_f16 : a->kernels->gemv_f32;
    gemv_kernel *one_row = kv->format.f16 ? a->kernels->gemv_f16 : a->kernels->gemv_f32;
    const float *q = a->q + row * a->ld_q + (size_t)head * kv->head_width;
    uint32_t min = seen(a, row, begin), max = seen(a, row + n - 1, begin);
    uint32_t max_padded = (max + PANEL - 1) / PANEL * PANEL;
    if (n == 1)
        scores_of(s->scores, q, s->keys, ATTEND_CHUNK, max_padded, kv->head_width, false,
                  next_keys ? (const void *)next_keys : s->keys);
    for (uint32_t t = 0; t < max_padded && n > 1; t += PANEL)
        a->kernels->gemm_f32(s->scores + t, ATTEND_CHUNK, q, a->ld_q, n, s->keys + t, ATTEND_CHUNK,
                             kv->head_width, false, (struct prefetch){ s->keys, 0, 0 });
    for (uint32_t i = 0; i < n; i++)
        a->kernels->softmax(s->scores + i * ATTEND_CHUNK, seen(a, row + i, begin), a->scale, &parts[i].max,
                            &parts[i].sum);
    /* First the positions that all rows see, then each row's own: a value that a row must not see may be
     * anything, even a NaN, and 0 * NaN is not 0. */
    const size_t line = cpu_kv_bytes(kv, PANEL);
    for (uint32_t c = 0; c < kv->line && n > 1; c += PANEL) {
        const size_t part = ATTEND_CHUNK * line;
        struct prefetch prefetch = { next_keys ? next_keys + c / PANEL * part : values, next_keys ? part : 0,
                                     line };
        (kv->format.f16 ? a->kernels->gemm_f16
                        : a->kernels->gemm_f32)(s->parts + c, kv->line, s->scores, ATTEND_CHUNK, n,
                                                values + cpu_kv_bytes(kv, c), kv->line, min, false, prefetch);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t own = seen(a, row + i, begin), from = n == 1 ? 0 : min;
        const unsigned char *its = values + cpu_kv_bytes(kv, (size_t)from * kv->line);
        parts[i].values = s->parts + i * kv->line;
        if (own > from)
            one_row(parts[i].values, s->scores + i * ATTEND_CHUNK + from, its, kv->line, kv->line, own - from,
                    from > 0, n == 1 && next_keys ? next_keys : its);
    }
}

/* Adds `part` to `into`, whose sum is 0 while it is empty. */
static void merge(const struct attend *a, struct part *into, const struct part *part)
{
    if (into->sum != 0) {
        a->kernels->merge(into->values, &into->max, &into->sum, part->values, part->max, part->sum,
                          a->kv->line);
        return;
    }
    memcpy(into->values, part->values, a->kv->line * sizeof *part->values);
    into->max = part->max;
    into->sum = part->sum;
}

static void put_out(const struct attend *a, uint32_t row, uint32_t head, const struct part *part)
{
    uint32_t width = a->kv->head_width;
    a->kernels->scale(part->values, part->values, a->kv->line, 1 / part->sum);
    memcpy(a->out + row * a->ld_out + (size_t)head * width, part->values, width * sizeof *a->out);
}

void attend_all(const struct attend *a, const struct attend_rows *rows, uint32_t head,
                const unsigned char *following, float *scratch)
{
    struct scratch s = scratch_in(scratch, a->kv);
    struct part sums[ATTEND_ROWS], parts[MICRO_ROWS_MAX];
    for (uint32_t i = 0; i < rows->n; i++)
        sums[i] = (struct part){ 0, 0, s.sums + i * a->kv->line };
    const uint32_t last_row = rows->first + rows->n - 1, last = a->positions[last_row];
    for (uint32_t begin = 0; begin <= last; begin += ATTEND_CHUNK) {
        transpose_keys(a, rows->slot, head, begin, last_row, &s);
        const uint32_t next = begin + ATTEND_CHUNK;
        const unsigned char *next_keys = next > last ? following
                                                     : cpu_kv_keys(a->kv, rows->slot, a->layer, head) +
                                                           cpu_kv_bytes(a->kv, (size_t)next * a->kv->line);
        for (uint32_t i = 0, n; i < rows->n; i += n) {
            n = rows->n - i < MICRO_ROWS_MAX ? rows->n - i : MICRO_ROWS_MAX;
            uint32_t blind = 0;
            while (blind < n && seen(a, rows->first + i + blind, begin) == 0)
                blind++;
            if (blind == n)
                continue;
            chunk_of_rows(a, rows->slot, head, begin, rows->first + i + blind, n - blind, next_keys, &s,
                          parts);
            for (uint32_t j = 0; j < n - blind; j++)
                merge(a, &sums[i + blind + j], &parts[j]);
        }
    }
    for (uint32_t i = 0; i < rows->n; i++)
        put_out(a, rows->first + i, head, &sums[i]);
}

void attend_chunk(const struct attend *a, const struct attend_rows *rows, uint32_t head, uint32_t chunk,
                  float *parts, uint32_t n_chunks, float *scratch)
{
    struct scratch s = scratch_in(scratch, a->kv);
    struct part done[MICRO_ROWS_MAX];
    size_t size = attend_part_size(a->kv);
    uint32_t begin = chunk * ATTEND_CHUNK;
    transpose_keys(a, rows->slot, head, begin, rows->first + rows->n - 1, &s);
    for (uint32_t i = 0; i < rows->n; i++) {
        /* One row at a time, because steps that are split have few rows. */
        if (seen(a, rows->first + i, begin) == 0)
            continue;
        chunk_of_rows(a, rows->slot, head, begin, rows->first + i, 1, NULL, &s, done);
        float *to = parts + (i * n_chunks + chunk) * size;
        to[0] = done[0].max;
        to[1] = done[0].sum;
        memcpy(to + 16, done[0].values, a->kv->line * sizeof *to);
    }
}

void attend_merge(const struct attend *a, uint32_t row, uint32_t head, const float *parts, float *scratch)
{
    struct scratch s = scratch_in(scratch, a->kv);
    struct part sum = { 0, 0, s.sums };
    for (uint32_t begin = 0; begin <= a->positions[row]; begin += ATTEND_CHUNK) {
        struct part part = { parts[0], parts[1], (float *)(uintptr_t)(parts + 16) };
        merge(a, &sum, &part);
        parts += attend_part_size(a->kv);
    }
    put_out(a, row, head, &sum);
}
