/* fleet.c - the fleet's life and what others may ask of it.
 *
 * Questions are answered from the roster under the fleet's lock, which is not held during a load: they do not
 * wait for one. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "fleet_impl.h"
#include "mem.h"

enum { STOP_SECONDS = 2 };

/* ---- Beginning ---------------------------------------------------------------------------- */

static enum cinf_status take_settings(struct fleet *f, const struct settings *settings)
{
    const char *price = fleet_price(settings, f->is_gpu);
    if (price && !(f->price = mem_copy_text(price)))
        return cinf_fail(CINF_ENOMEM, "no memory for the price");
    f->weights = settings->weights;
    f->slots = settings->slots;
    f->unload_first = settings->unload_first;
    fleet_set_budget(f, settings);
    return fleet_want(f, settings);
}

enum cinf_status fleet_new(struct fleet **out, struct cinf_engine *engine, const struct settings *settings,
                           int argc, char *const argv[], void (*failed)(void))
{
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    struct fleet *f = mem_new(1, sizeof *f);
    if (!f)
        return cinf_fail(CINF_ENOMEM, "no memory for the models");
    cinf_engine_device(engine, &device);
    f->engine = engine;
    f->argc = argc;
    f->argv = argv;
    f->failed = failed;
    f->is_gpu = device.is_gpu;
    f->counts.last_reload_good = true;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&f->lock, NULL);
    pthread_mutex_init(&f->pricing, NULL);
    pthread_cond_init(&f->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    enum cinf_status status = take_settings(f, settings);
    if (status != CINF_OK) {
        fleet_free(f);
        return status;
    }
    f->started = *settings;
    *out = f;
    return CINF_OK;
}

enum cinf_status fleet_begin(struct fleet *f)
{
    int error = pthread_create(&f->thread, NULL, fleet_run, f);
    f->begun = error == 0;
    return error ? cinf_fail(CINF_EIO, "cannot start a thread: %s", strerror(error)) : CINF_OK;
}

void fleet_reload(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    f->reload = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* ---- Asking ------------------------------------------------------------------------------- */

bool fleet_loading(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    bool loading = !f->first_done;
    pthread_mutex_unlock(&f->lock);
    return loading;
}

uint64_t fleet_daily_budget(const struct fleet *f)
{
    return atomic_load(&f->daily_budget);
}

bool fleet_expects(struct fleet *f, const char *name)
{
    pthread_mutex_lock(&f->lock);
    const struct roster_entry *entry = roster_find(&f->roster, name);
    bool expected = entry && !entry->serving && roster_is_pending(entry);
    pthread_mutex_unlock(&f->lock);
    return expected;
}

uint32_t fleet_show(struct fleet *f, const char *name,
                    void (*show)(void *context, const struct roster_entry *entry), void *context)
{
    uint32_t n = 0;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < f->roster.n; i++) {
        if (name && strcmp(name, f->roster.entries[i]->name) != 0)
            continue;
        show(context, f->roster.entries[i]);
        n++;
    }
    pthread_mutex_unlock(&f->lock);
    return n;
}

void fleet_count(struct fleet *f, struct fleet_counts *counts)
{
    pthread_mutex_lock(&f->lock);
    *counts = f->counts;
    for (uint32_t i = 0; i < f->roster.n; i++) {
        const struct roster_entry *entry = f->roster.entries[i];
        counts->wanted += entry->wanted;
        counts->serving += entry->serving;
        counts->missing += entry->wanted && !entry->serving;
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- Ending ------------------------------------------------------------------------------- */

bool fleet_stop(struct fleet *f)
{
    if (!f)
        return true;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += STOP_SECONDS;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
    while (f->begun && !f->stopped && pthread_cond_timedwait(&f->changed, &f->lock, &until) != ETIMEDOUT)
        ;
    bool stopped = !f->begun || f->stopped;
    pthread_mutex_unlock(&f->lock);
    if (stopped && f->begun)
        pthread_join(f->thread, NULL);
    return stopped;
}

void fleet_free(struct fleet *f)
{
    if (!f)
        return;
    pthread_mutex_destroy(&f->lock);
    pthread_mutex_destroy(&f->pricing);
    pthread_cond_destroy(&f->changed);
    while (f->orders) {
        struct order *order = f->orders;
        f->orders = order->next;
        fleet_free_order(order);
    }
    roster_free(&f->roster);
    mem_free(f->price);
    settings_free(&f->started);
    mem_free(f);
}
