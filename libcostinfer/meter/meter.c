/* meter.c - one device's timeline, and the accounts its time is charged to.
 *
 * The timeline is a state machine of two states over one clock.  It remembers the last boundary; a
 * transition takes all time since then, adds it to exactly one account and makes now the boundary.
 * There is no other way to add time, so no time can be missed or counted twice.  What the pulse says was
 * lost since the last boundary is taken off first, in every transition, for the account `lost`.
 *
 *                  busy: [boundary, now) -> idle account
 *            .-----------------------------------------------.
 *            |                                               v
 *        .------.                                        .------.--.  charge:  [boundary, now) -> serve
 *  new ->| idle |                                        | busy |  |  charge_load: [boundary, now) -> load
 *        '------'                                        '------'<-'
 *            ^                                               |
 *            '-----------------------------------------------'
 *                  idle: no charge; the boundary stays, so the time after it is idle
 *
 *        time ->   |-- idle --|-- serve --|-- serve --|- load -|-- serve --|------ idle ------ ...
 *                 new        busy       charge      charge   charge_     charge             now
 *                                                             load        idle
 *
 * A new price takes effect at a boundary too: an idle device makes a boundary for it, a busy device
 * keeps it for the next one.  So every interval has one price, and an amount is a sum of products.
 *
 * While the device is busy, readers see totals as of the last boundary; later time has not been charged
 * yet. */
#include <assert.h>
#include <string.h>

#include "accounts.h"
#include "bill.h"
#include "fail.h"
#include "mem.h"
#include "mirror.h"
#include "observer.h"
#include "price_history.h"
#include "timeline.h"

/* ---- The timeline -------------------------------------------------------------------------- */

/* Moves the boundary, and returns the time passed that is left to charge.  Where both clocks are the same,
 * one reading serves both, so that a request alone on the device has taken exactly the time it is charged
 * for, unless some of it was lost. */
static uint64_t move_boundary(struct cinf_meter *meter, struct moment to)
{
    uint64_t interval = device_pass(&meter->counters, to);
    meter->boundary_wall_ns = meter->one_clock ? to.ns : wall_now(meter);
    return interval;
}

static uint64_t device_cpu(const struct cinf_meter *meter)
{
    return meter->device_cpu_ns ? meter->device_cpu_ns(meter->device_cpu_context) : 0;
}

/* Ends a busy interval; what other threads of the process used of it is overhead. */
static uint64_t end_interval(struct cinf_meter *meter)
{
    /* Read before the boundary, so it is at most what the boundary is past, but for the time between the two
     * readings.  That is left for the next interval. */
    uint64_t cpu_ns = device_cpu(meter);
    uint64_t interval = move_boundary(meter, timeline_now(meter));
    if (!meter->device_cpu_ns)
        return interval;
    uint64_t used = cpu_ns > meter->device_cpu_charged_ns ? cpu_ns - meter->device_cpu_charged_ns : 0;
    if (used > interval)
        used = interval;
    meter->device_cpu_charged_ns += used;
    device_add(&meter->counters, ACCOUNT_OVERHEAD, interval - used);
    return used;
}

static void enter_idle(struct cinf_meter *meter)
{
    meter->counters.idle = 1;
    idle_open(meter);
    publish(meter);
}

static void leave_idle(struct cinf_meter *meter)
{
    device_add(&meter->counters, idle_account(meter), move_boundary(meter, idle_seal(meter)));
    meter->device_cpu_charged_ns = device_cpu(meter);
    meter->counters.idle = 0;
    publish(meter);
}

void cinf_meter_busy(struct cinf_meter *meter)
{
    if (meter->counters.idle)
        leave_idle(meter);
}

void cinf_meter_idle(struct cinf_meter *meter)
{
    if (meter->counters.idle)
        return;
    bool changes = meter->next_price != NULL;
    if (changes) {
        device_add(&meter->counters, ACCOUNT_IDLE, end_interval(meter));
        price_change(meter);
    }
    enter_idle(meter);
    if (changes)
        observe_price(meter);
}

static void settle(struct cinf_meter *meter)
{
    bool changes = meter->next_price != NULL;
    if (changes)
        price_change(meter);
    publish(meter);
    if (changes)
        observe_price(meter);
}

uint64_t cinf_meter_charge(struct cinf_meter *meter, const struct cinf_share *shares, uint32_t n)
{
    if (n == 0)
        return 0;
    cinf_meter_busy(meter);
    struct device_counters *d = &meter->counters;
    uint64_t start_wall_ns = meter->boundary_wall_ns, lost_before = d->ns[ACCOUNT_LOST];
    uint64_t interval = end_interval(meter), lost = d->ns[ACCOUNT_LOST] - lost_before;
    device_add(d, ACCOUNT_SERVE, interval);

    struct split_part *parts = NULL;
    for (uint32_t i = n; i-- > 0;) {
        struct split_part *part = &shares[i].bill->part;
        assert(shares[i].bill->meter == meter && shares[i].bill->counters.finish == CINF_FINISH_RUNNING);
        part->weight = shares[i].prefill_weight + shares[i].decode_weight;
        part->next = parts;
        parts = part;
    }
    split_interval(parts, interval, &meter->split_turn);
    for (uint32_t i = 0; i < n; i++)
        bill_settle(&shares[i], start_wall_ns, lost);
    settle(meter);
    return interval;
}

uint64_t cinf_meter_charge_load(struct cinf_meter *meter, uint32_t model)
{
    if (model >= meter->n_models)
        return 0;
    cinf_meter_busy(meter);
    uint64_t interval = end_interval(meter);
    struct device_counters *d = &meter->counters;
    device_add(d, ACCOUNT_LOAD, interval);
    struct account *account = meter->models[model];
    struct model_counters *c = &account->counters;
    c->load_ns += interval;
    c->price_load_ns += interval;
    if (d->price.priced)
        c->load_cost = cinf_cost_add(c->load_cost, cinf_cost_of(interval, d->price.nanodollars_per_hour));
    account_touch(meter, account);
    mark_account_dirty(meter, account);
    settle(meter);
    return interval;
}

/* ---- Prices -------------------------------------------------------------------------------- */

static enum cinf_status read_price(struct price_counters *out, const char *dollars_per_hour)
{
    struct price_counters p = { .priced = dollars_per_hour != NULL };
    if (dollars_per_hour)
        TRY(cinf_price_parse(&p.nanodollars_per_hour, dollars_per_hour));
    *out = p;
    return CINF_OK;
}

enum cinf_status cinf_meter_set_price(struct cinf_meter *meter, const char *dollars_per_hour)
{
    struct price_counters next;
    TRY(read_price(&next, dollars_per_hour));
    const struct price_counters *now = &meter->counters.price;
    if (next.priced == now->priced && next.nanodollars_per_hour == now->nanodollars_per_hour) {
        mem_free(meter->next_price);
        meter->next_price = NULL;
        return CINF_OK;
    }
    /* Room for the history of the price in force is made here, because a boundary cannot fail. */
    if (!meter->next_price)
        meter->next_price = old_price_new(meter->n_models);
    if (!meter->next_price)
        return cinf_fail(CINF_ENOMEM, "no memory for the totals of a price");
    meter->next_price->counters = next;
    if (meter->counters.idle) {
        leave_idle(meter);
        price_change(meter);
        enter_idle(meter);
        observe_price(meter);
    }
    return CINF_OK;
}

/* ---- Any thread ---------------------------------------------------------------------------- */

const char *cinf_error_kind_name(enum cinf_error_kind kind)
{
    static const char *const names[CINF_ERROR_KINDS] = {
        [CINF_ERROR_INVALID_REQUEST] = "invalid_request",
        [CINF_ERROR_CONTEXT_LENGTH] = "context_length",
        [CINF_ERROR_QUEUE_FULL] = "queue_full",
        [CINF_ERROR_UNAVAILABLE] = "unavailable",
        [CINF_ERROR_TIMEOUT] = "timeout",
        [CINF_ERROR_DEVICE] = "device",
        [CINF_ERROR_INTERNAL] = "internal",
    };
    return (unsigned)kind < CINF_ERROR_KINDS ? names[kind] : "unknown";
}

void cinf_meter_set_gpu_memory(struct cinf_meter *meter, uint64_t used_bytes, uint64_t total_bytes)
{
    atomic_store(&meter->gpu_used_bytes, used_bytes);
    atomic_store(&meter->gpu_total_bytes, total_bytes);
    atomic_store(&meter->has_gpu, true);
}

void cinf_meter_set_gpu_taken(struct cinf_meter *meter, uint64_t bytes)
{
    atomic_store(&meter->gpu_taken_bytes, bytes);
}

void cinf_meter_set_split(struct cinf_meter *meter, uint64_t as_per_flop, uint64_t as_per_byte)
{
    atomic_store(&meter->split_flop_as, as_per_flop);
    atomic_store(&meter->split_byte_as, as_per_byte);
    atomic_store(&meter->has_split, true);
}

/* ---- A meter ------------------------------------------------------------------------------- */

static enum cinf_status check_endpoints(const char *const *endpoints, uint32_t n)
{
    if (n < 1 || n > CINF_ENDPOINTS_MAX)
        return cinf_fail(CINF_EINVAL, "%u endpoints: expected 1 to %d", n, CINF_ENDPOINTS_MAX);
    for (uint32_t e = 0; e < n; e++) {
        TRY(label_check("endpoint", endpoints[e]));
        for (uint32_t before = 0; before < e; before++)
            if (strcmp(endpoints[before], endpoints[e]) == 0)
                return cinf_fail(CINF_EINVAL, "endpoints %u and %u have the same name", before, e);
    }
    return CINF_OK;
}

/* The caller's options over the defaults, whatever version of the struct was given. */
static enum cinf_status read_options(struct cinf_meter_options *o, struct histogram_bounds *latency,
                                     struct price_counters *price, const struct cinf_meter_options *given)
{
    static const char *const api[] = { "api" };
    *o = (struct cinf_meter_options){ CINF_METER_OPTIONS };
    if (given) {
        if (given->struct_size < sizeof given->struct_size)
            return cinf_fail(CINF_EINVAL, "struct_size of the options is 0: CINF_METER_OPTIONS sets it");
        memcpy(o, given, given->struct_size < sizeof *o ? given->struct_size : sizeof *o);
    }
    if (!o->device)
        o->device = "cpu";
    if (!o->endpoints && o->n_endpoints == 0) {
        o->endpoints = api;
        o->n_endpoints = 1;
    }
    if ((unsigned)o->basis > CINF_BASIS_CPU)
        return cinf_fail(CINF_EINVAL, "basis %d is neither wall nor cpu", (int)o->basis);
    if (!o->endpoints || (!o->latency_buckets && o->n_latency_buckets > 0))
        return cinf_fail(CINF_EINVAL, "the options have a count without its list");
    TRY(label_check("device", o->device));
    TRY(check_endpoints(o->endpoints, o->n_endpoints));
    TRY(read_price(price, o->dollars_per_hour));
    if (o->latency_buckets)
        return histogram_bounds_read(latency, o->latency_buckets, o->n_latency_buckets);
    *latency = histogram_latency_bounds;
    return CINF_OK;
}

enum cinf_status cinf_meter_new(struct cinf_meter **out, const struct cinf_meter_options *options)
{
    struct cinf_meter_options o;
    struct histogram_bounds latency;
    struct price_counters price;
    TRY(read_options(&o, &latency, &price, options));

    struct cinf_meter *meter = mem_new(1, sizeof *meter);
    if (!meter)
        return cinf_fail(CINF_ENOMEM, "no memory for a meter");
    pthread_mutex_init(&meter->payers_lock, NULL);
    pthread_mutex_init(&meter->history_lock, NULL);
    pthread_mutex_init(&meter->observer_lock, NULL);
    meter->counters.n_prices = 1;
    bool complete = (meter->device = mem_copy_text(o.device));
    for (uint32_t e = 0; complete && e < o.n_endpoints; e++) {
        meter->endpoints[e] = mem_copy_text(o.endpoints[e]);
        meter->n_endpoints = e + 1;
        complete = meter->endpoints[e] != NULL;
    }
    if (!complete) {
        cinf_meter_free(meter);
        return cinf_fail(CINF_ENOMEM, "no memory for a meter");
    }
    meter->basis = o.basis;
    meter->latency_bounds = latency;
    enum cinf_status status = timeline_open(meter, &o);
    if (status != CINF_OK) {
        cinf_meter_free(meter);
        return status;
    }
    meter->counters.price = price;
    enter_idle(meter);
    *out = meter;
    return CINF_OK;
}

void cinf_meter_free(struct cinf_meter *meter)
{
    if (!meter)
        return;
    observe_free(meter);
    timeline_close(meter);
    accounts_free(meter);
    price_history_free(meter);
    for (uint32_t e = 0; e < meter->n_endpoints; e++)
        mem_free(meter->endpoints[e]);
    pthread_mutex_destroy(&meter->payers_lock);
    pthread_mutex_destroy(&meter->history_lock);
    pthread_mutex_destroy(&meter->observer_lock);
    mem_free(meter->device);
    mem_free(meter);
}
