/* observer.h - tells a ledger what a snapshot cannot: each request that ends, and the moment of each new
 * price.
 *
 * The writing thread makes the calls under observer_lock, which only meter_observe() takes beside it, so they
 * wait for no reader.  An observer must return soon: it may take a snapshot and may not wait for anything.
 *
 * A request's end is told before it is published.  So every request that a snapshot counts as ended has been
 * told, and what was told has numbers without gaps: a ledger can cut its books at exactly one snapshot. */
#ifndef OBSERVER_H
#define OBSERVER_H

#include "meter_state.h"
#include "note.h"

struct ending {
    uint64_t number; /* requests of this meter that have ended, this one included */
    uint64_t age_ns; /* from its submission to its end, by the wall clock */
    const struct cinf_bill *bill;
    struct note *note; /* the observer's from now on, or NULL */
};

struct observer {
    void *context;
    void (*ended)(void *context, const struct ending *ending);
    void (*price_changed)(void *context); /* published; all time before it is at the old price */
    void (*meter_freed)(void *context);   /* the meter is whole until this returns */
};

/* Installs an observer, which must outlive the meter or be removed (NULL).  `change` is called first; no
 * request's end and no price comes between it and what the observer is told first, or was told last.
 * CINF_EBUSY if there is an observer already. */
enum cinf_status meter_observe(const struct cinf_meter *meter, const struct observer *observer,
                               enum cinf_status (*change)(void *context), void *context);

/* The writing thread: ends are told, then published. */
void observe_end(struct cinf_meter *meter, struct cinf_bill *bill);
void observe_price(struct cinf_meter *meter);
void observe_free(struct cinf_meter *meter);

#endif
