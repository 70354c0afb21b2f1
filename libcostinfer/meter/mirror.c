/* mirror.c - how the writing thread shows its counters to readers: two mirrors in turn (meter_state.h
 * has the picture), and one word that both sides write. */
#include "mirror.h"

#include <string.h>

#include "timeline.h"

static void store_mirror(_Atomic uint64_t *mirror, const void *counters, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)counters + i * sizeof word, sizeof word);
        atomic_store_explicit(&mirror[i], word, memory_order_release);
    }
}

void load_mirror(void *counters, const _Atomic uint64_t *mirror, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word = atomic_load_explicit(&mirror[i], memory_order_acquire);
        memcpy((char *)counters + i * sizeof word, &word, sizeof word);
    }
}

void mark_account_dirty(struct cinf_meter *meter, struct account *account)
{
    if (account->dirty)
        return;
    account->dirty = true;
    account->next_dirty = meter->dirty;
    meter->dirty = account;
}

void mark_payer_dirty(struct cinf_meter *meter, struct payer_account *payer)
{
    if (payer->dirty)
        return;
    payer->dirty = true;
    payer->next_dirty = meter->dirty_payers;
    meter->dirty_payers = payer;
}

void mark_bill_dirty(struct cinf_meter *meter, struct cinf_bill *bill)
{
    bill->next_dirty = meter->dirty_bills;
    meter->dirty_bills = bill;
}

void publish(struct cinf_meter *meter)
{
    uint64_t number = ++meter->publications;
    /* Before the words, so that a reader that finds one of them also finds that there was a change. */
    for (struct account *a = meter->dirty; a; a = a->next_dirty)
        atomic_store_explicit(&a->changed, number, memory_order_release);
    for (struct payer_account *p = meter->dirty_payers; p; p = p->next_dirty)
        atomic_store_explicit(&p->changed, number, memory_order_release);
    for (unsigned mirror = 0; mirror < 2; mirror++) {
        atomic_store_explicit(&meter->phase, 2 * number - 1 + mirror, memory_order_release);
        store_mirror(meter->mirror[mirror], &meter->counters, WORDS(struct device_counters));
        for (struct account *a = meter->dirty; a; a = a->next_dirty)
            store_mirror(a->mirror[mirror], &a->counters, WORDS(struct model_counters));
        for (struct payer_account *p = meter->dirty_payers; p; p = p->next_dirty)
            store_mirror(p->mirror[mirror], &p->counters, WORDS(struct payer_counters));
        for (struct cinf_bill *b = meter->dirty_bills; b; b = b->next_dirty)
            store_mirror(b->mirror[mirror], &b->counters, WORDS(struct bill_counters));
    }
    for (struct account *a = meter->dirty; a; a = a->next_dirty)
        a->dirty = false;
    for (struct payer_account *p = meter->dirty_payers; p; p = p->next_dirty)
        p->dirty = false;
    meter->dirty = NULL;
    meter->dirty_payers = NULL;
    meter->dirty_bills = NULL;
}

uint64_t mirror_phase(const struct cinf_meter *meter)
{
    return atomic_load_explicit(&meter->phase, memory_order_acquire);
}

bool mirror_moved(const struct cinf_meter *meter, uint64_t phase)
{
    return atomic_load_explicit(&meter->phase, memory_order_relaxed) != phase;
}

/* ---- The idle word ------------------------------------------------------------------------- */

void idle_open(struct cinf_meter *meter)
{
    atomic_store(&meter->idle_seen, meter->counters.boundary_ns);
}

/* The clock never goes back, so once it is read again it is past everything that was shown before. */
struct moment idle_until(const struct cinf_meter *meter)
{
    /* The one word that readers write. */
    _Atomic uint64_t *word = &((struct cinf_meter *)meter)->idle_seen;
    for (;;) {
        uint64_t seen = atomic_load(word);
        if (seen & IDLE_SEALED)
            return (struct moment){ seen & ~IDLE_SEALED, atomic_load(&meter->idle_seen_lost_ns) };
        struct moment now = timeline_now(meter);
        if (now.ns >= seen && atomic_compare_exchange_weak(word, &seen, now.ns))
            return now;
    }
}

struct moment idle_seal(struct cinf_meter *meter)
{
    for (;;) {
        uint64_t seen = atomic_load(&meter->idle_seen);
        struct moment end = timeline_now(meter);
        atomic_store(&meter->idle_seen_lost_ns, end.lost_ns);
        if (end.ns >= seen && atomic_compare_exchange_weak(&meter->idle_seen, &seen, end.ns | IDLE_SEALED))
            return end;
    }
}
