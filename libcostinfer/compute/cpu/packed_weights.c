/* packed_weights.c - weights into panels, while they arrive.
 *
 * A checkpoint's matrices come by rows, a few at a time; all threads of the pool put them into place at
 * once.  Nothing is kept twice: a row lands where the kernels read it.  Only int8 and int4 matrices wait for
 * their last row, because a scale is known only then.
 *
 * A weight's own type may differ from the weights' type: vectors are f32, tables of int8 and int4 weights
 * too, and tokens and heads of int4 weights are int8, because an error there is in every logit. */
#define _GNU_SOURCE /* madvise() */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "fail.h"
#include "half.h"
#include "int8_scale.h"
#include "mem.h"
#include "packed_memory.h"

enum {
    HUGE_PAGE = 2 << 20,
    ALIGN = 64,
    SCAN_BYTES_LEAST = 8 << 20, /* a head that is smaller is read as fast as it is scanned */
};

static const char *const type_names[] = { "f32", "f16", "bf16", "int8", "int4" };

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static bool in_panels(const struct weight_spec *spec)
{
    return spec->role != WEIGHT_TABLE && spec->role != WEIGHT_VECTOR;
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

/* Fills in the shape; returns the bytes it takes, scales included. */
static size_t shape(struct packed_matrix *m, const struct weight_spec *spec, const struct packed_weights *w)
{
    m->spec = *spec;
    m->type = own_type(spec->role, w->type);
    bool by_columns = spec->role == WEIGHT_MATRIX;
    m->k = by_columns ? spec->rows : spec->cols;
    m->n = by_columns ? spec->cols : spec->rows;
    if (!in_panels(spec)) {
        size_t element = m->type == WEIGHTS_F32 ? sizeof(float) : sizeof(uint16_t);
        return round_up((size_t)spec->rows * round_up(spec->cols, PANEL) * element, ALIGN);
    }
    m->n_panels = (m->n + PANEL - 1) / PANEL;
    m->panel_bytes = panel_bytes(m->type, m->k);
    return m->n_panels * (m->panel_bytes + (m->type == WEIGHTS_INT8 ? PANEL * sizeof(float) : 0));
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

/* Bytes of the head's copy in int8; 0 where it would not pay. */
static size_t scan_size(const struct packed_weights *w)
{
    if (w->scan_of == w->n_specs)
        return 0;
    const struct packed_matrix *m = &w->matrices[w->scan_of];
    bool pays = m->type != WEIGHTS_INT8 && m->n_panels * m->panel_bytes >= SCAN_BYTES_LEAST;
    return pays ? scan_bytes(m->n, m->k) : 0;
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
        /* Half of what rounding up could make overflow. */
        if ((uint64_t)specs[i].rows + PANEL > UINT32_MAX || (uint64_t)specs[i].cols + PANEL > UINT32_MAX ||
            (uint64_t)(specs[i].rows + PANEL) * (specs[i].cols + PANEL) > SIZE_MAX / 16)
            return cinf_fail(CINF_ENOMEM, "weight %u is %u x %u: too large", i, specs[i].rows, specs[i].cols);
    }

    uint64_t bytes = 0;
    struct packed_weights *w = cpu_new(device, 1, sizeof *w);
    if (w) {
        w->base.device = base;
        w->type = type;
        w->n_specs = n_specs;
        w->specs = cpu_new(device, n_specs, sizeof *w->specs);
        w->matrices = cpu_new(device, n_specs, sizeof *w->matrices);
        bool fits = w->specs && w->matrices;
        for (uint32_t i = 0; i < n_specs && fits; i++)
            fits = add_u64(&bytes, bytes, shape(&w->matrices[i], &specs[i], w));
        w->scan_of = head_of(specs, n_specs);
        fits = fits && add_u64(&bytes, bytes, scan_size(w));
        if (fits && bytes <= SIZE_MAX - HUGE_PAGE)
            w->block = cpu_new(device, bytes + HUGE_PAGE, 1);
    }
    if (!w || !w->specs || !w->matrices || !w->block) {
        packed_weights_free((struct weights *)w);
        return cinf_fail(CINF_ENOMEM, "no memory for %" PRIu64 " bytes of weights in %s", bytes,
                         type_names[type]);
    }
    /* Whole huge pages, or as many as there are: advice that may be ignored. */
    unsigned char *next = w->block + (HUGE_PAGE - (uintptr_t)w->block % HUGE_PAGE) % HUGE_PAGE;
    (void)madvise(next, round_up(bytes, 4096) - 4096, MADV_HUGEPAGE);
    for (uint32_t i = 0; i < n_specs; i++) {
        struct packed_matrix *m = &w->matrices[i];
        w->specs[i] = specs[i];
        m->elements = next;
        next += shape(m, &specs[i], w);
        if (m->type == WEIGHTS_INT8)
            m->scales = (float *)(void *)(m->elements + m->n_panels * m->panel_bytes);
    }
    if (scan_size(w) > 0)
        scan_place(&w->scan, w->matrices[w->scan_of].n, w->matrices[w->scan_of].k, next);
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
    for (uint32_t i = 0; i < w->n_specs; i++) {
        struct packed_matrix m;
        weights_sum_add(&sum, w->specs[i].role, shape(&m, &w->specs[i], w));
    }
    return weights_sum_read(&sum);
}

/* ---- Writing ------------------------------------------------------------------------------ */

struct write {
    struct packed_weights *weights;
    struct packed_matrix *m;
    const struct packed_kernels *kernels;
    uint32_t first, n; /* rows of the weight */
    const unsigned char *elements;
    enum cinf_dtype dtype;
    _Atomic size_t *bad; /* the first element that does not fit; SIZE_MAX: none */
};

static void note_bad(const struct write *job, size_t at)
{
    size_t before = atomic_load(job->bad);
    while (at < before && !atomic_compare_exchange_weak(job->bad, &before, at))
        ;
}

/* to[n] = elements at, at + 1, … */
static void read_numbers(float *to, const struct write *job, size_t at, size_t n)
{
    switch (job->dtype) {
    case CINF_DTYPE_F32:
        memcpy(to, job->elements + at * sizeof(float), n * sizeof(float));
        break;
    case CINF_DTYPE_F16:
    case CINF_DTYPE_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t bits;
            memcpy(&bits, job->elements + 2 * (at + i), sizeof bits);
            to[i] = job->dtype == CINF_DTYPE_F16 ? f32_of_f16(bits) : f32_of_bf16(bits);
        }
        break;
    default:
        for (size_t i = 0; i < n; i++) {
            double value;
            memcpy(&value, job->elements + 8 * (at + i), sizeof value);
            to[i] = (float)value;
            if (isinf(to[i]) && !isinf(value))
                note_bad(job, at + i);
        }
        break;
    }
}

/* To the nearest, ties to even; too large becomes infinity, NaN stays one. */
static uint16_t bf16_of_f32(float f)
{
    uint32_t bits = bits_of_f32(f);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* Numbers of a line, at most PANEL, that come from element `at` on. */
static void store_line(void *to, enum weights_type type, const struct write *job, size_t at, uint32_t n)
{
    bool same = (type == WEIGHTS_F32 && job->dtype == CINF_DTYPE_F32) ||
                (type == WEIGHTS_F16 && job->dtype == CINF_DTYPE_F16) ||
                (type == WEIGHTS_BF16 && job->dtype == CINF_DTYPE_BF16);
    size_t element = type == WEIGHTS_F32 ? sizeof(float) : sizeof(uint16_t);
    if (same) {
        memcpy(to, job->elements + at * element, n * element);
        return;
    }
    float numbers[PANEL] = { 0 };
    uint16_t halves[PANEL];
    read_numbers(numbers, job, at, n);
    if (type == WEIGHTS_F32) {
        memcpy(to, numbers, n * sizeof *numbers);
        return;
    }
    if (type == WEIGHTS_F16) {
        job->kernels->narrow_f16(halves, numbers, PANEL);
    } else {
        for (uint32_t i = 0; i < n; i++)
            halves[i] = bf16_of_f32(numbers[i]);
    }
    uint16_t infinite = type == WEIGHTS_F16 ? 0x7C00 : 0x7F80;
    for (uint32_t i = 0; i < n; i++) {
        if ((halves[i] & 0x7FFF) == infinite && !isinf(numbers[i]))
            note_bad(job, at + i);
    }
    memcpy(to, halves, n * sizeof *halves);
}

/* Rows as they are: of tables, vectors, and of matrices on their way to int8 or int4. */
static void write_row(const void *argument, uint32_t row, uint32_t worker)
{
    (void)worker;
    const struct write *job = argument;
    const struct packed_matrix *m = job->m;
    enum weights_type type = m->staging ? WEIGHTS_F32 : m->type;
    size_t element = type == WEIGHTS_F32 ? sizeof(float) : sizeof(uint16_t), cols = m->spec.cols;
    unsigned char *rows = m->staging ? (unsigned char *)m->staging : m->elements;
    size_t stride = m->staging ? cols : round_up(cols, PANEL);
    for (size_t c = 0; c < cols; c += PANEL) {
        uint32_t n = cols - c < PANEL ? (uint32_t)(cols - c) : PANEL;
        store_line(rows + ((job->first + row) * stride + c) * element, type, job, row * cols + c, n);
    }
}

/* A few lines of one panel: rows of the weight are lines. */
static void write_lines(const void *argument, uint32_t panel, uint32_t worker)
{
    (void)worker;
    const struct write *job = argument;
    const struct packed_matrix *m = job->m;
    size_t line = m->panel_bytes / m->k;
    uint32_t column = panel * PANEL, n = m->n - column < PANEL ? m->n - column : PANEL;
    unsigned char *to = m->elements + panel * m->panel_bytes + job->first * line;
    for (uint32_t row = 0; row < job->n; row++, to += line)
        store_line(to, m->type, job, (size_t)row * m->n + column, n);
}

/* x, at most 127 in size, to the nearest, plus 128 */
static unsigned char byte_of(float x)
{
    return (unsigned char)(bits_of_f32(x + 0x1.8p23f) + 128);
}

/* int4's scales are f16. */
static void check_size(const struct write *job, const float *numbers, size_t at, size_t n)
{
    const float most = job->m->type == WEIGHTS_INT4 ? 7 * 65504.0f : FLT_MAX;
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(numbers[i]) <= most))
            note_bad(job, at + i);
    }
}

/* Some columns of one panel: rows of the weight are outputs. */
static void write_columns(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    enum { LINES = 64 }; /* 8 KiB of a panel at a time */
    const struct write *job = argument;
    const struct packed_matrix *m = job->m;
    enum weights_type type = m->type;
    uint32_t panel = job->first / PANEL + tile;
    uint32_t begin = panel * PANEL > job->first ? panel * PANEL : job->first;
    uint32_t end = job->first + job->n < (panel + 1) * PANEL ? job->first + job->n : (panel + 1) * PANEL;
    unsigned char *to = m->elements + panel * m->panel_bytes;
    for (uint32_t k = 0; k < m->k; k += LINES) {
        uint32_t lines = m->k - k < LINES ? m->k - k : LINES;
        for (uint32_t row = begin; row < end; row++) {
            size_t at = (size_t)(row - job->first) * m->k + k;
            float numbers[LINES];
            uint16_t halves[LINES];
            for (uint32_t i = 0; i < lines; i += PANEL) {
                uint32_t n = lines - i < PANEL ? lines - i : PANEL;
                store_line(type == WEIGHTS_F32 ? (void *)(numbers + i) : (void *)(halves + i), type, job,
                           at + i, n);
            }
            for (uint32_t i = 0; i < lines; i++) {
                size_t place = (size_t)(k + i) * PANEL + row % PANEL;
                if (type == WEIGHTS_F32)
                    ((float *)(void *)to)[place] = numbers[i];
                else
                    ((uint16_t *)(void *)to)[place] = halves[i];
            }
        }
    }
}

/* One column of an int8 panel. */
static void write_int8_column(const void *argument, uint32_t row, uint32_t worker)
{
    (void)worker;
    const struct write *job = argument;
    const struct packed_matrix *m = job->m;
    float numbers[PANEL], max = 0;
    size_t at = (size_t)row * m->k;
    for (uint32_t k = 0; k < m->k; k += PANEL) {
        uint32_t n = m->k - k < PANEL ? m->k - k : PANEL;
        read_numbers(numbers, job, at + k, n);
        check_size(job, numbers, at + k, n);
        for (uint32_t i = 0; i < n; i++)
            max = fabsf(numbers[i]) > max ? fabsf(numbers[i]) : max;
    }
    uint32_t output = job->first + row;
    float factor = int8_factor(max, &m->scales[output]);
    unsigned char *to = m->elements + output / PANEL * m->panel_bytes + output % PANEL * 4;
    for (uint32_t k = 0; k < m->k; k += PANEL) {
        uint32_t n = m->k - k < PANEL ? m->k - k : PANEL;
        read_numbers(numbers, job, at + k, n);
        for (uint32_t i = 0; i < n; i++)
            to[(size_t)((k + i) / 4) * 4 * PANEL + (k + i) % 4] = byte_of(numbers[i] * factor);
    }
}

/* A whole int8 panel from a matrix that is complete. */
static void write_int8_panel(const void *argument, uint32_t panel, uint32_t worker)
{
    (void)worker;
    const struct write *job = argument;
    const struct packed_matrix *m = job->m;
    uint32_t column = panel * PANEL, n = m->n - column < PANEL ? m->n - column : PANEL;
    float max[PANEL] = { 0 }, factors[PANEL];
    for (uint32_t k = 0; k < m->k; k++) {
        const float *line = m->staging + (size_t)k * m->n + column;
        for (uint32_t i = 0; i < n; i++)
            max[i] = fabsf(line[i]) > max[i] ? fabsf(line[i]) : max[i];
    }
    for (uint32_t i = 0; i < n; i++)
        factors[i] = int8_factor(max[i], &m->scales[column + i]);
    unsigned char *to = m->elements + panel * m->panel_bytes;
    for (uint32_t k = 0; k < m->k; k++) {
        const float *line = m->staging + (size_t)k * m->n + column;
        unsigned char *quads = to + (size_t)(k / 4) * 4 * PANEL + k % 4;
        for (uint32_t i = 0; i < n; i++)
            quads[4 * i] = byte_of(line[i] * factors[i]);
    }
}

/* Scales to try for a group: what takes its largest number to -8, and what takes it to 7. */
static const float int4_ends[] = { -8, 7 };
enum { INT4_ENDS = sizeof int4_ends / sizeof *int4_ends };

/* Whole numbers 0 … 15 nearest to x / scale + 8. */
static void to_int4(float *whole, const float *x, const float *factors, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float y = x[i] * factors[i];
        y = y > -8 ? y : -8; /* what is no number, too, which is refused later */
        y = y < 7 ? y : 7;
        whole[i] = y + 0x1.8p23f - 0x1.8p23f + 8;
    }
}

/* One group of 32 rows of one panel, x[GROUP4][PANEL]: for each output the scale that errs least. */
static void write_int4_group(unsigned char *to, float (*x)[PANEL])
{
    float peak[PANEL] = { 0 }, least[PANEL], whole[PANEL], factors[PANEL], scales[PANEL], best[PANEL] = { 0 };
    uint16_t halves[PANEL] = { 0 };
    for (uint32_t k = 0; k < GROUP4; k++)
        for (uint32_t i = 0; i < PANEL; i++)
            peak[i] = fabsf(x[k][i]) > fabsf(peak[i]) ? x[k][i] : peak[i];
    for (uint32_t end = 0; end < INT4_ENDS; end++) {
        float error[PANEL] = { 0 };
        for (uint32_t i = 0; i < PANEL; i++) {
            scales[i] = f32_of_f16(f16_of_f32(peak[i] / int4_ends[end]));
            factors[i] = fabsf(scales[i]) > 0 ? 1 / scales[i] : 0;
        }
        for (uint32_t k = 0; k < GROUP4; k++) {
            to_int4(whole, x[k], factors, PANEL);
            for (uint32_t i = 0; i < PANEL; i++) {
                float e = (whole[i] - 8) * scales[i] - x[k][i];
                error[i] += e * e;
            }
        }
        for (uint32_t i = 0; i < PANEL; i++) {
            if (end == 0 || error[i] < least[i]) {
                least[i] = error[i];
                best[i] = factors[i];
                halves[i] = f16_of_f32(scales[i]);
            }
        }
    }
    for (uint32_t k = 0; k < GROUP4; k++) {
        to_int4(whole, x[k], best, PANEL);
        unsigned char *line = to + k / 4 * 64 + k % 4;
        for (uint32_t i = 0; i < PANEL / 2; i++)
            line[4 * i] |= (unsigned char)((unsigned)whole[i] | (unsigned)whole[i + PANEL / 2] << 4);
    }
    memcpy(to + GROUP4 * PANEL / 2, halves, sizeof halves);
}

/* A whole int4 panel from a matrix that is complete.  The block is zeroed, so bits may be set. */
static void write_int4_panel(const void *argument, uint32_t panel, uint32_t worker)
{
    (void)worker;
    const struct write *job = argument;
    const struct packed_matrix *m = job->m;
    uint32_t column = panel * PANEL, n = m->n - column < PANEL ? m->n - column : PANEL;
    unsigned char *to = m->elements + panel * m->panel_bytes;
    for (uint32_t first = 0; first < m->k; first += GROUP4, to += GROUP4_BYTES) {
        float x[GROUP4][PANEL] = { { 0 } };
        for (uint32_t k = first; k < m->k && k < first + GROUP4; k++)
            memcpy(x[k - first], m->staging + (size_t)k * m->n + column, n * sizeof **x);
        write_int4_group(to, x);
    }
}

/* One panel of the head, to its copy. */
static void write_scan(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct write *job = argument;
    const struct packed_matrix *m = job->m;
    uint32_t panel = job->first / PANEL + tile;
    scan_write(&job->weights->scan, panel, m->elements + panel * m->panel_bytes,
               m->type == WEIGHTS_F16    ? job->kernels->expand_f16
               : m->type == WEIGHTS_BF16 ? job->kernels->expand_bf16
                                         : NULL);
}

/* A matrix's rows wait in staging until all are there. */
static enum cinf_status write_staged(const struct write *job, struct pool *pool, struct cpu_device *device)
{
    struct packed_matrix *m = job->m;
    if (!m->staging)
        m->staging = cpu_new(device, (size_t)m->spec.rows * m->spec.cols, sizeof *m->staging);
    if (!m->staging)
        return cinf_fail(CINF_ENOMEM, "no memory for a matrix of %u x %u on its way to %s", m->spec.rows,
                         m->spec.cols, type_names[m->type]);
    struct pool_phase rows = { write_row, job, job->n };
    pool_run(pool, &rows, 1);
    for (uint32_t row = 0; row < job->n; row++)
        check_size(job, m->staging + (size_t)(job->first + row) * m->n, (size_t)row * m->n, m->n);
    m->rows_staged += job->n;
    if (m->rows_staged >= m->spec.rows) {
        struct pool_phase panels = { m->type == WEIGHTS_INT4 ? write_int4_panel : write_int8_panel, job,
                                     m->n_panels };
        pool_run(pool, &panels, 1);
        cpu_free(device, m->staging);
        m->staging = NULL;
        m->rows_staged = 0;
    }
    return CINF_OK;
}

static double number_at(const void *elements, enum cinf_dtype dtype, size_t at)
{
    float single;
    double value;
    uint16_t bits;
    switch (dtype) {
    case CINF_DTYPE_F32:
        memcpy(&single, (const char *)elements + 4 * at, sizeof single);
        return (double)single;
    case CINF_DTYPE_F64:
        memcpy(&value, (const char *)elements + 8 * at, sizeof value);
        return value;
    default:
        memcpy(&bits, (const char *)elements + 2 * at, sizeof bits);
        return (double)(dtype == CINF_DTYPE_F16 ? f32_of_f16(bits) : f32_of_bf16(bits));
    }
}

enum cinf_status packed_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype)
{
    struct packed_weights *w = (struct packed_weights *)weights;
    struct packed_device *device = (struct packed_device *)w->base.device;
    TRY(write_check(w->specs, w->n_specs, index, first, n, dtype));
    struct packed_matrix *m = &w->matrices[index];
    if (n == 0)
        return CINF_OK;

    _Atomic size_t bad = SIZE_MAX;
    struct write job = { .weights = w,
                         .m = m,
                         .kernels = device->kernels,
                         .first = first,
                         .n = n,
                         .elements = elements,
                         .dtype = dtype,
                         .bad = &bad };
    struct pool_phase phase = { write_row, &job, n };
    if (in_panels(&m->spec)) {
        if (m->spec.role == WEIGHT_MATRIX)
            phase = (struct pool_phase){ write_lines, &job, m->n_panels };
        else if (m->type == WEIGHTS_INT8)
            phase = (struct pool_phase){ write_int8_column, &job, n };
        else
            phase = (struct pool_phase){ write_columns, &job, (first + n - 1) / PANEL - first / PANEL + 1 };
    }
    if (m->spec.role == WEIGHT_MATRIX && (m->type == WEIGHTS_INT8 || m->type == WEIGHTS_INT4))
        TRY(write_staged(&job, device->pool, &device->cpu));
    else
        pool_run(device->pool, &phase, 1);
    if (index == w->scan_of && w->scan.n_panels > 0) {
        struct pool_phase scan = { write_scan, &job, (first + n - 1) / PANEL - first / PANEL + 1 };
        pool_run(device->pool, &scan, 1);
    }
    if (bad != SIZE_MAX)
        return cinf_fail(CINF_EUNSUPPORTED,
                         "weight %u holds %g in row %zu, column %zu: not a number that %s can hold", index,
                         number_at(elements, dtype, bad), first + bad / m->spec.cols, bad % m->spec.cols,
                         type_names[m->type]);
    return CINF_OK;
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
        size_t start = row * round_up(cols, PANEL);
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
