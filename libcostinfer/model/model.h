/* model.h - GPT-2 as a program over a checkpoint's tensors: what binds names to meaning, and the only file
 * that knows the architecture (Radford et al. 2019: pre-norm transformer, learned positions, tied head). */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/checkpoint.h>

#include "backend.h"

struct model;        /* a model on a device: weights, cache and the prepared program */
struct model_stream; /* a model on its way there */

struct model_options {
    bool weights_given; /* otherwise what the checkpoint stores, as far as the device can */
    enum weights_type weights;
    uint64_t kv_bytes;  /* upper bound of the cache */
    uint32_t slots_max; /* no more slots than this, whatever fits; 0: 64 */
    uint32_t rows_max;  /* rows of the largest step */
    bool untied_head;   /* take a lm_head.weight that differs from the embeddings, although tied */
};

/* Opens and validates: reads config.json and every tensor's name and shape, allocates nothing on the device.
 * May run on any thread.  `folder` is copied. */
enum cinf_status model_stream_open(struct model_stream **out, const char *folder,
                                   const struct model_options *options);

/* The same for a model of that shape whose weights are made up (normal, standard deviation 0.02, around 1 for
 * the gains of norms, around 0 otherwise; from `seed`): for benchmarks. */
enum cinf_status model_stream_synthetic(struct model_stream **out, const struct cinf_config *config,
                                        uint64_t seed, const struct model_options *options);

/* Notes for the operator ("lm_head.weight differs from wte.weight and is ignored …"), a line feed after each,
 * or "". */
const char *model_stream_notes(const struct model_stream *loader);

/* Of config.json, but vocab_size is V, the rows of the token embeddings: padding may have made it larger, and
 * the tokenizer knows fewer.  Not after model_stream_finish(). */
const struct cinf_config *model_stream_config(const struct model_stream *loader);
uint64_t model_stream_bytes_total(const struct model_stream *loader);
uint64_t model_stream_bytes_done(const struct model_stream *loader);

/* The next piece of work, about `budget_ns` long and at least a chunk of about a megabyte, on the thread that
 * owns the device.  *done when nothing is left.  The first call takes the device's memory: CINF_ENOMEM when
 * kv_bytes is less than one slot.  After a failure, and from the first call on, the loader can be freed only
 * on that thread; a failed one can do nothing else. */
enum cinf_status model_stream_step(struct model_stream *loader, struct device *device, uint64_t budget_ns,
                                   bool *done);

/* Takes the finished model out of the loader. */
enum cinf_status model_stream_finish(struct model **out, struct model_stream *loader);
void model_stream_free(struct model_stream *loader); /* at any stage; accepts NULL */

void model_free(struct model *model); /* accepts NULL */

const struct cinf_config *model_config(const struct model *model);
enum weights_type model_weights_type(const struct model *model);
uint32_t model_slots(const struct model *model);
uint64_t model_kv_bytes(const struct model *model); /* of all its slots */
uint64_t model_parameters(const struct model *model);

/* One step; see struct batch.  Token ids must be below V, positions below P, slots below model_slots() and
 * rows at most rows_max (asserted).  model_copy_prefix() is between two different slots. */
enum cinf_status model_run(struct model *model, const struct batch *batch);
enum cinf_status model_wait(struct model *model);
enum cinf_status model_logits(struct model *model, uint32_t i, const float **out);

/* Whether the device picks the best logits, and the calls that are for such devices: see struct backend. */
bool model_picks(const struct model *model);
bool model_picks_log_sums(const struct model *model);
enum cinf_status model_allow(struct model *model, const uint8_t *allowed);
enum cinf_status model_picked(struct model *model, uint32_t i, struct picked *out);

enum cinf_status model_copy_prefix(struct model *model, uint32_t to_slot, uint32_t from_slot, uint32_t n);

/* What rows cost alone, for the split of a step: `n_rows` rows of one request at positions first…, `n_logits`
 * of which want logits, or only the best of them. */
struct model_work {
    uint64_t flops;        /* 2 a weight and row, 4D a layer and position attended to, 2DV a row of logits */
    uint64_t weight_bytes; /* read once, whatever the number of rows; without the head's if n_logits == 0 */
    uint64_t kv_bytes;     /* the timeline up to the last row read once (the rows share it), n_rows written */
};
struct model_work model_work_of(const struct model *model, uint32_t first_position, uint32_t n_rows,
                                uint32_t n_logits, bool only_best);

/* The bytes that a prefix copy of n positions reads and writes. */
uint64_t model_copy_bytes(const struct model *model, uint32_t n);

#endif
