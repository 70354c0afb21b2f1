#include "observer.h"

#include "fail.h"
#include "mirror.h"
#include "timeline.h"

enum cinf_status meter_observe(const struct cinf_meter *observed, const struct observer *observer,
                               enum cinf_status (*change)(void *context), void *context)
{
    struct cinf_meter *meter = (struct cinf_meter *)observed; /* no counter changes */
    enum cinf_status status = CINF_OK;
    pthread_mutex_lock(&meter->observer_lock);
    if (observer && meter->observer)
        status = cinf_fail(CINF_EBUSY, "the meter of device %s has a ledger already", meter->device);
    else
        status = change(context);
    if (status == CINF_OK)
        meter->observer = observer;
    pthread_mutex_unlock(&meter->observer_lock);
    return status;
}

void observe_end(struct cinf_meter *meter, struct cinf_bill *bill)
{
    pthread_mutex_lock(&meter->observer_lock);
    struct device_counters *d = &meter->counters;
    d->n_ended++;
    d->ended_ns += bill->counters.prefill_ns + bill->counters.decode_ns;
    d->ended_cost = cinf_cost_add(d->ended_cost, bill->counters.cost);
    if (meter->observer) {
        struct ending ending = { .number = d->n_ended,
                                 .age_ns = wall_now(meter) - bill->submitted_wall_ns,
                                 .bill = bill,
                                 .note = bill->note };
        bill->note = NULL;
        meter->observer->ended(meter->observer->context, &ending);
    }
    publish(meter);
    pthread_mutex_unlock(&meter->observer_lock);
}

void observe_price(struct cinf_meter *meter)
{
    pthread_mutex_lock(&meter->observer_lock);
    if (meter->observer)
        meter->observer->price_changed(meter->observer->context);
    pthread_mutex_unlock(&meter->observer_lock);
}

void observe_free(struct cinf_meter *meter)
{
    pthread_mutex_lock(&meter->observer_lock);
    if (meter->observer)
        meter->observer->meter_freed(meter->observer->context);
    meter->observer = NULL;
    pthread_mutex_unlock(&meter->observer_lock);
}
