/* memory_gauges.h - the gauges of the device's memory.
 *
 * Our own use changes only with loads and unloads.  What other processes use is known to some drivers alone,
 * which are asked once a second. */
#ifndef MEMORY_GAUGES_H
#define MEMORY_GAUGES_H

struct cinf_engine;

/* By the scheduler, or before it runs.  Sets engine.gauges_due_ns: when to call it again although nothing was
 * loaded since. */
void memory_gauges_update(struct cinf_engine *e);

#endif
