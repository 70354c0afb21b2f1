/* The sampler against its definition, evaluated the slow way. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "mem.h"
#include "sampler.h"

enum { V = 200 };

static struct sampler sampler;
static float logits[V];

static void setup(void)
{
    sampler = (struct sampler){ 0 };
    ck_ok(sampler_reserve(&sampler, V));
    for (int i = 0; i < V; i++)
        logits[i] = (float)(sampler_random(7, 0, (uint32_t)i) * 10 - 5);
}

static void teardown(void)
{
    sampler_free(&sampler);
}

static int32_t pick(const struct sampling *how, uint32_t choice, uint32_t position)
{
    int32_t *tokens = calloc(position + 1, sizeof *tokens);
    int32_t token = sampler_pick(&sampler, logits, V, NULL, how, choice, tokens, position, 0);
    free(tokens);
    return token;
}

/* The probabilities of the tokens that the options keep, by sorting everything. */
static int by_logit(const void *a, const void *b)
{
    float x = logits[*(const int *)a], y = logits[*(const int *)b];
    return x < y ? 1 : x > y ? -1 : *(const int *)a - *(const int *)b;
}

/* Of these probabilities, takes those whose surprise is nearest to the entropy, one after the other. */
static void keep_typical(double p[V], double typical_p)
{
    double entropy = 0, sum = 0, kept[V] = { 0 };
    for (int i = 0; i < V; i++)
        entropy -= p[i] > 0 ? p[i] * log(p[i]) : 0;
    while (sum < typical_p - 1e-12) {
        int nearest = -1;
        for (int i = 0; i < V; i++)
            if (p[i] > 0 && kept[i] == 0 &&
                (nearest < 0 || fabs(-log(p[i]) - entropy) < fabs(-log(p[nearest]) - entropy)))
                nearest = i;
        sum += kept[nearest] = p[nearest];
    }
    for (int i = 0; i < V; i++)
        p[i] = kept[i] / sum;
}

static void expected(double p[V], const struct sampling *how)
{
    int order[V];
    double e[V], total = 0, sum = 0, kept = 0;
    int k = how->top_k && how->top_k < V ? (int)how->top_k : V;
    for (int i = 0; i < V; i++)
        order[i] = i;
    qsort(order, V, sizeof *order, by_logit);
    for (int i = 0; i < k; i++)
        total += e[i] = exp((logits[order[i]] - logits[order[0]]) / (double)how->temperature);
    memset(p, 0, V * sizeof *p);
    for (int i = 0; i < k; i++) {
        bool in_p = how->top_p == 0 || how->top_p == 1 || sum < how->top_p * total || i == 0;
        sum += e[i];
        if (in_p && e[i] >= how->min_p) {
            p[order[i]] = e[i];
            kept += e[i];
        }
    }
    for (int i = 0; i < V; i++)
        p[i] /= kept;
    if (how->typical_p > 0 && how->typical_p < 1)
        keep_typical(p, how->typical_p);
}

/* Each token's frequency within five standard deviations, and nothing outside the set. */
static void check_draws(const double p[V], const struct sampling *how, uint32_t vocab, uint32_t n)
{
    int counts[V] = { 0 };
    const int32_t tokens[3] = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        /* The random number of position i, without a text of i tokens. */
        struct sampling with_seed = *how;
        with_seed.seed = i + 1;
        counts[sampler_pick(&sampler, logits, vocab, NULL, &with_seed, 0, tokens, 3, 0)]++;
    }
    for (uint32_t i = 0; i < vocab; i++) {
        double sd = sqrt(n * p[i] * (1 - p[i]));
        ck_assert_msg(p[i] > 0 || counts[i] == 0, "token %u was excluded, but drawn %d times", i, counts[i]);
        ck_assert_msg(fabs(counts[i] - n * p[i]) <= 5 * sd + 1, "token %u: %d draws, %.1f expected", i,
                      counts[i], n * p[i]);
    }
}

static void check_distribution(const struct sampling *how)
{
    double p[V];
    expected(p, how);
    check_draws(p, how, V, 20000);
}

START_TEST(draws_follow_the_distribution)
{
    static const struct sampling cases[] = {
        { .temperature = 1 },
        { .temperature = 0.5f },
        { .temperature = 2, .top_k = 10 },
        { .temperature = 1, .top_p = 0.7f },
        { .temperature = 1, .top_p = 0.0001f },
        { .temperature = 1, .min_p = 0.2f },
        { .temperature = 1.5f, .top_k = 30, .top_p = 0.9f },
        { .temperature = 1.5f, .top_k = 50, .top_p = 0.95f, .min_p = 0.1f },
        { .temperature = 1, .top_k = V + 5 },
        { .temperature = 1, .typical_p = 0.3f },
        { .temperature = 1.5f, .typical_p = 0.95f },
        { .temperature = 1, .typical_p = 1e-6f },
        { .temperature = 1.5f, .min_p = 0.05f, .typical_p = 0.6f },
        { .temperature = 2, .top_k = V + 5, .typical_p = 0.6f },
        { .temperature = 1.5f, .top_k = 50, .top_p = 0.95f, .min_p = 0.1f, .typical_p = 0.7f },
    };
    check_distribution(&cases[_i]);
}
END_TEST

static float number_of(const cJSON *object, const char *name)
{
    return (float)json_member(object, name)->valuedouble;
}

/* What transformers keeps, and with which probabilities (tests/golden/make_typical_p.py).  The definition of
 * this file must agree to their last digit, and the sampler must draw accordingly. */
START_TEST(typical_p_is_that_of_transformers)
{
    char *text;
    size_t n;
    uint32_t n_cases = 0, n_without_best = 0;
    cJSON *tree;
    ck_ok(file_load(&text, &n, support_source("tests/golden/typical_p.json"), 1 << 20));
    ck_ok(json_parse(&tree, text, n, NULL));
    mem_free(text);
    const cJSON *one, *item;
    cJSON_ArrayForEach(one, json_member(tree, "cases"))
    {
        struct sampling how = { .temperature = number_of(one, "temperature"),
                                .top_k = (uint32_t)number_of(one, "top_k"),
                                .top_p = number_of(one, "top_p"),
                                .min_p = number_of(one, "min_p"),
                                .typical_p = number_of(one, "typical_p") };
        uint32_t vocab = 0;
        double p[V] = { 0 }, own[V];
        for (int i = 0; i < V; i++)
            logits[i] = -1e30f;
        cJSON_ArrayForEach(item,
                           cJSON_GetArrayItem(json_member(tree, "logits"), (int)number_of(one, "logits")))
            logits[vocab++] = (float)item->valuedouble;
        cJSON_ArrayForEach(item, json_member(one, "p")) p[atoi(item->string)] = item->valuedouble;
        expected(own, &how);
        for (int i = 0; i < V; i++)
            ck_assert_msg((p[i] > 0) == (own[i] > 0) && fabs(p[i] - own[i]) < 3e-7,
                          "case %u: token %d has %.9g, not %.9g", n_cases, i, own[i], p[i]);
        check_draws(p, &how, vocab, 3000);
        how.top_k = 1;
        n_without_best += p[pick(&how, 0, 0)] == 0;
        n_cases++;
    }
    ck_assert_uint_gt(n_cases, 100);
    ck_assert_uint_gt(n_without_best, 10);
    cJSON_Delete(tree);
}
END_TEST

START_TEST(greedy_takes_the_largest_and_the_smallest_id_among_equals)
{
    struct sampling how = { .temperature = 0 };
    logits[17] = logits[150] = 9;
    ck_assert_int_eq(pick(&how, 0, 0), 17);
    how = (struct sampling){ .temperature = 1, .top_k = 1, .seed = 3 };
    ck_assert_int_eq(pick(&how, 0, 0), 17);
}
END_TEST

START_TEST(the_same_seed_gives_the_same_token_and_choices_differ)
{
    struct sampling how = { .temperature = 1, .seed = 42 };
    int differ_by_choice = 0, differ_by_position = 0;
    for (uint32_t i = 0; i < 50; i++) {
        ck_assert_int_eq(pick(&how, i, 5), pick(&how, i, 5));
        differ_by_choice += pick(&how, i, 5) != pick(&how, i + 1, 5);
        differ_by_position += pick(&how, 0, i) != pick(&how, 0, i + 1);
    }
    ck_assert_int_gt(differ_by_choice, 25);
    ck_assert_int_gt(differ_by_position, 25);
}
END_TEST

START_TEST(penalties_and_biases_change_the_logits_as_defined)
{
    /* Prompt: 3; generated: 5, 5, 6. */
    int32_t tokens[] = { 3, 5, 5, 6 };
    for (int i = 0; i < V; i++)
        logits[i] = -10;
    struct sampling how = { .repetition_penalty = 2 };

    /* Repetition: positive logits divided, negative multiplied, once a token, prompt included. */
    logits[3] = 4, logits[5] = 5, logits[6] = 6, logits[7] = 2.9f;
    ck_assert_int_eq(sampler_pick(&sampler, logits, V, NULL, &how, 0, tokens, 4, 1), 6);
    logits[7] = 3.1f;
    ck_assert_int_eq(sampler_pick(&sampler, logits, V, NULL, &how, 0, tokens, 4, 1), 7);
    logits[3] = -1, logits[5] = -1, logits[6] = -1, logits[7] = -1.9f;
    ck_assert_int_eq(sampler_pick(&sampler, logits, V, NULL, &how, 0, tokens, 4, 1), 7);

    /* Presence and frequency: generated tokens only. */
    how = (struct sampling){ .presence_penalty = 1, .frequency_penalty = 0.5f };
    logits[3] = 0, logits[5] = 3, logits[6] = 2.4f, logits[7] = 0.95f; /* 5: 3-1-1 = 1; 6: 2.4-1.5 = 0.9 */
    ck_assert_int_eq(sampler_pick(&sampler, logits, V, NULL, &how, 0, tokens, 4, 1), 5);
    logits[7] = 1.05f;
    ck_assert_int_eq(sampler_pick(&sampler, logits, V, NULL, &how, 0, tokens, 4, 1), 7);
    logits[3] = 1.1f;
    ck_assert_int_eq(sampler_pick(&sampler, logits, V, NULL, &how, 0, tokens, 4, 1), 3);

    struct cinf_logit_bias bias[] = { { 100, 50 }, { 3, -100 } };
    how = (struct sampling){ .bias = bias, .n_bias = 2 };
    ck_assert_int_eq(sampler_pick(&sampler, logits, V, NULL, &how, 0, tokens, 4, 1), 100);
}
END_TEST

START_TEST(the_callers_logits_are_not_changed)
{
    float before[V];
    struct cinf_logit_bias bias = { 1, 5 };
    struct sampling how = { .temperature = 1, .bias = &bias, .n_bias = 1, .presence_penalty = 1 };
    memcpy(before, logits, sizeof before);
    pick(&how, 0, 9);
    ck_assert_mem_eq(before, logits, sizeof before);
}
END_TEST

START_TEST(ids_that_are_not_allowed_are_never_picked)
{
    uint8_t allowed[V / 8 + 1] = { 0 };
    allowed[40 / 8] |= 1u << 40 % 8;
    logits[40] = -50;
    for (uint32_t seed = 1; seed < 100; seed++) {
        struct sampling how = { .temperature = seed % 2 ? 1 : 0, .seed = seed };
        ck_assert_int_eq(sampler_pick(&sampler, logits, V, allowed, &how, 0, NULL, 0, 0), 40);
    }
}
END_TEST

START_TEST(broken_logits_are_reported)
{
    struct sampling how = { .temperature = 1, .seed = 1 };
    for (int i = 0; i < V; i++)
        logits[i] = NAN;
    ck_assert_int_eq(pick(&how, 0, 0), -1);
    how.temperature = 0;
    ck_assert_int_eq(pick(&how, 0, 0), -1);
    logits[9] = 1;
    ck_assert_int_eq(pick(&how, 0, 0), 9);
}
END_TEST

START_TEST(logprobs_are_the_log_softmax)
{
    double sum = 0;
    for (int i = 0; i < V; i++)
        sum += exp(logits[i]);
    float logprob;
    struct cinf_logprob top[5];
    sampler_logprobs(&sampler, logits, V, 33, &logprob, top, 5);
    ck_assert_double_eq_tol(logprob, logits[33] - log(sum), 1e-5);
    double p[V];
    struct sampling how = { .temperature = 1, .top_k = 5 };
    expected(p, &how);
    for (int i = 0; i < 5; i++) {
        ck_assert_double_gt(p[top[i].token], 0);
        ck_assert_double_eq_tol(top[i].logprob, logits[top[i].token] - log(sum), 1e-5);
        ck_assert(i == 0 || top[i].logprob <= top[i - 1].logprob);
    }
}
END_TEST

START_TEST(random_numbers_are_uniform)
{
    enum { N = 100000, BINS = 20 };
    int bins[BINS] = { 0 };
    double sum = 0;
    for (uint32_t i = 0; i < N; i++) {
        double u = sampler_random(1, i % 7, i);
        ck_assert(u >= 0 && u < 1);
        sum += u;
        bins[(int)(u * BINS)]++;
    }
    ck_assert_double_eq_tol(sum / N, 0.5, 0.005);
    for (int i = 0; i < BINS; i++)
        ck_assert_int_lt(abs(bins[i] - N / BINS), 400);
}
END_TEST

/* The n largest logits of allowed ids, and the log-sum a device returns with them, from the full row. */
static void best_of(struct top_k *out, uint32_t n, const float *all, uint32_t vocab, const uint8_t *allowed)
{
    bool taken[V] = { false };
    double max = -INFINITY, sum = 0;
    out->n = 0;
    for (uint32_t k = 0; k < n; k++) {
        int best = -1;
        for (uint32_t i = 0; i < vocab; i++) {
            bool may = !taken[i] && all[i] < INFINITY && (!allowed || (allowed[i / 8] >> i % 8 & 1));
            if (may && (best < 0 || all[i] > all[best]))
                best = (int)i;
        }
        if (best < 0)
            break;
        taken[best] = true;
        out->ids[out->n] = best;
        out->logits[out->n++] = all[best];
    }
    for (uint32_t i = 0; i < vocab; i++)
        max = (double)all[i] > max ? (double)all[i] : max;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)all[i] - max);
    out->log_sum = max + log(sum);
}

/* For any logits, with ties and NaNs among them, and any options: the token sampled from the top logits is
 * the one sampled from all of them. */
START_TEST(the_top_logits_are_enough)
{
    static const float odd[] = { 0, 1, 1, 2, -INFINITY, INFINITY, NAN, -0.0f };
    static const float shares[] = { 0, 1e-6f, 0.05f, 0.3f, 0.9f, 1 };
    uint32_t n_picks = 0, n_differ = 0;
    for (uint32_t trial = 0; trial < 20000; trial++) {
        uint32_t at = 0;
#define RANDOM(n) ((uint32_t)(sampler_random(99, trial, at++) * (n)))
        float all[V];
        uint8_t allowed[V / 8];
        uint32_t vocab = trial % 3 ? 1 + RANDOM(V) : V, kind = RANDOM(5);
        for (uint32_t i = 0; i < vocab; i++) {
            float x = (float)(sampler_random(98, trial, i) * 8 - 4);
            all[i] = kind == 0                     ? odd[RANDOM(8)]
                     : kind == 1                   ? rintf(x)
                     : kind == 2 && RANDOM(9) == 0 ? NAN
                                                   : x;
        }
        for (uint32_t i = 0; i < V / 8; i++)
            allowed[i] = (uint8_t)RANDOM(256);
        const uint8_t *only = RANDOM(2) ? allowed : NULL;
        struct sampling how = { .seed = trial };
        how.temperature = RANDOM(6) ? 0.1f + (float)RANDOM(30) / 10 : 0;
        how.top_k = RANDOM(2) ? 1 + RANDOM(64) : 1 + RANDOM(5);
        how.top_p = shares[RANDOM(6)];
        how.min_p = shares[RANDOM(6)];
        how.typical_p = RANDOM(2) ? shares[RANDOM(6)] : 0;
        uint32_t needs = sampler_needs(&how, 0);
        ck_assert_uint_eq(needs, how.temperature <= 0 || how.top_k == 1 ? 1 : how.top_k + 1);
        struct top_k best;
        uint32_t more = trial % 2 ? 0 : RANDOM(TOP_K_MAX - needs + 1);
        best_of(&best, needs + more, all, vocab, only);
        for (uint32_t choice = 0; choice < 3; choice++) {
            int32_t token = sampler_pick(&sampler, all, vocab, only, &how, choice, NULL, trial, 0);
            int32_t again = sampler_pick_best(&sampler, &best, &how, choice, trial);
            ck_assert_msg(token == again, "trial %u: %d of all, %d of the %u best", trial, token, again,
                          best.n);
            n_picks++;
            n_differ += best.n > 0 && token != best.ids[0];
        }
#undef RANDOM
    }
    ck_assert_uint_gt(n_differ, n_picks / 5);
}
END_TEST

START_TEST(options_that_need_every_logit)
{
    const struct cinf_logit_bias bias = { 1, 0 };
    const struct sampling how[] = {
        { .temperature = 1 },
        { .temperature = 1, .top_p = 0.9f },
        { .temperature = 1, .typical_p = 0.9f },
        { .temperature = 1, .top_k = TOP_K_MAX },
        { .bias = &bias, .n_bias = 1 },
        { .repetition_penalty = 1.1f },
        { .presence_penalty = 0.1f, .top_k = 5 },
        { .frequency_penalty = -0.1f, .top_k = 1 },
    };
    for (size_t i = 0; i < sizeof how / sizeof *how; i++)
        ck_assert_uint_eq(sampler_needs(&how[i], 0), 0);
    ck_assert_uint_eq(sampler_needs(&(struct sampling){ .temperature = 1, .top_k = TOP_K_MAX - 1 }, 0),
                      TOP_K_MAX);
    ck_assert_uint_eq(sampler_needs(&(struct sampling){ .repetition_penalty = 1 }, 0), 1);
    /* The best logits may be those of ids that must not be sampled yet. */
    const struct sampling goes_on = { .end_ids = (const int32_t[]){ 1 }, .n_end_ids = 1, .min_tokens = 3 };
    ck_assert_uint_eq(sampler_needs(&goes_on, 2), 0);
    ck_assert_uint_eq(sampler_needs(&goes_on, 3), 1);
}
END_TEST

START_TEST(logprobs_of_the_top_logits)
{
    struct top_k best;
    struct cinf_logprob all_top[20], top[20];
    float all_logprob, logprob;
    best_of(&best, 20, logits, V, NULL);
    for (int i = 0; i < 20; i++) {
        sampler_logprobs(&sampler, logits, V, best.ids[i], &all_logprob, all_top, 20);
        sampler_logprobs_best(&best, best.ids[i], &logprob, top, (uint32_t)i);
        ck_assert_float_eq_tol(logprob, all_logprob, 1e-6f);
        for (int k = 0; k < i; k++) {
            ck_assert_int_eq(top[k].token, all_top[k].token);
            ck_assert_float_eq_tol(top[k].logprob, all_top[k].logprob, 1e-6f);
        }
    }
}
END_TEST

/* ---- Against sorting everything ------------------------------------------------------------ */

enum { LARGE = 50257 };

/* One call of sampler_pick(). */
struct pick_case {
    float *all; /* [vocab] */
    uint32_t vocab;
    const uint8_t *allowed;
    struct sampling how;
    int32_t tokens[40];
    uint32_t n_tokens, n_prompt;
};

struct sorted {
    float logit;
    double weight;
    int32_t id;
};

static int best_first(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    return x->logit > y->logit ? -1 : x->logit < y->logit ? 1 : x->id - y->id;
}

static int last_first(const void *a, const void *b)
{
    return ((const struct sorted *)b)->id - ((const struct sorted *)a)->id;
}

/* A logit after biases and penalties, by counting. */
static float modified(const struct pick_case *c, int32_t id)
{
    uint32_t seen = 0, generated = 0;
    float x = c->all[id];
    for (uint32_t i = 0; i < c->how.n_bias; i++)
        x += c->how.bias[i].token == id ? c->how.bias[i].bias : 0;
    for (uint32_t i = 0; i < c->n_tokens; i++) {
        seen += c->tokens[i] == id;
        generated += c->tokens[i] == id && i >= c->n_prompt;
    }
    if (seen > 0 && c->how.repetition_penalty > 0)
        x = x > 0 ? x / c->how.repetition_penalty : x * c->how.repetition_penalty;
    for (uint32_t i = 0; i < generated; i++)
        x -= c->how.frequency_penalty + (i == 0 ? c->how.presence_penalty : 0);
    return x;
}

/* The sampler's own weights if `exact`; otherwise exp() in double. */
static void weigh(struct sorted *c, uint32_t n, float temperature, bool exact)
{
    for (uint32_t i = 0; i < n; i += SCAN_BLOCK) {
        float x[SCAN_BLOCK], weights[SCAN_BLOCK];
        uint32_t end = n - i < SCAN_BLOCK ? n - i : SCAN_BLOCK;
        for (uint32_t k = 0; k < end; k++)
            x[k] = c[i + k].logit;
        if (exact)
            sampler_scan_at(0)->weights(weights, x, end,
                                        &(struct weighing){ c[0].logit, temperature, -INFINITY });
        for (uint32_t k = 0; k < end; k++)
            c[i + k].weight = exact ? (double)weights[k] : exp(((double)x[k] - c[0].logit) / temperature);
    }
}

static bool has_typical(const struct sampling *how)
{
    return how->typical_p > 0 && how->typical_p < 1;
}

/* Sorts n tokens, the most likely first, by how typical they are, and returns how many typical_p keeps. */
static uint32_t cut_typical(struct sorted *out, uint32_t n, const struct sampling *how)
{
    double total = 0, mean = 0, sum = 0;
    float best = out[0].logit;
    uint32_t n_kept = 0;
    while (n > 1 && out[n - 1].weight == 0)
        n--;
    for (uint32_t i = 0; i < n; i++) {
        total += out[i].weight;
        mean += out[i].weight * ((double)best - out[i].logit) / how->temperature;
    }
    for (uint32_t i = 0; i < n; i++)
        out[i].logit = (float)-fabs(((double)best - out[i].logit) / how->temperature - mean / total);
    qsort(out, n, sizeof *out, best_first);
    while (sum < how->typical_p * total)
        sum += out[n_kept++].weight;
    return n_kept;
}

/* Sorts the allowed tokens and cuts them as request.h says; returns how many remain, in the order in which
 * the token is drawn: that of the last cut that needs one, or from the last id. */
static uint32_t cut(struct sorted *out, const struct pick_case *c, bool exact)
{
    uint32_t n = 0, n_kept = 0;
    for (uint32_t i = 0; i < c->vocab; i++) {
        float x = modified(c, (int32_t)i);
        if (isfinite(x) && (!c->allowed || (c->allowed[i / 8] >> i % 8 & 1)))
            out[n++] = (struct sorted){ x, 0, (int32_t)i };
    }
    if (n == 0)
        return 0;
    qsort(out, n, sizeof *out, best_first);
    if (c->how.temperature <= 0 || c->how.top_k == 1)
        return 1;
    weigh(out, n, c->how.temperature, exact);
    bool cut_p = c->how.top_p > 0 && c->how.top_p < 1;
    float floor = c->how.min_p > 0 ? out[0].logit + c->how.temperature * logf(c->how.min_p) : -INFINITY;
    while (!cut_p && n > 1 && out[n - 1].logit < floor)
        n--;
    uint32_t k = c->how.top_k > 0 && c->how.top_k < n ? c->how.top_k : n;
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < k; i++)
        total += out[i].weight;
    while (n_kept < k && (!cut_p || sum < c->how.top_p * total) && out[n_kept].logit >= floor)
        sum += out[n_kept++].weight;
    if (has_typical(&c->how))
        return cut_typical(out, n_kept, &c->how);
    if (k == n && !cut_p)
        qsort(out, n_kept, sizeof *out, last_first);
    return n_kept;
}

static double total_of(const struct sorted *c, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i].weight;
    return sum;
}

/* The token must be where the random number is in the distribution computed in double, up to the rounding of
 * the sampler's weights.  Not for typical_p: there rounding may swap tokens of the order. */
static void check_place(struct sorted *sorted, const struct pick_case *c, int32_t token, double random)
{
    struct pick_case less = *c, more = *c;
    uint32_t n = cut(sorted, c, false), at = 0;
    double error = 4e-6 + c->vocab * 0x1p-36, all = total_of(sorted, n), least = all, most = all, before = 0;
    if (c->how.top_p > 0 && c->how.top_p < 1) {
        less.how.top_p = (float)(c->how.top_p * (1 - error));
        more.how.top_p = fminf((float)(c->how.top_p * (1 + error)), 1 - FLT_EPSILON / 2);
        least = total_of(sorted, cut(sorted, &less, false));
        n = cut(sorted, &more, false);
        most = total_of(sorted, n);
    }
    for (; at < n && sorted[at].id != token; at++)
        before += sorted[at].weight;
    ck_assert_msg(at < n, "token %d of %u is not among the %u that are left", token, c->vocab, n);
    ck_assert_double_le(before, random * most + error * most);
    ck_assert_double_ge(before + sorted[at].weight, random * least - error * most);
}

/* Every version of the loops must give exactly the token that sorting gives. */
static void check_pick(struct sorted *sorted, const struct pick_case *c, uint32_t choice)
{
    uint32_t n = cut(sorted, c, true);
    double random = sampler_random(c->how.seed, choice, c->n_tokens), mark = random * total_of(sorted, n);
    double sum = 0;
    int32_t right = -1;
    for (uint32_t i = 0; i < n && sum <= mark; i++) {
        sum += sorted[i].weight;
        right = sorted[i].id;
    }
    if (n == 1)
        right = sorted[0].id;
    for (uint32_t v = 0; sampler_scan_at(v); v++) {
        sampler.scan = sampler_scan_at(v);
        int32_t token = sampler_pick(&sampler, c->all, c->vocab, c->allowed, &c->how, choice, c->tokens,
                                     c->n_tokens, c->n_prompt);
        ck_assert_msg(
            token == right,
            "%s: %d, not %d, of %u; temperature %g, k %u, p %.9g, min_p %g, typical_p %g, random %.17g",
            sampler.scan->name, token, right, c->vocab, c->how.temperature, c->how.top_k, c->how.top_p,
            c->how.min_p, c->how.typical_p, random);
    }
    if (n > 1 && !has_typical(&c->how))
        check_place(sorted, c, right, random);
}

static double uniform(uint32_t stream, uint32_t i)
{
    return sampler_random(1234, stream, i);
}

static uint32_t below(uint32_t stream, uint32_t i, uint32_t n)
{
    return (uint32_t)(uniform(stream, i) * n);
}

/* Fills logits of a kind. */
static void make_logits(float *out, uint32_t n, uint32_t kind, uint32_t stream)
{
    static const float odd[] = { 0, 1, 1, 2, -INFINITY, INFINITY, NAN, -0.0f };
    for (uint32_t i = 0; i < n; i++) {
        double u = uniform(stream, 1000 + i);
        float normal = (float)(2 * sqrt(-2 * log(1 - u)) * cos(6.283185307 * uniform(stream, 100000 + i)));
        switch (kind) {
        case 0: /* anything */
            out[i] = odd[(int)(u * 8)];
            break;
        case 1: /* ties */
            out[i] = rintf(normal);
            break;
        case 2: /* all equal */
            out[i] = -3;
            break;
        case 3: /* peaks */
            out[i] = normal + (i % 50 == stream % 50 ? (float)(14 * u) : 0);
            break;
        case 4: /* far apart */
            out[i] = normal * 1e30f;
            break;
        case 5: /* close together, and some far away */
            out[i] = u < 0.01 ? -1e6f : 40 + normal * 1e-5f;
            break;
        default:
            out[i] = normal;
        }
    }
}

static struct sampling make_sampling(uint32_t vocab, uint32_t stream)
{
    static const float temperatures[] = { 0, 1e-30f, 0.01f, 0.7f, 0.8f, 1, 1, 2, 100 };
    static const float shares[] = { 0, 1e-30f, 1e-6f, 0.05f, 0.5f, 0.9f, 0.95f, 0.999f, 1 - FLT_EPSILON, 1 };
    const uint32_t counts[] = { 0,     0,         0,         1, 2, 5, 40, 1 + below(stream, 0, vocab),
                                vocab, vocab + 1, UINT32_MAX };
    return (struct sampling){ .temperature = temperatures[below(stream, 1, 9)],
                              .top_k = counts[below(stream, 2, 11)],
                              .top_p = shares[below(stream, 3, 10)],
                              .min_p = below(stream, 4, 2) ? shares[below(stream, 5, 10)] : 0,
                              .typical_p = below(stream, 9, 3) ? 0 : shares[below(stream, 16, 10)],
                              .seed = stream };
}

static void with_penalties(struct pick_case *c, struct cinf_logit_bias *bias, uint32_t stream)
{
    c->n_tokens = below(stream, 10, 40);
    c->n_prompt = below(stream, 11, c->n_tokens + 1);
    for (uint32_t i = 0; i < c->n_tokens; i++)
        c->tokens[i] = (int32_t)below(stream, 20 + i, i % 2 ? c->vocab : c->vocab < 8 ? c->vocab : 8);
    for (uint32_t i = 0; i < 4; i++)
        bias[i] = (struct cinf_logit_bias){ (int32_t)below(stream, 70 + i, c->vocab),
                                            (float)below(stream, 80 + i, 200) - 100 };
    /* Steps that a float holds exactly, in any order of operations. */
    c->how.repetition_penalty = below(stream, 12, 2) ? 1.25f : 0;
    c->how.frequency_penalty = below(stream, 13, 2) ? 0.5f : 0;
    c->how.presence_penalty = below(stream, 14, 2) ? -0.25f : 0;
    c->how.bias = bias;
    c->how.n_bias = below(stream, 15, 5);
}

START_TEST(a_pick_is_that_of_sorting_everything)
{
    static const uint32_t sizes[] = { 1, 2, 3, 10, 127, 128, 129, 300, 1000 };
    struct sorted *sorted = calloc(1000, sizeof *sorted);
    float *all = calloc(1000, sizeof *all);
    ck_ok(sampler_reserve(&sampler, 1000));
    for (uint32_t trial = 0; trial < 2000; trial++) {
        uint8_t allowed[1000 / 8 + 1];
        struct cinf_logit_bias bias[4];
        struct pick_case c = { .all = all, .vocab = sizes[trial % 9] };
        c.how = make_sampling(c.vocab, trial);
        make_logits(all, c.vocab, below(trial, 6, 8), trial);
        for (uint32_t i = 0; i < sizeof allowed; i++)
            allowed[i] = below(trial, 200 + i, 4) ? 0xFF : (uint8_t)below(trial, 400 + i, 256);
        if (below(trial, 7, 3) == 0)
            c.allowed = allowed;
        if (below(trial, 8, 3) == 0)
            with_penalties(&c, bias, trial);
        for (uint32_t choice = 0; choice < 2; choice++)
            check_pick(sorted, &c, choice);
    }
    free(all);
    free(sorted);
}
END_TEST

START_TEST(a_pick_of_a_whole_vocabulary_is_that_of_sorting_it)
{
    struct sorted *sorted = calloc(LARGE, sizeof *sorted);
    float *all = calloc(LARGE, sizeof *all);
    ck_ok(sampler_reserve(&sampler, LARGE));
    struct pick_case c = { .all = all, .vocab = LARGE };
    make_logits(all, LARGE, (uint32_t)_i % 8 < 6 ? (uint32_t)_i % 4 : 7, 5);
    c.how = (struct sampling){ .temperature = 0.8f,
                               .top_p = _i % 2 ? 0.95f : 0,
                               .top_k = _i > 4 && _i < 8 ? 40 : 0,
                               .typical_p = _i > 7 ? 0.9f : 0 };
    check_pick(sorted, &c, (uint32_t)_i);
    free(all);
    free(sorted);
}
END_TEST

/* Of equally likely tokens, each hundredth of the ids is drawn equally often, and top_p keeps the smallest
 * ids.  One of a hundred such counts exceeds these bounds once in 10^5 runs. */
START_TEST(equally_likely_tokens_are_drawn_equally_often)
{
    enum { DRAWS = 4000, PARTS = 100 };
    uint32_t vocab = _i ? 2 * PARTS : LARGE, part = _i ? 1 : LARGE / PARTS, left = part * PARTS;
    int counts[PARTS + 1] = { 0 };
    float *all = calloc(vocab, sizeof *all);
    ck_ok(sampler_reserve(&sampler, vocab));
    struct sampling how = { .temperature = 100, .top_p = _i ? 0.5f : 0 };
    for (uint32_t i = 0; i < DRAWS; i++) {
        how.seed = i;
        uint32_t token = (uint32_t)sampler_pick(&sampler, all, vocab, NULL, &how, 0, NULL, 0, 0);
        counts[token < left ? token / part : PARTS]++;
    }
    for (int i = 0; i < PARTS; i++)
        ck_assert_msg(counts[i] > 10 && counts[i] < 75, "part %d: %d", i, counts[i]);
    ck_assert_int_lt(counts[PARTS], _i ? 1 : 25);
    free(all);
}
END_TEST

START_TEST(logprobs_of_broken_logits_are_not_numbers)
{
    static const float odd[] = { NAN, INFINITY };
    for (int i = 0; i < 2; i++) {
        float logprob = 0;
        struct cinf_logprob top[20];
        logits[150] = odd[i];
        sampler_logprobs(&sampler, logits, V, 33, &logprob, top, 20);
        ck_assert(isnan(logprob));
        for (int k = 0; k < 20; k++)
            ck_assert(top[k].token >= 0 && top[k].token < V && isnan(top[k].logprob));
    }
}
END_TEST

/* Ties, and -INFINITY, which comes after all others. */
START_TEST(the_most_likely_are_the_first_of_the_order)
{
    for (uint32_t trial = 0; trial < 300; trial++) {
        float x[2000], logprob;
        struct sorted sorted[2000];
        struct cinf_logprob top[20];
        uint32_t n = trial % 2 ? 20 + below(trial, 0, 100) : 2000, token = below(trial, 1, n);
        double sum = 0;
        ck_ok(sampler_reserve(&sampler, 2000));
        for (uint32_t i = 0; i < n; i++) {
            x[i] = (float)(uniform(trial, 10 + i) * 20 - 10);
            x[i] = trial % 3 == 0 ? rintf(x[i]) : trial % 5 == 0 && i > 10 ? -INFINITY : x[i];
            sum += exp(x[i]);
            sorted[i] = (struct sorted){ x[i], 0, (int32_t)i };
        }
        qsort(sorted, n, sizeof *sorted, best_first);
        sampler_logprobs(&sampler, x, n, (int32_t)token, &logprob, top, 20);
        ck_assert(isinf(x[token]) ? logprob == -INFINITY : fabs(logprob - (x[token] - log(sum))) < 3e-6);
        for (int i = 0; i < 20; i++) {
            ck_assert_int_eq(top[i].token, sorted[i].id);
            ck_assert(isinf(sorted[i].logit) ? top[i].logprob == -INFINITY
                                             : fabs(top[i].logprob - (sorted[i].logit - log(sum))) < 3e-6);
        }
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("sampler");
    TCase *t = tcase_create("sampler");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, draws_follow_the_distribution, 0, 15);
    tcase_add_test(t, typical_p_is_that_of_transformers);
    tcase_add_test(t, greedy_takes_the_largest_and_the_smallest_id_among_equals);
    tcase_add_test(t, the_same_seed_gives_the_same_token_and_choices_differ);
    tcase_add_test(t, penalties_and_biases_change_the_logits_as_defined);
    tcase_add_test(t, the_callers_logits_are_not_changed);
    tcase_add_test(t, ids_that_are_not_allowed_are_never_picked);
    tcase_add_test(t, broken_logits_are_reported);
    tcase_add_test(t, logprobs_are_the_log_softmax);
    tcase_add_test(t, the_top_logits_are_enough);
    tcase_add_test(t, options_that_need_every_logit);
    tcase_add_test(t, logprobs_of_the_top_logits);
    tcase_add_test(t, random_numbers_are_uniform);
    tcase_add_test(t, a_pick_is_that_of_sorting_everything);
    tcase_add_loop_test(t, a_pick_of_a_whole_vocabulary_is_that_of_sorting_it, 0, 12);
    tcase_add_loop_test(t, equally_likely_tokens_are_drawn_equally_often, 0, 2);
    tcase_add_test(t, logprobs_of_broken_logits_are_not_numbers);
    tcase_add_test(t, the_most_likely_are_the_first_of_the_order);
    suite_add_tcase(s, t);
    return s;
}
