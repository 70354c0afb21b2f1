/* 03_sampling.c - how probabilities become a text.
 *
 * For each next token the model computes V numbers, the logits z.  The temperature T turns them into
 * probabilities:
 *
 *     p_i = exp(z_i / T) / sum_j exp(z_j / T)
 *
 * T = 0 means the limit: always the largest z (greedy).  A small T sharpens the distribution, a large T
 * flattens it. Then unlikely tokens may be removed:
 *
 *     top_k  keeps the k most likely tokens
 *     top_p  keeps the most likely until their probabilities reach p
 *     min_p  keeps those with p_i >= min_p * max_j p_j
 *     typical_p  keeps those whose surprise -log p_i is nearest to its mean, the entropy, until their
 *            probabilities reach typical_p
 *
 * and one token is drawn from the rest.  The draw is a function of (seed, choice, position), so the same seed
 * gives the same text, whatever else runs on the engine. */
#include <costinfer/costinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "%s: %s\n", cinf_status_name(status), cinf_last_error());
        exit(1);
    }
}

static void show(struct cinf_model *model, const char *what, struct cinf_request_options options)
{
    struct cinf_result *result;
    options.prompt = "There was once a";
    options.max_tokens = 12;
    check(cinf_generate(&result, model, &options, NULL, NULL));
    printf("%s\n", what);
    for (uint32_t c = 0; c < result->n_choices; c++)
        printf("    %s\n", result->choices[c].text);
    cinf_result_free(result);
}

/* The five most likely next tokens. */
static void show_alternatives(struct cinf_model *model)
{
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(model);
    struct cinf_request *request;
    struct cinf_event event = { CINF_EVENT };
    puts("what may come next, by log-probability");
    check(cinf_request_submit(&request, model,
                              &(struct cinf_request_options){ CINF_REQUEST_OPTIONS,
                                                              .prompt = "There was once a", .max_tokens = 1,
                                                              .logprobs = true, .top_logprobs = 5 }));
    do {
        check(cinf_request_next(request, UINT64_MAX, &event));
        for (uint32_t i = 0; event.kind == CINF_EVENT_TOKEN && i < event.n_top; i++) {
            size_t n;
            const char *bytes = cinf_tokenizer_token(tokenizer, event.top[i].token, &n);
            printf("    %8.3f  %.*s\n", (double)event.top[i].logprob, (int)n, bytes);
        }
    } while (event.kind != CINF_EVENT_END);
    cinf_request_free(request);
}

int main(int argc, char *argv[])
{
    const char *folder = argc > 1 ? argv[1] : "examples/models/stories-small";
    struct cinf_engine *engine;
    struct cinf_model *model;
    check(cinf_engine_open(&engine,
                           &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .dollars_per_hour = "2.50" }));
    check(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));

    struct cinf_request_options options = { CINF_REQUEST_OPTIONS };
    show_alternatives(model);
    show(model, "greedy", options);

    options.temperature = 0.8F;
    options.top_k = 40;
    options.seed = 7;
    show(model, "temperature 0.8, top_k 40, seed 7", options);
    show(model, "the same seed again", options);

    options.n = 3; /* one prompt, three texts: the prompt is computed once */
    show(model, "three choices of seed 7", options);

    cinf_model_release(model);
    cinf_engine_close(engine);
}
