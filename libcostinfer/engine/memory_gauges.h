/* memory_gauges.h - the gauges of the device's memory.
 *
 * Our own use changes only with loads and unloads.  What other processes use is known to some drivers alone,
 * which are asked once a second. */
#ifndef MEMORY_GAUGES_H
#define MEMORY_GAUGES_H

struct cinf_engine;

/* Asks the device and sets the gauges, and engine.gauges_due_ns to when they must be updated next although
 * nothing was loaded.  Called by the scheduler, or before it runs. */
void memory_gauges_update(struct cinf_engine *e);

#endif
