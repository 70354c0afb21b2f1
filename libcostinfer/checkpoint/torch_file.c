/* torch_file.c - the two containers around the pickle of a state dict.
 *
 * Zip kind (torch 1.6 and later): entries NAME/data.pkl, the pickle, and NAME/data/KEY, the elements of a
 * storage.  Legacy kind: five pickles in a row (a magic number, 1001, facts about the writer's machine, the
 * state dict, the list of storage keys), then for each key its element count, u64, and its elements.
 *
 * Training checkpoints have their state dict under a key, and much beside it: the zip kind gives it when all
 * of it is tensors.  The legacy kind has no directory, so the storages beside it have no known size there.
 * For a file that cannot be read, the message holds the Python that converts it.
 *
 * A tensor is a view of a storage: (storage, offset, sizes, strides), in elements.  Tied tensors share one.
 * Loading takes three steps: collect() turns the pickle into tensors and the storages they claim; the
 * container says where each storage lies; place() checks each view against its storage. */
#include "torch_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "fail.h"
#include "file_kind.h"
#include "mem.h"
#include "pickle.h"
#include "zip_directory.h"

/* A storage, once for each tensor that views it. */
struct claim {
    const char *key;
    const struct dtype *dtype;
    uint64_t n_elements, n_bytes;
    uint64_t at; /* in the file; 0 until it is found */
    size_t tensor;
};

struct state {
    struct tensor_table *table;
    const struct file *file;
    bool zip;
    struct claim *claims;
    size_t n, cap; /* claims */
};

/* ---- from values to tensors ------------------------------------------------------------------- */

static bool take_u64(struct pickle_value value, uint64_t *number)
{
    if (value.kind != PICKLE_INT || value.number < 0)
        return false;
    *number = (uint64_t)value.number;
    return true;
}

/* Reads a tuple of at most CINF_DIMS_MAX numbers that are not negative. */
static bool take_u64s(const struct pickle *p, struct pickle_value tuple, uint64_t *numbers)
{
    if (tuple.kind != PICKLE_TUPLE || tuple.n > CINF_DIMS_MAX)
        return false;
    for (uint32_t i = 0; i < tuple.n; i++)
        if (!take_u64(p->items[tuple.first + i], &numbers[i]))
            return false;
    return true;
}

/* Reads ("storage", type, key, device, element count[, None]). */
static enum cinf_status take_storage(struct claim *c, const struct tensor *t, const struct pickle *p,
                                     struct pickle_value storage)
{
    const struct pickle_value *items = NULL;
    if (storage.kind == PICKLE_STORAGE && storage.n >= 5 && storage.n <= 6)
        items = p->items + storage.first;
    if (!items || items[0].kind != PICKLE_TEXT || strcmp(pickle_text(p, items[0]), "storage") != 0 ||
        items[2].kind != PICKLE_TEXT)
        return tensor_fault(t, "its storage is not described as PyTorch does");
    if (storage.n == 6 && items[5].kind != PICKLE_NONE)
        return cinf_fail(CINF_EUNSUPPORTED, "%s: tensor \"%.100s\": its storage is a view of another storage",
                         t->file->path, t->view.name);
    const char *dtype = pickle_storage_dtype(items[1]);
    if (!dtype)
        return tensor_fault(t, "its storage is of no known type");
    c->dtype = dtype_find(dtype);
    c->key = pickle_text(p, items[2]);
    if (!take_u64(items[4], &c->n_elements) || !mul_u64(&c->n_bytes, c->n_elements, c->dtype->bits / 8))
        return tensor_fault(t, "its storage has an impossible number of elements");
    return CINF_OK;
}

/* Reads (storage, offset, sizes, strides, requires_grad, hooks[, metadata]). */
static enum cinf_status take_tensor(struct tensor *t, struct claim *c, const struct pickle *p,
                                    struct pickle_value tensor)
{
    if (tensor.n < 6 || tensor.n > 7)
        return tensor_fault(t, "is described by %u values instead of 6", tensor.n);
    const struct pickle_value *items = p->items + tensor.first;
    TRY(take_storage(c, t, p, items[0]));
    if (tensor.n == 7 && items[6].kind != PICKLE_NONE &&
        !(items[6].kind == PICKLE_DICT && p->containers[items[6].first].head == PICKLE_END))
        return cinf_fail(CINF_EUNSUPPORTED,
                         "%s: tensor \"%.100s\": is conjugated, negated or otherwise special", t->file->path,
                         t->view.name);
    uint64_t strides[CINF_DIMS_MAX] = { 0 };
    if (!take_u64(items[1], &t->offset))
        return tensor_fault(t, "its offset is not a number from 0 on");
    if (!take_u64s(p, items[2], t->view.dims) || !take_u64s(p, items[3], strides) || items[2].n != items[3].n)
        return tensor_fault(t, "its sizes and strides are not equally many numbers from 0 on, at most %d",
                            CINF_DIMS_MAX);
    t->view.n_dims = items[2].n;
    TRY(tensor_describe(t, c->dtype));
    for (uint32_t i = 0; i < t->view.n_dims; i++)
        if (t->view.dims[i] != 1 && strides[i] != t->strides[i] && t->view.n_elements > 0)
            t->contiguous = false;
    if (!t->contiguous)
        memcpy(t->strides, strides, sizeof strides);
    return CINF_OK;
}

/* ---- Training checkpoints: a state dict within a dict --------------------------------------------- */

const char torch_file_nanogpt[] =
    "nanoGPT's, whose matrices are transposed; in Python: import json, torch; c = "
    "torch.load(\"ckpt.pt\", map_location=\"cpu\"); a = c[\"model_args\"]; d = "
    "{k.replace(\"_orig_mod.\", \"\"): v.t().contiguous() if k.endswith((\"c_attn.weight\", "
    "\"c_proj.weight\", \"c_fc.weight\")) else v for k, v in c[\"model\"].items()}; "
    "torch.save({k.replace(\"weight\", \"bias\"): torch.zeros(v.shape[-1]) for k, v in "
    "d.items() if \".h.\" in k or \".ln_f.\" in k} | d, \"pytorch_model.bin\"); "
    "json.dump({\"model_type\": \"gpt2\", \"activation_function\": \"gelu\", \"n_positions\": "
    "a[\"block_size\"]} | {k: a[k] for k in (\"n_layer\", \"n_head\", \"n_embd\", "
    "\"vocab_size\")}, open(\"config.json\", \"w\"))";

static const struct pickle_member *find_member(const struct pickle *p, struct pickle_value dict,
                                               const char *key)
{
    const struct pickle_member *m;
    for (uint32_t i = p->containers[dict.first].head; i != PICKLE_END; i = m->next) {
        m = &p->members[i];
        if (m->key.kind == PICKLE_TEXT && strcmp(pickle_text(p, m->key), key) == 0)
            return m;
    }
    return NULL;
}

/* Whether a value is a dict of tensors, one at least. */
static bool is_state_dict(const struct pickle *p, struct pickle_value value)
{
    if (value.kind != PICKLE_DICT || p->containers[value.first].head == PICKLE_END)
        return false;
    const struct pickle_member *m;
    for (uint32_t i = p->containers[value.first].head; i != PICKLE_END; i = m->next) {
        m = &p->members[i];
        if (m->value.kind != PICKLE_TENSOR)
            return false;
    }
    return true;
}

/* Finds the state dict under a key of Lightning, DeepSpeed or others. Without such a key *dict stays what it
 * is. */
static enum cinf_status find_state_dict(const struct state *s, const struct pickle *p,
                                        struct pickle_value *dict)
{
    static const char *const keys[] = { "state_dict", "module", "model_state_dict", "model" };
    const struct pickle_member *found = NULL;
    if (is_state_dict(p, *dict))
        return CINF_OK;
    if (find_member(p, *dict, "model_args") && find_member(p, *dict, "model"))
        return cinf_fail(CINF_EUNSUPPORTED, "%s: is a training checkpoint of %s", s->file->path,
                         torch_file_nanogpt);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !found; i++) {
        found = find_member(p, *dict, keys[i]);
        if (found && !is_state_dict(p, found->value))
            found = NULL;
    }
    if (found && !s->zip)
        return cinf_fail(
            CINF_EUNSUPPORTED,
            "%s: is a training checkpoint with its tensors under \"%s\"; in Python: import torch; c = "
            "torch.load(\"%s\", map_location=\"cpu\"); torch.save(c[\"%s\"], \"pytorch_model.bin\")",
            s->file->path, pickle_text(p, found->key), s->file->path, pickle_text(p, found->key));
    if (found)
        *dict = found->value;
    return CINF_OK;
}

/* Turns the members of the state dict into tensors, with a claim for each. */
static enum cinf_status collect(struct state *s, const struct pickle *p)
{
    struct pickle_value dict = p->result;
    if (dict.kind != PICKLE_DICT)
        return cinf_fail(CINF_EFORMAT, "%s: holds %s, not a dict of tensors", s->file->path,
                         pickle_kind_name(p->result));
    TRY(find_state_dict(s, p, &dict));
    const struct pickle_member *m;
    for (uint32_t i = p->containers[dict.first].head; i != PICKLE_END; i = m->next) {
        m = &p->members[i];
        if (m->key.kind != PICKLE_TEXT)
            return cinf_fail(CINF_EFORMAT, "%s: a key of its dict is %s, not a name", s->file->path,
                             pickle_kind_name(m->key));
        const char *name = pickle_text(p, m->key);
        if (m->value.kind != PICKLE_TENSOR)
            return cinf_fail(CINF_EFORMAT, "%s: \"%.100s\" is %s, not a tensor (a training checkpoint?)",
                             s->file->path, name, pickle_kind_name(m->value));
        struct tensor *t;
        if (!mem_reserve(&s->claims, &s->cap, s->n + 1, sizeof *s->claims))
            return cinf_fail(CINF_ENOMEM, "%s: no memory for its table of tensors", s->file->path);
        TRY(tensor_table_add(&t, s->table, s->file, name));
        s->claims[s->n] = (struct claim){ .tensor = (size_t)(t - s->table->items) };
        TRY(take_tensor(t, &s->claims[s->n++], p, m->value));
        if (dict.first != p->result.first && text_ends_with(name, "attn.c_attn.weight") &&
            t->view.n_dims == 2 && t->view.dims[0] / 3 == t->view.dims[1])
            return cinf_fail(CINF_EUNSUPPORTED, "%s: is a training checkpoint of %s", s->file->path,
                             torch_file_nanogpt);
    }
    return CINF_OK;
}

/* ---- views within their storages --------------------------------------------------------------- */

/* The storages are found and lie within the file. This checks that each view lies within its storage. */
static enum cinf_status place(const struct state *s)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct claim *c = &s->claims[i];
        struct tensor *t = &s->table->items[c->tensor];
        uint64_t last = t->offset, step;
        if (t->view.n_elements == 0)
            continue;
        for (uint32_t d = 0; d < t->view.n_dims; d++)
            if (!mul_u64(&step, t->view.dims[d] - 1, t->strides[d]) || !add_u64(&last, last, step))
                return tensor_fault(t, "its strides overflow");
        if (last >= c->n_elements)
            return tensor_fault(t, "its last element is number %" PRIu64 " of a storage of %" PRIu64, last,
                                c->n_elements);
        if (t->view.n_elements > c->n_elements)
            return cinf_fail(CINF_EUNSUPPORTED,
                             "%s: tensor \"%.100s\": is an expanded view, %" PRIu64
                             " elements of a storage of %" PRIu64,
                             s->file->path, t->view.name, t->view.n_elements, c->n_elements);
        t->offset = c->at + t->offset * (c->dtype->bits / 8);
    }
    return CINF_OK;
}

/* ---- the zip kind ------------------------------------------------------------------------------ */

/* Finds NAME/data.pkl for any NAME; there must be exactly one. */
static enum cinf_status find_pickle(struct zip_entry **out, const struct zip_directory *zip,
                                    const struct file *f)
{
    static const char tail[] = "/data.pkl";
    const size_t n_tail = sizeof tail - 1;
    struct zip_entry *found = NULL;
    for (size_t i = 0; i < zip->n; i++) {
        struct zip_entry *e = &zip->entries[i];
        if (e->n_name <= n_tail || memcmp(e->name + e->n_name - n_tail, tail, n_tail) != 0 ||
            memchr(e->name, '/', e->n_name - n_tail))
            continue;
        if (found)
            return cinf_fail(CINF_EFORMAT, "%s: zip: has two entries data.pkl", f->path);
        found = e;
    }
    if (!found)
        return cinf_fail(CINF_EFORMAT, "%s: is a zip archive without data.pkl, not a PyTorch checkpoint",
                         f->path);
    *out = found;
    return CINF_OK;
}

/* Finds entry NAME/`rest`, where NAME/ is the beginning of the pickle's own name; NULL when it is absent. */
static enum cinf_status find_beside(struct zip_entry **out, struct strbuf *scratch,
                                    const struct zip_directory *zip, const struct zip_entry *pickle,
                                    const char *rest)
{
    strbuf_clear(scratch);
    strbuf_add(scratch, pickle->name, pickle->n_name - strlen("data.pkl"));
    strbuf_puts(scratch, rest);
    if (scratch->failed)
        return cinf_fail(CINF_ENOMEM, "no memory for the name of a zip entry");
    *out = zip_directory_find(zip, scratch->text, scratch->len);
    return CINF_OK;
}

static enum cinf_status check_byte_order(const struct zip_directory *zip, const struct zip_entry *pickle,
                                         const struct file *f, struct strbuf *scratch)
{
    struct zip_entry *e;
    char order[6];
    TRY(find_beside(&e, scratch, zip, pickle, "byteorder"));
    if (!e)
        return CINF_OK;
    if (e->size == 6)
        TRY(file_read(f, e->offset, order, sizeof order));
    if (e->size != 6 || memcmp(order, "little", 6) != 0)
        return cinf_fail(CINF_EUNSUPPORTED, "%s: its elements are not little-endian", f->path);
    return CINF_OK;
}

/* Checks the storages when the checkpoint is opened, so that later reads give what was written. This costs
 * one reading of the file, which is in memory then. */
static enum cinf_status find_in_zip(struct state *s, const struct zip_directory *zip,
                                    const struct zip_entry *pickle, struct strbuf *scratch,
                                    struct zip_checker *checker)
{
    for (size_t i = 0; i < s->n; i++) {
        struct claim *c = &s->claims[i];
        const struct tensor *t = &s->table->items[c->tensor];
        struct zip_entry *e;
        struct strbuf rest = { 0 };
        strbuf_puts(&rest, "data/");
        strbuf_puts(&rest, c->key);
        enum cinf_status status = rest.failed
                                      ? cinf_fail(CINF_ENOMEM, "no memory for the name of a zip entry")
                                      : find_beside(&e, scratch, zip, pickle, rest.text);
        strbuf_free(&rest);
        TRY(status);
        if (!e)
            return tensor_fault(t, "its storage, data/%.40s, is missing", c->key);
        if (e->size != c->n_bytes)
            return tensor_fault(t, "its storage, data/%.40s, has %" PRIu64 " bytes instead of %" PRIu64,
                                c->key, e->size, c->n_bytes);
        TRY(zip_entry_check(e, s->file, checker));
        if (!e->intact)
            return tensor_fault(
                t, "its storage, data/%.40s, is damaged: the archive's checksum is of other bytes", c->key);
        c->at = e->offset;
    }
    return CINF_OK;
}

static enum cinf_status load_zip_entries(struct state *s, const struct zip_directory *zip,
                                         struct strbuf *scratch, struct zip_checker *checker)
{
    struct zip_entry *entry = NULL;
    struct pickle p;
    TRY(find_pickle(&entry, zip, s->file));
    TRY(zip_entry_check(entry, s->file, checker));
    if (!entry->intact)
        return cinf_fail(CINF_EFORMAT,
                         "%s: zip: data.pkl is damaged: the archive's checksum is of other bytes",
                         s->file->path);
    TRY(check_byte_order(zip, entry, s->file, scratch));
    uint64_t at = entry->offset;
    TRY(pickle_load(&p, s->file, &at, entry->offset + entry->size));
    enum cinf_status status = collect(s, &p);
    if (status == CINF_OK)
        status = find_in_zip(s, zip, entry, scratch, checker);
    if (status == CINF_OK)
        status = place(s);
    pickle_free(&p);
    return status;
}

static enum cinf_status load_zip(struct state *s)
{
    struct zip_directory zip;
    struct strbuf scratch = { 0 };
    TRY(zip_directory_read(&zip, s->file));
    struct zip_checker *checker = mem_new(1, sizeof *checker);
    enum cinf_status status;
    if (checker) {
        crc32_init(&checker->crc);
        status = load_zip_entries(s, &zip, &scratch, checker);
    } else {
        status = cinf_fail(CINF_ENOMEM, "%s: no memory to check it", s->file->path);
    }
    mem_free(checker);
    strbuf_free(&scratch);
    zip_directory_free(&zip);
    return status;
}

/* ---- the legacy kind --------------------------------------------------------------------------- */

/* Checks the three pickles before the state dict. */
static enum cinf_status check_preamble(const struct file *f, uint64_t *at)
{
    struct pickle p;
    bool good;

    /* file_kind() has seen the magic number. */
    TRY(pickle_load(&p, f, at, f->size));
    pickle_free(&p);

    TRY(pickle_load(&p, f, at, f->size));
    good = p.result.kind == PICKLE_INT && p.result.number == 1001;
    pickle_free(&p);
    if (!good)
        return cinf_fail(CINF_EUNSUPPORTED, "%s: a legacy checkpoint of a version other than 1001", f->path);

    TRY(pickle_load(&p, f, at, f->size));
    good = p.result.kind == PICKLE_DICT;
    bool little = false;
    for (uint32_t i = good ? p.containers[p.result.first].head : PICKLE_END; i != PICKLE_END;
         i = p.members[i].next) {
        const struct pickle_member *m = &p.members[i];
        if (m->key.kind == PICKLE_TEXT && strcmp(pickle_text(&p, m->key), "little_endian") == 0)
            little = m->value.kind == PICKLE_BOOL && m->value.number;
    }
    pickle_free(&p);
    if (!good)
        return cinf_fail(CINF_EFORMAT, "%s: its third pickle is not a dict about the system", f->path);
    if (!little)
        return cinf_fail(CINF_EUNSUPPORTED, "%s: its elements are not little-endian", f->path);
    return CINF_OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct claim *)a)->key, ((const struct claim *)b)->key);
}

/* Finds the claims with that key, which are ordered by key: the first, and how many. */
static size_t find_claims(const struct state *s, const char *key, size_t *n)
{
    size_t low = 0, high = s->n, end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(s->claims[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (end = low; end < s->n && strcmp(s->claims[end].key, key) == 0; end++)
        ;
    *n = end - low;
    return low;
}

/* Places the storage of that key, which begins at *at with 8 bytes of count before its elements. */
static enum cinf_status find_storage(struct state *s, const char *key, uint64_t *at)
{
    unsigned char bytes[8];
    size_t n, first = find_claims(s, key, &n);
    if (n == 0)
        return cinf_fail(CINF_EFORMAT, "%s: storage %.40s belongs to no tensor", s->file->path, key);
    struct claim *c = &s->claims[first];
    const struct tensor *t = &s->table->items[c->tensor];
    if (c->at != 0)
        return tensor_fault(t, "its storage, %.40s, is listed twice", key);
    if (s->file->size - *at < sizeof bytes)
        return tensor_fault(t, "its storage, %.40s, is cut off", key);
    TRY(file_read(s->file, *at, bytes, sizeof bytes));
    *at += sizeof bytes;
    if (load_u64(bytes) != c->n_elements)
        return tensor_fault(t, "its storage, %.40s, has %" PRIu64 " elements instead of %" PRIu64, key,
                            load_u64(bytes), c->n_elements);
    if (c->n_bytes > s->file->size - *at)
        return tensor_fault(t, "its storage, %.40s, is cut off: %" PRIu64 " bytes of %" PRIu64, key,
                            s->file->size - *at, c->n_bytes);
    for (size_t i = 0; i < n; i++) {
        if (c[i].dtype != c->dtype || c[i].n_elements != c->n_elements)
            return tensor_fault(&s->table->items[c[i].tensor],
                                "its storage, %.40s, is described differently by another tensor", key);
        c[i].at = *at;
    }
    *at += c->n_bytes;
    return CINF_OK;
}

static enum cinf_status find_in_sequence(struct state *s, const struct pickle *keys, uint64_t at)
{
    if (keys->result.kind != PICKLE_LIST)
        return cinf_fail(CINF_EFORMAT, "%s: its list of storages is %s", s->file->path,
                         pickle_kind_name(keys->result));
    if (s->n > 1)
        qsort(s->claims, s->n, sizeof *s->claims, by_key);
    const struct pickle_member *m;
    for (uint32_t i = keys->containers[keys->result.first].head; i != PICKLE_END; i = m->next) {
        m = &keys->members[i];
        if (m->value.kind != PICKLE_TEXT)
            return cinf_fail(CINF_EFORMAT, "%s: its list of storages holds %s", s->file->path,
                             pickle_kind_name(m->value));
        TRY(find_storage(s, pickle_text(keys, m->value), &at));
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->claims[i].at == 0)
            return tensor_fault(&s->table->items[s->claims[i].tensor], "its storage, %.40s, is missing",
                                s->claims[i].key);
    return CINF_OK;
}

static enum cinf_status load_legacy(struct state *s)
{
    struct pickle p, keys;
    uint64_t at = 0;
    TRY(check_preamble(s->file, &at));
    TRY(pickle_load(&p, s->file, &at, s->file->size));
    enum cinf_status status = collect(s, &p);
    if (status == CINF_OK)
        status = pickle_load(&keys, s->file, &at, s->file->size);
    if (status == CINF_OK) {
        status = find_in_sequence(s, &keys, at);
        pickle_free(&keys);
    }
    if (status == CINF_OK)
        status = place(s);
    pickle_free(&p);
    return status;
}

enum cinf_status torch_file_load(struct tensor_table *table, const struct file *f, bool *zip)
{
    struct state s = { .table = table, .file = f };
    const char *kind = file_kind(f);
    enum cinf_status status;
    s.zip = kind == file_kind_torch_zip;
    if (s.zip)
        status = load_zip(&s);
    else if (kind == file_kind_torch_legacy)
        status = load_legacy(&s);
    else
        status = cinf_fail(CINF_EFORMAT, "%s: is %s, not a PyTorch checkpoint", f->path,
                           kind ? kind : "of an unknown kind");
    mem_free(s.claims);
    TRY(status);
    *zip = s.zip;
    return CINF_OK;
}
