/* history.h - the last 24 hours in memory: what each model and the device have used, sampled every ten
 * seconds, so that the built-in page works without a Prometheus.
 *
 * Totals are kept, not differences: what a range used is one subtraction, exact however many samples lie
 * between, and a missing sample is a gap in a chart but not in the bill.  Memory is bounded: a series of
 * 1.8 MB for each of the first 64 models, made when the model appears, and one for all others together.
 * This code reads no clock and takes no lock: the caller passes the times and locks. */
#ifndef HISTORY_H
#define HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/meter.h>

#define HISTORY_TICK_NS UINT64_C(10000000000)

enum {
    HISTORY_TICKS = 8640, /* 24 hours */
    HISTORY_SERIES_MAX = 65,
    HISTORY_OTHERS = HISTORY_SERIES_MAX - 1, /* the series of all models beyond the first 64 */
    HISTORY_POINTS_MAX = 180,
};

/* Totals since the start of the process. */
struct history_device {
    uint64_t serve_ns, load_ns, idle_ns, lost_ns, overhead_ns;
    uint64_t unpriced_ns; /* of these */
    struct cinf_cost serve_cost, load_cost, idle_cost, lost_cost, overhead_cost;
    uint64_t device_bytes, process_bytes; /* of memory, at that moment */
};

struct history_model {
    uint64_t prefill_ns, decode_ns, load_ns;
    uint64_t unpriced_ns; /* of prefill and decode */
    struct cinf_cost serve_cost, load_cost;
    uint64_t input_tokens, cached_tokens, output_tokens;
    uint64_t requests, errors;
    uint32_t running, waiting; /* at that moment */
};

struct history;

enum cinf_status history_new(struct history **out);
void history_free(struct history *history); /* accepts NULL */

/* Records the totals as they stand `at_ns` after the start; tick 0 is the start itself, when all are 0.  A
 * tick that was recorded before stays as it is.  If memory for a new series runs out, nothing is recorded,
 * which leaves a gap. */
enum cinf_status history_record(struct history *history, uint64_t at_ns, const struct cinf_snapshot *snapshot,
                                uint64_t device_bytes, uint64_t process_bytes);

/* Counts a request that has ended; first_token_ns 0: it had no token. */
void history_observe(struct history *history, uint32_t model, uint64_t latency_ns, uint64_t first_token_ns);

/* Sums over a snapshot as they would be recorded: series `series` of it. */
struct history_model history_model_of(const struct cinf_snapshot *snapshot, uint32_t series);
struct history_device history_device_of(const struct cinf_snapshot *snapshot);
uint32_t history_n_series(const struct cinf_snapshot *snapshot); /* the last may be HISTORY_OTHERS */

struct cinf_cost history_cost_minus(struct cinf_cost a, struct cinf_cost b); /* a >= b */

/* ---- Reading ------------------------------------------------------------------------------ */

/* A range that ends now, cut into points of `step` ticks each: point i is what was used after tick
 * first + i * step, up to tick first + (i + 1) * step. */
struct history_window {
    uint64_t base; /* the tick the range begins at: 0 when the process is younger than the range */
    uint64_t first;
    uint32_t step, n_points;
};
struct history_window history_window(const struct history *history, uint64_t at_ns, uint64_t range_ns);

/* False in a gap, and for ticks that are no longer kept.  A series has zeros before its model appeared. */
bool history_device_at(const struct history *history, uint64_t tick, struct history_device *out);
bool history_model_at(const struct history *history, uint32_t series, uint64_t tick,
                      struct history_model *out);

/* Interpolated within buckets: four for each decade from 1 ms to 100 s. */
struct history_quantiles {
    uint64_t n; /* requests; 0: the rest is 0 */
    uint64_t p50_ns, p95_ns;
};
struct history_latency {
    struct history_quantiles latency, first_token;
};

enum { HISTORY_NOW = -1 };
/* Latencies of the requests that ended after tick `from`, up to tick `to` or HISTORY_NOW. */
struct history_latency history_latency(const struct history *history, uint32_t series, uint64_t from,
                                       int64_t to);

#endif
