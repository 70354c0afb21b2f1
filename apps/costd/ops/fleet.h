/* fleet.h - the models to serve: one thread loads and unloads them and sets the price, at the start, when the
 * settings are read again and when an operator asks for it. */
#ifndef FLEET_H
#define FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "settings.h"

struct fleet;

/* Takes ownership of `settings`, unless it fails.  The arguments are those that they were read from. `failed`
 * is called, on the fleet's thread, when one of the first models cannot be loaded. */
enum cinf_status fleet_new(struct fleet **out, struct cinf_engine *engine, const struct settings *settings,
                           int argc, char *const argv[], void (*failed)(void));

/* Begins to load. */
enum cinf_status fleet_begin(struct fleet *fleet);

/* Has the thread read the settings again.  A file with a mistake changes nothing and is logged. */
void fleet_reload(struct fleet *fleet);

/* Asks the thread to load a model (if the name is known: from the new folder), to unload one, or to change
 * the price; the log tells the outcome.  CINF_EINVAL for arguments that cannot be valid.  `dollars` NULL: the
 * price is unknown from then on.  The next reading of the settings restores what they say. */
enum cinf_status fleet_load(struct fleet *fleet, const char *name, const char *folder);
enum cinf_status fleet_unload(struct fleet *fleet, const char *name);
enum cinf_status fleet_set_price(struct fleet *fleet, const char *dollars);

bool fleet_loading(struct fleet *fleet);                   /* some of the first models are not loaded yet */
bool fleet_expects(struct fleet *fleet, const char *name); /* the model may be about to load */
uint64_t fleet_daily_budget(const struct fleet *fleet);    /* nano-dollars; 0: none */

/* Waits at most two seconds for the thread; false if it is in the middle of a long load.  Accepts NULL. */
bool fleet_stop(struct fleet *fleet);

/* After it has stopped.  Accepts NULL. */
void fleet_free(struct fleet *fleet);

/* The price that applies on this device, or NULL. */
const char *fleet_price(const struct settings *settings, bool is_gpu);

#endif
