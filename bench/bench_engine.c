/* bench_engine.c - what the engine costs on top of its device, and what speculation saves.
 *
 *     bench_engine (--model DIR | --shape NAME) [--weights TYPE] [--tokens N] [--rounds N]
 *
 * Prints lines of JSON.  "accounts": a loop of steps, computed and sampled as the engine does, with and
 * without the engine's accounting, in alternating blocks of a few steps; engine_us is a step of the engine
 * itself, with events, scheduling and the threads that read.  "speculation": texts with and without it,
 * greedy and sampled; within a round the two alternate, and the ratio is the median of the rounds' ratios.
 * "gaps": the waits between the tokens of one text while a prompt of nearly the whole context is computed in
 * pieces of prefill_rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "clock.h"
#include "engine_state.h"
#include "step_weight.h"

enum { STREAMS_MAX = 16, ROUNDS_MAX = 99, PROMPT = 8 };

static const char *const prompts[] = { "Once upon a time",  "There was once a shy girl",
                                       "Long ago, a",       "Anna and Ben",
                                       "Every morning the", "One day Tom",
                                       "In a small house",  "The old man" };
enum { N_PROMPTS = sizeof prompts / sizeof *prompts };

struct bench {
    struct cinf_engine *engine;
    struct cinf_model *model;
    const char *name, *weights;
    uint32_t tokens, rounds;
};

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "bench_engine: %s\n", cinf_last_error());
        exit(EXIT_FAILURE);
    }
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *samples, size_t n)
{
    qsort(samples, n, sizeof *samples, ascending);
    return n % 2 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
}

/* Gives each text its own prompt: words, or ids for a model without a tokenizer. */
static void set_prompt(const struct bench *b, struct cinf_request_options *o, uint32_t i, int32_t ids[PROMPT])
{
    if (b->model->tokenizer) {
        o->prompt = prompts[i % N_PROMPTS];
        return;
    }
    for (uint32_t k = 0; k < PROMPT; k++)
        ids[k] = (int32_t)((i * 104729 + k * 7919 + 13) % b->model->config.vocab_size);
    o->prompt_ids = ids;
    o->n_prompt_ids = PROMPT;
}

/* Returns nanoseconds from the first submission to the last end, and adds the reports to *sum. */
static uint64_t run_engine(const struct bench *b, const struct cinf_request_options *options, uint32_t first,
                           uint32_t streams, struct cinf_report *sum)
{
    struct cinf_request *requests[STREAMS_MAX];
    uint64_t start = clock_monotonic_ns();
    for (uint32_t i = 0; i < streams; i++) {
        struct cinf_request_options o = *options;
        int32_t ids[PROMPT];
        o.seed = first + i + 1;
        set_prompt(b, &o, first + i, ids);
        check(cinf_request_submit(&requests[i], b->model, &o));
    }
    for (uint32_t i = 0; i < streams; i++) {
        struct cinf_event event = { CINF_EVENT };
        struct cinf_report report = { CINF_REPORT };
        while (event.kind != CINF_EVENT_END)
            check(cinf_request_next(requests[i], UINT64_MAX, &event));
        cinf_request_report(requests[i], &report);
        sum->output_tokens += report.output_tokens;
        sum->decode_ns += report.decode_ns;
        sum->drafted_tokens += report.drafted_tokens;
        sum->accepted_tokens += report.accepted_tokens;
    }
    uint64_t ns = clock_monotonic_ns() - start;
    for (uint32_t i = 0; i < streams; i++)
        cinf_request_free(requests[i]);
    return ns;
}

/* ---- Accounts ------------------------------------------------------------------------------- */

enum { BLOCK = 8 };

/* The accounts of the bench's own loop: a meter, and a bill for each text. */
struct books {
    struct cinf_meter *meter;
    struct cinf_bill *bills[STREAMS_MAX];
    uint64_t ns, steps; /* time spent on them, and the number of steps */
};

/* Does what the scheduler does for the accounts after a step of one row of each text. */
static void keep_books(const struct bench *b, const struct books *books, uint32_t position, uint32_t streams)
{
    const struct cinf_device_info *d = &b->engine->device_info;
    struct cinf_share shares[STREAMS_MAX];
    u128 weights[STREAMS_MAX], total = 0;
    for (uint32_t i = 0; i < streams; i++) {
        struct model_work work = model_work_of(b->model->runtime, position, 1, 1, false);
        total += weights[i] = step_weight(&work, 0, d->as_per_flop, d->as_per_byte);
    }
    unsigned shift = step_weight_shift(total);
    for (uint32_t i = 0; i < streams; i++) {
        shares[i] = (struct cinf_share){ .bill = books->bills[i],
                                         .decode_weight = (uint64_t)(weights[i] >> shift),
                                         .output_tokens = 1 };
        cinf_bill_count_drafts(books->bills[i], 0, 0);
    }
    cinf_meter_charge(books->meter, shares, streams);
}

/* Computes and samples steps of one row of each text while the scheduler sleeps; with accounts unless `books`
 * is NULL. */
static uint64_t run_bare(const struct bench *b, struct books *books, uint32_t first, uint32_t steps,
                         uint32_t streams)
{
    struct model *runtime = b->model->runtime;
    uint32_t vocab = b->model->config.vocab_size;
    int32_t tokens[STREAMS_MAX];
    uint32_t positions[STREAMS_MAX], slots[STREAMS_MAX];
    uint8_t wants[STREAMS_MAX];
    struct sampling greedy = { .temperature = 0 };
    struct batch batch = { streams, tokens, positions, slots, wants };
    for (uint32_t i = 0; i < streams; i++) {
        tokens[i] = (int32_t)((i * 7919 + 13) % vocab);
        slots[i] = i;
        wants[i] = 1;
    }
    uint64_t start = clock_monotonic_ns();
    for (uint32_t step = 0; step < steps; step++) {
        for (uint32_t i = 0; i < streams; i++)
            positions[i] = first + step;
        check(model_run(runtime, &batch));
        check(model_wait(runtime));
        for (uint32_t i = 0; i < streams; i++) {
            const float *logits;
            check(model_logits(runtime, i, &logits));
            tokens[i] = sampler_pick(&b->engine->step.samplers[0], logits, vocab, b->model->allowed, &greedy,
                                     0, tokens + i, 1, 1);
        }
        if (books) {
            uint64_t begin = clock_monotonic_ns();
            keep_books(b, books, first + step, streams);
            books->ns += clock_monotonic_ns() - begin;
            books->steps++;
        }
    }
    return clock_monotonic_ns() - start;
}

static void measure_accounts(const struct bench *b, uint32_t streams)
{
    static double off_us[ROUNDS_MAX * 128], ratio[ROUNDS_MAX * 128], engine_us[ROUNDS_MAX];
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true, .max_tokens = b->tokens };
    struct books books = { .meter = NULL };
    uint32_t account;
    size_t n = 0;
    check(cinf_meter_new(&books.meter,
                         &(struct cinf_meter_options){ CINF_METER_OPTIONS, .dollars_per_hour = "0.10" }));
    check(cinf_meter_add_model(books.meter, "bench", &account));
    for (uint32_t i = 0; i < streams; i++)
        check(cinf_bill_open(&books.bills[i], books.meter, account, 0));
    for (uint32_t round = 0; round < b->rounds; round++) {
        struct cinf_report sum = { CINF_REPORT };
        run_engine(b, &o, 0, streams, &sum);
        /* All texts decode in the same steps, whose whole time is charged to them. */
        engine_us[round] = (double)sum.decode_ns / (b->tokens - 1) / 1e3;
        run_bare(b, NULL, PROMPT, BLOCK, streams);
        for (uint32_t at = 0; at + BLOCK < b->tokens && at < 128 * BLOCK; at += BLOCK, n++) {
            bool on_first = n % 2;
            double us[2];
            for (int turn = 0; turn < 2; turn++) {
                bool on = (turn == 0) == on_first;
                us[on] = (double)run_bare(b, on ? &books : NULL, PROMPT + at, BLOCK, streams) / BLOCK / 1e3;
            }
            off_us[n] = us[0];
            ratio[n] = us[0] / us[1];
        }
    }
    for (uint32_t i = 0; i < streams; i++) {
        cinf_bill_close(books.bills[i], CINF_FINISH_LENGTH);
        cinf_bill_free(books.bills[i]);
    }
    cinf_meter_free(books.meter);
    printf("{\"case\":\"accounts\",\"model\":\"%s\",\"weights\":\"%s\",\"streams\":%u,\"steps\":%zu,"
           "\"step_us\":%.2f,\"accounts_us\":%.3f,\"speed\":%.4f,\"engine_us\":%.2f}\n",
           b->name, b->weights, streams, n * BLOCK, median(off_us, n),
           (double)books.ns / (double)books.steps / 1e3, median(ratio, n), median(engine_us, b->rounds));
    fflush(stdout);
}

/* ---- Speculation ----------------------------------------------------------------------------- */

static void measure_speculation(const struct bench *b, const char *text, float temperature, uint32_t streams)
{
    static double off[ROUNDS_MAX], on[ROUNDS_MAX], ratio[ROUNDS_MAX];
    struct cinf_report without = { CINF_REPORT }, with = { CINF_REPORT };
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true, .max_tokens = b->tokens,
                                      .temperature = temperature };
    const float row_time = b->model->row_time;
    for (uint32_t round = 0; round < b->rounds; round++) {
        uint64_t ns[2] = { 0, 0 };
        for (int turn = 0; turn < 4; turn++) { /* off on on off */
            bool is_on = turn == 1 || turn == 2;
            b->model->row_time = is_on ? row_time : 0;
            ns[is_on] += run_engine(b, &o, round * streams, streams, is_on ? &with : &without);
        }
        double n = 2.0 * streams * b->tokens;
        off[round] = n / (double)ns[0] * 1e9;
        on[round] = n / (double)ns[1] * 1e9;
        ratio[round] = on[round] / off[round];
    }
    b->model->row_time = row_time;
    double worst = ratio[0];
    for (uint32_t round = 1; round < b->rounds; round++)
        worst = ratio[round] < worst ? ratio[round] : worst;
    printf("{\"case\":\"speculation\",\"model\":\"%s\",\"weights\":\"%s\",\"text\":\"%s\",\"streams\":%u,"
           "\"rounds\":%u,\"row_time\":%.3f,\"off_tokens_per_s\":%.1f,\"on_tokens_per_s\":%.1f,"
           "\"speed\":%.3f,\"worst\":%.3f,\"drafted\":%.3f,\"accepted\":%.3f}\n",
           b->name, b->weights, text, streams, b->rounds, (double)row_time, median(off, b->rounds),
           median(on, b->rounds), median(ratio, b->rounds), worst,
           (double)with.drafted_tokens / with.output_tokens,
           (double)with.accepted_tokens / with.output_tokens);
    fflush(stdout);
}

/* ---- A long prompt beside a text -------------------------------------------------------------- */

enum { GAPS_MAX = 4096 };

/* Measures the waits between a text's tokens while a prompt of nearly the whole context is computed. */
static void measure_gaps(const struct bench *b, uint32_t prefill_rows)
{
    static double gap_ms[GAPS_MAX];
    uint32_t vocab = b->model->config.vocab_size, n_prompt = b->model->config.n_positions - 2;
    int32_t *ids = malloc(n_prompt * sizeof *ids), own[PROMPT];
    double prompt_ms = 0;
    size_t n = 0;
    if (!ids)
        exit(EXIT_FAILURE);
    b->engine->prefill_rows = prefill_rows;
    for (uint32_t round = 0; round < b->rounds; round++) {
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true };
        struct cinf_event event = { CINF_EVENT };
        struct cinf_request *text, *prompt;
        for (uint32_t i = 0; i < n_prompt; i++)
            ids[i] = (int32_t)((i * 7919 + round * 31 + 17) % vocab);
        set_prompt(b, &o, round, own);
        check(cinf_request_submit(&text, b->model, &o));
        check(cinf_request_next(text, UINT64_MAX, &event));
        check(cinf_request_submit(&prompt, b->model,
                                  &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt_ids = ids,
                                                                  .n_prompt_ids = n_prompt,
                                                                  .prompt_only = true }));
        uint64_t start = clock_monotonic_ns(), last = start, now;
        struct cinf_event end = { CINF_EVENT };
        while (event.kind != CINF_EVENT_END && cinf_request_next(prompt, 0, &end) != CINF_OK) {
            check(cinf_request_next(text, UINT64_MAX, &event));
            now = clock_monotonic_ns();
            if (n < GAPS_MAX)
                gap_ms[n++] = (double)(now - last) / 1e6;
            last = now;
        }
        prompt_ms += (double)(last - start) / 1e6 / b->rounds;
        cinf_request_free(text);
        cinf_request_free(prompt);
    }
    free(ids);
    qsort(gap_ms, n, sizeof *gap_ms, ascending);
    printf("{\"case\":\"gaps\",\"model\":\"%s\",\"weights\":\"%s\",\"prefill_rows\":%u,\"gaps\":%zu,"
           "\"median_ms\":%.2f,\"p99_ms\":%.2f,\"prompt_ms\":%.1f}\n",
           b->name, b->weights, prefill_rows, n, gap_ms[n / 2], gap_ms[n * 99 / 100], prompt_ms);
    fflush(stdout);
}

static uint32_t number(const char *text, uint32_t max)
{
    long value = strtol(text, NULL, 10);
    if (value < 2 || value > (long)max) {
        fprintf(stderr, "bench_engine: %s must be from 2 to %u\n", text, max);
        exit(EXIT_FAILURE);
    }
    return (uint32_t)value;
}

int main(int argc, char **argv)
{
    static const uint32_t streams[] = { 1, 2, 4, 8 }, rows[] = { 32, 64, 128, 256 };
    struct bench b = { .tokens = 100, .rounds = 7 };
    struct cinf_model_options mo = { CINF_MODEL_OPTIONS };
    struct cinf_engine_options eo = { CINF_ENGINE_OPTIONS, .device = "cpu", .no_prefix_reuse = true,
                                      .prefill_rows = 256 };
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--model") == 0)
            mo.folder = argv[i + 1];
        else if (strcmp(argv[i], "--shape") == 0)
            mo.shape = argv[i + 1];
        else if (strcmp(argv[i], "--weights") == 0)
            check(cinf_weights_parse(&mo.weights, argv[i + 1]));
        else if (strcmp(argv[i], "--tokens") == 0)
            b.tokens = number(argv[i + 1], 1000);
        else if (strcmp(argv[i], "--rounds") == 0)
            b.rounds = number(argv[i + 1], ROUNDS_MAX);
    }
    check(cinf_engine_open(&b.engine, &eo));
    check(cinf_model_load(&b.model, b.engine, &mo));
    if (b.tokens + 2 * PROMPT > b.model->config.n_positions)
        b.tokens = b.model->config.n_positions - 2 * PROMPT;
    b.name = b.model->name;
    b.weights = cinf_weights_name(b.model->weights);

    const float row_time = b.model->row_time;
    struct cinf_report warm = { CINF_REPORT };
    run_engine(&b, &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .max_tokens = 10 }, 0, 1, &warm);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        measure_gaps(&b, rows[i]);
    b.engine->prefill_rows = 128;
    b.model->row_time = 0;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        measure_accounts(&b, streams[i]);
    b.model->row_time = row_time;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        measure_speculation(&b, "greedy", 0, streams[i]);
        measure_speculation(&b, "sampled", 1, streams[i]);
    }
    cinf_model_release(b.model);
    cinf_engine_close(b.engine);
    return EXIT_SUCCESS;
}
