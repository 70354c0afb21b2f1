/* timeline.c - a meter's clocks and its device's accounts.
 *
 * Two clocks run beside each other.  The timeline's is what is charged: wall time, or CPU time of
 * the process.  Waiting is always measured by the wall clock.  Where both are the same clock, or the
 * options' own clock replaces both, one reading serves both. */
#include "timeline.h"

#include "clock.h"

static uint64_t host_wall(void *context)
{
    (void)context;
    return clock_monotonic_ns();
}

static uint64_t host_cpu(void *context)
{
    (void)context;
    return clock_process_cpu_ns();
}

uint64_t timeline_now(const struct cinf_meter *meter)
{
    return meter->clock_ns(meter->clock_context) - meter->opened_ns;
}

uint64_t wall_now(const struct cinf_meter *meter)
{
    return meter->one_clock ? timeline_now(meter) : clock_monotonic_ns() - meter->opened_wall_ns;
}

void timeline_open(struct cinf_meter *meter, const struct cinf_meter_options *options)
{
    bool cpu = options->basis == CINF_BASIS_CPU;
    meter->clock_ns = options->clock_ns ? options->clock_ns : cpu ? host_cpu : host_wall;
    meter->clock_context = options->clock_context;
    meter->one_clock = options->clock_ns || !cpu;
    meter->opened_wall_ns = clock_monotonic_ns();
    meter->opened_ns = meter->clock_ns(meter->clock_context);
}

void device_add(struct device_counters *d, uint64_t *ns, uint64_t *price_ns, struct cinf_cost *cost,
                uint64_t interval)
{
    *ns += interval;
    *price_ns += interval;
    if (d->price.priced)
        *cost = cinf_cost_add(*cost, cinf_cost_of(interval, d->price.nanodollars_per_hour));
    else
        d->unpriced_ns += interval;
}
