/* fleet_impl.h - what the files of the fleet share: its state, and what they call of each other.
 *
 * fleet.c and fleet_changes.c call the others; fleet_orders.c calls fleet_check.c alone, and fleet_check.c
 * and fleet_price.c call none of them. */
#ifndef FLEET_IMPL_H
#define FLEET_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "fleet.h"

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

/* fleet_check.c */

/* States of a change that was asked for later, or is under way: the failure of another is not its outcome. */
enum { KEEP_NONE = 0, KEEP_QUEUED = 1 << ROSTER_QUEUED, KEEP_PENDING = KEEP_QUEUED | 1 << ROSTER_LOADING };

void fleet_count_load(struct fleet *f, enum load_outcome outcome);

/* Tells of a load that failed, with the thread's last failure: in the log, in the counts, and in the roster
 * unless its state is one to keep. */
void fleet_note_failure(struct fleet *f, const char *name, const char *folder, unsigned keep);

/* Whether the model is served from just these files, in just this way. */
bool fleet_is_served(const struct fleet *f, const struct roster_entry *entry, const char *identity);

/* What can be known of a folder before its weights are loaded.  A model that serves text is not replaced by
 * one that can serve token ids alone: its tokenizer was forgotten. */
enum cinf_status fleet_check_successor(const struct fleet *f, const char *name, const char *folder);

/* Looks at the model's files, before anything is changed.  One that cannot be loaded is told. */
bool fleet_check_model(struct fleet *f, const struct model_setting *m);

/* fleet_price.c */

void fleet_set_budget(struct fleet *f, const struct settings *settings);

/* Does nothing if it is the price in force.  The log tells of a change, and of one that was refused. */
enum cinf_status fleet_reprice(struct fleet *f, const char *dollars);

/* fleet_orders.c */

void fleet_free_order(struct order *order); /* accepts NULL */

/* fleet_changes.c */

/* The settings name the models that are to be served, loaded or not. */
enum cinf_status fleet_want(struct fleet *f, const struct settings *new);

void *fleet_run(void *context); /* the thread; its context is the fleet */

#endif
