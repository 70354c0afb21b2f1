/* engine.c - an engine as its user sees it: opened on a device, asked and told between steps, closed.
 *
 * The scheduler's thread owns the device and the meter, so what changes them is a scheduler_call(). */
#include <stdio.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "engine_state.h"
#include "fail.h"
#include "handles.h"
#include "mem.h"
#include "memory_gauges.h"
#include "scheduler.h"
#include "scheduler_call.h"
#include "step.h"
#include "versioned.h"

enum {
    QUEUE_DEFAULT = 256,
    QUEUE_TOTAL = 16, /* as often may queue_max requests wait over all models: that bounds their memory */
    PREFILL_ROWS_DEFAULT = 128,
    PREFILL_ROWS_MAX = 4096,
};

/* An own clock is not made of threads. */
static bool charges_threads(const struct cinf_engine_options *o)
{
    return o->basis == CINF_BASIS_CPU && !o->clock_ns;
}

static uint64_t device_cpu(void *threads)
{
    return device_threads_cpu_ns(threads);
}

static enum cinf_status open_device(struct cinf_engine *e, const struct cinf_engine_options *o)
{
    struct device_options device_options = { .threads = o->threads,
                                             .kv_f16 = o->kv == CINF_KV_F16,
                                             .profile = o->profile };
    struct device_info info;
    struct device_speed speed;
    char reason[DEVICE_REASON_MAX];
    TRY(device_open(&e->device, o->device, &device_options, reason));
    if (charges_threads(o))
        TRY(device_threads_find(&e->threads, e->device, &speed));
    else
        TRY(e->device->backend->measure(e->device, &speed));
    e->device->backend->info(e->device, &info);
    struct cinf_device_info *d = &e->device_info;
    d->struct_size = sizeof *d;
    snprintf(d->name, sizeof d->name, "%s", info.name);
    snprintf(d->description, sizeof d->description, "%s", info.description);
    snprintf(d->reason, sizeof d->reason, "%s", reason);
    d->is_gpu = info.is_gpu;
    d->threads = info.threads;
    d->memory_total = info.memory_total;
    d->as_per_flop = speed.as_per_flop;
    d->as_per_byte = speed.as_per_byte;
    d->kv = info.kv_f16 ? CINF_KV_F16 : CINF_KV_F32;
    d->speculation = info.rows_independent && !o->no_speculation;
    atomic_store(&e->memory_used, info.memory_used);
    uint32_t lent = e->device->backend->parallel ? info.threads : 1;
    e->step.n_samplers = lent < 1 ? 1 : lent < SAMPLERS_MAX ? lent : SAMPLERS_MAX;
    return CINF_OK;
}

static enum cinf_status fill_engine(struct cinf_engine *e, const struct cinf_engine_options *o)
{
    if (o->prefill_rows > PREFILL_ROWS_MAX)
        return cinf_fail(CINF_EINVAL, "prefill_rows is %u; it can be %d at most", o->prefill_rows,
                         PREFILL_ROWS_MAX);
    if (o->kv != CINF_KV_F32 && o->kv != CINF_KV_F16)
        return cinf_fail(CINF_EINVAL, "kv is %d; expected CINF_KV_F32 or CINF_KV_F16", (int)o->kv);
    e->queue_max = o->queue_max ? o->queue_max : QUEUE_DEFAULT;
    e->queue_total = e->queue_max < UINT32_MAX / QUEUE_TOTAL ? e->queue_max * QUEUE_TOTAL : UINT32_MAX;
    e->prefill_rows = o->prefill_rows ? o->prefill_rows : PREFILL_ROWS_DEFAULT;
    e->prefix_reuse = !o->no_prefix_reuse;
    e->share_prefixes = o->share_prefixes;
    TRY(open_device(e, o));
    uint64_t memory = e->device_info.memory_total;
    e->kv_memory = o->kv_memory ? o->kv_memory : e->device_info.is_gpu ? memory : memory / 4;

    struct cinf_meter_options m = { CINF_METER_OPTIONS,
                                    .device = e->device_info.name,
                                    .basis = o->basis,
                                    .dollars_per_hour = o->dollars_per_hour,
                                    .endpoints = o->endpoints,
                                    .n_endpoints = o->n_endpoints,
                                    .latency_buckets = o->latency_buckets,
                                    .n_latency_buckets = o->n_latency_buckets,
                                    .clock_ns = o->clock_ns,
                                    .clock_context = o->clock_context,
                                    .device_cpu_ns = charges_threads(o) ? device_cpu : NULL,
                                    .device_cpu_context = &e->threads };
    if (o->cpu_dollars_per_hour || o->gpu_dollars_per_hour)
        m.dollars_per_hour = e->device_info.is_gpu ? o->gpu_dollars_per_hour : o->cpu_dollars_per_hour;
    TRY(cinf_meter_new(&e->meter, &m));
    cinf_meter_set_split(e->meter, e->device_info.as_per_flop, e->device_info.as_per_byte);
    memory_gauges_update(e);
    int error = pthread_create(&e->thread, NULL, scheduler_main, e);
    return error ? cinf_fail(CINF_EIO, "cannot start the scheduler thread: %s", strerror(error)) : CINF_OK;
}

enum cinf_status cinf_engine_open(struct cinf_engine **out, const struct cinf_engine_options *options)
{
    struct cinf_engine_options o = { CINF_ENGINE_OPTIONS };
    TRY(versioned_read(&o, sizeof o, options));
    struct cinf_engine *e = mem_new(1, sizeof *e);
    if (!e)
        return cinf_fail(CINF_ENOMEM, "no memory for an engine");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&e->work, &monotonic);
    pthread_cond_init(&e->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&e->lock, NULL);
    atomic_store(&e->references, 1);
    e->calls_end = &e->calls;
    enum cinf_status status = fill_engine(e, &o);
    if (status != CINF_OK) {
        engine_unref(e);
        return status;
    }
    *out = e;
    return CINF_OK;
}

void cinf_engine_close(struct cinf_engine *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    e->closing = true;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    /* A load that was aborted frees what it has on the device on its own thread. */
    pthread_mutex_lock(&e->lock);
    while (e->n_loading > 0)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    /* Handles that are still held keep accounts and tokenizers readable, not the device. */
    step_free(&e->step);
    device_close(e->device);
    e->device = NULL;
    engine_unref(e);
}

const struct cinf_meter *cinf_engine_meter(const struct cinf_engine *e)
{
    return e->meter;
}

void cinf_engine_count_error(struct cinf_engine *e, uint32_t account, enum cinf_error_kind kind)
{
    cinf_meter_count_error(e->meter, account, kind);
}

const char *cinf_device_list(uint32_t index)
{
    return device_list(index);
}

void cinf_engine_device(const struct cinf_engine *e, struct cinf_device_info *info)
{
    struct cinf_device_info whole = e->device_info;
    whole.memory_used = atomic_load(&e->memory_used);
    versioned_write(info, &whole, sizeof whole);
}

static enum cinf_status set_price(struct cinf_engine *e, void *dollars_per_hour)
{
    return cinf_meter_set_price(e->meter, dollars_per_hour);
}

enum cinf_status cinf_engine_set_price(struct cinf_engine *e, const char *dollars_per_hour)
{
    return scheduler_call(e, set_price, (void *)dollars_per_hour);
}

static enum cinf_status open_account(struct cinf_engine *e, void *name)
{
    uint32_t account;
    return cinf_meter_add_model(e->meter, name, &account);
}

enum cinf_status cinf_engine_open_account(struct cinf_engine *e, const char *name)
{
    return scheduler_call(e, open_account, (void *)name);
}

struct profile_job {
    struct cinf_profile_row *rows;
    uint32_t n, max;
};

static enum cinf_status read_profile(struct cinf_engine *e, void *context)
{
    struct profile_job *job = context;
    const struct backend *backend = e->device->backend;
    struct profile_row row;
    while (backend->profile && job->n < job->max && backend->profile(e->device, job->n, &row)) {
        struct cinf_profile_row *out = &job->rows[job->n++];
        *out = (struct cinf_profile_row){ .launches = row.launches, .device_ns = row.ns };
        memcpy(out->name, row.name, sizeof out->name);
    }
    return job->n > 0 ? CINF_OK
                      : cinf_fail(CINF_EUNSUPPORTED, "device %s has timed no kernels", e->device_info.name);
}

enum cinf_status cinf_engine_profile(uint32_t *n, struct cinf_engine *engine, struct cinf_profile_row *rows,
                                     uint32_t max)
{
    struct profile_job job = { .rows = rows, .max = max };
    TRY(scheduler_call(engine, read_profile, &job));
    *n = job.n;
    return CINF_OK;
}
