/* test_meter.c - the timeline and its accounts, on a fake clock. */
#include <costinfer/meter.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mem.h"
#include "meter_world.h"

#define HOUR UINT64_C(3600000000000)

static struct cinf_snapshot snapshot(const struct cinf_meter *meter)
{
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, meter));
    check_snapshot(&s);
    return s;
}

/* ---- Everything at random ------------------------------------------------------------------- */

enum { BILLS_MAX = 40, MODELS = 5 };

static uint64_t random_state;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t below(uint64_t n)
{
    return random_u64() % n;
}

/* The test's own accounts, kept beside a meter's. */
struct ledger {
    struct cinf_meter *meter;
    struct cinf_bill *bills[BILLS_MAX];
    bool served[BILLS_MAX];
    uint64_t opened_at, boundary, boundary_stalled;
    bool idle;
    uint32_t n_models;
    struct ended { /* by model */
        uint64_t device_ns, prefill_ns, decode_ns, unpriced_ns, input, cached, output, requests, errors;
        uint64_t finished[CINF_FINISH_COUNT], finished_ns[CINF_FINISH_COUNT];
        struct cinf_cost cost;
    } ended[MODELS];
};

static void add_report(struct ended *e, const struct cinf_report *r)
{
    same(r->device_ns, r->prefill_ns + r->decode_ns);
    e->device_ns += r->device_ns;
    e->prefill_ns += r->prefill_ns;
    e->decode_ns += r->decode_ns;
    e->unpriced_ns += r->unpriced_ns;
    e->input += r->input_tokens;
    e->cached += r->cached_tokens;
    e->output += r->output_tokens;
    e->cost = cinf_cost_add(e->cost, r->cost);
}

/* All ended reports and all running ones add up to the counters. */
static void check(struct ledger *l)
{
    struct cinf_snapshot s = snapshot(l->meter);
    uint64_t as_of = l->idle ? world_clock : l->boundary;
    same(s.as_of_ns, as_of - l->opened_at);
    same(s.lost_ns, l->idle ? world_stalled : l->boundary_stalled);
    same(s.n_models, l->n_models);

    struct ended sums[MODELS];
    uint64_t running[MODELS] = { 0 }, waiting[MODELS] = { 0 };
    memcpy(sums, l->ended, sizeof sums);
    for (int b = 0; b < BILLS_MAX; b++) {
        if (!l->bills[b])
            continue;
        struct cinf_report r = world_report(l->bills[b]);
        same(r.finish, CINF_FINISH_RUNNING);
        add_report(&sums[r.model], &r);
        (l->served[b] ? running : waiting)[r.model]++;
    }
    for (uint32_t m = 0; m < l->n_models; m++) {
        const struct cinf_model_totals *t = &s.models[m];
        const struct ended *e = &sums[m];
        same(t->serve_ns, e->device_ns);
        same(t->prefill_ns, e->prefill_ns);
        same(t->decode_ns, e->decode_ns);
        same(t->unpriced_ns, e->unpriced_ns);
        same(t->input_tokens, e->input);
        same(t->cached_tokens, e->cached);
        same(t->output_tokens, e->output);
        same_cost(t->serve_cost, e->cost);
        same(t->requests[0], e->requests);
        same(t->running, running[m]);
        same(t->waiting, waiting[m]);
        same(t->errors[CINF_ERROR_DEVICE], e->errors);
        for (int f = 0; f < CINF_FINISH_COUNT; f++) {
            same(t->finished[f], e->finished[f]);
            same(t->finished_ns[f], e->finished_ns[f]);
        }
    }
    cinf_snapshot_free(&s);
}

static void pass_boundary(struct ledger *l)
{
    l->boundary = world_clock;
    l->boundary_stalled = world_stalled;
}

static void charge_some(struct ledger *l)
{
    struct cinf_share shares[BILLS_MAX];
    struct cinf_report before[BILLS_MAX];
    uint32_t n = 0;
    uint64_t wide_weights = below(4) == 0, zero = below(8) == 0, sum = 0;
    for (int b = 0; b < BILLS_MAX; b++) {
        if (!l->bills[b] || below(3) == 0)
            continue;
        uint64_t unit = wide_weights ? UINT64_MAX / BILLS_MAX / 2 : 1000000;
        shares[n] = (struct cinf_share){
            .bill = l->bills[b],
            .prefill_weight = zero || below(2) ? 0 : below(unit),
            .decode_weight = zero || below(4) == 0 ? 0 : below(unit),
            .input_tokens = (uint32_t)below(3),
            .cached_tokens = (uint32_t)below(2),
            .output_tokens = (uint32_t)below(3),
        };
        l->served[b] = true;
        sum += shares[n].prefill_weight + shares[n].decode_weight;
        before[n++] = world_report(l->bills[b]);
    }
    uint64_t lost = world_stalled - l->boundary_stalled;
    uint64_t expected = l->idle ? 0 : world_clock - l->boundary - lost;
    uint64_t interval = cinf_meter_charge(l->meter, shares, n);
    if (n == 0) {
        same(interval, 0);
        return;
    }
    same(interval, expected);
    pass_boundary(l);
    l->idle = false;
    uint64_t charged = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct cinf_report r = world_report(shares[i].bill);
        uint64_t part = r.device_ns - before[i].device_ns;
        at_most(r.lost_ns - before[i].lost_ns, lost);
        at_most(r.lost_ns, r.latency_ns);
        uint64_t weight = shares[i].prefill_weight + shares[i].decode_weight;
        charged += part;
        if (sum > 0 && weight == 0)
            same(part, 0);
        if (shares[i].prefill_weight == 0 && weight > 0)
            same(r.prefill_ns, before[i].prefill_ns);
        if (shares[i].decode_weight == 0 && weight > 0)
            same(r.decode_ns, before[i].decode_ns);
        same(r.output_tokens, before[i].output_tokens + shares[i].output_tokens);
    }
    same(charged, interval);
}

static void end_bill(struct ledger *l, int b, enum cinf_finish finish)
{
    struct cinf_bill *bill = l->bills[b];
    cinf_bill_close(bill, finish);
    struct cinf_report r = world_report(bill);
    same(r.finish, finish);
    cinf_bill_close(bill, CINF_FINISH_FAILED); /* a second time changes nothing */
    add_report(&l->ended[r.model], &r);
    l->ended[r.model].requests++;
    l->ended[r.model].finished[finish]++;
    l->ended[r.model].finished_ns[finish] += r.device_ns;
    cinf_bill_free(bill);
    l->bills[b] = NULL;
    l->served[b] = false;
}

static void random_step(struct ledger *l)
{
    static const char *const prices[] = { "0.10", "2.50", "0", "1000000", "0.000000001", NULL };
    static const char *const payers[] = { "ann", "bob", "anonymous", "a \"third\" one" };
    static const char *const names[MODELS] = { "a", "b", "c", "d", "e" };
    uint32_t model = (uint32_t)below(l->n_models);
    int b = (int)below(BILLS_MAX);
    world_pass(below(20) == 0 ? below(5 * HOUR) : below(4) == 0 ? below(3) : below(50000000));
    if (below(10) == 0)
        world_stall(below(HOUR));
    switch (below(10)) {
    case 0:
    case 1:
        if (!l->bills[b])
            l->bills[b] = world_bill_for(l->meter, model, below(3) ? payers[below(4)] : NULL);
        break;
    case 2:
        if (l->bills[b])
            end_bill(l, b, CINF_FINISH_STOP + (enum cinf_finish)below(CINF_FINISH_COUNT - 1));
        break;
    case 3:
        cinf_meter_charge_load(l->meter, model);
        pass_boundary(l);
        l->idle = false;
        break;
    case 4:
        cinf_meter_idle(l->meter);
        l->idle = true;
        break;
    case 5:
        if (l->idle)
            pass_boundary(l);
        cinf_meter_busy(l->meter);
        l->idle = false;
        break;
    case 6:
        if (below(5) == 0)
            ck_ok(cinf_meter_set_price(l->meter, prices[below(6)]));
        break;
    case 7:
        if (below(20) == 0)
            l->n_models = world_model(l->meter, names[below(l->n_models + 1) % MODELS]) + 1 > l->n_models
                              ? l->n_models + 1
                              : l->n_models;
        cinf_meter_set_loaded(l->meter, model, below(2));
        cinf_meter_count_error(l->meter, model, CINF_ERROR_DEVICE);
        l->ended[model].errors++;
        break;
    default:
        charge_some(l);
    }
}

START_TEST(every_identity_after_every_step)
{
    random_state = 88172645463325252 + (uint64_t)_i * 7919;
    struct ledger l = { .meter = world_meter(_i % 2 ? "2.50" : NULL), .idle = true, .n_models = 1 };
    l.opened_at = world_clock;
    world_model(l.meter, "a");
    for (int step = 0; step < 4000; step++) {
        random_step(&l);
        check(&l);
    }
    for (int b = 0; b < BILLS_MAX; b++)
        if (l.bills[b])
            end_bill(&l, b, CINF_FINISH_CANCELLED);
    check(&l);
    cinf_meter_free(l.meter);
}
END_TEST

/* ---- Payers ---------------------------------------------------------------------------------- */

START_TEST(each_payer_pays_for_its_own)
{
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a"), b = world_model(meter, "b");
    struct cinf_bill *bills[] = { world_bill_for(meter, b, "ann"), world_bill_for(meter, b, "bob"),
                                  world_bill_for(meter, a, "ann"), world_bill(meter, b) };
    struct cinf_snapshot s = snapshot(meter); /* there before the first charge */
    ck_assert_uint_eq(s.n_payers, 4);
    ck_assert_uint_eq(s.payers[0].model, a);
    ck_assert_str_eq(s.payers[0].payer, "ann");
    ck_assert_str_eq(s.payers[2].payer, "bob");
    ck_assert_str_eq(s.payers[3].payer, "anonymous");
    ck_assert_uint_eq(s.payers[1].serve_ns, 0);
    cinf_snapshot_free(&s);
    cinf_meter_busy(meter);
    world_pass(600);
    struct cinf_share shares[4];
    for (uint64_t i = 0; i < 4; i++)
        shares[i] = (struct cinf_share){ .bill = bills[i], .decode_weight = i, .output_tokens = 1 };
    shares[0].prefill_weight = 6;
    cinf_meter_charge(meter, shares, 4);
    s = snapshot(meter);
    const uint64_t ns[] = { 100, 300, 50, 150 }; /* a's ann; b's ann, bob and anonymous */
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(s.payers[i].serve_ns, ns[i]);
    ck_assert_uint_eq(s.payers[1].prefill_ns, 300);
    same_cost(s.payers[2].cost, cinf_cost_of(50, 1000000000));
    cinf_snapshot_free(&s);
    for (int i = 0; i < 4; i++)
        world_end(bills[i]);
    struct cinf_bill *none = NULL;
    ck_fails(cinf_bill_open_for(&none, meter, a, 0, ""), CINF_EINVAL, "payer");
    ck_fails(cinf_bill_open_for(&none, meter, a, 0, "\xff"), CINF_EINVAL, "UTF-8");
    s = snapshot(meter);
    ck_assert_uint_eq(s.n_payers, 4);
    ck_assert_uint_eq(s.payers[2].requests, 1);
    cinf_snapshot_free(&s);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(payers_beyond_the_limit_share_an_account)
{
    enum { LIMIT = 16384 };
    struct cinf_meter *meter = world_meter("1");
    uint32_t models[4];
    for (uint32_t m = 0; m < 4; m++)
        models[m] = world_model(meter, (char[]){ (char)('a' + (int)m), '\0' });
    for (int i = 0; i < LIMIT + 20; i++) {
        char payer[16];
        snprintf(payer, sizeof payer, "p%d", i);
        struct cinf_bill *bill = world_bill_for(meter, models[i % 4], payer);
        if (i >= LIMIT - 4)
            cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .input_tokens = 1 }, 1);
        world_end(bill);
    }
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.n_payers, LIMIT + 4);
    for (uint32_t p = LIMIT / 4; p < s.n_payers; p += LIMIT / 4 + 1) {
        ck_assert_str_eq(s.payers[p].payer, "other");
        ck_assert_uint_eq(s.payers[p].requests, 5);
        ck_assert_uint_eq(s.payers[p].input_tokens, 5);
        ck_assert_uint_eq(s.payers[p - 1].input_tokens, 1);
    }
    cinf_snapshot_free(&s);
    cinf_meter_free(meter);
}
END_TEST

/* ---- CPU time -------------------------------------------------------------------------------- */

static uint64_t world_device_cpu;

static uint64_t device_cpu(void *context)
{
    (void)context;
    return world_device_cpu;
}

/* `device` of `all` nanoseconds of CPU time were the device's. */
static void use_cpu(uint64_t all, uint64_t device)
{
    world_pass(all);
    world_device_cpu += device;
}

START_TEST(other_threads_are_overhead)
{
    struct cinf_meter *meter;
    world_clock = 500;
    world_device_cpu = 77;
    ck_ok(cinf_meter_new(&meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .basis = CINF_BASIS_CPU,
                                                               .dollars_per_hour = "1", .clock_ns = world_now,
                                                               .device_cpu_ns = device_cpu }));
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model);
    struct cinf_share share = { .bill = bill, .decode_weight = 1 };
    use_cpu(1000, 30); /* without work */
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.overhead_ns, 1000);
    ck_assert_uint_eq(s.idle_ns, 0);
    cinf_snapshot_free(&s);
    cinf_meter_busy(meter);
    use_cpu(100, 60);
    ck_assert_uint_eq(cinf_meter_charge(meter, &share, 1), 60);
    use_cpu(100000, 70); /* a flood of something else */
    ck_assert_uint_eq(cinf_meter_charge(meter, &share, 1), 70);
    use_cpu(10, 12); /* read a moment apart: the rest is charged next time */
    ck_assert_uint_eq(cinf_meter_charge(meter, &share, 1), 10);
    use_cpu(10, 5);
    ck_assert_uint_eq(cinf_meter_charge(meter, &share, 1), 7);
    use_cpu(50, 50);
    ck_assert_uint_eq(cinf_meter_charge_load(meter, model), 50);
    cinf_meter_idle(meter);
    use_cpu(40, 40);
    s = snapshot(meter);
    ck_assert_uint_eq(s.serve_ns, 147);
    ck_assert_uint_eq(s.load_ns, 50);
    ck_assert_uint_eq(s.idle_ns, 0);
    ck_assert_uint_eq(s.as_of_ns, 1000 + 100 + 100000 + 10 + 10 + 50 + 40);
    ck_assert_uint_eq(s.overhead_ns, s.as_of_ns - 147 - 50);
    cinf_snapshot_free(&s);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

/* ---- The invariants one by one --------------------------------------------------------------- */

START_TEST(alone_the_cost_is_latency_times_the_hourly_rate)
{
    struct cinf_meter *meter = world_meter("0.10");
    uint32_t model = world_model(meter, "m");
    world_pass(777);
    struct cinf_bill *bill = world_bill(meter, model);
    world_pass(5);
    cinf_meter_busy(meter);
    for (int step = 0; step < 100; step++) {
        world_pass(200000000 - 7 + (uint64_t)(step % 15));
        cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .decode_weight = 9, .output_tokens = 1 },
                          1);
    }
    cinf_meter_idle(meter);
    world_pass(1000);
    struct cinf_report r = world_report(bill);
    ck_assert_uint_eq(r.device_ns, r.latency_ns);
    ck_assert_uint_eq(r.queue_ns, 5);
    same_cost(r.cost, cinf_cost_of(r.latency_ns, 100000000));
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(overlapping_requests_cost_the_machine_once)
{
    struct cinf_meter *meter = world_meter("2.50");
    uint32_t model = world_model(meter, "m");
    struct cinf_share shares[8];
    cinf_meter_busy(meter);
    for (int i = 0; i < 8; i++)
        shares[i] =
            (struct cinf_share){ .bill = world_bill(meter, model), .decode_weight = 3, .output_tokens = 1 };
    for (int step = 0; step < 50; step++) {
        world_pass(10000003);
        ck_assert_uint_eq(cinf_meter_charge(meter, shares, 8), 10000003);
    }
    uint64_t device_ns = 0, latency_ns = 0;
    for (int i = 0; i < 8; i++) {
        struct cinf_report r = world_report(shares[i].bill);
        device_ns += r.device_ns;
        latency_ns += r.latency_ns;
        world_end(shares[i].bill);
    }
    ck_assert_uint_eq(device_ns, 50 * UINT64_C(10000003));
    ck_assert_uint_eq(latency_ns, 8 * device_ns); /* what latency x rate would have claimed */
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_new_price_while_idle_takes_effect_now)
{
    struct cinf_meter *meter = world_meter("1");
    world_pass(HOUR);
    ck_ok(cinf_meter_set_price(meter, "2"));
    world_pass(2 * HOUR);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 2);
    ck_assert_uint_eq(s.prices[0].idle_ns, HOUR);
    ck_assert_uint_eq(s.prices[1].from_ns, HOUR);
    ck_assert_uint_eq(s.prices[1].idle_ns, 2 * HOUR);
    char text[CINF_COST_TEXT_MAX];
    ck_assert_str_eq(cinf_cost_format(text, s.idle_cost), "5.000000000000");
    cinf_snapshot_free(&s);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_new_price_while_busy_waits_for_the_boundary)
{
    struct cinf_meter *meter = world_meter("1");
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model);
    struct cinf_share share = { .bill = bill, .prefill_weight = 1 };
    cinf_meter_busy(meter);
    world_pass(HOUR / 2);
    ck_ok(cinf_meter_set_price(meter, "3"));
    ck_ok(cinf_meter_set_price(meter, "2")); /* the last word before the boundary counts */
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 1);
    cinf_snapshot_free(&s);
    world_pass(HOUR / 2);
    cinf_meter_charge(meter, &share, 1);
    same_cost(world_report(bill).cost, cinf_cost_of(HOUR, 1000000000));
    world_pass(HOUR);
    /* A model that is added between the call and the boundary has its place in the history. */
    ck_ok(cinf_meter_set_price(meter, "4"));
    uint32_t late = world_model(meter, "late");
    cinf_meter_charge_load(meter, late);
    s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 3);
    ck_assert_uint_eq(s.prices[0].serve_ns, HOUR);
    ck_assert_uint_eq(s.prices[0].model_serve_ns[0], HOUR);
    ck_assert_uint_eq(s.prices[0].model_load_ns[late], 0);
    ck_assert_uint_eq(s.prices[1].load_ns, HOUR);
    ck_assert_uint_eq(s.prices[1].model_load_ns[late], HOUR);
    ck_assert_uint_eq(s.prices[2].from_ns, 2 * HOUR);
    ck_assert_uint_eq(s.prices[2].nanodollars_per_hour, 4000000000);
    cinf_snapshot_free(&s);

    /* Going idle is a boundary, too: the time before it is idle, at the old price. */
    world_pass(HOUR);
    ck_ok(cinf_meter_set_price(meter, NULL));
    world_pass(HOUR);
    cinf_meter_idle(meter);
    world_pass(HOUR);
    s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 4);
    ck_assert_uint_eq(s.prices[2].idle_ns, 2 * HOUR);
    ck_assert(!s.prices[3].priced);
    ck_assert_uint_eq(s.unpriced_ns, HOUR);
    same_cost(s.idle_cost, cinf_cost_of(2 * HOUR, 4000000000));
    cinf_snapshot_free(&s);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(the_same_price_again_is_no_change)
{
    struct cinf_meter *meter = world_meter("0.10");
    world_pass(10);
    ck_ok(cinf_meter_set_price(meter, "0.100"));
    cinf_meter_busy(meter);
    ck_ok(cinf_meter_set_price(meter, "5"));
    ck_ok(cinf_meter_set_price(meter, "0.1")); /* takes the 5 back */
    cinf_meter_idle(meter);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 1);
    cinf_snapshot_free(&s);
    /* Unpriced is not free of charge. */
    ck_ok(cinf_meter_set_price(meter, "0"));
    ck_ok(cinf_meter_set_price(meter, NULL));
    s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 3);
    ck_assert(s.prices[1].priced && !s.prices[2].priced);
    cinf_snapshot_free(&s);
    ck_fails(cinf_meter_set_price(meter, "-1"), CINF_EINVAL, "a price is");
    cinf_meter_free(meter);
}
END_TEST

START_TEST(an_unknown_price_is_unpriced_not_free)
{
    struct cinf_meter *meter = world_meter(NULL);
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model);
    struct cinf_share share = { .bill = bill, .decode_weight = 1 };
    world_pass(100);
    cinf_meter_busy(meter);
    world_pass(200);
    cinf_meter_charge(meter, &share, 1);
    ck_assert_uint_eq(world_report(bill).unpriced_ns, 200);
    ck_ok(cinf_meter_set_price(meter, "1"));
    world_pass(300);
    cinf_meter_charge(meter, &share, 1); /* still the old one, which is none */
    world_pass(400);
    cinf_meter_charge(meter, &share, 1);
    struct cinf_report r = world_report(bill);
    ck_assert_uint_eq(r.unpriced_ns, 500);
    ck_assert_uint_eq(r.device_ns, 900);
    same_cost(r.cost, cinf_cost_of(400, 1000000000));
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.unpriced_ns, 600);
    ck_assert_uint_eq(s.models[0].unpriced_ns, 500);
    cinf_snapshot_free(&s);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(reading_changes_nothing)
{
    struct cinf_meter *meter = world_meter("1");
    struct cinf_snapshot s;
    for (int i = 0; i < 100; i++) {
        world_pass(10);
        s = snapshot(meter);
        ck_assert_uint_eq(s.as_of_ns, 10 * (uint64_t)(i + 1)); /* now, while idle */
        cinf_snapshot_free(&s);
    }
    cinf_meter_busy(meter);
    world_pass(10);
    s = snapshot(meter);
    ck_assert_uint_eq(s.as_of_ns, 1000); /* the last boundary, while busy */
    cinf_snapshot_free(&s);
    cinf_meter_busy(meter); /* nothing on a busy device */
    cinf_meter_idle(meter);
    cinf_meter_idle(meter);
    s = snapshot(meter);
    ck_assert_uint_eq(s.idle_ns, 1010); /* what followed the boundary was idle after all */
    cinf_snapshot_free(&s);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(charging_an_idle_device_charges_from_now)
{
    struct cinf_meter *meter = world_meter("1");
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model);
    struct cinf_share share = { .bill = bill };
    world_pass(500);
    ck_assert_uint_eq(cinf_meter_charge(meter, &share, 0), 0);
    ck_assert_uint_eq(cinf_meter_charge(meter, &share, 1), 0);
    world_pass(7);
    ck_assert_uint_eq(cinf_meter_charge_load(meter, 99), 0); /* no such model: still not charged */
    ck_assert_uint_eq(cinf_meter_charge_load(meter, model), 7);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.idle_ns, 500);
    ck_assert_uint_eq(s.load_ns, 7);
    cinf_snapshot_free(&s);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

/* ---- Basis ----------------------------------------------------------------------------------- */

START_TEST(cpu_basis_charges_cpu_time_and_waits_in_wall_time)
{
    struct cinf_meter *meter;
    ck_ok(
        cinf_meter_new(&meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .basis = CINF_BASIS_CPU }));
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model);
    struct cinf_share share = { .bill = bill, .decode_weight = 1, .output_tokens = 1 };
    nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
    cinf_meter_busy(meter);
    nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
    cinf_meter_charge(meter, &share, 1);
    struct cinf_report r = world_report(bill);
    ck_assert_uint_ge(r.queue_ns, 30000000);
    ck_assert_uint_ge(r.latency_ns, 30000000);
    ck_assert_uint_ge(r.first_token_ns, r.queue_ns + r.latency_ns);
    ck_assert_uint_lt(r.device_ns, 25000000); /* asleep costs no CPU */
    ck_assert_uint_gt(r.device_ns, 0);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_int_eq(s.basis, CINF_BASIS_CPU);
    ck_assert_uint_lt(s.as_of_ns, 50000000);
    cinf_snapshot_free(&s);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(wall_basis_has_one_clock)
{
    struct cinf_meter *meter;
    ck_ok(cinf_meter_new(&meter, NULL));
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model);
    struct cinf_share share = { .bill = bill, .decode_weight = 1, .output_tokens = 1 };
    cinf_meter_busy(meter);
    for (int i = 0; i < 1000; i++)
        cinf_meter_charge(meter, &share, 1);
    struct cinf_report r = world_report(bill);
    ck_assert_uint_gt(r.device_ns, 0);
    ck_assert_uint_eq(r.device_ns, r.latency_ns);
    ck_assert_uint_eq(r.unpriced_ns, r.device_ns);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_str_eq(s.device, "cpu");
    ck_assert_uint_eq(s.n_endpoints, 1);
    ck_assert_str_eq(s.endpoints[0], "api");
    cinf_snapshot_free(&s);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

/* ---- Limits, refusals, memory ---------------------------------------------------------------- */

START_TEST(options_that_are_refused)
{
    const char *const twice[] = { "a", "b", "a" }, *const bad[] = { "\xFF" }, *const empty[] = { "" };
    const char *const many[CINF_ENDPOINTS_MAX + 1] = { "0", "1", "2", "3", "4", "5", "6", "7", "8",
                                                       "9", "A", "B", "C", "D", "E", "F", "G" };
    const double descending[] = { 2, 1 };
    const struct {
        struct cinf_meter_options options;
        const char *words;
    } cases[] = {
        { { .device = "x" }, "struct_size" },
        { { CINF_METER_OPTIONS, .device = "" }, "device" },
        { { CINF_METER_OPTIONS, .device = "\xC3(" }, "UTF-8" },
        { { CINF_METER_OPTIONS, .basis = (enum cinf_basis)2 }, "basis" },
        { { CINF_METER_OPTIONS, .dollars_per_hour = "2,50" }, "price" },
        { { CINF_METER_OPTIONS, .endpoints = twice, .n_endpoints = 3 }, "same name" },
        { { CINF_METER_OPTIONS, .endpoints = bad, .n_endpoints = 1 }, "UTF-8" },
        { { CINF_METER_OPTIONS, .endpoints = empty, .n_endpoints = 1 }, "bytes" },
        { { CINF_METER_OPTIONS, .endpoints = many, .n_endpoints = 17 }, "17 endpoints" },
        { { CINF_METER_OPTIONS, .endpoints = many }, "0 endpoints" },
        { { CINF_METER_OPTIONS, .n_endpoints = 2 }, "without its list" },
        { { CINF_METER_OPTIONS, .n_latency_buckets = 2 }, "without its list" },
        { { CINF_METER_OPTIONS, .latency_buckets = descending, .n_latency_buckets = 2 }, "bucket 1" },
        { { CINF_METER_OPTIONS, .latency_buckets = descending }, "0 buckets" },
    };
    struct cinf_meter *const untouched = (struct cinf_meter *)&random_state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cinf_meter *meter = untouched;
        ck_fails(cinf_meter_new(&meter, &cases[i].options), CINF_EINVAL, cases[i].words);
        ck_assert_ptr_eq(meter, untouched);
    }
    struct cinf_meter *meter;
    ck_ok(cinf_meter_new(
        &meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .endpoints = many, .n_endpoints = 16 }));
    cinf_meter_free(meter);
    /* A caller compiled when the struct ended after its first fields. */
    struct cinf_meter_options old = { .struct_size = offsetof(struct cinf_meter_options, endpoints),
                                      .device = "old",
                                      .n_endpoints = 99 };
    ck_ok(cinf_meter_new(&meter, &old));
    cinf_meter_free(meter);
    cinf_meter_free(NULL);
}
END_TEST

START_TEST(names_of_models)
{
    struct cinf_meter *meter = world_meter(NULL);
    char name[300];
    uint32_t model = 77;
    memset(name, 'x', sizeof name);
    name[257] = '\0';
    ck_fails(cinf_meter_add_model(meter, name, &model), CINF_EINVAL, "257");
    ck_fails(cinf_meter_add_model(meter, "", &model), CINF_EINVAL, "1 to 256");
    ck_fails(cinf_meter_add_model(meter, "caf\xE9", &model), CINF_EINVAL, "UTF-8");
    ck_fails(cinf_meter_add_model(meter, "\xED\xA0\x80", &model), CINF_EINVAL, "UTF-8");
    ck_assert_uint_eq(model, 77);
    name[256] = '\0';
    ck_assert_uint_eq(world_model(meter, name), 0);
    ck_assert_uint_eq(world_model(meter, "\"q\\\n"), 1);
    ck_assert_uint_eq(world_model(meter, name), 0); /* that account again */
    cinf_meter_set_loaded(meter, 1, true);
    cinf_meter_set_loaded(meter, 2, true); /* was not added: nothing */
    cinf_meter_count_error(meter, 2, CINF_ERROR_TIMEOUT);
    cinf_meter_count_error(meter, 0, CINF_ERROR_KINDS);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.n_models, 2);
    ck_assert(!s.models[0].loaded && s.models[1].loaded);
    ck_assert_str_eq(s.models[0].name, name);
    cinf_snapshot_free(&s);

    struct cinf_bill *bill = (struct cinf_bill *)&random_state, *before = bill;
    ck_fails(cinf_bill_open(&bill, meter, 2, 0), CINF_EINVAL, "unknown model 2");
    ck_fails(cinf_bill_open(&bill, meter, 0, 1), CINF_EINVAL, "unknown endpoint 1");
    ck_assert_ptr_eq(bill, before);
    cinf_meter_free(meter);
}
END_TEST

static void use_model(struct cinf_meter *meter, uint32_t model, const char *payer)
{
    struct cinf_bill *bill = world_bill_for(meter, model, payer);
    cinf_meter_busy(meter);
    world_pass(1000 + model);
    cinf_meter_charge_load(meter, model);
    world_pass(10);
    cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .decode_weight = 1, .output_tokens = 1 }, 1);
    cinf_meter_idle(meter);
    cinf_meter_count_error(meter, model, CINF_ERROR_TIMEOUT);
    world_end(bill);
}

/* Sums over all models, which making room must not change. */
static struct cinf_model_totals total_of(const struct cinf_snapshot *s)
{
    struct cinf_model_totals sum = { 0 };
    for (uint32_t m = 0; m < s->n_models; m++) {
        const struct cinf_model_totals *t = &s->models[m];
        sum.decode_ns += t->decode_ns;
        sum.load_ns += t->load_ns;
        sum.output_tokens += t->output_tokens;
        sum.requests[0] += t->requests[0];
        sum.finished_ns[CINF_FINISH_STOP] += t->finished_ns[CINF_FINISH_STOP];
        sum.errors[CINF_ERROR_TIMEOUT] += t->errors[CINF_ERROR_TIMEOUT];
    }
    return sum;
}

START_TEST(models_that_are_no_longer_used_make_room)
{
    const uint64_t day = 24 * HOUR;
    struct cinf_meter *meter = world_meter("1");
    char name[32];
    for (uint32_t i = 0; i < 1023; i++) {
        snprintf(name, sizeof name, "m%u", i);
        ck_assert_uint_eq(world_model(meter, name), i);
        use_model(meter, i, i % 2 ? "ann" : "bob");
        if (i == 500)
            ck_ok(cinf_meter_set_price(meter, "2"));
    }
    uint32_t model = 77;
    cinf_meter_set_loaded(meter, 0, true);
    struct cinf_bill *waiting = world_bill(meter, 1);
    world_pass(day - 10000000); /* all have been used within a day */
    ck_fails(cinf_meter_add_model(meter, "one more", &model), CINF_EFULL, "1024 models, and none");
    ck_assert_uint_eq(model, 77);
    world_pass(day);
    use_model(meter, 2, "ann");
    struct cinf_snapshot before = snapshot(meter);
    ck_assert_uint_eq(before.n_models, 1024);
    ck_assert_str_eq(before.models[1023].name, "other");

    ck_assert_uint_eq(world_model(meter, "one more"), 3); /* 0 is loaded, 1 is asked for, 2 was used */
    ck_assert_uint_eq(world_model(meter, "one more"), 3);
    ck_assert_uint_eq(world_model(meter, "two more"), 4);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_str_eq(s.models[3].name, "one more");
    ck_assert_uint_eq(s.models[3].load_ns + s.models[3].serve_ns + s.models[3].requests[0], 0);
    ck_assert_uint_eq(s.models[1023].load_ns, 1003 + 1004);
    ck_assert_uint_eq(s.models[1023].errors[CINF_ERROR_TIMEOUT], 2);
    ck_assert_uint_eq(s.prices[0].model_load_ns[1023], 1003 + 1004);
    ck_assert_uint_eq(s.prices[0].model_load_ns[3], 0);
    ck_assert_uint_eq(s.models[1].waiting, 1);
    ck_assert_uint_eq(s.models[3].waiting, 0);
    cinf_snapshot_free(&s);

    /* Without memory the room is not made, and nothing has changed. */
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        enum cinf_status status = cinf_meter_add_model(meter, "three more", &model);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        s = snapshot(meter);
        struct cinf_model_totals was = total_of(&before), is = total_of(&s);
        ck_assert_mem_eq(&is, &was, sizeof is);
        cinf_snapshot_free(&s);
        if (!hit) {
            ck_assert_int_eq(status, CINF_OK);
            break;
        }
        ck_assert_int_eq(status, CINF_ENOMEM);
    }
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "later %d", i);
        world_pass(day / 1000);
        world_model(meter, name);
    }
    s = snapshot(meter);
    struct cinf_model_totals was = total_of(&before), is = total_of(&s);
    ck_assert_mem_eq(&is, &was, sizeof is);
    ck_assert_str_eq(s.models[0].name, "m0");
    ck_assert_str_eq(s.models[1].name, "m1");
    ck_assert_uint_eq(s.n_models, 1024);
    cinf_snapshot_free(&s);
    cinf_snapshot_free(&before);
    world_end(waiting);
    cinf_meter_free(meter);
}
END_TEST

/* The two oldest periods become one, and no sum changes. */
START_TEST(ten_thousand_prices)
{
    struct cinf_meter *meter = world_meter("0");
    uint32_t model = world_model(meter, "m"), late = 0;
    struct cinf_cost cost = { 0 };
    uint64_t unpriced = 0;
    for (uint64_t i = 1; i <= 10000; i++) {
        char price[16];
        snprintf(price, sizeof price, "%d", (int)i);
        ck_ok(cinf_meter_set_price(meter, i % 100 ? price : NULL));
        if (i == 3000)
            late = world_model(meter, "late");
        world_pass(2);
        world_stall(1);
        cinf_meter_charge_load(meter, i % 2 && i >= 3000 ? late : model);
        cinf_meter_idle(meter);
        world_pass(4);
        if (i % 100)
            cost = cinf_cost_add(cost, cinf_cost_of(7, i * 1000000000));
        else
            unpriced += 7;
        if (i == 1 || i == 4094 || i == 4095 || i == 4096 || i == 7000 || i == 10000) {
            struct cinf_snapshot s = snapshot(meter);
            struct cinf_cost sum = cinf_cost_add(cinf_cost_add(s.load_cost, s.idle_cost), s.lost_cost);
            uint64_t n = i + 1 > 4096 ? 4096 : i + 1;
            ck_assert_uint_eq(s.n_prices, n);
            ck_assert_uint_eq(s.price_sums[0].n_periods, i + 1 - (n - 1));
            ck_assert_uint_eq(s.prices[n - 1].from_ns, 7 * (i - 1));
            same_cost(sum, cost);
            ck_assert_uint_eq(s.unpriced_ns, unpriced);
            cinf_snapshot_free(&s);
        }
    }
    ck_ok(cinf_meter_set_price(meter, NULL)); /* no change */
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 4096);
    ck_assert(!s.prices[4095].priced);
    ck_assert_uint_eq(s.prices[4094].nanodollars_per_hour, 9999000000000);
    ck_assert(s.prices[0].priced);
    ck_assert_uint_eq(s.prices[0].nanodollars_per_hour, 0);
    cinf_snapshot_free(&s);
    cinf_meter_free(meter);
}
END_TEST

/* Makes all allocating calls of a meter; true if none failed. */
static bool life_of_a_meter(void)
{
    struct cinf_meter *meter = NULL;
    struct cinf_bill *bill = NULL;
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    uint32_t a, b;
    const char *const endpoints[] = { "x", "y" };
    struct cinf_meter_options options = { CINF_METER_OPTIONS, .dollars_per_hour = "1", .clock_ns = world_now,
                                          .endpoints = endpoints, .n_endpoints = 2 };
    enum cinf_status status = cinf_meter_new(&meter, &options);
    if (status == CINF_OK)
        status = cinf_meter_add_model(meter, "a", &a);
    if (status == CINF_OK)
        status = cinf_bill_open(&bill, meter, 0, 1);
    if (status == CINF_OK)
        status = cinf_meter_set_price(meter, "2");
    if (status == CINF_OK) {
        cinf_meter_busy(meter);
        world_pass(10);
        status = cinf_meter_set_price(meter, "3");
    }
    if (status == CINF_OK)
        status = cinf_meter_add_model(meter, "b", &b);
    if (bill) {
        cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill }, 1); /* cannot fail */
        world_end(bill);
    }
    if (status == CINF_OK)
        status = cinf_meter_snapshot(&s, meter);
    if (status == CINF_OK)
        check_snapshot(&s);
    cinf_snapshot_free(&s);
    cinf_meter_free(meter);
    ck_assert(status == CINF_OK || status == CINF_ENOMEM);
    return status == CINF_OK;
}

START_TEST(memory_may_run_out_anywhere)
{
    uint64_t n = 0;
    for (bool done = false; !done;) {
        mem_fail_at(++n);
        done = life_of_a_meter();
        ck_assert(done != mem_fail_hit());
        mem_fail_at(0);
    }
    ck_assert_uint_gt(n, 10);
}
END_TEST

START_TEST(a_price_refused_for_memory_changes_nothing)
{
    struct cinf_meter *meter = world_meter("1");
    world_pass(100);
    mem_fail_at(1);
    ck_fails(cinf_meter_set_price(meter, "2"), CINF_ENOMEM, "no memory");
    mem_fail_at(0);
    struct cinf_snapshot s = snapshot(meter);
    ck_assert_uint_eq(s.n_prices, 1);
    ck_assert_uint_eq(s.idle_ns, 100);
    cinf_snapshot_free(&s);
    cinf_meter_free(meter);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("meter");
    TCase *t = tcase_create("meter");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_identity_after_every_step, 0, 4);
    tcase_add_test(t, each_payer_pays_for_its_own);
    tcase_add_test(t, payers_beyond_the_limit_share_an_account);
    tcase_add_test(t, other_threads_are_overhead);
    tcase_add_test(t, alone_the_cost_is_latency_times_the_hourly_rate);
    tcase_add_test(t, overlapping_requests_cost_the_machine_once);
    tcase_add_test(t, a_new_price_while_idle_takes_effect_now);
    tcase_add_test(t, a_new_price_while_busy_waits_for_the_boundary);
    tcase_add_test(t, the_same_price_again_is_no_change);
    tcase_add_test(t, an_unknown_price_is_unpriced_not_free);
    tcase_add_test(t, reading_changes_nothing);
    tcase_add_test(t, charging_an_idle_device_charges_from_now);
    tcase_add_test(t, cpu_basis_charges_cpu_time_and_waits_in_wall_time);
    tcase_add_test(t, wall_basis_has_one_clock);
    tcase_add_test(t, options_that_are_refused);
    tcase_add_test(t, names_of_models);
    tcase_add_test(t, models_that_are_no_longer_used_make_room);
    tcase_add_test(t, ten_thousand_prices);
    tcase_add_test(t, memory_may_run_out_anywhere);
    tcase_add_test(t, a_price_refused_for_memory_changes_nothing);
    suite_add_tcase(s, t);
    return s;
}
