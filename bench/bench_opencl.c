/* bench_opencl.c - an OpenCL device without an engine around it: launches, memory, products, and GPT-2's
 * steps of many rows.
 *
 *     bench_opencl [DEVICE [SHAPE [WEIGHTS [ROUNDS]]]]        prints one JSON object; "opencl", gpt2, f16 and
 * 5
 *
 * Weights are synthetic.  Keys and values are f16, and the device picks the most likely token, as it does for
 * the engine.  Figures are medians over rounds.  bench/opencl.py runs this and all other measurements of a
 * GPU. */
#include <costinfer/status.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if CINF_HAVE_OPENCL
#include "clock.h"
#include "opencl_program.h"
#include "opencl_queue.h"

enum {
    LAYERS_MAX = 48,
    FIRST_LAYER = 4,
    LAYER_SPECS = 12,
    ROUNDS_MAX = 31,
    STREAMS_MAX = 128,
    ROWS_MAX = 1024
};

static const struct shape {
    const char *name;
    uint32_t d, h, l, v, p;
} shapes[] = { { "tiny", 64, 1, 2, 300, 64 },
               { "gpt2", 768, 12, 12, 50257, 1024 },
               { "gpt2-medium", 1024, 16, 24, 50257, 1024 },
               { "gpt2-large", 1280, 20, 36, 50257, 1024 },
               { "gpt2-xl", 1600, 25, 48, 50257, 1024 } };
enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct weight_spec specs[FIRST_LAYER + LAYERS_MAX * LAYER_SPECS];
static struct op ops[3 + LAYERS_MAX * 7];

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "bench_opencl: %s\n", cinf_last_error());
        exit(EXIT_FAILURE);
    }
}

static struct program program_of(const struct shape *s)
{
    const uint32_t d = s->d, i = 4 * d;
    const struct weight_spec layer[LAYER_SPECS] = {
        { WEIGHT_VECTOR, 1, d },     { WEIGHT_VECTOR, 1, d }, { WEIGHT_MATRIX, d, 3 * d },
        { WEIGHT_VECTOR, 1, 3 * d }, { WEIGHT_MATRIX, d, d }, { WEIGHT_VECTOR, 1, d },
        { WEIGHT_VECTOR, 1, d },     { WEIGHT_VECTOR, 1, d }, { WEIGHT_MATRIX, d, i },
        { WEIGHT_VECTOR, 1, i },     { WEIGHT_MATRIX, i, d }, { WEIGHT_VECTOR, 1, d },
    };
    struct op *op = ops;
    specs[0] = (struct weight_spec){ WEIGHT_TOKENS, s->v, d };
    specs[1] = (struct weight_spec){ WEIGHT_TABLE, s->p, d };
    specs[2] = specs[3] = layer[0];
    *op++ = (struct op){ .kind = OP_EMBED, .out = ROWS_X, .weight = 0, .weight2 = 1 };
    for (uint32_t l = 0; l < s->l; l++) {
        const uint32_t w = FIRST_LAYER + l * LAYER_SPECS;
        memcpy(specs + w, layer, sizeof layer);
        *op++ = (struct op){ OP_NORM, ROWS_X, ROWS_H, .weight = w, .bias = w + 1, .epsilon = 1e-5f };
        *op++ = (struct op){ OP_LINEAR,
                             ROWS_H,
                             ROWS_Q,
                             .weight = w + 2,
                             .bias = w + 3,
                             .layer = l,
                             .epilogue = EPILOGUE_QKV,
                             .q_cols = d,
                             .k_cols = d,
                             .v_cols = d };
        *op++ = (struct op){ OP_ATTEND, ROWS_Q, ROWS_A, .layer = l, .scale = 0.125f };
        *op++ = (struct op){ OP_LINEAR,       ROWS_A,        ROWS_X,
                             .weight = w + 4, .bias = w + 5, .epilogue = EPILOGUE_ADD };
        *op++ = (struct op){ OP_NORM, ROWS_X, ROWS_H, .weight = w + 6, .bias = w + 7, .epsilon = 1e-5f };
        *op++ = (struct op){ OP_LINEAR,       ROWS_H,        ROWS_F,
                             .weight = w + 8, .bias = w + 9, .epilogue = EPILOGUE_ACTIVATION };
        *op++ = (struct op){ OP_LINEAR,        ROWS_F,         ROWS_X,
                             .weight = w + 10, .bias = w + 11, .epilogue = EPILOGUE_ADD };
    }
    *op++ = (struct op){ OP_NORM, ROWS_X, ROWS_H, .weight = 2, .bias = 3, .epsilon = 1e-5f };
    *op++ = (struct op){ .kind = OP_LOGITS, .in = ROWS_H, .weight = 0 };
    return (struct program){ .ops = ops,
                             .n_ops = (uint32_t)(op - ops),
                             .specs = specs,
                             .n_specs = FIRST_LAYER + s->l * LAYER_SPECS,
                             .width = d,
                             .inner = i,
                             .heads = s->h,
                             .layers = s->l,
                             .vocab = s->v,
                             .positions = s->p };
}

/* Weights are uniform with standard deviation 0.02; vectors are around 1, so that norms keep their rows'
 * size. */
static void write_weights(struct weights *weights, const struct program *program)
{
    uint32_t state = 1;
    float *row = malloc(sizeof *row * 4 * program->inner);
    if (!row)
        exit(EXIT_FAILURE);
    for (uint32_t w = 0; w < program->n_specs; w++) {
        for (uint32_t r = 0; r < specs[w].rows; r++) {
            for (uint32_t c = 0; c < specs[w].cols; c++) {
                state = state * 1664525u + 1013904223u;
                row[c] =
                    ((float)(state >> 8) * 0x1p-24f - 0.5f) * 0.069f + (specs[w].rows == 1 ? 1.0f : 0.0f);
            }
            check(backend_opencl.weights_write(weights, w, r, 1, row, CINF_DTYPE_F32));
        }
    }
    for (bool done = false; !done;)
        check(backend_opencl.weights_finish(weights, &done));
    free(row);
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *samples, uint32_t n)
{
    qsort(samples, n, sizeof *samples, ascending);
    return samples[n / 2];
}

static void wait_for_queue(const struct opencl_device *device)
{
    cl_event done;
    if (clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &done) != CL_SUCCESS)
        exit(EXIT_FAILURE);
    clFlush(device->queue);
    check(opencl_wait_event(device, done));
}

/* Times a kernel that does nothing, in microseconds: the host's time to enqueue one, the time of each of many
 * in a row, and the time of one with waiting for its end. */
static void print_launches(struct opencl_device *device, uint32_t rounds)
{
    enum { MANY = 1000 };
    static const char *const source[] = {
        "__kernel void nothing(__global int *x) { if (x == 0) x[0] = 0; }"
    };
    const size_t one[3] = { 1, 1, 1 };
    double host[ROUNDS_MAX], each[ROUNDS_MAX], alone[ROUNDS_MAX];
    cl_program program;
    cl_kernel kernel;
    struct opencl_buffer x;
    check(opencl_program_new(&program, device, "", source, 1));
    check(opencl_kernel_new(&kernel, device, program, "nothing"));
    check(opencl_buffer_new(&x, device, 64, 0, true, "a word"));
    const struct opencl_argument arguments[] = { ARGUMENT(x.mem), { 0 } };
    check(opencl_arguments(device, kernel, arguments));
    check(opencl_launch(device, kernel, one, one));
    wait_for_queue(device);
    for (uint32_t r = 0; r < rounds; r++) {
        uint64_t start = clock_monotonic_ns();
        for (int i = 0; i < MANY; i++)
            check(opencl_launch(device, kernel, one, one));
        host[r] = (double)(clock_monotonic_ns() - start) / 1e3 / MANY;
        wait_for_queue(device);
        each[r] = (double)(clock_monotonic_ns() - start) / 1e3 / MANY;
        start = clock_monotonic_ns();
        for (int i = 0; i < MANY / 20; i++) {
            check(opencl_launch(device, kernel, one, one));
            wait_for_queue(device);
        }
        alone[r] = (double)(clock_monotonic_ns() - start) / 1e3 / (MANY / 20);
    }
    opencl_buffer_free(device, &x);
    clReleaseKernel(kernel);
    clReleaseProgram(program);
    printf(" \"launch_host_us\": %.3f, \"launch_each_us\": %.3f, \"launch_and_wait_us\": %.3f,\n",
           median(host, rounds), median(each, rounds), median(alone, rounds));
}

/* Returns the nanoseconds of a step with a row in each of `streams` slots, or with `prompt` rows in slot 0.
 */
static double step_ns(struct prepared *prepared, uint32_t streams, uint32_t prompt, uint32_t position,
                      uint32_t vocab)
{
    static int32_t tokens[ROWS_MAX];
    static uint32_t positions[ROWS_MAX], slots[ROWS_MAX];
    static uint8_t wants[ROWS_MAX];
    const uint32_t n = prompt ? prompt : streams;
    struct top_k picked;
    for (uint32_t r = 0; r < n; r++) {
        tokens[r] = (int32_t)((r * 7919 + position) % vocab);
        positions[r] = prompt ? r : position;
        slots[r] = prompt ? 0 : r;
        wants[r] = prompt && r + 1 < n ? 0 : 1 + 1;
    }
    uint64_t start = clock_monotonic_ns();
    check(backend_opencl.run(prepared, &(struct batch){ n, tokens, positions, slots, wants }));
    check(backend_opencl.top_k(prepared, 0, &picked));
    return (double)(clock_monotonic_ns() - start);
}

static void print_steps(struct device *device, const struct shape *s, enum weights_type type, uint32_t rounds)
{
    static const uint32_t streams[] = { 1, 8, 32, 128 };
    const struct program program = program_of(s);
    const struct backend *b = &backend_opencl;
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared;
    uint32_t slots;
    uint64_t start = clock_monotonic_ns();
    check(b->weights_new(&weights, device, specs, program.n_specs, type));
    write_weights(weights, &program);
    check(b->kv_slots_max(&slots, device, &program));
    slots = slots < STREAMS_MAX ? slots : STREAMS_MAX;
    check(b->kv_new(&kv, device, &program, slots));
    check(b->prepare(&prepared, weights, kv, &program, s->p > STREAMS_MAX ? s->p : STREAMS_MAX));
    for (bool done = false; !done;)
        check(b->prepare_more(prepared, &done));
    printf(" \"load_s\": %.3f, \"weight_bytes\": %llu, \"slots\": %u,\n",
           (double)(clock_monotonic_ns() - start) / 1e9, (unsigned long long)b->weights_bytes(weights),
           slots);
    printf(" \"decode_tokens_per_s\": {");
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        enum { STEPS = 8 };
        double ns[ROUNDS_MAX * STEPS];
        if (streams[i] > slots)
            continue;
        step_ns(prepared, streams[i], 0, 0, s->v);
        for (uint32_t k = 0; k < rounds * STEPS; k++)
            ns[k] = step_ns(prepared, streams[i], 0, 1 + k % (s->p - 1), s->v);
        printf("%s\"%u\": %.1f", i ? ", " : "", streams[i], streams[i] * 1e9 / median(ns, rounds * STEPS));
        fflush(stdout);
    }
    double ns[ROUNDS_MAX];
    step_ns(prepared, 1, s->p, 0, s->v);
    for (uint32_t r = 0; r < rounds; r++)
        ns[r] = step_ns(prepared, 1, s->p, 0, s->v);
    printf("},\n \"prompt\": %u, \"prompt_ms\": %.3f,\n", s->p, median(ns, rounds) / 1e6);
    b->prepared_free(prepared);
    b->kv_free(kv);
    b->weights_free(weights);
}

int main(int argc, char **argv)
{
    static const char *const types[] = {
        [WEIGHTS_F32] = "f32", [WEIGHTS_F16] = "f16", [WEIGHTS_INT8] = "int8"
    };
    const char *choice = argc > 1 ? argv[1] : "opencl", *name = argc > 2 ? argv[2] : "gpt2";
    const char *kept = argc > 3 ? argv[3] : "f16";
    const unsigned long rounds = argc > 4 ? strtoul(argv[4], NULL, 10) : 5;
    const struct shape *shape = NULL;
    int type = -1;
    for (int i = 0; i < SHAPES; i++)
        shape = strcmp(shapes[i].name, name) == 0 ? &shapes[i] : shape;
    for (int i = 0; i < (int)(sizeof types / sizeof *types); i++)
        type = types[i] && strcmp(types[i], kept) == 0 ? i : type;
    if (!shape || type < 0 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr,
                "usage: bench_opencl [DEVICE [tiny|gpt2|gpt2-medium|gpt2-large|gpt2-xl [f32|f16|int8 "
                "[1 to %d]]]]\n",
                ROUNDS_MAX);
        return 2;
    }
    struct device *device;
    struct device_info info;
    struct device_speed speed;
    uint64_t start = clock_monotonic_ns();
    check(device_open(&device, choice, &(struct device_options){ .kv_f16 = true }, NULL));
    if (device->backend != &backend_opencl) {
        fprintf(stderr, "bench_opencl: %s is not an OpenCL device\n", choice);
        return EXIT_FAILURE;
    }
    const double open_s = (double)(clock_monotonic_ns() - start) / 1e9;
    backend_opencl.info(device, &info);
    check(backend_opencl.measure(device, &speed)); /* compiles */
    check(backend_opencl.measure(device, &speed));
    printf(
        "{\"device\": \"%s\", \"description\": \"%s\", \"is_gpu\": %s, \"memory\": %llu, \"open_s\": %.3f,\n",
        info.name, info.description, info.is_gpu ? "true" : "false", (unsigned long long)info.memory_total,
        open_s);
    print_launches((struct opencl_device *)device, (uint32_t)rounds);
    printf(" \"read_gb_per_s\": %.2f, \"product_gflops\": %.1f,\n", 1e9 / (double)speed.as_per_byte,
           1e9 / (double)speed.as_per_flop);
    print_steps(device, shape, (enum weights_type)type, (uint32_t)rounds);
    printf(" \"shape\": \"%s\", \"weights\": \"%s\", \"rounds\": %lu}\n", shape->name, kept, rounds);
    device_close(device);
    return EXIT_SUCCESS;
}
#else
int main(void)
{
    fprintf(stderr, "bench_opencl: this build has no OpenCL\n");
    return 77;
}
#endif
