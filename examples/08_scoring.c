/* 08_scoring.c - how well does a model predict a text?
 *
 * A language model gives every text a probability, token by token:
 *
 *     log P(t_1 .. t_n) = sum_i log P(t_i | t_1 .. t_(i-1))
 *     perplexity        = exp(-1/(n-1) x sum_(i>1) log P(t_i | ...))
 *
 * (nothing precedes the first token, so it is not scored).  A perplexity of k means that the model is on
 * average as uncertain as between k equally likely tokens.  One pass over the text computes all terms;
 * nothing is sampled. Scoring serves to compare models, to choose among fixed answers, and to tell spam from
 * prose. */
#include <costinfer/costinfer.h>
#include <math.h>
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

static void score(struct cinf_model *model, const char *text, bool each)
{
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(model);
    int32_t *ids;
    size_t n;
    check(cinf_tokenizer_encode(tokenizer, text, strlen(text), 0, &ids, &n));
    float *logprobs = malloc(n * sizeof *logprobs);
    struct cinf_report report = { CINF_REPORT };
    if (!logprobs)
        exit(1);
    check(cinf_score(model, ids, (uint32_t)n, logprobs, &report));
    double sum = 0;
    for (size_t i = 1; i < n; i++) { /* logprobs[0] is NaN */
        size_t bytes;
        const char *token = cinf_tokenizer_token(tokenizer, ids[i], &bytes);
        if (each)
            printf("    %8.4f  %.*s\n", (double)logprobs[i], (int)bytes, token);
        sum += (double)logprobs[i];
    }
    char cost[CINF_COST_TEXT_MAX];
    printf("perplexity %.3f over %zu tokens, $%s: %s\n", exp(-sum / (double)(n - 1)), n - 1,
           cinf_cost_format(cost, report.cost), text);
    free(logprobs);
    cinf_ids_free(ids);
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

    score(model, "Once upon a time there was a little girl named Clara.", true);
    score(model, "Once upon a time there was a little boy named Clara.", false);
    score(model, "Clara little a there time named upon was girl Once a.", false);
    cinf_model_release(model);
    cinf_engine_close(engine);
}
