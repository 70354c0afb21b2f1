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

uint32_t slots_n_free(const struct cinf_model *model)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < model->n_slots; i++)
        n += model->slots[i].user == NULL;
    return n;
}

uint32_t slot_index(const struct cinf_model *model, const struct slot *slot)
{
    return (uint32_t)(slot - model->slots);
}

/* The slot whose content shares the longest prefix with the prompt, and the length of that prefix.  The
 * prompt's last token is always computed, because its logits are wanted. */
static struct slot *longest_prefix(const struct cinf_request *r, uint32_t *length)
{
    const struct cinf_model *model = r->model;
    struct slot *best = NULL;
    *length = 0;
    for (uint32_t i = 0; i < model->n_slots; i++) {
        struct slot *slot = &model->slots[i];
        if (!model->engine->share_prefixes && strcmp(slot->payer, r->payer) != 0)
            continue;
        uint32_t max = slot->n_tokens < r->n_prompt - 1 ? slot->n_tokens : r->n_prompt - 1, n = 0;
        while (n < max && slot->tokens[n] == r->prompt[n])
            n++;
        if (n > *length) {
            *length = n;
            best = slot;
        }
    }
    return best;
}

static void give_slot(struct cinf_engine *e, struct sequence *seq, struct slot *slot)
{
    assert(slot); /* slots_n_free() was asked */
    seq->slot = slot;
    slot->user = seq;
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
    uint32_t cached = 0;
    struct slot *source = NULL;
    if (e->prefix_reuse && !r->wants_all)
        source = longest_prefix(r, &cached);
    if (cached < PREFIX_MIN)
        cached = 0;

    /* A prompt that continues all of a free slot's content continues in that slot. */
    bool in_place = cached && !source->user && source->n_tokens == cached;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        give_slot(e, &r->sequences[i], i == 0 && in_place ? source : free_slot(e, r->model));
    struct slot *first = r->sequences[0].slot;
    /* The source may be another of the request's own slots, so their content is dropped after the copy.  If
     * the copy fails, the whole prompt is computed, and that step reports what is wrong with the device. */
    if (cached && slot_copy(r, first, source, cached) != CINF_OK)
        cached = 0;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        r->sequences[i].slot->n_tokens = i == 0 ? cached : 0;
    r->n_computed = r->n_cached = cached;
}

void slots_release(struct cinf_engine *e, struct cinf_request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct slot *slot = r->sequences[i].slot;
        if (slot && slot->user == &r->sequences[i]) {
            slot->user = NULL;
            slot->last_used = e->n_steps;
        }
        r->sequences[i].slot = NULL;
    }
}
