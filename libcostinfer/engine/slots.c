/* slots.c - see slots.h.
 *
 * The question a reader will ask: why does a slot keep its tokens after its request has ended?  Its keys and
 * values stay valid until they are overwritten, and a later prompt that begins with the same tokens copies
 * them instead of computing them, or goes on in that very slot.  Only the same payer's does, or a reader of
 * cached_tokens could guess another's prompts token by token; `share_prefixes` gives that up for speed. */
#include "slots.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "engine_state.h"
#include "fail.h"
#include "mem.h"

enum { PREFIX_MIN = 4 }; /* copying fewer tokens is not worth a call */

enum cinf_status slots_new(struct cinf_model *model)
{
    uint32_t n = model_slots(model->runtime), positions = model->config.n_positions;
    model->slots = mem_new(n, sizeof *model->slots);
    if (!model->slots)
        return cinf_fail(CINF_ENOMEM, "no memory for %u slots", n);
    model->n_slots = n;
    atomic_store(&model->n_free, n);
    for (uint32_t i = 0; i < n; i++) {
        model->slots[i].tokens = mem_new(positions, sizeof *model->slots[i].tokens);
        if (!model->slots[i].tokens)
            return cinf_fail(CINF_ENOMEM, "no memory for %u slots of %u tokens", n, positions);
    }
    return CINF_OK;
}

void slots_free(struct cinf_model *model)
{
    for (uint32_t i = 0; model->slots && i < model->n_slots; i++)
        mem_free(model->slots[i].tokens);
    mem_free(model->slots);
    model->slots = NULL;
}

/* True if `a` should be evicted before `b`.  Prefer a slot with no reusable prefix, and among those the most
 * recently used: its pages are already resident, while a slot that was never used costs a page fault every
 * few tokens.  Otherwise evict the least recently used. */
static bool evict_first(const struct slot *a, const struct slot *b, bool reuse)
{
    bool a_useless = !reuse || a->n_tokens < PREFIX_MIN, b_useless = !reuse || b->n_tokens < PREFIX_MIN;
    if (a_useless != b_useless)
        return a_useless;
    return a_useless ? a->last_used > b->last_used : a->last_used < b->last_used;
}

static struct slot *free_slot(const struct cinf_engine *e, struct cinf_model *model)
{
    struct slot *best = NULL;
    for (uint32_t i = 0; i < model->n_slots; i++) {
        struct slot *slot = &model->slots[i];
        if (!slot->user && (!best || evict_first(slot, best, e->prefix_reuse)))
            best = slot;
    }
    return best;
}

uint32_t slots_needed(const struct cinf_request *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        n += r->sequences[i].finish == CINF_FINISH_RUNNING;
    return n;
}

uint32_t slot_index(const struct cinf_model *model, const struct slot *slot)
{
    return (uint32_t)(slot - model->slots);
}

uint32_t slots_held(const struct cinf_request *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        n += r->sequences[i].slot != NULL;
    return n;
}

/* Whether the request may take over what the slot holds. */
static bool may_see(const struct cinf_request *r, const struct slot *slot)
{
    return r->model->engine->share_prefixes || strcmp(slot->payer, r->payer) == 0;
}

/* The slot that shares the longest prefix with the sequence's first `max` tokens, its own among equals, and
 * the length of that prefix; NULL if copying it is not worth a call. */
static struct slot *longest_prefix(const struct sequence *seq, uint32_t max, uint32_t *length)
{
    const struct cinf_model *model = seq->request->model;
    struct slot *best = NULL;
    *length = PREFIX_MIN - 1;
    for (uint32_t i = 0; i < model->n_slots; i++) {
        struct slot *slot = &model->slots[i];
        if (!may_see(seq->request, slot))
            continue;
        uint32_t end = slot->n_tokens < max ? slot->n_tokens : max, n = 0;
        while (n < end && slot->tokens[n] == seq->ids[n])
            n++;
        if (n > *length || (n == *length && best && slot == seq->slot)) {
            *length = n;
            best = slot;
        }
    }
    if (!best)
        *length = 0;
    return best;
}

/* How many of a sequence's first tokens may be taken over.  The last one is always computed, because its
 * logits are wanted, and where all logits are wanted, so is every token that has not been charged.  Sequences
 * other than the first start with a copy of the first one's prompt. */
static uint32_t reusable(const struct cinf_engine *e, const struct sequence *seq)
{
    const struct cinf_request *r = seq->request;
    bool prefilling = r->n_computed < r->n_prompt;
    if (!e->prefix_reuse || seq->finish != CINF_FINISH_RUNNING || (prefilling && seq->index > 0))
        return 0;
    return prefilling && r->wants_all ? r->n_reported : seq->n_ids - 1;
}

static void give_slot(struct cinf_engine *e, struct sequence *seq, struct slot *slot)
{
    assert(slot && !slot->user);
    seq->slot = slot;
    slot->user = seq;
    if (!may_see(seq->request, slot))
        slot->n_tokens = 0;
    snprintf(slot->payer, sizeof slot->payer, "%s", seq->request->payer);
    slot->last_used = e->n_steps;
}

enum cinf_status slot_copy(struct cinf_request *r, struct slot *to, const struct slot *from, uint32_t n)
{
    if (to != from) {
        TRY(model_copy_prefix(r->model->runtime, slot_index(r->model, to), slot_index(r->model, from), n));
        memcpy(to->tokens, from->tokens, n * sizeof *to->tokens);
        r->copied_bytes += model_copy_bytes(r->model->runtime, n);
    }
    to->n_tokens = n;
    return CINF_OK;
}

/* Every sequence gets its slot now, so that no request holds some of its slots while it waits for the others.
 */
void slots_take(struct cinf_engine *e, struct cinf_request *r)
{
    uint32_t cached;
    /* A sequence that continues all of a free slot's content continues in that slot. */
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        struct slot *source = longest_prefix(seq, reusable(e, seq), &cached);
        if (source && !source->user && source->n_tokens == cached)
            give_slot(e, seq, source);
    }
    for (uint32_t i = 0; i < r->n_sequences; i++)
        if (r->sequences[i].finish == CINF_FINISH_RUNNING && !r->sequences[i].slot)
            give_slot(e, &r->sequences[i], free_slot(e, r->model));
    /* The source of a copy may be another of the request's own slots, so their content is dropped only now.
     * If a copy fails, the tokens are computed, and that step reports what is wrong with the device. */
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        if (!seq->slot)
            continue;
        struct slot *source = longest_prefix(seq, reusable(e, seq), &cached);
        if (!source || slot_copy(r, seq->slot, source, cached) != CINF_OK)
            seq->slot->n_tokens = 0;
    }
    if (r->n_computed < r->n_prompt)
        r->n_computed = r->sequences[0].slot->n_tokens;
    if (r->n_reported == 0)
        r->n_cached = r->n_computed;
}

void slots_release(struct cinf_engine *e, struct cinf_request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct slot *slot = r->sequences[i].slot;
        if (slot && slot->user == &r->sequences[i]) {
            slot->user = NULL;
            slot->last_used = e->n_steps;
            atomic_fetch_add(&r->model->n_free, 1);
        }
        r->sequences[i].slot = NULL;
    }
}
