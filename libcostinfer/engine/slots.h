/* slots.h - the slots of a model's KV cache: which request gets which, and what a new prompt can take over
 * from an earlier one.  The scheduler's thread only. */
#ifndef SLOTS_H
#define SLOTS_H

#include <stdint.h>

#include <costinfer/meter.h>

struct cinf_engine;
struct cinf_model;
struct cinf_request;
struct sequence;

/* One place in a model's KV cache. */
struct slot {
    struct sequence *user; /* NULL: free, but its keys and values are still there */
    int32_t *tokens;       /* [P] the tokens whose keys and values it holds */
    uint32_t n_tokens;
    char payer[CINF_PAYER_BYTES_MAX + 1]; /* of the request that left them */
    uint64_t last_used;                   /* engine.n_steps then, for choosing which to evict; 0: never */
};

/* The records of a loaded model's slots.  After a failure slots_free() frees those there are. */
enum cinf_status slots_new(struct cinf_model *model);
void slots_free(struct cinf_model *model);

uint32_t slot_index(const struct cinf_model *model, const struct slot *slot);

/* How many slots the request needs to go on: one for each sequence that has not ended. */
uint32_t slots_needed(const struct cinf_request *r);
uint32_t slots_held(const struct cinf_request *r);

/* Gives each of these sequences a slot, of which there must be enough, and takes over what slots of
 * the same payer hold of their tokens, or any slots if the engine shares them.  The rest is to be computed:
 * the prompt, and after a pause what else the request has given up. */
void slots_take(struct cinf_engine *e, struct cinf_request *r);
void slots_release(struct cinf_engine *e, struct cinf_request *r); /* does nothing if it has none */

/* The first n positions of `to` become those of `from`; the request pays for the copy. */
enum cinf_status slot_copy(struct cinf_request *r, struct slot *to, const struct slot *from, uint32_t n);

#endif
