/* price_history.c - what happened under prices that are no longer in force. */
#include "price_history.h"

#include "mem.h"
#include "mirror.h"

struct old_price *old_price_new(uint32_t n_models)
{
    struct old_price *old = mem_new(1, sizeof *old + n_models * sizeof old->ns[0]);
    if (old)
        old->n_models = n_models;
    return old;
}

void price_change(struct cinf_meter *meter)
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

void price_history_free(struct cinf_meter *meter)
{
    for (uint64_t i = 0; i + 1 < meter->counters.n_prices; i++)
        mem_free(meter->old_prices[i]);
    mem_free(meter->next_price);
}
