/* Which slots the scheduler gives to texts, and what it does with a device's threads; the rest of it is
 * tested through the engine. */
#include "support.h"

#include <string.h>

#include <costinfer/costinfer.h>

#include "engine_state.h"
#include "tiny_model.h"

enum { REQUESTS = 9, CHOICES = 3, TOKENS = 12, TOP = 4 };

struct texts {
    uint32_t n;
    int32_t ids[REQUESTS][CHOICES][TOKENS], top[REQUESTS][CHOICES][TOKENS][TOP];
    float logprobs[REQUESTS][CHOICES][TOKENS];
};

static void read_all(struct texts *texts, uint32_t number, struct cinf_request *request)
{
    struct cinf_event event = { CINF_EVENT };
    uint32_t n[CHOICES] = { 0 };
    for (;;) {
        ck_ok(cinf_request_next(request, UINT64_MAX, &event));
        if (event.kind == CINF_EVENT_END)
            break;
        if (event.kind != CINF_EVENT_TOKEN)
            continue;
        uint32_t at = n[event.choice]++;
        texts->n++;
        texts->ids[number][event.choice][at] = event.token;
        for (uint32_t i = 0; i < event.n_top; i++)
            texts->top[number][event.choice][at][i] = event.top[i].token;
        if (event.n_top > 0)
            texts->logprobs[number][event.choice][at] = event.logprob;
    }
    ck_assert_int_eq(event.finish, CINF_FINISH_LENGTH);
    cinf_request_free(request);
}

static void run(struct texts *texts, const char *folder, uint32_t threads)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    struct cinf_request *requests[REQUESTS];
    ck_ok(cinf_engine_open(
        &engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu", .threads = threads }));
    ck_ok(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));
    for (uint32_t i = 0; i < REQUESTS; i++) {
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "ab", .max_tokens = TOKENS,
                                          .ignore_eos = true, .seed = i + 1 };
        o.n = i % 2 ? CHOICES : 1;
        o.temperature = i % 4 ? 1.5f : 0;
        o.top_p = i % 3 == 1 ? 0.9f : 0;
        o.min_p = i == 5 ? 0.01f : 0;
        o.repetition_penalty = i > 5 ? 1.3f : 0;
        o.logprobs = i % 3 == 0;
        o.top_logprobs = i % 3 == 0 ? TOP : 0;
        ck_ok(cinf_request_submit(&requests[i], model, &o));
    }
    for (uint32_t i = 0; i < REQUESTS; i++)
        read_all(texts, i, requests[i]);
    cinf_model_release(model);
    cinf_engine_close(engine);
}

/* How many slots hold tokens after texts with these prompts, one after the other; a prompt of NULL is the
 * text before and one letter more. */
static uint32_t slots_used(const char *const *prompts, uint32_t n, bool no_prefix_reuse, uint32_t *cached)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    ck_ok(cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu",
                                                                   .no_prefix_reuse = no_prefix_reuse }));
    ck_ok(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = tiny_model() }));
    int32_t ids[64];
    uint32_t n_ids = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (prompts[i]) {
            n_ids = (uint32_t)strlen(prompts[i]);
            for (uint32_t j = 0; j < n_ids; j++)
                ids[j] = prompts[i][j] - 'a';
        } else
            ids[n_ids++] = 0;
        struct cinf_request *request;
        ck_ok(cinf_request_submit(&request, model,
                                  &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt_ids = ids,
                                                                  .n_prompt_ids = n_ids, .max_tokens = 2,
                                                                  .ignore_eos = true }));
        struct cinf_event event = { CINF_EVENT };
        while (event.kind != CINF_EVENT_END) {
            ck_ok(cinf_request_next(request, UINT64_MAX, &event));
            if (event.kind == CINF_EVENT_TOKEN)
                ids[n_ids++] = event.token;
        }
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(request, &report);
        *cached = report.cached_tokens;
        cinf_request_free(request);
    }
    uint32_t used = 0;
    ck_assert_uint_gt(model->n_slots, n);
    for (uint32_t i = 0; i < model->n_slots; i++)
        used += model->slots[i].n_tokens > 0;
    cinf_model_release(model);
    cinf_engine_close(engine);
    return used;
}

START_TEST(texts_take_slots_that_hold_nothing_of_use)
{
    uint32_t cached;
    static const char *const different[] = { "abcdefgh", "bcdefgha", "cdefghab" };
    ck_assert_uint_eq(slots_used(different, 3, false, &cached), 3);
    ck_assert_uint_eq(slots_used(different, 3, true, &cached), 1);
    ck_assert_uint_eq(cached, 0);
    static const char *const shorter[] = { "ab", "bc", "cd" }; /* too short to be copied */
    ck_assert_uint_eq(slots_used(shorter, 3, false, &cached), 1);
}
END_TEST

START_TEST(a_text_goes_on_in_the_slot_where_it_ended)
{
    uint32_t cached;
    static const char *const dialogue[] = { "abcdefgh", "hgfedcba", NULL, NULL };
    ck_assert_uint_eq(slots_used(dialogue, 4, false, &cached), 2);
    ck_assert_uint_eq(cached, 8 + (2 + 1) + 1); /* the token sampled last was never computed with */
    static const char *const again[] = { "abcdefgh", "abcdefgh" }; /* its beginning alone: a copy */
    ck_assert_uint_eq(slots_used(again, 2, false, &cached), 2);
    ck_assert_uint_eq(cached, 7);
}
END_TEST

START_TEST(texts_do_not_depend_on_how_many_threads_choose)
{
    static struct texts alone, together;
    const char *folder = tiny_model_padded(TINY_SIZE + 5);
    run(&alone, folder, 1);
    run(&together, folder, 3);
    ck_assert_uint_eq(alone.n, (5 + 4 * CHOICES) * TOKENS);
    ck_assert_uint_eq(together.n, alone.n);
    ck_assert_mem_eq(alone.ids, together.ids, sizeof alone.ids);
    ck_assert_mem_eq(alone.top, together.top, sizeof alone.top);
    ck_assert_mem_eq(alone.logprobs, together.logprobs, sizeof alone.logprobs);
    ck_assert(memcmp(alone.ids[1][0], alone.ids[1][1], sizeof alone.ids[1][0]) != 0);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("scheduler");
    TCase *t = tcase_create("scheduler");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, texts_take_slots_that_hold_nothing_of_use);
    tcase_add_test(t, a_text_goes_on_in_the_slot_where_it_ended);
    tcase_add_test(t, texts_do_not_depend_on_how_many_threads_choose);
    suite_add_tcase(s, t);
    return s;
}
