/* model_stream.h - a model on its way to a device, in pieces that leave room for other work between them. */
#ifndef MODEL_STREAM_H
#define MODEL_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/checkpoint.h>

#include "backend.h"
#include "model.h"

struct model_stream;

struct model_options {
    bool weights_given; /* otherwise the type that the checkpoint stores, or f32 where the device lacks it */
    enum weights_type weights;
    uint64_t kv_bytes;  /* upper bound of the cache */
    uint32_t slots_max; /* no more slots than this, however large kv_bytes is; 0: 64 */
    uint32_t rows_max;  /* rows of the largest step */
    bool untied_head;   /* take a head that differs from the embeddings, although config.json ties them */
};

/* Opens and validates: reads config.json and every tensor's name and shape, allocates nothing on the device.
 * May run on any thread.  `folder` is copied. */
enum cinf_status model_stream_open(struct model_stream **out, const char *folder,
                                   const struct model_options *options);

/* The same for synthetic weights in a model of that shape, for benchmarks: normal, standard deviation 0.02,
 * around 1 for the gains of norms and around 0 otherwise, determined by `seed`. */
enum cinf_status model_stream_synthetic(struct model_stream **out, const struct cinf_config *config,
                                        uint64_t seed, const struct model_options *options);

/* Notes for the operator ("lm_head.weight differs from wte.weight and is ignored …"), a line feed after each,
 * or "". */
const char *model_stream_notes(const struct model_stream *stream);

/* As in config.json, but vocab_size is V, the rows of the token embeddings: they may be padded beyond the
 * tokens that config.json and the tokenizer know.  Not after model_stream_finish(). */
const struct cinf_config *model_stream_config(const struct model_stream *stream);
uint64_t model_stream_bytes_total(const struct model_stream *stream);
uint64_t model_stream_bytes_done(const struct model_stream *stream);

/* What the model will take on the device: its weights at least, a slot of its cache, and how many slots the
 * options allow.  On the thread that owns the device. */
struct model_plan {
    uint64_t weight_bytes, slot_bytes;
    uint32_t slots;
};
struct model_plan model_stream_plan(const struct model_stream *stream, struct device *device);

/* Does the next piece of work, about `budget_ns` long and at least a chunk of about a megabyte, on the thread
 * that owns the device.  *done when nothing is left.  The first call takes the device's memory: CINF_ENOMEM
 * when kv_bytes is less than one slot.  From the first call on, the stream may be freed only on that thread;
 * after a failure it can do nothing else. */
enum cinf_status model_stream_step(struct model_stream *stream, struct device *device, uint64_t budget_ns,
                                   bool *done);

/* Takes the finished model out of the stream. */
enum cinf_status model_stream_finish(struct model **out, struct model_stream *stream);
void model_stream_free(struct model_stream *stream); /* at any stage; accepts NULL */

#endif
