/* model_steps.h - a model below the engine: loading one on any device, and feeding it tokens. */
#ifndef MODEL_STEPS_H
#define MODEL_STEPS_H

#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "model.h"
#include "model_stream.h"
#include "support.h"

enum { DEVICES_MAX = 6 }; /* a build has fewer */
enum { ROWS_MAX = 32 };

static const struct model_options usual = { .kv_bytes = 1 << 30, .slots_max = 4, .rows_max = ROWS_MAX };

static inline struct device *open_device(const char *name)
{
    struct device *device = NULL;
    char reason[DEVICE_REASON_MAX];
    ck_ok(device_open(&device, name, NULL, reason));
    return device;
}

/* Returns the build's device of that index, or NULL after the last; if CINF_TEST_DEVICE names one, only that
 * one.
 */
static inline struct device *open_listed(uint32_t index)
{
    const char *only = getenv("CINF_TEST_DEVICE");
    if (only)
        return index == 0 ? open_device(only) : NULL;
    ck_assert_ptr_null(device_list(DEVICES_MAX));
    return device_list(index) ? open_device(device_list(index)) : NULL;
}

static inline struct model *load_all(struct model_stream *stream, struct device *device)
{
    struct model *model = NULL;
    for (bool done = false; !done;)
        ck_ok(model_stream_step(stream, device, 1000000, &done));
    ck_ok(model_stream_finish(&model, stream));
    model_stream_free(stream);
    return model;
}

static inline struct model *load(struct device *device, const char *folder,
                                 const struct model_options *options)
{
    struct model_stream *stream = NULL;
    ck_ok(model_stream_open(&stream, folder, options));
    return load_all(stream, device);
}

/* The rows of one or more requests that will form a batch. */
struct rows {
    uint32_t n;
    int32_t tokens[ROWS_MAX];
    uint32_t positions[ROWS_MAX], slots[ROWS_MAX];
    uint8_t wants_logits[ROWS_MAX];
};

static inline void add_row(struct rows *r, uint32_t slot, uint32_t position, int32_t token, bool wants_logits)
{
    ck_assert_uint_lt(r->n, ROWS_MAX);
    r->tokens[r->n] = token;
    r->positions[r->n] = position;
    r->slots[r->n] = slot;
    r->wants_logits[r->n++] = wants_logits;
}

static inline void run(struct model *model, const struct rows *r)
{
    ck_ok(model_run(model, &(struct batch){ .n_rows = r->n,
                                            .tokens = r->tokens,
                                            .positions = r->positions,
                                            .slots = r->slots,
                                            .wants_logits = r->wants_logits }));
    ck_ok(model_wait(model));
}

static inline const float *logits_of(struct model *model, uint32_t i)
{
    const float *logits = NULL;
    ck_ok(model_logits(model, i, &logits));
    return logits;
}

/* Tokens ids[from..to) of one sequence, in steps of at most `chunk` rows; logits of all of them are copied to
 * out[from..to)[V] unless it is NULL. */
static inline void feed(struct model *model, uint32_t slot, const int32_t *ids, uint32_t from, uint32_t to,
                        uint32_t chunk, float *out)
{
    uint32_t vocab = model_config(model)->vocab_size;
    while (from < to) {
        struct rows r = { 0 };
        uint32_t first = from;
        for (; from < to && r.n < chunk; from++)
            add_row(&r, slot, from, ids[from], out != NULL);
        run(model, &r);
        for (uint32_t i = 0; out && i < r.n; i++)
            memcpy(out + (size_t)(first + i) * vocab, logits_of(model, i), vocab * sizeof *out);
    }
}

#endif
