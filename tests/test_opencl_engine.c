/* The engine on an OpenCL device, with weights and caches of every type: sampling from the best logits that
 * the device picks gives what sampling from all logits gives, and the accounts add up. */
#include "opencl_suite.h"

#if CINF_HAVE_OPENCL
#include <costinfer/costinfer.h>
#include <math.h>

static const struct kind {
    enum cinf_weights weights;
    enum cinf_kv kv;
} kinds[] = {
    { CINF_WEIGHTS_F32, CINF_KV_F32 },
    { CINF_WEIGHTS_F16, CINF_KV_F16 },
    { CINF_WEIGHTS_INT8, CINF_KV_F32 },
    { CINF_WEIGHTS_INT8, CINF_KV_F16 },
};
enum { KINDS = sizeof kinds / sizeof *kinds, TOKENS = 24, TOP = 5 };

static struct cinf_engine *engine;
static struct cinf_model *model;

static void open_model(const char *device, const struct kind *kind)
{
    ck_ok(
        cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = device,
                                                                 .kv = kind->kv, .dollars_per_hour = "1" }));
    ck_ok(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){
                              CINF_MODEL_OPTIONS, .folder = support_source("examples/models/stories-small"),
                              .weights = kind->weights }));
}

/* Time served, loaded and idle adds up to the machine's time, exactly. */
static void close_model(void)
{
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
    ck_assert_uint_gt(s.serve_ns, 0);
    ck_assert_uint_eq(s.serve_ns + s.load_ns + s.idle_ns + s.lost_ns + s.overhead_ns, s.as_of_ns);
    ck_assert_uint_eq(cinf_cost_add(cinf_cost_add(s.serve_cost, s.load_cost), s.idle_cost).lo,
                      s.as_of_ns * 1000000000u);
    cinf_snapshot_free(&s);
    cinf_model_release(model);
    cinf_engine_close(engine);
}

/* A token's event, as far as it can be compared. */
struct told {
    int32_t token;
    float logprob;
    struct cinf_logprob top[TOP];
};

static uint32_t generate(struct told told[TOKENS], const struct cinf_request_options *options)
{
    struct cinf_request *request;
    struct cinf_event event = { CINF_EVENT };
    uint32_t n = 0;
    ck_ok(cinf_request_submit(&request, model, options));
    do {
        ck_ok(cinf_request_next(request, UINT64_MAX, &event));
        if (event.kind != CINF_EVENT_TOKEN)
            continue;
        told[n].token = event.token;
        told[n].logprob = event.logprob;
        ck_assert_uint_eq(event.n_top, options->top_logprobs);
        for (uint32_t i = 0; i < event.n_top; i++)
            told[n].top[i] = event.top[i];
        n++;
    } while (event.kind != CINF_EVENT_END);
    cinf_request_free(request);
    return n;
}

/* A bias of 0 changes no logit, but it makes the host read all of them. */
START_TEST(picks_change_nothing)
{
    static const struct cinf_logit_bias nothing = { 1, 0 };
    static const struct cinf_request_options ways[] = {
        { .temperature = 0 },
        { .temperature = 0, .logprobs = true, .top_logprobs = TOP },
        { .temperature = 1, .top_k = 40, .logprobs = true },
        { .temperature = 1.5f, .top_k = 64, .top_p = 0.9f, .logprobs = true, .top_logprobs = TOP },
        { .temperature = 0.8f, .top_k = 2, .min_p = 0.1f, .logprobs = true, .top_logprobs = TOP },
        { .temperature = 1, .top_k = 30, .typical_p = 0.8f },
    };
    open_model("opencl", &kinds[_i]);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct told picked[TOKENS], all[TOKENS];
        struct cinf_request_options o = ways[w];
        o.struct_size = sizeof o;
        o.prompt = "Once upon a time";
        o.max_tokens = TOKENS;
        o.ignore_eos = true;
        o.seed = 5 + w;
        ck_assert_uint_eq(generate(picked, &o), TOKENS);
        o.logit_bias = &nothing;
        o.n_logit_bias = 1;
        ck_assert_uint_eq(generate(all, &o), TOKENS);
        for (int i = 0; i < TOKENS; i++) {
            ck_assert_int_eq(picked[i].token, all[i].token);
            for (uint32_t t = 0; t < o.top_logprobs; t++) {
                ck_assert_int_eq(picked[i].top[t].token, all[i].top[t].token);
                ck_assert_float_eq_tol(picked[i].top[t].logprob, all[i].top[t].logprob, 1e-5f);
            }
            if (o.logprobs)
                ck_assert_float_eq_tol(picked[i].logprob, all[i].logprob, 1e-5f);
        }
    }
    close_model();
}
END_TEST

/* int8 weights equal the CPU's, which rounds rows of activations as well.  So a sequence may part from the
 * CPU's where two tokens are almost equally likely, and only there. */
START_TEST(int8_writes_as_on_the_cpu)
{
    static const char *const prompts[] = { "Once upon a time", "Lily was a brave little", "The dog" };
    enum { PROMPTS = sizeof prompts / sizeof *prompts };
    static struct told told[2][PROMPTS][TOKENS];
    uint32_t agreed = 0;
    for (int d = 0; d < 2; d++) {
        open_model(d ? "opencl" : "cpu", &kinds[2]);
        for (int p = 0; p < PROMPTS; p++)
            ck_assert_uint_eq(generate(told[d][p],
                                       &(struct cinf_request_options){
                                           CINF_REQUEST_OPTIONS, .prompt = prompts[p], .max_tokens = TOKENS,
                                           .ignore_eos = true, .logprobs = true, .top_logprobs = TOP }),
                              TOKENS);
        close_model();
    }
    for (int p = 0; p < PROMPTS; p++) {
        uint32_t i = 0;
        while (i < TOKENS && told[0][p][i].token == told[1][p][i].token)
            i++;
        agreed += i;
        if (i < TOKENS) {
            const struct cinf_logprob *top = told[0][p][i].top;
            ck_assert_msg(top[0].logprob - top[1].logprob < 0.1f, "\"%s\": token %u is %d, not %d, by %.3f",
                          prompts[p], i, told[1][p][i].token, told[0][p][i].token,
                          (double)(top[0].logprob - top[1].logprob));
        }
    }
    printf("int8: %u of %u tokens as on the CPU\n", agreed, PROMPTS * TOKENS);
    ck_assert_uint_gt(agreed, PROMPTS * TOKENS / 3);
}
END_TEST

/* The mean of -log p of a sequence's tokens. */
static double surprise(const int32_t *ids, uint32_t n)
{
    float *logprobs = calloc(n, sizeof *logprobs);
    double sum = 0;
    ck_ok(cinf_score(model, ids, n, logprobs, NULL));
    for (uint32_t i = 1; i < n; i++)
        sum -= (double)logprobs[i];
    free(logprobs);
    return sum / (n - 1);
}

START_TEST(every_type_scores_alike)
{
    static const char text[] =
        "Once upon a time there was a little girl who lived in a house near the sea. One "
        "day she found a small boat, and she was very happy.";
    int32_t *ids;
    size_t n;
    open_model("cpu-reference", &kinds[0]);
    ck_ok(cinf_tokenizer_encode(cinf_model_tokenizer(model), text, sizeof text - 1, 0, &ids, &n));
    double exact = surprise(ids, (uint32_t)n);
    close_model();
    for (int i = 0; i < KINDS; i++) {
        open_model("opencl", &kinds[i]);
        double found = surprise(ids, (uint32_t)n);
        double bound = kinds[i].weights == CINF_WEIGHTS_INT8 ? 2e-2
                       : kinds[i].kv == CINF_KV_F16          ? 2e-3
                                                             : 1e-5;
        ck_assert_msg(fabs(found - exact) < bound * exact, "%s, %s: %.6f, not %.6f",
                      cinf_weights_name(kinds[i].weights), cinf_kv_name(kinds[i].kv), found, exact);
        close_model();
    }
    cinf_ids_free(ids);
}
END_TEST
#endif

Suite *suite(void)
{
    TCase *t;
    Suite *s = opencl_suite("opencl_engine", &t, "", true);
#if CINF_HAVE_OPENCL
    tcase_add_loop_test(t, picks_change_nothing, 0, KINDS);
    tcase_add_test(t, int8_writes_as_on_the_cpu);
    tcase_add_test(t, every_type_scores_alike);
#endif
    return s;
}
