/* cli_perplexity.c - how well a model predicts a text.
 *
 * The text's tokens are cut into windows of at most the context, and each window is computed separately: its
 * token i is scored given tokens 0 to i - 1 of the same window.  Windows start `stride` tokens apart. Without
 * overlap (stride = window), the first token of every window stays unscored, because nothing precedes it.
 * With overlap, a window scores only the tokens that no earlier window has scored, so every token but the
 * text's first is scored once, with at least window - stride tokens before it. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "cli.h"
#include "mem.h"

struct sums {
    double nats; /* of the scored tokens */
    uint64_t scored, windows, computed, device_ns;
    struct cinf_report report; /* the last window's, its cost and unpriced time summed over all */
};

static bool score_window(struct sums *sums, struct cinf_model *model, const int32_t *ids, uint32_t n,
                         uint32_t n_seen, float *logprobs)
{
    struct cinf_report report = { CINF_REPORT };
    if (cinf_score(model, ids, n, logprobs, &report) != CINF_OK) {
        fail_last();
        return false;
    }
    for (uint32_t i = n_seen > 0 ? n_seen : 1; i < n; i++) {
        sums->nats -= (double)logprobs[i];
        sums->scored++;
    }
    sums->windows++;
    sums->computed += n;
    sums->device_ns += report.device_ns;
    sums->report.cost = cinf_cost_add(sums->report.cost, report.cost);
    sums->report.unpriced_ns += report.unpriced_ns;
    return true;
}

static bool score_text(struct sums *sums, struct cinf_model *model, const int32_t *ids, size_t n,
                       uint32_t window, uint32_t stride)
{
    float *logprobs = mem_new(window, sizeof *logprobs);
    if (!logprobs) {
        fail_with("no memory for %" PRIu32 " log-probabilities", window);
        return false;
    }
    struct progress progress;
    progress_start(&progress, "perplexity");
    interrupt_catch();
    bool good = true;
    size_t done = 0; /* tokens covered by the windows so far */
    for (size_t first = 0; good && done < n && !interrupted(); first += stride) {
        size_t length = n - first < window ? n - first : window;
        /* A last window of one token has nothing to score. */
        if (length < 2)
            break;
        good = score_window(sums, model, ids + first, (uint32_t)length, (uint32_t)(done - first), logprobs);
        done = first + length;
        progress_show(&progress, done, n);
    }
    progress_end(&progress);
    mem_free(logprobs);
    return good;
}

static int print_sums(const struct sums *sums, size_t n, uint32_t window, uint32_t stride, bool json)
{
    double mean = sums->nats / (double)sums->scored;
    char text[CINF_COST_TEXT_MAX + 1];
    const char *cost = cost_text(text, &sums->report);
    if (!json) {
        printf("perplexity       %.4f\n", exp(mean));
        printf("nats a token     %.6f\n", mean);
        printf("tokens           %zu, of which %" PRIu64 " scored in %" PRIu64 " windows of %" PRIu32
               ", %" PRIu32 " apart\n",
               n, sums->scored, sums->windows, window, stride);
        printf("device time      %.3f s, %.1f tokens/s\n", seconds_of(sums->device_ns),
               rate_of(sums->computed, sums->device_ns));
        printf("cost             %s\n", cost);
        return 0;
    }
    struct strbuf b = { 0 };
    struct json_writer w = json_write_to(&b);
    json_open_object(&w, NULL);
    json_put_double(&w, "perplexity", exp(mean));
    json_put_double(&w, "nats_per_token", mean);
    json_put_u64(&w, "tokens", n);
    json_put_u64(&w, "scored", sums->scored);
    json_put_u64(&w, "windows", sums->windows);
    json_put_u64(&w, "window", window);
    json_put_u64(&w, "stride", stride);
    json_put_u64(&w, "computed", sums->computed);
    json_put_u64(&w, "device_ns", sums->device_ns);
    json_put_double(&w, "tokens_per_second", rate_of(sums->computed, sums->device_ns));
    put_cost(&w, "cost_usd", &sums->report);
    json_close(&w);
    int status = print_document(&b);
    strbuf_free(&b);
    return status;
}

static int measure(struct cinf_model *model, const struct strbuf *text, uint32_t window, uint32_t stride,
                   bool json)
{
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(model, &info);
    if (window > info.config.n_positions)
        return fail_with("--window %" PRIu32 " is more than the context of %" PRIu32, window,
                         info.config.n_positions);
    window = window ? window : info.config.n_positions;
    if (stride > window)
        return fail_with("--stride %" PRIu32 " is more than the window of %" PRIu32, stride, window);
    stride = stride ? stride : window;
    int32_t *ids;
    size_t n;
    if (!cinf_model_tokenizer(model))
        return fail_with(
            "model %s has no tokenizer (tokenizer.json, or vocab.json and merges.txt, in its folder)",
            info.name);
    if (cinf_tokenizer_encode(cinf_model_tokenizer(model), text->text ? text->text : "", text->len, 0, &ids,
                              &n) != CINF_OK)
        return fail_last();
    struct sums sums = { 0 };
    int status = 1;
    if (n < 2)
        fail_with("a text of %zu tokens has none to score", n);
    else if (score_text(&sums, model, ids, n, window, stride) && sums.scored > 0)
        status = print_sums(&sums, n, window, stride, json);
    cinf_ids_free(ids);
    return interrupted() ? EXIT_INTERRUPTED : status;
}

static int run(const struct command *self, int argc, char **argv)
{
    struct common_flags common = { 0 };
    uint32_t window = 0, stride = 0;
    bool json = false;
    const struct flag flags[] = {
        MODEL_FLAG(&common),
        { "window", FLAG_U32, &window, 2, 1000000, "N", "Tokens in a window (default: the context)." },
        { "stride", FLAG_U32, &stride, 1, 1000000, "N",
          "Tokens from one window's start to the next (default: the window, no overlap)." },
        { "json", FLAG_SWITCH, &json, 0, 0, NULL, "One JSON object." },
        DEVICE_FLAGS(&common),
        WEIGHTS_FLAG(&common),
        PRICE_FLAGS(&common),
    };
    const char *path = NULL;
    struct strbuf text = { 0 };
    struct session session;
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, &path);
    if (status != FLAGS_GO)
        return status;
    if (!common.model)
        return usage_error(self, "--model is missing");
    struct cinf_engine_options engine = { CINF_ENGINE_OPTIONS, .no_prefix_reuse = true };
    struct cinf_model_options model = { CINF_MODEL_OPTIONS, .slots = 1 };
    status = 1;
    if (read_all(&text, path) && session_open(&session, &common, &engine, &model)) {
        status = measure(session.model, &text, window, stride, json);
        session_close(&session);
    }
    strbuf_free(&text);
    return status;
}

const struct command command_perplexity = {
    .name = "perplexity",
    .summary = "measure how well a model predicts a text",
    .operand = "FILE",
    .synopsis = "--model DIR FILE [--window N] [--stride N] [--json]",
    .manual =
        "Prints exp of the mean negative log-probability of the text's tokens (natural logarithm), that\n"
        "mean itself, and the time and cost of measuring it.  FILE may be - for standard input.\n\n"
        "The tokens are cut into windows of the model's context, and each window is computed separately:\n"
        "every token but the first is scored given those before it.  With --stride the windows overlap,\n"
        "and a token is scored by the first window that contains it.  That is slower and gives a lower\n"
        "figure, because tokens then have more text before them.  No token is inserted before the text.\n"
        "Compare figures only if method and tokenizer are the same.\n",
    .run = run,
};
