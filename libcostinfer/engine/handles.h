/* handles.h - who keeps engines and models alive.
 *
 * Handles may be released in any order.  The caller and each model hold a reference on the engine; handles,
 * requests and the engine's list hold one on a model.  What the last reference leaves to free needs neither
 * the device nor the scheduler, so any thread may do it. */
#ifndef HANDLES_H
#define HANDLES_H

struct cinf_engine;
struct cinf_model;

void engine_ref(struct cinf_engine *e);
void engine_unref(struct cinf_engine *e);

void model_ref(struct cinf_model *model);
void model_unref(struct cinf_model *model);

#endif
