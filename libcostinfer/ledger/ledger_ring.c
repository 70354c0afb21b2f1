/* ledger_ring.c - what waits between a meter and the ledger's thread: ended requests in a ring, and a
 * snapshot for each change of price in a list.  The charging thread fills both; gathering empties them into
 * the next batch.
 *
 * The ring has a fixed size, and the charging thread never waits for a file.  So a request that ends while
 * the ring is full has no row. */
#include "ledger_ring.h"

#include <string.h>

#include "accounts.h"
#include "ledger_writer.h"
#include "mem.h"

enum { COMMIT_RECORDS = 256 /* so many do not wait any longer */ };

/* ---- The charging thread --------------------------------------------------------------------- */

void ledger_ended(void *context, const struct ending *ending)
{
    struct cinf_ledger *l = context;
    const struct cinf_bill *bill = ending->bill;
    uint64_t head = atomic_load_explicit(&l->head, memory_order_relaxed);
    uint64_t waiting = head - atomic_load_explicit(&l->tail, memory_order_acquire);
    if (waiting == l->records_max) {
        atomic_fetch_add(&l->dropped, 1);
        mem_free(ending->note);
        return;
    }
    l->ring[head % l->records_max] = (struct told){ .number = ending->number,
                                                    .ended_ns = real_ns(),
                                                    .age_ns = ending->age_ns,
                                                    .period = l->period,
                                                    .model = account_name(&bill->account->counters),
                                                    .payer = bill->payer->name,
                                                    .endpoint = bill->meter->endpoints[bill->endpoint],
                                                    .counters = bill->counters,
                                                    .note = ending->note };
    atomic_store_explicit(&l->head, head + 1, memory_order_release);
    if (!atomic_exchange(&l->woken, true))
        ledger_wake(l, 'r');
    else if (waiting + 1 == COMMIT_RECORDS)
        ledger_wake(l, 'f');
}

struct sample *sample_new(const struct cinf_meter *meter)
{
    struct sample *s = mem_new(1, sizeof *s);
    if (!s)
        return NULL;
    s->snapshot.struct_size = sizeof s->snapshot;
    if (cinf_meter_snapshot(&s->snapshot, meter) != CINF_OK) {
        mem_free(s);
        return NULL;
    }
    s->wall_ns = real_ns();
    return s;
}

void sample_free(struct sample *s)
{
    cinf_snapshot_free(&s->snapshot);
    mem_free(s);
}

void ledger_price_changed(void *context)
{
    struct cinf_ledger *l = context;
    struct sample *s = sample_new(l->meter);
    l->period++;
    pthread_mutex_lock(&l->samples_lock);
    if (s) {
        *l->samples_end = s;
        l->samples_end = &s->next;
    } else {
        l->missed = true;
    }
    pthread_mutex_unlock(&l->samples_lock);
}

/* ---- Gathering ------------------------------------------------------------------------------- */

static enum cinf_status gather_samples(struct cinf_ledger *l)
{
    enum cinf_status status = CINF_OK;
    pthread_mutex_lock(&l->samples_lock);
    struct sample *s = l->samples, *next;
    l->samples = NULL;
    l->samples_end = &l->samples;
    pthread_mutex_unlock(&l->samples_lock);
    for (; s && status == CINF_OK; s = next) {
        next = s->next;
        status = tally_add(&l->tally, &s->snapshot, s->wall_ns, true);
        if (status != CINF_OK)
            break;
        sample_free(s);
    }
    if (!s)
        return CINF_OK;
    /* No memory: these come first the next time. */
    pthread_mutex_lock(&l->samples_lock);
    struct sample *last = s;
    while (last->next)
        last = last->next;
    last->next = l->samples;
    if (!l->samples)
        l->samples_end = &last->next;
    l->samples = s;
    pthread_mutex_unlock(&l->samples_lock);
    return status;
}

static enum cinf_status gather_now(struct cinf_ledger *l)
{
    struct sample *s = sample_new(l->meter);
    if (!s)
        return CINF_ENOMEM;
    pthread_mutex_lock(&l->samples_lock);
    bool missed = l->missed;
    l->missed = false;
    pthread_mutex_unlock(&l->samples_lock);
    enum cinf_status status = tally_add(&l->tally, &s->snapshot, s->wall_ns, missed);
    sample_free(s);
    return status;
}

static bool take_told(struct cinf_ledger *l, struct told *t)
{
    struct batch *next = &l->next;
    struct tally_account *account = tally_account(&l->tally, t->model, t->payer);
    if (!account || !mem_reserve(&next->records, &next->cap, next->n_records + 1, sizeof *next->records))
        return false;
    const char *endpoint = NULL;
    for (int e = 0; e < CINF_ENDPOINTS_MAX && l->endpoints[e]; e++)
        if (strcmp(l->endpoints[e], t->endpoint) == 0)
            endpoint = l->endpoints[e];
    next->records[next->n_records++] =
        (struct record){ .number = t->number,
                         .ended_ns = t->ended_ns,
                         .age_ns = t->age_ns,
                         .account = account,
                         .endpoint = endpoint,
                         .finish = cinf_finish_name((enum cinf_finish)t->counters.finish),
                         .counters = t->counters,
                         .period = t->period,
                         .note = t->note };
    return true;
}

void ledger_gather(struct cinf_ledger *l, bool last)
{
    if (!l->meter)
        return;
    /* A request's price was told before the request, so it is among the samples. */
    uint64_t head = atomic_load_explicit(&l->head, memory_order_acquire);
    atomic_store(&l->woken, false);
    if (gather_samples(l) != CINF_OK)
        return;
    (void)gather_now(l); /* an early one is taken the next time */
    uint64_t tail = atomic_load_explicit(&l->tail, memory_order_relaxed);
    for (; tail < head && (last || l->next.n_records < l->records_max); tail++) {
        struct told *t = &l->ring[tail % l->records_max];
        if (t->number > l->tally.state.ended || !take_told(l, t))
            break;
        atomic_fetch_add(&l->taken, 1);
        atomic_store_explicit(&l->tail, tail + 1, memory_order_release);
    }
}

void ledger_leave(void *context)
{
    struct cinf_ledger *l = context;
    pthread_mutex_lock(&l->gather_lock);
    ledger_gather(l, true);
    for (uint64_t at = atomic_load(&l->tail); at < atomic_load(&l->head); at++) { /* without memory */
        atomic_fetch_add(&l->dropped, 1);
        mem_free(l->ring[at % l->records_max].note);
    }
    atomic_store(&l->tail, atomic_load(&l->head));
    l->meter = NULL;
    l->left = true;
    pthread_mutex_unlock(&l->gather_lock);
    ledger_wake(l, 'f');
}
