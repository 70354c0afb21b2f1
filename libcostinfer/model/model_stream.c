/* model_stream.c - a checkpoint's tensors on their way into a model on a device.
 *
 * Opening binds each spec of the model to one tensor, by name and exact shape; after that there are no names
 * any more.  Loading is then a walk over the specs in chunks of about a megabyte, so that whoever owns the
 * device can serve others in between: read a chunk of rows, refuse what is not a finite number, hand it to
 * the device.
 *
 * Names.  Tensors of the transformer have a prefix: none, "transformer." or any other that one tensor
 * <prefix>wte.weight shows.  The head, lm_head.weight, stands outside of it.  Files made before 2023 hold
 * attention masks too; those are ignored.  Other tensors are ignored with a note, except those of layers that
 * config.json does not have: the file then belongs to another model. */
#include "model.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <string.h>

#include "clock.h"
#include "fail.h"
#include "model_parts.h"
#include "mem.h"
#include "strbuf.h"

enum { CHUNK_BYTES = 1 << 20, SLOTS_DEFAULT = 64, NOTED_NAMES_MAX = 4 };

struct model_stream {
    char *folder; /* NULL: the weights are made up */
    struct cinf_checkpoint *checkpoint;
    struct model_options options;
    struct model *model; /* NULL once it is taken out */
    struct strbuf prefix;
    struct strbuf name; /* of the tensor being dealt with, for lookups and messages */
    struct strbuf notes;
    const struct cinf_tensor **tensors; /* [n_specs]; NULL with made-up weights */
    uint64_t seed;

    void *chunk;
    uint32_t spec, row; /* the next to be written */
    bool weights_finished, finished;
    uint64_t bytes_total, bytes_done;
};

/* ---- Made-up weights ---------------------------------------------------------------------- */

/* A bijection whose output looks random (the finalizer of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* n values around `mean`, with standard deviation 0.02.  Element i depends on (key, i) alone.  The sum of
 * four random bytes is close enough to normal: mean 510, variance 4 * (256^2 - 1) / 12. */
static void make_up(float *out, uint64_t key, uint64_t first, uint64_t n, float mean)
{
    const float unit = 0.02f / 147.8005f;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t half = mix(key + (first + i) / 2 * 0x9E3779B97F4A7C15u) >> ((first + i) % 2 * 32);
        uint32_t sum = (half & 255) + (half >> 8 & 255) + (half >> 16 & 255) + (half >> 24 & 255);
        out[i] = mean + ((float)sum - 510.0f) * unit;
    }
}

/* ---- Finding and checking tensors --------------------------------------------------------- */

static const char *set_name(struct model_stream *l, size_t prefix_len, const char *name)
{
    strbuf_clear(&l->name);
    strbuf_add(&l->name, l->prefix.text, prefix_len);
    strbuf_puts(&l->name, name);
    return l->name.failed ? NULL : l->name.text;
}

static enum cinf_status no_memory(const struct model_stream *l)
{
    return cinf_fail(CINF_ENOMEM, "no memory to load %s", l->folder ? l->folder : "made-up weights");
}

/* The prefix of the transformer's tensors. */
static enum cinf_status find_prefix(struct model_stream *l)
{
    static const char token_table[] = "wte.weight";
    static const char *const usual[] = { "", "transformer." };
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        strbuf_clear(&l->prefix);
        strbuf_puts(&l->prefix, usual[i]);
        if (l->prefix.failed || !set_name(l, l->prefix.len, token_table))
            return no_memory(l);
        if (cinf_checkpoint_find(l->checkpoint, l->name.text))
            return CINF_OK;
    }
    const char *found = NULL;
    for (uint32_t i = 0; i < cinf_checkpoint_count(l->checkpoint); i++) {
        const char *name = cinf_checkpoint_tensor(l->checkpoint, i)->name;
        if (!text_ends_with(name, ".wte.weight"))
            continue;
        if (found)
            return cinf_fail(CINF_EFORMAT, "%s: both %s and %s could be the token embeddings", l->folder,
                             found, name);
        found = name;
    }
    if (!found)
        return cinf_fail(CINF_EFORMAT, "%s: there is no tensor wte.weight or transformer.wte.weight",
                         l->folder);
    strbuf_clear(&l->prefix);
    strbuf_add(&l->prefix, found, strlen(found) - strlen(token_table));
    return l->prefix.failed ? no_memory(l) : CINF_OK;
}

/* lm_head.weight: outside the prefix, or below the first parts of a prefix like "_orig_mod.transformer.". */
static enum cinf_status find_head(struct model_stream *l, const struct cinf_tensor **out)
{
    for (size_t n = 0; n <= l->prefix.len; n++) {
        if (n > 0 && l->prefix.text[n - 1] != '.')
            continue;
        if (!set_name(l, n, "lm_head.weight"))
            return no_memory(l);
        *out = cinf_checkpoint_find(l->checkpoint, l->name.text);
        if (*out)
            break;
    }
    return CINF_OK;
}

static void put_shape(struct strbuf *b, uint32_t n_dims, const uint64_t *dims)
{
    strbuf_putc(b, '[');
    for (uint32_t i = 0; i < n_dims; i++)
        strbuf_printf(b, "%s%" PRIu64, i ? ", " : "", dims[i]);
    strbuf_putc(b, ']');
}

static enum cinf_status wrong_shape(const struct cinf_tensor *t, uint32_t n_dims, const uint64_t *expected)
{
    struct strbuf text = { 0 };
    strbuf_printf(&text, "%s: tensor %s is ", t->file, t->name);
    put_shape(&text, t->n_dims, t->dims);
    strbuf_puts(&text, ", expected ");
    put_shape(&text, n_dims, expected);
    enum cinf_status status =
        cinf_fail(CINF_EFORMAT, "%s", text.failed ? "a tensor's shape is wrong" : text.text);
    strbuf_free(&text);
    return status;
}

static enum cinf_status check_tensor(const struct cinf_tensor *t, const struct weight_spec *spec)
{
    const uint64_t matrix[] = { spec->rows, spec->cols };
    bool is_vector = spec->role == WEIGHT_VECTOR;
    uint32_t n_dims = is_vector ? 1 : 2;
    const uint64_t *expected = is_vector ? matrix + 1 : matrix;
    if (t->n_dims != n_dims || memcmp(t->dims, expected, n_dims * sizeof *expected) != 0)
        return wrong_shape(t, n_dims, expected);
    if (t->dtype == CINF_DTYPE_OTHER)
        return cinf_fail(CINF_EUNSUPPORTED,
                         "%s: tensor %s is %s; weights are read from F32, F16, BF16 and F64", t->file,
                         t->name, t->dtype_name);
    return CINF_OK;
}

static enum cinf_status missing(const struct model_stream *l, const char *why)
{
    return cinf_fail(CINF_EFORMAT, "%s: there is no tensor %s%s", l->folder, l->name.text, why);
}

/* V is the token table's, which may have been padded beyond what config.json and the tokenizer know. */
static enum cinf_status find_vocab(struct model_stream *l, struct cinf_config *config)
{
    if (!set_name(l, l->prefix.len, "wte.weight"))
        return no_memory(l);
    const struct cinf_tensor *t = cinf_checkpoint_find(l->checkpoint, l->name.text);
    if (t->n_dims != 2 || t->dims[0] < config->vocab_size || t->dims[0] > INT32_MAX)
        return wrong_shape(t, 2, (const uint64_t[]){ config->vocab_size, config->n_embd });
    if (t->dims[0] > config->vocab_size) {
        strbuf_printf(&l->notes,
                      "%s has %" PRIu64 " rows, vocab_size in config.json is %u: %" PRIu64
                      " rows of padding\n",
                      t->name, t->dims[0], config->vocab_size, t->dims[0] - config->vocab_size);
        config->vocab_size = (uint32_t)t->dims[0];
    }
    return CINF_OK;
}

/* Whether two tensors of one shape hold the same bytes. */
static enum cinf_status compare(const struct model_stream *l, const struct cinf_tensor *a,
                                const struct cinf_tensor *b, bool *same)
{
    *same = a->dtype == b->dtype && a->n_elements == b->n_elements;
    if (!*same || a->n_elements == 0)
        return CINF_OK;
    uint64_t width = a->n_bytes / a->n_elements;
    uint64_t n = CHUNK_BYTES / width < a->n_elements ? CHUNK_BYTES / width : a->n_elements;
    char *bytes = mem_new(n, 2 * width);
    if (!bytes)
        return no_memory(l);
    enum cinf_status status = CINF_OK;
    for (uint64_t first = 0; first < a->n_elements && *same && status == CINF_OK; first += n) {
        uint64_t now = a->n_elements - first < n ? a->n_elements - first : n;
        status = cinf_checkpoint_read(l->checkpoint, a, first, now, bytes);
        if (status == CINF_OK)
            status = cinf_checkpoint_read(l->checkpoint, b, first, now, bytes + n * width);
        *same = status == CINF_OK && memcmp(bytes, bytes + n * width, now * width) == 0;
    }
    mem_free(bytes);
    return status;
}

/* Whether the head has weights of its own.  A tied model's files may hold them nevertheless: equal bytes are
 * a copy, and different ones are a decision, which the operator makes by `untied_head`. */
static enum cinf_status decide_head(struct model_stream *l, const struct cinf_config *config, bool *own)
{
    const struct cinf_tensor *head = NULL;
    TRY(find_head(l, &head));
    *own = false;
    if (!head) {
        strbuf_clear(&l->name);
        strbuf_puts(&l->name, "lm_head.weight");
        if (l->name.failed)
            return no_memory(l);
        return config->tie_word_embeddings
                   ? CINF_OK
                   : missing(l, ", which tie_word_embeddings false in config.json asks for");
    }
    TRY(check_tensor(head, &(struct weight_spec){ WEIGHT_HEAD, config->vocab_size, config->n_embd }));

    if (!set_name(l, l->prefix.len, "wte.weight"))
        return no_memory(l);
    const struct cinf_tensor *tokens = cinf_checkpoint_find(l->checkpoint, l->name.text);
    bool same;
    TRY(compare(l, head, tokens, &same));
    if (same)
        return CINF_OK;
    *own = !config->tie_word_embeddings || l->options.untied_head;
    if (!*own)
        strbuf_printf(
            &l->notes,
            "%s differs from %s and is ignored, because config.json ties them; the untied-head option "
            "takes it\n",
            head->name, tokens->name);
    return CINF_OK;
}

static enum cinf_status bind(struct model_stream *l)
{
    const struct model *m = l->model;
    for (uint32_t i = 0; i < m->program.n_specs; i++) {
        const struct cinf_tensor *t = NULL;
        if (m->specs[i].role == WEIGHT_HEAD) {
            TRY(find_head(l, &t));
        } else {
            struct strbuf name = { 0 };
            gpt2_spec_name(&name, m, i);
            bool named = !name.failed && set_name(l, l->prefix.len, name.text);
            strbuf_free(&name);
            if (!named)
                return no_memory(l);
            t = cinf_checkpoint_find(l->checkpoint, l->name.text);
        }
        if (!t)
            return missing(l, "");
        TRY(check_tensor(t, &m->specs[i]));
        l->tensors[i] = t;
        l->bytes_total += t->n_bytes;
    }
    return CINF_OK;
}

/* Tensors that nothing was bound to. */
static enum cinf_status look_at_the_others(struct model_stream *l)
{
    uint32_t n_layer = l->model->config.n_layer, n_unknown = 0;
    struct strbuf names = { 0 };
    for (uint32_t i = 0; i < cinf_checkpoint_count(l->checkpoint); i++) {
        const char *name = cinf_checkpoint_tensor(l->checkpoint, i)->name;
        bool inside = strncmp(name, l->prefix.text, l->prefix.len) == 0;
        enum gpt2_name kind = inside ? gpt2_name_of(name + l->prefix.len, n_layer) : GPT2_NAME_UNKNOWN;
        if (kind == GPT2_NAME_BEYOND) {
            strbuf_free(&names);
            return cinf_fail(CINF_EFORMAT, "%s: there is a tensor %s, but config.json says n_layer %u",
                             l->folder, name, n_layer);
        }
        if (kind != GPT2_NAME_UNKNOWN || text_ends_with(name, "lm_head.weight"))
            continue;
        if (n_unknown++ < NOTED_NAMES_MAX) {
            strbuf_putc(&names, ' ');
            strbuf_put_json(&names, name, strlen(name));
        }
    }
    if (n_unknown > 0)
        strbuf_printf(&l->notes, "%u tensors are not part of a GPT-2 and are ignored:%s%s\n", n_unknown,
                      names.text ? names.text : "", n_unknown > NOTED_NAMES_MAX ? " ..." : "");
    bool failed = names.failed || l->notes.failed;
    strbuf_free(&names);
    return failed ? no_memory(l) : CINF_OK;
}

/* What the matrices are stored as; the widest where they differ. */
static enum weights_type stored_type(const struct model_stream *l)
{
    enum cinf_dtype first = l->tensors[0]->dtype;
    for (uint32_t i = 0; i < l->model->program.n_specs; i++) {
        if (l->model->specs[i].role != WEIGHT_VECTOR && l->tensors[i]->dtype != first)
            return WEIGHTS_F32;
    }
    return first == CINF_DTYPE_F16 ? WEIGHTS_F16 : first == CINF_DTYPE_BF16 ? WEIGHTS_BF16 : WEIGHTS_F32;
}

/* ---- Opening ------------------------------------------------------------------------------ */

static enum cinf_status loader_new(struct model_stream **out, const char *folder,
                                   const struct model_options *options)
{
    assert(options->rows_max > 0);
    struct model_stream *l = mem_new(1, sizeof *l);
    if (l && folder)
        l->folder = mem_copy_text(folder);
    if (!l || (folder && !l->folder)) {
        model_stream_free(l);
        return cinf_fail(CINF_ENOMEM, "no memory to load %s", folder ? folder : "made-up weights");
    }
    l->options = *options;
    if (l->options.slots_max == 0)
        l->options.slots_max = SLOTS_DEFAULT;
    *out = l;
    return CINF_OK;
}

static enum cinf_status open_folder(struct model_stream *l)
{
    struct cinf_config config;
    TRY(cinf_config_read(&config, l->folder));
    TRY(cinf_checkpoint_open(&l->checkpoint, l->folder));
    TRY(find_prefix(l));
    TRY(find_vocab(l, &config));
    /* Before memory is taken for each layer that config.json claims. */
    if (config.n_layer > cinf_checkpoint_count(l->checkpoint))
        return cinf_fail(CINF_EFORMAT, "%s: config.json says n_layer %u, but there are %u tensors in all",
                         l->folder, config.n_layer, cinf_checkpoint_count(l->checkpoint));
    bool own_head;
    TRY(decide_head(l, &config, &own_head));
    TRY(gpt2_new(&l->model, &config, own_head));
    l->tensors = mem_new(l->model->program.n_specs, sizeof *l->tensors);
    if (!l->tensors)
        return no_memory(l);
    TRY(bind(l));
    TRY(look_at_the_others(l));
    if (!l->options.weights_given)
        l->options.weights = stored_type(l);
    return CINF_OK;
}

enum cinf_status model_stream_open(struct model_stream **out, const char *folder,
                                   const struct model_options *options)
{
    struct model_stream *l;
    TRY(loader_new(&l, folder, options));
    enum cinf_status status = open_folder(l);
    if (status != CINF_OK) {
        model_stream_free(l);
        return status;
    }
    *out = l;
    return CINF_OK;
}

enum cinf_status model_stream_synthetic(struct model_stream **out, const struct cinf_config *config,
                                        uint64_t seed, const struct model_options *options)
{
    struct model_stream *l;
    TRY(loader_new(&l, NULL, options));
    l->seed = seed;
    enum cinf_status status = gpt2_new(&l->model, config, !config->tie_word_embeddings);
    if (status != CINF_OK) {
        model_stream_free(l);
        return status;
    }
    l->bytes_total = model_parameters(l->model) * sizeof(float);
    *out = l;
    return CINF_OK;
}

const char *model_stream_notes(const struct model_stream *l)
{
    return l->notes.text ? l->notes.text : "";
}

const struct cinf_config *model_stream_config(const struct model_stream *l)
{
    return &l->model->config;
}

uint64_t model_stream_bytes_total(const struct model_stream *l)
{
    return l->bytes_total;
}

uint64_t model_stream_bytes_done(const struct model_stream *l)
{
    return l->bytes_done;
}

/* ---- Loading ------------------------------------------------------------------------------ */

static uint64_t element_bytes(const struct model_stream *l, uint32_t spec)
{
    const struct cinf_tensor *t = l->checkpoint ? l->tensors[spec] : NULL;
    return t ? t->n_bytes / t->n_elements : sizeof(float);
}

/* Takes the memory on the device: weights, then what the budget gives in whole slots. */
static enum cinf_status start(struct model_stream *l, struct device *device)
{
    const struct backend *backend = device->backend;
    struct model *m = l->model;
    uint64_t slot_bytes = backend->kv_slot_bytes(device, &m->program);
    uint64_t slots = l->options.kv_bytes / slot_bytes;
    if (slots == 0)
        return cinf_fail(CINF_ENOMEM,
                         "the cache of one context of %u positions takes %" PRIu64 " bytes, and %" PRIu64
                         " are allowed",
                         m->config.n_positions, slot_bytes, l->options.kv_bytes);
    m->rows_max = l->options.rows_max;
    m->kv_position_bytes = slot_bytes / m->config.n_positions;

    size_t chunk_bytes = CHUNK_BYTES;
    for (uint32_t i = 0; i < m->program.n_specs; i++) {
        uint64_t row_bytes = m->specs[i].cols * element_bytes(l, i);
        chunk_bytes = row_bytes > chunk_bytes ? row_bytes : chunk_bytes;
    }
    l->chunk = mem_new(chunk_bytes, 1);
    if (!l->chunk)
        return no_memory(l);

    m->weights_type = l->options.weights;
    enum cinf_status status =
        backend->weights_new(&m->weights, device, m->specs, m->program.n_specs, m->weights_type);
    if (status == CINF_EUNSUPPORTED && !l->options.weights_given && m->weights_type != WEIGHTS_F32) {
        m->weights_type = WEIGHTS_F32;
        status = backend->weights_new(&m->weights, device, m->specs, m->program.n_specs, m->weights_type);
    }
    TRY(status);
    m->slots = slots < l->options.slots_max ? (uint32_t)slots : l->options.slots_max;
    uint32_t most = UINT32_MAX;
    if (backend->kv_slots_max)
        TRY(backend->kv_slots_max(&most, device, &m->program));
    m->slots = m->slots < most ? m->slots : most;
    return backend->kv_new(&m->kv, device, &m->program, m->slots);
}

/* The index of the first element that is not finite, or n.  By the exponent's bits: no conversion.  A
 * double beyond float32's range would be infinite too. */
static uint64_t first_not_finite(const void *elements, uint64_t n, enum cinf_dtype dtype)
{
    uint64_t i = 0;
    if (dtype == CINF_DTYPE_F32) {
        const uint32_t *bits = elements;
        while (i < n && (bits[i] & 0x7F800000u) != 0x7F800000u)
            i++;
    } else if (dtype == CINF_DTYPE_F64) {
        const double *values = elements;
        while (i < n && values[i] >= -(double)FLT_MAX && values[i] <= (double)FLT_MAX)
            i++;
    } else {
        const uint16_t *bits = elements, mask = dtype == CINF_DTYPE_F16 ? 0x7C00u : 0x7F80u;
        while (i < n && (bits[i] & mask) != mask)
            i++;
    }
    return i;
}

/* One chunk of rows of one tensor. */
static enum cinf_status load_chunk(struct model_stream *l)
{
    struct model *m = l->model;
    const struct weight_spec *spec = &m->specs[l->spec];
    uint64_t row_bytes = spec->cols * element_bytes(l, l->spec);
    uint64_t fit = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1;
    uint32_t left = spec->rows - l->row;
    uint32_t n_rows = fit < left ? (uint32_t)fit : left;
    uint64_t first = (uint64_t)l->row * spec->cols, n = (uint64_t)n_rows * spec->cols;
    enum cinf_dtype dtype = CINF_DTYPE_F32;

    if (l->checkpoint) {
        const struct cinf_tensor *t = l->tensors[l->spec];
        dtype = t->dtype;
        TRY(cinf_checkpoint_read(l->checkpoint, t, first, n, l->chunk));
        uint64_t bad = first_not_finite(l->chunk, n, dtype);
        if (bad < n)
            return cinf_fail(CINF_EFORMAT,
                             "%s: tensor %s holds a value that is not finite in float32, element %" PRIu64,
                             t->file, t->name, first + bad);
    } else {
        make_up(l->chunk, mix(l->seed + l->spec), first, n, gpt2_spec_is_gain(m, l->spec) ? 1.0f : 0.0f);
    }
    enum cinf_status status =
        m->weights->device->backend->weights_write(m->weights, l->spec, l->row, n_rows, l->chunk, dtype);
    if (status != CINF_OK)
        return l->checkpoint ? cinf_fail_in(status, "%s: tensor %s: ", l->tensors[l->spec]->file,
                                            l->tensors[l->spec]->name)
                             : status;
    l->bytes_done += n_rows * row_bytes;
    l->row += n_rows;
    if (l->row == spec->rows) {
        l->row = 0;
        l->spec++;
    }
    return CINF_OK;
}

/* The head's part of what a whole step reads, by its share of the parameters: right for every layout but
 * int4, which keeps the head in int8 and has 4.5 bits for the others. */
static uint64_t head_part(const struct model *m)
{
    double head = (double)m->config.vocab_size * m->config.n_embd;
    if (m->weights_type == WEIGHTS_INT4)
        head *= 8 / 4.5;
    double all = (double)m->weights->device->backend->weights_bytes(m->weights);
    return (uint64_t)(all * (head / (head + (double)m->matrix_parameters)));
}

enum cinf_status model_stream_step(struct model_stream *l, struct device *device, uint64_t budget_ns,
                                   bool *done)
{
    struct model *m = l->model;
    uint64_t begin_ns = clock_monotonic_ns();
    assert(m && !l->finished && (!m->weights || m->weights->device == device));
    if (!m->kv)
        TRY(start(l, device));
    do {
        if (l->spec < m->program.n_specs) {
            TRY(load_chunk(l));
        } else if (!l->weights_finished) {
            TRY(device->backend->weights_finish(m->weights, &l->weights_finished));
        } else if (!m->prepared) {
            TRY(device->backend->prepare(&m->prepared, m->weights, m->kv, &m->program, m->rows_max));
            m->head_bytes = head_part(m);
            l->finished = !device->backend->prepare_more;
        } else {
            TRY(device->backend->prepare_more(m->prepared, &l->finished));
        }
    } while (!l->finished && clock_monotonic_ns() - begin_ns < budget_ns);
    *done = l->finished;
    return CINF_OK;
}

enum cinf_status model_stream_finish(struct model **out, struct model_stream *l)
{
    assert(l->finished && l->model);
    *out = l->model;
    l->model = NULL;
    return CINF_OK;
}

void model_stream_free(struct model_stream *l)
{
    if (!l)
        return;
    model_free(l->model);
    cinf_checkpoint_free(l->checkpoint);
    strbuf_free(&l->prefix);
    strbuf_free(&l->name);
    strbuf_free(&l->notes);
    mem_free(l->tensors);
    mem_free(l->chunk);
    mem_free(l->folder);
    mem_free(l);
}
