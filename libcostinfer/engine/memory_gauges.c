/* memory_gauges.c - see memory_gauges.h. */
#include "memory_gauges.h"

#include "clock.h"
#include "engine_state.h"

enum { UPDATE_NS = 1000000000 };

void memory_gauges_update(struct cinf_engine *e)
{
    struct device_info info;
    e->device->backend->info(e->device, &info);
    atomic_store(&e->memory_used, info.memory_used);
    if (info.shows_memory) {
        cinf_meter_set_gpu_memory(e->meter, info.memory_used, info.memory_total);
        cinf_meter_set_gpu_taken(e->meter, info.memory_taken);
    }
    e->gauges_due_ns = info.memory_taken > 0 ? clock_monotonic_ns() + UPDATE_NS : UINT64_MAX;
}
