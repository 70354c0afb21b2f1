/* bench_sampler.c - the time to sample a token from a row of logits, on one thread.
 *
 *     bench_sampler [VOCABULARY]        50257 by default
 *
 * Prints two lines of JSON: microseconds, the medians of 200 calls.  The logits are synthetic: "flat" ones
 * are normal with a deviation of 2, as those of an untrained model, and among "peaked" ones every 500th is 6
 * to 14 higher, as those of a model with few likely tokens. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "mem.h"
#include "sampler.h"

enum { CALLS = 200, TEXT = 128 };

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double median_us(struct sampler *sampler, const float *logits, uint32_t vocab,
                        const struct sampling *sampling, bool logprobs, uint32_t n_top)
{
    uint64_t ns[CALLS];
    int32_t text[TEXT];
    struct cinf_logprob top[CINF_TOP_LOGPROBS_MAX];
    for (int32_t i = 0; i < TEXT; i++)
        text[i] = i % (int32_t)vocab;
    for (uint32_t i = 0; i < CALLS; i++) {
        uint64_t start = clock_monotonic_ns();
        int32_t token = sampler_pick(sampler, logits, vocab, NULL, sampling, i, text, TEXT, TEXT / 2);
        float logprob;
        if (logprobs)
            sampler_logprobs(sampler, logits, vocab, token, &logprob, top, n_top);
        ns[i] = clock_monotonic_ns() - start;
    }
    qsort(ns, CALLS, sizeof *ns, by_size);
    return (double)ns[CALLS / 2] / 1e3;
}

static void measure(struct sampler *sampler, const float *logits, uint32_t vocab, const char *kind)
{
    const struct {
        const char *name;
        struct sampling sampling;
        bool logprobs;
        uint32_t n_top;
    } cases[] = {
        { "greedy", { .seed = 1 }, false, 0 },
        { "temperature", { .temperature = 0.8F, .seed = 1 }, false, 0 },
        { "min_p", { .temperature = 0.8F, .min_p = 0.05F, .seed = 1 }, false, 0 },
        { "top_k", { .temperature = 0.8F, .top_k = 40, .seed = 1 }, false, 0 },
        { "top_k_top_p", { .temperature = 0.8F, .top_k = 40, .top_p = 0.95F, .seed = 1 }, false, 0 },
        { "top_p", { .temperature = 0.8F, .top_p = 0.95F, .seed = 1 }, false, 0 },
        { "top_p_99", { .temperature = 1, .top_p = 0.99F, .seed = 1 }, false, 0 },
        { "typical_p", { .temperature = 0.8F, .typical_p = 0.9F, .seed = 1 }, false, 0 },
        { "top_p_typical_p",
          { .temperature = 0.8F, .top_p = 0.95F, .typical_p = 0.9F, .seed = 1 },
          false,
          0 },
        { "penalties", { .repetition_penalty = 1.2F, .frequency_penalty = 0.5F }, false, 0 },
        { "greedy_logprobs", { .seed = 1 }, true, 0 },
        { "greedy_logprobs_5", { .seed = 1 }, true, 5 },
        { "greedy_logprobs_20", { .seed = 1 }, true, 20 },
    };
    printf("{\"benchmark\":\"sampler\",\"vocabulary\":%" PRIu32 ",\"logits\":\"%s\"", vocab, kind);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        printf(",\"%s_us\":%.1f", cases[i].name,
               median_us(sampler, logits, vocab, &cases[i].sampling, cases[i].logprobs, cases[i].n_top));
    printf("}\n");
}

int main(int argc, char **argv)
{
    struct sampler sampler = { 0 };
    uint32_t vocab = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 50257;
    float *logits = mem_new(vocab, sizeof *logits);
    if (vocab == 0 || !logits || sampler_reserve(&sampler, vocab) != CINF_OK) {
        fprintf(stderr, "bench_sampler: no memory for %" PRIu32 " logits\n", vocab);
        return 1;
    }
    for (uint32_t i = 0; i < vocab; i++)
        logits[i] = (float)(2 * sqrt(-2 * log(1 - sampler_random(1, 0, i))) *
                            cos(6.283185307 * sampler_random(1, 1, i)));
    measure(&sampler, logits, vocab, "flat");
    for (uint32_t i = 0; i < vocab; i += 500)
        logits[i] += (float)(6 + 8 * sampler_random(1, 2, i));
    measure(&sampler, logits, vocab, "peaked");
    sampler_free(&sampler);
    mem_free(logits);
    return 0;
}
