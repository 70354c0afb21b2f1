/* made_checkpoint.h - checkpoints made from another one: tensors renamed, added, altered. */
#ifndef MADE_CHECKPOINT_H
#define MADE_CHECKPOINT_H

#include <costinfer/checkpoint.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "mem.h"
#include "strbuf.h"
#include "support.h"

static inline const char *golden_path(const char *variant)
{
    char path[128];
    snprintf(path, sizeof path, "tests/golden/%s", variant);
    return support_source(path);
}

struct made_tensor {
    char name[64];
    const char *dtype;
    uint32_t n_dims;
    uint64_t dims[2];
    uint64_t n_bytes;
    char *bytes;
};

struct made {
    char *config;
    uint32_t n;
    struct made_tensor tensors[64];
};

/* The files of `folder`, to be altered and written. */
static inline struct made *made_from(const char *folder)
{
    struct made *m = calloc(1, sizeof *m);
    struct cinf_checkpoint *checkpoint = NULL;
    ck_ok(cinf_checkpoint_open(&checkpoint, folder));
    m->n = cinf_checkpoint_count(checkpoint);
    ck_assert_uint_lt(m->n, 60);
    for (uint32_t i = 0; i < m->n; i++) {
        const struct cinf_tensor *t = cinf_checkpoint_tensor(checkpoint, i);
        struct made_tensor *to = &m->tensors[i];
        *to = (struct made_tensor){ .n_dims = t->n_dims, .n_bytes = t->n_bytes };
        ck_assert_uint_le(t->n_dims, 2);
        memcpy(to->dims, t->dims, t->n_dims * sizeof *to->dims);
        snprintf(to->name, sizeof to->name, "%s", t->name);
        to->dtype = t->dtype == CINF_DTYPE_F32   ? "F32"
                    : t->dtype == CINF_DTYPE_F16 ? "F16"
                    : t->dtype == CINF_DTYPE_F64 ? "F64"
                                                 : "BF16";
        to->bytes = malloc(t->n_bytes);
        ck_ok(cinf_checkpoint_read(checkpoint, t, 0, t->n_elements, to->bytes));
    }
    cinf_checkpoint_free(checkpoint);
    char *path = path_join(folder, "config.json");
    size_t size;
    ck_ok(file_load(&m->config, &size, path, 1 << 16));
    mem_free(path);
    return m;
}

static inline struct made_tensor *made_find(struct made *m, const char *name)
{
    for (uint32_t i = 0; i < m->n; i++) {
        if (strcmp(m->tensors[i].name, name) == 0)
            return &m->tensors[i];
    }
    ck_abort_msg("no tensor %s", name);
    return NULL;
}

static inline struct made *made_from_golden(const char *variant)
{
    return made_from(golden_path(variant));
}

/* A copy of `from` under another name. */
static inline struct made_tensor *made_add(struct made *m, const char *name, const char *from)
{
    const struct made_tensor *source = made_find(m, from);
    struct made_tensor *to = &m->tensors[m->n++];
    *to = *source;
    snprintf(to->name, sizeof to->name, "%s", name);
    to->bytes = malloc(to->n_bytes);
    memcpy(to->bytes, source->bytes, to->n_bytes);
    return to;
}

/* Writes one element; one of 8 bytes makes the tensor F64, otherwise zeros. */
static inline void made_put(struct made_tensor *t, size_t index, const void *value, size_t size)
{
    if (size == sizeof(double)) {
        t->dtype = "F64";
        t->n_bytes *= 2;
        free(t->bytes);
        t->bytes = calloc(1, t->n_bytes);
    }
    memcpy(t->bytes + index * size, value, size);
}

static inline void made_set_config(struct made *m, const char *from, const char *to)
{
    char *at = strstr(m->config, from);
    ck_assert_msg(at != NULL, "config.json lacks %s", from);
    size_t size = strlen(m->config) + strlen(to) + 1;
    char *text = mem_new(size, 1);
    snprintf(text, size, "%.*s%s%s", (int)(at - m->config), m->config, to, at + strlen(from));
    mem_free(m->config);
    m->config = text;
}

/* Writes the files into `folder` and frees m. */
static inline void made_write_to(const char *folder, struct made *m)
{
    struct strbuf file = { 0 }, header = { 0 };
    uint64_t offset = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        const struct made_tensor *t = &m->tensors[i];
        strbuf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", t->name, t->dtype);
        for (uint32_t k = 0; k < t->n_dims; k++)
            strbuf_printf(&header, "%s%llu", k ? "," : "", (unsigned long long)t->dims[k]);
        strbuf_printf(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                      (unsigned long long)(offset + t->n_bytes));
        offset += t->n_bytes;
    }
    strbuf_putc(&header, '}');
    while (header.len % 8 != 0)
        strbuf_putc(&header, ' ');
    uint64_t header_len = header.len;
    strbuf_add(&file, &header_len, sizeof header_len);
    strbuf_add(&file, header.text, header.len);
    for (uint32_t i = 0; i < m->n; i++) {
        strbuf_add(&file, m->tensors[i].bytes, m->tensors[i].n_bytes);
        free(m->tensors[i].bytes);
    }
    ck_assert(!file.failed && !header.failed);
    support_write(folder, "model.safetensors", file.text, (long)file.len);
    support_write(folder, "config.json", m->config, -1);
    strbuf_free(&file);
    strbuf_free(&header);
    mem_free(m->config);
    free(m);
}

/* The same into a fresh folder. */
static inline const char *made_write(struct made *m)
{
    const char *folder = support_temp_folder();
    made_write_to(folder, m);
    return folder;
}

#endif
