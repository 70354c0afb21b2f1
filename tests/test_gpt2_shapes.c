/* The five published GPT-2 shapes, with synthetic weights: each loads and runs a step.  The test is slow,
 * because the largest has 1.6 billion weights, 6.2 GB. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "clock.h"
#include "model_stream.h"
#include "support.h"

static const struct {
    const char *name;
    uint64_t parameters;
} shapes[] = {
    { "distilgpt2", 81912576 },  { "gpt2", 124439808 },     { "gpt2-medium", 354823168 },
    { "gpt2-large", 774030080 }, { "gpt2-xl", 1557611200 },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static uint64_t free_memory(void)
{
    uint64_t kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long value;
        if (sscanf(line, "MemAvailable: %llu", &value) == 1)
            kib = value;
    }
    if (f)
        fclose(f);
    return kib * 1024;
}

START_TEST(a_published_shape_runs)
{
    const char *name = shapes[_i].name;
    uint64_t needed = shapes[_i].parameters * sizeof(float) * 5 / 4 + (1u << 30);
    if (free_memory() < needed) {
        printf("skipped: %s needs %.1f GB of memory, %.1f are free\n", name, (double)needed / 1e9,
               (double)free_memory() / 1e9);
        return;
    }
    struct device *device = NULL;
    char reason[DEVICE_REASON_MAX];
    ck_ok(device_open(&device, NULL, NULL, reason));
    struct cinf_config config;
    ck_ok(cinf_config_named(&config, name));
    struct model_stream *stream = NULL;
    struct model_options options = { .kv_bytes = UINT64_MAX, .slots_max = 1, .rows_max = 4 };
    ck_ok(model_stream_synthetic(&stream, &config, 1, &options));
    ck_assert_uint_eq(model_stream_bytes_total(stream), shapes[_i].parameters * sizeof(float));
    uint64_t start_ns = clock_monotonic_ns(), longest_ns = 0;
    for (bool done = false; !done;) {
        uint64_t job_ns = clock_monotonic_ns();
        ck_ok(model_stream_step(stream, device, 20000000, &done));
        job_ns = clock_monotonic_ns() - job_ns;
        longest_ns = job_ns > longest_ns ? job_ns : longest_ns;
    }
    uint64_t loaded_ns = clock_monotonic_ns();
    struct model *model = NULL;
    ck_ok(model_stream_finish(&model, stream));
    model_stream_free(stream);
    ck_assert_uint_eq(model_parameters(model), shapes[_i].parameters);
    ck_assert_uint_eq(model_slots(model), 1);

    const int32_t tokens[] = { 464, 3290, 373, 50256 };
    ck_ok(model_run(model, &(struct batch){ .n_rows = 4,
                                            .tokens = tokens,
                                            .positions = (uint32_t[]){ 0, 1, 2, 3 },
                                            .slots = (uint32_t[]){ 0, 0, 0, 0 },
                                            .wants_logits = (uint8_t[]){ 0, 0, 0, 1 } }));
    ck_ok(model_wait(model));
    const float *logits = NULL;
    ck_ok(model_logits(model, 0, &logits));
    double squares = 0;
    for (uint32_t i = 0; i < config.vocab_size; i++)
        squares += (double)logits[i] * logits[i];
    /* A normed row of length sqrt(D) times embeddings of 0.02. */
    double deviation = sqrt(squares / config.vocab_size), expected = 0.02 * sqrt((double)config.n_embd);
    ck_assert_msg(fabs(deviation / expected - 1) < 0.1, "%s: logits deviate by %g, not %g", name, deviation,
                  expected);
    printf("%s on %s: loaded in %.2f s, longest job %.1f ms, 4 rows in %.3f s\n", name, device->backend->name,
           (double)(loaded_ns - start_ns) / 1e9, (double)longest_ns / 1e6,
           (double)(clock_monotonic_ns() - loaded_ns) / 1e9);
    model_free(model);
    device_close(device);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("gpt2_shapes");
    TCase *t = tcase_create("published");
    tcase_set_timeout(t, 280);
    tcase_add_loop_test(t, a_published_shape_runs, 0, N_SHAPES);
    suite_add_tcase(s, t);
    return s;
}
