/* test_exposition_meter.c - which families a meter shows, and when.  exposition_check.py goes through all of
 * them with the parsers of others. */
#include <costinfer/exposition.h>

#include <string.h>

#include "mem.h"
#include "meter_world.h"

static struct cinf_exposition *page;

static const char *show(const struct cinf_meter *meter, enum cinf_exposition_format format)
{
    const char *text;
    size_t n;
    cinf_exposition_free(page);
    ck_ok(cinf_exposition_new(&page, format));
    ck_ok(cinf_exposition_meter(page, meter));
    ck_ok(cinf_exposition_finish(page, &text, &n));
    ck_assert_uint_eq(strlen(text), n);
    return text;
}

static const char *text_of(const struct cinf_meter *meter)
{
    return show(meter, CINF_EXPOSITION_TEXT);
}

#define has(text, line)   ck_assert_msg(strstr(text, "\n" line "\n") != NULL, "the page lacks %s", line)
#define lacks(text, part) ck_assert_msg(strstr(text, part) == NULL, "the page has %s", part)

static void done(struct cinf_meter *meter)
{
    cinf_exposition_free(page);
    page = NULL;
    cinf_meter_free(meter);
}

START_TEST(every_series_of_a_model_is_there_at_once)
{
    struct cinf_meter *meter = world_meter("0.10");
    lacks(text_of(meter), "model_name");
    world_model(meter, "m");
    const char *text = text_of(meter);
    has(text, "model_request_total{model_name=\"m\",endpoint=\"api\"} 0");
    has(text, "model_estimated_cost_dollars_total{model_name=\"m\"} 0.000000000000");
    has(text, "model_request_duration_seconds_bucket{model_name=\"m\",le=\"0.05\"} 0");
    has(text, "model_request_duration_seconds_bucket{model_name=\"m\",le=\"10.0\"} 0");
    has(text, "model_request_duration_seconds_bucket{model_name=\"m\",le=\"+Inf\"} 0");
    has(text, "model_request_duration_seconds_sum{model_name=\"m\"} 0");
    has(text, "model_requests_finished_total{model_name=\"m\",finish_reason=\"client_gone\"} 0");
    has(text, "model_loaded{model_name=\"m\"} 0");
    lacks(text, "finish_reason=\"running\"");
    lacks(text, "# EOF");
    text = show(meter, CINF_EXPOSITION_OPENMETRICS);
    has(text, "model_request_duration_seconds_bucket{model_name=\"m\",le=\"10.0\"} 0");
    has(text, "# TYPE model_tokens counter");
    has(text, "# UNIT model_estimated_cost_dollars dollars");
    done(meter);
}
END_TEST

START_TEST(payers_have_series_of_their_own)
{
    struct cinf_meter *meter = world_meter("3600");
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill_for(meter, model, "team \"a\"");
    has(text_of(meter), "model_payer_device_seconds_total{model_name=\"m\",payer=\"team \\\"a\\\"\"} 0");
    cinf_meter_busy(meter);
    world_pass(1500000000);
    cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .input_tokens = 7, .output_tokens = 2 }, 1);
    const char *text = text_of(meter);
    has(text, "model_payer_device_seconds_total{model_name=\"m\",payer=\"team \\\"a\\\"\"} 1.5");
    has(text, "model_payer_cost_dollars_total{model_name=\"m\",payer=\"team \\\"a\\\"\"} 1.500000000000");
    has(text, "model_payer_tokens_total{model_name=\"m\",payer=\"team \\\"a\\\"\",direction=\"input\"} 7");
    has(text, "model_payer_tokens_total{model_name=\"m\",payer=\"team \\\"a\\\"\",direction=\"output\"} 2");
    world_end(bill);
    done(meter);
}
END_TEST

START_TEST(buckets_are_cumulated)
{
    const double seconds[] = { 1e-6, 1, 3 };
    struct cinf_meter *meter;
    atomic_store(&world_clock, 5);
    ck_ok(cinf_meter_new(&meter,
                         &(struct cinf_meter_options){ CINF_METER_OPTIONS, .clock_ns = world_now,
                                                       .latency_buckets = seconds, .n_latency_buckets = 3 }));
    uint32_t model = world_model(meter, "m");
    const uint64_t latencies[] = { 1000, 1001, 1000000000, 2000000000, 3000000001 };
    cinf_meter_busy(meter);
    for (int i = 0; i < 5; i++) {
        struct cinf_bill *bill = world_bill(meter, model);
        world_pass(latencies[i]);
        cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill }, 1);
        world_end(bill);
    }
    const char *text = text_of(meter);
    has(text, "model_request_duration_seconds_bucket{model_name=\"m\",le=\"0.000001\"} 1\n"
              "model_request_duration_seconds_bucket{model_name=\"m\",le=\"1.0\"} 3\n"
              "model_request_duration_seconds_bucket{model_name=\"m\",le=\"3.0\"} 4\n"
              "model_request_duration_seconds_bucket{model_name=\"m\",le=\"+Inf\"} 5\n"
              "model_request_duration_seconds_sum{model_name=\"m\"} 6.000002002\n"
              "model_request_duration_seconds_count{model_name=\"m\"} 5");
    done(meter);
}
END_TEST

START_TEST(what_is_unknown_is_absent)
{
    struct cinf_meter *meter = world_meter(NULL);
    world_pass(1500000000);
    const char *text = text_of(meter);
    lacks(text, "costinfer_price_dollars_per_hour");
    lacks(text, "gpu_");
    lacks(text, "costinfer_split_seconds");
    has(text, "costinfer_unpriced_seconds_total{device=\"cpu\"} 1.5");
    has(text, "costinfer_device_seconds_total{device=\"cpu\",account=\"lost\"} 0");
    has(text, "costinfer_device_cost_dollars_total{device=\"cpu\",account=\"lost\"} 0.000000000000");
    has(text, "costinfer_device_seconds_total{device=\"cpu\",account=\"overhead\"} 0");
    has(text, "costinfer_stalls_total{device=\"cpu\"} 0");
    has(text, "costinfer_clock_steps_total{device=\"cpu\"} 0");
    has(text, "costinfer_device_cost_dollars_total{device=\"cpu\",account=\"idle\"} 0.000000000000");
    has(text, "costinfer_basis_info{device=\"cpu\",basis=\"wall\"} 1");

    ck_ok(cinf_meter_set_price(meter, "0"));
    cinf_meter_set_gpu_memory(meter, 0, 0);
    cinf_meter_set_split(meter, 100000000, 0);
    text = text_of(meter);
    has(text, "costinfer_price_dollars_per_hour{device=\"cpu\"} 0"); /* free of charge is known */
    has(text, "gpu_memory_used_bytes{gpu=\"cpu\"} 0");
    lacks(text, "gpu_utilization_percent");
    has(text, "costinfer_split_seconds{device=\"cpu\",per=\"flop\"} 1e-10");
    has(text, "costinfer_split_seconds{device=\"cpu\",per=\"byte\"} 0");
    cinf_meter_set_gpu_memory(meter, 1, 8);
    text = text_of(meter);
    has(text, "gpu_utilization_percent{gpu=\"cpu\"} 12.5");
    lacks(text, "gpu_memory_device_used_bytes");
    cinf_meter_set_gpu_taken(meter, 7);
    has(text_of(meter), "gpu_memory_device_used_bytes{gpu=\"cpu\"} 7");
    cinf_meter_set_gpu_taken(meter, 0);
    lacks(text_of(meter), "gpu_memory_device_used_bytes");
    done(meter);

    ck_ok(cinf_meter_new(
        &meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .device = "x", .basis = CINF_BASIS_CPU }));
    has(text_of(meter), "costinfer_basis_info{device=\"x\",basis=\"cpu\"} 1");
    done(meter);
}
END_TEST

START_TEST(running_requests_are_in_the_counters)
{
    struct cinf_meter *meter = world_meter("3.60");
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model), *waiting = world_bill(meter, model);
    cinf_meter_busy(meter);
    world_pass(2000000000);
    cinf_meter_charge(
        meter,
        &(struct cinf_share){ .bill = bill, .prefill_weight = 1, .decode_weight = 3, .output_tokens = 1 }, 1);
    world_pass(1000000000); /* not charged yet */
    const char *text = text_of(meter);
    has(text, "model_device_seconds_total{model_name=\"m\",phase=\"prefill\"} 0.5");
    has(text, "model_device_seconds_total{model_name=\"m\",phase=\"decode\"} 1.5");
    has(text, "model_estimated_cost_dollars_total{model_name=\"m\"} 0.002000000000");
    has(text, "model_tokens_total{model_name=\"m\",direction=\"output\"} 1");
    has(text, "model_requests_running{model_name=\"m\"} 1");
    has(text, "model_requests_waiting{model_name=\"m\"} 1");
    has(text, "model_request_total{model_name=\"m\",endpoint=\"api\"} 0");
    has(text, "costinfer_device_seconds_total{device=\"cpu\",account=\"serve\"} 2");
    has(text, "costinfer_device_uptime_seconds{device=\"cpu\"} 2");
    world_end(bill);
    world_end(waiting);
    done(meter);
}
END_TEST

START_TEST(memory_may_run_out_anywhere)
{
    struct cinf_meter *meter = world_meter("1");
    world_model(meter, "m");
    uint64_t n = 0;
    for (bool complete = false; !complete;) {
        const char *text;
        size_t length;
        mem_fail_at(++n);
        enum cinf_status status = cinf_exposition_new(&page, CINF_EXPOSITION_TEXT);
        if (status == CINF_OK) {
            status = cinf_exposition_meter(page, meter);
            if (status == CINF_OK)
                status = cinf_exposition_finish(page, &text, &length);
            cinf_exposition_free(page);
        }
        complete = !mem_fail_hit();
        ck_assert_int_eq(status, complete ? CINF_OK : CINF_ENOMEM);
        mem_fail_at(0);
    }
    ck_assert_uint_gt(n, 5);
    page = NULL;
    done(meter);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("exposition_meter");
    TCase *t = tcase_create("exposition_meter");
    tcase_add_test(t, every_series_of_a_model_is_there_at_once);
    tcase_add_test(t, payers_have_series_of_their_own);
    tcase_add_test(t, buckets_are_cumulated);
    tcase_add_test(t, what_is_unknown_is_absent);
    tcase_add_test(t, running_requests_are_in_the_counters);
    tcase_add_test(t, memory_may_run_out_anywhere);
    suite_add_tcase(s, t);
    return s;
}
