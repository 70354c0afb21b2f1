/* models.c - the models of an engine as their users see them: finding, describing, unloading, releasing. */
#include "models.h"

#include <string.h>

#include "clock.h"
#include "engine_state.h"
#include "fail.h"
#include "handles.h"
#include "memory_gauges.h"
#include "model_load.h"
#include "versioned.h"

enum { NAME_BYTES_MAX = 256 };

/* A caller that found a model before it was replaced may still submit to it, for so long. */
#define REPLACED_NS UINT64_C(10000000000)
#define LOOK_NS     UINT64_C(20000000)

/* A replaced model is unloaded when no handle but the engine's own is left, so that no more requests can
 * come, or when its time is up.  Caller holds engine.lock. */
static void look_at_replaced(struct cinf_engine *e, struct cinf_model *model)
{
    if (!model->replaced_ns || model->unloading)
        return;
    uint64_t now = clock_monotonic_ns();
    if (atomic_load(&model->references) == 1 || now >= model->replaced_ns + REPLACED_NS)
        model->unloading = true;
    else if (e->gauges_due_ns > now + LOOK_NS)
        e->gauges_due_ns = now + LOOK_NS; /* the scheduler wakes then, and looks again */
}

/* True if another model has the account: it was replaced by that one, or has replaced it.  The scheduler's.
 */
static bool account_is_loaded(const struct cinf_engine *e, uint32_t account)
{
    for (const struct cinf_model *m = e->models; m; m = m->next)
        if (m->account == account)
            return true;
    return false;
}

bool models_run_unloads(struct cinf_engine *e)
{
    bool any = false;
    for (struct cinf_model **at = &e->models; *at;) {
        struct cinf_model *model = *at;
        look_at_replaced(e, model);
        if (!model->unloading || model->running || model->waiting) {
            at = &model->next;
            continue;
        }
        any = true;
        *at = model->next;
        bool loaded = account_is_loaded(e, model->account);
        pthread_mutex_unlock(&e->lock);
        model_drop_runtime(e, model);
        cinf_meter_set_loaded(e->meter, model->account, loaded);
        memory_gauges_update(e);
        pthread_mutex_lock(&e->lock);
        model->loaded = false;
        pthread_cond_broadcast(&e->changed);
        pthread_mutex_unlock(&e->lock);
        model_unref(model);
        pthread_mutex_lock(&e->lock);
        at = &e->models;
    }
    return any;
}

enum cinf_status cinf_model_find(struct cinf_model **out, struct cinf_engine *e, const char *name)
{
    pthread_mutex_lock(&e->lock);
    struct cinf_model *model = e->models;
    while (model && (model->unloading || model->replaced_ns || strcmp(model->name, name) != 0))
        model = model->next;
    if (model)
        model_ref(model);
    pthread_mutex_unlock(&e->lock);
    if (!model)
        return cinf_fail(CINF_ENOTFOUND, "no model named %.*s is loaded", NAME_BYTES_MAX, name);
    *out = model;
    return CINF_OK;
}

uint32_t cinf_model_list(struct cinf_engine *e, struct cinf_model **models, uint32_t max)
{
    uint32_t n = 0;
    pthread_mutex_lock(&e->lock);
    for (struct cinf_model *model = e->models; model; model = model->next) {
        if (model->unloading || model->replaced_ns)
            continue;
        if (n < max) {
            model_ref(model);
            models[n] = model;
        }
        n++;
    }
    pthread_mutex_unlock(&e->lock);
    return n;
}

enum cinf_status cinf_model_unload(struct cinf_model *model)
{
    struct cinf_engine *e = model->engine;
    pthread_mutex_lock(&e->lock);
    bool was = model->loaded && !model->unloading;
    model->unloading = true;
    pthread_cond_signal(&e->work);
    while (model->loaded)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    return was ? CINF_OK : cinf_fail(CINF_ECLOSED, "model %s was unloaded already", model->name);
}

void cinf_model_info(const struct cinf_model *model, struct cinf_model_info *info)
{
    struct cinf_engine *e = model->engine;
    struct cinf_model_info whole = { .name = model->name,
                                     .folder = model->folder,
                                     .notes = model->notes,
                                     .account = model->account,
                                     .config = model->config,
                                     .weights = model->weights,
                                     .parameters = model->parameters,
                                     .slots = model->n_slots,
                                     .loaded_at = model->loaded_at,
                                     .weight_bytes = model->weight_bytes,
                                     .greedy_bytes = model->greedy_bytes,
                                     .fingerprint = model->fingerprint,
                                     .identity = model->identity };
    pthread_mutex_lock(&e->lock);
    whole.loaded = model->loaded && !model->unloading && !model->replaced_ns;
    pthread_mutex_unlock(&e->lock);
    versioned_write(info, &whole, sizeof whole);
}

const struct cinf_tokenizer *cinf_model_tokenizer(const struct cinf_model *model)
{
    return model->tokenizer;
}

void cinf_model_release(struct cinf_model *model)
{
    if (model)
        model_unref(model);
}
