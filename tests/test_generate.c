/* What the engine generates: the bundled models' texts, stop strings, choices, log-probabilities, limits. */
#include "engine_fixture.h"

#include <cjson/cJSON.h>

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

/* Pulls the text of a request's first choice, ignoring the prompt's events. */
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

START_TEST(text_held_back_for_a_stop_string_is_released_if_none_comes)
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
    uint32_t n_prompt, prompt_events = 0, token_events = 0, n_unlikely = 0;
    cinf_request_prompt(r, &n_prompt);
    for (;;) {
        struct cinf_event event = { CINF_EVENT };
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
        if (event.kind == CINF_EVENT_END)
            break;
        if (event.kind == CINF_EVENT_PROMPT) {
            ck_assert_uint_eq(token_events, 0);
            ck_assert_uint_eq(event.n_top, prompt_events ? 4 : 0);
            ck_assert_uint_eq(event.rank > 0, prompt_events > 0);
            for (uint32_t i = 0; i < event.n_top; i++)
                ck_assert_int_eq(event.top[i].token == event.token, event.rank == i + 1);
            n_unlikely += event.rank > 4;
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
    ck_assert_uint_gt(n_unlikely, 0);
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

/* Where `id` first stands in the sequence, or its length. */
static uint32_t first_of(int32_t id, const int32_t *ids, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && ids[i] != id)
        i++;
    return i;
}

/* Greedy, sampled from all logits, and from the top ones. */
static const struct cinf_request_options ways_to_sample[] = {
    { CINF_REQUEST_OPTIONS },
    { CINF_REQUEST_OPTIONS, .temperature = 1.2f, .seed = 5 },
    { CINF_REQUEST_OPTIONS, .temperature = 1.2f, .seed = 5, .top_k = 20, .n = 3 },
    { CINF_REQUEST_OPTIONS, .temperature = 1.2f, .seed = 5, .top_logprobs = 3, .repetition_penalty = 1.1f },
};
enum { N_WAYS = sizeof ways_to_sample / sizeof *ways_to_sample };

START_TEST(stop_token_ids_end_the_sequence_and_are_not_part_of_it)
{
    struct cinf_request_options o = ways_to_sample[_i];
    struct cinf_result *whole, *cut;
    o.prompt = "Once upon a time";
    o.max_tokens = 30;
    o.ignore_eos = true;
    ck_ok(cinf_generate(&whole, small, &o, NULL, NULL));
    const struct cinf_choice *w = &whole->choices[0];
    int32_t stops[] = { w->ids[20], w->ids[9] };
    uint32_t a = first_of(stops[0], w->ids, w->n_ids), b = first_of(stops[1], w->ids, w->n_ids);
    uint32_t n = a < b ? a : b;
    o.stop_token_ids = stops;
    o.n_stop_token_ids = 2;
    ck_ok(cinf_generate(&cut, small, &o, NULL, NULL));
    const struct cinf_choice *c = &cut->choices[0];
    ck_assert_int_eq(c->finish, CINF_FINISH_STOP);
    ck_assert_uint_eq(c->n_ids, n);
    ck_assert_mem_eq(c->ids, w->ids, n * sizeof *w->ids);
    ck_assert_mem_eq(c->text, w->text, c->text_bytes);
    if (cut->n_choices == 1) /* the id was sampled, so it is counted */
        ck_assert_uint_eq(cut->report.output_tokens, n + 1);
    cinf_result_free(whole);
    cinf_result_free(cut);
}
END_TEST

START_TEST(min_tokens_come_before_any_end)
{
    struct cinf_request_options o = ways_to_sample[_i];
    struct cinf_result *whole, *biased, *late;
    enum { MIN = 15 };
    o.prompt = "Once upon a time";
    o.max_tokens = MIN;
    o.ignore_eos = true;
    ck_ok(cinf_generate(&whole, small, &o, NULL, NULL));
    int32_t stops[2] = { whole->choices[0].ids[5], whole->choices[0].ids[9] };
    /* As if these tokens, and end-of-text, did not exist. */
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(small, &info);
    ck_assert_uint_eq(info.config.n_eos, 1);
    struct cinf_logit_bias bias[3] = { { stops[0], -100 }, { stops[1], -100 }, { info.config.eos[0], -100 } };
    o.logit_bias = bias;
    o.n_logit_bias = 3;
    ck_ok(cinf_generate(&biased, small, &o, NULL, NULL));
    o.n_logit_bias = 0;
    o.stop_token_ids = stops;
    o.n_stop_token_ids = 2;
    o.min_tokens = MIN;
    o.max_tokens = 200;
    o.ignore_eos = _i % 2 == 1;
    ck_ok(cinf_generate(&late, small, &o, NULL, NULL));
    for (uint32_t i = 0; i < late->n_choices; i++) {
        const struct cinf_choice *l = &late->choices[i];
        ck_assert_uint_ge(l->n_ids, MIN);
        ck_assert_mem_eq(l->ids, biased->choices[i].ids, MIN * sizeof *l->ids);
        for (uint32_t k = 0; k < l->n_ids; k++)
            ck_assert(l->ids[k] != stops[0] && l->ids[k] != stops[1]);
    }
    cinf_result_free(whole);
    cinf_result_free(biased);
    cinf_result_free(late);
}
END_TEST

START_TEST(min_tokens_hold_stop_strings_and_end_of_text_off)
{
    struct cinf_result *whole, *result;
    static const char *const stops[] = { " ", "." };
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once upon a time" };
    ck_ok(cinf_generate(&whole, small, &o, NULL, NULL));
    uint32_t n = whole->choices[0].n_ids;
    ck_assert_int_eq(whole->choices[0].finish, CINF_FINISH_STOP); /* the story ends */
    o.min_tokens = n + 20;
    ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
    ck_assert_uint_ge(result->choices[0].n_ids, n + 20);
    ck_assert_mem_eq(result->choices[0].ids, whole->choices[0].ids, n * sizeof(int32_t));
    ck_assert_int_ne(result->choices[0].ids[n], 0);
    cinf_result_free(result);
    /* The first stop string that ends behind so many tokens ends the text. */
    o.stop = stops;
    o.n_stop = 2;
    o.min_tokens = 10;
    ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
    ck_assert_int_eq(result->choices[0].finish, CINF_FINISH_STOP);
    ck_assert_uint_ge(result->report.output_tokens, 11);
    ck_assert_mem_eq(result->choices[0].text, whole->choices[0].text, result->choices[0].text_bytes);
    ck_assert_ptr_nonnull(strchr(result->choices[0].text, ' '));
    char next = whole->choices[0].text[result->choices[0].text_bytes];
    ck_assert(next == ' ' || next == '.');
    cinf_result_free(result);
    cinf_result_free(whole);
}
END_TEST

START_TEST(bad_options_are_refused_by_name)
{
    static const int32_t all_ids[TINY_SIZE + 5000];
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
        { { CINF_REQUEST_OPTIONS, .typical_p = 1.01f }, "typical_p is 1.01" },
        { { CINF_REQUEST_OPTIONS, .n = 65 }, "n is 65" },
        { { CINF_REQUEST_OPTIONS, .n = 17 }, "serves 16 requests concurrently" },
        { { CINF_REQUEST_OPTIONS, .n_stop = 17 }, "stop strings" },
        { { CINF_REQUEST_OPTIONS, .stop = long_stop, .n_stop = 1 }, "stop string 0 has 0 bytes" },
        { { CINF_REQUEST_OPTIONS, .top_logprobs = 21 }, "top_logprobs" },
        { { CINF_REQUEST_OPTIONS, .logit_bias = &bias, .n_logit_bias = 1 }, "token 9999" },
        { { CINF_REQUEST_OPTIONS, .prompt_ids = &id, .n_prompt_ids = 1 }, "token 0 of the prompt is 5000" },
        { { CINF_REQUEST_OPTIONS, .repetition_penalty = -1 }, "repetition_penalty" },
        { { CINF_REQUEST_OPTIONS, .max_tokens = 3, .min_tokens = 4 }, "min_tokens is 4 and max_tokens 3" },
        { { CINF_REQUEST_OPTIONS, .stop_token_ids = &id, .n_stop_token_ids = 1 },
          "stop_token_ids names token 5000" },
        { { CINF_REQUEST_OPTIONS, .stop_token_ids = all_ids, .n_stop_token_ids = TINY_SIZE + 5000 },
          "the number of stop_token_ids" },
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

/* On device cpu a request's logits do not depend on the other requests in its steps, bit for bit. */
START_TEST(a_requests_numbers_do_not_depend_on_the_others_in_its_steps)
{
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    cinf_engine_device(engine, &device);
    if (strcmp(device.name, "cpu") != 0) {
        printf("skipped: %s does not promise that\n", device.name);
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
    struct cinf_request *others[9];
    ck_ok(cinf_generate(&alone, small, &o, NULL, NULL));
    for (int i = 0; i < 9; i++) {
        other.seed = (uint64_t)i + 1;
        others[i] = submit(small, &other);
    }
    ck_ok(cinf_generate(&together, small, &o, NULL, NULL));
    ck_assert_uint_eq(together->choices[0].n_ids, alone->choices[0].n_ids);
    ck_assert_mem_eq(together->choices[0].logprobs, alone->choices[0].logprobs,
                     alone->choices[0].n_ids * sizeof(float));
    ck_assert_str_eq(together->choices[0].text, alone->choices[0].text);
    for (int i = 0; i < 9; i++)
        cinf_request_free(others[i]);
    cinf_result_free(alone);
    cinf_result_free(together);
}
END_TEST

/* With log-probabilities all logits are computed; without, the top logits are found with less work and must
 * be the same. */
START_TEST(a_text_is_the_same_whether_all_logits_are_computed)
{
    enum {
        PADDED = 300000, /* rows of tokens that are not sampled, so that the head is worth a scan */
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

Suite *suite(void)
{
    Suite *s = suite_create("generate");
    TCase *t = case_with_engine();
    if (HAVE_DEMO_MODELS) {
        tcase_add_test(t, the_demo_models_write_what_they_should);
        tcase_add_test(t, stop_strings_end_the_text_before_them);
        tcase_add_test(t, text_held_back_for_a_stop_string_is_released_if_none_comes);
        tcase_add_test(t, min_tokens_hold_stop_strings_and_end_of_text_off);
    }
    tcase_add_loop_test(t, stop_token_ids_end_the_sequence_and_are_not_part_of_it, 0, N_WAYS);
    tcase_add_loop_test(t, min_tokens_come_before_any_end, 0, N_WAYS);
    tcase_add_test(t, choices_are_independent_and_repeatable);
    tcase_add_test(t, logprobs_agree_with_scoring_and_with_raw_logits);
    tcase_add_test(t, prompt_events_carry_the_prompt);
    tcase_add_test(t, the_context_ends_a_text_and_refuses_a_longer_prompt);
    tcase_add_test(t, bad_options_are_refused_by_name);
    tcase_add_test(t, a_repeated_prompt_is_copied_and_gives_the_same_text);
    tcase_add_test(t, a_requests_numbers_do_not_depend_on_the_others_in_its_steps);
    suite_add_tcase(s, t);
    t = case_of_engines();
    if (HAVE_DEMO_MODELS) {
        tcase_add_test(t, the_reference_device_writes_the_same);
    }
    tcase_add_test(t, a_text_is_the_same_whether_all_logits_are_computed);
    suite_add_tcase(s, t);
    return s;
}
