/* bench_backend.c - how fast a device runs GPT-2 124M, compared with the limits of the machine.
 *
 *     bench_backend [DEVICE [ROUNDS]]        JSON lines; "auto" and 5
 *
 * Each round measures the limits (reading memory, the device's matrix product) and then every case, so that
 * both see the same machine; figures are medians over rounds, and the best round.  A case's limit is
 *
 *     max(FLOPs at the product's rate, weights at the read rate) + keys and values at the read rate
 *
 * and its share is the part of its time that this limit explains.  Weights are synthetic and written through
 * the backend's interface; the time of a step does not depend on their values. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <costinfer/status.h>

#include "backend.h"
#include "clock.h"

enum { D = 768, H = 12, I = 3072, V = 50257, P = 1024, L = 12 };
enum { ROWS_MAX = 512, SLOTS = 8, ROUNDS_MAX = 31 };
enum { TOKENS, POSITIONS, NORM_F, NORM_F_BIAS, FIRST_LAYER, LAYER_SPECS = 12 };
enum { N_SPECS = FIRST_LAYER + L * LAYER_SPECS, N_OPS = 3 + L * 7 };

static struct weight_spec specs[N_SPECS];
static struct op ops[N_OPS];
static const struct program program = { ops, N_OPS, specs, N_SPECS, D, I, H, L, V, P };

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "bench_backend: %s\n", cinf_last_error());
        exit(EXIT_FAILURE);
    }
}

static void build_program(void)
{
    static const struct weight_spec layer[LAYER_SPECS] = {
        { WEIGHT_VECTOR, 1, D },     { WEIGHT_VECTOR, 1, D }, /* norm */
        { WEIGHT_MATRIX, D, 3 * D }, { WEIGHT_VECTOR, 1, 3 * D }, { WEIGHT_MATRIX, D, D },
        { WEIGHT_VECTOR, 1, D },     { WEIGHT_VECTOR, 1, D },     { WEIGHT_VECTOR, 1, D }, /* norm */
        { WEIGHT_MATRIX, D, I },     { WEIGHT_VECTOR, 1, I },     { WEIGHT_MATRIX, I, D },
        { WEIGHT_VECTOR, 1, D },
    };
    const float epsilon = 1e-5f, scale = 0.125f;
    struct op *op = ops;
    specs[TOKENS] = (struct weight_spec){ WEIGHT_TOKENS, V, D };
    specs[POSITIONS] = (struct weight_spec){ WEIGHT_TABLE, P, D };
    specs[NORM_F] = specs[NORM_F_BIAS] = layer[0];
    *op++ = (struct op){ .kind = OP_EMBED, .out = ROWS_X, .weight = TOKENS, .weight2 = POSITIONS };
    for (uint32_t l = 0; l < L; l++) {
        uint32_t w = FIRST_LAYER + l * LAYER_SPECS;
        memcpy(specs + w, layer, sizeof layer);
        *op++ = (struct op){ OP_NORM, ROWS_X, ROWS_H, .weight = w, .bias = w + 1, .epsilon = epsilon };
        *op++ = (struct op){ OP_LINEAR,
                             ROWS_H,
                             ROWS_Q,
                             .weight = w + 2,
                             .bias = w + 3,
                             .layer = l,
                             .epilogue = EPILOGUE_QKV,
                             .q_cols = D,
                             .k_cols = D,
                             .v_cols = D };
        *op++ = (struct op){ OP_ATTEND, ROWS_Q, ROWS_A, .layer = l, .scale = scale };
        *op++ = (struct op){ OP_LINEAR,       ROWS_A,        ROWS_X,
                             .weight = w + 4, .bias = w + 5, .epilogue = EPILOGUE_ADD };
        *op++ = (struct op){ OP_NORM, ROWS_X, ROWS_H, .weight = w + 6, .bias = w + 7, .epsilon = epsilon };
        *op++ = (struct op){ OP_LINEAR,       ROWS_H,        ROWS_F,
                             .weight = w + 8, .bias = w + 9, .epilogue = EPILOGUE_ACTIVATION };
        *op++ = (struct op){ OP_LINEAR,        ROWS_F,         ROWS_X,
                             .weight = w + 10, .bias = w + 11, .epilogue = EPILOGUE_ADD };
    }
    *op++ = (struct op){ OP_NORM, ROWS_X, ROWS_H, .weight = NORM_F, .bias = NORM_F_BIAS, .epsilon = epsilon };
    *op = (struct op){ .kind = OP_LOGITS, .in = ROWS_H, .weight = TOKENS };
}

/* Uniform with standard deviation 0.02; vectors are around 1, so that norms keep their rows' size. */
static void write_weights(const struct backend *backend, struct weights *weights)
{
    static float row[3 * D > I ? 3 * D : I];
    uint32_t state = 1;
    for (uint32_t w = 0; w < N_SPECS; w++) {
        for (uint32_t r = 0; r < specs[w].rows; r++) {
            for (uint32_t c = 0; c < specs[w].cols; c++) {
                state = state * 1664525u + 1013904223u;
                row[c] =
                    ((float)(state >> 8) * 0x1p-24f - 0.5f) * 0.069f + (specs[w].rows == 1 ? 1.0f : 0.0f);
            }
            check(backend->weights_write(weights, w, r, 1, row, CINF_DTYPE_F32));
        }
    }
    bool done = false;
    while (!done)
        check(backend->weights_finish(weights, &done));
}

/* ---- The limits --------------------------------------------------------------------------- */

enum { READERS_MAX = 256, READ_BYTES = 256 << 20 };

struct reader {
    pthread_t thread;
    const float *part;
    size_t n;
    float sum;
};

/* Reads four streams concurrently, which keeps all memory requests of a core busy. */
static void *read_part(void *argument)
{
    typedef float vector __attribute__((vector_size(64), aligned(4), may_alias));
    struct reader *reader = argument;
    const float *a = reader->part;
    size_t quarter = reader->n / 4;
    vector s0 = { 0 }, s1 = { 0 }, s2 = { 0 }, s3 = { 0 };
    for (size_t i = 0; i + 16 <= quarter; i += 16) {
        s0 += *(const vector *)(a + i);
        s1 += *(const vector *)(a + quarter + i);
        s2 += *(const vector *)(a + 2 * quarter + i);
        s3 += *(const vector *)(a + 3 * quarter + i);
    }
    s0 += s1 + s2 + s3;
    for (size_t j = 0; j < 16; j++)
        reader->sum += s0[j];
    return NULL;
}

/* Returns the GB/s of all processors together. */
static double read_rate(const float *block)
{
    static struct reader readers[READERS_MAX];
    long n_online = sysconf(_SC_NPROCESSORS_ONLN);
    size_t n = n_online < 1 ? 1 : n_online > READERS_MAX ? READERS_MAX : (size_t)n_online;
    size_t part = READ_BYTES / sizeof *block / n / 64 * 64;
    uint64_t start = clock_monotonic_ns();
    for (size_t i = 0; i < n; i++) {
        readers[i].part = block + i * part;
        readers[i].n = part;
        if (i > 0 && pthread_create(&readers[i].thread, NULL, read_part, &readers[i]) != 0)
            exit(EXIT_FAILURE);
    }
    read_part(&readers[0]);
    for (size_t i = 1; i < n; i++)
        pthread_join(readers[i].thread, NULL);
    return (double)(n * part * sizeof *block) / (double)(clock_monotonic_ns() - start);
}

/* ---- Cases --------------------------------------------------------------------------------- */

/* `rows` rows: one of each of `slots` slots at `depth`, or a prompt's beginning in slot 0. */
static const struct bench_case {
    const char *name;
    uint32_t rows, slots, depth, repeats;
} cases[] = {
    { "prefill", 128, 1, 0, 1 },   { "prefill", 512, 1, 0, 1 }, { "decode", 1, 1, 0, 8 },
    { "decode", 1, 1, 512, 8 },    { "decode", 1, 1, 1000, 8 }, { "decode", 2, 2, 0, 4 },
    { "decode", 4, 4, 0, 4 },      { "decode", 8, 8, 0, 4 },    { "decode", 8, 8, 512, 4 },
    { "prefill", 512, 1, 512, 1 },
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static double flops_of(const struct bench_case *c)
{
    double layers = (double)L * (3 * D * D + D * D + 2 * D * I), head = (double)V * D;
    double seen = (double)c->depth + (c->slots > 1 ? 1 : (double)(c->rows + 1) / 2);
    return 2 * (layers * c->rows + head * c->slots + 2.0 * L * D * seen * c->rows);
}

static double cache_bytes_of(const struct bench_case *c)
{
    return 2.0 * L * D * sizeof(float) * c->slots * (c->depth + c->rows / c->slots);
}

/* Returns the nanoseconds of a step. */
static double run_case(const struct backend *backend, struct prepared *prepared, const struct bench_case *c)
{
    static int32_t tokens[ROWS_MAX];
    static uint32_t positions[ROWS_MAX], slots[ROWS_MAX];
    static uint8_t wants[ROWS_MAX];
    struct batch batch = { c->rows, tokens, positions, slots, wants };
    uint64_t start = clock_monotonic_ns();
    for (uint32_t n = 0; n < c->repeats; n++) {
        for (uint32_t r = 0; r < c->rows; r++) {
            tokens[r] = (int32_t)((r * 7919 + n * 104729 + c->depth) % V);
            slots[r] = c->slots > 1 ? r : 0;
            positions[r] = c->depth + (c->slots > 1 || c->rows == 1 ? n : r);
            wants[r] = c->slots > 1 || r + 1 == c->rows ? LOGITS_ALL : LOGITS_NONE;
        }
        check(backend->run(prepared, &batch));
        check(backend->wait(prepared));
    }
    return (double)(clock_monotonic_ns() - start) / c->repeats;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Returns the median, and sorts the values. */
static double median(double *samples, size_t n)
{
    qsort(samples, n, sizeof *samples, ascending);
    return samples[n / 2];
}

int main(int argc, char **argv)
{
    static double read_gbs[ROUNDS_MAX], product_gflops[ROUNDS_MAX], measured_gbs[ROUNDS_MAX],
        step_ns[N_CASES][ROUNDS_MAX];
    const char *choice = argc > 1 ? argv[1] : "auto";
    long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 5;
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "bench_backend: 1 to %d rounds\n", ROUNDS_MAX);
        return EXIT_FAILURE;
    }
    build_program();
    struct device *device;
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared;
    struct device_info info;
    char reason[DEVICE_REASON_MAX];
    check(device_open(&device, choice, NULL, reason));
    const struct backend *backend = device->backend;
    check(backend->weights_new(&weights, device, specs, N_SPECS, WEIGHTS_F32));
    write_weights(backend, weights);
    check(backend->kv_new(&kv, device, &program, SLOTS));
    check(backend->prepare(&prepared, weights, kv, &program, ROWS_MAX));
    backend->info(device, &info);
    float *block = malloc(READ_BYTES);
    if (!block)
        return EXIT_FAILURE;
    for (size_t i = 0; i < READ_BYTES / sizeof *block; i++)
        block[i] = 1; /* untouched pages would all be the same page of zeros */

    /* Fills every slot, so that no case reads untouched pages, and warms up. */
    run_case(backend, prepared, &(struct bench_case){ "", 512, 1, 0, 1 });
    run_case(backend, prepared, &(struct bench_case){ "", 512, 1, 512, 1 });
    for (uint32_t slot = 1; slot < SLOTS; slot++)
        check(backend->kv_copy(kv, slot, 0, P));
    for (long round = 0; round < rounds; round++) {
        struct device_speed speed;
        check(backend->measure(device, &speed));
        product_gflops[round] = 1e9 / (double)speed.as_per_flop;
        measured_gbs[round] = 1e9 / (double)speed.as_per_byte;
        read_gbs[round] = read_rate(block);
        for (size_t i = 0; i < N_CASES; i++)
            step_ns[i][round] = run_case(backend, prepared, &cases[i]);
    }

    double gbs = median(read_gbs, (size_t)rounds), gflops = median(product_gflops, (size_t)rounds);
    double weight_bytes = (double)backend->weights_bytes(weights);
    printf("{\"device\":\"%s\",\"description\":\"%s\",\"model\":\"gpt2\",\"weights\":\"f32\","
           "\"weight_bytes\":%.0f,\"memory_used\":%llu,\"rounds\":%ld,\"read_gb_per_s\":%.2f,"
           "\"best_read_gb_per_s\":%.2f,\"device_read_gb_per_s\":%.2f,\"product_gflops\":%.1f,"
           "\"best_product_gflops\":%.1f}\n",
           info.name, info.description, weight_bytes, (unsigned long long)info.memory_used, rounds, gbs,
           read_gbs[rounds - 1], median(measured_gbs, (size_t)rounds), gflops, product_gflops[rounds - 1]);
    for (size_t i = 0; i < N_CASES; i++) {
        const struct bench_case *c = &cases[i];
        double ns = median(step_ns[i], (size_t)rounds);
        double limit = fmax(flops_of(c) / gflops, weight_bytes / gbs) + cache_bytes_of(c) / gbs;
        printf("{\"device\":\"%s\",\"case\":\"%s\",\"rows\":%u,\"depth\":%u,\"step_ms\":%.3f,"
               "\"best_ms\":%.3f,\"tokens_per_s\":%.1f,\"limit_ms\":%.3f,\"share_of_limit\":%.3f}\n",
               info.name, c->name, c->rows, c->depth, ns / 1e6, step_ns[i][0] / 1e6, 1e9 * c->rows / ns,
               limit / 1e6, limit / ns);
    }
    free(block);
    backend->prepared_free(prepared);
    backend->kv_free(kv);
    backend->weights_free(weights);
    device_close(device);
    return EXIT_SUCCESS;
}
