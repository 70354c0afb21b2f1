/* opencl_prepare.h - a program on the device: kernels with their arguments bound, and the buffers that they
 * share. */
#ifndef OPENCL_PREPARE_H
#define OPENCL_PREPARE_H

#include "opencl_kv.h"
#include "opencl_product.h"
#include "opencl_weights.h"

enum {
    LOGITS_ROWS = 64,    /* rows of logits that are on the device at a time: a chunk */
    SPLIT_ROWS_MAX = 16, /* more single rows than this occupy the device without splitting their pasts */
    WIDEN_GROUP = 64,    /* work-items, of VECTOR elements each */
};

enum attend_kernel { ATTEND_SINGLE, ATTEND_JOIN, ATTEND_TILE, ATTEND_KERNELS };

/* The kernels of an operation.  Those that its kind does not have are NULL. */
struct op_kernels {
    cl_kernel simple;                   /* OP_EMBED, OP_NORM */
    cl_kernel product[PRODUCT_KERNELS]; /* OP_LINEAR, OP_LOGITS */
    cl_kernel attend[ATTEND_KERNELS];   /* OP_ATTEND */
};

/* The kernels around the head's product, for each chunk of rows that want logits. */
enum chunk_kernel { CHUNK_GATHER, CHUNK_PICK, CHUNK_JOIN, CHUNK_KERNELS };

struct opencl_prepared {
    struct prepared base;
    struct opencl_weights *weights;
    struct opencl_kv *kv;
    const struct program *program;
    uint32_t rows_max, splits_max;

    struct op_kernels *kernels;            /* [n_ops] */
    cl_kernel (*chunks)[CHUNK_KERNELS];    /* [n_chunks] */
    struct opencl_buffer rows[ROWS_COUNT]; /* [rows_max and a few, stride]; those that the program names */
    struct opencl_buffer wanted;           /* [LOGITS_ROWS, stride] the head's input */
    struct opencl_buffer logits;           /* [LOGITS_ROWS, V] */
    struct opencl_buffer parts;            /* of split attention */
    struct opencl_buffer no_bias;          /* zeros, for operations without one; if all have one, nothing */
    struct opencl_buffer product, panel,
        temp; /* for CLBlast: [rows_max, n]; float32 weights; its own memory */

    struct opencl_buffer step, step_pinned, logits_pinned;
    uint32_t *step_words; /* step_pinned, mapped */
    float *logits_first;  /* logits_pinned, mapped: [LOGITS_ROWS, V] */
    float *logits_rest;   /* [rows_max - LOGITS_ROWS, V], for scoring; touched only when used */
    uint32_t n_logits, n_chunks;
    struct opencl_buffer allowed, pick_parts; /* bits; [LOGITS_ROWS, pieces, PICK_WORDS(TOP_K_MAX)] */
    struct opencl_buffer picks, picks_pinned; /* [rows_max, PICK_WORDS(best_max)] */
    const uint32_t *pick_words;               /* picks_pinned, mapped */
    uint8_t *best;                            /* [rows_max] best logits that the i-th wanted row asks for */
    uint32_t best_max;                        /* the largest of them in this step */
    uint32_t n_warm;                          /* warm-up launches so far, of opencl_prepare_more() */
    cl_event done;                            /* the end of the step that is under way, or NULL */
};

enum cinf_status opencl_prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max);
void opencl_prepared_free(struct prepared *prepared);

static inline struct opencl_device *prepared_device(const struct opencl_prepared *p)
{
    return (struct opencl_device *)p->base.device;
}

/* Elements from one row of a row buffer to the next. */
static inline uint32_t prepared_stride(const struct opencl_prepared *p, enum row_buffer buffer)
{
    return (uint32_t)round_up(row_width(p->program, buffer), VECTOR);
}

/* Pieces of PICK_PIECE logits in a row. */
static inline uint32_t prepared_pieces(const struct opencl_prepared *p)
{
    return (p->program->vocab + PICK_PIECE - 1) / PICK_PIECE;
}

#endif
