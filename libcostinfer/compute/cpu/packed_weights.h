/* packed_weights.h - weights of the packed CPU backend, in panels; for these see packed_kernels.h. */
#ifndef PACKED_WEIGHTS_H
#define PACKED_WEIGHTS_H

#include "packed_kernels.h"
#include "packed_shortlist.h"

/* One weight.  A matrix or head has k inputs and n outputs; element (k, output) is in panels.  Tables are
 * row-major, vectors too, padded with zeros to whole panels. */
struct packed_matrix {
    struct weight_spec spec;
    enum weights_type type; /* of its elements, see packed_weights.c */
    uint32_t k, n, n_panels;
    size_t panel_bytes;
    size_t bytes; /* of elements */
    unsigned char *elements;
    float *scales; /* int8 panels: [n_panels * PANEL], a factor for each output */

    /* int8 and int4, spec.role WEIGHT_MATRIX, until all of its rows are written: scales depend on several. */
    float *staging; /* [rows, cols] */
    uint32_t rows_staged;
};

/* Whether a weight of that shape is in panels. */
static inline bool in_panels(const struct weight_spec *spec)
{
    return spec->role != WEIGHT_TABLE && spec->role != WEIGHT_VECTOR;
}

/* Elements from one row of a table to the next. */
static inline size_t table_stride(uint32_t cols)
{
    return ((size_t)cols + PANEL - 1) / PANEL * PANEL;
}

struct packed_weights {
    struct weights base;
    enum weights_type type;
    uint32_t n_specs;
    struct weight_spec *specs;      /* [n_specs], as they were given */
    struct packed_matrix *matrices; /* [n_specs] */
    unsigned char *block;
    struct shortlist shortlist; /* of the head; n_panels is 0 where there is none */
    uint32_t head;              /* the head's index */
};

enum cinf_status packed_weights_new(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs,
                                    enum weights_type type);
void packed_weights_free(struct weights *weights);

uint64_t packed_weights_bytes(const struct weights *weights);

/* Every row of an int8 or int4 matrix must be written exactly once.  (packed_write.c) */
enum cinf_status packed_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype);

/* out[cols] = row `row` of a table, or of tokens: output `row` of its panels. */
void packed_row(float *out, const struct packed_weights *weights, uint32_t index, uint32_t row);

#endif
