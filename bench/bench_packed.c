/* bench_packed.c - the packed CPU backend against the limits of the machine, measured in the same moments.
 *
 *     bench_packed [--types f32,f16,bf16,int8,int4] [--threads N] [--model gpt2] [--rounds N] [--device cpu]
 *                  [--kv-f16] [--depths] [--best]
 *
 * Prints a line of JSON for each case; --depths: only one stream, at four depths.  Every round measures the
 * machine (bytes read per second and multiply-adds per second, by the same threads) and then the step.  The
 * ratios are medians of the rounds' own ratios, because on a shared machine only numbers of the same moment
 * can be compared. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "clock.h"
#include "model_stream.h"
#include "mem.h"
#include "packed_pool.h"

enum { ROUNDS_MAX = 99, ROWS_MAX = 512, STREAMS_MAX = 32, READ_BYTES = 256 << 20, READ_TILES = 256 };

/* ---- The machine --------------------------------------------------------------------------- */

typedef float vf __attribute__((vector_size(64)));

struct machine {
    struct pool *pool;
    float *block; /* READ_BYTES */
    float sink[POOL_THREADS_MAX][16];
};

/* Uses the widest vectors that the processor has; gcc makes a version for each. */
#if defined(__x86_64__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx512f", "avx2,fma", "default"), optimize("fp-contract=fast")))
#else
#define WIDE
#endif

WIDE static void read_block(float *sink, const float *block, size_t n)
{
    const vf *x = (const vf *)(const void *)block;
    vf a = { 0 }, b = a, c = a, d = a;
    size_t quarter = n / 64;
    for (size_t i = 0; i < quarter; i += 2) {
        a += x[i] + x[i + 1];
        b += x[quarter + i] + x[quarter + i + 1];
        c += x[2 * quarter + i] + x[2 * quarter + i + 1];
        d += x[3 * quarter + i] + x[3 * quarter + i + 1];
    }
    a += b + c + d;
    memcpy(sink, &a, sizeof a);
}

enum { FMA_ROUNDS = 20000, FMA_CHAINS = 12 };

WIDE static void multiply_add(float *sink)
{
    vf x = { 0 }, y = x;
    x += 0.9999f;
    y += 1e-9f;
    /* A compiler would merge chains that begin alike. */
    vf a = y, b = a + 1, c = b + 1, d = c + 1, e = d + 1, f = e + 1, g = f + 1, h = g + 1, i = h + 1,
       j = i + 1, k = j + 1, l = k + 1;
    for (int round = 0; round < FMA_ROUNDS; round++) {
        a = a * x + y, b = b * x + y, c = c * x + y, d = d * x + y, e = e * x + y, f = f * x + y;
        g = g * x + y, h = h * x + y, i = i * x + y, j = j * x + y, k = k * x + y, l = l * x + y;
    }
    a += b + c + d + e + f + g + h + i + j + k + l;
    memcpy(sink, &a, sizeof a);
}

static void read_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    struct machine *m = (struct machine *)(uintptr_t)argument;
    size_t n = READ_BYTES / READ_TILES / sizeof(float);
    read_block(m->sink[worker], m->block + tile * n, n);
}

static void fma_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)tile;
    multiply_add(((struct machine *)(uintptr_t)argument)->sink[worker]);
}

/* Wall time, and the time of all processors, which is what a computation costs even on a busy machine. */
struct elapsed {
    uint64_t wall, cpu;
};

static struct elapsed now(void)
{
    return (struct elapsed){ clock_monotonic_ns(), clock_process_cpu_ns() };
}

static struct elapsed since(struct elapsed start)
{
    struct elapsed end = now();
    return (struct elapsed){ end.wall - start.wall, end.cpu - start.cpu };
}

static double bytes_per_ns(struct machine *m)
{
    struct pool_phase phase = { read_tile, m, READ_TILES };
    uint64_t start = clock_monotonic_ns();
    pool_run(m->pool, &phase, 1);
    return READ_BYTES / (double)(clock_monotonic_ns() - start);
}

/* Returns the time of the multiply-adds of fma_flops(). */
static struct elapsed fma_time(struct machine *m)
{
    struct pool_phase phase = { fma_tile, m, 8 * pool_threads(m->pool) };
    struct elapsed start = now();
    pool_run(m->pool, &phase, 1);
    return since(start);
}

static double fma_flops(const struct machine *m)
{
    return 2.0 * 16 * FMA_CHAINS * FMA_ROUNDS * 8 * pool_threads(m->pool);
}

/* ---- Cases --------------------------------------------------------------------------------- */

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "bench_packed: %s\n", cinf_last_error());
        exit(1);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, uint32_t n)
{
    qsort(x, n, sizeof *x, compare);
    return x[n / 2];
}

static struct model *load(struct device *device, const char *name, enum weights_type type)
{
    struct cinf_config config;
    check(cinf_config_named(&config, name));
    struct model_options options = { .weights_given = true,
                                     .weights = type,
                                     .kv_bytes = UINT64_MAX,
                                     .slots_max = STREAMS_MAX,
                                     .rows_max = ROWS_MAX };
    struct model_stream *loader;
    struct model *model;
    check(model_stream_synthetic(&loader, &config, 1, &options));
    for (bool done = false; !done;)
        check(model_stream_step(loader, device, 1000000000, &done));
    check(model_stream_finish(&model, loader));
    model_stream_free(loader);
    return model;
}

struct bench {
    struct machine machine;
    struct model *model;
    const char *type;
    uint32_t rounds;
    uint64_t weight_bytes;
    bool best; /* rows need only the best logit */
};

/* One step of `streams` slots with `rows` rows each from position `depth` on; the last row of each wants
 * logits. */
static struct elapsed step_time(struct bench *b, uint32_t streams, uint32_t rows, uint32_t depth)
{
    static int32_t tokens[ROWS_MAX];
    static uint32_t positions[ROWS_MAX], slots[ROWS_MAX];
    static uint8_t wants[ROWS_MAX];
    uint32_t n = 0;
    for (uint32_t s = 0; s < streams; s++) {
        for (uint32_t r = 0; r < rows; r++, n++) {
            tokens[n] = (int32_t)((s * 7919 + r * 104729) % model_config(b->model)->vocab_size);
            positions[n] = depth + r;
            slots[n] = s;
            wants[n] = r + 1 < rows ? LOGITS_NONE : b->best ? logits_top_k(1) : LOGITS_ALL;
        }
    }
    struct batch batch = { n, tokens, positions, slots, wants };
    struct elapsed start = now();
    check(model_run(b->model, &batch));
    check(model_wait(b->model));
    return since(start);
}

static void bench_case(struct bench *b, uint32_t streams, uint32_t rows, uint32_t depth)
{
    double ns[ROUNDS_MAX], read[ROUNDS_MAX], fma[ROUNDS_MAX];
    double read_share[ROUNDS_MAX], fma_share[ROUNDS_MAX], fma_share_cpu[ROUNDS_MAX];
    struct model_work work = model_work_of(b->model, depth, rows, 1, b->best);
    double bytes = (double)b->weight_bytes + (double)work.kv_bytes * streams;
    double flops = (double)work.flops * streams, peak_flops = fma_flops(&b->machine);
    if (depth > 0) {
        for (uint32_t at = 0; at < depth; at += ROWS_MAX)
            step_time(b, 1, depth - at < ROWS_MAX ? depth - at : ROWS_MAX, at);
        for (uint32_t s = 1; s < streams; s++)
            check(model_copy_prefix(b->model, s, 0, depth));
    }
    step_time(b, streams, rows, depth);
    for (uint32_t i = 0; i < b->rounds; i++) {
        read[i] = bytes_per_ns(&b->machine);
        struct elapsed peak = fma_time(&b->machine);
        step_time(b, streams, rows, depth); /* warms the caches as a run of steps would */
        struct elapsed step = step_time(b, streams, rows, depth);
        ns[i] = (double)step.wall;
        fma[i] = peak_flops / (double)peak.wall;
        read_share[i] = bytes / ns[i] / read[i];
        fma_share[i] = flops / ns[i] / fma[i];
        fma_share_cpu[i] = flops / (double)step.cpu / (peak_flops / (double)peak.cpu);
    }
    double step = median(ns, b->rounds), read_median = median(read, b->rounds);
    printf("{\"case\":\"%s\",\"weights\":\"%s\",\"threads\":%u,\"streams\":%u,\"rows\":%u,\"depth\":%u,"
           "\"step_ms\":%.3f,\"best_ms\":%.3f,\"tokens_s\":%.1f,\"gb_s\":%.2f,\"read_gb_s\":%.2f,"
           "\"read_best_gb_s\":%.2f,\"read_share\":%.3f,\"gflops\":%.1f,\"fma_gflops\":%.1f,"
           "\"fma_share\":%.3f,\"fma_share_cpu\":%.3f}\n",
           rows == 1 ? "decode" : "prefill", b->type, pool_threads(b->machine.pool), streams, rows, depth,
           step / 1e6, ns[0] / 1e6, streams * rows / step * 1e9, bytes / step, read_median,
           read[b->rounds - 1], median(read_share, b->rounds), flops / step, median(fma, b->rounds),
           median(fma_share, b->rounds), median(fma_share_cpu, b->rounds));
    fflush(stdout);
}

/* Measures one stream's steps at several depths, alternating: the cost of attending to the past compared with
 * none, as the median of the rounds' own ratios. */
static void bench_depths(struct bench *b)
{
    enum { DEPTHS = 4 };
    static const uint32_t depths[DEPTHS] = { 0, 128, 512, 960 };
    double ns[DEPTHS][ROUNDS_MAX], loss[DEPTHS][ROUNDS_MAX];
    for (uint32_t at = 0; at < depths[DEPTHS - 1]; at += ROWS_MAX)
        step_time(b, 1, depths[DEPTHS - 1] - at < ROWS_MAX ? depths[DEPTHS - 1] - at : ROWS_MAX, at);
    for (uint32_t i = 0; i < b->rounds; i++) {
        for (int d = 0; d < DEPTHS; d++) {
            step_time(b, 1, 1, depths[d]);
            ns[d][i] = (double)step_time(b, 1, 1, depths[d]).wall;
            loss[d][i] = 1 - ns[0][i] / ns[d][i];
        }
    }
    for (int d = 0; d < DEPTHS; d++) {
        double step = median(ns[d], b->rounds);
        printf("{\"case\":\"depths\",\"weights\":\"%s\",\"threads\":%u,\"depth\":%u,\"step_ms\":%.3f,"
               "\"best_ms\":%.3f,\"loss\":%.3f}\n",
               b->type, pool_threads(b->machine.pool), depths[d], step / 1e6, ns[d][0] / 1e6,
               median(loss[d], b->rounds));
    }
    fflush(stdout);
}

/* Whether a list such as "f32,f16" contains the name. */
static bool lists(const char *types, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = types; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == 0))
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "f32", "f16", "bf16", "int8", "int4" };
    static struct bench b = { .rounds = 9 };
    bool depths_only = false;
    const char *types = "f32,f16,int8", *model = "gpt2", *name = "cpu";
    struct device_options options = { 0 };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--types") == 0)
            types = value, i++;
        else if (strcmp(argv[i], "--model") == 0)
            model = value, i++;
        else if (strcmp(argv[i], "--threads") == 0)
            options.threads = (uint32_t)atoi(value), i++;
        else if (strcmp(argv[i], "--rounds") == 0)
            b.rounds = (uint32_t)atoi(value), i++;
        else if (strcmp(argv[i], "--device") == 0)
            name = value, i++;
        else if (strcmp(argv[i], "--depths") == 0)
            depths_only = true;
        else if (strcmp(argv[i], "--best") == 0)
            b.best = true;
        else if (strcmp(argv[i], "--kv-f16") == 0)
            options.kv_f16 = true;
        else {
            fprintf(stderr,
                    "usage: bench_packed [--types f32,f16,bf16,int8,int4] [--threads N] [--model gpt2] "
                    "[--rounds N] [--device cpu] [--kv-f16] [--depths] [--best]\n");
            return 2;
        }
    }
    b.rounds = b.rounds < 1 ? 1 : b.rounds > ROUNDS_MAX ? ROUNDS_MAX : b.rounds;
    struct device *device;
    check(device_open(&device, name, &options, NULL));
    check(pool_new(&b.machine.pool, options.threads));
    b.machine.block = mem_new_aligned(2 << 20, READ_BYTES, 1);
    if (!b.machine.block)
        return 1;
    memset(b.machine.block, 0, READ_BYTES);
    struct device_info info;
    device->backend->info(device, &info);
    printf("{\"device\":\"%s\",\"model\":\"%s\"}\n", info.description, model);

    for (int t = 0; t < 5; t++) {
        if (!lists(types, names[t]))
            continue;
        uint64_t start = clock_monotonic_ns();
        b.type = names[t];
        b.model = load(device, model, (enum weights_type)t);
        b.best = b.best && model_has_top_k(b.model);
        b.weight_bytes = model_work_of(b.model, 0, 1, 1, b.best).weight_bytes;
        printf("{\"case\":\"load\",\"weights\":\"%s\",\"seconds\":%.2f,\"weight_mb\":%.1f}\n", b.type,
               (double)(clock_monotonic_ns() - start) / 1e9, (double)b.weight_bytes / 1e6);
        static const uint32_t streams[] = { 1, 8, 32 };
        bench_depths(&b);
        if (depths_only) {
            model_free(b.model);
            continue;
        }
        for (int s = 0; s < 3; s++) {
            bench_case(&b, streams[s], 1, 0);
            bench_case(&b, streams[s], 1, 512);
        }
        bench_case(&b, 1, 128, 0);
        bench_case(&b, 1, 512, 0);
        model_free(b.model);
    }
    mem_free(b.machine.block);
    pool_free(b.machine.pool);
    device_close(device);
    return 0;
}
