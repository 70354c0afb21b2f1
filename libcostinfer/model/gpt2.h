/* gpt2.h - GPT-2 as a program over a checkpoint's tensors: what binds names to meaning, and the only file
 * that knows the architecture (Radford et al. 2019: pre-norm transformer, learned positions, tied head). */
#ifndef GPT2_H
#define GPT2_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/checkpoint.h>

#include "backend.h"

struct gpt2;        /* a model on a device: weights, cache and the prepared program */
struct gpt2_loader; /* a model on its way there */

struct gpt2_options {
    bool weights_given; /* otherwise what the checkpoint stores, as far as the device can */
    enum weights_type weights;
    uint64_t kv_bytes;  /* upper bound of the cache */
    uint32_t slots_max; /* no more slots than this, whatever fits; 0: 64 */
    uint32_t rows_max;  /* rows of the largest step */
    bool untied_head;   /* take a lm_head.weight that differs from the embeddings, although tied */
};

/* Opens and validates: reads config.json and every tensor's name and shape, allocates nothing on the device.
 * May run on any thread.  `folder` is copied. */
enum cinf_status gpt2_load_open(struct gpt2_loader **out, const char *folder,
                                const struct gpt2_options *options);

/* The same for a model of that shape whose weights are made up (normal, standard deviation 0.02, around 1 for
 * the gains of norms, around 0 otherwise; from `seed`): for benchmarks. */
enum cinf_status gpt2_load_synthetic(struct gpt2_loader **out, const struct cinf_config *config,
                                     uint64_t seed, const struct gpt2_options *options);

/* Notes for the operator ("lm_head.weight differs from wte.weight and is ignored …"), a line feed after each,
 * or "". */
const char *gpt2_load_notes(const struct gpt2_loader *loader);

/* Of config.json, but vocab_size is V, the rows of the token embeddings: padding may have made it larger, and
 * the tokenizer knows fewer.  Not after gpt2_load_finish(). */
const struct cinf_config *gpt2_load_config(const struct gpt2_loader *loader);
uint64_t gpt2_load_bytes_total(const struct gpt2_loader *loader);
uint64_t gpt2_load_bytes_done(const struct gpt2_loader *loader);

/* The next piece of work, about `budget_ns` long and at least a chunk of about a megabyte, on the thread that
 * owns the device.  *done when nothing is left.  The first call takes the device's memory: CINF_ENOMEM when
 * kv_bytes is less than one slot.  After a failure, and from the first call on, the loader can be freed only
 * on that thread; a failed one can do nothing else. */
enum cinf_status gpt2_load_step(struct gpt2_loader *loader, struct device *device, uint64_t budget_ns,
                                bool *done);

/* Takes the finished model out of the loader. */
enum cinf_status gpt2_load_finish(struct gpt2 **out, struct gpt2_loader *loader);
void gpt2_load_free(struct gpt2_loader *loader); /* at any stage; accepts NULL */

void gpt2_free(struct gpt2 *model); /* accepts NULL */

const struct cinf_config *gpt2_config(const struct gpt2 *model);
enum weights_type gpt2_weights_type(const struct gpt2 *model);
uint32_t gpt2_slots(const struct gpt2 *model);
uint64_t gpt2_kv_bytes(const struct gpt2 *model); /* of all its slots */
uint64_t gpt2_parameters(const struct gpt2 *model);

/* One step; see struct batch.  Token ids must be below V, positions below P, slots below gpt2_slots() and
 * rows at most rows_max (asserted).  gpt2_copy_prefix() is between two different slots. */
enum cinf_status gpt2_run(struct gpt2 *model, const struct batch *batch);
enum cinf_status gpt2_wait(struct gpt2 *model);
enum cinf_status gpt2_logits(struct gpt2 *model, uint32_t i, const float **out);

/* Whether the device picks the best logits, and the calls that are for such devices: see struct backend. */
bool gpt2_picks(const struct gpt2 *model);
bool gpt2_picks_log_sums(const struct gpt2 *model);
enum cinf_status gpt2_allow(struct gpt2 *model, const uint8_t *allowed);
enum cinf_status gpt2_picked(struct gpt2 *model, uint32_t i, struct picked *out);

enum cinf_status gpt2_copy_prefix(struct gpt2 *model, uint32_t to_slot, uint32_t from_slot, uint32_t n);

/* What rows cost alone, for the split of a step: `n_rows` rows of one request at positions first…, `n_logits`
 * of which want logits, or only the best of them. */
struct gpt2_work {
    uint64_t flops;        /* 2 a weight and row, 4D a layer and position attended to, 2DV a row of logits */
    uint64_t weight_bytes; /* read once, whatever the number of rows; without the head's if n_logits == 0 */
    uint64_t kv_bytes;     /* the timeline up to the last row read once (the rows share it), n_rows written */
};
struct gpt2_work gpt2_work_of(const struct gpt2 *model, uint32_t first_position, uint32_t n_rows,
                              uint32_t n_logits, bool only_best);

/* The bytes that a prefix copy of n positions reads and writes. */
uint64_t gpt2_copy_bytes(const struct gpt2 *model, uint32_t n);

#endif
