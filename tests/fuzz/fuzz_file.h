/* fuzz_file.h - a fuzzer's bytes as a file of the library, without a disk. */
#ifndef FUZZ_FILE_H
#define FUZZ_FILE_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tensor_table.h"

/* Makes a file of `before` followed by `data`; only one file exists at a time. */
static inline struct file memory_file(const void *before, size_t n_before, const void *data, size_t size)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, before, n_before, 0) != (ssize_t)n_before ||
        pwrite(fd, data, size, (off_t)n_before) != (ssize_t)size)
        abort();
    return (struct file){ .fd = fd, .size = n_before + size, .path = (char *)"fuzz" };
}

/* Checks what a table promises: no tensor is larger than the file, and each can be read. */
static inline void read_table(struct tensor_table *table, uint64_t file_size)
{
    uint64_t budget = 1 << 20;
    for (size_t i = 0; i < table->n; i++) {
        const struct tensor *t = &table->items[i];
        if (t->view.n_elements > 0 && t->view.n_bytes > file_size)
            abort();
        if (t->view.dtype == CINF_DTYPE_OTHER || t->view.n_bytes > budget)
            continue;
        budget -= t->view.n_bytes;
        void *elements = malloc(t->view.n_bytes + 1);
        if (!elements || tensor_read(t, 0, t->view.n_elements, elements) != CINF_OK ||
            tensor_read(t, t->view.n_elements / 3, t->view.n_elements / 2, elements) != CINF_OK)
            abort();
        free(elements);
    }
}

#endif
