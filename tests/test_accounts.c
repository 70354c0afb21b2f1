/* The engine's accounts: what a request pays alone and in overlapping traffic, and that all of it adds up to
 * the machine's time. */
#include "engine_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "clock.h"

START_TEST(a_lone_request_costs_its_latency)
{
    for (int i = 0; i < 5; i++) {
        struct cinf_result *result;
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "There was once",
                                          .max_tokens = 30 };
        ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
        const struct cinf_report *r = &result->report;
        ck_assert_uint_gt(r->device_ns, 0);
        ck_assert_uint_eq(r->device_ns, r->latency_ns);
        ck_assert_uint_eq(r->prefill_ns + r->decode_ns, r->device_ns);
        struct cinf_cost cost = cinf_cost_of(r->latency_ns, 2500000000u);
        ck_assert_int_eq(cinf_cost_compare(r->cost, cost), 0);
        ck_assert_uint_ge(r->first_token_ns, r->queue_ns);
        cinf_result_free(result);
    }
    struct cinf_snapshot s = snapshot_now();
    check_identities(&s);
    ck_assert_uint_eq(s.models[0].finished[CINF_FINISH_LENGTH] + s.models[0].finished[CINF_FINISH_STOP], 5);
    cinf_snapshot_free(&s);
}
END_TEST

/* Requests follow one another without a pause, alone or joining another one: their reports hold no time from
 * before they were submitted. */
START_TEST(no_time_before_submission_is_billed)
{
    struct cinf_request_options endless = { CINF_REQUEST_OPTIONS, .prompt = "Once", .ignore_eos = true };
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "There was once", .max_tokens = 3,
                                      .ignore_eos = true };
    for (int joining = 0; joining < 2; joining++) {
        struct cinf_request *other = NULL;
        for (int i = 0; i < 100; i++) {
            struct cinf_result *result;
            struct cinf_report running = { CINF_REPORT };
            if (other)
                cinf_request_report(other, &running);
            if (joining && (!other || running.finish != CINF_FINISH_RUNNING)) {
                cinf_request_free(other);
                ck_ok(cinf_request_submit(&other, small, &endless));
            }
            uint64_t start = clock_monotonic_ns();
            ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
            uint64_t ns = clock_monotonic_ns() - start;
            const struct cinf_report *r = &result->report;
            ck_assert_uint_le(r->queue_ns + r->latency_ns, ns);
            ck_assert_uint_le(r->queue_ns, r->first_token_ns);
            ck_assert_uint_le(r->first_token_ns, r->queue_ns + r->latency_ns);
            if (!joining)
                ck_assert_uint_eq(r->device_ns, r->latency_ns);
            cinf_result_free(result);
        }
        cinf_request_free(other);
    }
}
END_TEST

struct client {
    pthread_t thread;
    struct cinf_model *models[2];
    unsigned seed;
    int n_requests;
    struct cinf_report totals[2]; /* sums of the final reports, by model */
    uint64_t latency_ns;          /* what latency x rate would bill */
    uint64_t finished;
};

static void *run_client(void *context)
{
    struct client *c = context;
    for (int i = 0; i < c->n_requests; i++) {
        unsigned what = (unsigned)rand_r(&c->seed);
        int m = what % 3 == 0;
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS,
                                          .prompt = what & 8 ? "Once upon a time"
                                                             : "There was once a shy cat named",
                                          .max_tokens = 10 + what % 40,
                                          .ignore_eos = true,
                                          .temperature = 1,
                                          .n = what % 5 == 0 ? 3 : 1,
                                          .seed = what + 1 };
        struct cinf_request *r;
        if (cinf_request_submit(&r, c->models[m], &o) != CINF_OK)
            return (void *)1;
        int events = 0, cancel_at = what % 4 == 0 ? (int)(what % 16) : 1000;
        for (;;) {
            struct cinf_event event = { CINF_EVENT };
            if (events++ == cancel_at)
                cinf_request_cancel(r, CINF_FINISH_CANCELLED);
            if (what % 3 == 0)
                cinf_request_pause(r, events % 2 == 0 && cancel_at == 1000);
            if (cinf_request_next(r, what % 3 == 0 ? 1000000 : UINT64_MAX, &event) != CINF_OK) {
                if (what % 3 == 0)
                    continue;
                return (void *)1;
            }
            if (event.kind == CINF_EVENT_END)
                break;
        }
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(r, &report);
        c->totals[m].device_ns += report.device_ns;
        c->totals[m].prefill_ns += report.prefill_ns;
        c->totals[m].input_tokens += report.input_tokens;
        c->totals[m].output_tokens += report.output_tokens;
        c->totals[m].cached_tokens += report.cached_tokens;
        c->totals[m].cost = cinf_cost_add(c->totals[m].cost, report.cost);
        c->latency_ns += report.latency_ns;
        c->finished++;
        cinf_request_free(r);
    }
    return NULL;
}

static atomic_bool stop_watching;

/* Reads snapshots while everything runs: each must be consistent. */
static void *watch(void *context)
{
    uint64_t last = 0, n = 0;
    (void)context;
    while (!atomic_load(&stop_watching)) {
        struct cinf_snapshot s = snapshot_now();
        check_identities(&s);
        ck_assert_uint_ge(s.as_of_ns, last);
        last = s.as_of_ns;
        n++;
        cinf_snapshot_free(&s);
    }
    ck_assert_uint_gt(n, 10);
    return NULL;
}

START_TEST(overlapping_requests_add_up_to_the_machines_time)
{
    static const int streams[] = { 1, 4, 16 };
    int n = streams[_i];
    struct client clients[16] = { { 0 } };
    pthread_t watcher;
    atomic_store(&stop_watching, false);
    load(&large, "stories-large");
    ck_assert_int_eq(pthread_create(&watcher, NULL, watch, NULL), 0);
    for (int i = 0; i < n; i++) {
        clients[i] =
            (struct client){ .models = { small, large }, .seed = (unsigned)(i + 1), .n_requests = 6 };
        ck_assert_int_eq(pthread_create(&clients[i].thread, NULL, run_client, &clients[i]), 0);
    }
    /* A third model is loaded and unloaded at the same time. */
    for (int i = 0; i < 3; i++) {
        struct cinf_model *guest;
        ck_ok(cinf_model_load(&guest, engine,
                              &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "guest",
                                                            .folder = folder_of("stories-small") }));
        ck_ok(cinf_model_unload(guest));
        cinf_model_release(guest);
    }
    struct cinf_report totals[2] = { { 0 }, { 0 } };
    uint64_t latency_ns = 0, finished = 0;
    for (int i = 0; i < n; i++) {
        void *failed;
        pthread_join(clients[i].thread, &failed);
        ck_assert_ptr_null(failed);
        for (int m = 0; m < 2; m++) {
            totals[m].device_ns += clients[i].totals[m].device_ns;
            totals[m].prefill_ns += clients[i].totals[m].prefill_ns;
            totals[m].input_tokens += clients[i].totals[m].input_tokens;
            totals[m].output_tokens += clients[i].totals[m].output_tokens;
            totals[m].cached_tokens += clients[i].totals[m].cached_tokens;
            totals[m].cost = cinf_cost_add(totals[m].cost, clients[i].totals[m].cost);
        }
        latency_ns += clients[i].latency_ns;
        finished += clients[i].finished;
    }
    atomic_store(&stop_watching, true);
    pthread_join(watcher, NULL);

    struct cinf_snapshot s = snapshot_now();
    check_identities(&s);
    ck_assert_uint_eq(s.n_models, 3);
    uint64_t counted = 0;
    for (int m = 0; m < 2; m++) {
        const struct cinf_model_totals *t = &s.models[m];
        ck_assert_uint_eq(totals[m].device_ns, t->serve_ns);
        ck_assert_uint_eq(totals[m].prefill_ns, t->prefill_ns);
        ck_assert_uint_eq(totals[m].input_tokens, t->input_tokens);
        ck_assert_uint_eq(totals[m].output_tokens, t->output_tokens);
        ck_assert_uint_eq(totals[m].cached_tokens, t->cached_tokens);
        ck_assert_int_eq(cinf_cost_compare(totals[m].cost, t->serve_cost), 0);
        ck_assert_uint_eq(t->running + t->waiting, 0);
        for (int f = 0; f < CINF_FINISH_COUNT; f++)
            counted += t->finished[f];
        ck_assert_uint_gt(t->load_ns, 0);
    }
    ck_assert_uint_eq(counted, finished);
    ck_assert_uint_eq(s.models[2].serve_ns, 0);
    ck_assert_uint_gt(s.models[2].load_ns, 0);
    printf("%2d streams: served %.3f s; latency x rate would bill %.3f s, %.2f times as much\n", n,
           (double)s.serve_ns / 1e9, (double)latency_ns / 1e9, (double)latency_ns / (double)s.serve_ns);
    /* Latency x rate bills overlapping time several times.  Pieces of loads and the other model's steps fall
     * into a request's latency as well, so it over-counts even for few streams. */
    ck_assert_uint_ge(latency_ns, s.serve_ns);
    if (n >= 4)
        ck_assert_uint_gt(latency_ns, 2 * s.serve_ns);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(a_price_change_applies_from_its_moment_on)
{
    struct cinf_result *before, *after;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 10 };
    ck_ok(cinf_generate(&before, small, &o, NULL, NULL));
    ck_ok(cinf_engine_set_price(engine, "5"));
    ck_fails(cinf_engine_set_price(engine, "5 dollars"), CINF_EINVAL, "");
    ck_ok(cinf_generate(&after, small, &o, NULL, NULL));
    ck_assert_int_eq(
        cinf_cost_compare(before->report.cost, cinf_cost_of(before->report.device_ns, 2500000000u)), 0);
    ck_assert_int_eq(
        cinf_cost_compare(after->report.cost, cinf_cost_of(after->report.device_ns, 5000000000u)), 0);
    struct cinf_snapshot s = snapshot_now();
    struct cinf_cost sum = cinf_cost_add(before->report.cost, after->report.cost);
    ck_assert_int_eq(cinf_cost_compare(s.models[0].serve_cost, sum), 0);
    ck_assert_uint_eq(s.n_prices, 2);
    cinf_snapshot_free(&s);
    cinf_result_free(before);
    cinf_result_free(after);
}
END_TEST

START_TEST(the_price_follows_the_kind_of_device)
{
    static const struct {
        const char *cpu, *gpu;
        bool priced;
        uint64_t nanodollars;
    } cases[] = { { "0.10", "7", true, 100000000 },
                  { NULL, "7", false, 0 },
                  { NULL, NULL, true, 3000000000 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_engine(&(struct cinf_engine_options){
            CINF_ENGINE_OPTIONS, .device = "cpu-reference", .cpu_dollars_per_hour = cases[i].cpu,
            .gpu_dollars_per_hour = cases[i].gpu, .dollars_per_hour = "3" });
        struct cinf_snapshot s = snapshot_now();
        ck_assert_uint_eq(s.n_prices, 1); /* since the timeline began */
        ck_assert_int_eq(s.prices[0].priced, cases[i].priced);
        ck_assert_uint_eq(s.prices[0].nanodollars_per_hour, cases[i].nanodollars);
        cinf_snapshot_free(&s);
        teardown();
    }
    struct cinf_engine *none = NULL;
    ck_assert_int_eq(cinf_engine_open(&none, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS,
                                                                            .cpu_dollars_per_hour = "a lot",
                                                                            .device = "cpu-reference" }),
                     CINF_EINVAL);
    ck_assert_ptr_null(none);
}
END_TEST

START_TEST(the_cpu_basis_conserves_cpu_time)
{
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .basis = CINF_BASIS_CPU,
                                               .dollars_per_hour = "2.50" });
    load(&small, "stories-small");
    struct cinf_result *result;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 50 };
    ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
    struct cinf_snapshot s = snapshot_now();
    check_identities(&s);
    ck_assert_int_eq(s.basis, CINF_BASIS_CPU);
    ck_assert_uint_le(s.as_of_ns, clock_process_cpu_ns());
    ck_assert_uint_gt(result->report.device_ns, 0);
    cinf_snapshot_free(&s);
    cinf_result_free(result);
}
END_TEST

static atomic_bool flood_over;

static void *flood(void *tokenizer)
{
    static const char text[] = "There was once a flood of texts that nobody generated anything from.";
    while (!atomic_load(&flood_over)) {
        int32_t *ids;
        size_t n;
        ck_ok(cinf_tokenizer_encode(tokenizer, text, sizeof text - 1, 0, &ids, &n));
        cinf_ids_free(ids);
    }
    return NULL;
}

static uint64_t cost_of_a_text(void)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        struct cinf_result *result;
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 100,
                                          .ignore_eos = true };
        ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
        least = result->report.device_ns < least ? result->report.device_ns : least;
        cinf_result_free(result);
    }
    return least;
}

START_TEST(on_the_cpu_basis_a_flood_of_other_work_costs_a_request_nothing)
{
    static const char *const devices[] = { "cpu", "cpu-reference", "cpu-blas" };
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .basis = CINF_BASIS_CPU,
                                               .device = devices[_i], .dollars_per_hour = "2.50" });
    load(&small, "stories-small");
    (void)cost_of_a_text();
    struct cinf_snapshot before = snapshot_now();
    uint64_t quiet = cost_of_a_text();
    struct cinf_snapshot after = snapshot_now();
    uint64_t serve = after.serve_ns - before.serve_ns, overhead = after.overhead_ns - before.overhead_ns;
    /* The device's own threads are known: what they use is not overhead. */
    ck_assert_uint_lt(overhead, serve / 2);
    cinf_snapshot_free(&before);
    before = after;

    pthread_t threads[3];
    atomic_store(&flood_over, false);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, flood, (void *)cinf_model_tokenizer(small)), 0);
    uint64_t flooded = cost_of_a_text();
    atomic_store(&flood_over, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    after = snapshot_now();
    check_identities(&after);
    printf("%s: %d us quiet, %d us flooded\n", devices[_i], (int)(quiet / 1000), (int)(flooded / 1000));
    /* Shared caches make the same work take longer, but not twice as long. */
    ck_assert_uint_lt(flooded, 2 * quiet);
    ck_assert_uint_gt(after.overhead_ns - before.overhead_ns, 0);
    cinf_snapshot_free(&before);
    cinf_snapshot_free(&after);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("accounts");
    TCase *t = case_with_engine();
    tcase_add_test(t, a_lone_request_costs_its_latency);
    tcase_add_test(t, no_time_before_submission_is_billed);
    tcase_add_loop_test(t, overlapping_requests_add_up_to_the_machines_time, 0, 3);
    tcase_add_test(t, a_price_change_applies_from_its_moment_on);
    suite_add_tcase(s, t);
    t = case_of_engines();
    if (HAVE_DEMO_MODELS)
        tcase_add_test(t, the_price_follows_the_kind_of_device);
    tcase_add_test(t, the_cpu_basis_conserves_cpu_time);
    tcase_add_loop_test(t, on_the_cpu_basis_a_flood_of_other_work_costs_a_request_nothing, 0,
                        CINF_HAVE_BLAS ? 3 : 2);
    suite_add_tcase(s, t);
    return s;
}
