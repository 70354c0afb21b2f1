/* model_load.c - a load, from the options to a model that can serve.
 *
 * It goes through three hands:
 *
 *     caller's thread     new_model, and begin_load as a call of the scheduler: a record, a name, an account
 *                         open_files: configuration, tokenizer, the tensors' names and shapes
 *                         wait_until_done: hands the open files over and reports progress
 *     scheduler's thread  model_load_run, between two steps: a piece of the weights; at the end the runtime,
 * its slots, and a few timed steps; then the model is in the engine's list caller's thread     end_load:
 * frees the stream, and with it what a failed load has on the device
 *
 * The question a reader will ask: why in pieces of some milliseconds?  Other models are served between them;
 * a load takes seconds, and in one piece would stop their tokens for as long. */
#include "model_load.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "cond_wait.h"
#include "engine_state.h"
#include "fail.h"
#include "handles.h"
#include "mem.h"
#include "memory_gauges.h"
#include "scheduler_call.h"
#include "slots.h"
#include "step.h"
#include "strbuf.h"
#include "versioned.h"

enum {
    SLOTS_DEFAULT = 16,
    SLOTS_MAX = 1024,
    PIECE_NS = 10000000,     /* of a load, between two steps */
    PROGRESS_NS = 100000000, /* between two calls of the caller's progress() */
    TIMED_ROWS = 4,          /* additional rows when their price is measured */
    TIMED_STEPS = 6,
};
static const float ROW_TIME_MIN = 0.01f;

/* ---- On the scheduler's thread ------------------------------------------------------------- */

/* Times one short step, to learn what an additional row takes; *done after the last of them. */
static enum cinf_status time_step(struct model_load *load, bool *done)
{
    static const int32_t tokens[1 + TIMED_ROWS] = { 0 };
    static const uint32_t positions[1 + TIMED_ROWS] = { 0, 1, 2, 3, 4 }, slots[1 + TIMED_ROWS] = { 0 };
    struct model *runtime = load->model->runtime;
    uint8_t wants[1 + TIMED_ROWS];
    memset(wants, model_has_top_k(runtime) ? logits_top_k(1) : LOGITS_ALL, sizeof wants);
    uint32_t more = load->n_timed % 2;
    struct batch batch = { 1 + more * TIMED_ROWS, tokens, positions, slots, wants };
    uint64_t start = clock_monotonic_ns();
    TRY(model_run(runtime, &batch));
    TRY(model_wait(runtime));
    uint64_t ns = clock_monotonic_ns() - start, *min_ns = &load->min_ns[more];
    *min_ns = *min_ns == 0 || ns < *min_ns ? ns : *min_ns;
    *done = ++load->n_timed == TIMED_STEPS;
    if (*done) {
        float row_time = ((float)load->min_ns[1] / (float)load->min_ns[0] - 1) / TIMED_ROWS;
        load->model->row_time = row_time > ROW_TIME_MIN ? row_time : ROW_TIME_MIN;
    }
    return CINF_OK;
}

/* The weights are on the device: the runtime, its slots, and what is known of the model only now. */
static enum cinf_status make_runtime(struct cinf_engine *e, struct model_load *load)
{
    struct cinf_model *model = load->model;
    TRY(model_stream_finish(&model->runtime, load->stream));
    pthread_mutex_lock(&e->lock);
    e->kv_used += model_kv_bytes(model->runtime);
    pthread_mutex_unlock(&e->lock);
    TRY(slots_new(model));
    TRY(step_reserve(&e->step, e->prefill_rows + model->n_slots, model->config.vocab_size));
    if (model->allowed && model_has_top_k(model->runtime))
        TRY(model_allow(model->runtime, model->allowed));
    model->weights = (enum cinf_weights)(model_weights_type(model->runtime) - WEIGHTS_F32 + CINF_WEIGHTS_F32);
    model->parameters = model_parameters(model->runtime);
    model->weight_bytes = model_work_of(model->runtime, 0, 1, 1, false).weight_bytes;
    model->greedy_bytes = model_work_of(model->runtime, 0, 1, 1, true).weight_bytes;
    return CINF_OK;
}

void model_drop_runtime(struct cinf_engine *e, struct cinf_model *model)
{
    slots_free(model);
    if (model->runtime) {
        pthread_mutex_lock(&e->lock);
        e->kv_used -= model_kv_bytes(model->runtime);
        pthread_mutex_unlock(&e->lock);
    }
    model_free(model->runtime);
    model->runtime = NULL;
}

static enum cinf_status load_piece(struct cinf_engine *e, struct model_load *load, bool *done)
{
    const struct cinf_model *model = load->model;
    if (model->runtime)
        return time_step(load, done);
    enum cinf_status status = model_stream_step(load->stream, e->device, PIECE_NS, done);
    atomic_store(&load->bytes_done, model_stream_bytes_done(load->stream));
    if (status != CINF_OK || !*done)
        return status;
    TRY(make_runtime(e, load));
    bool speculates =
        e->device_info.speculation && e->prefill_rows >= TIMED_ROWS && model->config.n_positions > TIMED_ROWS;
    *done = !speculates; /* only speculation needs the timed steps */
    return CINF_OK;
}

/* Does nothing if it is not in the list.  Caller holds engine.lock. */
static void remove_load(struct cinf_engine *e, const struct model_load *load)
{
    for (struct model_load **at = &e->loads; *at; at = &(*at)->next)
        if (*at == load) {
            *at = load->next;
            break;
        }
}

/* Caller holds engine.lock. */
static void list_model(struct cinf_engine *e, struct cinf_model *model)
{
    struct cinf_model **end = &e->models;
    while (*end)
        end = &(*end)->next;
    *end = model;
    model->loaded = true;
    model->loaded_at = (int64_t)time(NULL);
    model_ref(model);
}

/* Caller holds engine.lock. */
static void finish_load(struct cinf_engine *e, struct model_load *load, enum cinf_status status,
                        const char *message)
{
    load->status = status;
    snprintf(load->message, sizeof load->message, "%s", message);
    load->done = true;
    remove_load(e, load);
    pthread_cond_broadcast(&e->changed);
}

struct model_load *model_load_ready(struct cinf_engine *e)
{
    struct model_load *load = e->loads;
    while (load && !load->stream)
        load = load->next;
    return load;
}

void model_load_run(struct cinf_engine *e, struct model_load *load)
{
    struct cinf_model *model = load->model;
    bool done = false;
    cinf_meter_busy(e->meter);
    enum cinf_status status = load_piece(e, load, &done);
    cinf_meter_charge_load(e->meter, model->account);
    if (status == CINF_OK && !done)
        return;
    if (status != CINF_OK) {
        model_drop_runtime(e, model);
    } else {
        cinf_meter_set_loaded(e->meter, model->account, true);
        memory_gauges_update(e);
    }
    pthread_mutex_lock(&e->lock);
    if (status == CINF_OK)
        list_model(e, model);
    finish_load(e, load, status, status == CINF_OK ? "" : cinf_last_error());
    pthread_mutex_unlock(&e->lock);
}

void model_loads_abort(struct cinf_engine *e)
{
    struct model_load *load = e->loads;
    while (load) {
        bool has_runtime = load->model->runtime != NULL;
        if (has_runtime) {
            pthread_mutex_unlock(&e->lock);
            model_drop_runtime(e, load->model);
            pthread_mutex_lock(&e->lock);
        }
        /* While the lock was released a caller may have removed its load. */
        load = has_runtime ? e->loads : load->next;
    }
    while (e->loads)
        finish_load(e, e->loads, CINF_ECLOSED, "the engine is closing");
}

/* ---- On the caller's thread ---------------------------------------------------------------- */

/* The last part of a path: "small" of "models/small/". */
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
    engine_ref(e);
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

/* A model's name is its account's and its handle's, so one is loaded under it at a time.  Caller holds
 * engine.lock. */
static bool is_taken(const struct cinf_engine *e, const char *name)
{
    for (const struct cinf_model *m = e->models; m; m = m->next)
        if (strcmp(m->name, name) == 0)
            return true;
    for (const struct model_load *l = e->loads; l; l = l->next)
        if (strcmp(l->model->name, name) == 0)
            return true;
    return false;
}

/* Opens the account, which must exist before anything is charged to it, and lists the load.  Runs on the
 * scheduler's thread, the only one that adds loads, so the name cannot be taken between the two locks. */
static enum cinf_status begin_load(struct cinf_engine *e, void *context)
{
    struct model_load *load = context;
    struct cinf_model *model = load->model;
    pthread_mutex_lock(&e->lock);
    bool taken = is_taken(e, model->name);
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

/* Ids that exist in the model but not in the tokenizer (rows added for padding) are never sampled. */
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

/* A folder without any tokenizer file is a model of token ids; a tokenizer that is there must open. */
static enum cinf_status open_tokenizer(struct cinf_model *model)
{
    enum cinf_status status = cinf_tokenizer_open(&model->tokenizer, model->folder);
    return status == CINF_ENOTFOUND ? CINF_OK : status;
}

/* What the operator should know, a line each. */
static enum cinf_status write_notes(struct cinf_model *model, const struct model_stream *stream)
{
    struct strbuf notes = { 0 };
    strbuf_puts(&notes, model_stream_notes(stream));
    if (model->tokenizer)
        strbuf_puts(&notes, cinf_tokenizer_notes(model->tokenizer));
    else if (model->folder[0])
        strbuf_puts(&notes, "there is no tokenizer file: prompts are token ids, and so are the answers\n");
    if (!notes.failed)
        model->notes = mem_copy_text(notes.text ? notes.text : "");
    strbuf_free(&notes);
    return model->notes ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for a model");
}

/* Everything that needs neither the device nor the scheduler. */
static enum cinf_status open_files(struct model_stream **stream, struct cinf_model *model,
                                   const struct cinf_model_options *o)
{
    struct cinf_engine *e = model->engine;
    pthread_mutex_lock(&e->lock);
    uint64_t kv_left = e->kv_memory > e->kv_used ? e->kv_memory - e->kv_used : 0;
    pthread_mutex_unlock(&e->lock);
    struct model_options options = { .weights_given = o->weights != CINF_WEIGHTS_AUTO,
                                     .weights = WEIGHTS_F32,
                                     /* Half of what is left, so that there is room for other models. */
                                     .kv_bytes = kv_left / 2,
                                     .slots_max = o->slots ? o->slots : SLOTS_DEFAULT,
                                     .untied_head = o->untied_head };
    if (options.weights_given)
        options.weights = (enum weights_type)(o->weights - CINF_WEIGHTS_F32 + WEIGHTS_F32);
    options.rows_max = e->prefill_rows + options.slots_max;
    if (o->shape) {
        struct cinf_config config;
        TRY(cinf_config_named(&config, o->shape));
        TRY(model_stream_synthetic(stream, &config, 1, &options));
    } else {
        TRY(model_stream_open(stream, o->folder, &options));
        TRY(open_tokenizer(model));
    }
    model->config = *model_stream_config(*stream);
    TRY(write_notes(model, *stream));
    return model->tokenizer ? find_allowed(model) : CINF_OK;
}

/* Hands the opened files to the scheduler and waits until the model can serve. */
static enum cinf_status wait_until_done(struct model_load *load, struct model_stream *stream,
                                        const struct cinf_model_options *o)
{
    struct cinf_engine *e = load->model->engine;
    uint64_t total = model_stream_bytes_total(stream);
    pthread_mutex_lock(&e->lock);
    load->stream = stream;
    pthread_cond_signal(&e->work);
    while (!load->done) {
        cond_wait_until(&e->changed, &e->lock, clock_monotonic_ns() + PROGRESS_NS);
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

static enum cinf_status free_stream(struct cinf_engine *e, void *stream)
{
    (void)e;
    model_stream_free(stream);
    return CINF_OK;
}

/* Removes a load that failed before the scheduler finished it, and frees the stream, which may have memory on
 * the device: on the scheduler's thread, which owns the device, or after that thread has stopped. */
static void end_load(struct cinf_engine *e, struct model_load *load, struct model_stream *stream)
{
    pthread_mutex_lock(&e->lock);
    remove_load(e, load);
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    bool freed = scheduler_call(e, free_stream, stream) == CINF_OK;
    pthread_mutex_lock(&e->lock);
    while (!freed && !e->stopped)
        pthread_cond_wait(&e->changed, &e->lock);
    if (!freed)
        model_stream_free(stream);
    e->n_loading--;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static enum cinf_status load_model(struct model_load *load, const struct cinf_model_options *o)
{
    struct cinf_engine *e = load->model->engine;
    struct model_stream *stream = NULL;
    char message[sizeof load->message];
    TRY(scheduler_call(e, begin_load, load));
    enum cinf_status status = open_files(&stream, load->model, o);
    if (status == CINF_OK)
        status = wait_until_done(load, stream, o);
    snprintf(message, sizeof message, "%s", cinf_last_error());
    end_load(e, load, stream);
    return status == CINF_OK ? CINF_OK : cinf_fail_again(status, message);
}

enum cinf_status cinf_model_load(struct cinf_model **out, struct cinf_engine *engine,
                                 const struct cinf_model_options *options)
{
    struct cinf_model_options o = { CINF_MODEL_OPTIONS };
    TRY(versioned_read(&o, sizeof o, options));
    struct model_load load = { 0 };
    TRY(new_model(&load.model, engine, &o));
    enum cinf_status status = load_model(&load, &o);
    if (status == CINF_OK)
        *out = load.model;
    else
        model_unref(load.model);
    return status;
}
