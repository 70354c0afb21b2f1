/* tensor_table.h - the tensors of a checkpoint: where each lies in which file, and how to read it. */
#ifndef TENSOR_TABLE_H
#define TENSOR_TABLE_H

#include <costinfer/checkpoint.h>

#include "file.h"

/* An element type that a file may name. */
struct dtype {
    const char *name; /* as safetensors spells it */
    enum cinf_dtype is;
    uint32_t bits;
};

/* Returns NULL for an unknown type. */
const struct dtype *dtype_find(const char *name);

enum {
    TENSORS_MAX = 65536, /* gpt2-xl with its masks has 676 */
    TENSOR_NAME_MAX = 1024,
};

struct tensor {
    struct cinf_tensor view; /* first, so that the public pointer leads back here */
    const struct file *file;
    uint64_t offset;                 /* of element (0, 0 …) in the file, in bytes */
    uint64_t strides[CINF_DIMS_MAX]; /* in elements; row-major where `contiguous` */
    bool contiguous;
};

struct tensor_table {
    struct tensor *items;
    size_t n, cap;
};

void tensor_table_free(struct tensor_table *table);

/* Appends a tensor of that name in `file`, with zeros for the rest, and returns it through `out`; it is valid
 * until the next one is appended.  Refuses names that are too long and tables that are too large. */
enum cinf_status tensor_table_add(struct tensor **out, struct tensor_table *table, const struct file *file,
                                  const char *name);

/* Fills in dtype, counts and row-major strides from view.dims and view.n_dims.  The product of the dimensions
 * must fit, and be whole bytes. */
enum cinf_status tensor_describe(struct tensor *tensor, const struct dtype *dtype);

/* Orders the tensors from the given one on by name; a name that occurs twice is CINF_EFORMAT. */
enum cinf_status tensor_table_sort(struct tensor_table *table, size_t from);

/* Sets the message FILE: tensor "NAME": and the fault, and returns CINF_EFORMAT. */
enum cinf_status tensor_fault(const struct tensor *tensor, const char *format, ...) CINF_PRINTF(2, 3);

/* cinf_checkpoint_read() */
enum cinf_status tensor_read(const struct tensor *tensor, uint64_t first, uint64_t n, void *elements);

#endif
