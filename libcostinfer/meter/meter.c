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

#include "bill.h"
#include "fail.h"
#include "mem.h"
#include "mirror.h"
#include "timeline.h"
#include "utf8.h"

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

/* The waiting price takes effect at the boundary; the price before it becomes history. */
static void change_price(struct cinf_meter *meter)
{
    struct old_price *old = meter->next_price;
    struct price_counters next = old->counters;
    meter->next_price = NULL;
    old->counters = meter->counters.price;
    for (uint32_t m = 0; m < old->n_models; m++) {
        struct model_counters *c = &meter->models[m]->counters;
        old->ns[m].serve = c->price_serve_ns;
        old->ns[m].load = c->price_load_ns;
        c->price_serve_ns = c->price_load_ns = 0;
        mark_account_dirty(meter, meter->models[m]);
    }
    meter->old_prices[meter->counters.n_prices - 1] = old;
    meter->counters.n_prices++;
    meter->counters.price = next;
    meter->counters.price.from_ns = meter->counters.boundary_ns;
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
    if (meter->next_price) {
        device_add(&meter->counters, ACCOUNT_IDLE, end_interval(meter));
        change_price(meter);
    }
    enter_idle(meter);
}

static void settle(struct cinf_meter *meter)
{
    if (meter->next_price)
        change_price(meter);
    publish(meter);
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

static struct old_price *old_price_new(uint32_t n_models)
{
    struct old_price *old = mem_new(1, sizeof *old + n_models * sizeof old->ns[0]);
    if (old)
        old->n_models = n_models;
    return old;
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
    if (meter->counters.n_prices == PRICES_MAX)
        return cinf_fail(CINF_EFULL, "the price has changed %d times, and no more changes are kept",
                         PRICES_MAX - 1);
    /* Room for the history of the price in force is made here, because a boundary cannot fail. */
    if (!meter->next_price)
        meter->next_price = old_price_new(meter->n_models);
    if (!meter->next_price)
        return cinf_fail(CINF_ENOMEM, "no memory for the totals of a price");
    meter->next_price->counters = next;
    if (meter->counters.idle) {
        leave_idle(meter);
        change_price(meter);
        enter_idle(meter);
    }
    return CINF_OK;
}

/* ---- Models -------------------------------------------------------------------------------- */

static enum cinf_status check_label(const char *what, const char *text)
{
    size_t n = strlen(text);
    if (n < 1 || n > LABEL_BYTES_MAX)
        return cinf_fail(CINF_EINVAL, "the name of a %s must have 1 to %d bytes, not %zu", what,
                         LABEL_BYTES_MAX, n);
    if (!utf8_valid(text, n))
        return cinf_fail(CINF_EINVAL, "the name of a %s is not UTF-8", what);
    return CINF_OK;
}

static void account_free(struct account *account)
{
    if (account)
        mem_free(account->name);
    mem_free(account);
}

enum cinf_status cinf_meter_add_model(struct cinf_meter *meter, const char *name, uint32_t *model)
{
    TRY(check_label("model", name));
    uint32_t n = meter->n_models;
    for (uint32_t m = 0; m < n; m++) {
        if (strcmp(meter->models[m]->name, name) == 0) {
            *model = m;
            return CINF_OK;
        }
    }
    if (n == ACCOUNTS_MAX)
        return cinf_fail(CINF_EFULL, "the meter already has accounts for %d models", ACCOUNTS_MAX);

    struct account *account = mem_new(1, sizeof *account);
    if (account)
        account->name = mem_copy_text(name);
    struct old_price *wider = meter->next_price ? old_price_new(n + 1) : NULL;
    if (!account || !account->name || (meter->next_price && !wider)) {
        account_free(account);
        mem_free(wider);
        return cinf_fail(CINF_ENOMEM, "no memory for the account of a model");
    }
    if (wider) {
        wider->counters = meter->next_price->counters;
        mem_free(meter->next_price);
        meter->next_price = wider;
    }
    mark_account_dirty(meter, account);
    publish(meter);
    meter->models[n] = account;
    atomic_store_explicit(&meter->n_models, n + 1, memory_order_release);
    *model = n;
    return CINF_OK;
}

void cinf_meter_set_loaded(struct cinf_meter *meter, uint32_t model, bool loaded)
{
    if (model >= meter->n_models)
        return;
    meter->models[model]->counters.loaded = loaded;
    mark_account_dirty(meter, meter->models[model]);
    publish(meter);
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

void cinf_meter_count_error(struct cinf_meter *meter, uint32_t model, enum cinf_error_kind kind)
{
    if (model < meter->n_models && (unsigned)kind < CINF_ERROR_KINDS)
        atomic_fetch_add_explicit(&meter->models[model]->errors[kind], 1, memory_order_relaxed);
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
        TRY(check_label("endpoint", endpoints[e]));
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
    TRY(check_label("device", o->device));
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
    bool complete = meter && (meter->device = mem_copy_text(o.device));
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
    meter->counters.n_prices = 1;
    meter->counters.price = price;
    enter_idle(meter);
    *out = meter;
    return CINF_OK;
}

void cinf_meter_free(struct cinf_meter *meter)
{
    if (!meter)
        return;
    timeline_close(meter);
    for (uint32_t m = 0; m < meter->n_models; m++)
        account_free(meter->models[m]);
    for (uint64_t i = 0; i + 1 < meter->counters.n_prices; i++)
        mem_free(meter->old_prices[i]);
    for (uint32_t e = 0; e < meter->n_endpoints; e++)
        mem_free(meter->endpoints[e]);
    mem_free(meter->next_price);
    mem_free(meter->device);
    mem_free(meter);
}
