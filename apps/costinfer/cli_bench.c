/* cli_bench.c - how fast a model runs here.
 *
 * Speeds come from the requests' own reports: time on the device, which is what a request is billed for.
 * Each figure is the median of several runs after one that is thrown away.  Prompts are made-up ids, never
 * reused from an earlier run's cache. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"
#include "clock.h"
#include "mem.h"

enum { STREAMS_MAX = 32, RUNS_MAX = 99 };

static const uint32_t prefill_sizes[] = { 128, 512 };
static const uint32_t depths[] = { 0, 128, 512, 960 };
static const uint32_t stream_counts[] = { 1, 2, 4, 8, 16, 32 };

struct bench {
    struct cinf_model *model;
    struct cinf_model_info info;
    struct cinf_device_info device;
    uint32_t runs, tokens;            /* measured runs a figure; tokens decoded in each */
    uint64_t budget_ns;               /* after so long a figure makes do with the runs it has */
    uint64_t load_ns, resident_bytes; /* of loading, and after it */
    int32_t *prompt;                  /* [n_positions] made-up ids */
    struct strbuf prefill, decode, parallel, table;
};

/* What one run gives: n tokens in ns. */
struct sample {
    uint64_t n, ns;
};

static uint64_t resident_now(void)
{
    unsigned long long pages = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm)
        return 0;
    if (fscanf(statm, "%llu %llu", &pages, &resident) != 2)
        resident = 0;
    fclose(statm);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t resident_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

/* Weights that one decode step reads: everything but the position table and, where the head is a matrix of
 * its own, the token table, of which a step reads single rows. */
static uint64_t bytes_per_token(const struct cinf_model_info *info)
{
    const struct cinf_config *c = &info->config;
    uint64_t d = c->n_embd, inner = c->n_inner;
    uint64_t matrices = (uint64_t)c->n_layer * (d * 3 * d + d * d + 2 * d * inner) + c->vocab_size * d;
    uint64_t vectors = (uint64_t)c->n_layer * (3 * d + d + inner + d + 4 * d) + 2 * d;
    switch (info->weights) {
    case CINF_WEIGHTS_F16:
    case CINF_WEIGHTS_BF16:
        return matrices * 2 + vectors * 4;
    case CINF_WEIGHTS_INT8:
        return matrices + vectors * 4;
    case CINF_WEIGHTS_INT4:
        return matrices / 2 + vectors * 4;
    default:
        return matrices * 4 + vectors * 4;
    }
}

/* Runs `n` requests at once to their ends and adds up what they took.  False after saying what went wrong. */
static bool run_requests(struct cinf_model *model, const struct cinf_request_options *options, uint32_t n,
                         struct cinf_report *sum)
{
    struct cinf_request *requests[STREAMS_MAX] = { NULL };
    enum cinf_status status = CINF_OK;
    bool good = true;
    *sum = (struct cinf_report){ CINF_REPORT };
    for (uint32_t i = 0; i < n && status == CINF_OK; i++)
        status = cinf_request_submit(&requests[i], model, options);
    for (uint32_t i = 0; i < n && status == CINF_OK && good; i++) {
        struct cinf_event event = { CINF_EVENT };
        while (status == CINF_OK && event.kind != CINF_EVENT_END)
            status = cinf_request_next(requests[i], UINT64_MAX, &event);
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(requests[i], &report);
        sum->output_tokens += report.output_tokens;
        sum->prefill_ns += report.prefill_ns;
        sum->decode_ns += report.decode_ns;
        sum->device_ns += report.device_ns;
        good = report.finish != CINF_FINISH_FAILED;
        if (!good)
            fail_with("%s", cinf_request_failure(requests[i]));
    }
    if (status != CINF_OK)
        fail_last();
    for (uint32_t i = 0; i < n; i++)
        cinf_request_free(requests[i]);
    return status == CINF_OK && good;
}

static int by_speed(const void *a, const void *b)
{
    const struct sample *x = a, *y = b;
    double s = rate_of(x->n, x->ns), t = rate_of(y->n, y->ns);
    return s < t ? -1 : s > t;
}

enum what { PREFILL, DECODE, STREAMS };

static struct sample take_sample(const struct cinf_report *sum, enum what what, uint32_t size)
{
    if (what == PREFILL)
        return (struct sample){ size, sum->prefill_ns };
    /* The first token of a request comes out of its prompt's last step. */
    if (what == DECODE)
        return (struct sample){ sum->output_tokens - 1, sum->decode_ns };
    return (struct sample){ sum->output_tokens, sum->device_ns };
}

/* The median of the runs of one figure: size is a prompt's length, a depth, or a number of streams. */
static bool measure(struct bench *b, enum what what, uint32_t size, struct sample *median, uint32_t *n_runs)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = b->prompt, .ignore_eos = true };
    o.n_prompt_ids = what == STREAMS || size == 0 ? 1 : size;
    o.prompt_only = what == PREFILL;
    o.max_tokens = what == PREFILL ? 0 : b->tokens + 1;
    struct sample samples[RUNS_MAX];
    struct cinf_report sum;
    uint32_t n = 0;
    uint64_t start = clock_monotonic_ns();
    if (!run_requests(b->model, &o, what == STREAMS ? size : 1, &sum))
        return false;
    samples[0] = take_sample(&sum, what, size);
    while (n < b->runs && (n == 0 || clock_monotonic_ns() - start < b->budget_ns)) {
        if (!run_requests(b->model, &o, what == STREAMS ? size : 1, &sum))
            return false;
        samples[n++] = take_sample(&sum, what, size);
    }
    qsort(samples, n, sizeof *samples, by_speed);
    *median = samples[n / 2];
    *n_runs = n;
    return true;
}

static bool measure_prefill(struct bench *b)
{
    for (size_t i = 0; i < sizeof prefill_sizes / sizeof *prefill_sizes; i++) {
        struct sample s;
        uint32_t size = prefill_sizes[i], runs;
        if (size > b->info.config.n_positions)
            continue;
        if (!measure(b, PREFILL, size, &s, &runs))
            return false;
        double speed = rate_of(s.n, s.ns);
        strbuf_printf(&b->prefill, "%s{\"tokens\":%" PRIu32 ",\"seconds\":%.9f,\"tokens_per_second\":%.3f",
                      b->prefill.len ? "," : "", size, seconds_of(s.ns), speed);
        strbuf_printf(&b->prefill, ",\"runs\":%" PRIu32 "}", runs);
        strbuf_printf(&b->table, "prefill   %5" PRIu32 " tokens   %10.1f tokens/s  %9.3f s\n", size, speed,
                      seconds_of(s.ns));
    }
    return true;
}

static bool measure_decode(struct bench *b)
{
    const struct cinf_config *c = &b->info.config;
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        struct sample s;
        uint32_t depth = depths[i], runs;
        if ((uint64_t)depth + b->tokens + 2 > c->n_positions)
            continue;
        if (!measure(b, DECODE, depth, &s, &runs))
            return false;
        double speed = rate_of(s.n, s.ns);
        /* Keys and values of every layer at the middle of the tokens decoded. */
        uint64_t element = b->device.kv == CINF_KV_F16 ? 2 : 4;
        uint64_t cache = 2 * element * c->n_layer * c->n_embd * (depth + b->tokens / 2);
        uint64_t bytes = bytes_per_token(&b->info) + cache;
        double gigabytes = speed * (double)bytes / 1e9;
        double share = gigabytes * (double)b->device.as_per_byte / 1e9;
        strbuf_printf(&b->decode,
                      "%s{\"depth\":%" PRIu32 ",\"tokens\":%" PRIu64 ",\"tokens_per_second\":%.3f",
                      b->decode.len ? "," : "", depth, s.n, speed);
        strbuf_printf(&b->decode,
                      ",\"bytes_per_token\":%" PRIu64 ",\"gb_per_second\":%.3f,\"bandwidth_share\":%.4f,"
                      "\"runs\":%" PRIu32 "}",
                      bytes, gigabytes, share, runs);
        strbuf_printf(&b->table,
                      "decode    %5" PRIu32
                      " before   %10.1f tokens/s  %9.3f ms each  %6.2f GB/s (%.0f %%)\n",
                      depth, speed, speed > 0 ? 1e3 / speed : 0, gigabytes, 100 * share);
    }
    return true;
}

static bool measure_streams(struct bench *b)
{
    for (size_t i = 0; i < sizeof stream_counts / sizeof *stream_counts; i++) {
        struct sample s;
        uint32_t streams = stream_counts[i], runs;
        if (streams > b->info.slots || b->tokens + 2 > b->info.config.n_positions)
            continue;
        if (!measure(b, STREAMS, streams, &s, &runs))
            return false;
        double speed = rate_of(s.n, s.ns);
        strbuf_printf(&b->parallel,
                      "%s{\"streams\":%" PRIu32 ",\"tokens\":%" PRIu64 ",\"tokens_per_second\":%.3f,"
                      "\"tokens_per_second_per_stream\":%.3f",
                      b->parallel.len ? "," : "", streams, s.n, speed, speed / streams);
        strbuf_printf(&b->parallel, ",\"runs\":%" PRIu32 "}", runs);
        strbuf_printf(&b->table, "streams   %5" PRIu32 " at once  %10.1f tokens/s  %9.1f tokens/s each\n",
                      streams, speed, speed / streams);
    }
    return true;
}

static int print_bench(const struct bench *b, bool json)
{
    struct strbuf out = { 0 };
    const struct cinf_model_info *info = &b->info;
    double bandwidth = b->device.as_per_byte ? 1e9 / (double)b->device.as_per_byte : 0;
    double flops = b->device.as_per_flop ? 1e9 / (double)b->device.as_per_flop : 0;
    if (json) {
        strbuf_puts(&out, "{\"model\":");
        strbuf_put_json(&out, info->name, strlen(info->name));
        strbuf_printf(&out, ",\"synthetic\":%s,\"weights\":\"%s\",\"kv\":\"%s\",\"parameters\":%" PRIu64,
                      info->folder[0] ? "false" : "true", cinf_weights_name(info->weights),
                      cinf_kv_name(b->device.kv), info->parameters);
        strbuf_puts(&out, ",\"device\":");
        strbuf_put_json(&out, b->device.name, strlen(b->device.name));
        strbuf_puts(&out, ",\"device_description\":");
        strbuf_put_json(&out, b->device.description, strlen(b->device.description));
        strbuf_printf(&out,
                      ",\"threads\":%" PRIu32
                      ",\"device_gflop_per_second\":%.2f,\"device_gb_per_second\":%.2f"
                      ",\"load_seconds\":%.6f,\"resident_bytes\":%" PRIu64 ",\"resident_peak_bytes\":%" PRIu64
                      ",\"weight_bytes_per_token\":%" PRIu64,
                      b->device.threads, flops, bandwidth, seconds_of(b->load_ns), b->resident_bytes,
                      resident_peak(), bytes_per_token(info));
        strbuf_printf(&out, ",\n\"prefill\":[%s],\n\"decode\":[%s],\n\"parallel\":[%s]}",
                      b->prefill.len ? b->prefill.text : "", b->decode.len ? b->decode.text : "",
                      b->parallel.len ? b->parallel.text : "");
    } else {
        strbuf_printf(&out, "model     %s%s, %s, %.1f M parameters, context %" PRIu32 "\n", info->name,
                      info->folder[0] ? "" : " (made-up weights)", cinf_weights_name(info->weights),
                      (double)info->parameters / 1e6, info->config.n_positions);
        strbuf_printf(&out, "device    %s: %s\n", b->device.name, b->device.description);
        strbuf_printf(&out, "          measured %.1f GFLOP/s, %.1f GB/s\n", flops, bandwidth);
        strbuf_printf(&out, "memory    %.1f MB resident after loading in %.2f s, %.1f MB at most\n",
                      (double)b->resident_bytes / 1e6, seconds_of(b->load_ns), (double)resident_peak() / 1e6);
        strbuf_printf(&out, "weights   %.1f MB read a token\n\n%s", (double)bytes_per_token(info) / 1e6,
                      b->table.len ? b->table.text : "nothing fits the context\n");
        out.text[--out.len] = '\0'; /* print_document() ends the last line */
    }
    int status = print_document(&out);
    strbuf_free(&out);
    return status;
}

static int run_bench(struct bench *b, const struct session *session, bool json)
{
    b->model = session->model;
    b->load_ns = session->load_ns;
    b->info = (struct cinf_model_info){ CINF_MODEL_INFO };
    b->device = (struct cinf_device_info){ CINF_DEVICE_INFO };
    cinf_model_info(session->model, &b->info);
    cinf_engine_device(session->engine, &b->device);
    b->resident_bytes = resident_now();
    const struct cinf_config *c = &b->info.config;
    b->prompt = mem_new(c->n_positions, sizeof *b->prompt);
    if (!b->prompt)
        return fail_with("no memory for a prompt of %" PRIu32 " tokens", c->n_positions);
    for (uint32_t i = 0; i < c->n_positions; i++)
        b->prompt[i] = (int32_t)(((uint64_t)i * 7919 + 13) % c->vocab_size);
    int status = 1;
    if (measure_prefill(b) && measure_decode(b) && measure_streams(b))
        status = print_bench(b, json);
    mem_free(b->prompt);
    strbuf_free(&b->prefill);
    strbuf_free(&b->decode);
    strbuf_free(&b->parallel);
    strbuf_free(&b->table);
    return status;
}

static int run(const struct command *self, int argc, char **argv)
{
    struct common_flags common = { 0 };
    const char *shape = NULL;
    bool json = false;
    uint32_t seconds = 20;
    struct bench bench = { .runs = 5, .tokens = 32 };
    const struct flag flags[] = {
        MODEL_FLAG(&common),
        { "shape", FLAG_TEXT, &shape, 0, 0, "NAME",
          "Instead of a checkpoint made-up weights of a published shape: distilgpt2, gpt2,\n"
          "gpt2-medium, gpt2-large or gpt2-xl." },
        { "runs", FLAG_U32, &bench.runs, 1, RUNS_MAX, "N", "Runs a figure is the median of (default 5)." },
        { "tokens", FLAG_U32, &bench.tokens, 1, 4096, "N", "Tokens decoded in a run (default 32)." },
        { "seconds", FLAG_U32, &seconds, 0, 86400, "N",
          "A figure makes do with fewer runs after so long (default 20)." },
        { "json", FLAG_SWITCH, &json, 0, 0, NULL, "One JSON object." },
        DEVICE_FLAGS(&common),
        WEIGHTS_FLAG(&common),
    };
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, NULL);
    if (status != FLAGS_GO)
        return status;
    if ((common.model != NULL) + (shape != NULL) != 1)
        return usage_error(self, "exactly one of --model and --shape is needed");
    bench.budget_ns = (uint64_t)seconds * 1000000000;
    struct cinf_engine_options engine = { CINF_ENGINE_OPTIONS, .no_prefix_reuse = true };
    struct cinf_model_options model = { CINF_MODEL_OPTIONS, .shape = shape, .slots = STREAMS_MAX };
    struct session session;
    if (!session_open(&session, &common, &engine, &model))
        return 1;
    status = run_bench(&bench, &session, json);
    session_close(&session);
    return status;
}

const struct command command_bench = {
    .name = "bench",
    .summary = "how fast a model runs here",
    .synopsis = "(--model DIR | --shape NAME) [--json]",
    .manual =
        "Measures prefill (prompts of 128 and 512 tokens), decode (with 0, 128, 512 and 960 tokens\n"
        "before) and parallel streams (1 to 32 requests of one token each that decode together), as far\n"
        "as the context and the cache's memory allow.  Figures are medians, from the time on the device\n"
        "that requests are billed for.  GB/s is what a decode step has to read, weights and cache, times\n"
        "steps a second; the percentage is its share of the speed of memory measured at opening.\n",
    .run = run,
};
