/* Which device a name means, how many openers it may have, and what a program and a batch must be. */
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_impl.h"
#include "mem.h"
#include "support.h"

START_TEST(choices)
{
    static const char *const best[] = { NULL, "auto" };
    for (size_t i = 0; i < 2; i++) {
        struct device *device = NULL;
        struct device_info info;
        char reason[DEVICE_REASON_MAX] = "";
        ck_ok(device_open(&device, best[i], NULL, reason));
        device->backend->info(device, &info);
        ck_assert_str_eq(info.name, device_list(0));
        ck_assert(support_contains(reason, info.name) && support_contains(reason, "fastest"));
        ck_assert(!info.is_gpu);
        device_close(device);
    }
}
END_TEST

START_TEST(every_name_opens)
{
    uint32_t n = 0;
    for (; device_list(n); n++) {
        struct device *device = NULL;
        char reason[DEVICE_REASON_MAX] = "";
        ck_ok(device_open(&device, device_list(n), &(struct device_options){ 0 }, reason));
        ck_assert_str_eq(device->backend->name, device_list(n));
        ck_assert(support_contains(reason, "by name"));
        device_close(device);
        ck_ok(device_open(&device, device_list(n), NULL, NULL));
        device_close(device);
    }
    ck_assert_uint_eq(n, CINF_HAVE_BLAS ? 3 : 2);
    ck_assert_ptr_null(device_list(n + 1));
    device_close(NULL);
}
END_TEST

START_TEST(unknown_names)
{
    static const char *const names[] = { "", "cpu-", "CPU", "cpu-referenc", "opencl", "tpu" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct device *device = NULL;
        char reason[DEVICE_REASON_MAX] = "kept";
        ck_fails(device_open(&device, names[i], NULL, reason), CINF_ENOTFOUND, "cpu-reference");
        ck_assert_ptr_null(device);
        ck_assert_str_eq(reason, "kept");
    }
}
END_TEST

START_TEST(threads_that_cannot_be_had_are_told)
{
    struct device *device;
    char reason[DEVICE_REASON_MAX];
    ck_ok(device_open(&device, "cpu-reference", &(struct device_options){ .threads = 7 }, reason));
    ck_assert(support_contains(reason, "1 threads, not 7"));
    device_close(device);
    ck_ok(device_open(&device, "cpu-reference", &(struct device_options){ .threads = 1 }, reason));
    ck_assert(!support_contains(reason, "not"));
    device_close(device);
}
END_TEST

START_TEST(a_cache_that_cannot_be_had_is_refused)
{
    struct device *device = NULL;
    struct device_options half = { .threads = 1, .kv_f16 = true };
    struct device_info info;
    ck_fails(device_open(&device, "cpu-reference", &half, NULL), CINF_EUNSUPPORTED, "f16");
    ck_assert_ptr_null(device);
    ck_ok(device_open(&device, "cpu", &half, NULL)); /* the refusal has taken nothing */
    device->backend->info(device, &info);
    ck_assert(info.kv_f16);
    device_close(device);
    ck_ok(device_open(&device, "cpu", NULL, NULL));
    device->backend->info(device, &info);
    ck_assert(!info.kv_f16);
    device_close(device);
}
END_TEST

/* All CPU backends are one device. */
START_TEST(one_opener)
{
    struct device *first, *second = NULL;
    ck_ok(device_open(&first, "cpu-reference", NULL, NULL));
    for (uint32_t i = 0; device_list(i); i++)
        ck_fails(device_open(&second, device_list(i), NULL, NULL), CINF_EBUSY, "belongs to another");
    ck_fails(device_open(&second, "nothing", NULL, NULL), CINF_ENOTFOUND, "nothing");
    ck_assert_ptr_null(second);
    device_close(first);
    mem_fail_at(1);
    ck_fails(device_open(&second, "cpu-reference", NULL, NULL), CINF_ENOMEM, "memory");
    mem_fail_at(0);
    ck_assert_ptr_null(second);
    ck_ok(device_open(&second, "auto", NULL, NULL)); /* a failed opening has taken nothing */
    device_close(second);
}
END_TEST

static atomic_int owners, opened;
static atomic_bool broken;

static void *contend(void *unused)
{
    for (int i = 0; i < 2000; i++) {
        struct device *device;
        enum cinf_status status = device_open(&device, "cpu-reference", NULL, NULL);
        if (status == CINF_OK) {
            if (atomic_fetch_add(&owners, 1) != 0)
                atomic_store(&broken, true);
            atomic_fetch_add(&opened, 1);
            atomic_fetch_sub(&owners, 1);
            device_close(device);
        } else if (status != CINF_EBUSY) {
            atomic_store(&broken, true);
        }
    }
    return unused;
}

START_TEST(one_opener_among_threads)
{
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, contend, NULL), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert(!atomic_load(&broken));
    ck_assert_int_gt(atomic_load(&opened), 0);
}
END_TEST

/* ---- Checks ------------------------------------------------------------------------------- */

enum { TOKENS, POSITIONS, GAIN, BIAS, UP, UP_BIAS, QKV, QKV_BIAS, NARROW_QKV, NARROW_QKV_BIAS, N_SPECS };

static const struct weight_spec specs[N_SPECS] = {
    [TOKENS] = { WEIGHT_TOKENS, 9, 6 },      [POSITIONS] = { WEIGHT_TABLE, 5, 6 },
    [GAIN] = { WEIGHT_VECTOR, 1, 6 },        [BIAS] = { WEIGHT_VECTOR, 1, 6 },
    [UP] = { WEIGHT_MATRIX, 6, 10 },         [UP_BIAS] = { WEIGHT_VECTOR, 1, 10 },
    [QKV] = { WEIGHT_MATRIX, 6, 18 },        [QKV_BIAS] = { WEIGHT_VECTOR, 1, 18 },
    [NARROW_QKV] = { WEIGHT_MATRIX, 6, 10 }, [NARROW_QKV_BIAS] = { WEIGHT_VECTOR, 1, 10 },
};

static struct program program_of(const struct op *ops, uint32_t n)
{
    return (struct program){ .ops = ops,
                             .n_ops = n,
                             .specs = specs,
                             .n_specs = N_SPECS,
                             .width = 6,
                             .inner = 10,
                             .heads = 3,
                             .layers = 2,
                             .vocab = 9,
                             .positions = 5 };
}

START_TEST(good_operations)
{
    const struct op ops[] = {
        { .kind = OP_EMBED, .out = ROWS_X, .weight = TOKENS, .weight2 = POSITIONS },
        { .kind = OP_NORM, .in = ROWS_X, .out = ROWS_H, .weight = GAIN, .bias = BIAS },
        { .kind = OP_LINEAR,
          .in = ROWS_H,
          .out = ROWS_Q,
          .weight = QKV,
          .bias = QKV_BIAS,
          .layer = 1,
          .epilogue = EPILOGUE_QKV,
          .q_cols = 6,
          .k_cols = 6,
          .v_cols = 6 },
        { .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_A, .layer = 1 },
        { .kind = OP_LINEAR, .in = ROWS_A, .out = ROWS_F, .weight = UP, .bias = UP_BIAS },
        { .kind = OP_EMBED, .out = ROWS_X, .weight = TOKENS, .weight2 = NO_WEIGHT },
        { .kind = OP_NORM, .in = ROWS_X, .out = ROWS_H, .weight = GAIN, .bias = NO_WEIGHT },
        { .kind = OP_LINEAR, .in = ROWS_A, .out = ROWS_F, .weight = UP, .bias = NO_WEIGHT },
        { .kind = OP_LOGITS, .in = ROWS_H, .weight = TOKENS },
    };
    struct program p = program_of(ops, sizeof ops / sizeof *ops);
    ck_ok(program_check(&p));
    ck_assert_uint_eq(row_width(&p, ROWS_F), 10);
    ck_assert_uint_eq(row_width(&p, ROWS_A), 6);
    p.n_ops = 0;
    ck_ok(program_check(&p));
}
END_TEST

/* A product whose columns go to the cache of layer 0, with the bias behind its matrix. */
#define TO_CACHE(MATRIX, Q, K, V)                                                                            \
    {                                                                                                        \
        .kind = OP_LINEAR, .in = ROWS_X, .out = ROWS_Q, .weight = (MATRIX), .bias = (MATRIX) + 1,            \
        .epilogue = EPILOGUE_QKV, .q_cols = (Q), .k_cols = (K), .v_cols = (V)                                \
    }

static const struct {
    struct op op;
    const char *words;
} bad_ops[] = {
    { { .kind = (enum op_kind)99 }, "unknown operation" },
    { { .kind = OP_EMBED, .out = ROWS_COUNT, .weight = TOKENS, .weight2 = POSITIONS }, "row buffer" },
    { { .kind = OP_EMBED, .out = ROWS_F, .weight = TOKENS, .weight2 = POSITIONS }, "width D" },
    { { .kind = OP_EMBED, .out = ROWS_X, .weight = POSITIONS, .weight2 = POSITIONS }, "[V, D]" },
    { { .kind = OP_EMBED, .out = ROWS_X, .weight = TOKENS, .weight2 = N_SPECS }, "[P, D]" },
    { { .kind = OP_EMBED, .out = ROWS_X, .weight = NO_WEIGHT, .weight2 = POSITIONS }, "[V, D]" },
    { { .kind = OP_NORM, .in = ROWS_X, .out = ROWS_H, .weight = NO_WEIGHT, .bias = BIAS }, "[D]" },
    { { .kind = OP_LINEAR, .in = ROWS_X, .out = ROWS_F, .weight = NO_WEIGHT, .bias = UP_BIAS }, "matrix" },
    { { .kind = OP_LOGITS, .in = ROWS_X, .weight = NO_WEIGHT }, "head" },
    { { .kind = OP_NORM, .in = ROWS_F, .out = ROWS_X, .weight = GAIN, .bias = BIAS }, "width D" },
    { { .kind = OP_NORM, .in = ROWS_X, .out = ROWS_H, .weight = GAIN, .bias = UP_BIAS }, "[D]" },
    { { .kind = OP_NORM, .in = ROWS_COUNT, .out = ROWS_H, .weight = GAIN, .bias = BIAS }, "row buffer" },
    { { .kind = OP_LINEAR, .in = ROWS_F, .out = ROWS_F, .weight = UP, .bias = UP_BIAS }, "overwrite" },
    { { .kind = OP_LINEAR, .in = ROWS_X, .out = ROWS_H, .weight = UP, .bias = UP_BIAS }, "matrix" },
    { { .kind = OP_LINEAR, .in = ROWS_X, .out = ROWS_F, .weight = UP, .bias = BIAS }, "bias" },
    { { .kind = OP_LINEAR,
        .in = ROWS_X,
        .out = ROWS_Q,
        .weight = QKV,
        .bias = QKV_BIAS,
        .layer = 2,
        .epilogue = EPILOGUE_QKV,
        .q_cols = 6,
        .k_cols = 6,
        .v_cols = 6 },
      "place" },
    { TO_CACHE(QKV, 0, 0, 0), "D columns of queries" },
    { TO_CACHE(QKV, 12, 3, 3), "D columns of queries" },
    { TO_CACHE(NARROW_QKV, 6, 2, 2), "as wide as the queries" }, /* three query heads share one key head */
    { TO_CACHE(QKV, 6, 6, 0), "as wide as the queries" },
    { TO_CACHE(NARROW_QKV, 6, 6, 6), "matrix" },
    { TO_CACHE(QKV, 6, UINT32_MAX, 13), "as wide as the queries" }, /* 18 in 32 bits */
    { { .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_Q }, "one buffer" },
    { { .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_A, .layer = 2 }, "layer" },
    { { .kind = OP_LOGITS, .in = ROWS_F, .weight = TOKENS }, "head" },
    { { .kind = OP_LOGITS, .in = ROWS_COUNT, .weight = TOKENS }, "row buffer" },
    { { .kind = OP_LOGITS, .in = ROWS_X, .weight = POSITIONS }, "head" },
};

START_TEST(bad_operations)
{
    struct program p = program_of(&bad_ops[_i].op, 1);
    ck_fails(program_check(&p), CINF_EINVAL, bad_ops[_i].words);
}
END_TEST

START_TEST(bad_shapes)
{
    const struct op ops[] = { { .kind = OP_LOGITS, .in = ROWS_X, .weight = TOKENS },
                              { .kind = OP_LOGITS, .in = ROWS_X, .weight = TOKENS } };
    struct program p = program_of(ops, 2);
    ck_fails(program_check(&p), CINF_EINVAL, "last");
    p = program_of(ops, 1);
    ck_ok(program_check(&p));
    p.heads = 4;
    ck_fails(program_check(&p), CINF_EINVAL, "6 does not divide into 4");
    p.heads = 0;
    ck_fails(program_check(&p), CINF_EINVAL, "heads");
    p = program_of(ops, 1);
    p.layers = 0;
    ck_fails(program_check(&p), CINF_EINVAL, "0 layers");
    p = program_of(ops, 1);
    p.vocab = UINT32_MAX;
    ck_fails(program_check(&p), CINF_EINVAL, "4294967295");
}
END_TEST

START_TEST(batches)
{
    const int32_t tokens[] = { 0, 8, 3 };
    const uint32_t positions[] = { 3, 4, 0 }, slots[] = { 1, 1, 0 };
    const uint8_t wants[] = { 0, 0, 1 };
    struct program p = program_of(NULL, 0);
    struct batch b = { 3, tokens, positions, slots, wants };
    ck_ok(batch_check(&b, &p, 3, 2));
    ck_fails(batch_check(&b, &p, 2, 2), CINF_EINVAL, "3 rows, 1 to 2");
    ck_fails(batch_check(&b, &p, 3, 1), CINF_EINVAL, "slot 1 of 1");
    p.vocab = 8;
    ck_fails(batch_check(&b, &p, 3, 2), CINF_EINVAL, "token 8");
    p.vocab = 9;
    p.positions = 4;
    ck_fails(batch_check(&b, &p, 3, 2), CINF_EINVAL, "position 4 of 4");
}
END_TEST

START_TEST(kinds_of_wants)
{
    ck_assert_uint_eq(top_k_of(LOGITS_NONE), 0);
    ck_assert_uint_eq(top_k_of(LOGITS_ALL), 0);
    for (uint32_t k = 1; k <= TOP_K_MAX; k++)
        ck_assert_uint_eq(top_k_of(logits_top_k(k)), k);
    struct program p = program_of(NULL, 0);
    uint8_t wants = logits_top_k(TOP_K_MAX);
    struct batch b = { 1, &(int32_t){ 0 }, &(uint32_t){ 0 }, &(uint32_t){ 0 }, &wants };
    ck_ok(batch_check(&b, &p, 1, 1));
    wants++;
    ck_fails(batch_check(&b, &p, 1, 1), CINF_EINVAL, "the 66 best logits, of at most 65");
}
END_TEST

START_TEST(each_of_many)
{
    ck_assert_uint_eq(attoseconds_each(1, 1), 1000000000);
    ck_assert_uint_eq(attoseconds_each(7, 2), 3500000000);
    ck_assert_uint_eq(attoseconds_each(250000000, 250000000), 1000000000);
    ck_assert_uint_eq(attoseconds_each(2000000, UINT64_C(2000000000000)), 1000); /* 1 PFLOPS */
    ck_assert_uint_eq(attoseconds_each(60000000000, 1), UINT64_MAX);
    ck_assert_uint_eq(attoseconds_each(0, 5), 1);
    ck_assert_uint_eq(attoseconds_each(1, UINT64_MAX), 1);
}
END_TEST

/* ---- What backends share ------------------------------------------------------------------ */

START_TEST(requests_of_weights_are_checked)
{
    const struct weight_spec given[] = { { WEIGHT_TOKENS, 7, 4 },
                                         { WEIGHT_MATRIX, 4, 6 },
                                         { WEIGHT_VECTOR, 1, 6 } };
    ck_ok(specs_check(given, 3));
    ck_ok(specs_check(NULL, 0));
    ck_fails(specs_check(&(struct weight_spec){ WEIGHT_MATRIX, 0, 4 }, 1), CINF_EINVAL, "weight 0 is 0 x 4");
    ck_fails(specs_check(&(struct weight_spec){ WEIGHT_MATRIX, 4, 0 }, 1), CINF_EINVAL, "weight 0 is 4 x 0");
    ck_fails(specs_check(&(struct weight_spec){ WEIGHT_VECTOR, 2, 4 }, 1), CINF_EINVAL, "weight 0 is 2 x 4");

    ck_ok(write_check(given, 3, 0, 0, 7, CINF_DTYPE_F32));
    ck_ok(write_check(given, 3, 2, 1, 0, CINF_DTYPE_F64));
    ck_fails(write_check(given, 3, 3, 0, 0, CINF_DTYPE_F32), CINF_EINVAL, "weight 3 of 3");
    ck_fails(write_check(given, 3, 1, 5, 0, CINF_DTYPE_F32), CINF_EINVAL, "rows 5 to 5 of 4");
    ck_fails(write_check(given, 3, 1, 3, 2, CINF_DTYPE_F32), CINF_EINVAL, "rows 3 to 5 of 4");
    ck_fails(write_check(given, 3, 1, 3, UINT32_MAX, CINF_DTYPE_F32), CINF_EINVAL,
             "rows 3 to 4294967298 of 4");
    ck_fails(write_check(given, 3, 1, 0, 4, CINF_DTYPE_OTHER), CINF_EUNSUPPORTED, "weight 1");

    const struct program program = { NULL, 0, given, 3, 4, 6, 2, 1, 7, 8 };
    struct weight_spec others[] = { given[0], given[1], given[2] };
    ck_ok(prepare_check(&program, others, 3, 1));
    ck_fails(prepare_check(&program, others, 3, 0), CINF_EINVAL, "at most 0 rows");
    ck_fails(prepare_check(&program, others, 3, (1u << 20) + 1), CINF_EINVAL, "rows");
    ck_fails(prepare_check(&program, others, 2, 1), CINF_EINVAL, "other weights");
    others[1].cols++;
    ck_fails(prepare_check(&program, others, 3, 1), CINF_EINVAL, "other weights");
    others[1] = given[1];
    others[0].role = WEIGHT_HEAD;
    ck_fails(prepare_check(&program, others, 3, 1), CINF_EINVAL, "other weights");

    ck_ok(copy_check(2, 8, 1, 0, 8));
    ck_fails(copy_check(2, 8, 2, 0, 1), CINF_EINVAL, "from slot 0 to slot 2 of 2");
    ck_fails(copy_check(2, 8, 0, 2, 1), CINF_EINVAL, "from slot 2 to slot 0 of 2");
    ck_fails(copy_check(2, 8, 1, 0, 9), CINF_EINVAL, "9 positions");
}
END_TEST

START_TEST(weights_are_summed_by_their_use)
{
    struct weights_sum sum = { 0 };
    weights_sum_add(&sum, WEIGHT_TABLE, 1000000);
    weights_sum_add(&sum, WEIGHT_MATRIX, 1000);
    weights_sum_add(&sum, WEIGHT_VECTOR, 10);
    weights_sum_add(&sum, WEIGHT_TOKENS, 300);
    ck_assert_uint_eq(weights_sum_read(&sum), 1310); /* tied */
    weights_sum_add(&sum, WEIGHT_HEAD, 400);
    ck_assert_uint_eq(weights_sum_read(&sum), 1410);
}
END_TEST

/* ---- Every backend is tested --------------------------------------------------------------- */

/* The file's text, freed by the caller. */
static char *text_of(const char *path)
{
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s", path);
    char *text = calloc(1 << 20, 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_lt(fread(text, 1, (1 << 20) - 1, f), (1 << 20) - 1);
    fclose(f);
    return text;
}

/* Whether a test program puts that backend through the operations of backend_ops.h. */
static bool is_tested(const char *name)
{
    glob_t programs;
    bool tested = false;
    ck_assert_int_eq(glob(support_source("tests/test_*.c"), 0, NULL, &programs), 0);
    for (size_t i = 0; i < programs.gl_pathc && !tested; i++) {
        char *text = text_of(programs.gl_pathv[i]);
        tested = strstr(text, "check_program(") && strstr(text, name);
        free(text);
    }
    globfree(&programs);
    return tested;
}

/* A new backend fails here until backends.c lists it and a test program runs every operation on it. */
START_TEST(every_backend_file_has_a_line_and_a_test_program)
{
    static const char before[] = "\nconst struct backend backend_";
    glob_t files;
    uint32_t n = 0;
    char *list = text_of(support_source("libcostinfer/compute/backends.c"));
    ck_assert_int_eq(glob(support_source("libcostinfer/compute/*/*.c"), 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char *text = text_of(files.gl_pathv[i]), *at = strstr(text, before);
        if (at) {
            char *name = at + sizeof before - sizeof "backend_";
            name[strcspn(name, " ")] = 0;
            ck_assert_msg(strstr(list, name) != NULL, "%s is not in backends.c", name);
            ck_assert_msg(is_tested(name), "no test program calls check_program() for %s", name);
            n++;
        }
        free(text);
    }
    ck_assert_uint_ge(n, 4);
    globfree(&files);
    free(list);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("backend");
    TCase *t = tcase_create("choice");
    tcase_add_test(t, each_of_many);
    tcase_add_test(t, choices);
    tcase_add_test(t, every_name_opens);
    tcase_add_test(t, unknown_names);
    tcase_add_test(t, threads_that_cannot_be_had_are_told);
    tcase_add_test(t, a_cache_that_cannot_be_had_is_refused);
    tcase_add_test(t, one_opener);
    tcase_add_test(t, requests_of_weights_are_checked);
    tcase_add_test(t, weights_are_summed_by_their_use);
    tcase_add_test(t, one_opener_among_threads);
    suite_add_tcase(s, t);
    t = tcase_create("checks");
    tcase_add_test(t, good_operations);
    tcase_add_loop_test(t, bad_operations, 0, sizeof bad_ops / sizeof bad_ops[0]);
    tcase_add_test(t, bad_shapes);
    tcase_add_test(t, batches);
    tcase_add_test(t, kinds_of_wants);
    suite_add_tcase(s, t);
    t = tcase_create("completeness");
    tcase_add_test(t, every_backend_file_has_a_line_and_a_test_program);
    suite_add_tcase(s, t);
    return s;
}
