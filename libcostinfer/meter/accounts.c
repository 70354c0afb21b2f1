/* accounts.c - the accounts of models and payers: found by name, created when first named.
 *
 * Payers' accounts hang off their model's, in a list that only grows.  They are created when a bill is
 * opened, so a series is there, at 0, before its first nanosecond is charged. */
#include "accounts.h"

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "mirror.h"
#include "price_history.h"
#include "timeline.h"
#include "utf8.h"

enum cinf_status label_check(const char *what, const char *text)
{
    size_t n = strlen(text);
    if (n < 1 || n > LABEL_BYTES_MAX)
        return cinf_fail(CINF_EINVAL, "the name of a %s must have 1 to %d bytes, not %zu", what,
                         LABEL_BYTES_MAX, n);
    if (!utf8_valid(text, n))
        return cinf_fail(CINF_EINVAL, "the name of a %s is not UTF-8", what);
    return CINF_OK;
}

/* ---- Models -------------------------------------------------------------------------------- */

#define DAY_NS UINT64_C(86400000000000)
static const char OTHER[] = "other";

const char *account_name(const struct model_counters *counters)
{
    return (const char *)(uintptr_t)counters->name;
}

void account_touch(struct cinf_meter *meter, struct account *account)
{
    account->used_wall_ns = meter->boundary_wall_ns;
}

static struct account_name *name_new(const char *text)
{
    size_t n = strlen(text) + 1;
    struct account_name *name = mem_new(1, sizeof *name + n);
    if (name)
        memcpy(name->text, text, n);
    return name;
}

static void set_name(struct account *account, struct account_name *name)
{
    name->earlier = account->name;
    account->name = name;
    account->counters.name = (uintptr_t)name->text;
}

static void account_free(struct account *account)
{
    if (!account)
        return;
    for (struct payer_account *p = atomic_load(&account->payers), *next; p; p = next) {
        next = atomic_load(&p->next);
        mem_free(p->name);
        mem_free(p);
    }
    for (struct account_name *name = account->name, *earlier; name; name = earlier) {
        earlier = name->earlier;
        mem_free(name);
    }
    mem_free(account);
}

void accounts_free(struct cinf_meter *meter)
{
    for (uint32_t m = 0; m < meter->n_models; m++)
        account_free(meter->models[m]);
}

static bool find_model(const struct cinf_meter *meter, const char *name, uint32_t *model)
{
    for (uint32_t m = 0; m < meter->n_models; m++) {
        if (strcmp(meter->models[m]->name->text, name) == 0) {
            *model = m;
            return true;
        }
    }
    return false;
}

static enum cinf_status append_model(struct cinf_meter *meter, const char *name, uint32_t *model)
{
    uint32_t n = meter->n_models;
    struct account *account = mem_new(1, sizeof *account);
    struct account_name *text = name_new(name);
    struct old_price *wider = meter->next_price ? old_price_new(n + 1) : NULL;
    if (!account || !text || (meter->next_price && !wider)) {
        mem_free(account);
        mem_free(text);
        mem_free(wider);
        return cinf_fail(CINF_ENOMEM, "no memory for the account of a model");
    }
    if (wider) {
        wider->counters = meter->next_price->counters;
        mem_free(meter->next_price);
        meter->next_price = wider;
    }
    set_name(account, text);
    account->used_wall_ns = wall_now(meter);
    mark_account_dirty(meter, account);
    publish(meter);
    meter->models[n] = account;
    atomic_store_explicit(&meter->n_models, n + 1, memory_order_release);
    *model = n;
    return CINF_OK;
}

/* The place of a payer's account in its model's list, or the end of the list. */
static _Atomic(struct payer_account *) *place_of(struct account *account, const char *payer)
{
    _Atomic(struct payer_account *) *at = &account->payers;
    for (struct payer_account *p; (p = atomic_load(at)) && strcmp(p->name, payer) != 0;)
        at = &p->next;
    return at;
}

/* ---- Making room --------------------------------------------------------------------------- */

/* The account that was unloaded and unused for longest, for a day at least; ACCOUNTS_MAX: there is none. */
static uint32_t oldest_unused(const struct cinf_meter *meter)
{
    uint32_t oldest = ACCOUNTS_MAX;
    uint64_t now = wall_now(meter), longest = DAY_NS;
    for (uint32_t m = 0; m < meter->n_models; m++) {
        const struct account *a = meter->models[m];
        const struct model_counters *c = &a->counters;
        uint64_t unused = now - a->used_wall_ns;
        if (!c->loaded && c->running == 0 && c->dequeued == atomic_load(&a->opened) && unused >= longest &&
            strcmp(a->name->text, OTHER) != 0) {
            oldest = m;
            longest = unused;
        }
    }
    return oldest;
}

static void add_words(void *to, const void *from, size_t first, size_t end)
{
    for (size_t at = first; at < end; at += sizeof(uint64_t))
        *(uint64_t *)((char *)to + at) += *(const uint64_t *)((const char *)from + at);
}

/* Moves all sums of an account to another one; `running` and `loaded` are 0, and `dequeued` stays with
 * `opened`. */
static void move_counters(struct model_counters *to, struct model_counters *from)
{
    add_words(to, from, offsetof(struct model_counters, prefill_ns),
              offsetof(struct model_counters, serve_cost));
    to->serve_cost = cinf_cost_add(to->serve_cost, from->serve_cost);
    to->load_cost = cinf_cost_add(to->load_cost, from->load_cost);
    add_words(to, from, offsetof(struct model_counters, price_serve_ns),
              offsetof(struct model_counters, running));
    add_words(to, from, offsetof(struct model_counters, latency), sizeof *to);
    *from = (struct model_counters){ .name = from->name, .dequeued = from->dequeued };
}

static void move_payer(struct payer_counters *to, struct payer_counters *from)
{
    struct cinf_cost cost = cinf_cost_add(to->cost, from->cost);
    add_words(to, from, 0, offsetof(struct payer_counters, cost));
    add_words(to, from, offsetof(struct payer_counters, input_tokens), sizeof *to);
    to->cost = cost;
    *from = (struct payer_counters){ 0 };
}

/* Gives the account of a model that is no longer used to another name; its sums go to the model "other".  All
 * that can fail comes first. */
static enum cinf_status reuse_account(struct cinf_meter *meter, uint32_t m, uint32_t other, const char *name)
{
    struct account *from = meter->models[m], *to = meter->models[other];
    struct payer_account *p, *q;
    for (p = atomic_load(&from->payers); p; p = atomic_load(&p->next))
        TRY(payer_find(&q, meter, to, p->name));
    TRY(price_history_widen(meter, other));
    struct account_name *text = name_new(name);
    if (!text)
        return cinf_fail(CINF_ENOMEM, "no memory for the account of a model");

    for (p = atomic_load(&from->payers); p; p = atomic_load(&p->next)) {
        q = atomic_load(place_of(to, p->name));
        if (!q)
            q = atomic_load(place_of(to, OTHER)); /* as payer_find() chose */
        move_payer(&q->counters, &p->counters);
        mark_payer_dirty(meter, p);
        mark_payer_dirty(meter, q);
    }
    move_counters(&to->counters, &from->counters);
    for (int kind = 0; kind < CINF_ERROR_KINDS; kind++)
        atomic_fetch_add(&to->errors[kind], atomic_exchange(&from->errors[kind], 0));
    set_name(from, text);
    from->used_wall_ns = wall_now(meter);
    mark_account_dirty(meter, from);
    mark_account_dirty(meter, to);
    price_history_move(meter, m, other); /* publishes */
    return CINF_OK;
}

enum cinf_status cinf_meter_add_model(struct cinf_meter *meter, const char *name, uint32_t *model)
{
    TRY(label_check("model", name));
    if (find_model(meter, name, model)) {
        meter->models[*model]->used_wall_ns = wall_now(meter);
        return CINF_OK;
    }
    uint32_t other, unused;
    /* The last place is that of the model "other". */
    if (meter->n_models == ACCOUNTS_MAX - 1 && !find_model(meter, OTHER, &other))
        TRY(append_model(meter, OTHER, &other));
    if (meter->n_models < ACCOUNTS_MAX)
        return append_model(meter, name, model);
    unused = oldest_unused(meter);
    if (unused == ACCOUNTS_MAX || !find_model(meter, OTHER, &other))
        return cinf_fail(
            CINF_EFULL,
            "the meter has accounts for %d models, and none of them was unloaded and unused for a "
            "day",
            ACCOUNTS_MAX);
    TRY(reuse_account(meter, unused, other, name));
    *model = unused;
    return CINF_OK;
}

void cinf_meter_set_loaded(struct cinf_meter *meter, uint32_t model, bool loaded)
{
    if (model >= meter->n_models)
        return;
    meter->models[model]->counters.loaded = loaded;
    meter->models[model]->used_wall_ns = wall_now(meter);
    mark_account_dirty(meter, meter->models[model]);
    publish(meter);
}

void cinf_meter_count_error(struct cinf_meter *meter, uint32_t model, enum cinf_error_kind kind)
{
    if (model < meter->n_models && (unsigned)kind < CINF_ERROR_KINDS)
        atomic_fetch_add_explicit(&meter->models[model]->errors[kind], 1, memory_order_relaxed);
}

/* ---- Payers -------------------------------------------------------------------------------- */

static enum cinf_status payer_add(struct payer_account **out, struct cinf_meter *meter,
                                  struct account *account, const char *payer)
{
    /* Another thread may have added it while this one waited for the lock. */
    _Atomic(struct payer_account *) *at = place_of(account, payer);
    if (!atomic_load(at) && atomic_load(&meter->n_payers) >= PAYERS_MAX)
        at = place_of(account, payer = OTHER);
    *out = atomic_load(at);
    if (*out)
        return CINF_OK;
    struct payer_account *p = mem_new(1, sizeof *p);
    if (!p || !(p->name = mem_copy_text(payer))) {
        mem_free(p);
        return cinf_fail(CINF_ENOMEM, "no memory for the account of a payer");
    }
    atomic_store(at, p);
    atomic_fetch_add(&meter->n_payers, 1);
    *out = p;
    return CINF_OK;
}

enum cinf_status payer_find(struct payer_account **out, struct cinf_meter *meter, struct account *account,
                            const char *payer)
{
    struct payer_account *found = atomic_load(place_of(account, payer));
    if (!found) {
        TRY(label_check("payer", payer));
        pthread_mutex_lock(&meter->payers_lock);
        enum cinf_status status = payer_add(&found, meter, account, payer);
        pthread_mutex_unlock(&meter->payers_lock);
        TRY(status);
    }
    *out = found;
    return CINF_OK;
}
