/* model_load.c - a load, from the options to a model that can serve.
 *
 * It goes through four hands:
 *
 *     caller's thread     new_model, and begin_load as a call of the scheduler: a record, a name, an account
 *                         open_files: configuration, tokenizer, the tensors' names and shapes
 *                         wait_until_done: hands the open files over and reports progress
 *     scheduler's thread  model_load_run, between two steps: whether memory has room; a piece of the weights;
 *                         at the end the runtime, its slots, and a few timed steps
 *     caller's thread     check_unchanged: the files are still those that were opened
 *     scheduler's thread  list_load: the model is in the engine's list, in the place of one that it replaces
 *
 * Up to the last of these nothing that serves has been touched, so a load that fails at any point leaves the
 * model that it should have replaced as it was.  end_load, on the caller's thread, frees the stream, and what
 * a failed load has on the device.
 *
 * The question a reader will ask: why in pieces of some milliseconds?  Other models are served between them;
 * a load takes seconds, and in one piece would stop their tokens for as long. */
#include "model_load.h"

#include <inttypes.h>
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
#include "memory_room.h"
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

/* A second copy of a model must not be bought with slots of the first. */
static enum cinf_status check_slots(const struct model_load *load, const struct model_plan *plan)
{
    uint64_t wanted = load->kv_bytes / plan->slot_bytes;
    if (plan->slots >= load->replaced_slots || plan->slots >= wanted)
        return CINF_OK;
    return cinf_fail(CINF_ENOMEM,
                     "beside the model that it replaces there is room for %u slots of %" PRIu64
                     " bytes in the memory of the caches, and that model has %u",
                     plan->slots, plan->slot_bytes, load->replaced_slots);
}

/* Whether the model fits beside those that are loaded; the first may take what it can get. */
static enum cinf_status check_room(struct cinf_engine *e, struct model_load *load)
{
    struct model_plan plan = model_stream_plan(load->stream, e->device);
    pthread_mutex_lock(&e->lock);
    bool first = !e->models;
    pthread_mutex_unlock(&e->lock);
    enum cinf_status status = load->replaced_kv ? check_slots(load, &plan) : CINF_OK;
    if (status == CINF_OK && !first)
        status = memory_room_check(e, plan.weight_bytes + plan.slots * plan.slot_bytes);
    load->planned = status == CINF_OK;
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "%s: ", load->model->folder);
}

static enum cinf_status load_piece(struct cinf_engine *e, struct model_load *load, bool *done)
{
    const struct cinf_model *model = load->model;
    if (model->runtime)
        return time_step(load, done);
    if (!load->planned)
        TRY(check_room(e, load));
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

/* The model that is found by that name, or NULL.  Caller holds engine.lock. */
static struct cinf_model *find_named(const struct cinf_engine *e, const char *name)
{
    struct cinf_model *model = e->models;
    while (model && (model->replaced_ns || strcmp(model->name, name) != 0))
        model = model->next;
    return model;
}

/* Caller holds engine.lock. */
static void list_model(struct cinf_engine *e, struct cinf_model *model)
{
    struct cinf_model *old = find_named(e, model->name), **at = &e->models;
    while (*at && *at != old)
        at = &(*at)->next;
    model->next = old;
    *at = model;
    if (old)
        old->replaced_ns = clock_monotonic_ns();
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
    pthread_cond_broadcast(&e->changed);
}

struct model_load *model_load_ready(struct cinf_engine *e)
{
    struct model_load *load = e->loads;
    while (load && (!load->stream || load->done))
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
    if (status != CINF_OK)
        model_drop_runtime(e, model);
    pthread_mutex_lock(&e->lock);
    if (status != CINF_OK)
        remove_load(e, load);
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
    while ((load = e->loads)) {
        remove_load(e, load);
        /* One that is done waits to be listed, and its caller reads what it came to without the lock. */
        if (!load->done)
            finish_load(e, load, CINF_ECLOSED, "the engine is closing");
    }
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

/* A model's name is its account's and its handle's, so one is found under it at a time.  Caller holds
 * engine.lock. */
static bool is_taken(const struct cinf_engine *e, const char *name, bool replace)
{
    if (!replace && find_named(e, name))
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
    bool taken = is_taken(e, model->name, load->replace);
    const struct cinf_model *old = load->replace ? find_named(e, model->name) : NULL;
    pthread_mutex_unlock(&e->lock);
    if (taken)
        return cinf_fail(CINF_EEXIST, "a model named %s is loaded already, or is being loaded", model->name);
    if (old) {
        load->replaced_kv = model_kv_bytes(old->runtime);
        load->replaced_slots = old->n_slots;
    }
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

/* What the model's cache may take: half of what is left, so that there is room for other models.  One that
 * replaces another gets as much as if that one were gone, as far as there is so much. */
static uint64_t kv_bytes_for(struct cinf_engine *e, struct model_load *load)
{
    pthread_mutex_lock(&e->lock);
    uint64_t left = e->kv_memory > e->kv_used ? e->kv_memory - e->kv_used : 0;
    pthread_mutex_unlock(&e->lock);
    load->kv_bytes = (left + load->replaced_kv) / 2;
    if (load->kv_bytes < load->replaced_kv)
        load->kv_bytes = load->replaced_kv;
    return load->kv_bytes < left ? load->kv_bytes : left;
}

/* Everything that needs neither the device nor the scheduler. */
static enum cinf_status open_files(struct model_stream **stream, struct model_load *load,
                                   const struct cinf_model_options *o)
{
    struct cinf_model *model = load->model;
    struct cinf_engine *e = model->engine;
    struct model_options options = { .weights_given = o->weights != CINF_WEIGHTS_AUTO,
                                     .weights = WEIGHTS_F32,
                                     .kv_bytes = kv_bytes_for(e, load),
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
        TRY(cinf_files_identify(model->fingerprint, model->identity, o->folder));
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

/* Weights of one version with the tokenizer of another, or half of each, must not be served. */
static enum cinf_status check_unchanged(const struct cinf_model *model)
{
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT];
    if (!*model->identity)
        return CINF_OK;
    TRY(cinf_files_identify(fingerprint, identity, model->folder));
    if (strcmp(identity, model->identity) != 0)
        return cinf_fail(CINF_EIO, "%s: its files changed while they were loaded", model->folder);
    return CINF_OK;
}

/* On the scheduler's thread. */
static enum cinf_status list_load(struct cinf_engine *e, void *context)
{
    struct model_load *load = context;
    cinf_meter_set_loaded(e->meter, load->model->account, true);
    memory_gauges_update(e);
    pthread_mutex_lock(&e->lock);
    remove_load(e, load);
    list_model(e, load->model);
    pthread_mutex_unlock(&e->lock);
    return CINF_OK;
}

struct leftovers {
    struct cinf_model *model; /* NULL: it is listed, and keeps its runtime */
    struct model_stream *stream;
};

/* On the scheduler's thread. */
static enum cinf_status free_leftovers(struct cinf_engine *e, void *context)
{
    struct leftovers *left = context;
    model_stream_free(left->stream);
    if (left->model)
        model_drop_runtime(e, left->model);
    return CINF_OK;
}

/* Removes a load that failed before it was listed, and frees the stream and a runtime that nothing will use,
 * which have memory on the device: on the scheduler's thread, which owns the device, or after that thread has
 * stopped; it has freed the runtime then. */
static void end_load(struct cinf_engine *e, struct model_load *load, struct model_stream *stream, bool listed)
{
    pthread_mutex_lock(&e->lock);
    remove_load(e, load);
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    struct leftovers left = { listed ? NULL : load->model, stream };
    bool freed = scheduler_call(e, free_leftovers, &left) == CINF_OK;
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
    enum cinf_status status = open_files(&stream, load, o);
    if (status == CINF_OK)
        status = wait_until_done(load, stream, o);
    if (status == CINF_OK)
        status = check_unchanged(load->model);
    if (status == CINF_OK)
        status = scheduler_call(e, list_load, load);
    snprintf(message, sizeof message, "%s", cinf_last_error());
    end_load(e, load, stream, status == CINF_OK);
    return status == CINF_OK ? CINF_OK : cinf_fail_again(status, message);
}

enum cinf_status cinf_model_load(struct cinf_model **out, struct cinf_engine *engine,
                                 const struct cinf_model_options *options)
{
    struct cinf_model_options o = { CINF_MODEL_OPTIONS };
    TRY(versioned_read(&o, sizeof o, options));
    struct model_load load = { .replace = o.replace };
    TRY(new_model(&load.model, engine, &o));
    enum cinf_status status = load_model(&load, &o);
    if (status == CINF_OK)
        *out = load.model;
    else
        model_unref(load.model);
    return status;
}
