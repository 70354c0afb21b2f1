#include "fleet.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "fail.h"
#include "log.h"
#include "mem.h"

enum { STOP_SECONDS = 2, ORDERS_MAX = 64 };

/* A change that an operator asked for. */
struct order {
    enum { LOAD, UNLOAD } kind;
    bool unload_first;
    char *name, *folder; /* folder: of a LOAD */
    struct order *next;
};

struct fleet {
    struct cinf_engine *engine;
    int argc;
    char *const *argv;
    void (*failed)(void);
    bool is_gpu, begun;
    struct settings started;       /* what the process runs with, where SIGHUP does not apply a setting */
    _Atomic uint64_t daily_budget; /* nano-dollars; 0: none */
    pthread_t thread;
    pthread_mutex_t pricing; /* held while a price is set: above `lock` */

    /* The thread's: how models are loaded. */
    enum cinf_weights weights;
    uint32_t slots;

    pthread_mutex_t lock; /* the fields below */
    pthread_cond_t changed;
    struct roster roster;
    char *price; /* in force; NULL: unknown */
    bool unload_first;
    struct fleet_counts counts; /* of reloads and loads */
    bool first_done, reload, stop, stopped;
    struct order *orders; /* in the order of arrival */
    uint32_t n_orders;
};

const char *fleet_price(const struct settings *settings, bool is_gpu)
{
    return is_gpu ? settings->gpu_price : settings->cpu_price;
}

static bool must_stop(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    bool stop = f->stop;
    pthread_mutex_unlock(&f->lock);
    return stop;
}

static void count_load(struct fleet *f, enum load_outcome outcome)
{
    pthread_mutex_lock(&f->lock);
    f->counts.loads[outcome]++;
    pthread_mutex_unlock(&f->lock);
}

/* ---- Loading ------------------------------------------------------------------------------ */

/* `replaced`: the fingerprint of the model whose place it took, or NULL. */
static void log_loaded(const struct cinf_model_info *info, const char *replaced, uint64_t ns)
{
    struct log_line line;
    log_begin(&line, "info", "model_loaded");
    log_text(&line, "model", info->name);
    log_text(&line, "folder", info->folder);
    log_text(&line, "fingerprint", info->fingerprint);
    if (replaced)
        log_text(&line, "replaces", replaced);
    log_u64(&line, "parameters", info->parameters);
    log_text(&line, "weights", cinf_weights_name(info->weights));
    log_u64(&line, "slots", info->slots);
    log_seconds(&line, "seconds", ns);
    if (*info->notes)
        log_text(&line, "notes", info->notes);
    log_end(&line);
}

/* States of a change that was asked for later, or is under way: the failure of another is not its outcome. */
enum { KEEP_NONE = 0, KEEP_QUEUED = 1 << ROSTER_QUEUED, KEEP_PENDING = KEEP_QUEUED | 1 << ROSTER_LOADING };

/* Tells of a load that failed, with the thread's last failure: in the log, in the counts, and in the roster
 * unless its state is one to keep. */
static void note_failure(struct fleet *f, const char *name, const char *folder, unsigned keep)
{
    struct roster_entry *entry;
    char why[512];
    snprintf(why, sizeof why, "%s", cinf_last_error());
    pthread_mutex_lock(&f->lock);
    const struct roster_entry *served = roster_find(&f->roster, name);
    bool serving = served && served->serving;
    pthread_mutex_unlock(&f->lock);
    log_message("error", "model_failed", "model %s: %s%s", name, why,
                serving ? "; the version that was loaded before goes on" : "");
    pthread_mutex_lock(&f->lock);
    if (roster_put(&entry, &f->roster, name) == CINF_OK) {
        if (!(keep & 1u << entry->state)) {
            enum cinf_status ignored = roster_change(entry, ROSTER_FAILED, folder);
            (void)ignored; /* without memory for the folder it still tells of the failure */
            roster_settle(entry, ROSTER_FAILED, why);
        }
    }
    f->counts.loads[LOAD_FAILED]++;
    pthread_mutex_unlock(&f->lock);
}

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    struct fleet *f = context;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < f->roster.n; i++) {
        if (f->roster.entries[i]->state == ROSTER_LOADING) {
            f->roster.entries[i]->bytes_done = done;
            f->roster.entries[i]->bytes_total = total;
        }
    }
    pthread_mutex_unlock(&f->lock);
}

static void unload_served(struct fleet *f, const char *name)
{
    struct cinf_model *model;
    pthread_mutex_lock(&f->lock);
    struct roster_entry *entry = roster_find(&f->roster, name);
    if (entry)
        entry->serving = false;
    pthread_mutex_unlock(&f->lock);
    if (cinf_model_find(&model, f->engine, name) != CINF_OK)
        return;
    if (cinf_model_unload(model) == CINF_OK)
        log_message("info", "model_unloaded", "model %s", name);
    else
        log_message("error", "model_failed", "model %s: %s", name, cinf_last_error());
    cinf_model_release(model);
}

/* Whether the model is served from just these files, in just this way. */
static bool is_served(const struct fleet *f, const struct roster_entry *entry, const char *identity)
{
    return entry && entry->serving && strcmp(entry->identity, identity) == 0 &&
           entry->weights == f->weights && entry->slots == f->slots;
}

/* The fingerprint of what is served under that name, or "". */
static void find_fingerprint(struct fleet *f, const char *name, char fingerprint[CINF_DIGEST_TEXT])
{
    pthread_mutex_lock(&f->lock);
    const struct roster_entry *entry = roster_find(&f->roster, name);
    snprintf(fingerprint, CINF_DIGEST_TEXT, "%s", entry && entry->serving ? entry->fingerprint : "");
    pthread_mutex_unlock(&f->lock);
}

/* The entry, which begin_load() has made, describes the loaded model from now on.  Takes `folder` over. */
static void note_served(struct fleet *f, const struct cinf_model_info *info, char *folder)
{
    pthread_mutex_lock(&f->lock);
    struct roster_entry *entry = roster_find(&f->roster, info->name);
    assert(entry);
    mem_free(entry->served_folder);
    entry->served_folder = folder;
    entry->serving = entry->wanted = true;
    snprintf(entry->fingerprint, sizeof entry->fingerprint, "%s", info->fingerprint);
    snprintf(entry->identity, sizeof entry->identity, "%s", info->identity);
    entry->loaded_at = info->loaded_at;
    entry->weights = f->weights;
    entry->slots = f->slots;
    /* A change that was asked for during the load is queued already. */
    if (entry->state == ROSTER_LOADING)
        roster_settle(entry, ROSTER_LOADED, "");
    f->counts.loads[LOAD_LOADED]++;
    pthread_mutex_unlock(&f->lock);
}

static enum cinf_status try_load(struct fleet *f, const char *name, const char *folder)
{
    struct cinf_model *model;
    struct cinf_model_info info = { CINF_MODEL_INFO };
    char replaced[CINF_DIGEST_TEXT], *copy = mem_copy_text(folder);
    uint64_t start = clock_monotonic_ns();
    if (!copy)
        return cinf_fail(CINF_ENOMEM, "no memory for the folder of a model");
    enum cinf_status status = cinf_model_load(
        &model, f->engine,
        &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = name, .folder = folder,
                                      .weights = f->weights, .slots = f->slots, .progress = show_progress,
                                      .progress_context = f, .replace = true });
    if (status != CINF_OK) {
        mem_free(copy);
        return status;
    }
    cinf_model_info(model, &info);
    /* The line first: it is there when the state is seen. */
    find_fingerprint(f, name, replaced);
    log_loaded(&info, *replaced ? replaced : NULL, clock_monotonic_ns() - start);
    note_served(f, &info, copy);
    cinf_model_release(model);
    return CINF_OK;
}

/* Whether requests with text are served under that name. */
static bool serves_text(const struct fleet *f, const char *name)
{
    struct cinf_model *model;
    if (cinf_model_find(&model, f->engine, name) != CINF_OK)
        return false;
    bool has = cinf_model_tokenizer(model) != NULL;
    cinf_model_release(model);
    return has;
}

/* What can be known of a folder before its weights are loaded.  A model that serves text is not replaced by
 * one that can serve token ids alone: its tokenizer was forgotten. */
static enum cinf_status check_successor(const struct fleet *f, const char *name, const char *folder)
{
    bool has_tokenizer;
    TRY(settings_check_folder(folder, &has_tokenizer));
    if (!has_tokenizer && serves_text(f, name))
        return cinf_fail(
            CINF_ENOTFOUND,
            "%s: there is no tokenizer file, and the model that it would replace has a tokenizer", folder);
    return CINF_OK;
}

static enum cinf_status begin_load(struct fleet *f, const char *name, const char *folder)
{
    struct roster_entry *entry;
    pthread_mutex_lock(&f->lock);
    enum cinf_status status = roster_put(&entry, &f->roster, name);
    if (status == CINF_OK)
        status = roster_change(entry, ROSTER_LOADING, folder);
    pthread_mutex_unlock(&f->lock);
    return status;
}

/* True, and told, if there is nothing to do. */
static bool is_unchanged(struct fleet *f, const char *name, const char *identity)
{
    pthread_mutex_lock(&f->lock);
    struct roster_entry *entry = roster_find(&f->roster, name);
    bool unchanged = is_served(f, entry, identity);
    if (unchanged) {
        entry->wanted = true;
        roster_settle(entry, ROSTER_LOADED, "");
    }
    pthread_mutex_unlock(&f->lock);
    if (unchanged) {
        count_load(f, LOAD_UNCHANGED);
        log_message("info", "model_unchanged", "model %s: its files are those that are served", name);
    }
    return unchanged;
}

static enum cinf_status load_changed(struct fleet *f, const char *name, const char *folder, bool unload_first)
{
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT];
    TRY(begin_load(f, name, folder));
    TRY(cinf_files_identify(fingerprint, identity, folder));
    if (is_unchanged(f, name, identity))
        return CINF_OK;
    if (unload_first) {
        TRY(check_successor(f, name, folder));
        unload_served(f, name);
    }
    return try_load(f, name, folder);
}

static enum cinf_status load_model(struct fleet *f, const char *name, const char *folder, bool unload_first)
{
    enum cinf_status status = load_changed(f, name, folder, unload_first);
    if (status != CINF_OK)
        note_failure(f, name, folder, KEEP_QUEUED);
    return status;
}

static void unload_model(struct fleet *f, const char *name)
{
    pthread_mutex_lock(&f->lock);
    struct roster_entry *entry = roster_find(&f->roster, name);
    if (entry) {
        entry->wanted = false;
        roster_settle(entry, ROSTER_UNLOADING, "");
    }
    pthread_mutex_unlock(&f->lock);
    unload_served(f, name);
    pthread_mutex_lock(&f->lock);
    entry = roster_find(&f->roster, name);
    /* A load that was asked for since is queued: its entry stays. */
    if (entry && !roster_is_pending(entry))
        roster_drop(&f->roster, entry);
    pthread_mutex_unlock(&f->lock);
}

static void load_first(struct fleet *f)
{
    bool good = true;
    for (uint32_t i = 0; i < f->started.n_models && good && !must_stop(f); i++)
        good = load_model(f, f->started.models[i].name, f->started.models[i].folder, false) == CINF_OK;
    pthread_mutex_lock(&f->lock);
    f->first_done = good;
    pthread_mutex_unlock(&f->lock);
    if (!good)
        f->failed();
    else if (!must_stop(f))
        log_message("info", "ready", "%u models are loaded", f->started.n_models);
}

/* ---- The price ---------------------------------------------------------------------------- */

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

static enum cinf_status reprice(struct fleet *f, const char *dollars)
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
    return reprice(f, dollars);
}

/* ---- Reloading ---------------------------------------------------------------------------- */

static const struct model_setting *find_setting(const struct settings *settings, const char *name)
{
    for (uint32_t i = 0; i < settings->n_models; i++)
        if (strcmp(settings->models[i].name, name) == 0)
            return &settings->models[i];
    return NULL;
}

static void log_not_applied(void *context, const char *flag)
{
    (void)context;
    log_message("warn", "setting", "--%s has changed and stays as it was: it needs a restart", flag);
}

/* The settings name the models that are to be served, loaded or not. */
static enum cinf_status want(struct fleet *f, const struct settings *new)
{
    enum cinf_status status = CINF_OK;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < new->n_models &&status == CINF_OK; i++) {
        struct roster_entry *entry;
        status = roster_put(&entry, &f->roster, new->models[i].name);
        if (status == CINF_OK && !entry->wanted && !entry->serving)
            status = roster_change(entry, ROSTER_QUEUED, new->models[i].folder);
        if (status == CINF_OK)
            entry->wanted = true;
    }
    pthread_mutex_unlock(&f->lock);
    return status;
}

/* Looks at the model's files, before anything is changed.  One that cannot be loaded is told. */
static bool check_model(struct fleet *f, const struct model_setting *m)
{
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT];
    enum cinf_status status = cinf_files_identify(fingerprint, identity, m->folder);
    if (status == CINF_OK) {
        pthread_mutex_lock(&f->lock);
        bool served = is_served(f, roster_find(&f->roster, m->name), identity);
        pthread_mutex_unlock(&f->lock);
        if (!served)
            status = check_successor(f, m->name, m->folder);
    }
    if (status != CINF_OK)
        note_failure(f, m->name, m->folder, KEEP_NONE);
    return status == CINF_OK;
}

/* The name of a model that is served, or known to be missing, and that the settings do not name: in new
 * memory, or NULL. */
static char *next_surplus(struct fleet *f, const struct settings *new)
{
    char *name = NULL;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < f->roster.n && !name; i++) {
        const struct roster_entry *entry = f->roster.entries[i];
        if ((entry->wanted || entry->serving) && !find_setting(new, entry->name))
            name = mem_copy_text(entry->name);
    }
    pthread_mutex_unlock(&f->lock);
    return name;
}

static void unload_surplus(struct fleet *f, const struct settings *new)
{
    char *name;
    while (!must_stop(f) && (name = next_surplus(f, new))) {
        unload_model(f, name);
        mem_free(name);
    }
}

/* True if one of the models that the settings name is served. */
static bool serves_any(struct fleet *f, const struct settings *new)
{
    bool any = false;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < new->n_models && !any; i++) {
        const struct roster_entry *entry = roster_find(&f->roster, new->models[i].name);
        any = entry && entry->serving;
    }
    pthread_mutex_unlock(&f->lock);
    return any;
}

/* Loads what is new or has changed, and unloads what the settings do not name any more.  Returns how many
 * models could not be loaded. */
static uint32_t apply_models(struct fleet *f, const struct settings *new, const bool *good)
{
    uint32_t n_failed = 0;
    if (new->unload_first)
        unload_surplus(f, new);
    for (uint32_t i = 0; i < new->n_models && !must_stop(f); i++) {
        const struct model_setting *m = &new->models[i];
        if (!good[i] || load_model(f, m->name, m->folder, new->unload_first) != CINF_OK)
            n_failed++;
    }
    /* A mistake in the new models must not be what ends the service of the old ones. */
    if (n_failed > 0 && !serves_any(f, new))
        log_message("error", "model_kept",
                    "none of the models in the settings could be loaded, so those that were served before "
                    "go on");
    else
        unload_surplus(f, new);
    return n_failed;
}

static void end_reload(struct fleet *f, enum reload_outcome outcome)
{
    pthread_mutex_lock(&f->lock);
    f->counts.reloads[outcome]++;
    f->counts.last_reload_good = outcome == RELOAD_APPLIED;
    pthread_mutex_unlock(&f->lock);
}

static void apply(struct fleet *f, const struct settings *new)
{
    bool good[SERVED_MODELS_MAX] = { false };
    f->weights = new->weights;
    f->slots = new->slots;
    for (uint32_t i = 0; i < new->n_models; i++)
        good[i] = check_model(f, &new->models[i]);
    pthread_mutex_lock(&f->lock);
    f->unload_first = new->unload_first;
    pthread_mutex_unlock(&f->lock);
    set_budget(f, new);
    bool priced = reprice(f, fleet_price(new, f->is_gpu)) == CINF_OK;
    settings_differences(&f->started, new, log_not_applied, NULL);
    uint32_t n_failed = apply_models(f, new, good);
    end_reload(f, n_failed > 0 || !priced ? RELOAD_PARTIAL : RELOAD_APPLIED);
    if (n_failed > 0)
        log_message("error", "reload", "the settings were read again, but %u of %u models were refused",
                    n_failed, new->n_models);
    else if (!priced)
        log_message("error", "reload", "the settings were read again, but the price was refused");
    else
        log_message("info", "reload", "the settings were read again");
}

static void reload(struct fleet *f)
{
    struct settings new;
    enum cinf_status status = settings_read(&new, f->argc, f->argv);
    if (status == CINF_OK) {
        status = want(f, &new);
        if (status == CINF_OK)
            apply(f, &new);
        settings_free(&new);
    }
    if (status != CINF_OK) {
        end_reload(f, RELOAD_REFUSED);
        log_message("error", "reload", "nothing has changed: %s", cinf_last_error());
    }
}

/* ---- Orders ------------------------------------------------------------------------------- */

static void free_order(struct order *order)
{
    if (order) {
        mem_free(order->name);
        mem_free(order->folder);
    }
    mem_free(order);
}

static struct order *new_order(int kind, const char *name, const char *folder)
{
    struct order *order = mem_new(1, sizeof *order);
    if (order) {
        order->kind = kind;
        order->name = mem_copy_text(name);
        order->folder = folder ? mem_copy_text(folder) : NULL;
    }
    if (order && order->name && (order->folder || !folder))
        return order;
    free_order(order);
    return NULL;
}

/* Caller holds fleet.lock. */
static enum cinf_status queue_order(struct fleet *f, struct order *order)
{
    struct roster_entry *entry;
    enum roster_state state = order->kind == LOAD ? ROSTER_QUEUED : ROSTER_UNLOADING;
    if (f->n_orders == ORDERS_MAX)
        return cinf_fail(CINF_EFULL, "%d changes are waiting already", ORDERS_MAX);
    if (order->kind == LOAD && roster_count_with(&f->roster, order->name) > SERVED_MODELS_MAX)
        return cinf_fail(CINF_EINVAL, "%d models are served, or are to be; unload one of them first",
                         SERVED_MODELS_MAX);
    if (order->kind == UNLOAD && !roster_find(&f->roster, order->name))
        return cinf_fail(CINF_ENOTFOUND, "no model named %.256s is served, or is to be", order->name);
    TRY(roster_put(&entry, &f->roster, order->name));
    TRY(roster_change(entry, state, order->folder));
    struct order **end = &f->orders;
    while (*end)
        end = &(*end)->next;
    *end = order;
    f->n_orders++;
    pthread_cond_broadcast(&f->changed);
    return CINF_OK;
}

static enum cinf_status put_order(struct fleet *f, struct order *order)
{
    if (!order)
        return cinf_fail(CINF_ENOMEM, "no memory for the change");
    pthread_mutex_lock(&f->lock);
    order->unload_first |= f->unload_first;
    enum cinf_status status = queue_order(f, order);
    pthread_mutex_unlock(&f->lock);
    if (status != CINF_OK)
        free_order(order);
    return status;
}

/* Whether the model is served from these files, and nothing that was asked for earlier will change that. */
static bool stays_served(struct fleet *f, const char *name, const char *folder, const char *identity)
{
    pthread_mutex_lock(&f->lock);
    struct roster_entry *entry = roster_find(&f->roster, name);
    bool stays = entry && entry->serving && entry->wanted && entry->state == ROSTER_LOADED && !f->reload &&
                 strcmp(entry->identity, identity) == 0 && strcmp(entry->folder, folder) == 0;
    pthread_mutex_unlock(&f->lock);
    if (!stays)
        return false;
    count_load(f, LOAD_UNCHANGED);
    log_message("info", "model_unchanged", "model %s: its files are those that are served", name);
    return true;
}

/* Checks what can be known before the load. */
static enum cinf_status look_at(struct fleet *f, const char *name, const char *folder, bool *unchanged)
{
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT];
    TRY(cinf_files_identify(fingerprint, identity, folder));
    *unchanged = stays_served(f, name, folder, identity);
    return *unchanged ? CINF_OK : check_successor(f, name, folder);
}

enum cinf_status fleet_load(struct fleet *f, const char *name, const char *folder, bool unload_first,
                            bool *unchanged, const char **param)
{
    *param = "folder";
    TRY(model_setting_check(name, folder));
    enum cinf_status status = look_at(f, name, folder, unchanged);
    if (status != CINF_OK) {
        note_failure(f, name, folder, KEEP_PENDING);
        return status;
    }
    if (*unchanged)
        return CINF_OK;
    *param = "id";
    /* The books may have no room for another name. */
    status = cinf_engine_open_account(f->engine, name);
    if (status == CINF_EFULL)
        status = cinf_fail_again(CINF_EINVAL, cinf_last_error());
    TRY(status);
    struct order *order = new_order(LOAD, name, folder);
    if (order)
        order->unload_first = unload_first;
    return put_order(f, order);
}

enum cinf_status fleet_unload(struct fleet *f, const char *name)
{
    return put_order(f, new_order(UNLOAD, name, NULL));
}

static void carry_out(struct fleet *f, const struct order *order)
{
    if (order->kind == UNLOAD)
        unload_model(f, order->name);
    else
        load_model(f, order->name, order->folder, order->unload_first);
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
    }
    f->stopped = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

static enum cinf_status take_settings(struct fleet *f, const struct settings *settings)
{
    const char *price = fleet_price(settings, f->is_gpu);
    if (price && !(f->price = mem_copy_text(price)))
        return cinf_fail(CINF_ENOMEM, "no memory for the price");
    f->weights = settings->weights;
    f->slots = settings->slots;
    f->unload_first = settings->unload_first;
    set_budget(f, settings);
    return want(f, settings);
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
        free_order(order);
    }
    roster_free(&f->roster);
    mem_free(f->price);
    settings_free(&f->started);
    mem_free(f);
}
