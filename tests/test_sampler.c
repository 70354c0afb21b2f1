/* The sampler against its definition, evaluated the slow way. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Probabilities of the tokens that the options leave, by sorting everything. */
static int by_logit(const void *a, const void *b)
{
    float x = logits[*(const int *)a], y = logits[*(const int *)b];
    return x < y ? 1 : x > y ? -1 : *(const int *)a - *(const int *)b;
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
}

/* 20000 draws: each token's frequency within five standard deviations, and nothing outside the set. */
static void check_distribution(const struct sampling *how)
{
    enum { N = 20000 };
    double p[V];
    int counts[V] = { 0 };
    expected(p, how);
    for (uint32_t i = 0; i < N; i++) {
        /* Random number i, without a text of i tokens. */
        struct sampling with_seed = *how;
        with_seed.seed = i + 1;
        counts[pick(&with_seed, 0, 3)]++;
    }
    for (int i = 0; i < V; i++) {
        double sd = sqrt(N * p[i] * (1 - p[i]));
        ck_assert_msg(p[i] > 0 || counts[i] == 0, "token %d was excluded, but drawn %d times", i, counts[i]);
        ck_assert_msg(fabs(counts[i] - N * p[i]) <= 5 * sd + 1, "token %d: %d draws, %.1f expected", i,
                      counts[i], N * p[i]);
    }
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
    };
    check_distribution(&cases[_i]);
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

/* The n best that may be picked, and what a device says beside them, by looking at all. */
static void best_of(struct picked *out, uint32_t n, const float *all, uint32_t vocab, const uint8_t *allowed)
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

/* Whatever the logits, ties and what is not a number among them, and whatever the options: what is chosen
 * from the best is what is chosen from all. */
START_TEST(the_best_are_enough)
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
        uint32_t needs = sampler_needs(&how);
        ck_assert_uint_eq(needs, how.temperature <= 0 || how.top_k == 1 ? 1 : how.top_k + 1);
        struct picked best;
        uint32_t more = trial % 2 ? 0 : RANDOM(PICK_MAX - needs + 1);
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

START_TEST(what_needs_every_logit)
{
    const struct cinf_logit_bias bias = { 1, 0 };
    const struct sampling how[] = {
        { .temperature = 1 },
        { .temperature = 1, .top_p = 0.9f },
        { .temperature = 1, .top_k = PICK_MAX },
        { .bias = &bias, .n_bias = 1 },
        { .repetition_penalty = 1.1f },
        { .presence_penalty = 0.1f, .top_k = 5 },
        { .frequency_penalty = -0.1f, .top_k = 1 },
    };
    for (size_t i = 0; i < sizeof how / sizeof *how; i++)
        ck_assert_uint_eq(sampler_needs(&how[i]), 0);
    ck_assert_uint_eq(sampler_needs(&(struct sampling){ .temperature = 1, .top_k = PICK_MAX - 1 }), PICK_MAX);
    ck_assert_uint_eq(sampler_needs(&(struct sampling){ .repetition_penalty = 1 }), 1);
}
END_TEST

START_TEST(logprobs_of_the_best)
{
    struct picked best;
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

Suite *suite(void)
{
    Suite *s = suite_create("sampler");
    TCase *t = tcase_create("sampler");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, draws_follow_the_distribution, 0, 9);
    tcase_add_test(t, greedy_takes_the_largest_and_the_smallest_id_among_equals);
    tcase_add_test(t, the_same_seed_gives_the_same_token_and_choices_differ);
    tcase_add_test(t, penalties_and_biases_change_the_logits_as_defined);
    tcase_add_test(t, the_callers_logits_are_not_changed);
    tcase_add_test(t, ids_that_are_not_allowed_are_never_picked);
    tcase_add_test(t, broken_logits_are_reported);
    tcase_add_test(t, logprobs_are_the_log_softmax);
    tcase_add_test(t, the_best_are_enough);
    tcase_add_test(t, what_needs_every_logit);
    tcase_add_test(t, logprobs_of_the_best);
    tcase_add_test(t, random_numbers_are_uniform);
    suite_add_tcase(s, t);
    return s;
}
