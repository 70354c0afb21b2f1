/* fleet.h - the models that are to be served: one thread loads and unloads them and sets the price, at the
 * start and whenever the settings are read again. */
#ifndef FLEET_H
#define FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "settings.h"

struct fleet;

/* Takes `settings` over, unless it fails.  The arguments are those that they were read from.  `failed` is
 * called, on the fleet's thread, when one of the first models cannot be loaded. */
enum cinf_status fleet_new(struct fleet **out, struct cinf_engine *engine, const struct settings *settings,
                           int argc, char *const argv[], void (*failed)(void));

/* Begins to load. */
enum cinf_status fleet_begin(struct fleet *fleet);

/* Has the thread read the settings again.  A file that is wrong changes nothing but the log. */
void fleet_reload(struct fleet *fleet);

/* Asks the thread to load a model (a name that is there already: from the new folder), to unload one, or to
 * change the price; the log tells what came of it.  CINF_EINVAL for what cannot be meant.  `dollars` NULL:
 * unknown from then on.  The next reading of the settings puts all back to what they say. */
enum cinf_status fleet_load(struct fleet *fleet, const char *name, const char *folder);
enum cinf_status fleet_unload(struct fleet *fleet, const char *name);
enum cinf_status fleet_set_price(struct fleet *fleet, const char *dollars);

bool fleet_loading(struct fleet *fleet);                   /* the first models are not all there yet */
bool fleet_expects(struct fleet *fleet, const char *name); /* the model may be on its way */
uint64_t fleet_daily_budget(const struct fleet *fleet);    /* nano-dollars; 0: none */

/* Waits at most two seconds for what the thread is doing: false when it is in the middle of a long load.
 * Accepts NULL. */
bool fleet_stop(struct fleet *fleet);

/* After it has stopped.  Accepts NULL. */
void fleet_free(struct fleet *fleet);

/* The price that applies on this device, or NULL. */
const char *fleet_price(const struct settings *settings, bool is_gpu);

#endif
