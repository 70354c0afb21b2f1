/* cpu_plain.h - what CPU backends that keep weights as row-major float32 share: weights, row buffers and the
 * order of operations.  Such a backend differs only in how it computes. */
#ifndef CPU_PLAIN_H
#define CPU_PLAIN_H

#include "cpu_kv.h"

struct cpu_weights {
    struct weights base;
    struct weight_spec *specs; /* [n_specs] */
    uint32_t n_specs;
    float **matrices; /* [n_specs], each [rows, cols] row-major at a multiple of 64 bytes */
    void *block;      /* all of them lie in it */
};

struct cpu_prepared {
    struct prepared base;
    struct cpu_weights *weights;
    struct cpu_kv *kv;
    const struct program *program;
    uint32_t rows_max;
    float *rows[ROWS_COUNT]; /* [rows_max, width] */
    float *logits;           /* [rows_max, V], the first n_logits of them valid */
    uint32_t n_logits;
    void *scratch; /* the backend's own, as large as it asked for */
    void *block;   /* all of these lie in it */
};

/* ---- Entries of struct backend ------------------------------------------------------------- */

enum cinf_status cpu_weights_new(struct weights **out, struct device *device, const struct weight_spec *specs,
                                 uint32_t n_specs, enum weights_type type);
void cpu_weights_free(struct weights *weights);
enum cinf_status cpu_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                   const void *elements, enum cinf_dtype dtype);
enum cinf_status cpu_weights_finish(struct weights *weights, bool *done);
uint64_t cpu_weights_bytes(const struct weights *weights);

enum cinf_status cpu_kv_new(struct kv **out, struct device *device, const struct program *program,
                            uint32_t slots);
uint64_t cpu_kv_slot_bytes(const struct device *device, const struct program *program);

enum cinf_status cpu_prepared_new(struct prepared **out, struct weights *weights, struct kv *kv,
                                  const struct program *program, uint32_t rows_max, uint64_t scratch_bytes);
void cpu_prepared_free(struct prepared *prepared);

/* What such a backend computes in its own way.  A step applies these to all rows, one operation after the
 * other. */
struct cpu_ops {
    void (*norm)(const struct cpu_prepared *p, const struct op *op, const struct batch *batch);
    void (*linear)(const struct cpu_prepared *p, const struct op *op, const struct batch *batch);
    void (*attend)(const struct cpu_prepared *p, const struct op *op, const struct batch *batch);
    void (*logits)(struct cpu_prepared *p, const struct op *op,
                   const struct batch *batch); /* sets n_logits */
};
enum cinf_status cpu_run(struct prepared *prepared, const struct batch *batch, const struct cpu_ops *ops);
enum cinf_status cpu_wait(struct prepared *prepared); /* run() has done it all */
enum cinf_status cpu_logits(struct prepared *prepared, uint32_t i, const float **out);

/* ---- For the operations ------------------------------------------------------------------- */

/* The weight, row-major; NULL for NO_WEIGHT. */
static inline const float *cpu_weight(const struct cpu_prepared *p, uint32_t index)
{
    return index == NO_WEIGHT ? NULL : p->weights->matrices[index];
}

/* [positions, D/H] of one head. */
static inline float *cpu_keys(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    return (float *)(void *)cpu_kv_keys(kv, slot, layer, head);
}

static inline float *cpu_values(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    return (float *)(void *)cpu_kv_values(kv, slot, layer, head);
}

#endif
