/* models.h - the scheduler's side of unloading. */
#ifndef MODELS_H
#define MODELS_H

#include <stdbool.h>

struct cinf_engine;

/* Unloads the models that are to go and have no requests left; true if there were any.  Caller holds
 * engine.lock, which is released during each. */
bool models_run_unloads(struct cinf_engine *e);

#endif
