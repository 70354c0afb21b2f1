/* fleet_changes.c - the fleet's thread: it loads the first models, applies settings that are read again, and
 * carries out orders.
 *
 * All loads and unloads happen on this one thread, one after the other.  It does not hold the fleet's lock
 * while it loads, so an entry may have been queued for another change by the time a load ends. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "fail.h"
#include "fleet_impl.h"
#include "log.h"
#include "mem.h"

/* ---- Loading ------------------------------------------------------------------------------ */

static bool must_stop(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    bool stop = f->stop;
    pthread_mutex_unlock(&f->lock);
    return stop;
}

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
    bool unchanged = fleet_is_served(f, entry, identity);
    if (unchanged) {
        entry->wanted = true;
        roster_settle(entry, ROSTER_LOADED, "");
    }
    pthread_mutex_unlock(&f->lock);
    if (unchanged) {
        fleet_count_load(f, LOAD_UNCHANGED);
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
        TRY(fleet_check_successor(f, name, folder));
        unload_served(f, name);
    }
    return try_load(f, name, folder);
}

static enum cinf_status load_model(struct fleet *f, const char *name, const char *folder, bool unload_first)
{
    enum cinf_status status = load_changed(f, name, folder, unload_first);
    if (status != CINF_OK)
        fleet_note_failure(f, name, folder, KEEP_QUEUED);
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

enum cinf_status fleet_want(struct fleet *f, const struct settings *new)
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
        good[i] = fleet_check_model(f, &new->models[i]);
    pthread_mutex_lock(&f->lock);
    f->unload_first = new->unload_first;
    pthread_mutex_unlock(&f->lock);
    fleet_set_budget(f, new);
    bool priced = fleet_reprice(f, fleet_price(new, f->is_gpu)) == CINF_OK;
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
        status = fleet_want(f, &new);
        if (status == CINF_OK)
            apply(f, &new);
        settings_free(&new);
    }
    if (status != CINF_OK) {
        end_reload(f, RELOAD_REFUSED);
        log_message("error", "reload", "nothing has changed: %s", cinf_last_error());
    }
}

/* ---- The thread --------------------------------------------------------------------------- */

static void carry_out(struct fleet *f, const struct order *order)
{
    if (order->kind == UNLOAD)
        unload_model(f, order->name);
    else
        load_model(f, order->name, order->folder, order->unload_first);
}

void *fleet_run(void *context)
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
        fleet_free_order(order);
        pthread_mutex_lock(&f->lock);
    }
    f->stopped = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}
