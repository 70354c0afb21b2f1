/* cpu_memory.h - what the CPU backends that keep weights as row-major float32 share: the device, weights,
 * the cache, row buffers and the count of their bytes.  Such a backend differs only in how it computes. */
#ifndef CPU_MEMORY_H
#define CPU_MEMORY_H

#include <stdatomic.h>

#include "backend_impl.h"

struct cpu_device {
    struct device base;
    _Atomic uint64_t memory_used; /* atomic: gauges are read from other threads */
    uint64_t memory_total;
    uint32_t threads;
    char description[160];
};

struct cpu_weights {
    struct weights base;
    struct weight_spec *specs;
    uint32_t n_specs;
    float **matrices; /* [n_specs], each [rows, cols] row-major at a multiple of 64 bytes */
    float *elements;  /* the block they lie in */
};

/* One slot of one layer, keys and then values alike:
 *
 *            position 0   position 1            position P-1
 *   head 0 | D/H floats | D/H floats | ...    | D/H floats |
 *   head 1 | ...
 *
 * Heads stand outermost, so that one head's past is a contiguous [positions, D/H] matrix. */
struct cpu_kv {
    struct kv base;
    uint32_t slots, layers, heads, positions;
    uint32_t head_width; /* D/H */
    float *elements;
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
};

/* ---- Memory ------------------------------------------------------------------------------- */

/* n * size bytes at a multiple of 64, zeroed, counted as the device's until cpu_free().  A large block costs
 * nothing but addresses until it is touched.  NULL when the product overflows or memory is exhausted. */
void *cpu_new(struct cpu_device *device, size_t n, size_t size);
void cpu_free(struct cpu_device *device, void *block);

/* How many bytes a device reads to be measured: more than its last cache holds, 64 to 256 MiB. */
size_t cpu_measured_bytes(void);

/* ---- Entries of struct backend ------------------------------------------------------------- */

/* `library` is named in the description. */
enum cinf_status cpu_device_open(struct device **out, const struct backend *backend, const char *library,
                                 uint32_t threads);
void cpu_device_close(struct device *device);
void cpu_device_info(const struct device *device, struct device_info *out);

enum cinf_status cpu_weights_new(struct weights **out, struct device *device, const struct weight_spec *specs,
                                 uint32_t n_specs, enum weights_type type);
void cpu_weights_free(struct weights *weights);
enum cinf_status cpu_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                   const void *elements, enum cinf_dtype dtype);
enum cinf_status cpu_weights_finish(struct weights *weights, bool *done);
uint64_t cpu_weights_bytes(const struct weights *weights);

enum cinf_status cpu_kv_new(struct kv **out, struct device *device, const struct program *program,
                            uint32_t slots);
void cpu_kv_free(struct kv *kv);
uint64_t cpu_kv_slot_bytes(const struct device *device, const struct program *program);
enum cinf_status cpu_kv_copy(struct kv *kv, uint32_t to, uint32_t from, uint32_t n);

enum cinf_status cpu_prepared_new(struct prepared **out, struct weights *weights, struct kv *kv,
                                  const struct program *program, uint32_t rows_max, uint64_t scratch_bytes);
void cpu_prepared_free(struct prepared *prepared);
/* What such a backend computes in its own way; a step is these over all rows, one operation after the other.
 */
struct cpu_ops {
    void (*norm)(const struct cpu_prepared *p, const struct op *op, const struct batch *batch);
    void (*linear)(const struct cpu_prepared *p, const struct op *op, const struct batch *batch);
    void (*attend)(const struct cpu_prepared *p, const struct op *op, const struct batch *batch);
    void (*logits)(struct cpu_prepared *p, const struct op *op,
                   const struct batch *batch); /* counts them, too */
};
enum cinf_status cpu_run(struct prepared *prepared, const struct batch *batch, const struct cpu_ops *ops);
enum cinf_status cpu_wait(struct prepared *prepared); /* run() has done it all */
enum cinf_status cpu_logits(struct prepared *prepared, uint32_t i, const float **out);

/* ---- For the operations ------------------------------------------------------------------- */

/* [positions, D/H] of one head. */
float *cpu_keys(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head);
float *cpu_values(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head);

/* Sorts samples[n] and returns the middle one. */
uint64_t cpu_median(uint64_t *samples, uint32_t n);

#endif
