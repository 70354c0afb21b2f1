/* bill.c - one request's account.
 *
 * A bill keeps two sorts of time apart.  What is charged (prefill, decode) comes from splitting the
 * timeline's intervals and may be CPU time.  What the request waited (queue, latency, first token)
 * is wall time between boundaries, whatever the basis. */
#include "meter_state.h"

#include <assert.h>

#include "fail.h"
#include "mem.h"
#include "wide.h"

const char *cinf_finish_name(enum cinf_finish finish)
{
    static const char *const names[CINF_FINISH_COUNT] = {
        [CINF_FINISH_RUNNING] = "running",         [CINF_FINISH_STOP] = "stop",
        [CINF_FINISH_LENGTH] = "length",           [CINF_FINISH_CANCELLED] = "cancelled",
        [CINF_FINISH_CLIENT_GONE] = "client_gone", [CINF_FINISH_TIMEOUT] = "timeout",
        [CINF_FINISH_FAILED] = "failed",
    };
    return (unsigned)finish < CINF_FINISH_COUNT ? names[finish] : "unknown";
}

enum cinf_status cinf_bill_open(struct cinf_bill **out, struct cinf_meter *meter, uint32_t model,
                                uint32_t endpoint)
{
    uint32_t n_models = atomic_load_explicit(&meter->n_models, memory_order_acquire);
    if (model >= n_models)
        return cinf_fail(CINF_EINVAL, "there is no model %u: the meter has %u", model, n_models);
    if (endpoint >= meter->n_endpoints)
        return cinf_fail(CINF_EINVAL, "there is no endpoint %u: the meter has %u", endpoint,
                         meter->n_endpoints);
    struct cinf_bill *bill = mem_new(1, sizeof *bill);
    if (!bill)
        return cinf_fail(CINF_ENOMEM, "no memory for a bill");
    bill->meter = meter;
    bill->account = meter->models[model];
    bill->model = model;
    bill->endpoint = endpoint;
    bill->submitted_wall_ns = wall_now(meter);
    atomic_fetch_add_explicit(&bill->account->opened, 1, memory_order_relaxed);
    *out = bill;
    return CINF_OK;
}

static uint64_t since(uint64_t earlier_ns, uint64_t later_ns)
{
    return later_ns > earlier_ns ? later_ns - earlier_ns : 0;
}

/* The part of `ns` that prefill took, to the nearest nanosecond. */
static uint64_t prefill_of(const struct cinf_share *share, uint64_t ns)
{
    wide weight = (wide)share->prefill_weight + share->decode_weight;
    if (weight == 0)
        return share->input_tokens > 0 ? ns : 0;
    return (uint64_t)(((wide)ns * share->prefill_weight + weight / 2) / weight);
}

/* Whoever reads along has waited once for tokens that come together, and not at all for all but the first. */
static void observe_gaps(struct cinf_bill *bill, uint64_t gap_ns, uint32_t tokens)
{
    struct histogram *h = &bill->account->facts.inter_token;
    uint32_t together = bill->together < tokens ? bill->together : tokens - 1;
    histogram_observe(h, &histogram_inter_token_bounds, gap_ns, tokens - together);
    if (together > 0)
        histogram_observe(h, &histogram_inter_token_bounds, 0, together);
}

static void add_tokens(struct cinf_bill *bill, const struct cinf_share *share)
{
    struct bill_facts *b = &bill->facts;
    struct model_facts *m = &bill->account->facts;
    uint64_t now = bill->meter->boundary_wall_ns;
    if (share->output_tokens > 0) {
        if (b->output_tokens == 0)
            b->first_token_ns = since(bill->submitted_wall_ns, now);
        else
            observe_gaps(bill, now - bill->token_wall_ns, share->output_tokens);
        bill->token_wall_ns = now;
    }
    bill->together = 0;
    b->input_tokens += share->input_tokens;
    b->cached_tokens += share->cached_tokens;
    b->output_tokens += share->output_tokens;
    m->input_tokens += share->input_tokens;
    m->cached_tokens += share->cached_tokens;
    m->output_tokens += share->output_tokens;
}

void bill_settle(const struct cinf_share *share, uint64_t start_wall_ns)
{
    struct cinf_bill *bill = share->bill;
    struct bill_facts *b = &bill->facts;
    struct model_facts *m = &bill->account->facts;
    const struct price_facts *price = &bill->meter->facts.price;
    if (!bill->started) {
        /* It may have been submitted while the interval that serves it was under way already. */
        bill->started = true;
        bill->start_wall_ns =
            start_wall_ns > bill->submitted_wall_ns ? start_wall_ns : bill->submitted_wall_ns;
        b->queue_ns = bill->start_wall_ns - bill->submitted_wall_ns;
        m->dequeued++;
        m->running++;
    }
    b->latency_ns = bill->meter->boundary_wall_ns - bill->start_wall_ns;

    uint64_t ns = bill->part.ns, prefill_ns = prefill_of(share, ns);
    b->prefill_ns += prefill_ns;
    b->decode_ns += ns - prefill_ns;
    m->prefill_ns += prefill_ns;
    m->decode_ns += ns - prefill_ns;
    m->price_serve_ns += ns;
    if (price->priced) {
        struct cinf_cost cost = cinf_cost_of(ns, price->nanodollars_per_hour);
        b->cost = cinf_cost_add(b->cost, cost);
        m->serve_cost = cinf_cost_add(m->serve_cost, cost);
    } else {
        b->unpriced_ns += ns;
        m->unpriced_ns += ns;
    }
    add_tokens(bill, share);
    touch_account(bill->meter, bill->account);
    touch_bill(bill->meter, bill);
}

void cinf_bill_count_drafts(struct cinf_bill *bill, uint32_t drafted, uint32_t accepted)
{
    assert(accepted <= drafted);
    bill->facts.drafted_tokens += drafted;
    bill->facts.accepted_tokens += accepted;
    bill->account->facts.drafted_tokens += drafted;
    bill->account->facts.accepted_tokens += accepted;
    bill->together += accepted;
}

void cinf_bill_close(struct cinf_bill *bill, enum cinf_finish finish)
{
    assert(finish > CINF_FINISH_RUNNING && finish < CINF_FINISH_COUNT);
    struct cinf_meter *meter = bill->meter;
    struct bill_facts *b = &bill->facts;
    struct model_facts *m = &bill->account->facts;
    if (b->finish != CINF_FINISH_RUNNING)
        return;
    b->finish = finish;
    if (bill->started) {
        m->running--;
        histogram_observe(&m->latency, &meter->latency_bounds, b->latency_ns, 1);
    } else {
        m->dequeued++;
        b->queue_ns = since(bill->submitted_wall_ns, wall_now(meter));
    }
    histogram_observe(&m->queue, &histogram_queue_bounds, b->queue_ns, 1);
    if (b->output_tokens > 0)
        histogram_observe(&m->first_token, &histogram_first_token_bounds, b->first_token_ns, 1);
    m->requests[bill->endpoint]++;
    m->finished[finish]++;
    m->finished_ns[finish] += b->prefill_ns + b->decode_ns;
    touch_account(meter, bill->account);
    touch_bill(meter, bill);
    publish(meter);
}

void cinf_bill_free(struct cinf_bill *bill)
{
    assert(!bill || bill->facts.finish != CINF_FINISH_RUNNING);
    mem_free(bill);
}
