/* packed_memory.h - what the packed CPU backend keeps: the device, weights in panels, the cache in rows.
 * For the panels see packed_kernels.h. */
#ifndef PACKED_MEMORY_H
#define PACKED_MEMORY_H

#include "cpu_memory.h"
#include "packed_kernels.h"
#include "packed_pool.h"
#include "packed_scan.h"
#include "profile.h"

struct packed_device {
    struct cpu_device cpu;
    struct pool *pool;
    const struct packed_kernels *kernels;
    size_t cache_bytes;      /* second-level cache of a core */
    bool half_cache;         /* keys and values in f16 */
    struct profile *profile; /* NULL: nobody asked what phases take */
};

/* ---- Weights ------------------------------------------------------------------------------ */

/* One weight.  A matrix or head has k inputs and n outputs; element (k, output) is in panels.  Tables are
 * row-major, vectors too, padded with zeros to whole panels. */
struct packed_matrix {
    struct weight_spec spec;
    enum weights_type type; /* of its elements, see packed_weights.c */
    uint32_t k, n, n_panels;
    size_t panel_bytes;
    unsigned char *elements;
    float *scales; /* int8 panels: [n_panels * PANEL], a factor for each output */

    /* int8 and int4, spec.role WEIGHT_MATRIX, until all of its rows are written: scales depend on several. */
    float *staging; /* [rows, cols] */
    uint32_t rows_staged;
};

struct packed_weights {
    struct weights base;
    enum weights_type type;
    uint32_t n_specs;
    struct weight_spec *specs;      /* [n_specs], as they were given */
    struct packed_matrix *matrices; /* [n_specs] */
    unsigned char *block;
    struct scan scan; /* of the head; n_panels is 0 where there is none */
    uint32_t scan_of; /* the head's index */
};

enum cinf_status packed_weights_new(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs,
                                    enum weights_type type);
void packed_weights_free(struct weights *weights);

/* Of an int8 or int4 matrix every row must be written exactly once. */
enum cinf_status packed_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype);
uint64_t packed_weights_bytes(const struct weights *weights);

/* out[cols] = row `row` of a table, or of tokens: output `row` of its panels. */
void packed_row(float *out, const struct packed_weights *weights, uint32_t index, uint32_t row);

/* ---- The cache ---------------------------------------------------------------------------- */

/* One head of one layer of one slot: keys [P][line], then values [P][line].  The sum of values is a panel's
 * product as they lie here; for scores, keys are turned into panels when they are read.  To keep them in
 * panels would be dearer: each number of a new key would be written to a cache line of its own. */
struct packed_kv {
    struct kv base;
    uint32_t slots, layers, heads, positions;
    uint32_t head_width; /* D/H */
    uint32_t line;       /* D/H rounded up to PANEL */
    size_t head_elements;
    bool half; /* f16 instead of float */
    unsigned char *elements;
};

enum cinf_status packed_kv_new(struct kv **out, struct device *device, const struct program *program,
                               uint32_t slots);
void packed_kv_free(struct kv *kv);
uint64_t packed_kv_slot_bytes(const struct device *device, const struct program *program);
enum cinf_status packed_kv_copy(struct kv *kv, uint32_t to, uint32_t from, uint32_t n);

/* Bytes of n elements. */
static inline size_t packed_kv_bytes(const struct packed_kv *kv, size_t n)
{
    return n * (kv->half ? sizeof(uint16_t) : sizeof(float));
}

unsigned char *packed_keys(const struct packed_kv *kv, uint32_t slot, uint32_t layer, uint32_t head);
unsigned char *packed_values(const struct packed_kv *kv, uint32_t slot, uint32_t layer, uint32_t head);

#endif
