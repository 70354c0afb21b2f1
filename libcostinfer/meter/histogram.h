/* histogram.h - counts of durations by bucket.  Buckets are stored separately and accumulated when they
 * are written, so that +Inf equals _count by construction. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

#include <costinfer/status.h>

enum { HISTOGRAM_BOUNDS_MAX = 32 };

struct histogram_bounds {
    uint32_t n;
    uint64_t ns[HISTOGRAM_BOUNDS_MAX]; /* ascending; a value on a bound belongs to that bucket */
};

struct histogram {
    uint64_t counts[HISTOGRAM_BOUNDS_MAX + 1]; /* [bounds.n] is above the last bound */
    uint64_t sum_ns;
};

/* The bounds of a meter's own histograms. */
extern const struct histogram_bounds histogram_latency_bounds; /* the default of an option */
extern const struct histogram_bounds histogram_first_token_bounds;
extern const struct histogram_bounds histogram_inter_token_bounds;
extern const struct histogram_bounds histogram_queue_bounds;

/* Reads bounds in seconds: 1 to 32 of them, from 1 ns to 1e9 s, ascending even once rounded to ns. */
enum cinf_status histogram_bounds_read(struct histogram_bounds *out, const double *seconds, uint32_t n);

/* Counts `times` values of `ns` each. */
void histogram_observe(struct histogram *h, const struct histogram_bounds *bounds, uint64_t ns,
                       uint64_t times);

#endif
