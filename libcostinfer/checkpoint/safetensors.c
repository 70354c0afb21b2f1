/* safetensors.c - the header of a .safetensors file.
 *
 *   0        8              8 + n                      end of file
 *   | n: u64 | JSON, n bytes | tensor bytes ...          |
 *
 * The JSON is {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …} with offsets from
 * 8 + n, and perhaps a "__metadata__" object of strings.  The checks are those of the format's own reader, in
 * its order:
 *
 *    1  the file has 8 bytes              6  each tensor begins where the one before it ends, the first at 0
 *    2  n is at most 100,000,000          7  the product of its dimensions and its size in bits do not
 * overflow 3  the header lies in the file       8  its bits are whole bytes 4  it is UTF-8 9  end - begin is
 * its size 5  it is JSON of this form,         10  the last one ends where the file ends no name twice
 *
 * The header is not read through cJSON: offsets need all 64 bits, which a double lacks, and a tree of 100 MB
 * of brackets takes gigabytes.  The gate of json.h vouches for the syntax; the walk below relies on it. */
#include "safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "fail.h"
#include "file_kind.h"
#include "json.h"
#include "mem.h"
#include "strbuf.h"
#include "utf8.h"

#define HEADER_MAX 100000000u

/* A place in text that json_check() has accepted. */
struct walk {
    const struct file *file;
    const char *text;
    size_t n, at;
};

/* Names the kind of a file that is of another kind; otherwise the fault stands. */
static enum cinf_status header_fault(const struct file *f, const char *fault)
{
    const char *kind = file_kind(f);
    if (kind && kind != file_kind_safetensors)
        return cinf_fail(CINF_EFORMAT, "%s: is %s, not safetensors", f->path, kind);
    return cinf_fail(CINF_EFORMAT, "%s: %s", f->path, fault);
}

static char next(struct walk *w)
{
    while (w->at < w->n && strchr(" \t\r\n", w->text[w->at]))
        w->at++;
    return w->at < w->n ? w->text[w->at] : '\0';
}

/* Steps over `c` if it comes next. */
static bool take(struct walk *w, char c)
{
    if (next(w) != c)
        return false;
    w->at++;
    return true;
}

static uint32_t take_hex4(struct walk *w)
{
    uint32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        char c = w->text[w->at++];
        unit = unit << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return unit;
}

/* Reads the character after a backslash. */
static void take_escape(struct walk *w, struct strbuf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = w->text[w->at++];
    if (c != 'u') {
        strbuf_putc(out, to[strchr(from, c) - from]);
        return;
    }
    uint32_t character = take_hex4(w);
    if (character >= 0xD800 && character <= 0xDBFF) {
        w->at += 2;
        character = 0x10000 + ((character - 0xD800) << 10) + (take_hex4(w) - 0xDC00);
    }
    char bytes[4];
    strbuf_add(out, bytes, utf8_write(bytes, character));
}

/* Reads a string and decodes it; false when something else comes next. An empty one leaves out->text empty,
 * not NULL. */
static bool take_string(struct walk *w, struct strbuf *out)
{
    if (!take(w, '"'))
        return false;
    strbuf_clear(out);
    strbuf_add(out, "", 0);
    for (;;) {
        size_t plain = w->at;
        while (w->text[w->at] != '"' && w->text[w->at] != '\\')
            w->at++;
        strbuf_add(out, w->text + plain, w->at - plain);
        if (w->text[w->at++] == '"')
            return true;
        take_escape(w, out);
    }
}

/* Reads a number that is an integer from 0 to 2^64 - 1. */
static bool take_u64(struct walk *w, uint64_t *value)
{
    uint64_t v = 0;
    size_t start = (next(w), w->at);
    for (; w->at < w->n && w->text[w->at] >= '0' && w->text[w->at] <= '9'; w->at++)
        if (!mul_u64(&v, v, 10) || !add_u64(&v, v, (uint64_t)(w->text[w->at] - '0')))
            return false;
    if (w->at == start || (w->at < w->n && strchr(".eE", w->text[w->at])))
        return false;
    *value = v;
    return true;
}

/* Reads [a, b, …] into values[0..max); false when it is something else or longer. */
static bool take_u64s(struct walk *w, uint64_t *values, uint32_t max, uint32_t *n)
{
    *n = 0;
    if (!take(w, '['))
        return false;
    if (take(w, ']'))
        return true;
    do {
        if (*n == max || !take_u64(w, &values[*n]))
            return false;
        ++*n;
    } while (take(w, ','));
    return take(w, ']');
}

static void skip_value(struct walk *w)
{
    size_t depth = 0;
    do {
        char c = next(w);
        w->at++;
        if (c == '"')
            for (; w->text[w->at] != '"'; w->at++)
                w->at += w->text[w->at] == '\\';
        if (c == '{' || c == '[')
            depth++;
        if (c == '}' || c == ']')
            depth--;
        if (c == '"')
            w->at++;
        else if (!strchr("{}[],:", c)) /* the rest of a number or word */
            while (w->at < w->n && !strchr(",:{}[] \t\r\n", w->text[w->at]))
                w->at++;
    } while (depth > 0);
}

static enum cinf_status no_memory(const struct walk *w)
{
    return cinf_fail(CINF_ENOMEM, "%s: no memory for its header of %zu bytes", w->file->path, w->n);
}

/* Skips "__metadata__". Nothing in it is used, but its form is part of the format. */
static enum cinf_status take_metadata(struct walk *w)
{
    if (next(w) == 'n') {
        skip_value(w);
        return CINF_OK;
    }
    if (!take(w, '{'))
        return cinf_fail(CINF_EFORMAT, "%s: \"__metadata__\" is not an object", w->file->path);
    if (take(w, '}'))
        return CINF_OK;
    do {
        skip_value(w);
        take(w, ':');
        if (next(w) != '"')
            return cinf_fail(CINF_EFORMAT, "%s: \"__metadata__\" holds something other than strings",
                             w->file->path);
        skip_value(w);
    } while (take(w, ','));
    take(w, '}');
    return CINF_OK;
}

/* Reads the object that describes one tensor. Until the offsets are checked, `offset` and `n_bytes` hold
 * begin and end as the file gives them. */
static enum cinf_status take_tensor(struct walk *w, struct tensor *t, struct strbuf *scratch)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    unsigned seen = 0;
    const struct dtype *dtype = NULL;
    uint64_t offsets[2];
    uint32_t n = 0;
    if (!take(w, '{'))
        return tensor_fault(t, "its entry is not an object");
    if (next(w) != '}')
        do {
            if (!take_string(w, scratch) || scratch->failed)
                return no_memory(w);
            take(w, ':');
            unsigned key = strcmp(scratch->text, "dtype") == 0          ? DTYPE
                           : strcmp(scratch->text, "shape") == 0        ? SHAPE
                           : strcmp(scratch->text, "data_offsets") == 0 ? OFFSETS
                                                                        : 0;
            if (seen & key)
                return tensor_fault(t, "\"%s\" occurs twice", scratch->text);
            seen |= key;
            if (key == DTYPE) {
                if (!take_string(w, scratch))
                    return tensor_fault(t, "\"dtype\" is not a string");
                if (scratch->failed)
                    return no_memory(w);
                dtype = dtype_find(scratch->text);
                if (!dtype)
                    return tensor_fault(t, "unknown dtype \"%.40s\"", scratch->text);
            } else if (key == SHAPE) {
                if (!take_u64s(w, t->view.dims, CINF_DIMS_MAX, &t->view.n_dims))
                    return tensor_fault(t, "\"shape\" is not a list of at most %d sizes", CINF_DIMS_MAX);
            } else if (key == OFFSETS) {
                if (!take_u64s(w, offsets, 2, &n) || n != 2)
                    return tensor_fault(t, "\"data_offsets\" is not a list of two offsets");
            } else {
                skip_value(w);
            }
        } while (take(w, ','));
    take(w, '}');
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return tensor_fault(t, "has no \"%s\"",
                            !(seen & DTYPE)   ? "dtype"
                            : !(seen & SHAPE) ? "shape"
                                              : "data_offsets");
    t->offset = offsets[0];
    t->view.n_bytes = offsets[1];
    t->view.dtype_name = dtype->name;
    return CINF_OK;
}

static enum cinf_status take_header(struct walk *w, struct tensor_table *table, struct strbuf *scratch)
{
    bool metadata_seen = false;
    if (!take(w, '{'))
        return header_fault(w->file, "its header is JSON, but not an object");
    if (take(w, '}'))
        return CINF_OK;
    do {
        if (!take_string(w, scratch) || scratch->failed)
            return no_memory(w);
        take(w, ':');
        if (strcmp(scratch->text, "__metadata__") == 0) {
            if (metadata_seen)
                return cinf_fail(CINF_EFORMAT, "%s: \"__metadata__\" occurs twice", w->file->path);
            metadata_seen = true;
            TRY(take_metadata(w));
            continue;
        }
        struct tensor *t;
        TRY(tensor_table_add(&t, table, w->file, scratch->text));
        TRY(take_tensor(w, t, scratch));
    } while (take(w, ','));
    return CINF_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->view.n_bytes != y->view.n_bytes)
        return x->view.n_bytes < y->view.n_bytes ? -1 : 1;
    return strcmp(x->view.name, y->view.name);
}

/* Makes checks 6 to 10 over the tensors from the given one on; `data` is where tensor bytes begin. */
static enum cinf_status place(struct tensor_table *table, size_t from, const struct file *f, uint64_t data)
{
    uint64_t end = 0;
    if (table->n - from > 1)
        qsort(table->items + from, table->n - from, sizeof *table->items, by_offset);
    for (size_t i = from; i < table->n; i++) {
        struct tensor *t = &table->items[i];
        uint64_t t_begin = t->offset, t_end = t->view.n_bytes;
        if (t_begin != end)
            return tensor_fault(t, "begins at offset %" PRIu64 ", where %" PRIu64 " was expected (%s)",
                                t_begin, end, t_begin < end ? "tensors overlap" : "a hole");
        if (t_end < t_begin)
            return tensor_fault(t, "ends at offset %" PRIu64 ", before it begins at %" PRIu64, t_end,
                                t_begin);
        TRY(tensor_describe(t, dtype_find(t->view.dtype_name)));
        if (t->view.n_bytes != t_end - t_begin)
            return tensor_fault(t, "its shape needs %" PRIu64 " bytes of %s, its offsets give %" PRIu64,
                                t->view.n_bytes, t->view.dtype_name, t_end - t_begin);
        t->offset += data;
        end = t_end;
    }
    if (end != f->size - data)
        return cinf_fail(
            CINF_EFORMAT,
            "%s: its tensors end at byte %" PRIu64 "+%" PRIu64 ", but the file has %" PRIu64 " bytes (%s)",
            f->path, data, end, f->size, end > f->size - data ? "truncated" : "something was appended");
    return CINF_OK;
}

static enum cinf_status load_header(struct tensor_table *table, const struct file *f, const char *header,
                                    size_t n)
{
    if (!utf8_valid(header, n))
        return header_fault(f, "its header is not UTF-8");
    if (json_check(header, n, NULL) != CINF_OK) {
        char fault[160];
        snprintf(fault, sizeof fault, "its header is malformed: %s", cinf_last_error());
        return header_fault(f, fault);
    }
    struct walk w = { .file = f, .text = header, .n = n };
    struct strbuf scratch = { 0 };
    size_t from = table->n;
    enum cinf_status status = take_header(&w, table, &scratch);
    strbuf_free(&scratch);
    TRY(status);
    TRY(tensor_table_sort(table, from));
    return place(table, from, f, 8 + n);
}

enum cinf_status safetensors_load(struct tensor_table *table, const struct file *f)
{
    char length[8];
    if (f->size < sizeof length)
        return header_fault(f, "has fewer than the 8 bytes of a header length");
    TRY(file_read(f, 0, length, sizeof length));
    uint64_t n = load_u64(length);
    char fault[160];
    if (n > HEADER_MAX) {
        snprintf(fault, sizeof fault, "says that its header has %" PRIu64 " bytes, more than the %u allowed",
                 n, HEADER_MAX);
        return header_fault(f, fault);
    }
    if (n > f->size - 8) {
        snprintf(fault, sizeof fault, "says that its header has %" PRIu64 " bytes, but %" PRIu64 " follow", n,
                 f->size - 8);
        return header_fault(f, fault);
    }
    char *header = mem_new((size_t)n, 1);
    if (!header)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for its header of %" PRIu64 " bytes", f->path, n);
    enum cinf_status status = file_read(f, 8, header, (size_t)n);
    if (status == CINF_OK)
        status = load_header(table, f, header, (size_t)n);
    mem_free(header);
    return status;
}
