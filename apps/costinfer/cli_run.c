/* cli_run.c - generates text: streamed to standard output as it comes, with the bill on standard error. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"
#include "mem.h"

struct output {
    bool json, ids_alone, logprobs;
    struct strbuf text;
    int32_t *ids;  /* [n] */
    float *scores; /* [n]: log-probabilities */
    size_t n, cap_ids, cap_scores;
};

static void keep_token(struct output *out, const struct cinf_event *event)
{
    if (!mem_reserve(&out->ids, &out->cap_ids, out->n + 1, sizeof *out->ids) ||
        !mem_reserve(&out->scores, &out->cap_scores, out->n + 1, sizeof *out->scores)) {
        out->text.failed = true;
        return;
    }
    out->ids[out->n] = event->token;
    out->scores[out->n++] = event->logprob;
}

/* Pulls events until the request has ended.  Ctrl-C and a closed standard output cancel it; the bill then
 * covers what was computed. */
static enum cinf_status follow(struct cinf_request *request, struct output *out)
{
    for (;;) {
        struct cinf_event event = { CINF_EVENT };
        enum cinf_status status = cinf_request_next(request, 50000000, &event);
        if (interrupted())
            cinf_request_cancel(request, CINF_FINISH_CANCELLED);
        if (status == CINF_EAGAIN)
            continue;
        if (status != CINF_OK || event.kind == CINF_EVENT_END)
            return status;
        if (event.kind == CINF_EVENT_TOKEN && out->json)
            keep_token(out, &event);
        if (out->json) {
            strbuf_add(&out->text, event.text, event.text_bytes);
            continue;
        }
        if (!out->ids_alone)
            fwrite(event.text, 1, event.text_bytes, stdout);
        else if (event.kind == CINF_EVENT_TOKEN)
            printf("%s%" PRId32, out->n++ > 0 ? "," : "", event.token);
        if (fflush(stdout) != 0)
            cinf_request_cancel(request, CINF_FINISH_CLIENT_GONE);
    }
}

static void print_bill(const struct cinf_report *r)
{
    char cost[CINF_COST_TEXT_MAX + 1];
    fprintf(stderr, "%" PRIu32 " + %" PRIu32 " tokens, %.3f s (%.1f tokens/s), %s, finished: %s\n",
            r->input_tokens, r->output_tokens, seconds_of(r->latency_ns),
            rate_of(r->output_tokens, r->latency_ns), cost_text(cost, r), cinf_finish_name(r->finish));
}

static int print_json(struct cinf_request *request, const struct cinf_model_info *model,
                      const struct output *out, const struct cinf_report *report)
{
    struct strbuf b = { 0 };
    uint32_t n;
    const int32_t *prompt = cinf_request_prompt(request, &n);
    struct json_writer w = json_write_to(&b);
    json_open_object(&w, NULL);
    json_put_text(&w, "model", model->name);
    json_put_text(&w, "weights", cinf_weights_name(model->weights));
    json_open_array(&w, "prompt_ids");
    for (uint32_t i = 0; i < n; i++)
        json_put_i64(&w, NULL, prompt[i]);
    json_close(&w);
    json_open_array(&w, "ids");
    for (size_t i = 0; i < out->n; i++)
        json_put_i64(&w, NULL, out->ids[i]);
    json_close(&w);
    if (out->logprobs) {
        json_open_array(&w, "logprobs");
        for (size_t i = 0; i < out->n; i++)
            json_put_double(&w, NULL, (double)out->scores[i]);
        json_close(&w);
    }
    json_put_bytes(&w, "text", out->text.text, out->text.len);
    json_put_text(&w, "finish_reason", cinf_finish_name(report->finish));
    json_put_u64(&w, "seed", cinf_request_seed(request));
    put_report(&w, "report", report);
    json_close(&w);
    b.failed = b.failed || out->text.failed;
    int status = print_document(&b);
    strbuf_free(&b);
    return status;
}

static int generate(struct cinf_model *model, const struct cinf_request_options *options, bool json,
                    bool ids_alone)
{
    struct cinf_request *request;
    if (cinf_request_submit(&request, model, options) != CINF_OK)
        return fail_last();
    interrupt_catch();
    struct output out = { .json = json,
                          .ids_alone = ids_alone || !cinf_model_tokenizer(model),
                          .logprobs = options->logprobs };
    struct cinf_model_info info = { CINF_MODEL_INFO };
    struct cinf_report report = { CINF_REPORT };
    int exit_status = 0;
    if (follow(request, &out) != CINF_OK)
        exit_status = fail_last();
    cinf_model_info(model, &info);
    cinf_request_report(request, &report);
    if (json) {
        if (print_json(request, &info, &out, &report) != 0)
            exit_status = 1;
    } else {
        putchar('\n');
        fflush(stdout);
        print_bill(&report);
    }
    if (report.finish == CINF_FINISH_FAILED)
        exit_status = fail_with("%s", cinf_request_failure(request));
    else if (interrupted() && exit_status == 0)
        exit_status = EXIT_INTERRUPTED;
    strbuf_free(&out.text);
    mem_free(out.ids);
    mem_free(out.scores);
    cinf_request_free(request);
    return exit_status;
}

static int run(const struct command *self, int argc, char **argv)
{
    struct common_flags common = { 0 };
    struct cinf_engine_options engine = { CINF_ENGINE_OPTIONS };
    struct cinf_request_options options = { CINF_REQUEST_OPTIONS };
    struct ids ids = { 0 }, stop_ids = { 0 };
    struct texts stops = { 0 };
    const char *file = NULL;
    bool json = false, special = false, ids_alone = false;
    const struct flag flags[] = {
        MODEL_FLAG(&common),
        { "prompt", FLAG_TEXT, &options.prompt, 0, 0, "TEXT",
          "The text to continue.  An empty one is the single token <|endoftext|>." },
        { "prompt-file", FLAG_TEXT, &file, 0, 0, "FILE", "The same from a file; - is standard input." },
        { "prompt-tokens", FLAG_IDS, &ids, 0, 0, "1,2,3", "The same as ids." },
        { "special", FLAG_SWITCH, &special, 0, 0, NULL,
          "<|endoftext|> and other special tokens in the prompt are tokens, not ordinary characters." },
        { "max-tokens", FLAG_U32, &options.max_tokens, 1, 1000000, "N",
          "The most tokens to generate (default: until the text ends or the context is full)." },
        { "temperature", FLAG_FLOAT, &options.temperature, 0, 100, "T",
          "0 is greedy: always the most likely token (default 0)." },
        { "top-k", FLAG_U32, &options.top_k, 0, 1000000, "K", "Keep the K most likely tokens (0: all)." },
        { "top-p", FLAG_FLOAT, &options.top_p, 0, 1, "P",
          "Keep the most likely tokens whose probabilities add up to P (0: all)." },
        { "min-p", FLAG_FLOAT, &options.min_p, 0, 1, "P",
          "Keep tokens at least P times as likely as the most likely one (0: all)." },
        { "typical-p", FLAG_FLOAT, &options.typical_p, 0, 1, "P",
          "Of these, keep the most typical tokens whose probabilities add up to P (0: all)." },
        { "repetition-penalty", FLAG_FLOAT, &options.repetition_penalty, 0, 100, "X",
          "Divides positive logits of tokens seen before, multiplies negative ones (1: off)." },
        { "presence-penalty", FLAG_FLOAT, &options.presence_penalty, -100, 100, "X",
          "Subtracted from the logit of each token that was generated before." },
        { "frequency-penalty", FLAG_FLOAT, &options.frequency_penalty, -100, 100, "X",
          "Subtracted once for each time the token was generated." },
        { "seed", FLAG_U64, &options.seed, 1, 0, "N",
          "The same seed gives the same text (default: drawn at random; --json prints it)." },
        { "stop", FLAG_TEXTS, &stops, 0, 0, "TEXT",
          "Ends the text before TEXT.  May be given up to 16 times." },
        { "stop-token-ids", FLAG_IDS, &stop_ids, 0, 0, "1,2,3",
          "Ids that end the text and are not part of it." },
        { "min-tokens", FLAG_U32, &options.min_tokens, 0, 1000000, "N",
          "Before so many tokens nothing but --max-tokens ends the text." },
        { "ignore-eos", FLAG_SWITCH, &options.ignore_eos, 0, 0, NULL, "End-of-text does not end the text." },
        { "logprobs", FLAG_SWITCH, &options.logprobs, 0, 0, NULL,
          "With --json, adds the log-probability of each token." },
        { "ids", FLAG_SWITCH, &ids_alone, 0, 0, NULL,
          "Print token ids, not text; a model without a tokenizer gives nothing else." },
        { "json", FLAG_SWITCH, &json, 0, 0, NULL,
          "One JSON object at the end: ids, text, finish_reason, seed and the report." },
        { "no-speculation", FLAG_SWITCH, &engine.no_speculation, 0, 0, NULL,
          "Computes one token in each step, without draft tokens.  The text is the same." },
        PROFILE_FLAG(&common),
        DEVICE_FLAGS(&common),
        WEIGHTS_FLAG(&common),
        PRICE_FLAGS(&common),
    };
    struct strbuf text = { 0 };
    struct session session;
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, NULL);
    if (status != FLAGS_GO)
        goto out;
    if (!common.model)
        status = usage_error(self, "--model is missing");
    else if ((options.prompt != NULL) + (file != NULL) + ids.given != 1)
        status = usage_error(self, "exactly one of --prompt, --prompt-file and --prompt-tokens is needed");
    else if (file && !read_all(&text, file))
        status = 1;
    if (status != FLAGS_GO)
        goto out;
    if (file) {
        options.prompt = text.text ? text.text : "";
        options.prompt_bytes = text.len;
    }
    options.prompt_ids = ids.ids;
    options.n_prompt_ids = ids.n;
    options.tokenize_flags = special ? CINF_TOKENIZE_SPECIAL : 0;
    options.stop = stops.items;
    options.n_stop = stops.n;
    options.stop_token_ids = stop_ids.ids;
    options.n_stop_token_ids = stop_ids.n;
    status = 1;
    if (session_open(&session, &common, &engine, NULL)) {
        status = generate(session.model, &options, json, ids_alone);
        session_close(&session);
    }
out:
    strbuf_free(&text);
    mem_free(ids.ids);
    mem_free(stop_ids.ids);
    return status;
}

const struct command command_run = {
    .name = "run",
    .summary = "generate text, and print what it cost",
    .synopsis = "--model DIR (--prompt TEXT | --prompt-file FILE | --prompt-tokens 1,2,3) ...",
    .manual =
        "Streams the continuation to standard output.  One line on standard error follows: the tokens of\n"
        "the prompt + the tokens sampled, the seconds they took, their cost, and why the text ended.\n"
        "Ctrl-C ends the text, and the line is still printed.\n\n"
        "  costinfer run --model examples/models/stories-small --prompt 'Once upon a time' \\\n"
        "      --temperature 0.7 --top-k 40 --seed 7 --cost-per-hour 0.10\n",
    .run = run,
};
