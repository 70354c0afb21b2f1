/* packed_attend.h - causal attention over the packed cache.
 *
 * This is online softmax over chunks of the past: the scores of some rows against one chunk, their
 * exponentials, and the sum of the values that they weigh are merged into what earlier chunks gave.  The
 * score matrix of a prompt is never built.
 *
 * The invariant of packed_kernels.h holds here because chunks begin at multiples of ATTEND_CHUNK whatever the
 * batch, and are merged in ascending order, whether one thread went through them or several. */
#ifndef PACKED_ATTEND_H
#define PACKED_ATTEND_H

#include "cpu_kv.h"
#include "packed_kernels.h"

enum {
    ATTEND_CHUNK = 128, /* positions */
    ATTEND_ROWS = 128,  /* rows that read a chunk together, at most */
};

/* Rows of one slot at ascending positions. */
struct attend_rows {
    uint32_t first, n; /* of the batch */
    uint32_t slot;
};

struct attend {
    const struct packed_kernels *kernels;
    const struct cpu_kv *kv;
    const float *q; /* [R, ld_q] */
    float *out;     /* [R, ld_out] */
    size_t ld_q, ld_out;
    const uint32_t *positions; /* [R] */
    uint32_t layer;
    float scale;
};

/* Floats of scratch that a worker needs, and floats of the part of one row, head and chunk. */
size_t attend_scratch(const struct cpu_kv *kv);
size_t attend_part_size(const struct cpu_kv *kv);

/* One head of these rows, over all of their past. `following` are the keys that this thread reads next, which
 * are prefetched; NULL: unknown. */
void attend_all(const struct attend *a, const struct attend_rows *rows, uint32_t head,
                const unsigned char *following, float *scratch);

/* The same in two steps: one chunk to parts [rows.n][n_chunks], as far as each row sees it; then one row's
 * parts to out. */
void attend_chunk(const struct attend *a, const struct attend_rows *rows, uint32_t head, uint32_t chunk,
                  float *parts, uint32_t n_chunks, float *scratch);
void attend_merge(const struct attend *a, uint32_t row, uint32_t head, const float *parts, float *scratch);

#endif
