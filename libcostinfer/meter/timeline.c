/* timeline.c - a meter's clocks and its device's accounts.
 *
 * Two clocks run beside each other.  The timeline's is what is charged: wall time, or CPU time of
 * the process.  Waiting is always measured by the wall clock.  Where both are the same clock, or the
 * options' own clock replaces both, one reading serves both.
 *
 * Only the host's wall clock is watched for stalls: a process that cannot run uses no CPU time, and an own
 * clock comes with its own measure. */
#include "timeline.h"

#include "clock.h"
#include "fail.h"

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

struct moment timeline_now(const struct cinf_meter *meter)
{
    return pulse_now(&((struct cinf_meter *)meter)->pulse);
}

uint64_t wall_now(const struct cinf_meter *meter)
{
    struct cinf_meter *m = (struct cinf_meter *)meter;
    return pulse_now(meter->one_clock ? &m->pulse : &m->wall).ns;
}

enum cinf_status timeline_open(struct cinf_meter *meter, const struct cinf_meter_options *options)
{
    bool cpu = options->basis == CINF_BASIS_CPU;
    meter->one_clock = options->clock_ns || !cpu;
    meter->device_cpu_ns = cpu ? options->device_cpu_ns : NULL;
    meter->device_cpu_context = options->device_cpu_context;
    if (!meter->one_clock)
        TRY(pulse_open(&meter->wall, host_wall, NULL, NULL, false));
    return pulse_open(&meter->pulse,
                      options->clock_ns ? options->clock_ns
                      : cpu             ? host_cpu
                                        : host_wall,
                      options->stalled_ns, options->clock_context,
                      !cpu && !options->clock_ns && !options->stalled_ns);
}

void timeline_close(struct cinf_meter *meter)
{
    pulse_close(&meter->pulse);
    pulse_close(&meter->wall);
}

void device_add(struct device_counters *d, enum account_kind kind, uint64_t interval)
{
    d->ns[kind] += interval;
    d->price.ns[kind] += interval;
    if (d->price.priced)
        d->cost[kind] = cinf_cost_add(d->cost[kind], cinf_cost_of(interval, d->price.nanodollars_per_hour));
    else
        d->unpriced_ns += interval;
}

enum account_kind idle_account(const struct cinf_meter *meter)
{
    return meter->device_cpu_ns ? ACCOUNT_OVERHEAD : ACCOUNT_IDLE;
}

uint64_t device_pass(struct device_counters *d, struct moment to)
{
    uint64_t interval = to.ns - d->boundary_ns, lost = to.lost_ns - d->boundary_lost_ns;
    if (lost > interval)
        lost = interval;
    d->boundary_ns = to.ns;
    d->boundary_lost_ns = to.lost_ns;
    device_add(d, ACCOUNT_LOST, lost);
    return interval - lost;
}
