/* scheduler_call.h - another thread has the scheduler's thread run a function between two steps.
 *
 * The scheduler's thread owns the device, the models' runtimes and the meter's writing side, so this is how
 * every other thread gets something done to them. */
#ifndef SCHEDULER_CALL_H
#define SCHEDULER_CALL_H

#include <stdbool.h>

#include <costinfer/status.h>

struct cinf_engine;

typedef enum cinf_status scheduler_fn(struct cinf_engine *engine, void *context);

/* One call, on its caller's stack until it is done. */
struct scheduler_call {
    struct scheduler_call *next;
    scheduler_fn *run;
    void *context;
    bool done;
    enum cinf_status status;
    char message[512];
};

/* Waits until the scheduler has run it, and hands on its status and message.  CINF_ECLOSED, and not run, when
 * the engine is closing. */
enum cinf_status scheduler_call(struct cinf_engine *e, scheduler_fn *run, void *context);

/* Runs the calls that wait, on the scheduler's thread.  Caller holds engine.lock, which is released during
 * each. */
void scheduler_run_calls(struct cinf_engine *e);

#endif
