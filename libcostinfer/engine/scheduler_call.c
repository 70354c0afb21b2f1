/* scheduler_call.c - see scheduler_call.h. */
#include "scheduler_call.h"

#include <stdio.h>

#include "engine_state.h"
#include "fail.h"

enum cinf_status scheduler_call(struct cinf_engine *e, scheduler_fn *run, void *context)
{
    struct scheduler_call call = { .run = run, .context = context };
    pthread_mutex_lock(&e->lock);
    if (e->closing) {
        pthread_mutex_unlock(&e->lock);
        return cinf_fail(CINF_ECLOSED, "the engine is closing");
    }
    *e->calls_end = &call;
    e->calls_end = &call.next;
    pthread_cond_signal(&e->work);
    while (!call.done)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    return call.status == CINF_OK ? CINF_OK : cinf_fail_again(call.status, call.message);
}

void scheduler_run_calls(struct cinf_engine *e)
{
    while (e->calls) {
        struct scheduler_call *call = e->calls;
        e->calls = call->next;
        if (!e->calls)
            e->calls_end = &e->calls;
        pthread_mutex_unlock(&e->lock);
        enum cinf_status status = call->run(e, call->context);
        pthread_mutex_lock(&e->lock);
        call->status = status;
        snprintf(call->message, sizeof call->message, "%s", status == CINF_OK ? "" : cinf_last_error());
        call->done = true;
        pthread_cond_broadcast(&e->changed);
    }
}
