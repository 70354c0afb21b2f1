/* bill.c - one request's account.
 *
 * A bill keeps two kinds of time apart.  What is charged (prefill, decode) comes from splitting the
 * timeline's intervals and may be CPU time.  What the request waited (queue, latency, first token)
 * is wall time between boundaries, whatever the basis. */
#include "bill.h"

#include <assert.h>
#include <string.h>

#include "accounts.h"
#include "fail.h"
#include "mem.h"
#include "mirror.h"
#include "observer.h"
#include "timeline.h"
#include "u128.h"

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
    return cinf_bill_open_for(out, meter, model, endpoint, NULL);
}

enum cinf_status cinf_bill_open_for(struct cinf_bill **out, struct cinf_meter *meter, uint32_t model,
                                    uint32_t endpoint, const char *payer)
{
    uint32_t n_models = atomic_load_explicit(&meter->n_models, memory_order_acquire);
    if (model >= n_models)
        return cinf_fail(CINF_EINVAL, "unknown model %u: the meter has %u", model, n_models);
    if (endpoint >= meter->n_endpoints)
        return cinf_fail(CINF_EINVAL, "unknown endpoint %u: the meter has %u", endpoint, meter->n_endpoints);
    struct payer_account *account;
    TRY(payer_find(&account, meter, meter->models[model], payer ? payer : "anonymous"));
    struct cinf_bill *bill = mem_new(1, sizeof *bill);
    if (!bill)
        return cinf_fail(CINF_ENOMEM, "no memory for a bill");
    bill->meter = meter;
    bill->account = meter->models[model];
    bill->payer = account;
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

/* Prefill's part of `ns`, to the nearest nanosecond. */
static uint64_t prefill_of(const struct cinf_share *share, uint64_t ns)
{
    u128 weight = (u128)share->prefill_weight + share->decode_weight;
    if (weight == 0)
        return share->input_tokens > 0 ? ns : 0;
    return (uint64_t)(((u128)ns * share->prefill_weight + weight / 2) / weight);
}

/* Tokens that arrive together count as one wait: the first took the whole gap, the others took none. */
static void observe_gaps(struct cinf_bill *bill, uint64_t gap_ns, uint32_t tokens)
{
    struct histogram *h = &bill->account->counters.inter_token;
    uint32_t together = bill->together < tokens ? bill->together : tokens - 1;
    histogram_observe(h, &histogram_inter_token_bounds, gap_ns, tokens - together);
    if (together > 0)
        histogram_observe(h, &histogram_inter_token_bounds, 0, together);
}

static void add_tokens(struct cinf_bill *bill, const struct cinf_share *share)
{
    struct bill_counters *b = &bill->counters;
    struct model_counters *m = &bill->account->counters;
    struct payer_counters *p = &bill->payer->counters;
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
    p->input_tokens += share->input_tokens;
    p->cached_tokens += share->cached_tokens;
    p->output_tokens += share->output_tokens;
}

void bill_settle(const struct cinf_share *share, uint64_t start_wall_ns, uint64_t lost_ns)
{
    struct cinf_bill *bill = share->bill;
    struct bill_counters *b = &bill->counters;
    struct model_counters *m = &bill->account->counters;
    struct payer_counters *p = &bill->payer->counters;
    const struct price_counters *price = &bill->meter->counters.price;
    if (!bill->started) {
        /* The request may have been submitted after the interval that serves it had begun. */
        bill->started = true;
        bill->start_wall_ns =
            start_wall_ns > bill->submitted_wall_ns ? start_wall_ns : bill->submitted_wall_ns;
        b->start_ns = bill->start_wall_ns;
        b->queue_ns = bill->start_wall_ns - bill->submitted_wall_ns;
        m->dequeued++;
        m->running++;
    }
    b->latency_ns = bill->meter->boundary_wall_ns - bill->start_wall_ns;
    uint64_t waited_ns = since(start_wall_ns > bill->start_wall_ns ? start_wall_ns : bill->start_wall_ns,
                               bill->meter->boundary_wall_ns);
    b->lost_ns += lost_ns < waited_ns ? lost_ns : waited_ns;

    uint64_t ns = bill->part.ns, prefill_ns = prefill_of(share, ns);
    b->prefill_ns += prefill_ns;
    b->decode_ns += ns - prefill_ns;
    m->prefill_ns += prefill_ns;
    m->decode_ns += ns - prefill_ns;
    p->prefill_ns += prefill_ns;
    p->decode_ns += ns - prefill_ns;
    m->price_serve_ns += ns;
    if (price->priced) {
        struct cinf_cost cost = cinf_cost_of(ns, price->nanodollars_per_hour);
        b->cost = cinf_cost_add(b->cost, cost);
        m->serve_cost = cinf_cost_add(m->serve_cost, cost);
        p->cost = cinf_cost_add(p->cost, cost);
    } else {
        b->unpriced_ns += ns;
        m->unpriced_ns += ns;
        p->unpriced_ns += ns;
    }
    add_tokens(bill, share);
    account_touch(bill->meter, bill->account);
    mark_account_dirty(bill->meter, bill->account);
    mark_payer_dirty(bill->meter, bill->payer);
    mark_bill_dirty(bill->meter, bill);
}

void cinf_bill_count_drafts(struct cinf_bill *bill, uint32_t drafted, uint32_t accepted)
{
    assert(accepted <= drafted);
    bill->counters.drafted_tokens += drafted;
    bill->counters.accepted_tokens += accepted;
    bill->account->counters.drafted_tokens += drafted;
    bill->account->counters.accepted_tokens += accepted;
    bill->together += accepted;
}

void cinf_bill_close(struct cinf_bill *bill, enum cinf_finish finish)
{
    assert(finish > CINF_FINISH_RUNNING && finish < CINF_FINISH_COUNT);
    struct cinf_meter *meter = bill->meter;
    struct bill_counters *b = &bill->counters;
    struct model_counters *m = &bill->account->counters;
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
    bill->payer->counters.requests++;
    mark_account_dirty(meter, bill->account);
    mark_payer_dirty(meter, bill->payer);
    mark_bill_dirty(meter, bill);
    observe_end(meter, bill);
}

void cinf_bill_read(const struct cinf_bill *bill, struct cinf_report *report)
{
    struct bill_counters c;
    uint64_t phase;
    do {
        phase = mirror_phase(bill->meter);
        load_mirror(&c, bill->mirror[phase & 1], WORDS(struct bill_counters));
    } while (mirror_moved(bill->meter, phase));

    struct cinf_report r = {
        .struct_size = report->struct_size,
        .finish = (enum cinf_finish)c.finish,
        .model = bill->model,
        .input_tokens = (uint32_t)c.input_tokens,
        .cached_tokens = (uint32_t)c.cached_tokens,
        .output_tokens = (uint32_t)c.output_tokens,
        .queue_ns = c.queue_ns,
        .latency_ns = c.latency_ns,
        .first_token_ns = c.first_token_ns,
        .device_ns = c.prefill_ns + c.decode_ns,
        .prefill_ns = c.prefill_ns,
        .decode_ns = c.decode_ns,
        .unpriced_ns = c.unpriced_ns,
        .cost = c.cost,
        .drafted_tokens = (uint32_t)c.drafted_tokens,
        .accepted_tokens = (uint32_t)c.accepted_tokens,
        .lost_ns = c.lost_ns,
        .start_ns = c.start_ns,
    };
    memcpy(report, &r, report->struct_size < sizeof r ? report->struct_size : sizeof r);
}

void cinf_bill_free(struct cinf_bill *bill)
{
    assert(!bill || bill->counters.finish != CINF_FINISH_RUNNING);
    if (bill)
        mem_free(bill->note);
    mem_free(bill);
}
