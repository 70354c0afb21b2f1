/* bench_streams.c - the speed of the library alone with N concurrent readers, for comparison with costd.
 *
 *   bench_streams FOLDER WEIGHTS STREAMS TOKENS REQUESTS
 *
 * STREAMS threads each ask for TOKENS tokens, REQUESTS times one after the other, and pull every event.  A
 * round begins with a line on the standard input and ends with one on the standard output: seconds of wall
 * time, tokens, and the times to the first token.  So two programs can alternate. */
#include <costinfer/costinfer.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

enum { STREAMS_MAX = 256 };

static struct cinf_model *model;
static uint32_t n_streams, tokens, requests;
static _Atomic bool failed;
static uint64_t *first_ns; /* [n_streams * requests] */

static void *read_stream(void *number)
{
    uint64_t *first = first_ns + (uintptr_t)number * requests;
    for (uint32_t i = 0; i < requests; i++) {
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "Once upon a time" };
        struct cinf_request *request;
        struct cinf_event event = { CINF_EVENT };
        uint64_t start = clock_monotonic_ns();
        o.max_tokens = tokens;
        o.ignore_eos = true;
        if (cinf_request_submit(&request, model, &o) != CINF_OK) {
            atomic_store(&failed, true);
            return NULL;
        }
        while (cinf_request_next(request, UINT64_MAX, &event) == CINF_OK && event.kind != CINF_EVENT_END)
            if (!first[i])
                first[i] = clock_monotonic_ns() - start;
        cinf_request_free(request);
        if (event.finish != CINF_FINISH_LENGTH)
            atomic_store(&failed, true);
    }
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void run_round(void)
{
    pthread_t threads[STREAMS_MAX];
    size_t n = (size_t)n_streams * requests;
    memset(first_ns, 0, n * sizeof *first_ns);
    uint64_t start = clock_monotonic_ns();
    for (uint32_t i = 0; i < n_streams; i++)
        if (pthread_create(&threads[i], NULL, read_stream, (void *)(uintptr_t)i) != 0)
            abort();
    for (uint32_t i = 0; i < n_streams; i++)
        pthread_join(threads[i], NULL);
    uint64_t wall = clock_monotonic_ns() - start;
    qsort(first_ns, n, sizeof *first_ns, by_size);
    printf("{\"seconds\":%.6f,\"tokens\":%" PRIu64 ",\"first_p50\":%.6f,\"first_p95\":%.6f}\n",
           (double)wall / 1e9, (uint64_t)n * tokens, (double)first_ns[n / 2] / 1e9,
           (double)first_ns[n * 95 / 100] / 1e9);
    fflush(stdout);
}

int main(int argc, char *argv[])
{
    struct cinf_engine *engine = NULL;
    char line[16];
    enum cinf_weights weights = CINF_WEIGHTS_AUTO;
    if (argc != 6) {
        fprintf(stderr, "usage: bench_streams FOLDER WEIGHTS STREAMS TOKENS REQUESTS\n");
        return 2;
    }
    for (int w = CINF_WEIGHTS_AUTO; w <= CINF_WEIGHTS_INT4; w++)
        if (strcmp(cinf_weights_name((enum cinf_weights)w), argv[2]) == 0)
            weights = (enum cinf_weights)w;
    n_streams = (uint32_t)atoi(argv[3]);
    tokens = (uint32_t)atoi(argv[4]);
    requests = (uint32_t)atoi(argv[5]);
    first_ns = calloc((size_t)n_streams * requests, sizeof *first_ns);
    struct cinf_model_options o = { CINF_MODEL_OPTIONS, .folder = argv[1], .weights = weights };
    if (n_streams == 0 || n_streams > STREAMS_MAX || !first_ns ||
        cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu",
                                                                 .no_speculation = true }) != CINF_OK ||
        cinf_model_load(&model, engine, &o) != CINF_OK) {
        fprintf(stderr, "bench_streams: %s\n", cinf_last_error());
        return 1;
    }
    while (!failed && fgets(line, sizeof line, stdin))
        run_round();
    if (failed)
        fprintf(stderr, "bench_streams: a request did not end normally: %s\n", cinf_last_error());
    cinf_model_release(model);
    cinf_engine_close(engine);
    free(first_ns);
    return failed;
}
