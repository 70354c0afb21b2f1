/* handles.c - see handles.h. */
#include "handles.h"

#include "engine_state.h"
#include "mem.h"

void engine_ref(struct cinf_engine *e)
{
    atomic_fetch_add(&e->references, 1);
}

void engine_unref(struct cinf_engine *e)
{
    if (atomic_fetch_sub(&e->references, 1) > 1)
        return;
    cinf_meter_free(e->meter);
    device_close(e->device);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->changed);
    mem_free(e);
}

void model_ref(struct cinf_model *model)
{
    atomic_fetch_add(&model->references, 1);
}

void model_unref(struct cinf_model *model)
{
    if (atomic_fetch_sub(&model->references, 1) > 1)
        return;
    cinf_tokenizer_free(model->tokenizer);
    mem_free(model->allowed);
    mem_free(model->name);
    mem_free(model->folder);
    mem_free(model->notes);
    engine_unref(model->engine);
    mem_free(model);
}
