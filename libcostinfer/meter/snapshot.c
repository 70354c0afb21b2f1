/* snapshot.c - consistent copies of a meter: the inner one, and the public one that is made from it. */
#include "snapshot.h"

#include <string.h>

#include "accounts.h"
#include "fail.h"
#include "mem.h"
#include "mirror.h"
#include "price_history.h"
#include "timeline.h"

static void copy_payers(struct payer_snapshot *copies, uint32_t n, uint64_t phase)
{
    for (struct payer_snapshot *copy = copies; copy < copies + n; copy++) {
        if (atomic_load_explicit(&copy->account->changed, memory_order_acquire) > copy->state) {
            copy->state = phase / 2;
            load_mirror(&copy->counters, copy->account->mirror[phase & 1], WORDS(struct payer_counters));
        }
    }
}

/* One attempt; false if the writer published during it.
 *
 * An attempt copies only the models that have changed since an earlier attempt copied them.  With a
 * thousand models and a charge every 20 us a snapshot then takes 0.16 ms; when each attempt copied all
 * of them, which takes longer than 20 us, hardly one in a second succeeded.  A copy that a publication
 * tore is made again, because that publication left its number first. */
static bool snapshot_try(struct snapshot *s, const struct cinf_meter *meter)
{
    uint64_t phase = mirror_phase(meter);
    unsigned mirror = phase & 1;
    load_mirror(&s->device, meter->mirror[mirror], WORDS(struct device_counters));
    struct moment idle_end = { 0 };
    if (s->device.idle)
        idle_end = idle_until(meter);
    for (uint32_t m = 0; m < s->n_models; m++) {
        const struct account *a = meter->models[m];
        struct model_snapshot *copy = &s->models[m];
        if (atomic_load_explicit(&a->changed, memory_order_acquire) > copy->state) {
            copy->state = phase / 2;
            load_mirror(&copy->counters, a->mirror[mirror], WORDS(struct model_counters));
            copy_payers(s->payers + copy->first_payer, copy->n_payers, phase);
        }
    }
    if (mirror_moved(meter, phase))
        return false;

    if (s->device.idle)
        device_add(&s->device, idle_account(meter), device_pass(&s->device, idle_end));
    return true;
}

/* Lists the accounts there are now, without their counters. */
static enum cinf_status snapshot_list(struct snapshot *s, const struct cinf_meter *meter)
{
    s->n_models = atomic_load_explicit(&meter->n_models, memory_order_acquire);
    s->n_payers = atomic_load(&meter->n_payers);
    s->models = mem_new(s->n_models, sizeof *s->models);
    s->payers = mem_new(s->n_payers, sizeof *s->payers);
    if (!s->models || !s->payers)
        return cinf_fail(CINF_ENOMEM, "no memory for the totals of %u models and %u payers", s->n_models,
                         s->n_payers);
    uint32_t n = 0;
    for (uint32_t m = 0; m < s->n_models; m++) {
        s->models[m].first_payer = n;
        for (const struct payer_account *p = atomic_load(&meter->models[m]->payers); p && n < s->n_payers;
             p = atomic_load(&p->next))
            s->payers[n++] = (struct payer_snapshot){ .account = p, .model = m };
        s->models[m].n_payers = n - s->models[m].first_payer;
    }
    s->n_payers = n;
    return CINF_OK;
}

enum cinf_status snapshot_take(struct snapshot *out, const struct cinf_meter *meter)
{
    struct snapshot s = { 0 };
    do { /* Retry if an account was added during the copy: the sums may hold its time. */
        snapshot_free(&s);
        enum cinf_status status = snapshot_list(&s, meter);
        if (status != CINF_OK) {
            snapshot_free(&s);
            return status;
        }
        while (!snapshot_try(&s, meter))
            ;
    } while (atomic_load_explicit(&meter->n_models, memory_order_acquire) != s.n_models ||
             atomic_load(&meter->n_payers) != s.n_payers);

    for (uint32_t m = 0; m < s.n_models; m++) {
        const struct account *a = meter->models[m];
        /* Read after the counters, so that no more requests have left the queue than entered it. */
        s.models[m].opened = atomic_load_explicit(&a->opened, memory_order_relaxed);
        for (int kind = 0; kind < CINF_ERROR_KINDS; kind++)
            s.models[m].errors[kind] = atomic_load_explicit(&a->errors[kind], memory_order_relaxed);
    }
    *out = s;
    return CINF_OK;
}

void snapshot_free(struct snapshot *snapshot)
{
    mem_free(snapshot->models);
    mem_free(snapshot->payers);
    snapshot->models = NULL;
    snapshot->payers = NULL;
}

/* ---- The public snapshot: one block of memory ---------------------------------------------- */

static struct cinf_model_totals totals_of(const struct model_snapshot *m)
{
    const struct model_counters *c = &m->counters;
    struct cinf_model_totals t = {
        .loaded = c->loaded,
        .serve_ns = c->prefill_ns + c->decode_ns,
        .prefill_ns = c->prefill_ns,
        .decode_ns = c->decode_ns,
        .load_ns = c->load_ns,
        .unpriced_ns = c->unpriced_ns,
        .serve_cost = c->serve_cost,
        .load_cost = c->load_cost,
        .input_tokens = c->input_tokens,
        .cached_tokens = c->cached_tokens,
        .output_tokens = c->output_tokens,
        .running = c->running,
        .waiting = m->opened - c->dequeued,
    };
    memcpy(t.requests, c->requests, sizeof t.requests);
    memcpy(t.finished, c->finished, sizeof t.finished);
    memcpy(t.finished_ns, c->finished_ns, sizeof t.finished_ns);
    memcpy(t.errors, m->errors, sizeof t.errors);
    return t;
}

static struct cinf_payer_totals payer_totals_of(const struct payer_snapshot *p)
{
    const struct payer_counters *c = &p->counters;
    return (struct cinf_payer_totals){
        .model = p->model,
        .serve_ns = c->prefill_ns + c->decode_ns,
        .prefill_ns = c->prefill_ns,
        .decode_ns = c->decode_ns,
        .unpriced_ns = c->unpriced_ns,
        .cost = c->cost,
        .input_tokens = c->input_tokens,
        .cached_tokens = c->cached_tokens,
        .output_tokens = c->output_tokens,
        .requests = c->requests,
    };
}

static struct cinf_price_period period_of(const struct price_counters *c)
{
    return (struct cinf_price_period){
        .from_ns = c->from_ns,
        .priced = c->priced,
        .nanodollars_per_hour = c->nanodollars_per_hour,
        .serve_ns = c->ns[ACCOUNT_SERVE],
        .load_ns = c->ns[ACCOUNT_LOAD],
        .idle_ns = c->ns[ACCOUNT_IDLE],
    };
}

static struct cinf_price_sums sums_of(const struct price_counters *period, struct price_sums sums)
{
    return (struct cinf_price_sums){
        .n_periods = sums.n_periods,
        .lost_ns = period->ns[ACCOUNT_LOST],
        .overhead_ns = period->ns[ACCOUNT_OVERHEAD],
        .unpriced_ns = sums.unpriced_ns,
        .serve_cost = sums.cost[ACCOUNT_SERVE],
        .load_cost = sums.cost[ACCOUNT_LOAD],
        .idle_cost = sums.cost[ACCOUNT_IDLE],
        .lost_cost = sums.cost[ACCOUNT_LOST],
        .overhead_cost = sums.cost[ACCOUNT_OVERHEAD],
    };
}

/* Takes n bytes off the front of the block. */
static void *cut(char **block, size_t n)
{
    void *piece = *block;
    *block += n;
    return piece;
}

static const char *cut_text(char **block, const char *text)
{
    size_t n = strlen(text) + 1;
    return memcpy(cut(block, n), text, n);
}

/* Where the pieces of the block are written. */
struct pieces {
    struct cinf_model_totals *models;
    struct cinf_payer_totals *payers;
    struct cinf_price_period *prices;
    struct cinf_price_sums *sums;
    uint64_t *ns; /* [n_prices][2][n_models] */
    const char **endpoints;
};

static size_t block_bytes(const struct snapshot *s, const struct cinf_meter *meter)
{
    /* At most 1024 models, 4096 prices and 17408 payers: no product comes near 2^64. */
    size_t n_models = s->n_models, n_prices = s->device.n_prices;
    size_t bytes = strlen(meter->device) + 1;
    for (uint32_t e = 0; e < meter->n_endpoints; e++)
        bytes += strlen(meter->endpoints[e]) + 1;
    for (size_t m = 0; m < n_models; m++)
        bytes += strlen(account_name(&s->models[m].counters)) + 1;
    for (size_t p = 0; p < s->n_payers; p++)
        bytes += strlen(s->payers[p].account->name) + 1;
    return bytes + n_models * sizeof(struct cinf_model_totals) +
           s->n_payers * sizeof(struct cinf_payer_totals) +
           n_prices * (sizeof(struct cinf_price_period) + sizeof(struct cinf_price_sums) +
                       2 * n_models * sizeof(uint64_t)) +
           meter->n_endpoints * sizeof(char *);
}

/* The history is the one that the snapshot was taken with; caller holds history_lock where `old` is used. */
static void put_price(struct pieces *to, size_t i, const struct snapshot *s, const struct old_price *old)
{
    size_t n_models = s->n_models;
    uint64_t *serve = to->ns + i * 2 * n_models, *load = serve + n_models;
    const struct price_counters *price = old ? &old->counters : &s->device.price;
    to->prices[i] = period_of(price);
    to->prices[i].model_serve_ns = serve;
    to->prices[i].model_load_ns = load;
    to->sums[i] = sums_of(price, old ? old->sums : price_sums_of(price));
    for (size_t m = 0; m < n_models; m++) {
        if (!old) {
            serve[m] = s->models[m].counters.price_serve_ns;
            load[m] = s->models[m].counters.price_load_ns;
        } else if (m < old->n_models) {
            serve[m] = old->ns[m].serve;
            load[m] = old->ns[m].load;
        }
    }
}

/* False if periods were folded since the snapshot was taken. */
static bool put_prices(struct pieces *to, const struct snapshot *s, struct cinf_meter *meter)
{
    size_t n = s->device.n_prices;
    pthread_mutex_lock(&meter->history_lock);
    bool same = meter->counters.n_folds == s->device.n_folds;
    for (size_t i = 0; same && i + 1 < n; i++)
        put_price(to, i, s, meter->old_prices[i]);
    pthread_mutex_unlock(&meter->history_lock);
    put_price(to, n - 1, s, NULL);
    return same;
}

static void put_snapshot(struct cinf_snapshot *out, const struct snapshot *s, const struct cinf_meter *meter,
                         const struct pieces *pieces, char *block)
{
    for (uint32_t e = 0; e < meter->n_endpoints; e++)
        pieces->endpoints[e] = cut_text(&block, meter->endpoints[e]);
    for (size_t m = 0; m < s->n_models; m++) {
        pieces->models[m] = totals_of(&s->models[m]);
        pieces->models[m].name = cut_text(&block, account_name(&s->models[m].counters));
    }
    for (size_t p = 0; p < s->n_payers; p++) {
        pieces->payers[p] = payer_totals_of(&s->payers[p]);
        pieces->payers[p].payer = cut_text(&block, s->payers[p].account->name);
    }
    const struct device_counters *d = &s->device;
    *out = (struct cinf_snapshot){
        .struct_size = out->struct_size,
        .device = cut_text(&block, meter->device),
        .basis = meter->basis,
        .as_of_ns = d->boundary_ns,
        .serve_ns = d->ns[ACCOUNT_SERVE],
        .load_ns = d->ns[ACCOUNT_LOAD],
        .idle_ns = d->ns[ACCOUNT_IDLE],
        .unpriced_ns = d->unpriced_ns,
        .serve_cost = d->cost[ACCOUNT_SERVE],
        .load_cost = d->cost[ACCOUNT_LOAD],
        .idle_cost = d->cost[ACCOUNT_IDLE],
        .n_endpoints = meter->n_endpoints,
        .endpoints = pieces->endpoints,
        .n_models = s->n_models,
        .models = pieces->models,
        .n_prices = (uint32_t)d->n_prices,
        .prices = pieces->prices,
        .lost_ns = d->ns[ACCOUNT_LOST],
        .overhead_ns = d->ns[ACCOUNT_OVERHEAD],
        .lost_cost = d->cost[ACCOUNT_LOST],
        .overhead_cost = d->cost[ACCOUNT_OVERHEAD],
        .stalls = atomic_load(&meter->pulse.n_stalls),
        .clock_steps = atomic_load(&meter->pulse.n_steps),
        .price_sums = pieces->sums,
        .n_payers = s->n_payers,
        .ended = d->n_ended,
        .ended_ns = d->ended_ns,
        .ended_cost = d->ended_cost,
        .payers = pieces->payers,
    };
}

enum cinf_status cinf_meter_snapshot(struct cinf_snapshot *out, const struct cinf_meter *meter)
{
    /* A caller built for an older library may have a shorter struct, but never one that lacks `memory`. */
    size_t least = offsetof(struct cinf_snapshot, memory) + sizeof out->memory;
    if (out->struct_size < least)
        return cinf_fail(CINF_EINVAL, "struct_size of the snapshot is %zu: CINF_SNAPSHOT sets it",
                         out->struct_size);
    struct snapshot s;
    struct pieces pieces;
    char *memory, *block;
    for (;;) {
        TRY(snapshot_take(&s, meter));
        size_t n_models = s.n_models, n_prices = s.device.n_prices;
        block = memory = mem_new(1, block_bytes(&s, meter));
        if (!memory) {
            snapshot_free(&s);
            return cinf_fail(CINF_ENOMEM, "no memory for a snapshot of %zu models and %zu prices", n_models,
                             n_prices);
        }
        pieces.models = cut(&block, n_models * sizeof *pieces.models);
        pieces.payers = cut(&block, s.n_payers * sizeof *pieces.payers);
        pieces.prices = cut(&block, n_prices * sizeof *pieces.prices);
        pieces.sums = cut(&block, n_prices * sizeof *pieces.sums);
        pieces.ns = cut(&block, n_prices * 2 * n_models * sizeof *pieces.ns);
        pieces.endpoints = cut(&block, meter->n_endpoints * sizeof *pieces.endpoints);
        if (put_prices(&pieces, &s, (struct cinf_meter *)meter))
            break;
        mem_free(memory);
        snapshot_free(&s);
    }
    struct cinf_snapshot filled = { .struct_size = out->struct_size };
    put_snapshot(&filled, &s, meter, &pieces, block);
    filled.memory = memory;
    memcpy(out, &filled, out->struct_size < sizeof filled ? out->struct_size : sizeof filled);
    snapshot_free(&s);
    return CINF_OK;
}

void cinf_snapshot_free(struct cinf_snapshot *snapshot)
{
    if (!snapshot)
        return;
    mem_free(snapshot->memory);
    snapshot->memory = NULL;
}
