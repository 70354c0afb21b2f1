/* packed_prepared.h - a program bound to its weights and cache, and the buffers of a step.
 *
 * packed_prepare.c makes it; packed_step.c turns a batch into phases for the pool (packed_pool.h), whose work
 * is in packed_phases.c. */
#ifndef PACKED_PREPARED_H
#define PACKED_PREPARED_H

#include "packed_attend.h"
#include "packed_device.h"
#include "packed_kv.h"
#include "packed_weights.h"

enum {
    K_BLOCK = 192, /* lines of a panel that stay in the first-level cache for many rows: 24 KiB */
    ROWS_TILE_MAX = 240,
    ROWWISE_ROWS = 4,  /* rows of a tile of norm, embedding, quantising */
    PHASES_PER_OP = 4, /* at most */
    KEPT_TILE =
        16, /* panels of a tile of the head after the bounds, most of which are not on the shortlist */
};

struct packed_prepared {
    struct prepared base;
    struct packed_device *device;
    struct packed_weights *weights;
    struct cpu_kv *kv;
    const struct program *program;
    uint32_t rows_max, n_logits;
    bool has_logits;
    uint32_t compact_before; /* the operation before which wanted rows move to the front */

    void *block; /* all arrays lie in it */

    float *rows[ROWS_COUNT]; /* [rows_max, ld] */
    size_t ld[ROWS_COUNT];
    float *logits; /* [rows_max, ld_logits] */
    size_t ld_logits;

    /* The input of the next product in int8 (struct int8_rows), for int8 and int4 weights and for the
     * shortlist. */
    int8_t *q;
    float *q_scales, *q_out_number;
    int32_t *q_offsets, *q_offsets4;
    uint32_t *q_n_out, *q_out_at;
    size_t q_stride, q_groups;

    /* Finds the best logits without computing all of them; NULL: all are always computed. */
    struct shortlist *shortlist;
    struct shortlist_rows bounds;
    bool shortlisted;          /* in this step */
    uint32_t full_steps;       /* steps left to run without the shortlist */
    _Atomic uint32_t products; /* of a row and a panel, after the bounds */

    float *no_bias; /* [D] zeros, for a norm without one; NULL: each has one */
    float *scratch; /* [threads][scratch_size] */
    size_t scratch_size;
    float *attend_parts; /* of steps whose attention is split over chunks */
    size_t attend_parts_size;

    /* The step. */
    const struct batch *batch;
    struct attend_rows *blocks;        /* [rows_max] */
    uint32_t *wanted;                  /* [rows_max], rows that want logits */
    uint8_t *wants;                    /* [rows_max], what each of them wants */
    uint32_t *positions, *slots;       /* [rows_max], of wanted rows */
    struct attend_rows *wanted_blocks; /* [rows_max] */
    struct packed_task *tasks;         /* [n_phases] */
    struct pool_phase *phases;
    uint64_t *end_ns; /* of phases; NULL without a profile */
    uint32_t n_phases;
};

/* What a phase works on. */
struct packed_task {
    struct packed_prepared *p;
    const char *name; /* for the profile; NULL: a product, which is named by its shape */
    const struct op *op;
    const struct packed_matrix *m; /* products */
    uint32_t n_rows;
    const uint32_t *positions, *slots; /* [n_rows] */
    bool then_quantise;                /* norm: the next product takes int8 */

    /* Tiles of rows_tile rows and some of n_units units, rows outermost.  A unit is a panel of a product; in
     * attention it is a head of a block of rows, where rows are not cut again. */
    uint32_t rows_tile, n_units, n_unit_tiles;

    /* Attention. */
    struct attend attend;
    const struct attend_rows *blocks;
    uint32_t n_blocks, n_chunks;
};

/* Floats from one row to the next: whole panels, and not a multiple of 4096 bytes, because such rows would
 * compete for the same lines of the cache. */
static inline size_t row_stride(size_t width)
{
    return (width + PANEL - 1) / PANEL * PANEL + 16;
}

static inline uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Whether products take their input in int8. */
static inline bool quantises(const struct packed_prepared *p)
{
    return p->weights->type == WEIGHTS_INT8 || p->weights->type == WEIGHTS_INT4;
}

static inline bool is_product(const struct op *op)
{
    return op->kind == OP_LINEAR || op->kind == OP_LOGITS;
}

/* ---- Phases (packed_phases.c) ------------------------------------------------------------- */

/* A kind of phase; work() takes a struct packed_task. */
struct phase_kind {
    const char *name; /* NULL: named by the product's shape */
    void (*work)(const void *task, uint32_t tile, uint32_t worker);
};

/* Tiles of ROWWISE_ROWS rows. */
extern const struct phase_kind phase_embed, phase_norm, phase_quantise, phase_shortlist_rows;

/* One tile. */
extern const struct phase_kind phase_compact;

/* Tiles of rows and units. */
extern const struct phase_kind phase_product, phase_logit_bounds, phase_attend;

/* A tile for each row. */
extern const struct phase_kind phase_shortlist_threshold, phase_attend_merge;

/* Tiles of KEPT_TILE panels, and tiles of a block of rows, a head and a chunk. */
extern const struct phase_kind phase_shortlist_products, phase_attend_chunks;

/* Tiles that n_units units of about equal size are cut into. */
uint32_t guided_tiles(uint32_t n_units, uint32_t threads);

/* ---- Entries of struct backend ------------------------------------------------------------ */

enum cinf_status packed_prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max);
void packed_prepared_free(struct prepared *prepared);

enum cinf_status packed_run(struct prepared *prepared, const struct batch *batch);
enum cinf_status packed_wait(struct prepared *prepared);
enum cinf_status packed_logits(struct prepared *prepared, uint32_t i, const float **out);
enum cinf_status packed_allow(struct prepared *prepared, const uint8_t *allowed);
enum cinf_status packed_top_k(struct prepared *prepared, uint32_t i, struct top_k *out);

#endif
