/* engine.c - engines and models as their users see them: opening, loading, unloading, letting go.
 *
 * The scheduler thread owns models and meter.  What another thread wants done to them it posts as a job and
 * waits for; a load is more than a job only in that it is done in pieces.  Reading configuration and
 * tokenizer happens on the caller's thread, while the scheduler goes on serving. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <costinfer/costinfer.h>

#include "clock.h"
#include "engine_state.h"
#include "fail.h"
#include "file.h"
#include "mem.h"
#include "versioned.h"

enum {
    QUEUE_DEFAULT = 256,
    PREFILL_ROWS_DEFAULT = 128,
    PREFILL_ROWS_MAX = 4096,
    SLOTS_DEFAULT = 16,
    SLOTS_MAX = 1024,
    NAME_BYTES_MAX = 256,
};

/* ---- Engines --------------------------------------------------------------------------------- */

enum cinf_weights engine_weights_of(enum weights_type type)
{
    return (enum cinf_weights)(type - WEIGHTS_F32 + CINF_WEIGHTS_F32);
}

static void free_engine(struct cinf_engine *e)
{
    cinf_meter_free(e->meter);
    device_close(e->device);
    for (uint32_t i = 0; i < SAMPLERS_MAX; i++)
        sampler_free(&e->samplers[i]);
    mem_free(e->row_tokens);
    mem_free(e->row_positions);
    mem_free(e->row_slots);
    mem_free(e->row_wants);
    mem_free(e->row_sequences);
    mem_free(e->row_picks);
    mem_free(e->shares);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->changed);
    mem_free(e);
}

void engine_unref(struct cinf_engine *e)
{
    if (atomic_fetch_sub(&e->references, 1) == 1)
        free_engine(e);
}

enum cinf_status engine_reserve_rows(struct cinf_engine *e, uint32_t rows)
{
    /* mem_resize keeps each array valid on its own; rows_cap moves only when all of them have grown. */
#define GROW(array)                                                                                          \
    do {                                                                                                     \
        void *grown = mem_resize(e->array, rows, sizeof *e->array);                                          \
        if (!grown)                                                                                          \
            return cinf_fail(CINF_ENOMEM, "no memory for steps of %u rows", rows);                           \
        e->array = grown;                                                                                    \
    } while (0)
    if (rows <= e->rows_cap)
        return CINF_OK;
    GROW(row_tokens);
    GROW(row_positions);
    GROW(row_slots);
    GROW(row_wants);
    GROW(row_sequences);
    GROW(row_picks);
    GROW(shares);
#undef GROW
    e->rows_cap = rows;
    return CINF_OK;
}

static enum cinf_status open_device(struct cinf_engine *e, const struct cinf_engine_options *o)
{
    struct device_options device_options = { .threads = o->threads,
                                             .half_cache = o->kv == CINF_KV_F16,
                                             .profile = o->profile };
    struct device_info info;
    struct device_speed speed;
    char reason[DEVICE_REASON_MAX];
    TRY(device_open(&e->device, o->device, &device_options, reason));
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
    d->kv = info.half_cache ? CINF_KV_F16 : CINF_KV_F32;
    d->speculation = info.rows_independent && !o->no_speculation;
    atomic_store(&e->memory_used, info.memory_used);
    uint32_t lent = e->device->backend->parallel ? info.threads : 1;
    e->n_samplers = lent < 1 ? 1 : lent < SAMPLERS_MAX ? lent : SAMPLERS_MAX;
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
    e->prefill_rows = o->prefill_rows ? o->prefill_rows : PREFILL_ROWS_DEFAULT;
    e->prefix_reuse = !o->no_prefix_reuse;
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
                                    .clock_context = o->clock_context };
    if (o->cpu_dollars_per_hour || o->gpu_dollars_per_hour)
        m.dollars_per_hour = e->device_info.is_gpu ? o->gpu_dollars_per_hour : o->cpu_dollars_per_hour;
    TRY(cinf_meter_new(&e->meter, &m));
    cinf_meter_set_split(e->meter, e->device_info.as_per_flop, e->device_info.as_per_byte);
    engine_show_memory(e);
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
    e->jobs_end = &e->jobs;
    enum cinf_status status = fill_engine(e, &o);
    if (status != CINF_OK) {
        free_engine(e);
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
    /* A load that was interrupted frees what it has on the device, on its own thread. */
    pthread_mutex_lock(&e->lock);
    while (e->n_loading > 0)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    /* Handles that are still held keep accounts and tokenizers readable, not the device. */
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

/* Has the scheduler run something between two steps, and waits for it. */
static enum cinf_status run_job(struct cinf_engine *e, enum cinf_status (*run)(struct cinf_engine *, void *),
                                void *context)
{
    struct scheduler_call job = { .run = run, .context = context };
    pthread_mutex_lock(&e->lock);
    if (e->closing) {
        pthread_mutex_unlock(&e->lock);
        return cinf_fail(CINF_ECLOSED, "the engine is closing");
    }
    *e->jobs_end = &job;
    e->jobs_end = &job.next;
    pthread_cond_signal(&e->work);
    while (!job.done)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    return job.status == CINF_OK ? CINF_OK : cinf_fail_again(job.status, job.message);
}

static enum cinf_status set_price(struct cinf_engine *e, void *dollars_per_hour)
{
    return cinf_meter_set_price(e->meter, dollars_per_hour);
}

enum cinf_status cinf_engine_set_price(struct cinf_engine *e, const char *dollars_per_hour)
{
    return run_job(e, set_price, (void *)dollars_per_hour);
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
    TRY(run_job(engine, read_profile, &job));
    *n = job.n;
    return CINF_OK;
}

/* ---- Models ----------------------------------------------------------------------------------- */

static void free_model(struct cinf_model *model)
{
    cinf_tokenizer_free(model->tokenizer);
    mem_free(model->allowed);
    mem_free(model->name);
    mem_free(model->folder);
    mem_free(model->notes);
    engine_unref(model->engine);
    mem_free(model);
}

void model_unref(struct cinf_model *model)
{
    if (atomic_fetch_sub(&model->references, 1) == 1)
        free_model(model);
}

void cinf_model_release(struct cinf_model *model)
{
    if (model)
        model_unref(model);
}

/* The last part of a path: "models/gpt2/" is "gpt2". */
static char *name_of_folder(const char *folder)
{
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && folder[start - 1] != '/')
        start--;
    char *name = mem_new(end - start + 1, 1);
    if (name)
        memcpy(name, folder + start, end - start);
    return name;
}

static enum cinf_status new_model(struct cinf_model **out, struct cinf_engine *e,
                                  const struct cinf_model_options *o)
{
    if (!o->folder == !o->shape)
        return cinf_fail(CINF_EINVAL, "a model needs a folder or a shape, and not both");
    if (o->slots > SLOTS_MAX)
        return cinf_fail(CINF_EINVAL, "slots is %u; it can be %d at most", o->slots, SLOTS_MAX);
    struct cinf_model *model = mem_new(1, sizeof *model);
    if (!model)
        return cinf_fail(CINF_ENOMEM, "no memory for a model");
    atomic_store(&model->references, 1);
    atomic_fetch_add(&e->references, 1);
    model->engine = e;
    model->waiting_end = &model->waiting;
    model->name = o->name ? mem_copy_text(o->name) : name_of_folder(o->folder ? o->folder : o->shape);
    model->folder = mem_copy_text(o->folder ? o->folder : "");
    if (!model->name || !model->folder) {
        model_unref(model);
        return cinf_fail(CINF_ENOMEM, "no memory for a model");
    }
    *out = model;
    return CINF_OK;
}

/* By the scheduler: the account, created before anything is charged to it, and a place among the loads. */
static enum cinf_status begin_load(struct cinf_engine *e, void *context)
{
    struct model_load *load = context;
    struct cinf_model *model = load->model;
    pthread_mutex_lock(&e->lock);
    bool taken = false;
    for (struct cinf_model *m = e->models; m; m = m->next)
        taken = taken || strcmp(m->name, model->name) == 0;
    for (struct model_load *l = e->loads; l; l = l->next)
        taken = taken || strcmp(l->model->name, model->name) == 0;
    pthread_mutex_unlock(&e->lock);
    if (taken)
        return cinf_fail(CINF_EEXIST, "a model named %s is loaded already", model->name);
    TRY(cinf_meter_add_model(e->meter, model->name, &model->account));
    pthread_mutex_lock(&e->lock);
    load->next = e->loads;
    e->loads = load;
    e->n_loading++;
    pthread_mutex_unlock(&e->lock);
    return CINF_OK;
}

/* Ids that exist in the model but not in its vocabulary (rows added for padding) are never sampled. */
static enum cinf_status find_allowed(struct cinf_model *model)
{
    uint32_t vocab = model->config.vocab_size, missing = 0;
    size_t n;
    uint8_t *allowed = mem_new(vocab / 8 + 1, 1);
    if (!allowed)
        return cinf_fail(CINF_ENOMEM, "no memory for a vocabulary of %u", vocab);
    for (uint32_t id = 0; id < vocab; id++) {
        if (cinf_tokenizer_token(model->tokenizer, (int32_t)id, &n))
            allowed[id / 8] |= (uint8_t)(1u << id % 8);
        else
            missing++;
    }
    if (missing == vocab) {
        mem_free(allowed);
        return cinf_fail(CINF_EFORMAT, "%s: the tokenizer has none of the model's %u tokens", model->folder,
                         vocab);
    }
    if (missing > 0)
        model->allowed = allowed;
    else
        mem_free(allowed);
    return CINF_OK;
}

/* On the caller's thread: everything that needs neither device nor scheduler. */
static enum cinf_status prepare_load(struct model_load *load, const struct cinf_model_options *o,
                                     struct model_stream **loader)
{
    struct cinf_model *model = load->model;
    struct cinf_engine *e = model->engine;
    pthread_mutex_lock(&e->lock);
    uint64_t kv_left = e->kv_memory > e->kv_used ? e->kv_memory - e->kv_used : 0;
    pthread_mutex_unlock(&e->lock);
    struct model_options options = {
        .weights_given = o->weights != CINF_WEIGHTS_AUTO,
        .weights = o->weights == CINF_WEIGHTS_AUTO
                       ? WEIGHTS_F32
                       : (enum weights_type)(o->weights - CINF_WEIGHTS_F32 + WEIGHTS_F32),
        /* Half of what is left, so that the first model leaves room for others. */
        .kv_bytes = kv_left / 2,
        .slots_max = o->slots ? o->slots : SLOTS_DEFAULT,
        .untied_head = o->untied_head
    };
    options.rows_max = e->prefill_rows + options.slots_max;
    if (o->shape) {
        struct cinf_config config;
        TRY(cinf_config_named(&config, o->shape));
        TRY(model_stream_synthetic(loader, &config, 1, &options));
    } else {
        TRY(model_stream_open(loader, o->folder, &options));
        TRY(cinf_tokenizer_open(&model->tokenizer, o->folder));
    }
    model->config = *model_stream_config(*loader);
    model->notes = mem_copy_text(model_stream_notes(*loader));
    if (!model->notes)
        return cinf_fail(CINF_ENOMEM, "no memory for a model");
    return model->tokenizer ? find_allowed(model) : CINF_OK;
}

static void wait_for_change(struct cinf_engine *e)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&e->changed, &e->lock, &until);
}

/* Hands the opened files to the scheduler and waits until the model can serve. */
static enum cinf_status finish_on_device(struct model_load *load, struct model_stream *loader,
                                         const struct cinf_model_options *o)
{
    struct cinf_engine *e = load->model->engine;
    uint64_t total = model_stream_bytes_total(loader);
    pthread_mutex_lock(&e->lock);
    load->loader = loader;
    pthread_cond_signal(&e->work);
    while (!load->done) {
        wait_for_change(e);
        if (o->progress && !load->done) {
            pthread_mutex_unlock(&e->lock);
            o->progress(o->progress_context, atomic_load(&load->bytes_done), total);
            pthread_mutex_lock(&e->lock);
        }
    }
    pthread_mutex_unlock(&e->lock);
    if (load->status != CINF_OK)
        return cinf_fail_again(load->status, load->message);
    if (o->progress)
        o->progress(o->progress_context, total, total);
    return CINF_OK;
}

static enum cinf_status free_loader(struct cinf_engine *e, void *loader)
{
    (void)e;
    model_stream_free(loader);
    return CINF_OK;
}

/* Off the list, if it failed before the scheduler took it off, and gone from the device: by the scheduler,
 * whose device it is, or after it has stopped. */
static void end_load(struct cinf_engine *e, struct model_load *load, struct model_stream *loader)
{
    pthread_mutex_lock(&e->lock);
    for (struct model_load **at = &e->loads; *at; at = &(*at)->next)
        if (*at == load) {
            *at = load->next;
            break;
        }
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    bool freed = run_job(e, free_loader, loader) == CINF_OK;
    pthread_mutex_lock(&e->lock);
    while (!freed && !e->stopped)
        pthread_cond_wait(&e->changed, &e->lock);
    if (!freed)
        model_stream_free(loader);
    e->n_loading--;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

enum cinf_status cinf_model_load(struct cinf_model **out, struct cinf_engine *engine,
                                 const struct cinf_model_options *options)
{
    struct cinf_model_options o = { CINF_MODEL_OPTIONS };
    TRY(versioned_read(&o, sizeof o, options));
    struct model_load load = { 0 };
    TRY(new_model(&load.model, engine, &o));
    struct model_stream *loader = NULL;
    enum cinf_status status = run_job(engine, begin_load, &load);
    if (status == CINF_OK) {
        status = prepare_load(&load, &o, &loader);
        if (status == CINF_OK)
            status = finish_on_device(&load, loader, &o);
        char message[512];
        snprintf(message, sizeof message, "%s", cinf_last_error());
        end_load(engine, &load, loader);
        if (status != CINF_OK)
            cinf_fail_again(status, message);
    }
    if (status != CINF_OK) {
        model_unref(load.model);
        return status;
    }
    *out = load.model;
    return CINF_OK;
}

enum cinf_status cinf_model_find(struct cinf_model **out, struct cinf_engine *e, const char *name)
{
    pthread_mutex_lock(&e->lock);
    struct cinf_model *model = e->models;
    while (model && (model->unloading || strcmp(model->name, name) != 0))
        model = model->next;
    if (model)
        atomic_fetch_add(&model->references, 1);
    pthread_mutex_unlock(&e->lock);
    if (!model)
        return cinf_fail(CINF_ENOTFOUND, "no model named %.*s is loaded", NAME_BYTES_MAX, name);
    *out = model;
    return CINF_OK;
}

uint32_t cinf_model_list(struct cinf_engine *e, struct cinf_model **models, uint32_t max)
{
    uint32_t n = 0;
    pthread_mutex_lock(&e->lock);
    for (struct cinf_model *model = e->models; model; model = model->next) {
        if (model->unloading)
            continue;
        if (n < max) {
            atomic_fetch_add(&model->references, 1);
            models[n] = model;
        }
        n++;
    }
    pthread_mutex_unlock(&e->lock);
    return n;
}

enum cinf_status cinf_model_unload(struct cinf_model *model)
{
    struct cinf_engine *e = model->engine;
    pthread_mutex_lock(&e->lock);
    bool was = model->loaded && !model->unloading;
    model->unloading = true;
    pthread_cond_signal(&e->work);
    while (model->loaded)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    return was ? CINF_OK : cinf_fail(CINF_ECLOSED, "model %s was unloaded already", model->name);
}

void cinf_model_info(const struct cinf_model *model, struct cinf_model_info *info)
{
    struct cinf_engine *e = model->engine;
    struct cinf_model_info whole = { .name = model->name,
                                     .folder = model->folder,
                                     .notes = model->notes,
                                     .account = model->account,
                                     .config = model->config,
                                     .weights = model->weights,
                                     .parameters = model->parameters,
                                     .slots = model->n_slots,
                                     .loaded_at = model->loaded_at,
                                     .weight_bytes = model->weight_bytes,
                                     .greedy_bytes = model->greedy_bytes };
    pthread_mutex_lock(&e->lock);
    whole.loaded = model->loaded && !model->unloading;
    pthread_mutex_unlock(&e->lock);
    versioned_write(info, &whole, sizeof whole);
}

const struct cinf_tokenizer *cinf_model_tokenizer(const struct cinf_model *model)
{
    return model->tokenizer;
}
