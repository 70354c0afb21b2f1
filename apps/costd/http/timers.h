/* timers.h - calls a function at a later time, unless its timer is cleared or set anew: for the deadlines of
 * connections and the regular look at a stream.
 *
 * One thread walks a plain list, and only when the earliest time in it has come; for some thousand
 * connections that is cheaper than keeping the list in order. */
#ifndef TIMERS_H
#define TIMERS_H

#include <stdint.h>

#include <costinfer/status.h>

struct timers;

struct timer {
    /* Called on the timers' thread.  Returns after how many nanoseconds to call it again; 0: never. */
    uint64_t (*fire)(void *context);
    void *context;
    uint64_t at_ns;
    struct timer *next, **link; /* link NULL: not set */
};

enum cinf_status timers_start(struct timers **out);
void timers_stop(struct timers *timers); /* no timer may be set; accepts NULL */

/* Sets the timer, also one that is set already, to fire `after_ns` from now. */
void timers_set(struct timers *timers, struct timer *timer, uint64_t after_ns);

/* After it returns, fire() is not running and will not be called. */
void timers_clear(struct timers *timers, struct timer *timer);

#endif
