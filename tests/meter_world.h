/* meter_world.h - for tests: a meter on a fake clock, and every identity that must hold of it. */
#ifndef METER_WORLD_H
#define METER_WORLD_H

#include <costinfer/meter.h>

#include <stdatomic.h>

#include "support.h"

/* Each of Check's assertions writes a note, which would take nearly all of the time of a test that makes
 * millions of them. */
#define same(a, b)                                                                                           \
    do {                                                                                                     \
        if ((a) != (b))                                                                                      \
            ck_assert_uint_eq(a, b);                                                                         \
    } while (0)
#define at_most(a, b)                                                                                        \
    do {                                                                                                     \
        if ((a) > (b))                                                                                       \
            ck_assert_uint_le(a, b);                                                                         \
    } while (0)

static _Atomic uint64_t world_clock;

static _Atomic uint64_t world_stalled;

static inline uint64_t world_now(void *context)
{
    (void)context;
    return atomic_load(&world_clock);
}

static inline void world_pass(uint64_t ns)
{
    atomic_fetch_add(&world_clock, ns);
}

static inline uint64_t world_lost(void *context)
{
    (void)context;
    return atomic_load(&world_stalled);
}

/* Time in which nothing could run. */
static inline void world_stall(uint64_t ns)
{
    atomic_fetch_add(&world_clock, ns);
    atomic_fetch_add(&world_stalled, ns);
}

/* Starts the clock at a time other than 0. */
static inline struct cinf_meter *world_meter(const char *price)
{
    struct cinf_meter *meter;
    atomic_store(&world_clock, 1234567890123);
    atomic_store(&world_stalled, 0);
    ck_ok(cinf_meter_new(&meter,
                         &(struct cinf_meter_options){ CINF_METER_OPTIONS, .dollars_per_hour = price,
                                                       .clock_ns = world_now, .stalled_ns = world_lost }));
    return meter;
}

static inline uint32_t world_model(struct cinf_meter *meter, const char *name)
{
    uint32_t model;
    ck_ok(cinf_meter_add_model(meter, name, &model));
    return model;
}

static inline struct cinf_bill *world_bill(struct cinf_meter *meter, uint32_t model)
{
    struct cinf_bill *bill;
    ck_ok(cinf_bill_open(&bill, meter, model, 0));
    return bill;
}

static inline struct cinf_bill *world_bill_for(struct cinf_meter *meter, uint32_t model, const char *payer)
{
    struct cinf_bill *bill;
    ck_ok(cinf_bill_open_for(&bill, meter, model, 0, payer));
    return bill;
}

static inline struct cinf_report world_report(const struct cinf_bill *bill)
{
    struct cinf_report r = { CINF_REPORT };
    cinf_bill_read(bill, &r);
    return r;
}

static inline void world_end(struct cinf_bill *bill)
{
    cinf_bill_close(bill, CINF_FINISH_STOP);
    cinf_bill_free(bill);
}

static inline void same_cost(struct cinf_cost a, struct cinf_cost b)
{
    same(a.hi, b.hi);
    same(a.lo, b.lo);
}

/* Checks what must hold within one snapshot, whatever happened before it. */
static inline void check_snapshot(const struct cinf_snapshot *s)
{
    same(s->serve_ns + s->load_ns + s->idle_ns + s->lost_ns + s->overhead_ns, s->as_of_ns);

    uint64_t serve = 0, load = 0;
    struct cinf_cost serve_cost = { 0 }, load_cost = { 0 };
    for (uint32_t m = 0; m < s->n_models; m++) {
        const struct cinf_model_totals *t = &s->models[m];
        uint64_t requests = 0, finished = 0, finished_ns = 0;
        same(t->prefill_ns + t->decode_ns, t->serve_ns);
        at_most(t->unpriced_ns, t->serve_ns);
        for (uint32_t e = 0; e < CINF_ENDPOINTS_MAX; e++)
            requests += t->requests[e];
        for (int f = 0; f < CINF_FINISH_COUNT; f++) {
            finished += t->finished[f];
            finished_ns += t->finished_ns[f];
        }
        same(requests, finished);
        at_most(finished_ns, t->serve_ns);
        at_most(t->waiting, UINT32_MAX); /* not below 0 */
        serve += t->serve_ns;
        load += t->load_ns;
        serve_cost = cinf_cost_add(serve_cost, t->serve_cost);
        load_cost = cinf_cost_add(load_cost, t->load_cost);
    }
    same(serve, s->serve_ns);
    same(load, s->load_ns);
    same_cost(serve_cost, s->serve_cost);
    same_cost(load_cost, s->load_cost);

    /* What payers paid is what their models took. */
    uint32_t n_seen = 0;
    for (uint32_t m = 0; m < s->n_models; m++) {
        const struct cinf_model_totals *t = &s->models[m];
        struct cinf_payer_totals sum = { .model = m };
        for (; n_seen < s->n_payers && s->payers[n_seen].model == m; n_seen++) {
            const struct cinf_payer_totals *payer = &s->payers[n_seen];
            same(payer->prefill_ns + payer->decode_ns, payer->serve_ns);
            sum.prefill_ns += payer->prefill_ns;
            sum.decode_ns += payer->decode_ns;
            sum.unpriced_ns += payer->unpriced_ns;
            sum.cost = cinf_cost_add(sum.cost, payer->cost);
            sum.input_tokens += payer->input_tokens;
            sum.cached_tokens += payer->cached_tokens;
            sum.output_tokens += payer->output_tokens;
            sum.requests += payer->requests;
        }
        uint64_t requests = 0;
        for (uint32_t e = 0; e < CINF_ENDPOINTS_MAX; e++)
            requests += t->requests[e];
        same(sum.prefill_ns, t->prefill_ns);
        same(sum.decode_ns, t->decode_ns);
        same(sum.unpriced_ns, t->unpriced_ns);
        same_cost(sum.cost, t->serve_cost);
        same(sum.input_tokens, t->input_tokens);
        same(sum.cached_tokens, t->cached_tokens);
        same(sum.output_tokens, t->output_tokens);
        same(sum.requests, requests);
    }
    same(n_seen, s->n_payers);

    /* The periods by price give the same sums, the same costs, and leave no gap in time. */
    uint64_t at = 0, unpriced = 0;
    struct cinf_cost costs[5] = { { 0 } };
    for (uint32_t p = 0; p < s->n_prices; p++) {
        const struct cinf_price_period *period = &s->prices[p];
        const struct cinf_price_sums *sums = &s->price_sums[p];
        uint64_t model_serve = 0, model_load = 0, rate = period->nanodollars_per_hour;
        uint64_t ns[5] = { period->serve_ns, period->load_ns, period->idle_ns, sums->lost_ns,
                           sums->overhead_ns };
        struct cinf_cost period_costs[5] = { sums->serve_cost, sums->load_cost, sums->idle_cost,
                                             sums->lost_cost, sums->overhead_cost };
        same(period->from_ns, at);
        for (uint32_t m = 0; m < s->n_models; m++) {
            model_serve += period->model_serve_ns[m];
            model_load += period->model_load_ns[m];
        }
        same(model_serve, period->serve_ns);
        same(model_load, period->load_ns);
        uint64_t whole = 0;
        for (int i = 0; i < 5; i++) {
            whole += ns[i];
            if (sums->n_periods == 1)
                same_cost(period_costs[i], cinf_cost_of(ns[i], rate));
            costs[i] = cinf_cost_add(costs[i], period_costs[i]);
        }
        if (!period->priced) {
            same(rate, 0);
            same(sums->unpriced_ns, whole);
        } else if (sums->n_periods == 1)
            same(sums->unpriced_ns, 0);
        at += whole;
        unpriced += sums->unpriced_ns;
    }
    same(at, s->as_of_ns);
    same(unpriced, s->unpriced_ns);
    same_cost(costs[0], s->serve_cost);
    same_cost(costs[1], s->load_cost);
    same_cost(costs[2], s->idle_cost);
    same_cost(costs[3], s->lost_cost);
    same_cost(costs[4], s->overhead_cost);
}

#endif
