/* opencl_weights.h - a model's weights on the device. */
#ifndef OPENCL_WEIGHTS_H
#define OPENCL_WEIGHTS_H

#include "opencl_device.h"

/* One matrix, table or vector: [rows, stride] of float, half or char, zero beyond `rows` and `cols`.  Columns
 * of a matrix that the checkpoint stores as [in, out] are rows here. */
struct opencl_weight {
    struct opencl_buffer buffer;
    struct opencl_buffer scales; /* [rows] of float: a factor for each row of int8 */
    uint32_t rows, cols, stride;

    /* An int8 matrix [in, out] until all of its rows are written: an output's scale depends on all of them.
     */
    struct opencl_buffer wide; /* as `buffer`, of float */
    float *largest;            /* [rows] largest magnitude of each output so far */
    uint32_t n_written;
};

struct opencl_stage {
    struct opencl_buffer pinned, buffer; /* the host's side and the device's */
    void *host;                          /* pinned, mapped */
    cl_event free;                       /* done when the pinned side may be written again; or NULL */
};

struct opencl_weights {
    struct weights base;
    enum weights_type type;
    struct weight_spec *specs;
    struct opencl_weight *parts; /* [n_specs] */
    uint32_t n_specs;
    struct opencl_stage stages[2]; /* used in turn: the host fills one while the other travels */
    uint32_t stage;
    size_t stage_elements;
    cl_kernel pack_rows, pack_columns, quantise;
};

enum cinf_status opencl_weights_new(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs,
                                    enum weights_type type);
void opencl_weights_free(struct weights *weights);
enum cinf_status opencl_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype);
enum cinf_status opencl_weights_finish(struct weights *weights, bool *done);
uint64_t opencl_weights_bytes(const struct weights *weights);

#endif
