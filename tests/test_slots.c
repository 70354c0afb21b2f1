/* Which slots prompts are given, and which of them keep their keys and values. */
#include "support.h"

#include <string.h>

#include <costinfer/costinfer.h>

#include "engine_state.h"
#include "tiny_model.h"

/* Returns how many slots hold tokens after requests with these prompts, one after the other; a prompt of NULL
 * is the text so far and one more letter. */
static uint32_t slots_used_by(const char *const *prompts, const char *const *payers, uint32_t n,
                              const struct cinf_engine_options *options, uint32_t *cached)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    ck_ok(cinf_engine_open(&engine, options));
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
                                                                  .ignore_eos = true,
                                                                  .payer = payers ? payers[i] : NULL }));
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

static uint32_t slots_used(const char *const *prompts, uint32_t n, bool no_prefix_reuse, uint32_t *cached)
{
    return slots_used_by(prompts, NULL, n,
                         &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu",
                                                        .no_prefix_reuse = no_prefix_reuse },
                         cached);
}

START_TEST(prompts_evict_what_cannot_be_reused_first)
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

START_TEST(a_continued_text_stays_in_its_slot)
{
    uint32_t cached;
    static const char *const dialogue[] = { "abcdefgh", "hgfedcba", NULL, NULL };
    ck_assert_uint_eq(slots_used(dialogue, 4, false, &cached), 2);
    ck_assert_uint_eq(cached, 8 + (2 + 1) + 1); /* the token sampled last has no keys and values yet */
    static const char *const again[] = { "abcdefgh", "abcdefgh" }; /* shares only its prefix: a copy */
    ck_assert_uint_eq(slots_used(again, 2, false, &cached), 2);
    ck_assert_uint_eq(cached, 7);
}
END_TEST

START_TEST(a_prefix_is_reused_by_the_payer_that_left_it)
{
    static const char *const same[] = { "abcdefgh", "abcdefgh" };
    static const struct {
        const char *payers[2];
        uint32_t cached, cached_when_shared;
    } cases[] = {
        { { "ann", "ann" }, 7, 7 }, { { "ann", "bob" }, 0, 7 },      { { NULL, "ann" }, 0, 7 },
        { { "ann", NULL }, 0, 7 },  { { NULL, "anonymous" }, 7, 7 }, { { "ann", "an" }, 0, 7 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = "cpu" };
        uint32_t cached;
        slots_used_by(same, cases[i].payers, 2, &o, &cached);
        ck_assert_uint_eq(cached, cases[i].cached);
        o.share_prefixes = true;
        slots_used_by(same, cases[i].payers, 2, &o, &cached);
        ck_assert_uint_eq(cached, cases[i].cached_when_shared);
    }
    /* Between two others of the first payer's, another's text continues in no slot of theirs. */
    static const char *const dialogue[] = { "abcdefgh", NULL, NULL };
    static const char *const others[] = { "ann", "bob", "ann" };
    uint32_t cached;
    ck_assert_uint_eq(slots_used_by(dialogue, others, 3,
                                    &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu" },
                                    &cached),
                      2);
    ck_assert_uint_eq(cached, 8 + 1);
}
END_TEST

START_TEST(a_slot_that_changes_hands_keeps_nothing)
{
    /* One slot: the second payer gets the one with the first's tokens. */
    struct cinf_engine *engine;
    struct cinf_model *model;
    ck_ok(cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu" }));
    ck_ok(cinf_model_load(
        &model, engine,
        &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = tiny_model(), .slots = 1 }));
    static const char *const payers[] = { "ann", "bob", "bob", "ann" };
    static const uint32_t cached[] = { 0, 0, 7, 0 };
    for (int i = 0; i < 4; i++) {
        struct cinf_result *result;
        ck_ok(cinf_generate(&result, model,
                            &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = "abcdefgh",
                                                            .max_tokens = 2, .payer = payers[i] },
                            NULL, NULL));
        ck_assert_uint_eq(result->report.cached_tokens, cached[i]);
        cinf_result_free(result);
    }
    cinf_model_release(model);
    cinf_engine_close(engine);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("slots");
    TCase *t = tcase_create("slots");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, prompts_evict_what_cannot_be_reused_first);
    tcase_add_test(t, a_continued_text_stays_in_its_slot);
    tcase_add_test(t, a_prefix_is_reused_by_the_payer_that_left_it);
    tcase_add_test(t, a_slot_that_changes_hands_keeps_nothing);
    suite_add_tcase(s, t);
    return s;
}
