/* snapshot.c - what readers see: the two mirrors (meter_state.h has the picture), and copies of them. */
#include "meter_state.h"

#include <string.h>

#include "fail.h"
#include "mem.h"

static void show(_Atomic uint64_t *mirror, const void *facts, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)facts + i * sizeof word, sizeof word);
        atomic_store_explicit(&mirror[i], word, memory_order_release);
    }
}

static void look(void *facts, const _Atomic uint64_t *mirror, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word = atomic_load_explicit(&mirror[i], memory_order_acquire);
        memcpy((char *)facts + i * sizeof word, &word, sizeof word);
    }
}

void touch_account(struct cinf_meter *meter, struct account *account)
{
    if (account->touched)
        return;
    account->touched = true;
    account->next_touched = meter->touched;
    meter->touched = account;
}

void touch_bill(struct cinf_meter *meter, struct cinf_bill *bill)
{
    bill->next_touched = meter->touched_bills;
    meter->touched_bills = bill;
}

void publish(struct cinf_meter *meter)
{
    uint64_t number = ++meter->publications;
    /* Before the words, so that a reader who finds one of them also finds that there was a change. */
    for (struct account *a = meter->touched; a; a = a->next_touched)
        atomic_store_explicit(&a->changed, number, memory_order_release);
    for (unsigned mirror = 0; mirror < 2; mirror++) {
        atomic_store_explicit(&meter->phase, 2 * number - 1 + mirror, memory_order_release);
        show(meter->shown[mirror], &meter->facts, WORDS(struct device_facts));
        for (struct account *a = meter->touched; a; a = a->next_touched)
            show(a->shown[mirror], &a->facts, WORDS(struct model_facts));
        for (struct cinf_bill *b = meter->touched_bills; b; b = b->next_touched)
            show(b->shown[mirror], &b->facts, WORDS(struct bill_facts));
    }
    for (struct account *a = meter->touched; a; a = a->next_touched)
        a->touched = false;
    meter->touched = NULL;
    meter->touched_bills = NULL;
}

uint64_t idle_until(const struct cinf_meter *meter)
{
    /* The one word that readers write. */
    _Atomic uint64_t *word = &((struct cinf_meter *)meter)->idle_seen;
    uint64_t now = timeline_now(meter);
    uint64_t seen = atomic_load(word);
    while (seen < now) /* sealed is above every time */
        if (atomic_compare_exchange_weak(word, &seen, now))
            return now;
    return seen & ~IDLE_SEALED;
}

uint64_t idle_seal(struct cinf_meter *meter)
{
    uint64_t now = timeline_now(meter);
    uint64_t seen = atomic_load(&meter->idle_seen);
    uint64_t end;
    do
        end = seen > now ? seen : now;
    while (!atomic_compare_exchange_weak(&meter->idle_seen, &seen, end | IDLE_SEALED));
    return end;
}

/* One attempt; false when the writer published meanwhile.
 *
 * An attempt copies only the models that have changed since an earlier one copied them: with a
 * thousand models and a charge every 20 us a snapshot then takes 0.16 ms, and without it there was
 * hardly one in a second, as copying them all took longer than 20 us.  A copy that a publication
 * tore is made again, because that publication left its number first. */
static bool picture_try(struct picture *p, const struct cinf_meter *meter)
{
    uint64_t phase = atomic_load_explicit(&meter->phase, memory_order_acquire);
    unsigned mirror = phase & 1;
    look(&p->device, meter->shown[mirror], WORDS(struct device_facts));
    uint64_t idle_end = p->device.idle ? idle_until(meter) : 0;
    for (uint32_t m = 0; m < p->n_models; m++) {
        const struct account *a = meter->models[m];
        struct model_picture *copy = &p->models[m];
        if (atomic_load_explicit(&a->changed, memory_order_acquire) > copy->state) {
            copy->state = phase / 2;
            look(&copy->facts, a->shown[mirror], WORDS(struct model_facts));
        }
    }
    if (atomic_load_explicit(&meter->phase, memory_order_relaxed) != phase)
        return false;

    struct device_facts *d = &p->device;
    if (d->idle) {
        device_add(d, &d->idle_ns, &d->price.idle_ns, &d->idle_cost, idle_end - d->boundary_ns);
        d->boundary_ns = idle_end;
    }
    return true;
}

enum cinf_status picture_take(struct picture *out, const struct cinf_meter *meter)
{
    struct picture p = { 0 };
    do { /* again when a model was added meanwhile: the device's sums may hold time of its */
        picture_free(&p);
        p.n_models = atomic_load_explicit(&meter->n_models, memory_order_acquire);
        p.models = mem_new(p.n_models, sizeof *p.models);
        if (!p.models)
            return cinf_fail(CINF_ENOMEM, "no memory for the figures of %u models", p.n_models);
        while (!picture_try(&p, meter))
            ;
    } while (atomic_load_explicit(&meter->n_models, memory_order_acquire) != p.n_models);

    for (uint32_t m = 0; m < p.n_models; m++) {
        const struct account *a = meter->models[m];
        /* After the facts: whoever has left the queue is then among those who entered it. */
        p.models[m].opened = atomic_load_explicit(&a->opened, memory_order_relaxed);
        for (int kind = 0; kind < CINF_ERROR_KINDS; kind++)
            p.models[m].errors[kind] = atomic_load_explicit(&a->errors[kind], memory_order_relaxed);
    }
    *out = p;
    return CINF_OK;
}

void picture_free(struct picture *picture)
{
    mem_free(picture->models);
    picture->models = NULL;
}

void cinf_bill_read(const struct cinf_bill *bill, struct cinf_report *report)
{
    struct bill_facts f;
    uint64_t phase;
    do {
        phase = atomic_load_explicit(&bill->meter->phase, memory_order_acquire);
        look(&f, bill->shown[phase & 1], WORDS(struct bill_facts));
    } while (atomic_load_explicit(&bill->meter->phase, memory_order_relaxed) != phase);

    struct cinf_report r = {
        .struct_size = report->struct_size,
        .finish = (enum cinf_finish)f.finish,
        .model = bill->model,
        .input_tokens = (uint32_t)f.input_tokens,
        .cached_tokens = (uint32_t)f.cached_tokens,
        .output_tokens = (uint32_t)f.output_tokens,
        .queue_ns = f.queue_ns,
        .latency_ns = f.latency_ns,
        .first_token_ns = f.first_token_ns,
        .device_ns = f.prefill_ns + f.decode_ns,
        .prefill_ns = f.prefill_ns,
        .decode_ns = f.decode_ns,
        .unpriced_ns = f.unpriced_ns,
        .cost = f.cost,
        .drafted_tokens = (uint32_t)f.drafted_tokens,
        .accepted_tokens = (uint32_t)f.accepted_tokens,
    };
    memcpy(report, &r, report->struct_size < sizeof r ? report->struct_size : sizeof r);
}

/* ---- The public snapshot: one block of memory ---------------------------------------------- */

static struct cinf_model_totals totals_of(const struct model_picture *m)
{
    const struct model_facts *f = &m->facts;
    struct cinf_model_totals t = {
        .loaded = f->loaded,
        .serve_ns = f->prefill_ns + f->decode_ns,
        .prefill_ns = f->prefill_ns,
        .decode_ns = f->decode_ns,
        .load_ns = f->load_ns,
        .unpriced_ns = f->unpriced_ns,
        .serve_cost = f->serve_cost,
        .load_cost = f->load_cost,
        .input_tokens = f->input_tokens,
        .cached_tokens = f->cached_tokens,
        .output_tokens = f->output_tokens,
        .running = f->running,
        .waiting = m->opened - f->dequeued,
    };
    memcpy(t.requests, f->requests, sizeof t.requests);
    memcpy(t.finished, f->finished, sizeof t.finished);
    memcpy(t.finished_ns, f->finished_ns, sizeof t.finished_ns);
    memcpy(t.errors, m->errors, sizeof t.errors);
    return t;
}

static struct cinf_price_period period_of(const struct price_facts *f)
{
    return (struct cinf_price_period){
        .from_ns = f->from_ns,
        .priced = f->priced,
        .nanodollars_per_hour = f->nanodollars_per_hour,
        .serve_ns = f->serve_ns,
        .load_ns = f->load_ns,
        .idle_ns = f->idle_ns,
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

enum cinf_status cinf_meter_snapshot(struct cinf_snapshot *out, const struct cinf_meter *meter)
{
    /* A caller of an older library may have a shorter struct, but never one without what must be freed. */
    size_t least = offsetof(struct cinf_snapshot, memory) + sizeof out->memory;
    if (out->struct_size < least)
        return cinf_fail(CINF_EINVAL, "struct_size of the snapshot is %zu: CINF_SNAPSHOT sets it",
                         out->struct_size);
    struct picture p;
    TRY(picture_take(&p, meter));
    size_t n_models = p.n_models, n_prices = p.device.n_prices;

    /* At most 1024 models and 4096 prices: no product comes near to wrapping. */
    size_t text_bytes = strlen(meter->device) + 1;
    for (uint32_t e = 0; e < meter->n_endpoints; e++)
        text_bytes += strlen(meter->endpoints[e]) + 1;
    for (size_t m = 0; m < n_models; m++)
        text_bytes += strlen(meter->models[m]->name) + 1;
    char *memory =
        mem_new(1, n_models * sizeof(struct cinf_model_totals) +
                       n_prices * (sizeof(struct cinf_price_period) + 2 * n_models * sizeof(uint64_t)) +
                       meter->n_endpoints * sizeof(char *) + text_bytes);
    if (!memory) {
        picture_free(&p);
        return cinf_fail(CINF_ENOMEM, "no memory for a snapshot of %zu models and %zu prices", n_models,
                         n_prices);
    }

    char *block = memory;
    struct cinf_model_totals *models = cut(&block, n_models * sizeof *models);
    struct cinf_price_period *prices = cut(&block, n_prices * sizeof *prices);
    uint64_t *ns = cut(&block, n_prices * 2 * n_models * sizeof *ns); /* [n_prices][2][n_models] */
    const char **endpoints = cut(&block, meter->n_endpoints * sizeof *endpoints);
    for (uint32_t e = 0; e < meter->n_endpoints; e++)
        endpoints[e] = cut_text(&block, meter->endpoints[e]);
    for (size_t m = 0; m < n_models; m++) {
        models[m] = totals_of(&p.models[m]);
        models[m].name = cut_text(&block, meter->models[m]->name);
    }
    for (size_t i = 0; i < n_prices; i++) {
        const struct old_price *old = i + 1 < n_prices ? meter->old_prices[i] : NULL;
        uint64_t *serve = ns + i * 2 * n_models, *load = serve + n_models;
        prices[i] = period_of(old ? &old->facts : &p.device.price);
        prices[i].model_serve_ns = serve;
        prices[i].model_load_ns = load;
        for (size_t m = 0; m < n_models; m++) {
            if (!old) {
                serve[m] = p.models[m].facts.price_serve_ns;
                load[m] = p.models[m].facts.price_load_ns;
            } else if (m < old->n_models) {
                serve[m] = old->ns[m].serve;
                load[m] = old->ns[m].load;
            }
        }
    }
    const struct device_facts *d = &p.device;
    struct cinf_snapshot filled = {
        .struct_size = out->struct_size,
        .device = cut_text(&block, meter->device),
        .basis = meter->basis,
        .as_of_ns = d->boundary_ns,
        .serve_ns = d->serve_ns,
        .load_ns = d->load_ns,
        .idle_ns = d->idle_ns,
        .unpriced_ns = d->unpriced_ns,
        .serve_cost = d->serve_cost,
        .load_cost = d->load_cost,
        .idle_cost = d->idle_cost,
        .n_endpoints = meter->n_endpoints,
        .endpoints = endpoints,
        .n_models = p.n_models,
        .models = models,
        .n_prices = (uint32_t)n_prices,
        .prices = prices,
        .memory = memory,
    };
    memcpy(out, &filled, out->struct_size < sizeof filled ? out->struct_size : sizeof filled);
    picture_free(&p);
    return CINF_OK;
}

void cinf_snapshot_free(struct cinf_snapshot *snapshot)
{
    if (!snapshot)
        return;
    mem_free(snapshot->memory);
    snapshot->memory = NULL;
}
