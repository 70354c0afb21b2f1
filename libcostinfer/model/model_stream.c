/* model_stream.c - weights on their way into a model on a device.
 *
 * binding.c has found a tensor for each spec of the model, so that there are no names here except in
 * messages. Loading is a walk over the specs in chunks of about a megabyte, so that the thread that owns the
 * device can serve requests in between: read a chunk of rows, refuse what is not a finite number, hand it to
 * the device. Synthetic weights go the same way. */
#include "model_stream.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <string.h>

#include "binding.h"
#include "clock.h"
#include "fail.h"
#include "mem.h"
#include "model_state.h"

enum { CHUNK_BYTES = 1 << 20, SLOTS_DEFAULT = 64 };

struct model_stream {
    char *folder; /* NULL: the weights are synthetic, and nothing is bound */
    uint64_t seed;
    struct binding binding;
    struct model_options options;
    struct model *model; /* NULL once it is taken out */

    void *chunk;
    uint32_t spec, row; /* the next to be written */
    bool weights_finished, finished;
    uint64_t bytes_total, bytes_done;
};

static enum cinf_status no_memory(const struct model_stream *s)
{
    return cinf_fail(CINF_ENOMEM, "no memory to load %s", s->folder ? s->folder : "synthetic weights");
}

/* ---- Synthetic weights -------------------------------------------------------------------- */

/* A bijection whose output looks random (the finalizer of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* n values around `mean`, with standard deviation 0.02.  Element i depends on (key, i) alone.  The sum of
 * four random bytes is close enough to normal: mean 510, variance 4 * (256^2 - 1) / 12. */
static void synthesize(float *out, uint64_t key, uint64_t first, uint64_t n, float mean)
{
    const float unit = 0.02f / 147.8005f;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t half = mix(key + (first + i) / 2 * 0x9E3779B97F4A7C15u) >> ((first + i) % 2 * 32);
        uint32_t sum = (half & 255) + (half >> 8 & 255) + (half >> 16 & 255) + (half >> 24 & 255);
        out[i] = mean + ((float)sum - 510.0f) * unit;
    }
}

/* ---- Opening ------------------------------------------------------------------------------ */

/* The type that all matrices are stored as; f32 where they differ. */
static enum weights_type stored_type(const struct model_stream *s)
{
    enum cinf_dtype first = s->binding.tensors[0]->dtype;
    for (uint32_t i = 0; i < s->model->program.n_specs; i++) {
        if (s->model->specs[i].role != WEIGHT_VECTOR && s->binding.tensors[i]->dtype != first)
            return WEIGHTS_F32;
    }
    return first == CINF_DTYPE_F16 ? WEIGHTS_F16 : first == CINF_DTYPE_BF16 ? WEIGHTS_BF16 : WEIGHTS_F32;
}

static enum cinf_status stream_new(struct model_stream **out, const char *folder,
                                   const struct model_options *options)
{
    assert(options->rows_max > 0);
    struct model_stream *s = mem_new(1, sizeof *s);
    if (s && folder)
        s->folder = mem_copy_text(folder);
    if (!s || (folder && !s->folder)) {
        model_stream_free(s);
        return cinf_fail(CINF_ENOMEM, "no memory to load %s", folder ? folder : "synthetic weights");
    }
    s->options = *options;
    if (s->options.slots_max == 0)
        s->options.slots_max = SLOTS_DEFAULT;
    *out = s;
    return CINF_OK;
}

enum cinf_status model_stream_open(struct model_stream **out, const char *folder,
                                   const struct model_options *options)
{
    struct model_stream *s;
    TRY(stream_new(&s, folder, options));
    enum cinf_status status = binding_open(&s->binding, &s->model, s->folder, options->untied_head);
    if (status != CINF_OK) {
        model_stream_free(s);
        return status;
    }
    if (!options->weights_given)
        s->options.weights = stored_type(s);
    for (uint32_t i = 0; i < s->model->program.n_specs; i++)
        s->bytes_total += s->binding.tensors[i]->n_bytes;
    *out = s;
    return CINF_OK;
}

enum cinf_status model_stream_synthetic(struct model_stream **out, const struct cinf_config *config,
                                        uint64_t seed, const struct model_options *options)
{
    struct model_stream *s;
    TRY(stream_new(&s, NULL, options));
    s->seed = seed;
    enum cinf_status status = model_new(&s->model, architectures()[0], config, !config->tie_word_embeddings);
    if (status != CINF_OK) {
        model_stream_free(s);
        return status;
    }
    s->bytes_total = model_parameters(s->model) * sizeof(float);
    *out = s;
    return CINF_OK;
}

const char *model_stream_notes(const struct model_stream *s)
{
    return s->binding.notes.text ? s->binding.notes.text : "";
}

const struct cinf_config *model_stream_config(const struct model_stream *s)
{
    return &s->model->config;
}

uint64_t model_stream_bytes_total(const struct model_stream *s)
{
    return s->bytes_total;
}

uint64_t model_stream_bytes_done(const struct model_stream *s)
{
    return s->bytes_done;
}

/* ---- Loading ------------------------------------------------------------------------------ */

static uint64_t element_bytes(const struct model_stream *s, uint32_t spec)
{
    const struct cinf_tensor *t = s->binding.checkpoint ? s->binding.tensors[spec] : NULL;
    return t ? t->n_bytes / t->n_elements : sizeof(float);
}

/* Takes the memory on the device: weights, then as many whole slots as the budget and the device allow. */
static enum cinf_status start(struct model_stream *s, struct device *device)
{
    const struct backend *backend = device->backend;
    struct model *m = s->model;
    uint64_t slot_bytes = backend->kv_slot_bytes(device, &m->program);
    uint64_t slots = s->options.kv_bytes / slot_bytes;
    if (slots == 0)
        return cinf_fail(CINF_ENOMEM,
                         "the cache of one context of %u positions takes %" PRIu64 " bytes, and %" PRIu64
                         " are allowed",
                         m->config.n_positions, slot_bytes, s->options.kv_bytes);
    m->rows_max = s->options.rows_max;
    m->kv_position_bytes = slot_bytes / m->config.n_positions;

    size_t chunk_bytes = CHUNK_BYTES;
    for (uint32_t i = 0; i < m->program.n_specs; i++) {
        uint64_t row_bytes = m->specs[i].cols * element_bytes(s, i);
        chunk_bytes = row_bytes > chunk_bytes ? row_bytes : chunk_bytes;
    }
    s->chunk = mem_new(chunk_bytes, 1);
    if (!s->chunk)
        return no_memory(s);

    m->weights_type = s->options.weights;
    enum cinf_status status =
        backend->weights_new(&m->weights, device, m->specs, m->program.n_specs, m->weights_type);
    if (status == CINF_EUNSUPPORTED && !s->options.weights_given && m->weights_type != WEIGHTS_F32) {
        m->weights_type = WEIGHTS_F32;
        status = backend->weights_new(&m->weights, device, m->specs, m->program.n_specs, m->weights_type);
    }
    TRY(status);
    m->slots = slots < s->options.slots_max ? (uint32_t)slots : s->options.slots_max;
    uint32_t most = UINT32_MAX;
    if (backend->kv_slots_max)
        TRY(backend->kv_slots_max(&most, device, &m->program));
    m->slots = m->slots < most ? m->slots : most;
    return backend->kv_new(&m->kv, device, &m->program, m->slots);
}

/* Of a weight; what the devices keep beside it (scales, sums, a second copy of the head) is more. */
static uint64_t bits_of(const struct weight_spec *spec, enum weights_type type)
{
    static const uint64_t bits[] = {
        [WEIGHTS_F32] = 32, [WEIGHTS_F16] = 16, [WEIGHTS_BF16] = 16, [WEIGHTS_INT8] = 8, [WEIGHTS_INT4] = 4
    };
    return spec->role == WEIGHT_VECTOR ? 32 : bits[type];
}

struct model_plan model_stream_plan(const struct model_stream *s, struct device *device)
{
    const struct model *m = s->model;
    struct model_plan plan = { .slot_bytes = device->backend->kv_slot_bytes(device, &m->program) };
    for (uint32_t i = 0; i < m->program.n_specs; i++)
        plan.weight_bytes +=
            (uint64_t)m->specs[i].rows * m->specs[i].cols * bits_of(&m->specs[i], s->options.weights) / 8;
    uint64_t slots = s->options.kv_bytes / plan.slot_bytes;
    plan.slots = slots < s->options.slots_max ? (uint32_t)slots : s->options.slots_max;
    return plan;
}

/* The index of the first element that is not finite in float32, or n.  It looks at the exponent's bits, which
 * needs no conversion; a double beyond float32's range would become infinite. */
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

/* Writes one chunk of rows of one tensor. */
static enum cinf_status load_chunk(struct model_stream *s)
{
    struct model *m = s->model;
    const struct weight_spec *spec = &m->specs[s->spec];
    uint64_t row_bytes = spec->cols * element_bytes(s, s->spec);
    uint64_t fit = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1;
    uint32_t left = spec->rows - s->row;
    uint32_t n_rows = fit < left ? (uint32_t)fit : left;
    uint64_t first = (uint64_t)s->row * spec->cols, n = (uint64_t)n_rows * spec->cols;
    enum cinf_dtype dtype = CINF_DTYPE_F32;

    if (s->binding.checkpoint) {
        const struct cinf_tensor *t = s->binding.tensors[s->spec];
        dtype = t->dtype;
        TRY(cinf_checkpoint_read(s->binding.checkpoint, t, first, n, s->chunk));
        uint64_t bad = first_not_finite(s->chunk, n, dtype);
        if (bad < n)
            return cinf_fail(CINF_EFORMAT,
                             "%s: tensor %s holds a value that is not finite in float32, element %" PRIu64,
                             t->file, t->name, first + bad);
    } else {
        float mean = architecture_spec_is_gain(m->architecture, &m->config, s->spec) ? 1.0f : 0.0f;
        synthesize(s->chunk, mix(s->seed + s->spec), first, n, mean);
    }
    enum cinf_status status =
        m->weights->device->backend->weights_write(m->weights, s->spec, s->row, n_rows, s->chunk, dtype);
    if (status != CINF_OK)
        return s->binding.checkpoint
                   ? cinf_fail_in(status, "%s: tensor %s: ", s->binding.tensors[s->spec]->file,
                                  s->binding.tensors[s->spec]->name)
                   : status;
    s->bytes_done += n_rows * row_bytes;
    s->row += n_rows;
    if (s->row == spec->rows) {
        s->row = 0;
        s->spec++;
    }
    return CINF_OK;
}

/* The head's part of what a whole step reads, by its share of the parameters.  That is right for every type
 * but int4, which keeps the head in int8 and takes 4.5 bits for each of the other weights. */
static uint64_t head_part(const struct model *m)
{
    double head = (double)m->head_parameters;
    if (m->weights_type == WEIGHTS_INT4)
        head *= 8 / 4.5;
    double all = (double)m->weights->device->backend->weights_bytes(m->weights);
    return (uint64_t)(all * (head / (head + (double)m->matrix_parameters)));
}

enum cinf_status model_stream_step(struct model_stream *s, struct device *device, uint64_t budget_ns,
                                   bool *done)
{
    struct model *m = s->model;
    uint64_t begin_ns = clock_monotonic_ns();
    assert(m && !s->finished && (!m->weights || m->weights->device == device));
    if (!m->kv)
        TRY(start(s, device));
    do {
        if (s->spec < m->program.n_specs) {
            TRY(load_chunk(s));
        } else if (!s->weights_finished) {
            TRY(device->backend->weights_finish(m->weights, &s->weights_finished));
        } else if (!m->prepared) {
            TRY(device->backend->prepare(&m->prepared, m->weights, m->kv, &m->program, m->rows_max));
            m->head_bytes = head_part(m);
            s->finished = !device->backend->prepare_more;
        } else {
            TRY(device->backend->prepare_more(m->prepared, &s->finished));
        }
    } while (!s->finished && clock_monotonic_ns() - begin_ns < budget_ns);
    *done = s->finished;
    return CINF_OK;
}

enum cinf_status model_stream_finish(struct model **out, struct model_stream *s)
{
    assert(s->finished && s->model);
    *out = s->model;
    s->model = NULL;
    return CINF_OK;
}

void model_stream_free(struct model_stream *s)
{
    if (!s)
        return;
    model_free(s->model);
    binding_free(&s->binding);
    mem_free(s->chunk);
    mem_free(s->folder);
    mem_free(s);
}
