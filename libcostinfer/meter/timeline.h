/* timeline.h - a meter's clocks, and adding an interval to one of the device's accounts. */
#ifndef TIMELINE_H
#define TIMELINE_H

#include "meter_state.h"

/* Chooses the clocks that the options ask for and reads them once: the timeline begins now. */
void timeline_open(struct cinf_meter *meter, const struct cinf_meter_options *options);

/* Nanoseconds since the meter was opened, by the clock that is charged and by the wall clock.  Any thread
 * may call both. */
uint64_t timeline_now(const struct cinf_meter *meter);
uint64_t wall_now(const struct cinf_meter *meter);

/* Adds an interval to one of the device's three accounts at the price in force. */
void device_add(struct device_counters *d, uint64_t *ns, uint64_t *price_ns, struct cinf_cost *cost,
                uint64_t interval);

#endif
