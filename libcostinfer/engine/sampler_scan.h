/* sampler_scan.h - the loops over a whole vocabulary that sampling consists of.
 *
 * Every vector width gives the same bits: an element's weight takes the same operations at each width, and
 * sums of weights are exact, so their order does not matter. */
#ifndef SAMPLER_SCAN_H
#define SAMPLER_SCAN_H

#include <stdbool.h>
#include <stdint.h>

enum { SCAN_BLOCK = 128 };

/* The weight of a logit x, which is its probability up to a common factor:
 *
 *     exp((x - best) / temperature) to the nearest multiple of 2^-35; 0 where x < floor
 *
 * with x <= best, so it is at most 1.  Before that rounding its relative error is below 4e-7, plus that of
 * the quotient, a float.  A double holds the exact sum of 2^18 weights.  A logit less than 2^-36 times as
 * likely as the best weighs 0. */
struct weighing {
    float best, temperature, floor;
};

struct sampler_scan {
    const char *name;

    /* maxima[b] = the largest of x[128 b … 128 b + 127], or of those there are in the last block; NaNs are
     * ignored, and -INFINITY stands for a block of them alone.  False when NaNs or positive infinities are
     * among the n. */
    bool (*maxima)(float *maxima, const float *x, uint32_t n);

    /* Computes all weights, and in sums[b] the sum of those of x[128 b … 128 b + 127]; returns the sum of
     * all. */
    double (*sums)(double *sums, float *weights, const float *x, uint32_t n, const struct weighing *weighing);

    /* Computes the weights of one block, or of its first n.  This and sums() fill the last block of weights
     * [blocks, SCAN_BLOCK] up with zeros. */
    void (*weights)(float *weights, const float *x, uint32_t n, const struct weighing *weighing);
};

/* The versions that this processor runs, the fastest first; NULL after the last. */
const struct sampler_scan *sampler_scan_at(uint32_t index);

#endif
