/* packed_shortlist.h - the best of a row's logits without reading all of the head.
 *
 * The head is a third of what one row of GPT-2 reads, and greedy sampling needs only one of its products.  So
 * a copy of it in int8 is read first: it makes the shortlist of panels that may hold the best.  The distance
 * of a product with the copy from the logit has a bound: with w = copy + residual and x = quantised + error,
 *
 *     |w·x - copy·quantised| <= |residual| |x| + |copy| |error|                         (Cauchy-Schwarz)
 *
 * plus what float32 adds by rounding.  A panel of the head none of whose upper bounds reaches the n-th
 * greatest of the lower bounds cannot hold any of the n best; the other panels, a few of thousands, are
 * multiplied as usual.  The result is therefore the same to the last bit as with all logits. */
#ifndef PACKED_SHORTLIST_H
#define PACKED_SHORTLIST_H

#include <stdatomic.h>

#include "arena.h"
#include "backend.h"
#include "packed_kernels.h"

/* The copy of a head of n outputs and k inputs. */
struct shortlist {
    uint32_t k, n, n_panels;
    size_t panel_bytes;
    unsigned char *panels;          /* int8 panels, see packed_kernels.h */
    struct shortlist_panel *bounds; /* [n_panels] */
    atomic_bool unusable;           /* a weight is too large or not finite */
};

/* Takes memory for the copy, which begins on a cache line. */
void shortlist_lay_out(struct arena *arena, struct shortlist *shortlist, uint32_t n, uint32_t k);

/* Copies a panel [K][PANEL] of float32, or of 16-bit elements that `convert` makes float32. */
void shortlist_write(struct shortlist *shortlist, uint32_t panel, const void *elements,
                     void (*convert)(float *to, const uint16_t *from, size_t n));

/* What a step knows of its rows. */
struct shortlist_rows {
    float *upper, *lower; /* [rows][n_panels], the greatest upper and lower bound of each panel's logits */
    float *a, *b;         /* [rows], factors of the bounds: see shortlist_panel */
    float *threshold;     /* [rows], what an upper bound must reach for its panel to be kept */
    float *floors;        /* [n_panels][PANEL], 0, or minus infinity for tokens that are excluded */
};

/* Finds a and b of row `row`: x[k], which was quantised to that row of q. */
void shortlist_row(const struct shortlist_rows *rows, uint32_t row, const struct shortlist *shortlist,
                   const float *x, const struct int8_rows *q);

/* Finds the threshold for the n best of a row whose bounds are complete. */
void shortlist_threshold(const struct shortlist_rows *rows, uint32_t row, const struct shortlist *shortlist,
                         uint32_t n);

/* Whether a panel may hold one of the best. */
static inline bool shortlist_keeps(const struct shortlist_rows *rows, uint32_t row,
                                   const struct shortlist *shortlist, uint32_t panel)
{
    return !(rows->upper[(size_t)row * shortlist->n_panels + panel] < rows->threshold[row]);
}

/* The n best of the kept panels of logits[n_panels * PANEL]; log_sum stays as it is. */
void shortlist_top_k(struct top_k *out, const struct shortlist_rows *rows, uint32_t row,
                     const struct shortlist *shortlist, const float *logits, uint32_t n);

#endif
