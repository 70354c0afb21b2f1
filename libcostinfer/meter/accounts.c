/* accounts.c - the accounts of models and payers: found by name, created when first named, never moved.
 *
 * Payers' accounts hang off their model's, in a list that only grows.  They are created when a bill is
 * opened, so a series is there, at 0, before its first nanosecond is charged. */
#include "accounts.h"

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "mirror.h"
#include "price_history.h"
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

static void account_free(struct account *account)
{
    if (!account)
        return;
    for (struct payer_account *p = atomic_load(&account->payers), *next; p; p = next) {
        next = atomic_load(&p->next);
        mem_free(p->name);
        mem_free(p);
    }
    mem_free(account->name);
    mem_free(account);
}

void accounts_free(struct cinf_meter *meter)
{
    for (uint32_t m = 0; m < meter->n_models; m++)
        account_free(meter->models[m]);
}

enum cinf_status cinf_meter_add_model(struct cinf_meter *meter, const char *name, uint32_t *model)
{
    TRY(label_check("model", name));
    uint32_t n = meter->n_models;
    for (uint32_t m = 0; m < n; m++) {
        if (strcmp(meter->models[m]->name, name) == 0) {
            *model = m;
            return CINF_OK;
        }
    }
    if (n == ACCOUNTS_MAX)
        return cinf_fail(CINF_EFULL, "the meter already has accounts for %d models", ACCOUNTS_MAX);

    struct account *account = mem_new(1, sizeof *account);
    if (account)
        account->name = mem_copy_text(name);
    struct old_price *wider = meter->next_price ? old_price_new(n + 1) : NULL;
    if (!account || !account->name || (meter->next_price && !wider)) {
        account_free(account);
        mem_free(wider);
        return cinf_fail(CINF_ENOMEM, "no memory for the account of a model");
    }
    if (wider) {
        wider->counters = meter->next_price->counters;
        mem_free(meter->next_price);
        meter->next_price = wider;
    }
    mark_account_dirty(meter, account);
    publish(meter);
    meter->models[n] = account;
    atomic_store_explicit(&meter->n_models, n + 1, memory_order_release);
    *model = n;
    return CINF_OK;
}

void cinf_meter_set_loaded(struct cinf_meter *meter, uint32_t model, bool loaded)
{
    if (model >= meter->n_models)
        return;
    meter->models[model]->counters.loaded = loaded;
    mark_account_dirty(meter, meter->models[model]);
    publish(meter);
}

void cinf_meter_count_error(struct cinf_meter *meter, uint32_t model, enum cinf_error_kind kind)
{
    if (model < meter->n_models && (unsigned)kind < CINF_ERROR_KINDS)
        atomic_fetch_add_explicit(&meter->models[model]->errors[kind], 1, memory_order_relaxed);
}

/* ---- Payers -------------------------------------------------------------------------------- */

/* The place of a payer's account in its model's list, or the end of the list. */
static _Atomic(struct payer_account *) *place_of(struct account *account, const char *payer)
{
    _Atomic(struct payer_account *) *at = &account->payers;
    for (struct payer_account *p; (p = atomic_load(at)) && strcmp(p->name, payer) != 0;)
        at = &p->next;
    return at;
}

static enum cinf_status payer_add(struct payer_account **out, struct cinf_meter *meter,
                                  struct account *account, const char *payer)
{
    /* Another thread may have added it while this one waited for the lock. */
    _Atomic(struct payer_account *) *at = place_of(account, payer);
    if (!atomic_load(at) && atomic_load(&meter->n_payers) >= PAYERS_MAX)
        at = place_of(account, payer = "other");
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
