/* model.h - a model on a device, whatever its architecture: weights, cache and the prepared program.
 * model_stream.h is how it got there. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/checkpoint.h>

#include "backend.h"

struct model;

void model_free(struct model *model); /* accepts NULL */

const struct cinf_config *model_config(const struct model *model);
enum weights_type model_weights_type(const struct model *model);
uint32_t model_slots(const struct model *model);
uint64_t model_kv_bytes(const struct model *model); /* of all its slots */
uint64_t model_parameters(const struct model *model);

/* One step; see struct batch.  Token ids must be below V, positions below P, slots below model_slots() and
 * rows at most rows_max (asserted). */
enum cinf_status model_run(struct model *model, const struct batch *batch);
enum cinf_status model_wait(struct model *model);
enum cinf_status model_logits(struct model *model, uint32_t i, const float **out);

/* Whether the device picks the best logits, and the calls for devices that do: see struct backend. */
bool model_has_top_k(const struct model *model);
bool model_has_top_k_log_sums(const struct model *model);
enum cinf_status model_allow(struct model *model, const uint8_t *allowed);
enum cinf_status model_top_k(struct model *model, uint32_t i, struct top_k *out);

/* Positions [0, n) of one slot become those of another, different slot (asserted). */
enum cinf_status model_copy_prefix(struct model *model, uint32_t to_slot, uint32_t from_slot, uint32_t n);

/* What `n_rows` rows of one request at positions first_position … cost alone, for the split of a step;
 * `n_logits` of them want logits, or only the best of them. */
struct model_work {
    uint64_t flops;        /* 2 a weight and row, 4D a layer and position attended to, 2DV a row of logits */
    uint64_t weight_bytes; /* read once, whatever the number of rows; without the head's if n_logits == 0 */
    uint64_t kv_bytes;     /* the cache up to the last row read once (the rows share it), n_rows written */
};
struct model_work model_work_of(const struct model *model, uint32_t first_position, uint32_t n_rows,
                                uint32_t n_logits, bool only_best);

/* The bytes that a prefix copy of n positions reads and writes. */
uint64_t model_copy_bytes(const struct model *model, uint32_t n);

#endif
