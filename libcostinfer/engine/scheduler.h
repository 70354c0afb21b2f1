/* scheduler.h - the scheduler's thread. */
#ifndef SCHEDULER_H
#define SCHEDULER_H

/* Serves a struct cinf_engine until engine.closing is set and its models are unloaded. */
void *scheduler_main(void *engine);

#endif
