/* timers.h - things that happen unless something else happens first: deadlines of connections, and the
 * regular look at a stream.
 *
 * One thread and a plain list: it is gone through only when the earliest time in it has come, which for some
 * thousand connections is cheaper than keeping them in order. */
#ifndef TIMERS_H
#define TIMERS_H

#include <stdint.h>

#include <costinfer/status.h>

struct timers;

struct timer {
    /* On the timers' thread.  Returns in how many nanoseconds it wants to be called again; 0: no more. */
    uint64_t (*fire)(void *context);
    void *context;
    uint64_t at_ns;
    struct timer *next, **link; /* link NULL: not set */
};

enum cinf_status timers_start(struct timers **out);
void timers_stop(struct timers *timers); /* when none is set; accepts NULL */

/* (Re)sets it to so long from now. */
void timers_set(struct timers *timers, struct timer *timer, uint64_t after_ns);

/* After it returns, fire() is not running and will not be called. */
void timers_clear(struct timers *timers, struct timer *timer);

#endif
