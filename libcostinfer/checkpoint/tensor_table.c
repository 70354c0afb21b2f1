/* tensor_table.c - the table, and reading through strides.
 *
 * A pickle may store a transposed view.  Its elements are gathered without ever holding more than a small
 * buffer: the wanted range is cut into boxes, and each box is read in runs along the dimension whose elements
 * lie closest together in the file. */
#include "tensor_table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

static const struct dtype dtypes[] = {
    { "F32", CINF_DTYPE_F32, 32 },          { "F16", CINF_DTYPE_F16, 16 },
    { "BF16", CINF_DTYPE_BF16, 16 },        { "F64", CINF_DTYPE_F64, 64 },
    { "BOOL", CINF_DTYPE_OTHER, 8 },        { "F4", CINF_DTYPE_OTHER, 4 },
    { "F6_E2M3", CINF_DTYPE_OTHER, 6 },     { "F6_E3M2", CINF_DTYPE_OTHER, 6 },
    { "U8", CINF_DTYPE_OTHER, 8 },          { "I8", CINF_DTYPE_OTHER, 8 },
    { "F8_E5M2", CINF_DTYPE_OTHER, 8 },     { "F8_E4M3", CINF_DTYPE_OTHER, 8 },
    { "F8_E8M0", CINF_DTYPE_OTHER, 8 },     { "F8_E4M3FNUZ", CINF_DTYPE_OTHER, 8 },
    { "F8_E5M2FNUZ", CINF_DTYPE_OTHER, 8 }, { "I16", CINF_DTYPE_OTHER, 16 },
    { "U16", CINF_DTYPE_OTHER, 16 },        { "I32", CINF_DTYPE_OTHER, 32 },
    { "U32", CINF_DTYPE_OTHER, 32 },        { "C64", CINF_DTYPE_OTHER, 64 },
    { "I64", CINF_DTYPE_OTHER, 64 },        { "U64", CINF_DTYPE_OTHER, 64 },
};

const struct dtype *dtype_find(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

void tensor_table_free(struct tensor_table *table)
{
    for (size_t i = 0; i < table->n; i++)
        mem_free((char *)table->items[i].view.name);
    mem_free(table->items);
    *table = (struct tensor_table){ 0 };
}

enum cinf_status tensor_fault(const struct tensor *tensor, const char *format, ...)
{
    char fault[512];
    va_list args;
    va_start(args, format);
    vsnprintf(fault, sizeof fault, format, args);
    va_end(args);
    return cinf_fail(CINF_EFORMAT, "%s: tensor \"%.100s\": %s", tensor->file->path, tensor->view.name, fault);
}

enum cinf_status tensor_table_add(struct tensor **out, struct tensor_table *table, const struct file *file,
                                  const char *name)
{
    if (table->n == TENSORS_MAX)
        return cinf_fail(CINF_EUNSUPPORTED, "%s: more than %d tensors", file->path, TENSORS_MAX);
    if (strlen(name) > TENSOR_NAME_MAX)
        return cinf_fail(CINF_EFORMAT,
                         "%s: tensor \"%.100s…\": a name of %zu bytes, more than the %d allowed", file->path,
                         name, strlen(name), TENSOR_NAME_MAX);
    char *copy = mem_copy_text(name);
    if (!copy || !mem_reserve(&table->items, &table->cap, table->n + 1, sizeof *table->items)) {
        mem_free(copy);
        return cinf_fail(CINF_ENOMEM, "%s: no memory for its table of %zu tensors", file->path, table->n + 1);
    }
    struct tensor *t = &table->items[table->n++];
    *t = (struct tensor){ .view = { .name = copy, .file = file->path }, .file = file };
    *out = t;
    return CINF_OK;
}

enum cinf_status tensor_describe(struct tensor *tensor, const struct dtype *dtype)
{
    struct cinf_tensor *v = &tensor->view;
    uint64_t bits;
    v->n_elements = 1;
    for (uint32_t i = 0; i < v->n_dims; i++)
        if (!mul_u64(&v->n_elements, v->n_elements, v->dims[i]))
            return tensor_fault(tensor,
                                "the product of its dimensions overflows at dimension %u of %u, %" PRIu64,
                                i + 1, v->n_dims, v->dims[i]);
    if (!mul_u64(&bits, v->n_elements, dtype->bits))
        return tensor_fault(tensor, "the size of its %" PRIu64 " elements of %s overflows", v->n_elements,
                            dtype->name);
    if (bits % 8 != 0)
        return tensor_fault(tensor, "its %" PRIu64 " elements of %s are not a whole number of bytes",
                            v->n_elements, dtype->name);
    v->n_bytes = bits / 8;
    v->dtype = dtype->is;
    v->dtype_name = dtype->name;
    tensor->contiguous = true;
    /* Where this product wraps, a dimension is zero and no element is ever looked up. */
    uint64_t stride = 1;
    for (uint32_t i = v->n_dims; i-- > 0; stride *= v->dims[i])
        tensor->strides[i] = stride;
    return CINF_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->view.name, ((const struct tensor *)b)->view.name);
}

enum cinf_status tensor_table_sort(struct tensor_table *table, size_t from)
{
    if (table->n - from > 1)
        qsort(table->items + from, table->n - from, sizeof *table->items, by_name);
    for (size_t i = from + 1; i < table->n; i++) {
        const struct tensor *a = &table->items[i - 1], *b = &table->items[i];
        if (by_name(a, b) != 0)
            continue;
        if (a->file == b->file)
            return tensor_fault(a, "occurs twice");
        return tensor_fault(a, "occurs a second time, in %s", b->file->path);
    }
    return CINF_OK;
}

/* What lies at a multi-dimensional range of a tensor: n_dims sizes with their strides in the file (from_) and
 * in the caller's array (to_), all in elements. */
struct box {
    uint32_t n_dims;
    uint64_t size[CINF_DIMS_MAX], from[CINF_DIMS_MAX], to[CINF_DIMS_MAX];
};

enum { RUN_BYTES = 16384 };

/* Copies n elements that lie `from` apart in the file at byte `offset` to `elements`, `to` apart. */
static enum cinf_status read_run(const struct file *f, uint64_t offset, uint32_t width, uint64_t n,
                                 uint64_t from, uint64_t to, unsigned char *elements)
{
    unsigned char buffer[RUN_BYTES];
    uint64_t step = from ? RUN_BYTES / width / from : n;
    if (step == 0)
        step = 1;
    for (uint64_t i = 0; i < n; i += step) {
        uint64_t take = n - i < step ? n - i : step;
        TRY(file_read(f, offset + i * from * width, buffer, (size_t)(((take - 1) * from + 1) * width)));
        for (uint64_t j = 0; j < take; j++)
            memcpy(elements + (i + j) * to * width, buffer + j * from * width, width);
    }
    return CINF_OK;
}

static enum cinf_status read_box(const struct file *f, uint64_t offset, uint32_t width, const struct box *box,
                                 unsigned char *elements)
{
    uint64_t at[CINF_DIMS_MAX] = { 0 };
    uint32_t run = 0;
    for (uint32_t d = 1; d < box->n_dims; d++)
        if (box->size[d] > 1 && (box->size[run] <= 1 || box->from[d] < box->from[run]))
            run = d;
    for (;;) {
        uint64_t from = offset, to = 0;
        for (uint32_t d = 0; d < box->n_dims; d++) {
            from += at[d] * box->from[d] * width;
            to += at[d] * box->to[d] * width;
        }
        TRY(read_run(f, from, width, box->size[run], box->from[run], box->to[run], elements + to));
        uint32_t d = box->n_dims;
        do { /* the next position, counting over all dimensions but the run's */
            if (d == 0)
                return CINF_OK;
            d--;
            if (d == run)
                continue;
            if (++at[d] < box->size[d])
                break;
            at[d] = 0;
        } while (true);
    }
}

/* Reads elements [first, first + n) in row-major order, cut into the boxes [a, b) x whole lower dimensions:
 * at most two for each dimension. */
static enum cinf_status read_strided(const struct tensor *t, uint32_t width, uint64_t first, uint64_t n,
                                     unsigned char *elements)
{
    const struct cinf_tensor *v = &t->view;
    uint64_t below[CINF_DIMS_MAX + 1]; /* elements in one step of dimension d - 1 */
    below[v->n_dims] = 1;
    for (uint32_t d = v->n_dims; d-- > 0;)
        below[d] = below[d + 1] * v->dims[d];

    while (n > 0) {
        /* Finds the outermost dimension d that `first` is aligned to and whose whole step fits. */
        uint32_t d = 0;
        while (first % below[d + 1] != 0 || n < below[d + 1])
            d++;
        uint64_t start = first / below[d + 1] % v->dims[d];
        uint64_t steps = n / below[d + 1];
        if (steps > v->dims[d] - start)
            steps = v->dims[d] - start;

        struct box box = { .n_dims = v->n_dims - d };
        for (uint32_t i = d; i < v->n_dims; i++) {
            box.size[i - d] = i == d ? steps : v->dims[i];
            box.from[i - d] = t->strides[i];
            box.to[i - d] = below[i + 1];
        }
        uint64_t offset = t->offset;
        for (uint32_t i = 0; i <= d; i++)
            offset += first / below[i + 1] % v->dims[i] * t->strides[i] * width;
        TRY(read_box(t->file, offset, width, &box, elements));
        uint64_t done = steps * below[d + 1];
        first += done;
        n -= done;
        elements += done * width;
    }
    return CINF_OK;
}

enum cinf_status tensor_read(const struct tensor *t, uint64_t first, uint64_t n, void *elements)
{
    const struct cinf_tensor *v = &t->view;
    if (v->dtype == CINF_DTYPE_OTHER)
        return cinf_fail(CINF_EUNSUPPORTED, "%s: tensor \"%.100s\": elements of type %s cannot be read",
                         v->file, v->name, v->dtype_name);
    if (first > v->n_elements || n > v->n_elements - first)
        return cinf_fail(CINF_EINVAL,
                         "%s: tensor \"%.100s\": elements %" PRIu64 " to %" PRIu64 "+%" PRIu64 " of %" PRIu64
                         " asked for",
                         v->file, v->name, first, first, n, v->n_elements);
    if (n == 0)
        return CINF_OK;
    uint32_t width = (uint32_t)(v->n_bytes / v->n_elements);
    if (!t->contiguous)
        return read_strided(t, width, first, n, elements);
    return file_read(t->file, t->offset + first * width, elements, (size_t)(n * width));
}
