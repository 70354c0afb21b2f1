/* packed_shortlist.c - see packed_shortlist.h. */
#include "packed_shortlist.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "half.h"
#include "int8_scale.h"

/* Larger lengths could make a bound overflow to a NaN, which compares with nothing. */
static const float norm_max = 1e15f;

/* The length of a vector whose squares add up to `squares` in float32, or a little more to cover what was
 * lost to rounding and underflow. */
static float length_of(float squares)
{
    return sqrtf(squares) * 1.001f + 1e-16f;
}

static size_t panel_bytes(uint32_t k)
{
    return (size_t)(k + 3) / 4 * 4 * PANEL;
}

void shortlist_lay_out(struct arena *arena, struct shortlist *shortlist, uint32_t n, uint32_t k)
{
    *shortlist = (struct shortlist){
        .k = k, .n = n, .n_panels = (n + PANEL - 1) / PANEL, .panel_bytes = panel_bytes(k)
    };
    shortlist->panels = arena_take(arena, shortlist->n_panels, shortlist->panel_bytes, 64);
    shortlist->bounds = arena_take(arena, shortlist->n_panels, sizeof *shortlist->bounds, 64);
}

enum { LINES = 64 }; /* lines of a panel that are converted to float32 together */

static const float *lines_of(float *room, const void *elements, uint32_t k, uint32_t n,
                             void (*convert)(float *, const uint16_t *, size_t))
{
    if (!convert)
        return (const float *)elements + (size_t)k * PANEL;
    convert(room, (const uint16_t *)elements + (size_t)k * PANEL, (size_t)n * PANEL);
    return room;
}

void shortlist_write(struct shortlist *shortlist, uint32_t panel, const void *elements,
                     void (*convert)(float *to, const uint16_t *from, size_t n))
{
    struct shortlist_panel *bounds = &shortlist->bounds[panel];
    unsigned char *to = shortlist->panels + panel * shortlist->panel_bytes;
    float room[LINES * PANEL], max[PANEL] = { 0 }, factors[PANEL], residual[PANEL] = { 0 },
                               norm[PANEL] = { 0 };
    uint32_t n;
    for (uint32_t first = 0; first < shortlist->k; first += n) {
        n = shortlist->k - first < LINES ? shortlist->k - first : LINES;
        const float *line = lines_of(room, elements, first, n, convert);
        for (uint32_t k = 0; k < n; k++, line += PANEL)
            for (uint32_t i = 0; i < PANEL; i++)
                max[i] = fabsf(line[i]) > max[i] ? fabsf(line[i]) : max[i];
    }
    for (uint32_t i = 0; i < PANEL; i++)
        factors[i] = int8_factor(max[i], &bounds->scale[i]);
    for (uint32_t first = 0; first < shortlist->k; first += n) {
        n = shortlist->k - first < LINES ? shortlist->k - first : LINES;
        const float *line = lines_of(room, elements, first, n, convert);
        for (uint32_t k = first; k < first + n; k++, line += PANEL) {
            unsigned char *quads = to + (size_t)(k / 4) * 4 * PANEL + k % 4;
            for (uint32_t i = 0; i < PANEL; i++) {
                /* The nearest integer is in the lowest bits; a NaN may become anything. */
                float shifted = line[i] * factors[i] + 0x1.8p23f;
                float near = (shifted - 0x1.8p23f) * bounds->scale[i], left = line[i] - near;
                quads[4 * i] = (unsigned char)(128 + bits_of_f32(shifted));
                residual[i] += left * left;
                norm[i] += near * near;
            }
        }
    }
    for (uint32_t i = 0; i < PANEL; i++) {
        bounds->norm[i] = length_of(norm[i]);
        /* `near` and `left` were each rounded by at most 2^-24 of a number as large as the largest. */
        bounds->residual[i] = length_of(residual[i]) + 0x1p-22f * bounds->norm[i];
        if (!(bounds->norm[i] < norm_max) || !(bounds->residual[i] < norm_max))
            atomic_store(&shortlist->unusable, true);
    }
}

/* Rounding: a logit is a chain of K multiply-adds, each of which errs by at most 2^-24 of the sum of all
 * |w||x|, and that sum is at most the product |w||x| of the vectors' lengths.  The copy's product is a chain
 * of groups. */
void shortlist_row(const struct shortlist_rows *rows, uint32_t row, const struct shortlist *shortlist,
                   const float *x, const struct int8_rows *q)
{
    const int8_t *bytes = q->q + row * q->stride;
    const float *scales = q->scales + row * q->groups;
    const uint32_t *outlier = q->out_at + (size_t)row * OUTLIERS_MAX, *end = outlier + q->n_out[row];
    float square = 0, error = 0;
    for (uint32_t k = 0; k < shortlist->k; k++) {
        square += x[k] * x[k];
        if (outlier < end && *outlier == k) { /* it is multiplied in f32 */
            outlier++;
            continue;
        }
        float left = x[k] - (float)bytes[k] * scales[k / GROUP];
        error += left * left;
    }
    float size = length_of(square), left = length_of(error) + 0x1p-22f * size;
    uint32_t terms = shortlist->k + shortlist->k / GROUP + 64;
    float rounding = (float)terms * 0x1p-24f * (size + left);
    rows->a[row] = size + rounding;
    rows->b[row] = left + rounding;
}

void shortlist_threshold(const struct shortlist_rows *rows, uint32_t row, const struct shortlist *shortlist,
                         uint32_t n)
{
    const float *lower = rows->lower + (size_t)row * shortlist->n_panels;
    float best[TOP_K_MAX];
    uint32_t found = 0;
    assert(n > 0 && n <= TOP_K_MAX);
    rows->threshold[row] = -INFINITY;
    if (atomic_load(&shortlist->unusable) || !(rows->a[row] < norm_max) || !(rows->b[row] < norm_max))
        return;
    /* The greatest lower bounds of n panels belong to n different tokens. */
    for (uint32_t p = 0; p < shortlist->n_panels; p++) {
        if (found == n && !(lower[p] > best[n - 1]))
            continue;
        uint32_t at = found < n ? found++ : n - 1;
        for (; at > 0 && lower[p] > best[at - 1]; at--)
            best[at] = best[at - 1];
        best[at] = lower[p];
    }
    if (found == n)
        rows->threshold[row] = best[n - 1];
}

void shortlist_top_k(struct top_k *out, const struct shortlist_rows *rows, uint32_t row,
                     const struct shortlist *shortlist, const float *logits, uint32_t n)
{
    out->n = 0;
    for (uint32_t p = 0; p < shortlist->n_panels; p++) {
        if (!shortlist_keeps(rows, row, shortlist, p))
            continue;
        for (uint32_t id = p * PANEL; id < (p + 1) * PANEL; id++) {
            float logit = logits[id];
            if (!(logit < INFINITY) || rows->floors[id] < 0 || (out->n == n && !(logit > out->logits[n - 1])))
                continue;
            uint32_t at = out->n < n ? out->n++ : n - 1;
            for (; at > 0 && logit > out->logits[at - 1]; at--) {
                out->logits[at] = out->logits[at - 1];
                out->ids[at] = out->ids[at - 1];
            }
            out->logits[at] = logit;
            out->ids[at] = (int32_t)id;
        }
    }
}
