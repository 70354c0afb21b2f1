/* packed_weights.c - where weights lie and in which type; packed_write.c fills them.
 *
 * A weight's own type may differ from the weights' type: vectors are f32, tables of int8 and int4 weights
 * too, and tokens and heads of int4 weights are int8, because an error there is in every logit. */
#define _GNU_SOURCE /* madvise() */
#include "packed_weights.h"

#include <string.h>
#include <sys/mman.h>

#include "fail.h"
#include "half.h"
#include "packed_device.h"

enum {
    HUGE_PAGE = 2 << 20,
    ALIGN = 64,
    SHORTLIST_MIN_BYTES = 8 << 20, /* a head that is smaller is read as fast as its bounds are found */
};

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Bytes of k elements of PANEL outputs. */
static size_t panel_bytes(enum weights_type type, uint32_t k)
{
    switch (type) {
    case WEIGHTS_F32:
        return (size_t)k * PANEL * sizeof(float);
    case WEIGHTS_INT8:
        return round_up(k, 4) * PANEL;
    case WEIGHTS_INT4:
        return round_up(k, GROUP4) / GROUP4 * GROUP4_BYTES;
    default:
        return (size_t)k * PANEL * sizeof(uint16_t);
    }
}

static enum weights_type own_type(enum weight_role role, enum weights_type type)
{
    bool quantised = type == WEIGHTS_INT8 || type == WEIGHTS_INT4;
    switch (role) {
    case WEIGHT_VECTOR:
        return WEIGHTS_F32;
    case WEIGHT_TABLE:
        return quantised ? WEIGHTS_F32 : type;
    case WEIGHT_TOKENS:
    case WEIGHT_HEAD:
        return quantised ? WEIGHTS_INT8 : type;
    case WEIGHT_MATRIX:
        break;
    }
    return type;
}

/* ---- Making and freeing ------------------------------------------------------------------- */

/* Fills in everything but the pointers. */
static void shape(struct packed_matrix *m, const struct weight_spec *spec, enum weights_type type)
{
    m->spec = *spec;
    m->type = own_type(spec->role, type);
    bool by_columns = spec->role == WEIGHT_MATRIX;
    m->k = by_columns ? spec->rows : spec->cols;
    m->n = by_columns ? spec->cols : spec->rows;
    if (in_panels(spec)) {
        m->n_panels = (m->n + PANEL - 1) / PANEL;
        m->panel_bytes = panel_bytes(m->type, m->k);
        m->bytes = m->n_panels * m->panel_bytes;
    } else {
        size_t element = m->type == WEIGHTS_F32 ? sizeof(float) : sizeof(uint16_t);
        m->bytes = round_up(spec->rows * table_stride(spec->cols) * element, ALIGN);
    }
}

static size_t scales_bytes(const struct packed_matrix *m)
{
    return m->type == WEIGHTS_INT8 ? m->n_panels * PANEL * sizeof(float) : 0;
}

/* The weight that logits are products with. */
static uint32_t head_of(const struct weight_spec *specs, uint32_t n_specs)
{
    uint32_t head = n_specs;
    for (uint32_t i = 0; i < n_specs; i++) {
        if (specs[i].role == WEIGHT_HEAD || (specs[i].role == WEIGHT_TOKENS && head == n_specs))
            head = i;
    }
    return head;
}

static bool shortlist_pays(const struct packed_weights *w)
{
    if (w->head == w->n_specs)
        return false;
    const struct packed_matrix *m = &w->matrices[w->head];
    return m->type != WEIGHTS_INT8 && m->bytes >= SHORTLIST_MIN_BYTES;
}

static void lay_out(struct arena *arena, struct packed_weights *w)
{
    for (uint32_t i = 0; i < w->n_specs; i++) {
        struct packed_matrix *m = &w->matrices[i];
        m->elements = arena_take(arena, m->bytes, 1, ALIGN);
        if (scales_bytes(m) > 0)
            m->scales = arena_take(arena, scales_bytes(m), 1, ALIGN);
    }
    if (shortlist_pays(w))
        shortlist_lay_out(arena, &w->shortlist, w->matrices[w->head].n, w->matrices[w->head].k);
}

enum cinf_status packed_weights_new(struct weights **out, struct device *base,
                                    const struct weight_spec *specs, uint32_t n_specs, enum weights_type type)
{
    struct cpu_device *device = (struct cpu_device *)base;
    if (type > WEIGHTS_INT4)
        return cinf_fail(CINF_EUNSUPPORTED, "device %s keeps weights as f32, f16, bf16, int8 or int4",
                         base->backend->name);
    TRY(specs_check(specs, n_specs));
    for (uint32_t i = 0; i < n_specs; i++) {
        /* Half the size at which rounding up could overflow. */
        if ((uint64_t)specs[i].rows + PANEL > UINT32_MAX || (uint64_t)specs[i].cols + PANEL > UINT32_MAX ||
            (uint64_t)(specs[i].rows + PANEL) * (specs[i].cols + PANEL) > SIZE_MAX / 16)
            return cinf_fail(CINF_ENOMEM, "weight %u is %u x %u: too large", i, specs[i].rows, specs[i].cols);
    }

    struct arena arena = { 0 };
    struct packed_weights *w = cpu_new(device, 1, sizeof *w);
    if (w) {
        w->base.device = base;
        w->type = type;
        w->n_specs = n_specs;
        w->head = head_of(specs, n_specs);
        w->specs = cpu_new(device, n_specs, sizeof *w->specs);
        w->matrices = cpu_new(device, n_specs, sizeof *w->matrices);
    }
    if (w && w->specs && w->matrices) {
        for (uint32_t i = 0; i < n_specs; i++) {
            w->specs[i] = specs[i];
            shape(&w->matrices[i], &specs[i], type);
        }
        lay_out(&arena, w);
        if (arena.used <= SIZE_MAX - HUGE_PAGE)
            w->block = cpu_new(device, arena.used + HUGE_PAGE, 1);
    }
    if (!w || !w->block) {
        packed_weights_free((struct weights *)w);
        return cinf_fail(CINF_ENOMEM, "no memory for %zu bytes of weights in %s", arena.used,
                         weights_type_name(type));
    }
    /* Asks for whole huge pages, or as many as there are; the kernel may ignore this advice. */
    unsigned char *start = w->block + (HUGE_PAGE - (uintptr_t)w->block % HUGE_PAGE) % HUGE_PAGE;
    (void)madvise(start, round_up(arena.used, 4096) - 4096, MADV_HUGEPAGE);
    arena_begin(&arena, start);
    lay_out(&arena, w);
    *out = &w->base;
    return CINF_OK;
}

void packed_weights_free(struct weights *weights)
{
    if (!weights)
        return;
    struct packed_weights *w = (struct packed_weights *)weights;
    struct cpu_device *device = (struct cpu_device *)w->base.device;
    for (uint32_t i = 0; w->matrices && i < w->n_specs; i++)
        cpu_free(device, w->matrices[i].staging);
    cpu_free(device, w->block);
    cpu_free(device, w->matrices);
    cpu_free(device, w->specs);
    cpu_free(device, w);
}

uint64_t packed_weights_bytes(const struct weights *weights)
{
    const struct packed_weights *w = (const struct packed_weights *)weights;
    struct weights_sum sum = { 0 };
    for (uint32_t i = 0; i < w->n_specs; i++)
        weights_sum_add(&sum, w->specs[i].role, w->matrices[i].bytes + scales_bytes(&w->matrices[i]));
    return weights_sum_read(&sum);
}

/* ---- Reading ------------------------------------------------------------------------------ */

static float element_as(const unsigned char *elements, size_t at, enum weights_type type)
{
    float f;
    uint16_t bits;
    if (type == WEIGHTS_F32) {
        memcpy(&f, elements + at * sizeof f, sizeof f);
        return f;
    }
    memcpy(&bits, elements + at * sizeof bits, sizeof bits);
    return type == WEIGHTS_F16 ? f32_of_f16(bits) : f32_of_bf16(bits);
}

void packed_row(float *out, const struct packed_weights *w, uint32_t index, uint32_t row)
{
    const struct packed_matrix *m = &w->matrices[index];
    uint32_t cols = m->spec.cols;
    if (!in_panels(&m->spec)) {
        size_t start = row * table_stride(cols);
        for (uint32_t c = 0; c < cols; c++)
            out[c] = element_as(m->elements, start + c, m->type);
        return;
    }
    const unsigned char *panel = m->elements + row / PANEL * m->panel_bytes;
    if (m->type == WEIGHTS_INT8) {
        for (uint32_t c = 0; c < cols; c++)
            out[c] =
                (float)(panel[((size_t)(c / 4) * PANEL + row % PANEL) * 4 + c % 4] - 128) * m->scales[row];
        return;
    }
    for (uint32_t c = 0; c < cols; c++)
        out[c] = element_as(panel, (size_t)c * PANEL + row % PANEL, m->type);
}
