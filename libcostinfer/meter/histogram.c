/* histogram.c - the bounds of a meter's histograms, and counting into them. */
#include "histogram.h"

#include <math.h>

#include "fail.h"

#define US *UINT64_C(1000)
#define MS *UINT64_C(1000000)
#define S  *UINT64_C(1000000000)

const struct histogram_bounds histogram_latency_bounds = {
    8, { 50 MS, 100 MS, 250 MS, 500 MS, 1 S, 2500 MS, 5 S, 10 S }
};

/* vLLM's bounds for the same measure, so that the queries of its dashboards fit. */
const struct histogram_bounds histogram_first_token_bounds = {
    22, { 1 MS, 5 MS,    10 MS, 20 MS,   40 MS, 60 MS, 80 MS, 100 MS, 250 MS, 500 MS, 750 MS,
          1 S,  2500 MS, 5 S,   7500 MS, 10 S,  20 S,  40 S,  80 S,   160 S,  640 S,  2560 S }
};

/* vLLM's bounds, and four below them: small models give a token in less than a millisecond. */
const struct histogram_bounds histogram_inter_token_bounds = {
    23, { 500 US, 1 MS,   2500 US, 5 MS, 10 MS,   25 MS, 50 MS,   75 MS, 100 MS, 150 MS, 200 MS, 300 MS,
          400 MS, 500 MS, 750 MS,  1 S,  2500 MS, 5 S,   7500 MS, 10 S,  20 S,   40 S,   80 S }
};

const struct histogram_bounds histogram_queue_bounds = {
    15,
    { 1 MS, 5 MS, 10 MS, 25 MS, 50 MS, 100 MS, 250 MS, 500 MS, 1 S, 2500 MS, 5 S, 10 S, 30 S, 60 S, 120 S }
};

enum cinf_status histogram_bounds_read(struct histogram_bounds *out, const double *seconds, uint32_t n)
{
    if (n < 1 || n > HISTOGRAM_BOUNDS_MAX)
        return cinf_fail(CINF_EINVAL, "%u buckets: expected 1 to %d", n, HISTOGRAM_BOUNDS_MAX);
    struct histogram_bounds b = { .n = n };
    for (uint32_t i = 0; i < n; i++) {
        if (!(seconds[i] >= 1e-9 && seconds[i] <= 1e9))
            return cinf_fail(CINF_EINVAL, "bucket %u is not between 1e-9 and 1e9 seconds", i);
        b.ns[i] = (uint64_t)llround(seconds[i] * 1e9);
        if (i > 0 && b.ns[i] <= b.ns[i - 1])
            return cinf_fail(CINF_EINVAL, "bucket %u is not above the previous one", i);
    }
    *out = b;
    return CINF_OK;
}

void histogram_observe(struct histogram *h, const struct histogram_bounds *bounds, uint64_t ns,
                       uint64_t times)
{
    uint32_t i = 0;
    while (i < bounds->n && ns > bounds->ns[i])
        i++;
    h->counts[i] += times;
    h->sum_ns += ns * times;
}
