/* fleet_price.c - the price and the daily budget that are in force.
 *
 * A lock of its own orders the changes of the price: the engine takes the new price before the fleet
 * remembers it, and the fleet's lock is not held for that long. */
#include <string.h>

#include "fail.h"
#include "fleet_impl.h"
#include "log.h"
#include "mem.h"

const char *fleet_price(const struct settings *settings, bool is_gpu)
{
    return is_gpu ? settings->gpu_price : settings->cpu_price;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

void fleet_set_budget(struct fleet *f, const struct settings *settings)
{
    uint64_t nanodollars = 0;
    if (settings->daily_budget)
        cinf_price_parse(&nanodollars, settings->daily_budget); /* checked when it was read */
    atomic_store(&f->daily_budget, nanodollars);
}

static enum cinf_status reprice_locked(struct fleet *f, const char *dollars)
{
    char *copy = dollars ? mem_copy_text(dollars) : NULL;
    if (dollars && !copy)
        return cinf_fail(CINF_ENOMEM, "no memory for the price");
    enum cinf_status status = cinf_engine_set_price(f->engine, dollars);
    if (status != CINF_OK) {
        mem_free(copy);
        return status;
    }
    mem_free(f->price);
    f->price = copy;
    return CINF_OK;
}

enum cinf_status fleet_reprice(struct fleet *f, const char *dollars)
{
    pthread_mutex_lock(&f->pricing);
    bool same = same_text(f->price, dollars);
    enum cinf_status status = same ? CINF_OK : reprice_locked(f, dollars);
    pthread_mutex_unlock(&f->pricing);
    if (status != CINF_OK)
        log_message("error", "price", "the price stays: %s", cinf_last_error());
    else if (!same)
        log_message("info", "price", "%s dollars an hour from now on", dollars ? dollars : "unknown");
    return status;
}

enum cinf_status fleet_set_price(struct fleet *f, const char *dollars)
{
    uint64_t nanodollars;
    if (dollars)
        TRY(cinf_price_parse(&nanodollars, dollars));
    return fleet_reprice(f, dollars);
}
