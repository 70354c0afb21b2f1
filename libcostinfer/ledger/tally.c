#include "tally.h"

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "u128.h"

/* A difference over more minutes than this belongs to the last one. */
enum { SPREAD_MINUTES_MAX = 1500 };

/* From so many rows on, the disk has failed for long: time is added to the last row of its account and price.
 */
enum { MINUTES_MAX = 65536 };

/* ---- Accounts ------------------------------------------------------------------------------ */

static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return (hash ^ 0xff) * UINT64_C(1099511628211);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

struct tally_account *tally_account(struct tally *tally, const char *model, const char *payer)
{
    uint64_t hash = hash_text(UINT64_C(14695981039346656037), model);
    if (payer)
        hash = hash_text(hash, payer);
    struct tally_account **head = &tally->accounts[(hash ^ hash >> 32) % TALLY_HASHES];
    for (struct tally_account *a = *head; a; a = a->next)
        if (strcmp(a->model, model) == 0 && same_text(a->payer, payer))
            return a;
    size_t model_bytes = strlen(model) + 1, payer_bytes = payer ? strlen(payer) + 1 : 0;
    struct tally_account *a = mem_new(1, sizeof *a + model_bytes + payer_bytes);
    if (!a)
        return NULL;
    a->model = memcpy((char *)(a + 1), model, model_bytes);
    if (payer)
        a->payer = memcpy((char *)(a + 1) + model_bytes, payer, payer_bytes);
    a->next = *head;
    return *head = a;
}

/* A meter that needs room for a new model gives an old one's sums to the model "other": they are not new
 * there. */
static void move_to_other(struct tally *tally, struct tally_account *from)
{
    struct tally_account *to = tally_account(tally, "other", from->payer);
    if (from->payer && (!to || to->seen != tally->snapshots))
        to = tally_account(tally, "other", "other");
    if (to && to != from && to->seen == tally->snapshots) {
        to->serve_ns += from->serve_ns;
        to->load_ns += from->load_ns;
    }
    from->serve_ns = from->load_ns = 0;
}

/* ---- Minutes ------------------------------------------------------------------------------- */

static struct tally_minute *find_minute(struct tally *tally, const struct tally_minute *wanted)
{
    struct tally_minutes *m = &tally->minutes;
    bool full = m->n >= MINUTES_MAX;
    for (size_t i = m->n; i-- > 0;) {
        struct tally_minute *at = &m->items[i];
        if (at->kind == wanted->kind && at->account == wanted->account && at->period == wanted->period &&
            (full || at->minute_ns == wanted->minute_ns))
            return at;
        if (!full && at->minute_ns < wanted->minute_ns)
            break;
    }
    return NULL;
}

/* There is room. */
static void add_minute(struct tally *tally, const struct tally_minute *m)
{
    struct tally_minute *same = m->ns > 0 ? find_minute(tally, m) : NULL;
    if (same)
        same->ns += m->ns;
    else if (m->ns > 0)
        tally->minutes.items[tally->minutes.n++] = *m;
}

static uint64_t minutes_between(uint64_t from_ns, uint64_t to_ns)
{
    uint64_t n = to_ns > from_ns ? to_ns / MINUTE_NS - from_ns / MINUTE_NS + 1 : 1;
    return n <= SPREAD_MINUTES_MAX ? n : 1;
}

static void add(struct tally *tally, struct tally_minute m, uint64_t from_ns, uint64_t to_ns)
{
    uint64_t n = minutes_between(from_ns, to_ns), ns = m.ns, given = 0;
    for (uint64_t i = n; i-- > 0 && ns > 0;) {
        m.minute_ns = (to_ns / MINUTE_NS - i) * MINUTE_NS;
        uint64_t end = m.minute_ns + MINUTE_NS;
        uint64_t until = i == 0 ? ns : (uint64_t)((u128)ns * (end - from_ns) / (to_ns - from_ns));
        m.ns = until - given;
        given = until;
        add_minute(tally, &m);
    }
}

/* ---- Snapshots ------------------------------------------------------------------------------ */

static uint64_t last_period(const struct cinf_snapshot *s)
{
    uint64_t n = 0;
    for (uint32_t p = 0; p < s->n_prices; p++)
        n += s->price_sums[p].n_periods;
    return n - 1;
}

static u128 units(struct cinf_cost cost)
{
    return (u128)cost.hi << 64 | cost.lo;
}

static struct tally_state state_of(const struct cinf_snapshot *s, uint64_t wall_ns)
{
    u128 running = units(s->serve_cost) - units(s->ended_cost);
    return (struct tally_state){ .as_of_ns = s->as_of_ns,
                                 .wall_ns = wall_ns,
                                 .ended = s->ended,
                                 .ended_ns = s->ended_ns,
                                 .ended_cost = s->ended_cost,
                                 .running_ns = s->serve_ns - s->ended_ns,
                                 .running_cost = { (uint64_t)(running >> 64), (uint64_t)running } };
}

/* Finds or makes all accounts, so that the rest cannot fail. */
static enum cinf_status reserve(struct tally *tally, const struct cinf_snapshot *s, uint64_t n_minutes)
{
    size_t rows = ((size_t)s->n_models + s->n_payers + 3 * 2) * n_minutes,
           prices = tally->n_prices + s->n_prices;
    bool complete = mem_reserve(&tally->minutes.items, &tally->minutes.cap, tally->minutes.n + rows,
                                sizeof *tally->minutes.items) &&
                    mem_reserve(&tally->prices, &tally->prices_cap, prices, sizeof *tally->prices);
    for (uint32_t m = 0; complete && m < s->n_models; m++)
        complete = tally_account(tally, s->models[m].name, NULL) != NULL;
    for (uint32_t p = 0; complete && p < s->n_payers; p++)
        complete = tally_account(tally, s->models[s->payers[p].model].name, s->payers[p].payer) != NULL;
    return complete ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for device minutes");
}

static void mark_seen(struct tally *tally, const struct cinf_snapshot *s)
{
    tally->snapshots++;
    for (uint32_t m = 0; m < s->n_models; m++)
        tally_account(tally, s->models[m].name, NULL)->seen = tally->snapshots;
    for (uint32_t p = 0; p < s->n_payers; p++)
        tally_account(tally, s->models[s->payers[p].model].name, s->payers[p].payer)->seen = tally->snapshots;
    for (uint32_t h = 0; h < TALLY_HASHES; h++)
        for (struct tally_account *a = tally->accounts[h]; a; a = a->next)
            if (a->seen != tally->snapshots && (a->serve_ns > 0 || a->load_ns > 0))
                move_to_other(tally, a);
}

static void add_models(struct tally *tally, const struct cinf_snapshot *s, uint64_t wall_ns)
{
    uint64_t from = tally->state.wall_ns;
    for (uint32_t i = 0; i < s->n_payers; i++) {
        struct tally_account *a =
            tally_account(tally, s->models[s->payers[i].model].name, s->payers[i].payer);
        if (s->payers[i].serve_ns < a->serve_ns)
            move_to_other(tally, a);
    }
    for (uint32_t i = 0; i < s->n_models; i++) {
        struct tally_account *a = tally_account(tally, s->models[i].name, NULL);
        if (s->models[i].load_ns < a->load_ns)
            move_to_other(tally, a);
    }
    for (uint32_t i = 0; i < s->n_payers; i++) {
        struct tally_account *a =
            tally_account(tally, s->models[s->payers[i].model].name, s->payers[i].payer);
        struct tally_minute m = { .kind = KIND_SERVE,
                                  .account = a,
                                  .period = tally->period,
                                  .ns = s->payers[i].serve_ns - a->serve_ns };
        add(tally, m, from, wall_ns);
        a->serve_ns = s->payers[i].serve_ns;
    }
    for (uint32_t i = 0; i < s->n_models; i++) {
        struct tally_account *a = tally_account(tally, s->models[i].name, NULL);
        struct tally_minute m = {
            .kind = KIND_LOAD, .account = a, .period = tally->period, .ns = s->models[i].load_ns - a->load_ns
        };
        add(tally, m, from, wall_ns);
        a->load_ns = s->models[i].load_ns;
    }
}

/* The device's own accounts are known by price, so a snapshot may be later than the change it was taken at.
 */
static void add_device(struct tally *tally, const struct cinf_snapshot *s, uint64_t wall_ns)
{
    uint64_t from = tally->state.wall_ns, period = 0;
    for (uint32_t p = 0; p < s->n_prices; p++, period++) {
        period += s->price_sums[p].n_periods - 1;
        if (period < tally->period)
            continue;
        const struct cinf_price_period *price = &s->prices[p];
        const struct cinf_price_sums *sums = &s->price_sums[p];
        if (period > tally->period) {
            tally->period = period;
            tally->idle_ns = tally->lost_ns = tally->overhead_ns = 0;
            tally->prices[tally->n_prices++] =
                (struct tally_price){ .period = period,
                                      .from_ns = wall_ns,
                                      .priced = price->priced,
                                      .nanodollars_per_hour = price->nanodollars_per_hour };
        }
        struct tally_minute idle = { .kind = KIND_IDLE,
                                     .period = period,
                                     .ns = price->idle_ns - tally->idle_ns };
        struct tally_minute lost = { .kind = KIND_LOST,
                                     .period = period,
                                     .ns = sums->lost_ns - tally->lost_ns };
        struct tally_minute overhead = { .kind = KIND_OVERHEAD,
                                         .period = period,
                                         .ns = sums->overhead_ns - tally->overhead_ns };
        add(tally, idle, from, wall_ns);
        add(tally, lost, from, wall_ns);
        add(tally, overhead, from, wall_ns);
        tally->idle_ns = price->idle_ns;
        tally->lost_ns = sums->lost_ns;
        tally->overhead_ns = sums->overhead_ns;
    }
}

enum cinf_status tally_begin(struct tally *tally, const struct cinf_snapshot *s, uint64_t wall_ns)
{
    const struct cinf_price_period *last = &s->prices[s->n_prices - 1];
    /* A price before the last one would need a snapshot at its end. */
    bool from_opening = s->ended == 0 && s->n_prices == 1 && s->price_sums[0].n_periods == 1;
    TRY(reserve(tally, s, 1));
    tally->prices[tally->n_prices++] = (struct tally_price){
        .period = last_period(s), .priced = last->priced, .nanodollars_per_hour = last->nanodollars_per_hour
    };
    struct tally_price *price = &tally->prices[tally->n_prices - 1];
    tally->period = price->period;
    tally->state.wall_ns = wall_ns;
    if (from_opening) {
        tally->state.wall_ns = s->as_of_ns < wall_ns ? wall_ns - s->as_of_ns : wall_ns;
    } else {
        mark_seen(tally, s);
        for (uint32_t p = 0; p < s->n_payers; p++)
            tally_account(tally, s->models[s->payers[p].model].name, s->payers[p].payer)->serve_ns =
                s->payers[p].serve_ns;
        for (uint32_t m = 0; m < s->n_models; m++)
            tally_account(tally, s->models[m].name, NULL)->load_ns = s->models[m].load_ns;
        tally->idle_ns = last->idle_ns;
        tally->lost_ns = s->price_sums[s->n_prices - 1].lost_ns;
        tally->overhead_ns = s->price_sums[s->n_prices - 1].overhead_ns;
        tally->state = state_of(s, wall_ns);
    }
    price->from_ns = tally->state.wall_ns;
    return CINF_OK;
}

enum cinf_status tally_add(struct tally *tally, const struct cinf_snapshot *s, uint64_t wall_ns, bool change)
{
    if (s->as_of_ns < tally->state.as_of_ns)
        return CINF_OK; /* taken before one that was added already */
    if (last_period(s) > tally->period + (change ? 1 : 0))
        return cinf_fail(CINF_EAGAIN, "a change of price was not taken yet");
    TRY(reserve(tally, s, minutes_between(tally->state.wall_ns, wall_ns)));
    mark_seen(tally, s);
    add_models(tally, s, wall_ns);
    add_device(tally, s, wall_ns);
    tally->state = state_of(s, wall_ns);
    return CINF_OK;
}

void tally_free(struct tally *tally)
{
    for (uint32_t h = 0; h < TALLY_HASHES; h++)
        for (struct tally_account *a = tally->accounts[h], *next; a; a = next) {
            next = a->next;
            mem_free(a);
        }
    mem_free(tally->minutes.items);
    mem_free(tally->prices);
    *tally = (struct tally){ 0 };
}
