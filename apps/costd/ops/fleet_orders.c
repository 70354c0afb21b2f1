/* fleet_orders.c - what the admin routes ask for: the queue of loads and unloads that an operator ordered.
 *
 * An order is checked on the thread of the request, so that the client learns what is wrong with a folder;
 * only what has passed is queued for the fleet's thread. */
#include <string.h>

#include "fail.h"
#include "fleet_impl.h"
#include "log.h"
#include "mem.h"

enum { ORDERS_MAX = 64 };

void fleet_free_order(struct order *order)
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
    fleet_free_order(order);
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
        fleet_free_order(order);
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
    fleet_count_load(f, LOAD_UNCHANGED);
    log_message("info", "model_unchanged", "model %s: its files are those that are served", name);
    return true;
}

/* Checks what can be known before the load. */
static enum cinf_status look_at(struct fleet *f, const char *name, const char *folder, bool *unchanged)
{
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT];
    TRY(cinf_files_identify(fingerprint, identity, folder));
    *unchanged = stays_served(f, name, folder, identity);
    return *unchanged ? CINF_OK : fleet_check_successor(f, name, folder);
}

enum cinf_status fleet_load(struct fleet *f, const char *name, const char *folder, bool unload_first,
                            bool *unchanged, const char **param)
{
    *param = "folder";
    TRY(model_setting_check(name, folder));
    enum cinf_status status = look_at(f, name, folder, unchanged);
    if (status != CINF_OK) {
        fleet_note_failure(f, name, folder, KEEP_PENDING);
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
