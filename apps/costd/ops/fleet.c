#include "fleet.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "fail.h"
#include "log.h"
#include "mem.h"

enum { STOP_SECONDS = 2, ORDERS_MAX = 64 };

/* A change that an operator asked for. */
struct order {
    enum { LOAD, UNLOAD, PRICE } kind;
    char *name, *value; /* the model; its folder, or the price */
    struct order *next;
};

struct fleet {
    struct cinf_engine *engine;
    int argc;
    char *const *argv;
    void (*failed)(void);
    bool is_gpu, begun;
    _Atomic uint64_t daily_budget; /* nano-dollars; 0: none */
    pthread_t thread;

    pthread_mutex_t lock; /* the fields below */
    pthread_cond_t changed;
    struct settings settings; /* the ones in force: what is served, or about to be */
    bool working;             /* models are coming or going */
    bool first_done, reload, stop, stopped;
    struct order *orders; /* in the order of arrival */
    uint32_t n_orders;
};

const char *fleet_price(const struct settings *settings, bool is_gpu)
{
    return is_gpu ? settings->gpu_price : settings->cpu_price;
}

static const struct model_setting *find_setting(const struct settings *settings, const char *name)
{
    for (uint32_t i = 0; i < settings->n_models; i++)
        if (strcmp(settings->models[i].name, name) == 0)
            return &settings->models[i];
    return NULL;
}

static bool must_stop(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    bool stop = f->stop;
    pthread_mutex_unlock(&f->lock);
    return stop;
}

/* ---- Loading and unloading ---------------------------------------------------------------- */

static void log_loaded(const struct cinf_model *model, uint64_t ns)
{
    struct log_line line;
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(model, &info);
    log_begin(&line, "info", "model_loaded");
    log_text(&line, "model", info.name);
    log_text(&line, "folder", info.folder);
    log_u64(&line, "parameters", info.parameters);
    log_text(&line, "weights", cinf_weights_name(info.weights));
    log_u64(&line, "slots", info.slots);
    log_seconds(&line, "seconds", ns);
    if (*info.notes)
        log_text(&line, "notes", info.notes);
    log_end(&line);
}

/* Only this thread changes the settings, so it may read them without the lock. */
static enum cinf_status load_model(struct fleet *f, const struct model_setting *m)
{
    struct cinf_model *model;
    uint64_t start = clock_monotonic_ns();
    enum cinf_status status = cinf_model_load(
        &model, f->engine,
        &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = m->name, .folder = m->folder,
                                      .weights = f->settings.weights, .slots = f->settings.slots });
    if (status != CINF_OK) {
        log_message("error", "model_failed", "model %s: %s", m->name, cinf_last_error());
        return status;
    }
    log_loaded(model, clock_monotonic_ns() - start);
    cinf_model_release(model);
    return CINF_OK;
}

static void unload_model(struct fleet *f, const char *name)
{
    struct cinf_model *model;
    if (cinf_model_find(&model, f->engine, name) != CINF_OK)
        return;
    if (cinf_model_unload(model) == CINF_OK)
        log_message("info", "model_unloaded", "model %s", name);
    else
        log_message("error", "model_failed", "model %s: %s", name, cinf_last_error());
    cinf_model_release(model);
}

static bool is_loaded(struct fleet *f, const char *name)
{
    struct cinf_model *model;
    if (cinf_model_find(&model, f->engine, name) != CINF_OK)
        return false;
    cinf_model_release(model);
    return true;
}

static void load_first(struct fleet *f)
{
    bool good = true;
    for (uint32_t i = 0; i < f->settings.n_models && good && !must_stop(f); i++)
        good = load_model(f, &f->settings.models[i]) == CINF_OK;
    pthread_mutex_lock(&f->lock);
    f->first_done = good;
    f->working = false;
    pthread_mutex_unlock(&f->lock);
    if (!good)
        f->failed();
    else if (!must_stop(f))
        log_message("info", "ready", "%u models are loaded", f->settings.n_models);
}

/* ---- Reloading ---------------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void set_budget(struct fleet *f, const struct settings *settings)
{
    uint64_t nanodollars = 0;
    if (settings->daily_budget)
        cinf_price_parse(&nanodollars, settings->daily_budget); /* checked when it was read */
    atomic_store(&f->daily_budget, nanodollars);
}

static void reprice(struct fleet *f, const char *old, const char *new)
{
    if (same_text(old, new))
        return;
    if (cinf_engine_set_price(f->engine, new) == CINF_OK)
        log_message("info", "price", "%s dollars an hour from now on", new ? new : "unknown");
    else
        log_message("error", "price", "the price stays: %s", cinf_last_error());
}

/* A model whose folder has changed is another model: the old one is unloaded before the new one loads. */
static void apply(struct fleet *f, const struct settings *old)
{
    for (uint32_t i = 0; i < old->n_models; i++) {
        const struct model_setting *now = find_setting(&f->settings, old->models[i].name);
        if (!now || strcmp(now->folder, old->models[i].folder) != 0)
            unload_model(f, old->models[i].name);
    }
    for (uint32_t i = 0; i < f->settings.n_models && !must_stop(f); i++)
        if (!is_loaded(f, f->settings.models[i].name))
            load_model(f, &f->settings.models[i]);
}

static void reload(struct fleet *f)
{
    struct settings new;
    if (settings_read(&new, f->argc, f->argv) != CINF_OK) {
        log_message("error", "reload", "nothing has changed: %s", cinf_last_error());
        return;
    }
    pthread_mutex_lock(&f->lock);
    struct settings old = f->settings;
    f->settings = new;
    pthread_mutex_unlock(&f->lock);
    set_budget(f, &new);
    reprice(f, fleet_price(&old, f->is_gpu), fleet_price(&new, f->is_gpu));
    apply(f, &old);
    settings_free(&old);
    log_message("info", "reload", "the settings were read again");
}

/* ---- Orders ------------------------------------------------------------------------------- */

static void free_order(struct order *order)
{
    if (order) {
        mem_free(order->name);
        mem_free(order->value);
    }
    mem_free(order);
}

static enum cinf_status put_order(struct fleet *f, int kind, const char *name, const char *value)
{
    struct order *order = mem_new(1, sizeof *order);
    if (order) {
        order->kind = kind;
        order->name = name ? mem_copy_text(name) : NULL;
        order->value = value ? mem_copy_text(value) : NULL;
    }
    if (!order || (name && !order->name) || (value && !order->value)) {
        free_order(order);
        return cinf_fail(CINF_ENOMEM, "no memory for the change");
    }
    pthread_mutex_lock(&f->lock);
    bool full = f->n_orders == ORDERS_MAX;
    if (!full) {
        struct order **end = &f->orders;
        while (*end)
            end = &(*end)->next;
        *end = order;
        f->n_orders++;
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    if (!full)
        return CINF_OK;
    free_order(order);
    return cinf_fail(CINF_EFULL, "%d changes are waiting already", ORDERS_MAX);
}

enum cinf_status fleet_load(struct fleet *f, const char *name, const char *folder)
{
    struct settings scratch = { 0 };
    TRY(settings_put_model(&scratch, name, folder));
    settings_free(&scratch);
    return put_order(f, LOAD, name, folder);
}

enum cinf_status fleet_unload(struct fleet *f, const char *name)
{
    return put_order(f, UNLOAD, name, NULL);
}

enum cinf_status fleet_set_price(struct fleet *f, const char *dollars)
{
    uint64_t nanodollars;
    if (dollars)
        TRY(cinf_price_parse(&nanodollars, dollars));
    return put_order(f, PRICE, NULL, dollars);
}

static void carry_out(struct fleet *f, const struct order *order)
{
    struct settings old;
    enum cinf_status status = settings_copy_served(&old, &f->settings);
    if (status == CINF_OK) {
        pthread_mutex_lock(&f->lock);
        if (order->kind == LOAD)
            status = settings_put_model(&f->settings, order->name, order->value);
        else if (order->kind == UNLOAD)
            settings_drop_model(&f->settings, order->name);
        else
            status = settings_put_price(&f->settings, f->is_gpu, order->value);
        pthread_mutex_unlock(&f->lock);
        if (status == CINF_OK) {
            reprice(f, fleet_price(&old, f->is_gpu), fleet_price(&f->settings, f->is_gpu));
            apply(f, &old);
        }
        settings_free(&old);
    }
    if (status != CINF_OK)
        log_message("error", "admin", "nothing has changed: %s", cinf_last_error());
}

/* ---- The thread --------------------------------------------------------------------------- */

static void *fleet_run(void *context)
{
    struct fleet *f = context;
    load_first(f);
    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        struct order *order = f->reload ? NULL : f->orders;
        if (!f->reload && !order) {
            pthread_cond_wait(&f->changed, &f->lock);
            continue;
        }
        f->reload = false;
        f->working = true;
        if (order) {
            f->orders = order->next;
            f->n_orders--;
        }
        pthread_mutex_unlock(&f->lock);
        if (order)
            carry_out(f, order);
        else
            reload(f);
        free_order(order);
        pthread_mutex_lock(&f->lock);
        f->working = false;
    }
    f->stopped = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return NULL;
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
    f->settings = *settings;
    f->working = true;
    set_budget(f, settings);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
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
    bool expected = f->working && find_setting(&f->settings, name);
    pthread_mutex_unlock(&f->lock);
    return expected;
}

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
    pthread_cond_destroy(&f->changed);
    while (f->orders) {
        struct order *order = f->orders;
        f->orders = order->next;
        free_order(order);
    }
    settings_free(&f->settings);
    mem_free(f);
}
