/* checkpoint_builder.h - checkpoints put together byte by byte, so that one byte of them can be a lie. */
#ifndef CHECKPOINT_BUILDER_H
#define CHECKPOINT_BUILDER_H

#include <costinfer/checkpoint.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

struct blob {
    unsigned char bytes[1 << 16];
    size_t n;
};

static inline void put(struct blob *b, const void *bytes, size_t n)
{
    ck_assert_uint_le(n, sizeof b->bytes - b->n);
    if (n > 0)
        memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
}

static inline void put_text(struct blob *b, const char *text)
{
    put(b, text, strlen(text));
}

/* Little-endian, `width` bytes. */
static inline void put_number(struct blob *b, uint64_t value, size_t width)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> 8 * i);
    put(b, bytes, width);
}

static inline void set_number(struct blob *b, size_t at, uint64_t value, size_t width)
{
    size_t n = b->n;
    b->n = at;
    put_number(b, value, width);
    b->n = n;
}

/* Opens the blob as a file of that name; the status, and what was opened in *out if that is OK. */
static inline enum cinf_status open_blob(struct cinf_checkpoint **out, const struct blob *b, const char *name)
{
    static char *folder;
    if (!folder)
        folder = support_temp_folder();
    return cinf_checkpoint_open(out, support_write(folder, name, b->bytes, (long)b->n));
}

/* Asserts that the blob is refused, with these words, and that nothing was handed out. */
#define ck_refused(blob, name, status, words)                                                                \
    do {                                                                                                     \
        struct cinf_checkpoint *ck_out_ = NULL;                                                              \
        ck_fails(open_blob(&ck_out_, blob, name), status, words);                                            \
        ck_assert_ptr_null(ck_out_);                                                                         \
        ck_assert(support_contains(cinf_last_error(), name));                                                \
        ck_assert(!support_contains(cinf_last_error(), "\n"));                                               \
    } while (0)

/* Reads every tensor that can be read; a damaged file must give a status, never a crash. */
static inline void read_everything(const struct cinf_checkpoint *c)
{
    for (uint32_t i = 0; i < cinf_checkpoint_count(c); i++) {
        const struct cinf_tensor *t = cinf_checkpoint_tensor(c, i);
        if (t->dtype == CINF_DTYPE_OTHER)
            continue;
        ck_assert_uint_le(t->n_bytes, 1 << 20);
        void *elements = malloc(t->n_bytes + 1);
        ck_ok(cinf_checkpoint_read(c, t, 0, t->n_elements, elements));
        free(elements);
    }
}

/* ---- safetensors ------------------------------------------------------------------------------- */

static inline void build_safetensors(struct blob *b, const char *header, size_t n_data)
{
    b->n = 0;
    put_number(b, strlen(header), 8);
    put_text(b, header);
    for (size_t i = 0; i < n_data; i++)
        put_number(b, i, 1);
}

/* ---- pickles ----------------------------------------------------------------------------------- */

static inline void put_pickle_text(struct blob *b, const char *text)
{
    put_text(b, "X");
    put_number(b, strlen(text), 4);
    put_text(b, text);
}

static inline void put_pickle_int(struct blob *b, int64_t value)
{
    put(b, "\x8a\x08", 2);
    put_number(b, (uint64_t)value, 8);
}

static inline void put_pickle_ints(struct blob *b, const int64_t *values, int n)
{
    put_text(b, "(");
    for (int i = 0; i < n; i++)
        put_pickle_int(b, values[i]);
    put_text(b, "t");
}

static inline void begin_state_dict(struct blob *b)
{
    put(b, "\x80\x02", 2);
    put_text(b, "ccollections\nOrderedDict\n)R(");
}

static inline void put_tensor(struct blob *b, const char *name, const char *storage_type, const char *key,
                              int64_t numel, int64_t offset, int n_dims, const int64_t *dims,
                              const int64_t *strides)
{
    put_pickle_text(b, name);
    put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_pickle_text(b, "storage");
    put_text(b, "ctorch\n");
    put_text(b, storage_type);
    put_text(b, "\n");
    put_pickle_text(b, key);
    put_pickle_text(b, "cpu");
    put_pickle_int(b, numel);
    put_text(b, "tQ");
    put_pickle_int(b, offset);
    put_pickle_ints(b, dims, n_dims);
    put_pickle_ints(b, strides, n_dims);
    put(b, "\x89", 1);
    put_text(b, "ccollections\nOrderedDict\n)RtR");
}

static inline void end_state_dict(struct blob *b)
{
    put_text(b, "u.");
}

/* ---- zip archives ------------------------------------------------------------------------------ */

/* Offsets of what tests lie about. */
struct zip_places {
    struct blob directory;
    unsigned n_entries;
    size_t entries[16];                    /* in the directory, each entry's own offset */
    size_t locals[16];                     /* in the file */
    size_t at_directory, at_end64, at_end; /* in the file; at_end64 0 without zip64 records */
};

static inline void zip_begin(struct zip_places *z, struct blob *b)
{
    *z = (struct zip_places){ 0 };
    b->n = 0;
}

static inline void zip_add(struct zip_places *z, struct blob *b, const char *name, const void *bytes,
                           size_t n)
{
    z->locals[z->n_entries] = b->n;
    z->entries[z->n_entries++] = z->directory.n;
    put_text(&z->directory, "PK\1\2");
    put_number(&z->directory, 0, 6);
    put_number(&z->directory, 0, 6); /* method 0; time and date */
    put_number(&z->directory, 0, 4);
    put_number(&z->directory, n, 4);
    put_number(&z->directory, n, 4);
    put_number(&z->directory, strlen(name), 2);
    put_number(&z->directory, 0, 8);
    put_number(&z->directory, 0, 4);
    put_number(&z->directory, b->n, 4);
    put_text(&z->directory, name);

    put_text(b, "PK\3\4");
    put_number(b, 0, 8);
    put_number(b, 0, 8);
    put_number(b, 0, 6);
    put_number(b, strlen(name), 2);
    put_number(b, 5, 2); /* some padding, as an extra field */
    put_text(b, name);
    put(b, "FB\1\0Z", 5);
    put(b, bytes, n);
}

static inline void zip_finish(struct zip_places *z, struct blob *b, bool zip64)
{
    z->at_directory = b->n;
    put(b, z->directory.bytes, z->directory.n);
    if (zip64) {
        z->at_end64 = b->n;
        put_text(b, "PK\6\6");
        put_number(b, 44, 8);
        put_number(b, 0x2d002d, 4);
        put_number(b, 0, 8);
        put_number(b, z->n_entries, 8);
        put_number(b, z->n_entries, 8);
        put_number(b, z->directory.n, 8);
        put_number(b, z->at_directory, 8);
        put_text(b, "PK\6\7");
        put_number(b, 0, 4);
        put_number(b, z->at_end64, 8);
        put_number(b, 1, 4);
    }
    z->at_end = b->n;
    put_text(b, "PK\5\6");
    put_number(b, 0, 4);
    put_number(b, z->n_entries, 2);
    put_number(b, z->n_entries, 2);
    put_number(b, z->directory.n, 4);
    put_number(b, z->at_directory, 4);
    put_number(b, 0, 2);
}

#endif
