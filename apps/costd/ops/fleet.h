/* fleet.h - the models to serve: one thread loads and unloads them, at the start, when the settings are read
 * again and when an operator asks for it.
 *
 * Nothing that serves is given up for something that may fail: a model is replaced only by one that is
 * completely loaded, and settings are applied only after all of them were checked. */
#ifndef FLEET_H
#define FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "roster.h"
#include "settings.h"

struct fleet;

/* Takes ownership of `settings`, unless it fails.  The arguments are those that they were read from. `failed`
 * is called, on the fleet's thread, when one of the first models cannot be loaded. */
enum cinf_status fleet_new(struct fleet **out, struct cinf_engine *engine, const struct settings *settings,
                           int argc, char *const argv[], void (*failed)(void));

/* Begins to load. */
enum cinf_status fleet_begin(struct fleet *fleet);

/* Has the thread read the settings again: the log tells what was applied and what was refused. */
void fleet_reload(struct fleet *fleet);

/* Asks the thread to load a model from a folder, in the place of the one that has the name.  What can be
 * known of the folder is checked first.  *unchanged: the model is served from just these files, and nothing
 * will be done.  `unload_first`, or the setting of that name: the old model is unloaded before the new one
 * loads, for machines that have no room for both.  *param names the field at fault. */
enum cinf_status fleet_load(struct fleet *fleet, const char *name, const char *folder, bool unload_first,
                            bool *unchanged, const char **param);

/* Asks the thread to unload a model, which from then on is not to be served.  CINF_ENOTFOUND. */
enum cinf_status fleet_unload(struct fleet *fleet, const char *name);

/* Changes the price immediately; NULL: it is unknown from then on.  The next reading of the settings restores
 * what they say. */
enum cinf_status fleet_set_price(struct fleet *fleet, const char *dollars);

/* Shows the entry of that name, or all of them (NULL), in their order, with the fleet locked.  Returns how
 * many there were. */
uint32_t fleet_show(struct fleet *fleet, const char *name,
                    void (*show)(void *context, const struct roster_entry *entry), void *context);

bool fleet_loading(struct fleet *fleet);                   /* some of the first models are not loaded yet */
bool fleet_expects(struct fleet *fleet, const char *name); /* it is not served, but about to load */
uint64_t fleet_daily_budget(const struct fleet *fleet);    /* nano-dollars; 0: none */

enum reload_outcome { RELOAD_APPLIED, RELOAD_PARTIAL, RELOAD_REFUSED, RELOAD_OUTCOMES };
enum load_outcome { LOAD_LOADED, LOAD_UNCHANGED, LOAD_FAILED, LOAD_OUTCOMES };

/* What has come of everything so far. */
struct fleet_counts {
    uint64_t reloads[RELOAD_OUTCOMES], loads[LOAD_OUTCOMES];
    bool last_reload_good; /* true before the first */
    uint32_t wanted, serving;
    uint32_t missing; /* wanted and not served */
};
void fleet_count(struct fleet *fleet, struct fleet_counts *counts);

/* Waits at most two seconds for the thread; false if it is in the middle of a long load.  Accepts NULL. */
bool fleet_stop(struct fleet *fleet);

/* After it has stopped.  Accepts NULL. */
void fleet_free(struct fleet *fleet);

/* The price that applies on this device, or NULL. */
const char *fleet_price(const struct settings *settings, bool is_gpu);

#endif
