/* sampler_scan.h - the loops over a whole vocabulary that sampling consists of.
 *
 * Whatever vectors they are made of, they give the same bits: an element's weight takes the same operations
 * everywhere, and sums of weights are exact, so that their order does not matter. */
#ifndef SAMPLER_SCAN_H
#define SAMPLER_SCAN_H

#include <stdbool.h>
#include <stdint.h>

enum { SCAN_BLOCK = 128 };

/* The weight of a logit x, its probability but for a common factor:
 *
 *     exp((x - best) / temperature) to the nearest multiple of 2^-35; 0 where x < floor
 *
 * with x <= best, so that it is at most 1.  Before it is rounded so, its relative error is below 4e-7 beside
 * that of the quotient, a float.  A double has room for the exact sum of 2^18 weights.  What is less than
 * 2^-36 as likely as the best has none. */
struct weighing {
    float best, temperature, floor;
};

struct sampler_scan {
    const char *name;

    /* maxima[b] = the largest of x[128 b … 128 b + 127], the last block being as long as it is; -INFINITY of
     * nothing.  False when NaNs, which do not count, or positive infinities are among the n. */
    bool (*maxima)(float *maxima, const float *x, uint32_t n);

    /* The weights of all, and sums[b] of those of x[128 b … 128 b + 127]; returns the sum of all. */
    double (*sums)(double *sums, float *weights, const float *x, uint32_t n, const struct weighing *how);

    /* The weights of a block or the n first of it.  This and the other fill weights [blocks, SCAN_BLOCK] up
     * with nothings. */
    void (*weights)(float *weights, const float *x, uint32_t n, const struct weighing *how);
};

/* Those that this processor runs, the fastest first; NULL behind the last. */
const struct sampler_scan *sampler_scan_at(uint32_t index);

#endif
