/* The engine on the bundled models: loading, serving together, unloading, and the invariants of the accounts
 * under overlapping traffic. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "support.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <costinfer/costinfer.h>

#include "clock.h"
#include "mem.h"
#include "tiny_model.h"

static struct cinf_engine *engine;
static struct cinf_model *small, *large;

/* Under TSan even the small model takes minutes; there the tests that do not look at the text run on a tiny
 * one, and the others do not run. */
#if defined(__SANITIZE_THREAD__)
enum { HAVE_DEMO_MODELS = 0 };
#else
enum { HAVE_DEMO_MODELS = 1 };
#endif

static const char *folder_of(const char *name)
{
    static char *tiny;
    if (!HAVE_DEMO_MODELS)
        return tiny ? tiny : (tiny = tiny_model());
    static char paths[2][4096];
    char *path = paths[strcmp(name, "stories-small") == 0];
    snprintf(path, 4096, "%s/%s", support_source("examples/models"), name);
    return path;
}

static void load(struct cinf_model **out, const char *name)
{
    ck_ok(cinf_model_load(
        out, engine,
        &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = name, .folder = folder_of(name) }));
}

static void open_engine(const struct cinf_engine_options *options)
{
    struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = getenv("CINF_TEST_DEVICE"),
                                     .dollars_per_hour = "2.50" };
    ck_ok(cinf_engine_open(&engine, options ? options : &o));
}

static void setup(void)
{
    open_engine(NULL);
    load(&small, "stories-small");
}

static void teardown(void)
{
    cinf_model_release(small);
    cinf_model_release(large);
    cinf_engine_close(engine);
    small = large = NULL;
    engine = NULL;
}

static struct cinf_snapshot snapshot_now(void)
{
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
    return s;
}

static uint64_t sum_of_costs(const struct cinf_snapshot *s)
{
    return cinf_cost_add(cinf_cost_add(s->serve_cost, s->load_cost), s->idle_cost).lo;
}

/* The identities that hold within every snapshot. */
static void check_identities(const struct cinf_snapshot *s)
{
    uint64_t serve = 0, load_ns = 0;
    ck_assert_uint_eq(s->serve_ns + s->load_ns + s->idle_ns, s->as_of_ns);
    for (uint32_t i = 0; i < s->n_models; i++) {
        const struct cinf_model_totals *m = &s->models[i];
        ck_assert_uint_eq(m->prefill_ns + m->decode_ns, m->serve_ns);
        serve += m->serve_ns;
        load_ns += m->load_ns;
    }
    ck_assert_uint_eq(serve, s->serve_ns);
    ck_assert_uint_eq(load_ns, s->load_ns);
    ck_assert_uint_eq(sum_of_costs(s), s->as_of_ns * 2500000000u);
}

/* ---- Generating ------------------------------------------------------------------------------ */

static void check_expected(const char *name, struct cinf_model *model)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/expected.json", folder_of(name));
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    static char text[16384];
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    cJSON *expected = cJSON_Parse(text);
    const cJSON *c;
    int n = 0;
    cJSON_ArrayForEach(c, cJSON_GetObjectItemCaseSensitive(expected, "cases"))
    {
        struct cinf_result *result;
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS,
                                          .prompt =
                                              cJSON_GetObjectItemCaseSensitive(c, "prompt")->valuestring,
                                          .max_tokens = 40, .ignore_eos = true };
        ck_ok(cinf_generate(&result, model, &o, NULL, NULL));
        const struct cinf_choice *choice = &result->choices[0];
        ck_assert_uint_eq(choice->n_ids, 40);
        uint32_t i = 0;
        const cJSON *id;
        cJSON_ArrayForEach(id, cJSON_GetObjectItemCaseSensitive(c, "greedy_ids"))
            ck_assert_int_eq(choice->ids[i++], id->valueint);
        ck_assert_str_eq(choice->text, cJSON_GetObjectItemCaseSensitive(c, "text")->valuestring);
        ck_assert_int_eq(choice->finish, CINF_FINISH_LENGTH);
        ck_assert_uint_eq(result->report.output_tokens, 40);
        ck_assert_uint_eq(result->report.input_tokens,
                          (unsigned)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(c, "prompt_ids")));
        cinf_result_free(result);
        n++;
    }
    ck_assert_int_eq(n, 4);
    cJSON_Delete(expected);
}

START_TEST(the_demo_models_write_what_they_should)
{
    check_expected("stories-small", small);
    load(&large, "stories-large");
    check_expected("stories-large", large);
    check_expected("stories-small", small);
}
END_TEST

START_TEST(the_reference_device_writes_the_same)
{
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu-reference" });
    load(&small, "stories-small");
    check_expected("stories-small", small);
}
END_TEST

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

/* As in the reports of requests that follow one another at once, alone or joining another one: nothing in
 * them is from before they were submitted. */
START_TEST(no_time_before_submission_is_a_requests_own)
{
    struct cinf_request_options endless = { CINF_REQUEST_OPTIONS, .prompt = "Once", .ignore_eos = true };
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "There was once", .max_tokens = 3,
                                      .ignore_eos = true };
    for (int company = 0; company < 2; company++) {
        struct cinf_request *other = NULL;
        for (int i = 0; i < 100; i++) {
            struct cinf_result *result;
            struct cinf_report running = { CINF_REPORT };
            if (other)
                cinf_request_report(other, &running);
            if (company && (!other || running.finish != CINF_FINISH_RUNNING)) {
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
            if (!company)
                ck_assert_uint_eq(r->device_ns, r->latency_ns);
            cinf_result_free(result);
        }
        cinf_request_free(other);
    }
}
END_TEST

/* The text of a request by events, the prompt's events apart. */
static void pull_text(struct cinf_request *r, char *text, size_t size, enum cinf_finish *finish)
{
    size_t n = 0;
    for (;;) {
        struct cinf_event event = { CINF_EVENT };
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
        if (event.kind == CINF_EVENT_END) {
            *finish = event.finish;
            break;
        }
        if (event.kind == CINF_EVENT_PROMPT || event.choice != 0)
            continue;
        ck_assert_uint_lt(n + event.text_bytes, size);
        memcpy(text + n, event.text, event.text_bytes);
        n += event.text_bytes;
    }
    text[n] = '\0';
}

static struct cinf_request *submit(struct cinf_model *model, const struct cinf_request_options *o)
{
    struct cinf_request *r;
    ck_ok(cinf_request_submit(&r, model, o));
    return r;
}

START_TEST(stop_strings_end_the_text_before_them)
{
    static const char *const stops[][2] = { { "She lived", "zzz" },
                                            { "e lived in a s", "small house" },
                                            { "all hou", "q" },
                                            { "in a small house next", "house next t" } };
    static const char whole[] =
        "Once upon a time there was a little girl named Clara. She lived in a small house next to";
    for (int i = 0; i < 4; i++) {
        char text[2048];
        enum cinf_finish finish;
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .stop = stops[i], .n_stop = 2,
                                          .max_tokens = 60 };
        struct cinf_request *r = submit(small, &o);
        pull_text(r, text, sizeof text, &finish);
        const char *a = strstr(whole, stops[i][0]), *b = strstr(whole, stops[i][1]);
        const char *first = !b || (a && a < b) ? a : b;
        ck_assert_int_eq(finish, CINF_FINISH_STOP);
        ck_assert_uint_eq(strlen(text), (size_t)(first - whole));
        ck_assert(strncmp(text, whole, strlen(text)) == 0);
        /* The tokens of the stop string were computed, so they are counted. */
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(r, &report);
        ck_assert_uint_gt(report.output_tokens, 8);
        cinf_request_free(r);
    }
}
END_TEST

START_TEST(a_stop_string_that_does_not_come_holds_nothing_back_for_ever)
{
    static const char *const stops[] = { "Clara was very patientX", "cellar. \"Who is there?\" said Zed" };
    char with[2048], without[2048];
    enum cinf_finish finish;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .max_tokens = 60, .stop = stops, .n_stop = 2 };
    struct cinf_request *r = submit(small, &o);
    pull_text(r, with, sizeof with, &finish);
    cinf_request_free(r);
    o.n_stop = 0;
    r = submit(small, &o);
    pull_text(r, without, sizeof without, &finish);
    cinf_request_free(r);
    ck_assert_str_eq(with, without);
}
END_TEST

START_TEST(choices_are_independent_and_repeatable)
{
    struct cinf_result *once, *again, *alone;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Long ago, a", .max_tokens = 24, .n = 4,
                                      .temperature = 1,     .top_p = 0.95f,          .seed = 11 };
    ck_ok(cinf_generate(&once, small, &o, NULL, NULL));
    ck_ok(cinf_generate(&again, small, &o, NULL, NULL));
    o.n = 1;
    ck_ok(cinf_generate(&alone, small, &o, NULL, NULL));
    ck_assert_uint_eq(once->n_choices, 4);
    int different = 0;
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_str_eq(once->choices[i].text, again->choices[i].text);
        different += strcmp(once->choices[i].text, once->choices[0].text) != 0;
    }
    ck_assert_int_ge(different, 2);
    ck_assert_str_eq(once->choices[0].text, alone->choices[0].text);
    /* The prompt counts once a request, output tokens for every choice. */
    ck_assert_uint_eq(once->report.input_tokens, alone->report.input_tokens);
    ck_assert_uint_gt(once->report.output_tokens, alone->report.output_tokens * 2);
    cinf_result_free(once);
    cinf_result_free(again);
    cinf_result_free(alone);
}
END_TEST

static uint32_t vocab(void)
{
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(small, &info);
    return info.config.vocab_size;
}

START_TEST(logprobs_agree_with_scoring_and_with_raw_logits)
{
    struct cinf_result *result;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "There was once a shy girl",
                                      .max_tokens = 12, .logprobs = true };
    ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
    int32_t *prompt;
    size_t n_prompt;
    ck_ok(cinf_tokenizer_encode(cinf_model_tokenizer(small), o.prompt, strlen(o.prompt), 0, &prompt,
                                &n_prompt));
    int32_t all[64]; /* a byte a token in the tiny vocabulary */
    uint32_t n = (uint32_t)n_prompt + result->choices[0].n_ids;
    memcpy(all, prompt, n_prompt * sizeof *all);
    memcpy(all + n_prompt, result->choices[0].ids, result->choices[0].n_ids * sizeof *all);
    float scores[64], *logits = malloc((size_t)n * vocab() * sizeof *logits);
    ck_ok(cinf_score(small, all, n, scores, NULL));
    struct cinf_report report = { CINF_REPORT };
    ck_ok(cinf_logits(small, all, n, logits, &report));
    ck_assert_uint_eq(report.input_tokens, n);
    ck_assert_uint_eq(report.output_tokens, 0);
    ck_assert(scores[0] != scores[0]);
    for (uint32_t i = 1; i < n; i++) {
        double sum = 0;
        const float *row = logits + (size_t)(i - 1) * vocab();
        for (uint32_t v = 0; v < vocab(); v++)
            sum += __builtin_exp(row[v]);
        ck_assert_double_eq_tol(scores[i], row[all[i]] - __builtin_log(sum), 1e-4);
        if (i >= n_prompt)
            ck_assert_double_eq_tol(scores[i], result->choices[0].logprobs[i - n_prompt], 1e-3);
    }
    free(logits);
    cinf_ids_free(prompt);
    cinf_result_free(result);
}
END_TEST

START_TEST(prompt_events_carry_the_prompt)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Lily was \xC3\xA9 brave",
                                      .max_tokens = 3, .prompt_logprobs = true, .top_logprobs = 4 };
    struct cinf_request *r = submit(small, &o);
    char text[256] = "";
    uint32_t n_prompt, prompt_events = 0, token_events = 0;
    cinf_request_prompt(r, &n_prompt);
    for (;;) {
        struct cinf_event event = { CINF_EVENT };
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
        if (event.kind == CINF_EVENT_END)
            break;
        if (event.kind == CINF_EVENT_PROMPT) {
            ck_assert_uint_eq(token_events, 0);
            ck_assert_uint_eq(event.n_top, prompt_events ? 4 : 0);
            strcat(text, event.text);
            prompt_events++;
        } else if (event.kind == CINF_EVENT_TOKEN) {
            ck_assert_uint_eq(event.n_top, 4);
            ck_assert_int_eq(event.token, event.top[0].token);
            ck_assert_float_eq(event.logprob, event.top[0].logprob);
            token_events++;
        }
    }
    ck_assert_uint_eq(prompt_events, n_prompt);
    ck_assert_uint_eq(token_events, 3);
    ck_assert_str_eq(text, o.prompt);
    cinf_request_free(r);
}
END_TEST

START_TEST(the_context_ends_a_text_and_refuses_a_longer_prompt)
{
    int32_t ids[300];
    struct cinf_result *result;
    struct cinf_request *none = (struct cinf_request *)1;
    for (int i = 0; i < 300; i++)
        ids[i] = i % 200;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = ids, .n_prompt_ids = 250,
                                      .ignore_eos = true };
    ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
    ck_assert_uint_eq(result->choices[0].n_ids,
                      7); /* 6 that fit, and the one that follows the last position */
    ck_assert_int_eq(result->choices[0].finish, CINF_FINISH_LENGTH);
    cinf_result_free(result);
    o.n_prompt_ids = 256;
    ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
    ck_assert_uint_eq(result->choices[0].n_ids, 1);
    cinf_result_free(result);
    o.n_prompt_ids = 257;
    ck_fails(cinf_request_submit(&none, small, &o), CINF_ECONTEXT,
             "257 tokens; model stories-small has a context of 256");
    ck_assert_ptr_eq(none, (struct cinf_request *)1);
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.models[0].errors[CINF_ERROR_CONTEXT_LENGTH], 1);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(bad_options_are_refused_by_name)
{
    static const char *const long_stop[] = { "" };
    static const struct cinf_logit_bias bias = { 9999, 1 };
    static const int32_t id = 5000;
    const struct {
        struct cinf_request_options o;
        const char *words;
    } cases[] = {
        { { CINF_REQUEST_OPTIONS, .temperature = -1 }, "temperature is -1" },
        { { CINF_REQUEST_OPTIONS, .temperature = __builtin_nanf("") }, "temperature" },
        { { CINF_REQUEST_OPTIONS, .top_p = 1.5f }, "top_p" },
        { { CINF_REQUEST_OPTIONS, .min_p = -0.1f }, "min_p" },
        { { CINF_REQUEST_OPTIONS, .n = 65 }, "n is 65" },
        { { CINF_REQUEST_OPTIONS, .n = 17 }, "serves 16 requests concurrently" },
        { { CINF_REQUEST_OPTIONS, .n_stop = 17 }, "stop strings" },
        { { CINF_REQUEST_OPTIONS, .stop = long_stop, .n_stop = 1 }, "stop string 0 has 0 bytes" },
        { { CINF_REQUEST_OPTIONS, .top_logprobs = 21 }, "top_logprobs" },
        { { CINF_REQUEST_OPTIONS, .logit_bias = &bias, .n_logit_bias = 1 }, "token 9999" },
        { { CINF_REQUEST_OPTIONS, .prompt_ids = &id, .n_prompt_ids = 1 }, "token 0 of the prompt is 5000" },
        { { CINF_REQUEST_OPTIONS, .repetition_penalty = -1 }, "repetition_penalty" },
        { { .struct_size = 0 }, "struct_size" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cinf_request *none = (struct cinf_request *)1;
        ck_fails(cinf_request_submit(&none, small, &cases[i].o), CINF_EINVAL, cases[i].words);
        ck_assert_ptr_eq(none, (struct cinf_request *)1);
    }
}
END_TEST

START_TEST(a_repeated_prompt_is_copied_and_gives_the_same_text)
{
    struct cinf_result *first, *second;
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS,
                                      .prompt = "Once upon a time there was a big bear named Bruno",
                                      .max_tokens = 20 };
    ck_ok(cinf_generate(&first, small, &o, NULL, NULL));
    ck_ok(cinf_generate(&second, small, &o, NULL, NULL));
    ck_assert_uint_eq(first->report.cached_tokens, 0);
    ck_assert_uint_eq(second->report.cached_tokens, second->report.input_tokens - 1);
    ck_assert_uint_eq(second->report.input_tokens, first->report.input_tokens);
    ck_assert_str_eq(first->choices[0].text, second->choices[0].text);
    cinf_result_free(first);
    cinf_result_free(second);
}
END_TEST

/* On device cpu a request's logits do not depend on who else is in its steps: bit for bit. */
START_TEST(the_same_request_gives_the_same_numbers_in_any_company)
{
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    cinf_engine_device(engine, &device);
    if (strcmp(device.name, "cpu") != 0) {
        printf("skipped: %s does not promise it\n", device.name);
        return;
    }
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS,
                                      .prompt = "There was once a shy girl",
                                      .max_tokens = 40,
                                      .temperature = 1,
                                      .seed = 5,
                                      .logprobs = true };
    struct cinf_request_options other = { CINF_REQUEST_OPTIONS,
                                          .prompt = "Once upon a time, in a small house by the lake",
                                          .ignore_eos = true, .temperature = 1 };
    struct cinf_result *alone, *together;
    struct cinf_request *company[9];
    ck_ok(cinf_generate(&alone, small, &o, NULL, NULL));
    for (int i = 0; i < 9; i++) {
        other.seed = (uint64_t)i + 1;
        company[i] = submit(small, &other);
    }
    ck_ok(cinf_generate(&together, small, &o, NULL, NULL));
    ck_assert_uint_eq(together->choices[0].n_ids, alone->choices[0].n_ids);
    ck_assert_mem_eq(together->choices[0].logprobs, alone->choices[0].logprobs,
                     alone->choices[0].n_ids * sizeof(float));
    ck_assert_str_eq(together->choices[0].text, alone->choices[0].text);
    for (int i = 0; i < 9; i++)
        cinf_request_free(company[i]);
    cinf_result_free(alone);
    cinf_result_free(together);
}
END_TEST

/* ---- Ending ---------------------------------------------------------------------------------- */

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

/* Of requests that shall be paused: on a busy machine they would end before this thread runs again. */
enum { UNREAD = 20 };

/* Pulls up to the first token, and pauses. */
static void pause_after_a_token(struct cinf_request *r)
{
    struct cinf_event event = { CINF_EVENT };
    do
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
    while (event.kind != CINF_EVENT_TOKEN);
    cinf_request_pause(r, true);
    /* The step that was under way may still bring something. */
    while (cinf_request_next(r, 30000000, &event) == CINF_OK)
        ck_assert_int_eq(event.kind, CINF_EVENT_TOKEN);
}

static enum cinf_finish wait_for_end(struct cinf_request *r)
{
    struct cinf_event event = { CINF_EVENT };
    do
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
    while (event.kind != CINF_EVENT_END);
    return event.finish;
}

START_TEST(a_paused_request_keeps_its_slot_and_costs_nothing)
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
    /* Nobody else is there: the scheduler sleeps and the device is idle. */
    ck_assert_int_eq(cinf_request_next(r, 200000000, &event), CINF_EAGAIN);
    ck_assert_uint_lt(clock_process_cpu_ns() - cpu, 100000000);
    /* Others are served meanwhile. */
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
    cinf_request_pause(r, true); /* nothing, for one that has ended */
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
    cinf_request_free(r);            /* lets go of it without a word */
    ck_ok(cinf_model_unload(small)); /* which waits for whoever runs */
}
END_TEST

/* Waits until a request of which nothing is read has its first tokens and gets no more; how many it has. */
static uint32_t await_standstill(const struct cinf_request *r)
{
    const struct timespec a_while = { .tv_nsec = 100000000 };
    struct cinf_report now = { CINF_REPORT };
    for (uint32_t before = 0;; before = now.output_tokens) {
        nanosleep(&a_while, NULL);
        cinf_request_report(r, &now);
        if (now.output_tokens > 0 && now.output_tokens == before)
            return before;
    }
}

START_TEST(who_does_not_read_gets_no_more)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = (const int32_t[]){ 7, 8 },
                                      .n_prompt_ids = 2,    .max_tokens = 60,
                                      .ignore_eos = true,   .unread_max = 4 };
    struct cinf_event event = { CINF_EVENT };
    struct cinf_request *r = submit(small, &o);
    uint32_t n = await_standstill(r);
    ck_assert_uint_ge(n, 4);
    ck_assert_uint_lt(n, 4 + 16); /* a step may give several */
    /* Nobody else is there: the scheduler sleeps. */
    uint64_t cpu = clock_process_cpu_ns();
    const struct timespec a_while = { .tv_nsec = 200000000 };
    nanosleep(&a_while, NULL);
    ck_assert_uint_lt(clock_process_cpu_ns() - cpu, 100000000);
    /* It goes on when enough was read, and not before. */
    for (uint32_t i = 0; i < n - 4; i++)
        ck_ok(cinf_request_next(r, 0, &event));
    ck_assert_uint_eq(await_standstill(r), n);
    ck_ok(cinf_request_next(r, 0, &event));
    ck_assert_uint_gt(await_standstill(r), n);
    /* Others are served meanwhile, and the slot stays taken. */
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

    /* It can be cancelled, time out and be let go of. */
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

START_TEST(what_a_step_gives_is_taken_whole)
{
    /* More choices than the limit, and more tokens of the prompt. */
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

START_TEST(requests_wait_for_the_slots_of_paused_ones)
{
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS });
    ck_ok(cinf_model_load(&small, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "one",
                                                        .folder = folder_of("stories-small"), .slots = 1 }));
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 20,
                                      .ignore_eos = true };
    struct cinf_request_options endless = { CINF_REQUEST_OPTIONS, .prompt = "Once", .ignore_eos = true,
                                            .unread_max = UNREAD };
    struct cinf_request *first = submit(small, &endless);
    pause_after_a_token(first);
    struct cinf_request *second = submit(small, &o);
    struct cinf_event event = { CINF_EVENT };
    uint64_t cpu = clock_process_cpu_ns();
    ck_assert_int_eq(cinf_request_next(second, 200000000, &event), CINF_EAGAIN);
    ck_assert_uint_lt(clock_process_cpu_ns() - cpu, 100000000);
    o.timeout_ns = 50000000;
    struct cinf_request *third = submit(small, &o);
    ck_assert_int_eq(wait_for_end(third), CINF_FINISH_TIMEOUT);
    cinf_request_cancel(first, CINF_FINISH_TIMEOUT);
    ck_assert_int_eq(wait_for_end(first), CINF_FINISH_TIMEOUT);
    ck_assert_int_eq(wait_for_end(second), CINF_FINISH_LENGTH);
    cinf_request_free(first);
    cinf_request_free(second);
    cinf_request_free(third);
}
END_TEST

START_TEST(the_price_goes_by_the_kind_of_the_device)
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
    ck_ok(cinf_request_next(running, UINT64_MAX, &event)); /* it has its slot */
    waiting[0] = submit(small, &o);
    waiting[1] = submit(small, &o);
    ck_fails(cinf_request_submit(&none, small, &o), CINF_EFULL, "2 requests are waiting");
    /* A waiting one that is cancelled never ran and cost nothing. */
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

static void *unload_model(void *model)
{
    ck_assert_int_eq(cinf_model_unload(model), CINF_OK);
    return NULL;
}

START_TEST(unloading_drains_and_keeps_the_series)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .max_tokens = 100, .ignore_eos = true };
    struct cinf_request *r = submit(small, &o), *none = NULL;
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, unload_model, small), 0);
    enum cinf_status refused;
    do {
        refused = cinf_request_submit(&none, small, &o);
        if (refused == CINF_OK)
            cinf_request_free(none);
    } while (refused == CINF_OK || refused == CINF_EFULL);
    ck_assert_int_eq(refused, CINF_ECLOSED);
    char text[4096];
    enum cinf_finish finish;
    pull_text(r, text, sizeof text, &finish);
    ck_assert_int_eq(finish, CINF_FINISH_LENGTH);
    pthread_join(thread, NULL);
    cinf_request_free(r);

    struct cinf_model *found = NULL;
    ck_fails(cinf_model_find(&found, engine, "stories-small"), CINF_ENOTFOUND, "stories-small");
    ck_fails(cinf_model_unload(small), CINF_ECLOSED, "unloaded already");
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.n_models, 1);
    ck_assert(!s.models[0].loaded);
    uint64_t served = s.models[0].serve_ns;
    ck_assert_uint_gt(served, 0);
    cinf_snapshot_free(&s);

    cinf_model_release(small);
    load(&small, "stories-small");
    s = snapshot_now();
    ck_assert_uint_eq(s.n_models, 1);
    ck_assert(s.models[0].loaded);
    ck_assert_uint_eq(s.models[0].serve_ns, served);
    check_identities(&s);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(an_engine_closes_under_its_requests)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true };
    struct cinf_request *r[20];
    for (int i = 0; i < 20; i++)
        r[i] = submit(small, &o);
    cinf_engine_close(engine);
    for (int i = 0; i < 20; i++) {
        char text[4096];
        enum cinf_finish finish;
        pull_text(r[i], text, sizeof text, &finish);
        ck_assert_int_eq(finish, CINF_FINISH_CANCELLED);
        cinf_request_free(r[i]);
    }
    struct cinf_request *none = NULL;
    ck_fails(cinf_request_submit(&none, small, &o), CINF_ECLOSED, "stories-small");
    engine = NULL;
}
END_TEST

START_TEST(one_device_has_one_engine)
{
    struct cinf_engine *second = NULL;
    ck_fails(cinf_engine_open(&second, NULL), CINF_EBUSY, "");
    ck_assert_ptr_null(second);
}
END_TEST

START_TEST(names_and_folders_that_are_wrong_are_named)
{
    struct cinf_model *none = NULL;
    ck_fails(cinf_model_load(&none, engine,
                             &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = "/no/such" }),
             CINF_ENOTFOUND, "/no/such");
    ck_fails(cinf_model_load(&none, engine,
                             &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "stories-small",
                                                           .folder = folder_of("stories-small") }),
             CINF_EEXIST, "stories-small");
    ck_fails(cinf_model_load(&none, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS }), CINF_EINVAL,
             "folder");
    ck_fails(
        cinf_model_load(&none, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .shape = "gpt9" }),
        CINF_ENOTFOUND, "gpt9");
    ck_assert_ptr_null(none);
}
END_TEST

/* ---- The accounts under traffic --------------------------------------------------------------- */

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

/* Reads while everything runs: each snapshot must be whole. */
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
    /* A third model comes and goes meanwhile. */
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
    /* Overlap is what the familiar formula bills twice.  Load pieces and the other model's steps fall into a
     * request's latency too, so it over-counts even for few streams. */
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

/* A clock that goes on only when it is read, the same every time: how long a step takes does not depend on
 * the machine.  The scheduler stands still in it while the gate is closed. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    pthread_t tester;
    bool closed;
    uint64_t ns;
} ticks = { .lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER };

static uint64_t tick(void *context)
{
    (void)context;
    pthread_mutex_lock(&ticks.lock);
    while (ticks.closed && !pthread_equal(pthread_self(), ticks.tester))
        pthread_cond_wait(&ticks.opened, &ticks.lock);
    uint64_t now = ticks.ns += 1000000;
    pthread_mutex_unlock(&ticks.lock);
    return now;
}

static void set_gate(bool closed)
{
    pthread_mutex_lock(&ticks.lock);
    ticks.tester = pthread_self();
    ticks.closed = closed;
    pthread_cond_broadcast(&ticks.opened);
    pthread_mutex_unlock(&ticks.lock);
}

static void open_ticking_engine(void)
{
    open_engine(
        &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .no_speculation = true, .clock_ns = tick });
    load(&small, "stories-small");
}

static enum cinf_finish wait_for_end(struct cinf_request *r);

START_TEST(two_busy_models_get_the_same_share)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true, .max_tokens = 100 };
    struct cinf_request *r[8];
    struct cinf_report report[8];
    open_ticking_engine();
    load(&large, "stories-large");
    set_gate(true);
    for (int i = 0; i < 8; i++)
        r[i] = submit(i % 2 ? small : large, &o);
    set_gate(false);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(wait_for_end(r[i]), CINF_FINISH_LENGTH);
        report[i] = (struct cinf_report){ CINF_REPORT };
        cinf_request_report(r[i], &report[i]);
        cinf_request_free(r[i]);
    }
    /* Both have as many steps and all take as long, so they take turns to the end.  One after the other, the
     * first would be through in half the time. */
    for (int i = 1; i < 8; i++) {
        uint64_t a = report[0].latency_ns, b = report[i].latency_ns;
        ck_assert_msg((a > b ? a - b : b - a) < a / 20, "%llu against %llu ns", (unsigned long long)a,
                      (unsigned long long)b);
    }
}
END_TEST

START_TEST(keys_and_values_are_kept_as_asked)
{
    enum cinf_kv kv = CINF_KV_F16;
    ck_ok(cinf_kv_parse(&kv, "f32"));
    ck_assert_int_eq(kv, CINF_KV_F32);
    ck_ok(cinf_kv_parse(&kv, "f16"));
    ck_assert_int_eq(kv, CINF_KV_F16);
    ck_fails(cinf_kv_parse(&kv, "int8"), CINF_EINVAL, "\"int8\"; expected f32 or f16");
    ck_assert_int_eq(kv, CINF_KV_F16);
    ck_assert_str_eq(cinf_kv_name(CINF_KV_F16), "f16");
    ck_assert_str_eq(cinf_kv_name((enum cinf_kv)2), "unknown");

    struct cinf_engine *none = NULL;
    struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = "cpu-reference", .kv = CINF_KV_F16 };
    ck_fails(cinf_engine_open(&none, &o), CINF_EUNSUPPORTED, "cpu-reference");
    o.kv = (enum cinf_kv)2;
    ck_fails(cinf_engine_open(&none, &o), CINF_EINVAL, "kv is 2");
    ck_assert_ptr_null(none);

    for (int half = 0; half < 2; half++) {
        struct cinf_device_info device = { CINF_DEVICE_INFO };
        open_engine(
            &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu", .kv = (enum cinf_kv)half });
        cinf_engine_device(engine, &device);
        ck_assert_int_eq(device.kv, half);
        teardown();
    }
}
END_TEST

/* Who wants log-probabilities gets all logits computed; the likeliest alone are found with fewer, and are the
 * same. */
START_TEST(a_text_is_the_same_whether_all_logits_are_computed)
{
    enum {
        PADDED = 300000, /* rows of tokens, so that the head is worth a scan; not for sampling */
        TOKENS = HAVE_DEMO_MODELS ? 40 : 10,
    };
    static const struct {
        float temperature;
        uint32_t top_k;
    } samplings[] = { { 0, 0 }, { 1, 40 }, { 0.7f, 3 }, { 1, 64 } };
    struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = "cpu" };
    struct cinf_model_info info = { CINF_MODEL_INFO };
    open_engine(&o);
    ck_ok(cinf_model_load(&small, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "padded",
                                                        .folder = tiny_model_padded(PADDED) }));
    cinf_model_info(small, &info);
    ck_assert_uint_gt(info.weight_bytes, (uint64_t)PADDED * TINY_D * 4);
    ck_assert_uint_eq(info.weight_bytes - info.greedy_bytes, (uint64_t)PADDED * TINY_D * 3);
    for (size_t i = 0; i < sizeof samplings / sizeof *samplings; i++) {
        struct cinf_result *results[2];
        for (int all = 0; all < 2; all++) {
            struct cinf_request_options request = { CINF_REQUEST_OPTIONS,
                                                    .prompt = "the",
                                                    .max_tokens = TOKENS,
                                                    .ignore_eos = true,
                                                    .temperature = samplings[i].temperature,
                                                    .top_k = samplings[i].top_k,
                                                    .n = 2,
                                                    .seed = 11,
                                                    .logprobs = all };
            ck_ok(cinf_generate(&results[all], small, &request, NULL, NULL));
            ck_assert_uint_eq(results[all]->n_choices, 2);
        }
        for (uint32_t c = 0; c < 2; c++) {
            const struct cinf_choice *best = &results[0]->choices[c], *all = &results[1]->choices[c];
            ck_assert_uint_eq(best->n_ids, TOKENS);
            ck_assert_uint_eq(all->n_ids, TOKENS);
            ck_assert_mem_eq(best->ids, all->ids, TOKENS * sizeof *all->ids);
            for (uint32_t k = 0; k < TOKENS; k++)
                ck_assert_int_lt(best->ids[k], TINY_SIZE);
        }
        cinf_result_free(results[0]);
        cinf_result_free(results[1]);
    }
}
END_TEST

/* ---- Memory ----------------------------------------------------------------------------------- */

static enum cinf_status open_once(const char *folder)
{
    struct cinf_engine *e = NULL;
    (void)folder;
    enum cinf_status status =
        cinf_engine_open(&e, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu-reference" });
    cinf_engine_close(e);
    return status;
}

static enum cinf_status load_and_generate_once(const char *folder)
{
    struct cinf_model *m = NULL;
    struct cinf_result *result = NULL;
    enum cinf_status status = cinf_model_load(
        &m, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .slots = 2, .folder = folder });
    if (status == CINF_OK) {
        static const char *const stop[] = { "qqq" };
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "ab",
                                          .max_tokens = 3,      .n = 2,
                                          .stop = stop,         .n_stop = 1,
                                          .top_logprobs = 2,    .prompt_logprobs = true };
        status = cinf_generate(&result, m, &o, NULL, NULL);
        cinf_model_unload(m);
    }
    cinf_result_free(result);
    cinf_model_release(m);
    return status;
}

/* Fails allocation 1, 2, 3 … until one run gets through; returns how many runs failed. */
static uint64_t sweep(enum cinf_status (*run)(const char *folder), const char *folder)
{
    uint64_t failures = 0;
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        enum cinf_status status = run(folder);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            ck_ok(status);
            return failures;
        }
        failures += status != CINF_OK;
    }
}

/* What the limit of a container's memory is, where a test has one. */
static char *memory_limit;

FILE *fopen(const char *path, const char *mode);
FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*real)(const char *, const char *);
    void *found = dlsym(RTLD_NEXT, "fopen");
    memcpy(&real, &found, sizeof real);
    return memory_limit && strcmp(path, "/sys/fs/cgroup/memory.max") == 0
               ? fmemopen(memory_limit, strlen(memory_limit), "r")
               : real(path, mode);
}

/* The memory that caches get by themselves is of what the process may have, not of what the machine has. */
START_TEST(caches_fit_into_a_container)
{
    char limit[] = "1048576\n", *folder = tiny_model();
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    struct cinf_model_info info = { CINF_MODEL_INFO };
    memory_limit = limit;
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu-reference" });
    memory_limit = NULL;
    cinf_engine_device(engine, &device);
    ck_assert_uint_eq(device.memory_total, 1048576);
    ck_ok(cinf_model_load(&small, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));
    cinf_model_info(small, &info);
    ck_assert_uint_eq(info.slots, 1048576 / 4 / 2 / (2 * TINY_P * TINY_D * sizeof(float)));
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    char *folder = tiny_model();
    uint64_t opening = sweep(open_once, folder);
    ck_assert_uint_gt(opening, 3);
    open_engine(NULL);
    uint64_t serving = sweep(load_and_generate_once, folder);
    ck_assert_uint_gt(serving, 50);
    struct cinf_snapshot s = snapshot_now();
    check_identities(&s);
    cinf_snapshot_free(&s);
    printf("%llu + %llu failed allocations survived\n", (unsigned long long)opening,
           (unsigned long long)serving);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("engine");
    TCase *t = tcase_create("engine");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    if (HAVE_DEMO_MODELS) {
        tcase_add_test(t, the_demo_models_write_what_they_should);
        tcase_add_test(t, stop_strings_end_the_text_before_them);
        tcase_add_test(t, a_stop_string_that_does_not_come_holds_nothing_back_for_ever);
        tcase_add_test(t, a_paused_request_keeps_its_slot_and_costs_nothing);
        tcase_add_test(t, a_paused_request_can_end);
        tcase_add_test(t, who_does_not_read_gets_no_more);
        tcase_add_test(t, what_a_step_gives_is_taken_whole);
    }
    tcase_add_test(t, a_lone_request_costs_its_latency);
    tcase_add_test(t, no_time_before_submission_is_a_requests_own);
    tcase_add_test(t, choices_are_independent_and_repeatable);
    tcase_add_test(t, logprobs_agree_with_scoring_and_with_raw_logits);
    tcase_add_test(t, prompt_events_carry_the_prompt);
    tcase_add_test(t, the_context_ends_a_text_and_refuses_a_longer_prompt);
    tcase_add_test(t, bad_options_are_refused_by_name);
    tcase_add_test(t, a_repeated_prompt_is_copied_and_gives_the_same_text);
    tcase_add_test(t, the_same_request_gives_the_same_numbers_in_any_company);
    tcase_add_test(t, every_way_to_end_is_billed);
    tcase_add_test(t, a_deadline_ends_a_request);
    tcase_add_test(t, unloading_drains_and_keeps_the_series);
    tcase_add_test(t, an_engine_closes_under_its_requests);
    tcase_add_test(t, one_device_has_one_engine);
    tcase_add_test(t, names_and_folders_that_are_wrong_are_named);
    tcase_add_loop_test(t, overlapping_requests_add_up_to_the_machines_time, 0, 3);
    tcase_add_test(t, a_price_change_applies_from_its_moment_on);
    suite_add_tcase(s, t);
    t = tcase_create("engines of their own");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, NULL, teardown);
    if (HAVE_DEMO_MODELS) {
        tcase_add_test(t, the_reference_device_writes_the_same);
        tcase_add_test(t, two_busy_models_get_the_same_share);
        tcase_add_test(t, the_price_goes_by_the_kind_of_the_device);
        tcase_add_test(t, requests_wait_for_the_slots_of_paused_ones);
    }
    tcase_add_test(t, a_full_queue_refuses);
    tcase_add_test(t, keys_and_values_are_kept_as_asked);
    tcase_add_test(t, a_text_is_the_same_whether_all_logits_are_computed);
    tcase_add_test(t, the_cpu_basis_conserves_cpu_time);
    tcase_add_test(t, caches_fit_into_a_container);
    tcase_add_test(t, every_failed_allocation_is_survived);
    suite_add_tcase(s, t);
    return s;
}
