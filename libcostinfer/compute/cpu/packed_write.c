/* packed_write.c - weights into panels, while they arrive.
 *
 * A checkpoint's matrices come by rows, a few at a time; all threads of the pool put them into place
 * together. Nothing is kept twice: a row lands where the kernels read it.  Only int8 and int4 matrices wait
 * for their last row, because a scale is known only then. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "elements.h"
#include "fail.h"
#include "half.h"
#include "int8_scale.h"
#include "packed_device.h"
#include "packed_weights.h"

struct write_task {
    struct packed_weights *weights;
    struct packed_matrix *m;
    const struct packed_kernels *kernels;
    uint32_t first, n; /* rows of the weight */
    const unsigned char *elements;
    enum cinf_dtype dtype;
    _Atomic size_t *bad; /* the first element that does not fit; SIZE_MAX: none */
};

static void note_bad(const struct write_task *task, size_t at)
{
    size_t before = atomic_load(task->bad);
    while (at < before && !atomic_compare_exchange_weak(task->bad, &before, at))
        ;
}

/* to[n] = elements at, at + 1, … */
static void read_numbers(float *to, const struct write_task *task, size_t at, size_t n)
{
    size_t bad = elements_read(to, task->elements, task->dtype, at, n);
    if (bad < n)
        note_bad(task, at + bad);
}

/* Rounds to the nearest, ties to even; a number that is too large becomes infinity, a NaN stays one. */
static uint16_t bf16_of_f32(float f)
{
    uint32_t bits = bits_of_f32(f);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* Stores n numbers of a line, at most PANEL, from element `at` on. */
static void store_line(void *to, enum weights_type type, const struct write_task *task, size_t at, uint32_t n)
{
    bool same = (type == WEIGHTS_F32 && task->dtype == CINF_DTYPE_F32) ||
                (type == WEIGHTS_F16 && task->dtype == CINF_DTYPE_F16) ||
                (type == WEIGHTS_BF16 && task->dtype == CINF_DTYPE_BF16);
    size_t element = type == WEIGHTS_F32 ? sizeof(float) : sizeof(uint16_t);
    if (same) {
        memcpy(to, task->elements + at * element, n * element);
        return;
    }
    float numbers[PANEL] = { 0 };
    uint16_t halves[PANEL];
    read_numbers(numbers, task, at, n);
    if (type == WEIGHTS_F32) {
        memcpy(to, numbers, n * sizeof *numbers);
        return;
    }
    if (type == WEIGHTS_F16) {
        task->kernels->convert_to_f16(halves, numbers, PANEL);
    } else {
        for (uint32_t i = 0; i < n; i++)
            halves[i] = bf16_of_f32(numbers[i]);
    }
    uint16_t infinite = type == WEIGHTS_F16 ? 0x7C00 : 0x7F80;
    for (uint32_t i = 0; i < n; i++) {
        if ((halves[i] & 0x7FFF) == infinite && !isinf(numbers[i]))
            note_bad(task, at + i);
    }
    memcpy(to, halves, n * sizeof *halves);
}

/* Writes rows as they are: of tables, of vectors, and of matrices on their way to int8 or int4. */
static void write_row(const void *argument, uint32_t row, uint32_t worker)
{
    (void)worker;
    const struct write_task *task = argument;
    const struct packed_matrix *m = task->m;
    enum weights_type type = m->staging ? WEIGHTS_F32 : m->type;
    size_t element = type == WEIGHTS_F32 ? sizeof(float) : sizeof(uint16_t), cols = m->spec.cols;
    unsigned char *rows = m->staging ? (unsigned char *)m->staging : m->elements;
    size_t stride = m->staging ? cols : table_stride(m->spec.cols);
    for (size_t c = 0; c < cols; c += PANEL) {
        uint32_t n = cols - c < PANEL ? (uint32_t)(cols - c) : PANEL;
        store_line(rows + ((task->first + row) * stride + c) * element, type, task, row * cols + c, n);
    }
}

/* Writes a few lines of one panel, where rows of the weight are lines. */
static void write_lines(const void *argument, uint32_t panel, uint32_t worker)
{
    (void)worker;
    const struct write_task *task = argument;
    const struct packed_matrix *m = task->m;
    size_t line = m->panel_bytes / m->k;
    uint32_t column = panel * PANEL, n = m->n - column < PANEL ? m->n - column : PANEL;
    unsigned char *to = m->elements + panel * m->panel_bytes + task->first * line;
    for (uint32_t row = 0; row < task->n; row++, to += line)
        store_line(to, m->type, task, (size_t)row * m->n + column, n);
}

/* x, whose size is at most 127, rounded to the nearest, plus 128 */
static unsigned char byte_of(float x)
{
    return (unsigned char)(bits_of_f32(x + 0x1.8p23f) + 128);
}

/* The scales of int4 are f16, so 7 times the largest f16 is the limit there. */
static void check_size(const struct write_task *task, const float *numbers, size_t at, size_t n)
{
    const float max = task->m->type == WEIGHTS_INT4 ? 7 * 65504.0f : FLT_MAX;
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(numbers[i]) <= max))
            note_bad(task, at + i);
    }
}

/* Writes some columns of one panel, where rows of the weight are outputs. */
static void write_columns(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    enum { LINES = 64 }; /* 8 KiB of a panel at a time */
    const struct write_task *task = argument;
    const struct packed_matrix *m = task->m;
    enum weights_type type = m->type;
    uint32_t panel = task->first / PANEL + tile;
    uint32_t begin = panel * PANEL > task->first ? panel * PANEL : task->first;
    uint32_t end = task->first + task->n < (panel + 1) * PANEL ? task->first + task->n : (panel + 1) * PANEL;
    unsigned char *to = m->elements + panel * m->panel_bytes;
    for (uint32_t k = 0; k < m->k; k += LINES) {
        uint32_t lines = m->k - k < LINES ? m->k - k : LINES;
        for (uint32_t row = begin; row < end; row++) {
            size_t at = (size_t)(row - task->first) * m->k + k;
            float numbers[LINES];
            uint16_t halves[LINES];
            for (uint32_t i = 0; i < lines; i += PANEL) {
                uint32_t n = lines - i < PANEL ? lines - i : PANEL;
                store_line(type == WEIGHTS_F32 ? (void *)(numbers + i) : (void *)(halves + i), type, task,
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

/* Writes one column of an int8 panel. */
static void write_int8_column(const void *argument, uint32_t row, uint32_t worker)
{
    (void)worker;
    const struct write_task *task = argument;
    const struct packed_matrix *m = task->m;
    float numbers[PANEL], max = 0;
    size_t at = (size_t)row * m->k;
    for (uint32_t k = 0; k < m->k; k += PANEL) {
        uint32_t n = m->k - k < PANEL ? m->k - k : PANEL;
        read_numbers(numbers, task, at + k, n);
        check_size(task, numbers, at + k, n);
        for (uint32_t i = 0; i < n; i++)
            max = fabsf(numbers[i]) > max ? fabsf(numbers[i]) : max;
    }
    uint32_t output = task->first + row;
    float factor = int8_factor(max, &m->scales[output]);
    unsigned char *to = m->elements + output / PANEL * m->panel_bytes + output % PANEL * 4;
    for (uint32_t k = 0; k < m->k; k += PANEL) {
        uint32_t n = m->k - k < PANEL ? m->k - k : PANEL;
        read_numbers(numbers, task, at + k, n);
        for (uint32_t i = 0; i < n; i++)
            to[(size_t)((k + i) / 4) * 4 * PANEL + (k + i) % 4] = byte_of(numbers[i] * factor);
    }
}

/* Writes a whole int8 panel of a matrix that is complete. */
static void write_int8_panel(const void *argument, uint32_t panel, uint32_t worker)
{
    (void)worker;
    const struct write_task *task = argument;
    const struct packed_matrix *m = task->m;
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

/* Scales to try for a group: one takes its largest number to -8, the other to 7. */
static const float int4_ends[] = { -8, 7 };
enum { INT4_ENDS = sizeof int4_ends / sizeof *int4_ends };

/* Whole numbers 0 … 15 nearest to x / scale + 8. */
static void to_int4(float *whole, const float *x, const float *factors, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float y = x[i] * factors[i];
        y = y > -8 ? y : -8; /* a NaN, too, which is refused later */
        y = y < 7 ? y : 7;
        whole[i] = y + 0x1.8p23f - 0x1.8p23f + 8;
    }
}

/* Writes one group of 32 rows of one panel, x[GROUP4][PANEL], for each output with the scale that errs
 * least. */
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

/* Writes a whole int4 panel of a matrix that is complete.  The panel is zeroed, so bits are only set. */
static void write_int4_panel(const void *argument, uint32_t panel, uint32_t worker)
{
    (void)worker;
    const struct write_task *task = argument;
    const struct packed_matrix *m = task->m;
    uint32_t column = panel * PANEL, n = m->n - column < PANEL ? m->n - column : PANEL;
    unsigned char *to = m->elements + panel * m->panel_bytes;
    for (uint32_t first = 0; first < m->k; first += GROUP4, to += GROUP4_BYTES) {
        float x[GROUP4][PANEL] = { { 0 } };
        for (uint32_t k = first; k < m->k && k < first + GROUP4; k++)
            memcpy(x[k - first], m->staging + (size_t)k * m->n + column, n * sizeof **x);
        write_int4_group(to, x);
    }
}

/* Copies one panel of the head to the shortlist. */
static void write_shortlist(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct write_task *task = argument;
    const struct packed_matrix *m = task->m;
    uint32_t panel = task->first / PANEL + tile;
    shortlist_write(&task->weights->shortlist, panel, m->elements + panel * m->panel_bytes,
                    m->type == WEIGHTS_F16    ? task->kernels->convert_f16
                    : m->type == WEIGHTS_BF16 ? task->kernels->convert_bf16
                                              : NULL);
}

/* Keeps a matrix's rows in staging until all are there. */
static enum cinf_status write_staged(const struct write_task *task, struct pool *pool,
                                     struct cpu_device *device)
{
    struct packed_matrix *m = task->m;
    if (!m->staging)
        m->staging = cpu_new(device, (size_t)m->spec.rows * m->spec.cols, sizeof *m->staging);
    if (!m->staging)
        return cinf_fail(CINF_ENOMEM, "no memory for a matrix of %u x %u on its way to %s", m->spec.rows,
                         m->spec.cols, weights_type_name(m->type));
    struct pool_phase rows = { write_row, task, task->n };
    pool_run(pool, &rows, 1);
    for (uint32_t row = 0; row < task->n; row++)
        check_size(task, m->staging + (size_t)(task->first + row) * m->n, (size_t)row * m->n, m->n);
    m->rows_staged += task->n;
    if (m->rows_staged >= m->spec.rows) {
        struct pool_phase panels = { m->type == WEIGHTS_INT4 ? write_int4_panel : write_int8_panel, task,
                                     m->n_panels };
        pool_run(pool, &panels, 1);
        cpu_free(device, m->staging);
        m->staging = NULL;
        m->rows_staged = 0;
    }
    return CINF_OK;
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
    struct write_task task = { .weights = w,
                               .m = m,
                               .kernels = device->kernels,
                               .first = first,
                               .n = n,
                               .elements = elements,
                               .dtype = dtype,
                               .bad = &bad };
    struct pool_phase phase = { write_row, &task, n };
    if (in_panels(&m->spec)) {
        if (m->spec.role == WEIGHT_MATRIX)
            phase = (struct pool_phase){ write_lines, &task, m->n_panels };
        else if (m->type == WEIGHTS_INT8)
            phase = (struct pool_phase){ write_int8_column, &task, n };
        else
            phase = (struct pool_phase){ write_columns, &task, (first + n - 1) / PANEL - first / PANEL + 1 };
    }
    if (m->spec.role == WEIGHT_MATRIX && (m->type == WEIGHTS_INT8 || m->type == WEIGHTS_INT4))
        TRY(write_staged(&task, device->pool, &device->cpu));
    else
        pool_run(device->pool, &phase, 1);
    if (index == w->head && w->shortlist.n_panels > 0) {
        struct pool_phase copies = { write_shortlist, &task, (first + n - 1) / PANEL - first / PANEL + 1 };
        pool_run(device->pool, &copies, 1);
    }
    if (bad != SIZE_MAX)
        return cinf_fail(CINF_EUNSUPPORTED,
                         "weight %u holds %g in row %zu, column %zu: not a number that %s can hold", index,
                         element_read(elements, dtype, bad), first + bad / m->spec.cols, bad % m->spec.cols,
                         weights_type_name(m->type));
    return CINF_OK;
}
