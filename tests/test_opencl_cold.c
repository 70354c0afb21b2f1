/* A driver that has compiled nothing yet compiles while a model loads, not in a request's time.  Slow. */
#include "support.h"

#if CINF_HAVE_OPENCL
#include <costinfer/costinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend_impl.h"

static char folder[64];

static void begin(void)
{
    snprintf(folder, sizeof folder, "/tmp/costinfer-cold-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    setenv("POCL_CACHE_DIR", folder, 1);
    setenv("XDG_CACHE_HOME", folder, 1);
    setenv("CUDA_CACHE_DISABLE", "1", 1);
}

static void end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Kernels that PoCL has compiled so far; 0 for other drivers. */
static int compiled(void)
{
    char command[128];
    int n = -1;
    snprintf(command, sizeof command, "find '%s' -name '*.so' | wc -l", folder);
    FILE *count = popen(command, "r");
    ck_assert_ptr_nonnull(count);
    ck_assert_int_eq(fscanf(count, "%d", &n), 1);
    pclose(count);
    return n;
}

START_TEST(compiling_is_loading)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    struct cinf_result *result;
    char path[512];
    struct device_info info;
    if (backend_opencl.find(0, &info) != CINF_OK) {
        printf("skipped: %s\n", cinf_last_error());
        return;
    }
    snprintf(path, sizeof path, "%s/examples/models/stories-small", getenv("CINF_SOURCE"));
    ck_ok(
        cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "opencl" }));
    ck_ok(
        cinf_model_load(&model, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = path }));
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
    uint64_t load_ns = s.load_ns;
    cinf_snapshot_free(&s);

    const int before = compiled();
    /* A prompt of many rows, then single ones; then the same again, which begins with a copy. */
    uint64_t request_ns[2];
    for (int i = 0; i < 2; i++) {
        ck_ok(cinf_generate(&result, model,
                            &(struct cinf_request_options){
                                CINF_REQUEST_OPTIONS,
                                .prompt = "Once upon a time there was a little girl who had a dog "
                                          "and a cat and a house with a garden and a tree in it",
                                .max_tokens = 8, .ignore_eos = true },
                            NULL, NULL));
        request_ns[i] = result->report.device_ns;
        cinf_result_free(result);
    }
    printf("loading %.2f s, requests %.4f s and %.4f s\n", (double)load_ns / 1e9, (double)request_ns[0] / 1e9,
           (double)request_ns[1] / 1e9);
    ck_assert_uint_gt(request_ns[0], 0);
    ck_assert_uint_gt(load_ns, 1000000000);
    ck_assert_uint_lt(request_ns[0] + request_ns[1], load_ns / 4);
    ck_assert_int_eq(compiled(), before);
    cinf_model_release(model);
    cinf_engine_close(engine);
}
END_TEST
#endif

Suite *suite(void)
{
    Suite *s = suite_create("opencl_cold");
    TCase *t = tcase_create("cold");
    suite_add_tcase(s, t);
#if CINF_HAVE_OPENCL
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, compiling_is_loading);
#endif
    return s;
}
