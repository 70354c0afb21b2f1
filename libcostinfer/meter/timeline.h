/* timeline.h - a meter's clocks, and adding an interval to the device's accounts. */
#ifndef TIMELINE_H
#define TIMELINE_H

#include "meter_state.h"

/* Chooses the clocks that the options ask for and starts them: the timeline begins now. */
enum cinf_status timeline_open(struct cinf_meter *meter, const struct cinf_meter_options *options);
void timeline_close(struct cinf_meter *meter);

/* The time since the meter was opened, by the clock that is charged and by the wall clock.  Any thread may
 * call both; readings are signs of life (pulse.h), which is why they change a meter that is only read. */
struct moment timeline_now(const struct cinf_meter *meter);
uint64_t wall_now(const struct cinf_meter *meter);

/* Adds an interval to one of the device's accounts at the price in force. */
void device_add(struct device_counters *d, enum account_kind kind, uint64_t interval);

/* The account of time in which the device has no work.  On the basis of CPU time a device without work uses
 * none: what the process uses then is overhead, if the device's threads are known. */
enum account_kind idle_account(const struct cinf_meter *meter);

/* Moves the boundary.  Adds what was lost since the last boundary to its account, and returns the rest, which
 * is left to add. */
uint64_t device_pass(struct device_counters *d, struct moment to);

#endif
