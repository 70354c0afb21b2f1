/* How requests wait, pause and end. */
#include "engine_fixture.h"

#include <time.h>

#include "clock.h"
#include "mem.h"
#include "strbuf.h"

START_TEST(every_way_to_end_is_billed)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .ignore_eos = true };
    static const enum cinf_finish whys[] = { CINF_FINISH_CANCELLED, CINF_FINISH_CLIENT_GONE,
                                             CINF_FINISH_TIMEOUT };
    for (int i = 0; i < 3; i++) {
        struct cinf_request *r = submit(small, &o);
        struct cinf_event event = { CINF_EVENT };
        do
            ck_ok(cinf_request_next(r, UINT64_MAX, &event));
        while (event.kind != CINF_EVENT_TOKEN);
        cinf_request_cancel(r, whys[i]);
        uint32_t tokens = 1;
        while (event.kind != CINF_EVENT_END) {
            ck_ok(cinf_request_next(r, UINT64_MAX, &event));
            tokens += event.kind == CINF_EVENT_TOKEN;
        }
        ck_assert_int_eq(event.finish, whys[i]);
        ck_ok(cinf_request_next(r, 0, &event));
        ck_assert_int_eq(event.kind, CINF_EVENT_END);
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(r, &report);
        ck_assert_uint_eq(report.output_tokens, tokens);
        ck_assert_uint_gt(report.device_ns, 0);
        ck_assert_int_eq(report.finish, whys[i]);
        cinf_request_free(r);
    }
    struct cinf_snapshot s = snapshot_now();
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(s.models[0].finished[whys[i]], 1);
        ck_assert_uint_gt(s.models[0].finished_ns[whys[i]], 0);
    }
    check_identities(&s);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(a_deadline_ends_a_request)
{
    struct cinf_result *result;
    load(&large, "stories-large");
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true, .n = 16,
                                      .timeout_ns = 3000000 };
    ck_ok(cinf_generate(&result, large, &o, NULL, NULL));
    ck_assert_int_eq(result->choices[0].finish, CINF_FINISH_TIMEOUT);
    cinf_result_free(result);
}
END_TEST

/* unread_max of requests that a test pauses: without it, they could end on a busy machine before the test's
 * thread runs again. */
enum { UNREAD = 20 };

/* Pulls events up to the first token, and pauses the request. */
static void pause_after_a_token(struct cinf_request *r)
{
    struct cinf_event event = { CINF_EVENT };
    do
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
    while (event.kind != CINF_EVENT_TOKEN);
    cinf_request_pause(r, true);
    /* The step that was under way may still add some. */
    for (bool more = true; more;) {
        support_await_sleep();
        for (more = false; cinf_request_next(r, 0, &event) == CINF_OK; more = true)
            ck_assert_int_eq(event.kind, CINF_EVENT_TOKEN);
    }
}

START_TEST(a_paused_request_costs_nothing)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 60,
                                      .ignore_eos = true, .unread_max = UNREAD };
    struct cinf_result *alone;
    struct cinf_report before = { CINF_REPORT }, after = { CINF_REPORT };
    struct cinf_event event = { CINF_EVENT };
    ck_ok(cinf_generate(&alone, small, &o, NULL, NULL));
    o.max_tokens = 200;
    struct cinf_request *r = submit(small, &o);
    o.max_tokens = 60;
    pause_after_a_token(r);
    cinf_request_report(r, &before);
    uint64_t cpu = clock_process_cpu_ns();
    /* There is no other request: the scheduler sleeps and the device is idle. */
    ck_assert_int_eq(cinf_request_next(r, 200000000, &event), CINF_EAGAIN);
    ck_assert_uint_lt(clock_process_cpu_ns() - cpu, 100000000);
    /* Other requests are served. */
    struct cinf_result *other;
    ck_ok(cinf_generate(&other, small, &o, NULL, NULL));
    ck_assert_str_eq(other->choices[0].text, alone->choices[0].text);
    cinf_request_report(r, &after);
    ck_assert_uint_eq(after.output_tokens, before.output_tokens);
    ck_assert_uint_eq(after.device_ns, before.device_ns);
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.models[0].running, 1);
    ck_assert_uint_eq(s.serve_ns, alone->report.device_ns + other->report.device_ns + after.device_ns);
    check_identities(&s);
    cinf_snapshot_free(&s);

    cinf_request_pause(r, true);
    cinf_request_pause(r, false);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_LENGTH);
    cinf_request_report(r, &after);
    ck_assert_uint_eq(after.output_tokens, 200);
    cinf_request_pause(r, true); /* does nothing: it has ended */
    cinf_request_free(r);
    cinf_result_free(alone);
    cinf_result_free(other);
}
END_TEST

START_TEST(a_paused_request_can_end)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .ignore_eos = true,
                                      .unread_max = UNREAD };
    struct cinf_request *r = submit(small, &o);
    pause_after_a_token(r);
    cinf_request_cancel(r, CINF_FINISH_CLIENT_GONE);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_CLIENT_GONE);
    cinf_request_free(r);

    o.timeout_ns = 150000000;
    r = submit(small, &o);
    cinf_request_pause(r, true);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_TIMEOUT);
    cinf_request_free(r);

    o.timeout_ns = 0;
    r = submit(small, &o);
    pause_after_a_token(r);
    cinf_request_free(r);            /* while it is paused */
    ck_ok(cinf_model_unload(small)); /* which waits for running requests */
}
END_TEST

/* Waits until an unread request has its first tokens and gets no more, or has ended; returns how many it has.
 */
static uint32_t await_standstill(const struct cinf_request *r)
{
    struct cinf_report now = { CINF_REPORT };
    for (uint32_t before = 0;; before = now.output_tokens) {
        support_await_sleep();
        cinf_request_report(r, &now);
        if ((now.output_tokens > 0 && now.output_tokens == before) || now.finish != CINF_FINISH_RUNNING)
            return now.output_tokens;
    }
}

START_TEST(an_unread_request_is_paused)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = (const int32_t[]){ 7, 8 },
                                      .n_prompt_ids = 2,    .max_tokens = 60,
                                      .ignore_eos = true,   .unread_max = 4 };
    struct cinf_event event = { CINF_EVENT };
    struct cinf_request *r = submit(small, &o);
    uint32_t n = await_standstill(r);
    ck_assert_uint_ge(n, 4);
    ck_assert_uint_lt(n, 4 + 16); /* a step may add several */
    /* There is no other request: the scheduler sleeps. */
    uint64_t cpu = clock_process_cpu_ns();
    const struct timespec a_while = { .tv_nsec = 200000000 };
    nanosleep(&a_while, NULL);
    ck_assert_uint_lt(clock_process_cpu_ns() - cpu, 100000000);
    /* It continues when enough has been read, and not before. */
    for (uint32_t i = 0; i < n - 4; i++)
        ck_ok(cinf_request_next(r, 0, &event));
    ck_assert_uint_eq(await_standstill(r), n);
    ck_ok(cinf_request_next(r, 0, &event));
    ck_assert_uint_gt(await_standstill(r), n);
    /* Other requests are served. */
    struct cinf_result *other;
    o.unread_max = 0;
    ck_ok(cinf_generate(&other, small, &o, NULL, NULL));
    ck_assert_uint_eq(other->report.output_tokens, 60);
    cinf_result_free(other);
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.models[0].running, 1);
    check_identities(&s);
    cinf_snapshot_free(&s);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_LENGTH);
    cinf_request_free(r);

    /* It can be cancelled, time out and be freed. */
    o.unread_max = 1;
    r = submit(small, &o);
    (void)await_standstill(r);
    cinf_request_cancel(r, CINF_FINISH_CLIENT_GONE);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_CLIENT_GONE);
    cinf_request_free(r);
    o.timeout_ns = 150000000;
    r = submit(small, &o);
    (void)await_standstill(r);
    nanosleep(&a_while, NULL); /* the deadline passes */
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_TIMEOUT);
    cinf_request_free(r);
    o.timeout_ns = 0;
    r = submit(small, &o);
    (void)await_standstill(r);
    cinf_request_free(r);
    ck_ok(cinf_model_unload(small));
}
END_TEST

START_TEST(the_events_of_a_step_are_not_split)
{
    /* More choices than the limit, and more prompt tokens. */
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS,
                                      .prompt_ids = (const int32_t[]){ 7, 8, 9 },
                                      .n_prompt_ids = 3,
                                      .max_tokens = 3,
                                      .n = 4,
                                      .ignore_eos = true,
                                      .prompt_logprobs = true,
                                      .unread_max = 2 };
    struct cinf_request *r = submit(small, &o);
    ck_assert_uint_eq(await_standstill(r), 4);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_LENGTH);
    struct cinf_report report = { CINF_REPORT };
    cinf_request_report(r, &report);
    ck_assert_uint_eq(report.output_tokens, 12);
    cinf_request_free(r);
}
END_TEST

START_TEST(requests_get_the_slots_of_paused_ones)
{
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS });
    ck_ok(cinf_model_load(&small, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "one",
                                                        .folder = folder_of("stories-small"), .slots = 1 }));
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "A cat", .max_tokens = 20,
                                      .ignore_eos = true };
    struct cinf_request_options longer = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 200,
                                           .ignore_eos = true, .unread_max = UNREAD };
    struct cinf_result *alone;
    ck_ok(cinf_generate(&alone, small, &longer, NULL, NULL));
    struct cinf_request *first = submit(small, &longer);
    struct cinf_event event = { CINF_EVENT };
    ck_ok(cinf_request_next(first, UINT64_MAX, &event));
    cinf_request_pause(first, true);
    struct strbuf text = { 0 };
    strbuf_add(&text, event.text, event.text_bytes);
    for (int i = 0; i < 3; i++) {
        struct cinf_request *second = submit(small, &o);
        ck_ok(cinf_request_next(second, 10000000000u, &event));
        ck_assert_int_eq(event.kind, CINF_EVENT_TOKEN);
        ck_assert_int_eq(wait_for_end(second), CINF_FINISH_LENGTH);
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(second, &report);
        ck_assert_uint_lt(report.queue_ns, 5000000000u);
        cinf_request_free(second);
    }
    /* All are paused: the scheduler sleeps. */
    uint64_t cpu = clock_process_cpu_ns();
    const struct timespec a_while = { .tv_nsec = 200000000 };
    nanosleep(&a_while, NULL);
    ck_assert_uint_lt(clock_process_cpu_ns() - cpu, 100000000);
    cinf_request_pause(first, false);
    do {
        ck_ok(cinf_request_next(first, UINT64_MAX, &event));
        strbuf_add(&text, event.text, event.text_bytes);
    } while (event.kind != CINF_EVENT_END);
    ck_assert_str_eq(text.text, alone->choices[0].text);
    struct cinf_report report = { CINF_REPORT };
    cinf_request_report(first, &report);
    ck_assert_uint_eq(report.output_tokens, 200);
    strbuf_free(&text);
    cinf_result_free(alone);
    cinf_request_free(first);
}
END_TEST

START_TEST(a_full_queue_refuses)
{
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .queue_max = 2 });
    ck_ok(
        cinf_model_load(&small, engine,
                        &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .slots = 1, .name = "stories-small",
                                                      .folder = folder_of("stories-small") }));
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true };
    struct cinf_request *running = submit(small, &o), *waiting[2], *none = NULL;
    struct cinf_event event = { CINF_EVENT };
    ck_ok(cinf_request_next(running, UINT64_MAX, &event)); /* now it has its slot */
    waiting[0] = submit(small, &o);
    waiting[1] = submit(small, &o);
    ck_fails(cinf_request_submit(&none, small, &o), CINF_EFULL, "2 requests are waiting");
    /* A waiting request that is cancelled never ran and cost nothing. */
    cinf_request_cancel(waiting[0], CINF_FINISH_CANCELLED);
    ck_ok(cinf_request_next(waiting[0], UINT64_MAX, &event));
    while (event.kind != CINF_EVENT_END)
        ck_ok(cinf_request_next(waiting[0], UINT64_MAX, &event));
    struct cinf_report report = { CINF_REPORT };
    cinf_request_report(waiting[0], &report);
    ck_assert_uint_eq(report.device_ns, 0);
    ck_assert_uint_eq(report.input_tokens, 0);
    cinf_request_free(waiting[0]);
    cinf_request_free(waiting[1]);
    cinf_request_free(running);
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.models[0].errors[CINF_ERROR_QUEUE_FULL], 1);
    cinf_snapshot_free(&s);
}
END_TEST

/* ---- The queue --------------------------------------------------------------------------------- */

static void open_with_queue(uint32_t queue_max, uint32_t slots)
{
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .queue_max = queue_max,
                                               .dollars_per_hour = "2.50" });
    ck_ok(cinf_model_load(&small, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .slots = slots, .name = "first",
                                                        .folder = folder_of("stories-small") }));
}

/* Submits n requests of the same options together. */
static enum cinf_status submit_same(struct cinf_request **out, const struct cinf_request_options *o,
                                    uint32_t n)
{
    const struct cinf_request_options *all[64];
    ck_assert_uint_le(n, 64);
    for (uint32_t i = 0; i < n; i++)
        all[i] = o;
    return cinf_request_submit_all(out, small, all, n);
}

static void end_all(struct cinf_request **requests, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        (void)wait_for_end(requests[i]);
        cinf_request_free(requests[i]);
    }
}

START_TEST(requests_that_can_start_do_not_wait)
{
    struct cinf_request *r[64];
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 3,
                                      .ignore_eos = true };
    open_with_queue(8, 16);
    for (uint32_t n = 1; n <= 24; n += 1 + n / 4) {
        ck_ok(submit_same(r, &o, n));
        end_all(r, n);
    }
    /* One after the other, faster than the scheduler looks. */
    for (uint32_t i = 0; i < 16; i++)
        r[i] = submit(small, &o);
    end_all(r, 16);
    /* What never fits is refused as such, with the numbers. */
    struct cinf_request *none[64] = { 0 };
    ck_fails(submit_same(none, &o, 25), CINF_EINVAL,
             "25 prompts are too many: model first serves 16 requests concurrently, and 8 can wait");
    o.n = 5; /* three of these have room at a time */
    ck_ok(submit_same(r, &o, 11));
    end_all(r, 11);
    ck_fails(submit_same(none, &o, 12), CINF_EINVAL, "12 prompts are too many");
    ck_assert_ptr_null(none[0]);
    ck_ok(submit_same(none, &o, 0));
}
END_TEST

START_TEST(each_model_has_its_queue)
{
    struct cinf_request *waiting[3], *other[2], *none;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true, .prompt = "Once" };
    open_with_queue(2, 1);
    ck_ok(cinf_model_load(&large, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .slots = 1, .name = "second",
                                                        .folder = folder_of("stories-small") }));
    ck_ok(submit_same(waiting, &o, 3));
    ck_fails(cinf_request_submit(&none, small, &o), CINF_EFULL,
             "2 requests are waiting for model first already; 2 can, so there is no room for 1 more");
    for (int i = 0; i < 2; i++)
        other[i] = submit(large, &o);
    for (int i = 0; i < 2; i++)
        cinf_request_free(other[i]);
    for (int i = 0; i < 3; i++)
        cinf_request_free(waiting[i]);
}
END_TEST

START_TEST(all_of_a_group_are_queued_or_none)
{
    struct cinf_request *r[4], *none[64];
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true, .prompt = "Once",
                                      .unread_max = UNREAD };
    const struct cinf_request_options wrong = { CINF_REQUEST_OPTIONS, .prompt = "Once", .temperature = -1 };
    open_with_queue(2, 2);
    ck_ok(submit_same(r, &o, 3));
    /* There is room for one, not for two; and one of these is no request. */
    ck_fails(submit_same(none, &o, 2), CINF_EFULL,
             "1 requests are waiting for model first already; 2 can, so there is no room for 2 more");
    const struct cinf_request_options *const mixed[] = { &o, &wrong };
    ck_fails(cinf_request_submit_all(none, small, mixed, 2), CINF_EINVAL, "temperature is -1");
    ck_ok(cinf_request_submit(&r[3], small, &o));
    for (int i = 0; i < 4; i++) {
        cinf_request_cancel(r[i], CINF_FINISH_CANCELLED);
        ck_assert_int_eq(wait_for_end(r[i]), CINF_FINISH_CANCELLED);
    }
    struct cinf_snapshot s = snapshot_now();
    struct cinf_report report = { CINF_REPORT };
    uint64_t device_ns = 0;
    for (int i = 0; i < 4; i++) {
        cinf_request_report(r[i], &report);
        device_ns += report.device_ns;
        cinf_request_free(r[i]);
    }
    ck_assert_uint_eq(s.serve_ns, device_ns);
    ck_assert_uint_eq(s.models[0].finished[CINF_FINISH_CANCELLED], 4);
    ck_assert_uint_eq(s.models[0].waiting, 0);
    ck_assert_uint_eq(s.models[0].errors[CINF_ERROR_QUEUE_FULL], 1);
    ck_assert_uint_eq(s.models[0].errors[CINF_ERROR_INVALID_REQUEST], 1);
    check_identities(&s);
    cinf_snapshot_free(&s);
}
END_TEST

static void must_not_be_told(void *context)
{
    *(bool *)context = true;
}

START_TEST(a_group_without_memory_runs_nothing)
{
    struct cinf_request *r[3];
    bool told = false, hit = true;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS,       .ignore_eos = true,
                                      .prompt = "Once",           .max_tokens = 2,
                                      .notify = must_not_be_told, .notify_context = &told };
    open_with_queue(64, 2);
    uint64_t n = 0;
    while (hit) {
        mem_fail_at(++n);
        enum cinf_status status = submit_same(r, &o, 3);
        hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit)
            ck_ok(status);
        else if (status != CINF_OK) { /* else the scheduler had it */
            ck_assert_int_eq(status, CINF_ENOMEM);
            ck_assert(!told);
        } else
            end_all(r, 3);
    }
    ck_assert_uint_gt(n, 30);
    end_all(r, 3);
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.models[0].waiting, 0);
    check_identities(&s);
    cinf_snapshot_free(&s);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("request");
    TCase *t = case_with_engine();
    if (HAVE_DEMO_MODELS) {
        tcase_add_test(t, a_paused_request_costs_nothing);
        tcase_add_test(t, a_paused_request_can_end);
        tcase_add_test(t, an_unread_request_is_paused);
        tcase_add_test(t, the_events_of_a_step_are_not_split);
    }
    tcase_add_test(t, every_way_to_end_is_billed);
    tcase_add_test(t, a_deadline_ends_a_request);
    suite_add_tcase(s, t);
    t = case_of_engines();
    if (HAVE_DEMO_MODELS) {
        tcase_add_test(t, requests_get_the_slots_of_paused_ones);
    }
    tcase_add_test(t, a_full_queue_refuses);
    tcase_add_test(t, requests_that_can_start_do_not_wait);
    tcase_add_test(t, each_model_has_its_queue);
    tcase_add_test(t, all_of_a_group_are_queued_or_none);
    tcase_add_test(t, a_group_without_memory_runs_nothing);
    suite_add_tcase(s, t);
    return s;
}
