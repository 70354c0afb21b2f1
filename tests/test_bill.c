/* test_bill.c - what a request's report and its histograms say. */
#include <string.h>

#include "meter_world.h"
#include "snapshot.h"

#define MS UINT64_C(1000000)

static uint64_t total(const struct histogram *h)
{
    uint64_t n = 0;
    for (int i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
        n += h->counts[i];
    return n;
}

static struct model_counters counters(const struct cinf_meter *meter)
{
    struct snapshot s;
    ck_ok(snapshot_take(&s, meter));
    struct model_counters f = s.models[0].counters;
    snapshot_free(&s);
    return f;
}

START_TEST(the_life_of_a_request)
{
    struct cinf_meter *meter = world_meter("3.60"); /* a nano-dollar is a microsecond */
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *other = world_bill(meter, model), *bill;
    struct cinf_share shares[2] = { { .bill = other, .decode_weight = 1 } };
    cinf_meter_busy(meter);
    world_pass(10 * MS);
    bill = world_bill(meter, model); /* while the other's interval is under way */
    world_pass(10 * MS);
    cinf_meter_charge(meter, shares, 1);
    struct cinf_report r = world_report(bill);
    ck_assert_int_eq(r.finish, CINF_FINISH_RUNNING);
    ck_assert_uint_eq(r.model, model);
    ck_assert_uint_eq(r.queue_ns + r.latency_ns + r.first_token_ns + r.device_ns, 0);

    /* Its prompt, in two chunks, with the other one: no token yet. */
    shares[1] =
        (struct cinf_share){ .bill = bill, .prefill_weight = 3, .input_tokens = 30, .cached_tokens = 10 };
    for (int chunk = 0; chunk < 2; chunk++) {
        world_pass(40 * MS);
        cinf_meter_charge(meter, shares, 2);
    }
    r = world_report(bill);
    ck_assert_uint_eq(r.queue_ns, 10 * MS);
    ck_assert_uint_eq(r.latency_ns, 80 * MS);
    ck_assert_uint_eq(r.first_token_ns, 0);
    ck_assert_uint_eq(r.prefill_ns, 60 * MS);
    ck_assert_uint_eq(r.decode_ns, 0);
    ck_assert_uint_eq(r.input_tokens, 60);
    ck_assert_uint_eq(r.cached_tokens, 20);
    ck_assert_uint_eq(r.output_tokens, 0);

    /* Tokens: one, then a step without it, then two, then three in one step. */
    shares[1] = (struct cinf_share){ .bill = bill, .decode_weight = 1, .output_tokens = 1 };
    world_pass(2 * MS);
    cinf_meter_charge(meter, shares, 2);
    world_pass(5 * MS);
    cinf_meter_charge(meter, shares, 1);
    shares[1].output_tokens = 2;
    world_pass(2 * MS);
    cinf_meter_charge(meter, shares, 2);
    shares[1].output_tokens = 3;
    world_pass(4 * MS);
    cinf_meter_charge(meter, shares, 2);
    world_pass(9 * MS);
    cinf_meter_charge(meter, shares, 1); /* not its own: the latency stands still */

    struct model_counters before = counters(meter);
    cinf_bill_close(bill, CINF_FINISH_LENGTH);
    r = world_report(bill);
    ck_assert_int_eq(r.finish, CINF_FINISH_LENGTH);
    ck_assert_uint_eq(r.first_token_ns, 10 * MS + 80 * MS + 2 * MS);
    ck_assert_uint_eq(r.latency_ns, 80 * MS + 13 * MS);
    ck_assert_uint_eq(r.decode_ns, (2 + 2 + 4) * MS / 2);
    ck_assert_uint_eq(r.device_ns, 64 * MS);
    ck_assert_uint_eq(r.output_tokens, 6);
    ck_assert_uint_eq(r.unpriced_ns, 0);
    char text[CINF_COST_TEXT_MAX];
    ck_assert_str_eq(cinf_cost_format(text, r.cost), "0.000064000000");

    /* Gaps: 7 ms twice, 4 ms three times; nothing for the first token. */
    ck_assert_uint_eq(total(&before.inter_token), 5);
    ck_assert_uint_eq(before.inter_token.sum_ns, (2 * 7 + 3 * 4) * MS);
    /* The others when it ends. */
    ck_assert_uint_eq(total(&before.latency) + total(&before.queue) + total(&before.first_token), 0);
    struct model_counters after = counters(meter);
    ck_assert_uint_eq(total(&after.latency), 1);
    ck_assert_uint_eq(after.latency.sum_ns, r.latency_ns);
    ck_assert_uint_eq(after.latency.counts[1], 1); /* 50 to 100 ms */
    ck_assert_uint_eq(total(&after.queue), 1);
    ck_assert_uint_eq(after.queue.sum_ns, r.queue_ns);
    ck_assert_uint_eq(total(&after.first_token), 1);
    ck_assert_uint_eq(after.first_token.sum_ns, r.first_token_ns);
    ck_assert_uint_eq(after.requests[0], 1);
    ck_assert_uint_eq(after.finished[CINF_FINISH_LENGTH], 1);
    ck_assert_uint_eq(after.finished_ns[CINF_FINISH_LENGTH], 64 * MS);
    ck_assert_uint_eq(after.running, 1);

    cinf_bill_free(bill);
    world_end(other);
    cinf_bill_free(NULL);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_request_that_is_never_served)
{
    struct cinf_meter *meter = world_meter("1");
    struct cinf_bill *bill = world_bill(meter, world_model(meter, "m"));
    world_pass(70 * MS);
    cinf_bill_close(bill, CINF_FINISH_TIMEOUT);
    world_pass(MS);
    struct cinf_report r = world_report(bill);
    ck_assert_uint_eq(r.queue_ns, 70 * MS);
    ck_assert_uint_eq(r.latency_ns, 0);
    ck_assert_uint_eq(r.device_ns, 0);
    struct model_counters f = counters(meter);
    ck_assert_uint_eq(f.finished[CINF_FINISH_TIMEOUT], 1);
    ck_assert_uint_eq(f.requests[0], 1);
    ck_assert_uint_eq(total(&f.queue), 1);
    ck_assert_uint_eq(f.queue.sum_ns, 70 * MS);
    ck_assert_uint_eq(total(&f.latency), 0);
    ck_assert_uint_eq(total(&f.first_token), 0);
    ck_assert_uint_eq(f.running, 0);
    cinf_bill_free(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(served_by_the_interval_it_was_submitted_in)
{
    struct cinf_meter *meter = world_meter("1");
    uint32_t model = world_model(meter, "m");
    cinf_meter_busy(meter);
    world_pass(3);
    struct cinf_bill *bill = world_bill(meter, model);
    world_pass(4);
    cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .output_tokens = 1 }, 1);
    struct cinf_report r = world_report(bill);
    ck_assert_uint_eq(r.queue_ns, 0);
    ck_assert_uint_eq(r.device_ns, 7);
    ck_assert_uint_eq(r.latency_ns, 4); /* not what passed before it was there */
    ck_assert_uint_eq(r.first_token_ns, 4);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(phases_of_one_share)
{
    static const struct {
        uint64_t prefill, decode, prefill_ns;
        uint32_t input_tokens;
    } cases[] = {
        { 1, 1, 50, 0 },  { 1, 0, 100, 0 },
        { 0, 1, 0, 9 },   { 1, 2, 33, 0 },
        { 2, 1, 67, 0 },  { 1, 199, 1, 0 },
        { 1, 201, 0, 0 }, { 0, 0, 100, 1 },
        { 0, 0, 0, 0 },   { UINT64_MAX / 2, UINT64_MAX / 2, 50, 0 },
    };
    struct cinf_meter *meter = world_meter("1");
    uint32_t model = world_model(meter, "m");
    cinf_meter_busy(meter);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cinf_bill *bill = world_bill(meter, model);
        world_pass(100);
        cinf_meter_charge(meter,
                          &(struct cinf_share){ .bill = bill,
                                                .prefill_weight = cases[i].prefill,
                                                .decode_weight = cases[i].decode,
                                                .input_tokens = cases[i].input_tokens },
                          1);
        struct cinf_report r = world_report(bill);
        ck_assert_uint_eq(r.prefill_ns, cases[i].prefill_ns);
        ck_assert_uint_eq(r.decode_ns, 100 - cases[i].prefill_ns);
        world_end(bill);
    }
    cinf_meter_free(meter);
}
END_TEST

START_TEST(reports_of_an_older_size)
{
    struct cinf_meter *meter = world_meter("1");
    struct cinf_bill *bill = world_bill(meter, world_model(meter, "m"));
    cinf_bill_close(bill, CINF_FINISH_CLIENT_GONE);
    struct cinf_report r;
    memset(&r, 0x5A, sizeof r);
    r.struct_size = offsetof(struct cinf_report, input_tokens);
    cinf_bill_read(bill, &r);
    ck_assert_uint_eq(r.struct_size, offsetof(struct cinf_report, input_tokens));
    ck_assert_int_eq(r.finish, CINF_FINISH_CLIENT_GONE);
    ck_assert_uint_eq(r.input_tokens, 0x5A5A5A5A);
    cinf_bill_free(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(names)
{
    static const char *const finishes[] = { "running",     "stop",    "length", "cancelled",
                                            "client_gone", "timeout", "failed" };
    static const char *const errors[] = { "invalid_request", "context_length", "queue_full", "unavailable",
                                          "timeout",         "device",         "internal" };
    ck_assert_int_eq(CINF_FINISH_COUNT, 7);
    ck_assert_int_eq(CINF_ERROR_KINDS, 7);
    for (int i = 0; i < 7; i++) {
        ck_assert_str_eq(cinf_finish_name((enum cinf_finish)i), finishes[i]);
        ck_assert_str_eq(cinf_error_kind_name((enum cinf_error_kind)i), errors[i]);
    }
    ck_assert_str_eq(cinf_finish_name(CINF_FINISH_COUNT), "unknown");
    ck_assert_str_eq(cinf_error_kind_name(CINF_ERROR_KINDS), "unknown");
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("bill");
    TCase *t = tcase_create("bill");
    tcase_add_test(t, the_life_of_a_request);
    tcase_add_test(t, a_request_that_is_never_served);
    tcase_add_test(t, served_by_the_interval_it_was_submitted_in);
    tcase_add_test(t, phases_of_one_share);
    tcase_add_test(t, reports_of_an_older_size);
    tcase_add_test(t, names);
    suite_add_tcase(s, t);
    return s;
}
