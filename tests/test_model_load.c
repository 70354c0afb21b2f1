/* Engines and models that come and go: opening, loading, unloading, closing, and memory that runs out. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "engine_fixture.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"

static void *unload_model(void *model)
{
    ck_assert_int_eq(cinf_model_unload(model), CINF_OK);
    return NULL;
}

START_TEST(unloading_drains_and_keeps_the_series)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .max_tokens = 100, .ignore_eos = true };
    struct cinf_request *r = submit(small, &o), *none = NULL;
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, unload_model, small), 0);
    enum cinf_status refused;
    do {
        refused = cinf_request_submit(&none, small, &o);
        if (refused == CINF_OK)
            cinf_request_free(none);
    } while (refused == CINF_OK || refused == CINF_EFULL);
    ck_assert_int_eq(refused, CINF_ECLOSED);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_LENGTH);
    pthread_join(thread, NULL);
    cinf_request_free(r);

    struct cinf_model *found = NULL;
    ck_fails(cinf_model_find(&found, engine, "stories-small"), CINF_ENOTFOUND, "stories-small");
    ck_fails(cinf_model_unload(small), CINF_ECLOSED, "unloaded already");
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.n_models, 1);
    ck_assert(!s.models[0].loaded);
    uint64_t served = s.models[0].serve_ns;
    ck_assert_uint_gt(served, 0);
    cinf_snapshot_free(&s);

    cinf_model_release(small);
    load(&small, "stories-small");
    s = snapshot_now();
    ck_assert_uint_eq(s.n_models, 1);
    ck_assert(s.models[0].loaded);
    ck_assert_uint_eq(s.models[0].serve_ns, served);
    check_identities(&s);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(an_engine_closes_under_its_requests)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true };
    struct cinf_request *r[20];
    for (int i = 0; i < 20; i++)
        r[i] = submit(small, &o);
    cinf_engine_close(engine);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(wait_for_end(r[i]), CINF_FINISH_CANCELLED);
        cinf_request_free(r[i]);
    }
    struct cinf_request *none = NULL;
    ck_fails(cinf_request_submit(&none, small, &o), CINF_ECLOSED, "stories-small");
    engine = NULL;
}
END_TEST

static enum cinf_status replace(struct cinf_model **out, const char *folder)
{
    return cinf_model_load(out, engine,
                           &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "stories-small",
                                                         .folder = folder, .replace = true });
}

static struct cinf_model *found_model(void)
{
    struct cinf_model *found = NULL, *listed[2] = { NULL };
    ck_ok(cinf_model_find(&found, engine, "stories-small"));
    ck_assert_uint_eq(cinf_model_list(engine, listed, 2), 1);
    ck_assert_ptr_eq(listed[0], found);
    cinf_model_release(listed[0]);
    cinf_model_release(found);
    return found;
}

static uint64_t memory_used(void)
{
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    cinf_engine_device(engine, &device);
    return device.memory_used;
}

START_TEST(a_replaced_model_ends_what_it_has)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .max_tokens = 100, .ignore_eos = true };
    struct cinf_model *old = small, *new = NULL;
    struct cinf_model_info info = { CINF_MODEL_INFO };
    uint64_t one_model = memory_used();
    for (int round = 0; round < 3; round++) {
        struct cinf_request *r = submit(old, &o);
        ck_ok(replace(&new, folder_of("stories-small")));
        ck_assert_ptr_eq(found_model(), new);
        cinf_model_info(old, &info);
        ck_assert(!info.loaded);
        /* A caller that had found the model before is still served. */
        struct cinf_request *late = submit(old, &o);
        ck_assert_int_eq(wait_for_end(r), CINF_FINISH_LENGTH);
        ck_assert_int_eq(wait_for_end(late), CINF_FINISH_LENGTH);
        cinf_request_free(r);
        cinf_request_free(late);
        cinf_model_release(old);
        while (memory_used() > one_model) /* until the scheduler has looked */
            ck_ok(cinf_engine_set_price(engine, "2.50"));
        struct cinf_snapshot s = snapshot_now();
        ck_assert_uint_eq(s.n_models, 1);
        ck_assert(s.models[0].loaded);
        check_identities(&s);
        cinf_snapshot_free(&s);
        r = submit(new, &o);
        ck_assert_int_eq(wait_for_end(r), CINF_FINISH_LENGTH);
        cinf_request_free(r);
        small = old = new;
    }
    ck_ok(cinf_model_unload(small));
    struct cinf_snapshot s = snapshot_now();
    ck_assert(!s.models[0].loaded);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(a_failed_replacement_changes_nothing)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .max_tokens = 100, .ignore_eos = true };
    struct cinf_request *r = submit(small, &o);
    struct cinf_model *none = NULL;
    char path[4096], *folder = tiny_model();
    uint64_t before = memory_used();
    ck_fails(replace(&none, "/no/such"), CINF_ENOTFOUND, "/no/such");
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    ck_assert_int_eq(truncate(path, 300), 0);
    ck_fails(replace(&none, folder), CINF_EFORMAT, "model.safetensors");
    ck_assert_int_eq(remove(path), 0);
    ck_fails(replace(&none, folder), CINF_ENOTFOUND, "model.safetensors");
    folder = tiny_model();
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    ck_assert_int_eq(remove(path), 0);
    ck_fails(replace(&none, folder), CINF_EFORMAT, "merges.txt");
    ck_assert_ptr_eq(found_model(), small);
    ck_assert_int_eq(wait_for_end(r), CINF_FINISH_LENGTH);
    cinf_request_free(r);
    ck_assert_uint_eq(memory_used(), before);
}
END_TEST

static void touch_config(void *folder, uint64_t done, uint64_t total)
{
    if (done < total)
        return;
    char path[4096];
    struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };
    snprintf(path, sizeof path, "%s/config.json", (char *)folder);
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

START_TEST(files_that_change_during_a_load_are_not_served)
{
    struct cinf_model *none = NULL;
    char *folder = tiny_model();
    uint64_t before = memory_used();
    ck_fails(cinf_model_load(&none, engine,
                             &(struct cinf_model_options){
                                 CINF_MODEL_OPTIONS, .name = "stories-small", .folder = folder,
                                 .replace = true, .progress = touch_config, .progress_context = folder }),
             CINF_EIO, "changed while they were loaded");
    ck_assert_ptr_eq(found_model(), small);
    ck_assert_uint_eq(memory_used(), before);
}
END_TEST

START_TEST(an_account_is_opened_before_a_load)
{
    ck_ok(cinf_engine_open_account(engine, "stories-small"));
    ck_ok(cinf_engine_open_account(engine, "later"));
    ck_fails(cinf_engine_open_account(engine, "a\xFF"), CINF_EINVAL, "");
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.n_models, 2);
    ck_assert_str_eq(s.models[1].name, "later");
    cinf_snapshot_free(&s);
    /* A name too many is refused before a load, and those there are can still be loaded. */
    enum cinf_status status = CINF_OK;
    for (int i = 0; i < 2000 && status == CINF_OK; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        status = cinf_engine_open_account(engine, name);
    }
    ck_assert_int_eq(status, CINF_EFULL);
    struct cinf_model *model = NULL;
    ck_ok(replace(&model, folder_of("stories-small")));
    cinf_model_release(model);
}
END_TEST

START_TEST(one_device_has_one_engine)
{
    struct cinf_engine *second = NULL;
    ck_fails(cinf_engine_open(&second, NULL), CINF_EBUSY, "");
    ck_assert_ptr_null(second);
}
END_TEST

START_TEST(wrong_names_and_folders_are_reported_by_name)
{
    struct cinf_model *none = NULL;
    ck_fails(cinf_model_load(&none, engine,
                             &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = "/no/such" }),
             CINF_ENOTFOUND, "/no/such");
    ck_fails(cinf_model_load(&none, engine,
                             &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "stories-small",
                                                           .folder = folder_of("stories-small") }),
             CINF_EEXIST, "stories-small");
    ck_fails(cinf_model_load(&none, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS }), CINF_EINVAL,
             "folder");
    ck_fails(
        cinf_model_load(&none, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .shape = "gpt9" }),
        CINF_ENOTFOUND, "gpt9");
    ck_assert_ptr_null(none);
}
END_TEST

/* The ids that a model of this folder gives. */
static void generate_ids(int32_t ids[20], const char *folder, float logprobs[4])
{
    struct cinf_result *result;
    static const int32_t prompt[] = { 97, 98, 99, 100 };
    ck_ok(cinf_model_load(&small, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));
    ck_ok(cinf_generate(&result, small,
                        &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt_ids = prompt,
                                                        .n_prompt_ids = 4, .max_tokens = 20,
                                                        .ignore_eos = true },
                        NULL, NULL));
    ck_assert_uint_eq(result->choices[0].n_ids, 20);
    memcpy(ids, result->choices[0].ids, 20 * sizeof *ids);
    ck_assert_int_eq(result->choices[0].text[0] == '\0', !cinf_model_tokenizer(small));
    cinf_result_free(result);
    ck_ok(cinf_score(small, prompt, 4, logprobs, NULL));
}

START_TEST(a_folder_without_a_tokenizer_serves_ids)
{
    static const char *const files[] = { "vocab.json", "merges.txt", "tokenizer_config.json" };
    int32_t with[20], without[20];
    float scored_with[4], scored_without[4];
    char path[4200];
    char *folder = tiny_model();
    open_engine(NULL);
    generate_ids(with, folder, scored_with);
    ck_ok(cinf_model_unload(small));
    cinf_model_release(small);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        ck_assert(remove(path) == 0 || i == 2);
        /* With a part of the files it is broken. */
        if (i == 0)
            ck_fails(cinf_model_load(&small, engine,
                                     &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }),
                     CINF_EFORMAT, "merges.txt without vocab.json");
    }
    generate_ids(without, folder, scored_without);
    ck_assert_mem_eq(with, without, sizeof with);
    ck_assert_mem_eq(scored_with + 1, scored_without + 1, 3 * sizeof(float));
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(small, &info);
    ck_assert_ptr_nonnull(strstr(info.notes, "no tokenizer file"));
    ck_assert_ptr_null(cinf_model_tokenizer(small));
    struct cinf_request *none;
    ck_fails(cinf_request_submit(&none, small,
                                 &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = "a" }),
             CINF_EINVAL, "has no tokenizer (tokenizer.json, or vocab.json and merges.txt");
    static const char *const stops[] = { "a" };
    ck_fails(
        cinf_request_submit(
            &none, small, &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .stop = stops, .n_stop = 1 }),
        CINF_EINVAL, "stop_token_ids");
}
END_TEST

START_TEST(keys_and_values_are_stored_as_asked)
{
    struct cinf_engine *none = NULL;
    struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = "cpu-reference", .kv = CINF_KV_F16 };
    ck_fails(cinf_engine_open(&none, &o), CINF_EUNSUPPORTED, "cpu-reference");
    o.kv = (enum cinf_kv)2;
    ck_fails(cinf_engine_open(&none, &o), CINF_EINVAL, "kv is 2");
    ck_assert_ptr_null(none);

    for (int half = 0; half < 2; half++) {
        struct cinf_device_info device = { CINF_DEVICE_INFO };
        open_engine(
            &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu", .kv = (enum cinf_kv)half });
        cinf_engine_device(engine, &device);
        ck_assert_int_eq(device.kv, half);
        teardown();
    }
}
END_TEST

static enum cinf_status open_once(const char *folder)
{
    struct cinf_engine *e = NULL;
    (void)folder;
    enum cinf_status status =
        cinf_engine_open(&e, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu-reference" });
    cinf_engine_close(e);
    return status;
}

static enum cinf_status load_and_generate_once(const char *folder)
{
    struct cinf_model *m = NULL;
    struct cinf_result *result = NULL;
    enum cinf_status status = cinf_model_load(
        &m, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .slots = 2, .folder = folder });
    if (status == CINF_OK) {
        static const char *const stop[] = { "qqq" };
        struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "ab",
                                          .max_tokens = 3,      .n = 2,
                                          .stop = stop,         .n_stop = 1,
                                          .top_logprobs = 2,    .prompt_logprobs = true };
        status = cinf_generate(&result, m, &o, NULL, NULL);
        cinf_model_unload(m);
    }
    cinf_result_free(result);
    cinf_model_release(m);
    return status;
}

/* Fails allocation 1, 2, 3 … until one run gets through; returns how many runs failed. */
static uint64_t sweep(enum cinf_status (*run)(const char *folder), const char *folder)
{
    uint64_t failures = 0;
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        enum cinf_status status = run(folder);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            ck_ok(status);
            return failures;
        }
        failures += status != CINF_OK;
    }
}

/* What a container's memory limit reads as, while a test sets it. */
static char *memory_limit;

FILE *fopen(const char *path, const char *mode);
FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*real)(const char *, const char *);
    void *found = dlsym(RTLD_NEXT, "fopen");
    memcpy(&real, &found, sizeof real);
    return memory_limit && strcmp(path, "/sys/fs/cgroup/memory.max") == 0
               ? fmemopen(memory_limit, strlen(memory_limit), "r")
               : real(path, mode);
}

/* The default memory of caches is a share of what the process may use, not of what the machine has. */
START_TEST(caches_fit_into_a_container)
{
    char limit[] = "1048576\n", *folder = tiny_model();
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    struct cinf_model_info info = { CINF_MODEL_INFO };
    memory_limit = limit;
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu-reference" });
    memory_limit = NULL;
    cinf_engine_device(engine, &device);
    ck_assert_uint_eq(device.memory_total, 1048576);
    ck_ok(cinf_model_load(&small, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));
    cinf_model_info(small, &info);
    ck_assert_uint_eq(info.slots, 1048576 / 4 / 2 / (2 * TINY_P * TINY_D * sizeof(float)));
}
END_TEST

/* A cache of 7 slots: 3 for the first model, 2 for the second, and 2 are left. */
START_TEST(a_replacement_keeps_its_slots_or_is_refused)
{
    enum { SLOT = 2 * TINY_P * TINY_D * sizeof(float) };
    char *folder = tiny_model();
    struct cinf_model *model = NULL;
    struct cinf_model_info info = { CINF_MODEL_INFO };
    struct cinf_model_options o = { CINF_MODEL_OPTIONS, .name = "a", .folder = folder, .replace = true };
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu-reference",
                                               .kv_memory = 7 * SLOT });
    ck_ok(cinf_model_load(&small, engine, &o));
    ck_ok(cinf_model_load(&model, engine, &o));
    cinf_model_info(model, &info);
    ck_assert_uint_eq(info.slots, 3);
    cinf_model_release(small);
    small = model;
    while (cinf_model_load(&large, engine,
                           &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "b", .folder = folder,
                                                         .slots = 2 }) != CINF_OK)
        ck_assert_msg(support_contains(cinf_last_error(), "the cache of one context"), "%s",
                      cinf_last_error()); /* until the replaced model is gone */
    ck_fails(cinf_model_load(&model, engine, &o), CINF_ENOMEM, "room for 2 slots of 16384 bytes");
    cinf_model_info(small, &info);
    ck_assert(info.loaded);
}
END_TEST

/* The first model may try what memory allows; a second must not endanger the first. */
START_TEST(a_second_copy_must_fit_into_memory)
{
    char limit[] = "1048576\n", little[] = "1000\n", *folder = tiny_model();
    struct cinf_model *model = NULL;
    struct cinf_model_options o = { CINF_MODEL_OPTIONS, .name = "a", .folder = folder, .replace = true,
                                    .slots = 1 };
    memory_limit = limit;
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "cpu-reference" });
    ck_ok(cinf_model_load(&small, engine, &o));
    memory_limit = little;
    ck_fails(cinf_model_load(&model, engine, &o), CINF_ENOMEM, "bytes beside the models that are loaded");
    memory_limit = NULL;
    ck_ok(cinf_model_load(&model, engine, &o));
    cinf_model_release(model);
}
END_TEST

/* A copy has the fingerprint; a touched file has another identity alone. */
START_TEST(files_are_identified)
{
    char a[2][CINF_DIGEST_TEXT], b[2][CINF_DIGEST_TEXT], path[4096];
    char *first = tiny_model(), *second = tiny_model();
    memset(a, 'x', sizeof a);
    ck_fails(cinf_files_identify(a[0], a[1], "/no/such"), CINF_ENOTFOUND, "/no/such");
    ck_assert_int_eq(a[0][0], 'x');
    ck_ok(cinf_files_identify(a[0], a[1], first));
    ck_ok(cinf_files_identify(b[0], b[1], second));
    ck_assert_str_eq(a[0], b[0]);
    ck_assert_str_ne(a[1], b[1]);
    support_write(first, "README.md", "not of the model", -1);
    ck_ok(cinf_files_identify(b[0], b[1], first));
    ck_assert_str_eq(a[1], b[1]);
    touch_config(first, 1, 1);
    ck_ok(cinf_files_identify(b[0], b[1], first));
    ck_assert_str_eq(a[0], b[0]);
    ck_assert_str_ne(a[1], b[1]);
    support_write(first, "added_tokens.json", "{}", -1);
    ck_ok(cinf_files_identify(b[0], b[1], first));
    ck_assert_str_ne(a[0], b[0]);
    snprintf(path, sizeof path, "%s/x.bin", second);
    ck_assert_int_eq(symlink("/no/such", path), 0);
    ck_ok(cinf_files_identify(b[0], b[1], second));
    ck_assert_str_ne(a[0], b[0]);
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    char *folder = tiny_model();
    uint64_t opening = sweep(open_once, folder);
    ck_assert_uint_gt(opening, 3);
    open_engine(NULL);
    uint64_t serving = sweep(load_and_generate_once, folder);
    ck_assert_uint_gt(serving, 50);
    struct cinf_snapshot s = snapshot_now();
    check_identities(&s);
    cinf_snapshot_free(&s);
    printf("%llu + %llu failed allocations survived\n", (unsigned long long)opening,
           (unsigned long long)serving);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("model_load");
    TCase *t = case_with_engine();
    tcase_add_test(t, unloading_drains_and_keeps_the_series);
    tcase_add_test(t, an_engine_closes_under_its_requests);
    tcase_add_test(t, a_replaced_model_ends_what_it_has);
    tcase_add_test(t, a_failed_replacement_changes_nothing);
    tcase_add_test(t, files_that_change_during_a_load_are_not_served);
    tcase_add_test(t, an_account_is_opened_before_a_load);
    tcase_add_test(t, one_device_has_one_engine);
    tcase_add_test(t, wrong_names_and_folders_are_reported_by_name);
    suite_add_tcase(s, t);
    t = case_of_engines();
    tcase_add_test(t, a_folder_without_a_tokenizer_serves_ids);
    tcase_add_test(t, keys_and_values_are_stored_as_asked);
    tcase_add_test(t, caches_fit_into_a_container);
    tcase_add_test(t, a_replacement_keeps_its_slots_or_is_refused);
    tcase_add_test(t, a_second_copy_must_fit_into_memory);
    tcase_add_test(t, files_are_identified);
    tcase_add_test(t, every_failed_allocation_is_survived);
    suite_add_tcase(s, t);
    return s;
}
