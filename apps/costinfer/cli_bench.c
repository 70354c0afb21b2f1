/* cli_bench.c - how fast a model runs here.
 *
 * Every run is timed by two clocks: the device's time, which requests are billed for, and the time that the
 * caller waits, which is the one to compare with other programs.  A figure is the median of several runs
 * after one that is discarded.  Prompts are synthetic ids, and no run reuses the cache of an earlier one. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"
#include "cli_machine.h"
#include "clock.h"
#include "mem.h"

enum { STREAMS_MAX = 32, RUNS_MAX = 99, FIGURES_MAX = 16, CHARGES = 2000, PAGES = 20, TEXT_PASSES = 5 };

static const uint32_t prefill_sizes[] = { 128, 512 };
static const uint32_t depths[] = { 0, 128, 512, 960 };
static const uint32_t stream_counts[] = { 1, 2, 4, 8, 16, 32 };

enum kind { PREFILL, DECODE, STREAMS };

/* The result of one run: a number of tokens and their time. */
struct sample {
    uint64_t tokens, device_ns, wall_ns;
};

struct figure {
    enum kind kind;
    uint32_t size; /* the length of the prompt, the number of preceding tokens, or the number of streams */
    uint32_t runs; /* `sample` is their median */
    struct sample sample;
};

struct bench {
    struct cinf_model *model;
    struct cinf_model_info info;
    struct cinf_device_info device;
    struct machine_speed machine;
    bool logprobs;         /* requests ask for log-probabilities, which need all logits */
    uint32_t runs, tokens; /* measured runs for each figure; tokens decoded in each run */
    uint64_t budget_ns;    /* after this time, a figure uses the runs it has */
    uint64_t load_ns, resident_bytes, resident_peak_bytes;
    int32_t *prompt; /* [n_positions] synthetic ids */
    struct figure figures[FIGURES_MAX];
    uint32_t n_figures;
    uint64_t charge_ns[2];                     /* to split a step over 1 and over STREAMS_MAX requests */
    uint64_t page_ns, page_bytes;              /* to write the metrics of the engine */
    uint64_t text_bytes, encode_ns, decode_ns; /* of the tokenizer; 0 without a text */
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

/* Weights that one decode step reads. */
static uint64_t bytes_per_token(const struct bench *b)
{
    return b->logprobs ? b->info.weight_bytes : b->info.greedy_bytes;
}

/* The bytes that a decode step reads: weights, and the keys and values of every layer halfway through the
 * run. */
static uint64_t step_bytes(const struct bench *b, uint32_t depth)
{
    const struct cinf_config *c = &b->info.config;
    uint64_t element = b->device.kv == CINF_KV_F16 ? 2 : 4;
    return bytes_per_token(b) + 2 * element * c->n_layer * c->n_embd * (depth + b->tokens / 2);
}

/* Multiplications and additions of a prompt's matrix products and attention.  Only one row needs logits. */
static double prompt_flops(const struct cinf_config *c, uint32_t n)
{
    double d = c->n_embd, layer = 2 * (4 * d * d + 2 * d * c->n_inner) * n + 2 * d * n * (n + 1.0);
    return layer * c->n_layer + 2 * d * c->vocab_size;
}

/* ---- Measuring ------------------------------------------------------------------------------ */

static bool failed(void)
{
    fail_last();
    return false;
}

/* The smaller value; `a` is 0 before the first measurement. */
static uint64_t least(uint64_t a, uint64_t b)
{
    return a == 0 || b < a ? b : a;
}

/* Runs `n` requests concurrently to their ends and adds up their reports; first_token_ns is that of the last
 * request. False after a failure, which it has printed. */
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
        sum->first_token_ns = report.first_token_ns;
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

static bool take_sample(const struct bench *b, enum kind kind, uint32_t size, struct sample *out)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = b->prompt, .ignore_eos = true,
                                      .logprobs = b->logprobs && kind != PREFILL };
    o.n_prompt_ids = kind == STREAMS || size == 0 ? 1 : size;
    o.prompt_only = kind == PREFILL;
    o.max_tokens = kind == PREFILL ? 0 : b->tokens + (kind == DECODE);
    struct cinf_report sum;
    uint64_t start = clock_monotonic_ns();
    if (!run_requests(b->model, &o, kind == STREAMS ? size : 1, &sum))
        return false;
    uint64_t wall_ns = clock_monotonic_ns() - start;
    if (kind == PREFILL)
        *out = (struct sample){ size, sum.prefill_ns, wall_ns };
    else if (kind == DECODE) /* the prompt's last step yields the first token */
        *out = (struct sample){ sum.output_tokens - 1, sum.decode_ns, wall_ns - sum.first_token_ns };
    else
        *out = (struct sample){ sum.output_tokens, sum.device_ns, wall_ns };
    return true;
}

static int by_time(const void *a, const void *b)
{
    const struct sample *x = a, *y = b;
    return x->wall_ns < y->wall_ns ? -1 : x->wall_ns > y->wall_ns;
}

/* The median; for an even number of samples, the mean of the middle two. */
static struct sample median(struct sample *samples, uint32_t n)
{
    qsort(samples, n, sizeof *samples, by_time);
    struct sample a = samples[(n - 1) / 2], b = samples[n / 2];
    return (struct sample){ a.tokens, (a.device_ns + b.device_ns) / 2, (a.wall_ns + b.wall_ns) / 2 };
}

/* Adds a figure, unless it does not fit the context or the cache. */
static bool measure(struct bench *b, enum kind kind, uint32_t size)
{
    uint32_t positions = kind == PREFILL ? size : kind == DECODE ? size + b->tokens + 2 : b->tokens + 2;
    if (positions > b->info.config.n_positions || (kind == STREAMS && size > b->info.slots))
        return true;
    struct sample samples[RUNS_MAX];
    uint32_t n = 0;
    uint64_t start = clock_monotonic_ns();
    if (!take_sample(b, kind, size, &samples[0]))
        return false;
    while (n < b->runs && (n == 0 || clock_monotonic_ns() - start < b->budget_ns))
        if (!take_sample(b, kind, size, &samples[n++]))
            return false;
    b->figures[b->n_figures++] = (struct figure){ kind, size, n, median(samples, n) };
    return true;
}

static bool measure_figures(struct bench *b)
{
    bool good = true;
    for (size_t i = 0; i < sizeof prefill_sizes / sizeof *prefill_sizes && good; i++)
        good = measure(b, PREFILL, prefill_sizes[i]);
    for (size_t i = 0; i < sizeof depths / sizeof *depths && good; i++)
        good = measure(b, DECODE, depths[i]);
    for (size_t i = 0; i < sizeof stream_counts / sizeof *stream_counts && good; i++)
        good = measure(b, STREAMS, stream_counts[i]);
    return good;
}

/* Measures what accounting adds to a step, by splitting steps over n requests on a separate meter. */
static bool measure_charge(uint64_t *out, uint32_t n)
{
    struct cinf_meter *meter;
    struct cinf_share shares[STREAMS_MAX];
    uint32_t model, n_bills = 0;
    enum cinf_status status =
        cinf_meter_new(&meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .dollars_per_hour = "1" });
    if (status != CINF_OK)
        return failed();
    status = cinf_meter_add_model(meter, "bench", &model);
    while (status == CINF_OK && n_bills < n) {
        shares[n_bills] = (struct cinf_share){ .decode_weight = 1000 + n_bills, .output_tokens = 1 };
        status = cinf_bill_open(&shares[n_bills].bill, meter, model, 0);
        n_bills += status == CINF_OK;
    }
    cinf_meter_busy(meter);
    uint64_t start = clock_monotonic_ns();
    for (uint32_t i = 0; i < CHARGES && status == CINF_OK; i++)
        cinf_meter_charge(meter, shares, n);
    *out = (clock_monotonic_ns() - start) / CHARGES;
    for (uint32_t i = 0; i < n_bills; i++) {
        cinf_bill_close(shares[i].bill, CINF_FINISH_STOP);
        cinf_bill_free(shares[i].bill);
    }
    cinf_meter_free(meter);
    return status == CINF_OK || failed();
}

/* Measures how long a scrape of the engine's metrics takes; the shortest of several times counts. */
static bool measure_page(struct bench *b, const struct cinf_meter *meter)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        struct cinf_exposition *page;
        const char *text;
        size_t length = 0;
        uint64_t start = clock_monotonic_ns();
        if (cinf_exposition_new(&page, CINF_EXPOSITION_TEXT) != CINF_OK)
            return failed();
        enum cinf_status status = cinf_exposition_meter(page, meter);
        if (status == CINF_OK)
            status = cinf_exposition_finish(page, &text, &length);
        uint64_t ns = clock_monotonic_ns() - start;
        cinf_exposition_free(page);
        if (status != CINF_OK)
            return failed();
        b->page_ns = least(b->page_ns, ns);
        b->page_bytes = length;
    }
    return true;
}

static bool measure_tokenizer(struct bench *b, const char *path)
{
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(b->model);
    struct strbuf text = { 0 };
    if (!tokenizer) {
        fail_with("%s has no tokenizer to measure", b->info.name);
        return false;
    }
    if (!read_all(&text, path))
        return false;
    b->text_bytes = text.len;
    bool good = true;
    for (uint32_t i = 0; i < TEXT_PASSES && good; i++) {
        int32_t *ids = NULL;
        char *back = NULL;
        size_t n_ids, n_back;
        uint64_t start = clock_monotonic_ns();
        good = cinf_tokenizer_encode(tokenizer, text.text, text.len, 0, &ids, &n_ids) == CINF_OK;
        uint64_t encoded = clock_monotonic_ns();
        good = good && cinf_tokenizer_decode(tokenizer, ids, n_ids, &back, &n_back) == CINF_OK;
        uint64_t decoded = clock_monotonic_ns();
        b->encode_ns = least(b->encode_ns, encoded - start);
        b->decode_ns = least(b->decode_ns, decoded - encoded);
        cinf_text_free(back);
        cinf_ids_free(ids);
    }
    strbuf_free(&text);
    return good || failed();
}

/* ---- Printing ------------------------------------------------------------------------------- */

static double share_of(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* The numbers derived from a figure, named as in JSON and CSV. */
struct derived {
    double tokens_per_second;        /* of the device's time */
    double caller_tokens_per_second; /* of the time the caller waited */
    double speed, limit;             /* DECODE: GB/s, PREFILL: GFLOP/s; and the machine's own speed */
};

static struct derived derive(const struct bench *b, const struct figure *f)
{
    const struct sample *s = &f->sample;
    struct derived d = { rate_of(s->tokens, s->device_ns), rate_of(s->tokens, s->wall_ns), 0, 0 };
    if (f->kind == DECODE) {
        d.speed = d.caller_tokens_per_second * (double)step_bytes(b, f->size) / 1e9;
        d.limit = b->machine.gb_per_second;
    } else if (f->kind == PREFILL && s->wall_ns) {
        d.speed = prompt_flops(&b->info.config, f->size) / (double)s->wall_ns;
        d.limit = b->machine.gflop_per_second;
    }
    return d;
}

static const char *const kind_names[] = { "prefill", "decode", "parallel" };
static const char *const size_names[] = { "tokens", "depth", "streams" };

static void put_json_figures(struct json_writer *w, const struct bench *b, enum kind kind)
{
    json_new_line(w);
    json_open_array(w, kind_names[kind]);
    for (uint32_t i = 0; i < b->n_figures; i++) {
        const struct figure *f = &b->figures[i];
        if (f->kind != kind)
            continue;
        struct derived d = derive(b, f);
        json_new_line(w);
        json_open_object(w, NULL);
        json_put_u64(w, size_names[kind], f->size);
        json_put_u64(w, "runs", f->runs);
        json_put_format(w, "device_seconds", "%.9f", seconds_of(f->sample.device_ns));
        json_put_format(w, "seconds", "%.9f", seconds_of(f->sample.wall_ns));
        json_put_format(w, "tokens_per_second", "%.3f", d.caller_tokens_per_second);
        json_put_format(w, "device_tokens_per_second", "%.3f", d.tokens_per_second);
        if (kind == DECODE) {
            json_put_u64(w, "bytes_per_token", step_bytes(b, f->size));
            json_put_format(w, "gb_per_second", "%.3f", d.speed);
            json_put_format(w, "bandwidth_share", "%.4f", share_of(d.speed, d.limit));
        } else if (kind == PREFILL) {
            json_put_format(w, "gflop_per_second", "%.2f", d.speed);
            json_put_format(w, "peak_share", "%.4f", share_of(d.speed, d.limit));
        }
        json_close(w);
    }
    json_close(w);
}

static void put_json_accounting(struct json_writer *w, const struct bench *b)
{
    char charge[32];
    snprintf(charge, sizeof charge, "charge_%d_ns", STREAMS_MAX);
    json_new_line(w);
    json_open_object(w, "accounting");
    json_put_u64(w, "charge_1_ns", b->charge_ns[0]);
    json_put_u64(w, charge, b->charge_ns[1]);
    json_put_format(w, "page_us", "%.1f", (double)b->page_ns / 1e3);
    json_put_u64(w, "page_bytes", b->page_bytes);
    json_close(w);
}

static void put_json(struct strbuf *out, const struct bench *b)
{
    const struct cinf_model_info *info = &b->info;
    struct json_writer w = json_write_to(out);
    json_open_object(&w, NULL);
    json_put_text(&w, "model", info->name);
    json_put_bool(&w, "synthetic", !info->folder[0]);
    json_put_text(&w, "weights", cinf_weights_name(info->weights));
    json_put_text(&w, "kv", cinf_kv_name(b->device.kv));
    json_put_u64(&w, "parameters", info->parameters);
    json_put_text(&w, "device", b->device.name);
    json_put_text(&w, "device_description", b->device.description);
    json_put_bool(&w, "logprobs", b->logprobs);
    json_put_u64(&w, "threads", b->device.threads);
    json_put_format(&w, "machine_gflop_per_second", "%.2f", b->machine.gflop_per_second);
    json_put_format(&w, "machine_gb_per_second", "%.2f", b->machine.gb_per_second);
    json_put_format(&w, "load_seconds", "%.6f", seconds_of(b->load_ns));
    json_put_u64(&w, "resident_bytes", b->resident_bytes);
    json_put_u64(&w, "resident_peak_bytes", b->resident_peak_bytes);
    json_put_u64(&w, "weight_bytes_per_token", bytes_per_token(b));
    for (enum kind kind = PREFILL; kind <= STREAMS; kind++)
        put_json_figures(&w, b, kind);
    put_json_accounting(&w, b);
    if (b->text_bytes) {
        json_new_line(&w);
        json_open_object(&w, "tokenizer");
        json_put_u64(&w, "bytes", b->text_bytes);
        json_put_format(&w, "encode_mb_per_second", "%.2f", rate_of(b->text_bytes, b->encode_ns) / 1e6);
        json_put_format(&w, "decode_mb_per_second", "%.2f", rate_of(b->text_bytes, b->decode_ns) / 1e6);
        json_close(&w);
    }
    json_close(&w);
}

/* One figure a line. */
static void put_csv(struct strbuf *out, const struct bench *b)
{
    strbuf_printf(out,
                  "figure,value,unit\nload,%.6f,s\nresident,%" PRIu64 ",bytes\nresident_peak,%" PRIu64
                  ",bytes\nmachine_read,%.3f,GB/s\nmachine_fma,%.2f,GFLOP/s\n",
                  seconds_of(b->load_ns), b->resident_bytes, b->resident_peak_bytes, b->machine.gb_per_second,
                  b->machine.gflop_per_second);
    for (uint32_t i = 0; i < b->n_figures; i++) {
        const struct figure *f = &b->figures[i];
        struct derived d = derive(b, f);
        strbuf_printf(out, "%s_%" PRIu32 ",%.3f,tokens/s\n", kind_names[f->kind], f->size,
                      d.caller_tokens_per_second);
        if (f->kind != STREAMS)
            strbuf_printf(out, "%s_%" PRIu32 "_%s,%.3f,%s\n", kind_names[f->kind], f->size,
                          f->kind == DECODE ? "read" : "compute", d.speed,
                          f->kind == DECODE ? "GB/s" : "GFLOP/s");
    }
    strbuf_printf(out, "charge_1,%" PRIu64 ",ns\ncharge_%d,%" PRIu64 ",ns\nmetrics_page,%" PRIu64 ",ns",
                  b->charge_ns[0], STREAMS_MAX, b->charge_ns[1], b->page_ns);
    if (b->text_bytes)
        strbuf_printf(out, "\ntokenizer_encode,%.2f,MB/s\ntokenizer_decode,%.2f,MB/s",
                      rate_of(b->text_bytes, b->encode_ns) / 1e6, rate_of(b->text_bytes, b->decode_ns) / 1e6);
}

static void put_table(struct strbuf *out, const struct bench *b)
{
    const struct cinf_model_info *info = &b->info;
    strbuf_printf(out, "model     %s%s, %s, %.1f M parameters, context %" PRIu32 "\n", info->name,
                  info->folder[0] ? "" : " (synthetic weights)", cinf_weights_name(info->weights),
                  (double)info->parameters / 1e6, info->config.n_positions);
    strbuf_printf(out, "device    %s: %s\n", b->device.name, b->device.description);
    strbuf_printf(out, "machine   reads %.1f GB/s, multiplies and adds %.1f GFLOP/s\n",
                  b->machine.gb_per_second, b->machine.gflop_per_second);
    strbuf_printf(out, "memory    %.1f MB resident after loading in %.2f s, %.1f MB at most\n",
                  (double)b->resident_bytes / 1e6, seconds_of(b->load_ns),
                  (double)b->resident_peak_bytes / 1e6);
    strbuf_printf(out, "weights   %.1f MB read a token\n", (double)bytes_per_token(b) / 1e6);
    strbuf_printf(out, "accounts  %.2f us a step of 1 request, %.2f us of %d; metrics page %.0f us\n",
                  (double)b->charge_ns[0] / 1e3, (double)b->charge_ns[1] / 1e3, STREAMS_MAX,
                  (double)b->page_ns / 1e3);
    if (b->text_bytes)
        strbuf_printf(out, "tokenizer %.1f MB/s into tokens, %.1f MB/s back\n",
                      rate_of(b->text_bytes, b->encode_ns) / 1e6, rate_of(b->text_bytes, b->decode_ns) / 1e6);
    for (uint32_t i = 0; i < b->n_figures; i++) {
        const struct figure *f = &b->figures[i];
        struct derived d = derive(b, f);
        double speed = d.caller_tokens_per_second;
        strbuf_putc(out, '\n');
        if (f->kind == PREFILL)
            strbuf_printf(
                out, "prefill   %5" PRIu32 " tokens   %10.1f tokens/s  %9.3f s  %10.1f GFLOP/s (%.0f %%)",
                f->size, speed, seconds_of(f->sample.wall_ns), d.speed, 100 * share_of(d.speed, d.limit));
        else if (f->kind == DECODE)
            strbuf_printf(
                out, "decode    %5" PRIu32 " before   %10.1f tokens/s  %9.3f ms each  %6.2f GB/s (%.0f %%)",
                f->size, speed, speed > 0 ? 1e3 / speed : 0, d.speed, 100 * share_of(d.speed, d.limit));
        else
            strbuf_printf(out, "streams   %5" PRIu32 " parallel %10.1f tokens/s  %9.1f tokens/s each",
                          f->size, speed, speed / f->size);
    }
}

static bool measure_everything(struct bench *b, const struct session *session, const char *text_path)
{
    const struct cinf_config *c = &b->info.config;
    b->prompt = mem_new(c->n_positions, sizeof *b->prompt);
    if (!b->prompt) {
        fail_with("no memory for a prompt of %" PRIu32 " tokens", c->n_positions);
        return false;
    }
    for (uint32_t i = 0; i < c->n_positions; i++)
        b->prompt[i] = (int32_t)(((uint64_t)i * 7919 + 13) % c->vocab_size);
    bool good = measure_figures(b) && measure_charge(&b->charge_ns[0], 1) &&
                measure_charge(&b->charge_ns[1], STREAMS_MAX) &&
                measure_page(b, cinf_engine_meter(session->engine)) &&
                (!text_path || measure_tokenizer(b, text_path));
    mem_free(b->prompt);
    b->resident_peak_bytes = resident_peak(); /* machine_measure() would add to it */
    b->machine = machine_measure(b->device.threads);
    return good;
}

enum form { FORM_TABLE, FORM_JSON, FORM_CSV };

static int run_bench(struct bench *b, const struct session *session, const char *text_path, enum form form)
{
    b->model = session->model;
    b->load_ns = session->load_ns;
    b->info = (struct cinf_model_info){ CINF_MODEL_INFO };
    b->device = (struct cinf_device_info){ CINF_DEVICE_INFO };
    cinf_model_info(session->model, &b->info);
    cinf_engine_device(session->engine, &b->device);
    b->resident_bytes = resident_now();
    if (!measure_everything(b, session, text_path))
        return 1;
    struct strbuf out = { 0 };
    (form == FORM_JSON ? put_json : form == FORM_CSV ? put_csv : put_table)(&out, b);
    int status = print_document(&out);
    strbuf_free(&out);
    return status;
}

static int run(const struct command *self, int argc, char **argv)
{
    struct common_flags common = { 0 };
    const char *shape = NULL, *text_path = NULL;
    bool json = false, csv = false;
    uint32_t seconds = 20;
    struct bench bench = { .runs = 5, .tokens = 32 };
    const struct flag flags[] = {
        MODEL_FLAG(&common),
        { "shape", FLAG_TEXT, &shape, 0, 0, "NAME",
          "Instead of a checkpoint, synthetic weights of a published shape: distilgpt2, gpt2,\n"
          "gpt2-medium, gpt2-large or gpt2-xl." },
        { "runs", FLAG_U32, &bench.runs, 1, RUNS_MAX, "N",
          "The number of runs for each figure, which is their median (default 5)." },
        { "tokens", FLAG_U32, &bench.tokens, 1, 4096, "N", "Tokens decoded in a run (default 32)." },
        { "seconds", FLAG_U32, &seconds, 0, 86400, "N",
          "After this time, a figure uses the runs it has (default 20)." },
        { "logprobs", FLAG_SWITCH, &bench.logprobs, 0, 0, NULL,
          "Requests ask for log-probabilities, which need all logits.  Finding only the most likely\n"
          "token may need fewer." },
        { "text", FLAG_TEXT, &text_path, 0, 0, "FILE",
          "Also measures the tokenizer, on this text (\"-\": standard input)." },
        { "json", FLAG_SWITCH, &json, 0, 0, NULL, "One JSON object." },
        { "csv", FLAG_SWITCH, &csv, 0, 0, NULL, "CSV lines: figure,value,unit." },
        PROFILE_FLAG(&common),
        DEVICE_FLAGS(&common),
        WEIGHTS_FLAG(&common),
    };
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, NULL);
    if (status != FLAGS_GO)
        return status;
    if ((common.model != NULL) + (shape != NULL) != 1)
        return usage_error(self, "exactly one of --model and --shape is needed");
    if (text_path && !common.model)
        return usage_error(self, "--text needs --model: a synthetic model has no tokenizer");
    if (json && csv)
        return usage_error(self, "--json and --csv exclude each other");
    bench.budget_ns = (uint64_t)seconds * 1000000000;
    /* Generation from synthetic prompts ends in loops, which speculation would make unrealistically fast. */
    struct cinf_engine_options engine = { CINF_ENGINE_OPTIONS, .no_prefix_reuse = true,
                                          .no_speculation = true };
    struct cinf_model_options model = { CINF_MODEL_OPTIONS, .shape = shape, .slots = STREAMS_MAX };
    struct session session;
    if (!session_open(&session, &common, &engine, &model))
        return 1;
    status = run_bench(&bench, &session, text_path, json ? FORM_JSON : csv ? FORM_CSV : FORM_TABLE);
    session_close(&session);
    return status;
}

const struct command command_bench = {
    .name = "bench",
    .summary = "measure how fast a model runs",
    .synopsis = "(--model DIR | --shape NAME) [--json | --csv]",
    .manual =
        "Measures prefill (prompts of 128 and 512 tokens), decode (after 0, 128, 512 and 960 tokens) and\n"
        "parallel streams (1 to 32 requests with one-token prompts that decode together), as far as the\n"
        "context and the cache's memory allow.  It also measures loading, memory, the cost of accounting\n"
        "in each step, and with --text the tokenizer.  Figures are medians of the time that a caller\n"
        "waits; --json also has the time on the device that requests are billed for.\n"
        "\n"
        "GB/s counts the bytes that decode steps have to read (weights and cache), GFLOP/s the operations\n"
        "that a prompt needs.  Percentages compare them with the machine's best speed, measured after the\n"
        "figures: reading memory, and float32 multiply-adds (int8 can exceed those).\n",
    .run = run,
};
