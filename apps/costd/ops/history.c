#include "history.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

enum {
    CELLS = HISTORY_TICKS + 1, /* both ends of 24 hours */
    BOUNDS = 21,
};

/* 10^(i/4) milliseconds. */
static const uint64_t bounds_ns[BOUNDS] = {
    1000000,    1778279,    3162278,     5623413,     10000000,    17782794,    31622777,
    56234133,   100000000,  177827941,   316227766,   562341325,   1000000000,  1778279410,
    3162277660, 5623413252, 10000000000, 17782794100, 31622776602, 56234132519, 100000000000,
};

/* Requests of one tick by latency; a bucket that is full stays full. */
struct counts {
    uint16_t latency[BOUNDS + 1], first_token[BOUNDS + 1];
};

struct device_cell {
    uint64_t tick; /* plus 1; 0: never written */
    struct history_device totals;
};

struct model_cell {
    struct history_model totals;
    struct counts counts; /* of the requests that ended in this tick */
};

struct series {
    uint64_t first_tick; /* before it all is 0 */
    struct counts open;  /* of the tick under way */
    struct model_cell cells[CELLS];
};

struct history {
    struct device_cell device[CELLS]; /* tick t lies in t % CELLS */
    struct series *series[HISTORY_SERIES_MAX];
    uint64_t last_tick;
};

enum cinf_status history_new(struct history **out)
{
    struct history *h = mem_new(1, sizeof *h);
    if (!h)
        return cinf_fail(CINF_ENOMEM, "no memory for the history");
    h->device[0].tick = 1;
    *out = h;
    return CINF_OK;
}

void history_free(struct history *h)
{
    if (!h)
        return;
    for (uint32_t i = 0; i < HISTORY_SERIES_MAX; i++)
        mem_free(h->series[i]);
    mem_free(h);
}

/* ---- From a snapshot ---------------------------------------------------------------------- */

struct cinf_cost history_cost_minus(struct cinf_cost a, struct cinf_cost b)
{
    return (struct cinf_cost){ .hi = a.hi - b.hi - (a.lo < b.lo), .lo = a.lo - b.lo };
}

uint32_t history_n_series(const struct cinf_snapshot *s)
{
    return s->n_models <= HISTORY_OTHERS ? s->n_models : HISTORY_SERIES_MAX;
}

static void add_model(struct history_model *sum, const struct cinf_model_totals *m, uint32_t n_endpoints)
{
    sum->prefill_ns += m->prefill_ns;
    sum->decode_ns += m->decode_ns;
    sum->load_ns += m->load_ns;
    sum->unpriced_ns += m->unpriced_ns;
    sum->serve_cost = cinf_cost_add(sum->serve_cost, m->serve_cost);
    sum->load_cost = cinf_cost_add(sum->load_cost, m->load_cost);
    sum->input_tokens += m->input_tokens;
    sum->cached_tokens += m->cached_tokens;
    sum->output_tokens += m->output_tokens;
    for (uint32_t i = 0; i < n_endpoints; i++)
        sum->requests += m->requests[i];
    for (uint32_t i = 0; i < CINF_ERROR_KINDS; i++)
        sum->errors += m->errors[i];
    sum->running += (uint32_t)m->running;
    sum->waiting += (uint32_t)m->waiting;
}

struct history_model history_model_of(const struct cinf_snapshot *s, uint32_t series)
{
    struct history_model sum = { 0 };
    uint32_t end = series == HISTORY_OTHERS ? s->n_models : series + 1;
    for (uint32_t m = series; m < end; m++)
        add_model(&sum, &s->models[m], s->n_endpoints);
    return sum;
}

struct history_device history_device_of(const struct cinf_snapshot *s)
{
    return (struct history_device){ .serve_ns = s->serve_ns,
                                    .load_ns = s->load_ns,
                                    .idle_ns = s->idle_ns,
                                    .lost_ns = s->lost_ns,
                                    .overhead_ns = s->overhead_ns,
                                    .unpriced_ns = s->unpriced_ns,
                                    .serve_cost = s->serve_cost,
                                    .load_cost = s->load_cost,
                                    .idle_cost = s->idle_cost,
                                    .lost_cost = s->lost_cost,
                                    .overhead_cost = s->overhead_cost };
}

/* ---- Writing ------------------------------------------------------------------------------ */

/* Rounds to the nearest tick: a timer may be a little early. */
static uint64_t tick_of(uint64_t at_ns)
{
    return (at_ns + HISTORY_TICK_NS / 2) / HISTORY_TICK_NS;
}

static enum cinf_status make_series(struct history *h, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (h->series[i])
            continue;
        h->series[i] = mem_new(1, sizeof *h->series[i]);
        if (!h->series[i])
            return cinf_fail(CINF_ENOMEM, "no memory for the history of %u models", n);
        h->series[i]->first_tick = h->last_tick + 1;
    }
    return CINF_OK;
}

enum cinf_status history_record(struct history *h, uint64_t at_ns, const struct cinf_snapshot *s,
                                uint64_t device_bytes, uint64_t process_bytes)
{
    uint64_t tick = tick_of(at_ns);
    uint32_t n = history_n_series(s);
    if (tick <= h->last_tick)
        return CINF_OK;
    TRY(make_series(h, n));
    struct device_cell *cell = &h->device[tick % CELLS];
    cell->tick = tick + 1;
    cell->totals = history_device_of(s);
    cell->totals.device_bytes = device_bytes;
    cell->totals.process_bytes = process_bytes;
    for (uint32_t i = 0; i < n; i++) {
        struct series *series = h->series[i];
        struct model_cell *model = &series->cells[tick % CELLS];
        model->totals = history_model_of(s, i);
        model->counts = series->open;
        series->open = (struct counts){ 0 };
    }
    h->last_tick = tick;
    return CINF_OK;
}

static void count(uint16_t counts[BOUNDS + 1], uint64_t ns)
{
    uint32_t i = 0;
    while (i < BOUNDS && ns > bounds_ns[i])
        i++;
    if (counts[i] < UINT16_MAX)
        counts[i]++;
}

void history_observe(struct history *h, uint32_t model, uint64_t latency_ns, uint64_t first_token_ns)
{
    struct series *series = h->series[model < HISTORY_OTHERS ? model : HISTORY_OTHERS];
    if (!series && make_series(h, (model < HISTORY_OTHERS ? model : HISTORY_OTHERS) + 1) == CINF_OK)
        series = h->series[model < HISTORY_OTHERS ? model : HISTORY_OTHERS];
    if (!series)
        return;
    count(series->open.latency, latency_ns);
    if (first_token_ns)
        count(series->open.first_token, first_token_ns);
}

/* ---- Reading ------------------------------------------------------------------------------ */

static bool kept(const struct history *h, uint64_t tick)
{
    return h->device[tick % CELLS].tick == tick + 1;
}

bool history_device_at(const struct history *h, uint64_t tick, struct history_device *out)
{
    if (!kept(h, tick))
        return false;
    *out = h->device[tick % CELLS].totals;
    return true;
}

bool history_model_at(const struct history *h, uint32_t i, uint64_t tick, struct history_model *out)
{
    const struct series *series = h->series[i];
    if (!kept(h, tick))
        return false;
    if (!series || tick < series->first_tick)
        *out = (struct history_model){ 0 };
    else
        *out = series->cells[tick % CELLS].totals;
    return true;
}

struct history_window history_window(const struct history *h, uint64_t at_ns, uint64_t range_ns)
{
    static const uint32_t steps[] = { 1, 2, 3, 6, 12, 18, 30, 48 };
    uint64_t now = tick_of(at_ns);
    uint64_t ticks = range_ns / HISTORY_TICK_NS;
    struct history_window w = { .base = now > ticks ? now - ticks : 0, .step = steps[0] };
    assert(ticks <= HISTORY_TICKS);
    while (w.base < h->last_tick && !kept(h, w.base))
        w.base++;
    if (w.base >= h->last_tick) {
        w.base = w.first = h->last_tick;
        return w;
    }
    for (uint32_t i = 0; (h->last_tick - w.base) / w.step > HISTORY_POINTS_MAX; i++)
        w.step = steps[i];
    /* Whole multiples, so that the points stay the same from one reading to the next. */
    w.first = (w.base + w.step - 1) / w.step * w.step;
    w.n_points = w.first < h->last_tick ? (uint32_t)((h->last_tick - w.first) / w.step) : 0;
    return w;
}

/* The place in a bucket is interpolated on the logarithmic scale that the buckets are made on. */
static uint64_t quantile(const uint64_t counts[BOUNDS + 1], uint64_t n, double q)
{
    double rank = q * (double)n, below = 0;
    uint32_t i = 0;
    while (i < BOUNDS && below + (double)counts[i] < rank)
        below += (double)counts[i++];
    if (i == BOUNDS)
        return bounds_ns[BOUNDS - 1];
    double high = (double)bounds_ns[i], low = i ? (double)bounds_ns[i - 1] : high / 2;
    return (uint64_t)(low * pow(high / low, (rank - below) / (double)counts[i]));
}

static struct history_quantiles quantiles(const uint64_t counts[BOUNDS + 1])
{
    struct history_quantiles q = { 0 };
    for (uint32_t i = 0; i <= BOUNDS; i++)
        q.n += counts[i];
    if (q.n) {
        q.p50_ns = quantile(counts, q.n, 0.50);
        q.p95_ns = quantile(counts, q.n, 0.95);
    }
    return q;
}

struct history_latency history_latency(const struct history *h, uint32_t i, uint64_t from, int64_t to)
{
    const struct series *series = h->series[i];
    uint64_t latency[BOUNDS + 1] = { 0 }, first_token[BOUNDS + 1] = { 0 };
    uint64_t end = to == HISTORY_NOW ? h->last_tick : (uint64_t)to;
    if (!series)
        return (struct history_latency){ 0 };
    for (uint64_t tick = from + 1; tick <= end + (to == HISTORY_NOW); tick++) {
        const struct counts *c = &series->open;
        if (tick <= end) {
            if (!kept(h, tick) || tick < series->first_tick)
                continue;
            c = &series->cells[tick % CELLS].counts;
        }
        for (uint32_t b = 0; b <= BOUNDS; b++) {
            latency[b] += c->latency[b];
            first_token[b] += c->first_token[b];
        }
    }
    return (struct history_latency){ quantiles(latency), quantiles(first_token) };
}
