/* 10_devices.c - which devices does this machine have, and what would a token cost on each?
 *
 * "auto" chooses the best device and says why.  Opening a device measures how long a floating-point operation
 * and a byte of memory take.  One token needs two operations for each parameter, and every weight's bytes
 * once, so the shortest time for a token is
 *
 *     t >= max(2 x parameters x as_per_flop, bytes of weights x as_per_byte)
 *
 * from which its lowest cost follows.  cpu-reference computes in the simplest way and gives the same bits on
 * every machine: it is slow, and meant for tests. */
#include <costinfer/costinfer.h>
#include <stdio.h>
#include <stdlib.h>

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "%s: %s\n", cinf_status_name(status), cinf_last_error());
        exit(1);
    }
}

int main(int argc, char *argv[])
{
    static const char *const names[] = { "auto", "cpu", "cpu-blas", "opencl", "cpu-reference" };
    const char *folder = argc > 1 ? argv[1] : "examples/models/stories-small";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cinf_engine *engine;
        struct cinf_model *model;
        struct cinf_result *result;
        struct cinf_device_info device = { CINF_DEVICE_INFO };
        enum cinf_status status =
            cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = names[i],
                                                                     .dollars_per_hour = "2.50" });
        if (status != CINF_OK) { /* the library may have been built without it, or the machine lacks it */
            printf("%-14s not available: %s\n", names[i], cinf_last_error());
            continue;
        }
        cinf_engine_device(engine, &device);
        check(cinf_model_load(&model, engine,
                              &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));
        check(
            cinf_generate(&result, model,
                          &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = "Once upon a time",
                                                          .max_tokens = 64, .ignore_eos = true },
                          NULL, NULL));
        printf("%-14s %-14s %6.1f GFLOP/s %6.1f GB/s %8.0f tokens/s  %s\n", names[i], device.name,
               1e9 / (double)device.as_per_flop, 1e9 / (double)device.as_per_byte,
               result->report.output_tokens * 1e9 / (double)result->report.decode_ns, device.reason);
        cinf_result_free(result);
        cinf_model_release(model);
        cinf_engine_close(engine); /* only one engine can use a device at a time */
    }
}
