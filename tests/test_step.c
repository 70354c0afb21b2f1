/* Steps whose tokens are sampled by several of the device's threads. */
#include "support.h"

#include <string.h>

#include <costinfer/costinfer.h>

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

START_TEST(texts_do_not_depend_on_how_many_threads_sample)
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
    Suite *s = suite_create("step");
    TCase *t = tcase_create("step");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, texts_do_not_depend_on_how_many_threads_sample);
    suite_add_tcase(s, t);
    return s;
}
