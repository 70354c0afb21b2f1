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

/* The same for a model of that shape whose weights are made up (normal, standard deviation 0.02, from
 * `seed`): for benchmarks. */
enum cinf_status gpt2_load_synthetic(struct gpt2_loader **out, const struct cinf_config *config,
                                     uint64_t seed, const struct gpt2_options *options);

/* Notes for the operator ("lm_head.weight differs from wte.weight and is ignored …"), or "". */
const char *gpt2_load_notes(const struct gpt2_loader *loader);
const struct cinf_config *gpt2_load_config(const struct gpt2_loader *loader);
uint64_t gpt2_load_bytes_total(const struct gpt2_loader *loader);
uint64_t gpt2_load_bytes_done(const struct gpt2_loader *loader);

/* The next piece of work, at most about `budget_ns` long, on the thread that owns the device.  *done when
 * nothing is left. */
enum cinf_status gpt2_load_step(struct gpt2_loader *loader, struct device *device, uint64_t budget_ns,
                                bool *done);

/* Takes the finished model out of the loader. */
enum cinf_status gpt2_load_finish(struct gpt2 **out, struct gpt2_loader *loader);
void gpt2_load_free(struct gpt2_loader *loader); /* at any stage; accepts NULL */

void gpt2_free(struct gpt2 *model); /* accepts NULL */

const struct cinf_config *gpt2_config(const struct gpt2 *model);
enum weights_type gpt2_weights_type(const struct gpt2 *model);
uint32_t gpt2_slots(const struct gpt2 *model);
uint64_t gpt2_parameters(const struct gpt2 *model);

/* One step; see struct batch.  Token ids must be below V and positions below P (asserted). */
enum cinf_status gpt2_run(struct gpt2 *model, const struct batch *batch);
enum cinf_status gpt2_wait(struct gpt2 *model);
enum cinf_status gpt2_logits(struct gpt2 *model, uint32_t i, const float **out);
enum cinf_status gpt2_copy_prefix(struct gpt2 *model, uint32_t to_slot, uint32_t from_slot, uint32_t n);

/* What rows cost alone, for the split of a step: floating-point operations and cache bytes of `n_rows` rows
 * of one request at positions first…, `n_logits` of which want logits. */
struct gpt2_work {
    uint64_t flops;
    uint64_t weight_bytes; /* read once, whatever the number of rows */
    uint64_t kv_bytes;
};
struct gpt2_work gpt2_work_of(const struct gpt2 *model, uint32_t first_position, uint32_t n_rows,
                              uint32_t n_logits);

/* The bytes that a prefix copy of n positions reads and writes. */
uint64_t gpt2_copy_bytes(const struct gpt2 *model, uint32_t n);

#endif
