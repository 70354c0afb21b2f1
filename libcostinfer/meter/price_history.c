/* price_history.c - what happened under prices that are no longer in force.
 *
 * A folded period has no single price, so it keeps its amounts beside its times.  A period that was never
 * folded has them, too, from the moment it ends: money is derived from times at one place only. */
#include "price_history.h"

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "mirror.h"

struct old_price *old_price_new(uint32_t n_models)
{
    struct old_price *old = mem_new(1, sizeof *old + n_models * sizeof old->ns[0]);
    if (old)
        old->n_models = n_models;
    return old;
}

struct price_sums price_sums_of(const struct price_counters *period)
{
    struct price_sums sums = { .n_periods = 1 };
    for (int kind = 0; kind < ACCOUNT_KINDS; kind++) {
        if (period->priced)
            sums.cost[kind] = cinf_cost_of(period->ns[kind], period->nanodollars_per_hour);
        else
            sums.unpriced_ns += period->ns[kind];
    }
    return sums;
}

/* Adds `from` to the period after it. */
static void add_period(struct old_price *to, const struct old_price *from)
{
    struct price_counters *c = &to->counters;
    bool same_price =
        c->priced == from->counters.priced && c->nanodollars_per_hour == from->counters.nanodollars_per_hour;
    c->from_ns = from->counters.from_ns;
    c->priced = c->priced || from->counters.priced;
    if (!same_price)
        c->nanodollars_per_hour = 0;
    to->sums.n_periods += from->sums.n_periods;
    to->sums.unpriced_ns += from->sums.unpriced_ns;
    for (int kind = 0; kind < ACCOUNT_KINDS; kind++) {
        c->ns[kind] += from->counters.ns[kind];
        to->sums.cost[kind] = cinf_cost_add(to->sums.cost[kind], from->sums.cost[kind]);
    }
    uint32_t n = from->n_models < to->n_models ? from->n_models : to->n_models;
    for (uint32_t m = 0; m < n; m++) { /* a wider one has nothing of the models that came later */
        to->ns[m].serve += from->ns[m].serve;
        to->ns[m].load += from->ns[m].load;
    }
}

static void fold_oldest(struct cinf_meter *meter)
{
    struct old_price **old = meter->old_prices;
    pthread_mutex_lock(&meter->history_lock);
    add_period(old[1], old[0]);
    mem_free(old[0]);
    memmove(old, old + 1, (meter->counters.n_prices - 2) * sizeof *old);
    meter->counters.n_prices--;
    meter->counters.n_folds++;
    publish(meter);
    pthread_mutex_unlock(&meter->history_lock);
}

void price_change(struct cinf_meter *meter)
{
    if (meter->counters.n_prices == PRICES_MAX)
        fold_oldest(meter);
    struct old_price *old = meter->next_price;
    struct price_counters next = old->counters;
    meter->next_price = NULL;
    old->counters = meter->counters.price;
    old->sums = price_sums_of(&old->counters);
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

static bool has_model(const struct old_price *old, uint32_t model)
{
    return model < old->n_models && (old->ns[model].serve > 0 || old->ns[model].load > 0);
}

enum cinf_status price_history_widen(struct cinf_meter *meter, uint32_t to)
{
    for (uint64_t i = 0; i + 1 < meter->counters.n_prices; i++) {
        struct old_price *old = meter->old_prices[i];
        if (to < old->n_models)
            continue;
        struct old_price *wider = old_price_new(meter->n_models);
        if (!wider)
            return cinf_fail(CINF_ENOMEM, "no memory for the totals of a price");
        memcpy(wider, old, sizeof *old + old->n_models * sizeof old->ns[0]);
        wider->n_models = meter->n_models;
        pthread_mutex_lock(&meter->history_lock);
        meter->old_prices[i] = wider;
        pthread_mutex_unlock(&meter->history_lock);
        mem_free(old);
    }
    return CINF_OK;
}

void price_history_move(struct cinf_meter *meter, uint32_t from, uint32_t to)
{
    pthread_mutex_lock(&meter->history_lock);
    for (uint64_t i = 0; i + 1 < meter->counters.n_prices; i++) {
        struct old_price *old = meter->old_prices[i];
        if (!has_model(old, from))
            continue;
        old->ns[to].serve += old->ns[from].serve;
        old->ns[to].load += old->ns[from].load;
        old->ns[from].serve = old->ns[from].load = 0;
    }
    meter->counters.n_folds++;
    publish(meter);
    pthread_mutex_unlock(&meter->history_lock);
}

void price_history_free(struct cinf_meter *meter)
{
    for (uint64_t i = 0; i + 1 < meter->counters.n_prices; i++)
        mem_free(meter->old_prices[i]);
    mem_free(meter->next_price);
}
