/* price_history.h - the time under each price that was in force. */
#ifndef PRICE_HISTORY_H
#define PRICE_HISTORY_H

#include "meter_state.h"

/* Room for the figures of a period with `n_models` models; NULL without memory. */
struct old_price *old_price_new(uint32_t n_models);

/* The sums of a period of one price. */
struct price_sums price_sums_of(const struct price_counters *period);

/* The price that waits takes effect at the boundary; the price before it becomes history.  Cannot fail: when
 * there are PRICES_MAX periods, the two oldest are folded into one first.  It then waits for readers that
 * copy the history, which they do from memory to memory. */
void price_change(struct cinf_meter *meter);

/* Moves model `from`'s part of every period to model `to` and publishes that with all else that is dirty.
 * price_history_widen() makes the room that this needs. */
enum cinf_status price_history_widen(struct cinf_meter *meter, uint32_t to);
void price_history_move(struct cinf_meter *meter, uint32_t from, uint32_t to);

void price_history_free(struct cinf_meter *meter);

#endif
