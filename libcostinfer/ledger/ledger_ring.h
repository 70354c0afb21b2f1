/* ledger_ring.h - what a meter has told a ledger and the ledger's thread has not taken yet. */
#ifndef LEDGER_RING_H
#define LEDGER_RING_H

#include "ledger_state.h"

/* NULL without memory. */
struct sample *sample_new(const struct cinf_meter *meter);
void sample_free(struct sample *s);

/* The observer's calls; each takes the ledger as its context.  The charging thread makes the first two. */
void ledger_ended(void *context, const struct ending *ending);
void ledger_price_changed(void *context);
/* The meter leaves; its pointers are not used after this. */
void ledger_leave(void *context);

/* Caller holds gather_lock.  `last`: the meter leaves, and everything of it is taken. */
void ledger_gather(struct cinf_ledger *l, bool last);

#endif
