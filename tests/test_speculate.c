/* Draft tokens: finding, choosing and judging them, and that an engine with them writes the same text as one
 * without, counts the same and loses no nanosecond. */
#include "support.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "engine_state.h"
#include "speculate.h"
#include "tiny_model.h"

/* ---- Drafts ---------------------------------------------------------------------------------- */

#define N(array) (sizeof(array) / sizeof *(array))

static struct draft found(const int32_t *ids, uint32_t n)
{
    struct draft d;
    draft_init(&d);
    draft_find(&d, ids, n);
    return d;
}

START_TEST(the_longest_match_precedes_the_latest)
{
    static const int32_t ids[] = { 1, 2, 3, 70, 9, 2, 3, 80, 3, 90, 1, 2, 3 };
    struct draft d = found(ids, N(ids));
    static const int32_t whole[] = { 70, 9, 2, 3, 80, 3, 90, 1 };
    ck_assert_uint_eq(d.match, 3);
    ck_assert_uint_eq(d.from, N(ids));
    ck_assert_mem_eq(d.tokens, whole, sizeof whole);
    d = found(ids + 3, N(ids) - 3 - 2); /* 70 9 2 3 80 3 90 1: nothing ends in 1 */
    ck_assert_uint_eq(d.match, 0);
    d = found(ids + 3, N(ids) - 3 - 4); /* 70 9 2 3 80 3: only the 3 */
    ck_assert_uint_eq(d.match, 1);
    ck_assert_int_eq(d.tokens[0], 80);
}
END_TEST

START_TEST(among_equal_matches_the_latest_is_taken)
{
    static const int32_t ids[] = { 5, 6, 70, 5, 6, 80, 4, 5, 6 };
    struct draft d = found(ids, N(ids));
    ck_assert_uint_eq(d.match, 2);
    ck_assert_int_eq(d.tokens[0], 80);
    ck_assert_int_eq(d.tokens[1], 4);
}
END_TEST

START_TEST(a_loop_goes_on_beyond_the_text)
{
    static const int32_t ids[] = { 8, 1, 2, 1, 2, 1, 2 }, same[] = { 7, 7 };
    static const int32_t whole[] = { 1, 2, 1, 2, 1, 2, 1, 2 };
    struct draft d = found(ids, N(ids));
    ck_assert_uint_eq(d.match, 3);
    ck_assert_mem_eq(d.tokens, whole, sizeof whole);
    d = found(same, 2);
    ck_assert_uint_eq(d.match, 1);
    for (int i = 0; i < DRAFT_MAX; i++)
        ck_assert_int_eq(d.tokens[i], 7);
}
END_TEST

START_TEST(without_repetition_there_is_no_draft)
{
    static const int32_t ids[] = { 1, 2, 3, 4 };
    for (uint32_t n = 1; n <= 4; n++) {
        struct draft d = found(ids, n);
        struct draft_step step = { 1, 1, 0.01f };
        ck_assert_uint_eq(d.match, 0);
        ck_assert_uint_eq(draft_length(&d, 8, &step), 0);
        ck_assert_float_eq(step.tokens, 1);
        draft_learn(&d, ids, n);
    }
}
END_TEST

START_TEST(as_many_draft_tokens_are_taken_as_pay)
{
    struct draft d = { .accepted = { 0.5f, 0.5f, 0.5f }, .match = 2 };
    struct draft_step step = { 1, 1, 0.04f };
    uint32_t n = draft_length(&d, 8, &step);
    ck_assert_uint_eq(n, 3); /* 1/2, 1/4, 1/8; 1/16 would gain little more than it takes */
    ck_assert_float_eq_tol(step.tokens, 1.875f, 1e-6f);
    ck_assert_float_eq_tol(step.time, 1.12f, 1e-6f);
    step = (struct draft_step){ 1, 1, 0.04f };
    ck_assert_uint_eq(draft_length(&d, 2, &step), 2);
    ck_assert_uint_eq(draft_length(&d, 0, &step), 0);
    /* With more sequences in the step, more of them wait for the row. */
    step = (struct draft_step){ 4, 1.12f, 0.04f };
    ck_assert_uint_eq(draft_length(&d, 8, &step), 2);
    step = (struct draft_step){ 1, 1, 0.5f };
    ck_assert_uint_eq(draft_length(&d, 8, &step), 0);
    d.accepted[1] = 1;
    step = (struct draft_step){ 1, 1, 0.05f };
    ck_assert_uint_eq(draft_length(&d, 100, &step), DRAFT_MAX);
}
END_TEST

START_TEST(acceptance_is_kept_by_length_of_match)
{
    int32_t ids[] = { 1, 2, 3, 4, 1, 2, 3, 9 };
    struct draft d = found(ids, 4), before = d;
    draft_learn(&d, ids, 5); /* no match: nothing is learned */
    ck_assert_mem_eq(d.accepted, before.accepted, sizeof d.accepted);
    d = found(ids, 6); /* drafts 3 4 1 2 … */
    ck_assert_uint_eq(d.match, 2);
    before = d;
    draft_learn(&d, ids, 8); /* 3 was right, 4 was not */
    float once = before.accepted[1] + (1 - before.accepted[1]) / 16;
    ck_assert_float_eq_tol(d.accepted[1], once - once / 16, 1e-6f);
    ck_assert_float_eq(d.accepted[0], before.accepted[0]);
    ck_assert_float_eq(d.accepted[2], before.accepted[2]);
    before = d;
    draft_learn(&d, ids, 8); /* a draft is judged once */
    ck_assert_mem_eq(d.accepted, before.accepted, sizeof d.accepted);
    d = found(ids, 6);
    before = d;
    draft_learn(&d, ids, 6); /* the text ended */
    ck_assert_mem_eq(d.accepted, before.accepted, sizeof d.accepted);
    for (int i = 0; i < 200; i++) {
        d.match = 2;
        draft_learn(&d, (int32_t[]){ 0, 0, 0, 0, 0, 0, 77 }, 7);
    }
    ck_assert_float_lt(d.accepted[1], 0.001f);
    ck_assert_float_ge(d.accepted[1], 0);
}
END_TEST

/* ---- Engines with and without ---------------------------------------------------------------- */

static struct cinf_engine *engine;
static struct cinf_model *model;

/* Under TSan the small model takes minutes, and opening an engine, which measures its device, takes seconds.
 */
#if defined(__SANITIZE_THREAD__)
enum { OPENINGS = 4 };
#else
enum { OPENINGS = 10 };
#endif

static const char *folder(void)
{
#if defined(__SANITIZE_THREAD__)
    static char *tiny;
    return tiny ? tiny : (tiny = tiny_model());
#else
    return support_source("examples/models/stories-small");
#endif
}

static void open_engine(bool speculation, bool prefix_reuse)
{
    struct cinf_device_info info = { CINF_DEVICE_INFO };
    struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = "cpu", .no_speculation = !speculation,
                                     .no_prefix_reuse = !prefix_reuse, .dollars_per_hour = "1" };
    ck_ok(cinf_engine_open(&engine, &o));
    ck_ok(cinf_model_load(
        &model, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "m", .folder = folder() }));
    cinf_engine_device(engine, &info);
    ck_assert(info.speculation == speculation);
    if (speculation) /* a price of a row at which unlikely drafts are tried as well, on any machine */
        model->row_time = 0.01f;
}

/* Checks conservation first. */
static void close_engine(void)
{
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
    ck_assert_uint_eq(s.serve_ns + s.load_ns + s.idle_ns + s.lost_ns + s.overhead_ns, s.as_of_ns);
    ck_assert_uint_eq(s.models[0].serve_ns, s.serve_ns);
    cinf_snapshot_free(&s);
    cinf_model_release(model);
    cinf_engine_close(engine);
}

static const char *const stops[] = { "said", "little girl", "\n\n" };
static struct cinf_logit_bias bias[] = { { 84, -100 }, { 11, 3 }, { 13, 2 } };
static const struct cinf_logit_bias always_one[] = { { 65, 100 } };
static const struct cinf_logit_bias mostly_one[] = { { 65, 100 }, { 66, 98 } };

static const struct cinf_request_options cases[] = {
    { CINF_REQUEST_OPTIONS, .prompt = "Once upon a time", .ignore_eos = true },
    { CINF_REQUEST_OPTIONS, .prompt = "Once upon a time" },
    { CINF_REQUEST_OPTIONS, .prompt = "The cat saw the cat saw the cat", .max_tokens = 90, .ignore_eos = true,
      .top_logprobs = 3 },
    { CINF_REQUEST_OPTIONS, .prompt = "a b c a b c a b c", .temperature = 1, .seed = 3, .max_tokens = 120,
      .logprobs = true },
    { CINF_REQUEST_OPTIONS, .prompt = "Lily", .temperature = 0.4f, .top_k = 20, .seed = 9 },
    { CINF_REQUEST_OPTIONS, .prompt = "Lily", .temperature = 0.8f, .top_p = 0.9f, .min_p = 0.01f, .seed = 4,
      .n = 3, .ignore_eos = true, .max_tokens = 80 },
    { CINF_REQUEST_OPTIONS, .prompt = "He said that he said that", .stop = stops, .n_stop = 3 },
    { CINF_REQUEST_OPTIONS, .prompt = "He said that he said that", .repetition_penalty = 1.3f,
      .presence_penalty = 0.5f, .frequency_penalty = 0.2f, .temperature = 0.5f, .seed = 2 },
    { CINF_REQUEST_OPTIONS, .prompt = "x", .logit_bias = bias, .n_logit_bias = N(bias), .ignore_eos = true,
      .logprobs = true },
    { CINF_REQUEST_OPTIONS, .prompt = "x", .logit_bias = always_one, .n_logit_bias = 1 },
    { CINF_REQUEST_OPTIONS, .prompt = "x", .logit_bias = always_one, .n_logit_bias = 1, .max_tokens = 7 },
    { CINF_REQUEST_OPTIONS, .prompt = "x", .logit_bias = always_one, .n_logit_bias = 1, .max_tokens = 20 },
    { CINF_REQUEST_OPTIONS, .prompt = "x", .logit_bias = always_one, .n_logit_bias = 1, .max_tokens = 21 },
    { CINF_REQUEST_OPTIONS, .prompt = "x", .logit_bias = always_one, .n_logit_bias = 1, .max_tokens = 1 },
};
enum { N_CASES = N(cases), TOGETHER = 6 };

static struct cinf_result *results[2][N_CASES], *crowd[2][TOGETHER];

static void check_same(const struct cinf_result *a, const struct cinf_result *b)
{
    ck_assert_uint_eq(a->n_choices, b->n_choices);
    ck_assert_uint_eq(a->report.output_tokens, b->report.output_tokens);
    ck_assert_uint_eq(a->report.input_tokens, b->report.input_tokens);
    for (uint32_t i = 0; i < a->n_choices; i++) {
        const struct cinf_choice *x = &a->choices[i], *y = &b->choices[i];
        ck_assert_uint_eq(x->n_ids, y->n_ids);
        ck_assert_mem_eq(x->ids, y->ids, x->n_ids * sizeof *x->ids);
        ck_assert_str_eq(x->text, y->text);
        ck_assert_int_eq(x->finish, y->finish);
        ck_assert(!x->logprobs == !y->logprobs);
        if (x->logprobs)
            ck_assert_mem_eq(x->logprobs, y->logprobs, x->n_ids * sizeof *x->logprobs);
    }
}

static struct cinf_request *submit(const struct cinf_request_options *o)
{
    struct cinf_request *r;
    ck_ok(cinf_request_submit(&r, model, o));
    return r;
}

static void *generate(void *o)
{
    struct cinf_result *result;
    return cinf_generate(&result, model, o, NULL, NULL) == CINF_OK ? result : NULL;
}

/* Enough concurrent requests that some steps have draft tokens and others do not. */
static void run_crowd(struct cinf_result **out)
{
    pthread_t threads[TOGETHER];
    struct cinf_request_options o[TOGETHER];
    for (int i = 0; i < TOGETHER; i++) {
        o[i] = cases[i % 2 ? 3 : 0];
        o[i].seed = (uint64_t)i + 1;
        o[i].max_tokens = 30 + 20 * (uint32_t)i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, generate, &o[i]), 0);
    }
    for (int i = 0; i < TOGETHER; i++) {
        void *result;
        pthread_join(threads[i], &result);
        ck_assert_ptr_nonnull(result);
        out[i] = result;
    }
}

START_TEST(the_text_is_the_same_with_and_without_speculation)
{
    uint64_t accepted = 0, drafted = 0;
    for (int on = 0; on < 2; on++) {
        open_engine(on, false);
        for (int i = 0; i < (int)N_CASES; i++)
            ck_ok(cinf_generate(&results[on][i], model, &cases[i], NULL, NULL));
        run_crowd(crowd[on]);
        close_engine();
    }
    for (int i = 0; i < (int)N_CASES; i++) {
        const struct cinf_report *r = &results[1][i]->report;
        check_same(results[0][i], results[1][i]);
        ck_assert_uint_eq(results[0][i]->report.drafted_tokens, 0);
        ck_assert_uint_eq(results[0][i]->report.accepted_tokens, 0);
        ck_assert_uint_le(r->accepted_tokens, r->drafted_tokens);
        ck_assert_uint_lt(r->accepted_tokens, r->output_tokens);
        ck_assert_uint_eq(r->prefill_ns + r->decode_ns, r->device_ns);
        ck_assert_uint_eq(r->device_ns, r->latency_ns); /* alone */
        accepted += r->accepted_tokens;
        drafted += r->drafted_tokens;
        cinf_result_free(results[0][i]);
        cinf_result_free(results[1][i]);
    }
    for (int i = 0; i < TOGETHER; i++) {
        check_same(crowd[0][i], crowd[1][i]);
        cinf_result_free(crowd[0][i]);
        cinf_result_free(crowd[1][i]);
    }
    printf("%llu of %llu draft tokens were accepted\n", (unsigned long long)accepted,
           (unsigned long long)drafted);
    ck_assert_uint_gt(accepted, 0);
    ck_assert_uint_gt(drafted, accepted);
}
END_TEST

/* The events of a request that is cancelled are a prefix of the whole text. */
START_TEST(a_cancelled_text_is_a_beginning_and_is_counted)
{
    struct cinf_request_options o = cases[9];
    struct cinf_result *whole;
    open_engine(true, true);
    ck_ok(cinf_generate(&whole, model, &o, NULL, NULL));
    for (uint32_t at = 1; at < 60; at += 7) {
        struct cinf_request *r = submit(&o);
        struct cinf_event event = { CINF_EVENT };
        struct cinf_report report = { CINF_REPORT };
        uint32_t n = 0;
        for (;;) {
            ck_ok(cinf_request_next(r, UINT64_MAX, &event));
            if (event.kind == CINF_EVENT_END)
                break;
            if (event.kind != CINF_EVENT_TOKEN)
                continue;
            ck_assert_int_eq(event.token, whole->choices[0].ids[n++]);
            if (n == at)
                cinf_request_cancel(r, CINF_FINISH_CANCELLED);
        }
        cinf_request_report(r, &report);
        ck_assert_uint_eq(report.output_tokens, n);
        ck_assert_int_eq(report.finish, event.finish);
        cinf_request_free(r);
    }
    cinf_result_free(whole);
    close_engine();
}
END_TEST

/* A later prompt that continues a text reuses its keys and values, among which there is no rejected draft
 * token. */
START_TEST(rejected_draft_tokens_are_not_found_in_the_cache)
{
    static int32_t ids[256], ends[2][TOGETHER][256];
    static float logprobs[2][TOGETHER][256];
    uint32_t n_prompt = 0, n[2][TOGETHER], cached = 0, rejected = 0;
    for (int reuse = 0; reuse < 2; reuse++) {
        open_engine(true, reuse);
        for (int i = 0; i < TOGETHER; i++) {
            struct cinf_request_options o = cases[3];
            struct cinf_result *first, *second;
            int32_t *prompt;
            size_t size;
            /* Drafts are mostly right, so that they are tried, and sometimes wrong. */
            o.seed = (uint64_t)i + 11;
            o.logit_bias = mostly_one;
            o.n_logit_bias = N(mostly_one);
            ck_ok(cinf_generate(&first, model, &o, NULL, NULL));
            rejected += first->report.drafted_tokens - first->report.accepted_tokens;
            ck_ok(cinf_tokenizer_encode(cinf_model_tokenizer(model), o.prompt, strlen(o.prompt), 0, &prompt,
                                        &size));
            memcpy(ids, prompt, size * sizeof *ids);
            memcpy(ids + size, first->choices[0].ids, first->choices[0].n_ids * sizeof *ids);
            n_prompt = (uint32_t)size + first->choices[0].n_ids;
            o = (struct cinf_request_options){ CINF_REQUEST_OPTIONS,     .prompt_ids = ids,
                                               .n_prompt_ids = n_prompt, .max_tokens = 40,
                                               .logprobs = true,         .ignore_eos = true };
            ck_ok(cinf_generate(&second, model, &o, NULL, NULL));
            cached += second->report.cached_tokens;
            ck_assert_uint_lt(second->report.cached_tokens, n_prompt);
            n[reuse][i] = second->choices[0].n_ids;
            memcpy(ends[reuse][i], second->choices[0].ids, n[reuse][i] * sizeof **ends[0]);
            memcpy(logprobs[reuse][i], second->choices[0].logprobs, n[reuse][i] * sizeof **logprobs[0]);
            cinf_ids_free(prompt);
            cinf_result_free(first);
            cinf_result_free(second);
        }
        close_engine();
    }
    for (int i = 0; i < TOGETHER; i++) {
        ck_assert_uint_eq(n[0][i], n[1][i]);
        ck_assert_mem_eq(ends[0][i], ends[1][i], n[0][i] * sizeof **ends[0]);
        ck_assert_mem_eq(logprobs[0][i], logprobs[1][i], n[0][i] * sizeof **logprobs[0]);
    }
    ck_assert_uint_gt(cached, 0);
    ck_assert_uint_gt(rejected, 0);
}
END_TEST

/* The value of a sample of the metrics page. */
static double sample_of(const char *page, const char *sample)
{
    const char *at = strstr(page, sample);
    ck_assert_msg(at != NULL, "%s is missing", sample);
    return strtod(at + strlen(sample), NULL);
}

static void check_metrics(uint64_t drafted, uint64_t accepted, uint64_t gaps, uint64_t gap_ns)
{
    struct cinf_exposition *page;
    ck_ok(cinf_exposition_new(&page, CINF_EXPOSITION_TEXT));
    ck_ok(cinf_exposition_meter(page, cinf_engine_meter(engine)));
    const char *text;
    size_t n;
    ck_ok(cinf_exposition_finish(page, &text, &n));
    double accepted_shown =
        sample_of(text, "model_draft_tokens_total{model_name=\"m\",outcome=\"accepted\"}");
    double rejected_shown =
        sample_of(text, "model_draft_tokens_total{model_name=\"m\",outcome=\"rejected\"}");
    ck_assert_double_eq(accepted_shown, (double)accepted);
    ck_assert_double_eq(rejected_shown, (double)(drafted - accepted));
    ck_assert_double_eq(sample_of(text, "model_inter_token_seconds_count{model_name=\"m\"}"), (double)gaps);
    /* The tokens of one step waited once: the gaps of a lone text add up to its time after the first token.
     */
    ck_assert_double_le(sample_of(text, "model_inter_token_seconds_sum{model_name=\"m\"}"),
                        (double)gap_ns / 1e9 + 1e-9);
    ck_assert_double_ge(sample_of(text, "model_inter_token_seconds_bucket{model_name=\"m\",le=\"0.001\"}"),
                        (double)accepted);
    cinf_exposition_free(page);
}

START_TEST(draft_tokens_are_in_the_accounts)
{
    uint64_t drafted = 0, accepted = 0, serve = 0, output = 0, gaps = 0, gap_ns = 0;
    open_engine(true, true);
    for (int i = 0; i < (int)N_CASES; i++) {
        struct cinf_result *result;
        ck_ok(cinf_generate(&result, model, &cases[i], NULL, NULL));
        const struct cinf_report *r = &result->report;
        drafted += r->drafted_tokens;
        accepted += r->accepted_tokens;
        output += r->output_tokens;
        serve += r->device_ns;
        gaps += r->output_tokens - result->n_choices;
        gap_ns += result->n_choices * r->decode_ns;
        cinf_result_free(result);
    }
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
    ck_assert_uint_eq(s.serve_ns, serve);
    ck_assert_uint_eq(s.models[0].output_tokens, output);
    ck_assert_int_eq(cinf_cost_compare(s.serve_cost, cinf_cost_of(serve, 1000000000)), 0);
    cinf_snapshot_free(&s);
    check_metrics(drafted, accepted, gaps, gap_ns);
    close_engine();
}
END_TEST

/* An additional row is timed while a model loads: the engine may be closed in the middle of that. */
static void *load_it(void *out)
{
    enum cinf_status status = cinf_model_load(
        out, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "late", .folder = folder() });
    return (void *)(uintptr_t)status;
}

static void *close_it(void *unused)
{
    (void)unused;
    cinf_engine_close(engine);
    return NULL;
}

START_TEST(an_engine_closes_while_a_model_is_timed)
{
    for (int i = 0; i < OPENINGS; i++) {
        struct cinf_model *late = NULL;
        pthread_t thread;
        void *status;
        struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = "cpu" };
        ck_ok(cinf_engine_open(&engine, &o));
        ck_assert_int_eq(pthread_create(&thread, NULL, load_it, &late), 0);
        struct cinf_snapshot s = { CINF_SNAPSHOT };
        do { /* some way into the load, a little further each time */
            cinf_snapshot_free(&s);
            ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
        } while (s.n_models == 0 || (!s.models[0].loaded && s.load_ns < (uint64_t)i * 8000000 / OPENINGS));
        cinf_snapshot_free(&s);
        pthread_t closer;
        ck_assert_int_eq(pthread_create(&closer, NULL, close_it, NULL), 0);
        pthread_join(thread, &status);
        pthread_join(closer, NULL);
        ck_assert((uintptr_t)status == CINF_OK || (uintptr_t)status == CINF_ECLOSED);
        ck_assert(((uintptr_t)status == CINF_OK) == (late != NULL));
        cinf_model_release(late);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("speculate");
    TCase *t = tcase_create("drafts");
    tcase_add_test(t, the_longest_match_precedes_the_latest);
    tcase_add_test(t, among_equal_matches_the_latest_is_taken);
    tcase_add_test(t, a_loop_goes_on_beyond_the_text);
    tcase_add_test(t, without_repetition_there_is_no_draft);
    tcase_add_test(t, as_many_draft_tokens_are_taken_as_pay);
    tcase_add_test(t, acceptance_is_kept_by_length_of_match);
    suite_add_tcase(s, t);
    t = tcase_create("engines");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, the_text_is_the_same_with_and_without_speculation);
    tcase_add_test(t, a_cancelled_text_is_a_beginning_and_is_counted);
    tcase_add_test(t, rejected_draft_tokens_are_not_found_in_the_cache);
    tcase_add_test(t, draft_tokens_are_in_the_accounts);
    tcase_add_test(t, an_engine_closes_while_a_model_is_timed);
    suite_add_tcase(s, t);
    return s;
}
