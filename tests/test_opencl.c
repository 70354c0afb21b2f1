/* Every operation of the OpenCL backend against its definition in double, with the kernels of CPUs and of
 * GPUs, on the first OpenCL device (PoCL, in our own runs); and drivers that fail.  All of it runs in one
 * process, since a context does not survive fork(). */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "opencl_suite.h"

#if CINF_HAVE_OPENCL
#include "backend_ops.h"
#include "file.h"
#include "half.h"
#include "opencl_cache.h"
#include "opencl_kept.h"
#include "opencl_kv.h"
#include "opencl_open.h"
#include "opencl_rounding.h"
#include "opencl_shim.h"
#include "opencl_weights.h"
#include "packed_weights.h"
#include "strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Devices of other kinds ---------------------------------------------------------------- */

static const struct opencl_tuning as_cpu = { .lanes = 1, .tile_rows = 4, .split_length = 16 };
static const struct opencl_tuning as_gpu = { .lanes = 16, .tile_rows = 8, .split_length = 16 };
static const struct opencl_tuning *tuning;
static enum weights_type weights_as;
static bool kv_f16;

static enum cinf_status open_kept(struct device **out, const struct device_options *options)
{
    (void)options;
    *out = kept_device(tuning, kv_f16);
    return CINF_OK;
}

static enum cinf_status weights_new_as(struct weights **out, struct device *device,
                                       const struct weight_spec *specs, uint32_t n_specs,
                                       enum weights_type type)
{
    (void)type;
    return opencl_weights_new(out, device, specs, n_specs, weights_as);
}

/* The backend with weights of that type, on a kept device that is tuned by its type (NULL) or otherwise. */
static const struct backend *backend_as(const struct opencl_tuning *as, enum weights_type type)
{
    static struct backend backend;
    backend = backend_opencl;
    tuning = as;
    weights_as = type;
    backend.open = open_kept;
    backend.close = kept_stays_open;
    backend.weights_new = weights_new_as;
    return &backend;
}

static const enum weights_type types[] = { WEIGHTS_F32, WEIGHTS_F16, WEIGHTS_INT8 };
enum { TYPES = sizeof types / sizeof *types };

/* A context, a queue, and one program or two. */
static int objects_of(const struct device *device)
{
    return 3 + (((const struct opencl_device *)device)->attend != NULL);
}

/* Asserts that nothing is left but kept devices and this one, if any, and that no buffer was overrun. */
static void check_clean_but(const struct device *open)
{
    int live = open ? objects_of(open) : 0;
    for (int i = 0; i < KEPT_MAX && kept[i].device; i++)
        live += objects_of(kept[i].device);
    ck_assert_int_eq(shim.live, live);
    ck_assert(!shim.overrun);
}

static void check_clean(void)
{
    check_clean_but(NULL);
}

/* ---- Operations ---------------------------------------------------------------------------- */

START_TEST(programs)
{
    check_program(backend_as(NULL, WEIGHTS_F32), _i);
    check_clean();
}
END_TEST

/* Shapes that do not fill the last group of any kernel, of CPUs or of GPUs; pasts in pieces. */
START_TEST(kernels_of_all_kinds)
{
    static const struct shape shapes[] = { { 35, 5, 33, 70, 200, 2 }, { 64, 1, 130, 31, 138, 1 } };
    const struct opencl_tuning *as = _i % 2 ? &as_gpu : &as_cpu;
    enum weights_type type = types[_i / 2 % TYPES];
    struct rig rig;
    rig_begin(&rig, shapes[_i / (2 * TYPES)]);
    add_program(&rig, PROGRAM_GPT2);
    round_values(&rig, type);
    rig_start(&rig, backend_as(as, type), STEP_ROWS_MAX);
    check_steps(&rig, as == &as_gpu ? "as a GPU" : "as a CPU");
    rig_end(&rig);
    check_clean();
}
END_TEST

/* Adds the squares of the logits' errors and of the logits, after a step whose n rows all wanted logits and
 * that was also computed in double. */
static void add_squares(const struct rig *rig, uint32_t n, double *error, double *square)
{
    const uint32_t vocab = rig->program.vocab, width = rig->program.width;
    for (uint32_t r = 0; r < n; r++) {
        const float *logits;
        ck_ok(rig->backend->logits(rig->prepared, r, &logits));
        for (uint32_t v = 0; v < vocab; v++) {
            double exact = 0;
            for (uint32_t c = 0; c < width; c++)
                exact += rig->rows[ROWS_H][r * width + c] * (double)rig->values[W_HEAD][v * width + c];
            *error += (logits[v] - exact) * (logits[v] - exact);
            *square += exact * exact;
        }
    }
}

/* Over all logits the error is near that of float32, with weights of every type (whose rounding the rig
 * repeats), with biases and positions or without, and with any number of rows. */
START_TEST(precision)
{
    struct rig rig;
    struct step_rows s;
    rig_begin(&rig, (struct shape){ 192, 3, 400, 200, 64, 2 });
    add_program(&rig, _i / (2 * TYPES) ? PROGRAM_BARE + PROGRAM_GPT2 : PROGRAM_GPT2);
    round_values(&rig, types[_i / 2 % TYPES]);
    rig_start(&rig, backend_as(_i % 2 ? &as_gpu : &as_cpu, types[_i / 2 % TYPES]), 64);
    double error = 0, square = 0;
    static const uint32_t counts[] = { 1, 3, 8, 16, 17, 19 }; /* each takes another kernel */
    uint32_t position = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; position += counts[i++]) {
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ 1, position, counts[i] }, 200, WANT_ALL);
        step_check(&rig, &s.batch, "of one slot");
        add_squares(&rig, counts[i], &error, &square);
    }
    ck_assert_double_lt(error / square, 1e-11);
    rig_end(&rig);
    check_clean();
}
END_TEST

/* Keys and values in f16 add an error of at most 2^-11 each, and nothing else.  The steps cover a copy, rows
 * alone and in tiles, and a past in pieces. */
START_TEST(half_the_cache)
{
    struct rig rig;
    struct step_rows s;
    rig_begin(&rig, (struct shape){ 192, 3, 400, 200, 64, 2 });
    add_program(&rig, PROGRAM_GPT2);
    kv_f16 = true;
    rig_start(&rig, backend_as(_i ? &as_gpu : &as_cpu, WEIGHTS_F32), 64);
    kv_f16 = false;
    struct device_info info;
    rig.backend->info(rig.device, &info);
    ck_assert(info.kv_f16);
    ck_assert_uint_eq(rig.backend->kv_slot_bytes(rig.device, &rig.program), 2 * 2 * 192 * 64 * 2);
    double error = 0, square = 0;
    static const struct run_of_rows runs[] = { { 0, 0, 40 }, { 0, 40, 1 }, { 1, 41, 5 }, { 1, 46, 1 } };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        if (i == 2) {
            ck_ok(rig.backend->kv_copy(rig.kv, 1, 0, 41));
            for (uint32_t l = 0; l < 2; l++) {
                memcpy(exact_cache(&rig, rig.keys, l, 1, 0), exact_cache(&rig, rig.keys, l, 0, 0),
                       sizeof(double) * 41 * 192);
                memcpy(exact_cache(&rig, rig.cached, l, 1, 0), exact_cache(&rig, rig.cached, l, 0, 0),
                       sizeof(double) * 41 * 192);
            }
        }
        step_begin(&s);
        step_add(&s, runs[i], 200, WANT_ALL);
        ck_ok(rig.backend->run(rig.prepared, &s.batch));
        exact_run(&rig, &s.batch);
        add_squares(&rig, runs[i].n, &error, &square);
    }
    ck_assert_double_lt(error / square, 1e-6);
    ck_assert_double_gt(error / square, 1e-10); /* f32 would be closer */
    rig_end(&rig);
    check_clean();
}
END_TEST

/* Slots 0 and 1 take two prompts and their continuations in common steps; slots 2 and 3 take the same with a
 * step for each prompt or row.  The logits agree but for the order of sums and, with keys and values in f16,
 * their rounding. */
START_TEST(batches_are_singles)
{
    enum { PROMPTS = 2, AFTER = 3 };
    static const uint32_t lengths[PROMPTS] = { 23, 6 };
    const bool half = _i / 2 == 1;
    const enum weights_type type = half ? WEIGHTS_F32 : WEIGHTS_INT8;
    const struct shape shape = { 192, 3, 400, 200, 64, 2 };
    struct rig rig;
    rig_begin(&rig, shape);
    add_program(&rig, PROGRAM_GPT2);
    kv_f16 = half;
    rig_start(&rig, backend_as(_i % 2 ? &as_gpu : &as_cpu, type), 64);
    kv_f16 = false;
    float *together = array_new((size_t)64 * shape.v, sizeof *together);
    double error = 0, square = 0;
    for (uint32_t k = 0; k <= AFTER; k++) {
        int32_t tokens[64];
        uint32_t positions[64], slots[64], n = 0;
        uint8_t wants[64];
        memset(wants, 1, sizeof wants);
        for (uint32_t p = 0; p < PROMPTS; p++) {
            for (uint32_t r = 0; r < (k ? 1 : lengths[p]); r++, n++) {
                positions[n] = k ? lengths[p] + k - 1 : r;
                tokens[n] = (int32_t)((31 * positions[n] + 7 * p) % shape.v);
                slots[n] = p;
            }
        }
        const float *logits;
        ck_ok(rig.backend->run(rig.prepared, &(struct batch){ n, tokens, positions, slots, wants }));
        for (uint32_t r = 0; r < n; r++) {
            ck_ok(rig.backend->logits(rig.prepared, r, &logits));
            memcpy(together + (size_t)r * shape.v, logits, shape.v * sizeof *logits);
        }
        for (uint32_t at = 0, rows; at < n; at += rows) {
            rows = k ? 1 : lengths[slots[at]];
            for (uint32_t r = at; r < at + rows; r++)
                slots[r] += PROMPTS;
            ck_ok(rig.backend->run(rig.prepared,
                                   &(struct batch){ rows, tokens + at, positions + at, slots + at, wants }));
            for (uint32_t r = 0; r < rows; r++) {
                const float *other = together + (size_t)(at + r) * shape.v;
                ck_ok(rig.backend->logits(rig.prepared, r, &logits));
                for (uint32_t v = 0; v < shape.v; v++) {
                    error += ((double)logits[v] - other[v]) * ((double)logits[v] - other[v]);
                    square += (double)other[v] * other[v];
                }
            }
        }
    }
    ck_assert_msg(error < (half ? 1e-6 : 1e-11) * square, "%g of the logits", error / square);
    free(together);
    rig_end(&rig);
    check_clean();
}
END_TEST

/* Runs a prompt, a copy, rows alone and together, more logits than room, and picks.  Writes all logits and
 * picks to out[OUT_MAX] and returns how many numbers they are. */
enum { OUT_MAX = 300 * 200 };
static size_t numbers_of_steps(float *out, const struct opencl_tuning *as, enum weights_type type, bool half)
{
    static const struct run_of_rows runs[][2] = {
        { { 0, 0, 40 } },  { { 0, 40, 1 }, { 1, 40, 5 } },  { { 1, 45, 1 }, { 0, 41, 1 } },
        { { 2, 0, 140 } }, { { 2, 140, 1 }, { 1, 46, 8 } },
    };
    enum { RUNS = sizeof runs / sizeof *runs };
    const struct shape shape = { 192, 3, 400, 200, 150, 2 };
    struct rig rig;
    struct step_rows s;
    float *to = out;
    random_state = 1; /* the same weights each time */
    rig_begin(&rig, shape);
    add_program(&rig, PROGRAM_GPT2);
    kv_f16 = half;
    rig_start(&rig, backend_as(as, type), STEP_ROWS_MAX);
    kv_f16 = false;
    for (int i = 0; i < RUNS; i++) {
        if (i == 1)
            ck_ok(rig.backend->kv_copy(rig.kv, 1, 0, 40));
        step_begin(&s);
        for (int k = 0; k < 2; k++)
            step_add(&s, runs[i][k], shape.v, WANT_ALL);
        if (i == RUNS - 1)
            memset(s.wants, 1 + 20, s.batch.n_rows);
        ck_ok(rig.backend->run(rig.prepared, &s.batch));
        for (uint32_t r = 0; r < s.batch.n_rows; r++, to += shape.v) {
            const float *logits;
            struct top_k picked;
            ck_assert_uint_le((size_t)(to - out) + shape.v, OUT_MAX);
            memset(to, 0, shape.v * sizeof *to);
            if (i < RUNS - 1) {
                ck_ok(rig.backend->logits(rig.prepared, r, &logits));
                memcpy(to, logits, shape.v * sizeof *to);
                continue;
            }
            ck_ok(rig.backend->top_k(rig.prepared, r, &picked));
            ck_assert_uint_eq(picked.n, 20);
            memcpy(to, picked.logits, 20 * sizeof *to);
            memcpy(to + 20, picked.ids, 20 * sizeof *picked.ids);
            to[40] = (float)picked.log_sum;
        }
    }
    rig_end(&rig);
    check_clean();
    return (size_t)(to - out);
}

/* Commands are queued and only their results are waited for.  A queue that is drained after every command
 * gives the same logits, bit for bit. */
START_TEST(waiting_after_every_launch_changes_nothing)
{
    const struct opencl_tuning *as = _i % 2 ? &as_gpu : &as_cpu;
    const bool half = _i / 2 == TYPES;
    const enum weights_type type = half ? WEIGHTS_F32 : types[_i / 2];
    float *numbers = array_new(2 * (size_t)OUT_MAX, sizeof *numbers), *waited = numbers + OUT_MAX;
    size_t n = numbers_of_steps(numbers, as, type, half);
    shim.synchronous = true;
    size_t n_waited = numbers_of_steps(waited, as, type, half);
    shim.synchronous = false;
    ck_assert_uint_eq(n, n_waited);
    ck_assert(memcmp(numbers, waited, n * sizeof *numbers) == 0);
    free(numbers);
}
END_TEST

/* ---- Picks --------------------------------------------------------------------------------- */

enum { PICK_V = 2500, PICK_ROWS = 100, PICK_TOKENS = 7 };

/* Logits are the head's numbers times a token's, so that they can be anything: many equal ones, infinities,
 * NaNs. Token 0 turns infinity into NaN. */
static void rig_with_odd_logits(struct rig *rig)
{
    static const float factors[PICK_TOKENS] = { 0, 1, -1, 0.5f, 3, 1e-3f, 1 };
    rig_begin(rig, (struct shape){ 2, 1, 2, PICK_V, PICK_ROWS, 1 });
    add_program(rig, PROGRAM_EMBED);
    memset(rig->values[W_POSITIONS], 0, sizeof(float) * PICK_ROWS * 2);
    for (uint32_t v = 0; v < PICK_V; v++) {
        float x = (float)random_normal(), *head = rig->values[W_HEAD] + 2 * (size_t)v;
        head[0] = v < 1500 ? rintf(8 * x) / 4 : x;
        if (v >= 2100 && v < 2110)
            head[0] = -INFINITY;
        head[1] = 0;
        rig->values[W_TOKENS][2 * (size_t)v] = factors[v % PICK_TOKENS];
        rig->values[W_TOKENS][2 * (size_t)v + 1] = 0;
    }
}

/* Asserts that what was picked from a row agrees with all of its logits. */
static void check_pick(const struct top_k *picked, uint32_t n, const float *all, const uint8_t *allowed)
{
    static bool taken[PICK_V];
    double max = -INFINITY, sum = 0;
    memset(taken, 0, sizeof taken);
    for (uint32_t k = 0; k < n; k++) {
        int best = -1;
        for (uint32_t v = 0; v < PICK_V; v++) {
            if (!taken[v] && all[v] < INFINITY && (allowed[v / 8] >> v % 8 & 1) &&
                (best < 0 || all[v] > all[best]))
                best = (int)v;
        }
        if (best < 0) {
            ck_assert_uint_eq(picked->n, k);
            break;
        }
        taken[best] = true;
        ck_assert_uint_gt(picked->n, k);
        ck_assert_int_eq(picked->ids[k], best);
        ck_assert(picked->logits[k] == all[best]);
    }
    for (uint32_t v = 0; v < PICK_V; v++)
        max = (double)all[v] > max ? (double)all[v] : max;
    for (uint32_t v = 0; v < PICK_V; v++)
        sum += exp((double)all[v] - max);
    ck_assert_msg(isnan(sum) ? isnan(picked->log_sum) : fabs(picked->log_sum - max - log(sum)) < 5e-6,
                  "log-sum %.9g, not %.9g", picked->log_sum, max + log(sum));
}

/* Picks from more rows than the device has room for at a time, among them rows that want all logits. */
START_TEST(picks)
{
    static const uint8_t counts[] = { 1, 2, 0, 0, 41, 65, 1, 0, 9 };
    struct rig rig;
    struct step_rows s;
    struct top_k picked;
    const float *logits;
    uint8_t allowed[PICK_V / 8 + 1];
    rig_with_odd_logits(&rig);
    rig_start(&rig, backend_as(_i ? &as_gpu : &as_cpu, WEIGHTS_F32), PICK_ROWS);
    float *all = array_new((size_t)PICK_ROWS * PICK_V, sizeof *all);
    memset(allowed, 0xFF, sizeof allowed);
    for (int round = 0; round < 3; round++) {
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ 1, 0, PICK_ROWS }, PICK_V, WANT_ALL);
        for (uint32_t r = 0; r < PICK_ROWS; r++)
            s.tokens[r] = (int32_t)(r % PICK_TOKENS);
        ck_ok(rig.backend->run(rig.prepared, &s.batch));
        for (uint32_t r = 0; r < PICK_ROWS; r++) {
            ck_ok(rig.backend->logits(rig.prepared, r, &logits));
            memcpy(all + (size_t)r * PICK_V, logits, PICK_V * sizeof *all);
        }
        for (uint32_t v = 0; round > 0 && v < sizeof allowed; v++)
            allowed[v] = (uint8_t)(round == 1 ? v * 37 : v == 100 ? 0x81 : 0); /* leaves two ids */
        if (round > 0)
            ck_ok(rig.backend->allow(rig.prepared, allowed));
        for (uint32_t r = 0; r < PICK_ROWS; r++)
            s.wants[r] = 1 + counts[r % sizeof counts];
        ck_ok(rig.backend->run(rig.prepared, &s.batch));
        for (uint32_t r = 0; r < PICK_ROWS; r++) {
            uint32_t n = s.wants[r] - 1u;
            if (n == 0) {
                ck_fails(rig.backend->top_k(rig.prepared, r, &picked), CINF_EINVAL, "no best logits");
                ck_ok(rig.backend->logits(rig.prepared, r, &logits));
                ck_assert(memcmp(logits, all + (size_t)r * PICK_V, PICK_V * sizeof *all) == 0);
                continue;
            }
            ck_fails(rig.backend->logits(rig.prepared, r, &logits), CINF_EINVAL, "only for the best");
            ck_ok(rig.backend->top_k(rig.prepared, r, &picked));
            check_pick(&picked, n, all + (size_t)r * PICK_V, allowed);
        }
        ck_fails(rig.backend->top_k(rig.prepared, PICK_ROWS, &picked), CINF_EINVAL, "row 100 of 100");
    }
    s.wants[3] = 2 + TOP_K_MAX;
    ck_fails(rig.backend->run(rig.prepared, &s.batch), CINF_EINVAL, "row 3: the 66 best");
    free(all);
    rig_end(&rig);
    check_clean();
}
END_TEST

/* A step is one transfer, fewer than ten launches a layer, and the way back of its results; it binds no
 * arguments. */
START_TEST(what_a_step_asks_of_the_driver)
{
    struct rig rig;
    struct step_rows s;
    rig_begin(&rig, (struct shape){ 21, 3, 24, 45, 150, 2 });
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, backend_as(_i ? &as_gpu : &as_cpu, WEIGHTS_F32), STEP_ROWS_MAX);
    for (uint32_t n = 1; n <= 100; n += 33) { /* 1, 34, 67, 100 */
        for (uint8_t wants = 1; wants <= 2; wants++) {
            step_begin(&s);
            step_add(&s, (struct run_of_rows){ 2, 0, n }, 45, WANT_ALL);
            memset(s.wants, wants, n);
            shim_count("clSetKernelArg");
            ck_ok(rig.backend->run(rig.prepared, &s.batch));
            ck_assert_uint_eq(shim.named, 0);
            shim_count("clEnqueueNDRangeKernel");
            ck_ok(rig.backend->run(rig.prepared, &s.batch));
            /* Embedding, seven a layer, the last norm; for each 64 rows: gather, multiply, pick in two. */
            ck_assert_uint_eq(shim.named, 2 + 2 * 7 + (n > 64 ? 2 : 1) * (wants == 2 ? 4 : 2));
            shim_count("clEnqueueReadBuffer");
            ck_ok(rig.backend->run(rig.prepared, &s.batch));
            ck_assert_uint_eq(shim.named, n > 64 ? 2 : 1);
            shim_count("clEnqueueWriteBuffer");
            ck_ok(rig.backend->run(rig.prepared, &s.batch));
            ck_assert_uint_eq(shim.named, 1);
            shim_count("clFinish");
            ck_ok(rig.backend->run(rig.prepared, &s.batch));
            ck_ok(rig.backend->wait(rig.prepared));
            ck_assert_uint_eq(shim.named, 0);
        }
    }
    shim_fail_at(0, NULL, 0);
    rig_end(&rig);
    check_clean();
}
END_TEST

/* Attention is built once for all models whose heads have one width; a model of another width does not
 * disturb them. */
START_TEST(attention_is_built_once)
{
    static const struct {
        struct shape shape;
        uint32_t builds;
    } models[] = { { { 21, 3, 24, 45, 150, 2 }, 1 },
                   { { 14, 2, 20, 40, 24, 1 }, 0 },
                   { { 6, 3, 10, 20, 30, 1 }, 1 } };
    enum { MODELS = sizeof models / sizeof *models };
    struct rig rigs[MODELS];
    struct step_rows s;
    struct opencl_device *device = (struct opencl_device *)kept_device(&as_cpu, false);
    device->attend_width = 0; /* forgets what earlier tests built */
    for (int m = 0; m < MODELS; m++) {
        rig_begin(&rigs[m], models[m].shape);
        add_program(&rigs[m], PROGRAM_GPT2);
        shim_count("clBuildProgram");
        rig_start(&rigs[m], backend_as(&as_cpu, WEIGHTS_F32), 24);
        ck_assert_uint_eq(shim.named, models[m].builds);
    }
    shim_fail_at(0, NULL, 0);
    for (int m = 0; m < MODELS; m++) {
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ 0, 0, 20 }, rigs[m].program.vocab, WANT_LAST);
        step_add(&s, (struct run_of_rows){ 1, 0, 1 }, rigs[m].program.vocab, WANT_LAST);
        step_check(&rigs[m], &s.batch, "one of three models");
    }
    for (int m = 0; m < MODELS; m++) { /* rig_end() asserts that the device is empty */
        backend_opencl.prepared_free(rigs[m].prepared);
        backend_opencl.kv_free(rigs[m].kv);
        backend_opencl.weights_free(rigs[m].weights);
        rigs[m].prepared = NULL;
        rigs[m].kv = NULL;
        rigs[m].weights = NULL;
    }
    for (int m = 0; m < MODELS; m++)
        rig_end(&rigs[m]);
    check_clean();
}
END_TEST

START_TEST(copies)
{
    check_copy(backend_as(_i ? &as_gpu : NULL, WEIGHTS_F32));
    check_clean();
}
END_TEST

START_TEST(extremes)
{
    check_extremes(backend_as(_i ? &as_gpu : NULL, WEIGHTS_F32));
    check_clean();
}
END_TEST

START_TEST(bad_batches)
{
    check_bad_batches(backend_as(NULL, WEIGHTS_F32));
    check_clean();
}
END_TEST

static enum cinf_status open_without_cache(struct device **out, const struct device_options *options)
{
    static const struct opencl_tuning uncached = { .lanes = 1, .tile_rows = 4, .split_length = 256 };
    return opencl_open(out, &backend_opencl, options, &uncached);
}

/* The program cache copes without memory that it cannot get, so the test leaves it out. */
START_TEST(allocations)
{
    struct backend backend = backend_opencl;
    backend.open = open_without_cache;
    check_allocations(&backend);
    check_clean();
}
END_TEST

START_TEST(measure)
{
    check_measure(&backend_opencl, 60000000000); /* compiles */
    check_measure(&backend_opencl, 2000000000);
    check_clean();
}
END_TEST

/* More rows than the device has room for logits at a time, after a step that is not waited for. */
START_TEST(more_logits_than_room)
{
    struct rig rig;
    struct step_rows s;
    rig_begin(&rig, (struct shape){ 21, 3, 24, 45, 150, 1 });
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, backend_as(_i ? &as_gpu : NULL, WEIGHTS_F32), STEP_ROWS_MAX);
    for (uint32_t n = 63; n <= 150; n += 29) { /* 63, 92, 121, 150 */
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ 2, 0, n }, 45, WANT_ALL);
        ck_ok(rig.backend->run(rig.prepared, &s.batch)); /* its results are never read */
        step_check(&rig, &s.batch, "many logits");
    }
    rig_end(&rig);
    check_clean();
}
END_TEST

/* ---- Weights ------------------------------------------------------------------------------- */

static struct device *first_device(void)
{
    struct device *device;
    ck_ok(backend_as(NULL, WEIGHTS_F32)->open(&device, NULL));
    return device;
}

START_TEST(weights_beyond_their_type)
{
    static const struct weight_spec specs[] = { { WEIGHT_VECTOR, 1, 3 }, { WEIGHT_MATRIX, 3, 2 } };
    struct device *device = first_device();
    struct weights *weights = NULL;
    ck_fails(opencl_weights_new(&weights, device, specs, 2, WEIGHTS_BF16), CINF_EUNSUPPORTED, "f32, f16");
    ck_fails(opencl_weights_new(&weights, device, specs, 2, WEIGHTS_INT4), CINF_EUNSUPPORTED, "f32, f16");
    ck_assert_ptr_null(weights);
    ck_ok(opencl_weights_new(&weights, device, specs, 2, WEIGHTS_F16));
    ck_assert_uint_eq(opencl_weights_bytes(weights), 2 * 16 * 2 + 16 * 4);
    const float large[] = { 1, 65519, 3, -65520, 5, 6 };
    ck_ok(opencl_weights_write(weights, 0, 0, 1, large + 2, CINF_DTYPE_F32)); /* vectors are float32 */
    ck_ok(opencl_weights_write(weights, 1, 0, 1, large, CINF_DTYPE_F32));
    ck_fails(opencl_weights_write(weights, 1, 1, 2, large + 2, CINF_DTYPE_F32), CINF_EUNSUPPORTED,
             "weight 1 holds -65520 in row 1, column 1: too large for f16");
    const double larger[] = { 1, 1e39 };
    ck_fails(opencl_weights_write(weights, 0, 0, 1, (const double[]){ 1, 2, -1e39 }, CINF_DTYPE_F64),
             CINF_EUNSUPPORTED, "column 2: too large for f32");
    ck_fails(opencl_weights_write(weights, 1, 2, 1, larger, CINF_DTYPE_F64), CINF_EUNSUPPORTED, "f16");
    ck_fails(opencl_weights_write(weights, 2, 0, 1, large, CINF_DTYPE_F32), CINF_EINVAL, "weight 2 of 2");
    ck_fails(opencl_weights_write(weights, 1, 2, 2, large, CINF_DTYPE_F32), CINF_EINVAL, "rows 2 to 4 of 3");
    ck_fails(opencl_weights_write(weights, 1, 0, 1, large, CINF_DTYPE_OTHER), CINF_EUNSUPPORTED, "floating");
    bool done = false;
    ck_ok(opencl_weights_finish(weights, &done));
    ck_assert(done);
    ck_fails(opencl_weights_write(weights, 1, 0, 1, large, CINF_DTYPE_F32), CINF_EINVAL, "after the last");
    opencl_weights_free(weights);
    check_clean();
}
END_TEST

/* int8 weights equal the CPU's bit for bit, whether they come as rows or as columns, and in pieces of any
 * size. */
START_TEST(int8_as_on_the_cpu)
{
    enum { IN = 45, OUT = 37, STRIDE = 48 };
    static const struct weight_spec specs[] = { { WEIGHT_TOKENS, OUT, IN }, { WEIGHT_MATRIX, IN, OUT } };
    struct device *device = first_device(), *cpu = NULL;
    struct weights *weights = NULL, *packed = NULL;
    struct device_info info;
    float rows[OUT * IN], columns[IN * OUT], expected[IN], scales[2][OUT];
    for (uint32_t o = 0; o < OUT; o++) {
        for (uint32_t i = 0; i < IN; i++) {
            float x = o == 3 ? 0 : o == 4 ? 1e-37f : (float)(random_normal() * pow(10, o / 4.0 - 4));
            rows[o * IN + i] = columns[i * OUT + o] = x;
        }
    }
    ck_ok(backend_cpu_packed.open(&cpu, &(struct device_options){ 0 }));
    ck_ok(packed_weights_new(&packed, cpu, specs, 2, WEIGHTS_INT8));
    ck_ok(packed_weights_write(packed, 0, 0, OUT, rows, CINF_DTYPE_F32));
    ck_ok(opencl_weights_new(&weights, device, specs, 2, WEIGHTS_INT8));
    struct opencl_weights *w = (struct opencl_weights *)weights;
    ck_assert_uint_eq(opencl_weights_bytes(weights), 2 * OUT * (STRIDE + sizeof(float)));
    backend_opencl.info(device, &info);
    uint64_t empty = info.memory_used;
    ck_ok(opencl_weights_write(weights, 1, 20, IN - 20, columns + 20 * OUT, CINF_DTYPE_F32));
    ck_ok(opencl_weights_write(weights, 0, 1, OUT - 1, rows + IN, CINF_DTYPE_F32));
    mem_fail_at(1); /* the second piece needs no memory */
    ck_ok(opencl_weights_write(weights, 0, 0, 1, rows, CINF_DTYPE_F32));
    ck_ok(opencl_weights_write(weights, 1, 0, 20, columns, CINF_DTYPE_F32));
    mem_fail_at(0);
    backend_opencl.info(device, &info);
    ck_assert_uint_eq(info.memory_used, empty);
    for (int m = 0; m < 2; m++) {
        const struct opencl_weight *part = &w->parts[m];
        int8_t stored[OUT * STRIDE];
        cl_command_queue queue = ((struct opencl_device *)device)->queue;
        ck_assert_uint_eq(part->rows, OUT);
        ck_assert_uint_eq(part->stride, STRIDE);
        ck_assert_int_eq(
            clEnqueueReadBuffer(queue, part->buffer.mem, CL_TRUE, 0, sizeof stored, stored, 0, NULL, NULL),
            CL_SUCCESS);
        ck_assert_int_eq(clEnqueueReadBuffer(queue, part->scales.mem, CL_TRUE, 0, sizeof scales[m], scales[m],
                                             0, NULL, NULL),
                         CL_SUCCESS);
        for (uint32_t o = 0; o < OUT; o++) {
            packed_row(expected, (struct packed_weights *)packed, 0, o);
            for (uint32_t i = 0; i < STRIDE; i++)
                ck_assert_msg((float)stored[o * STRIDE + i] * scales[m][o] == (i < IN ? expected[i] : 0),
                              "%d: output %u, input %u", m, o, i);
        }
    }
    const float odd[] = { NAN, -INFINITY };
    for (int i = 0; i < 2; i++) {
        rows[7] = odd[i];
        ck_fails(opencl_weights_write(weights, 0, 0, 1, rows, CINF_DTYPE_F32), CINF_EUNSUPPORTED,
                 "in row 0, column 7: not a number for int8");
        ck_fails(packed_weights_write(packed, 0, 0, 1, rows, CINF_DTYPE_F32), CINF_EUNSUPPORTED, "int8");
    }
    mem_fail_at(1);
    ck_fails(opencl_weights_write(weights, 1, 0, 1, columns, CINF_DTYPE_F32), CINF_ENOMEM, "37 columns");
    mem_fail_at(0);
    opencl_weights_free(weights);
    packed_weights_free(packed);
    backend_cpu_packed.close(cpu);
    check_clean();
}
END_TEST

/* Elements of every type, at odd addresses, arrive in the right place. */
START_TEST(every_type_of_elements)
{
    enum { D = 5, V = 3 };
    static const struct weight_spec specs[] = { { WEIGHT_TOKENS, V, D }, { WEIGHT_TABLE, 1, D } };
    struct device *device = first_device();
    for (int type = CINF_DTYPE_F32; type <= CINF_DTYPE_F64; type++) {
        struct weights *weights = NULL;
        unsigned char bytes[8 * V * D + 1];
        for (uint32_t i = 0; i < V * D; i++) {
            float f = (float)i - 7;
            double d = (double)f;
            uint16_t half = f16_of_f32(f), brain = (uint16_t)(bits_of_f32(f) >> 16);
            unsigned char *at = bytes + 1;
            memcpy(type == CINF_DTYPE_F64   ? at + 8 * i
                   : type == CINF_DTYPE_F32 ? at + 4 * i
                                            : at + 2 * i,
                   type == CINF_DTYPE_F64   ? (void *)&d
                   : type == CINF_DTYPE_F32 ? (void *)&f
                   : type == CINF_DTYPE_F16 ? (void *)&half
                                            : (void *)&brain,
                   type == CINF_DTYPE_F64   ? 8
                   : type == CINF_DTYPE_F32 ? 4
                                            : 2);
        }
        ck_ok(opencl_weights_new(&weights, device, specs, 2, WEIGHTS_F32));
        ck_ok(opencl_weights_write(weights, 0, 0, V, bytes + 1, (enum cinf_dtype)type));
        float stored[V * 16];
        const struct opencl_weight *part = &((struct opencl_weights *)weights)->parts[0];
        ck_assert_int_eq(clEnqueueReadBuffer(((struct opencl_device *)device)->queue, part->buffer.mem,
                                             CL_TRUE, 0, sizeof stored, stored, 0, NULL, NULL),
                         CL_SUCCESS);
        for (uint32_t i = 0; i < V * 16; i++)
            ck_assert(stored[i] == (i % 16 < D ? (float)(i / 16 * D + i % 16) - 7 : 0));
        opencl_weights_free(weights);
    }
    check_clean();
}
END_TEST

START_TEST(long_chunks)
{
    enum { ROWS = 1000, COLS = 700 }; /* 2.8 MB, transposed in chunks of 1 MB */
    static const struct weight_spec specs[] = { { WEIGHT_MATRIX, ROWS, COLS } };
    struct device *device = first_device();
    struct weights *weights = NULL;
    float *values = array_new((size_t)ROWS * COLS, sizeof *values);
    for (uint32_t i = 0; i < ROWS * COLS; i++)
        values[i] = (float)i;
    ck_ok(opencl_weights_new(&weights, device, specs, 1, WEIGHTS_F32));
    ck_ok(opencl_weights_write(weights, 0, 0, ROWS, values, CINF_DTYPE_F32));
    const struct opencl_weight *part = &((struct opencl_weights *)weights)->parts[0];
    float *stored = array_new((size_t)part->rows * part->stride, sizeof *stored);
    ck_assert_uint_eq(part->rows, COLS);
    ck_assert_int_eq(clEnqueueReadBuffer(((struct opencl_device *)device)->queue, part->buffer.mem, CL_TRUE,
                                         0, (size_t)part->rows * part->stride * sizeof *stored, stored, 0,
                                         NULL, NULL),
                     CL_SUCCESS);
    uint32_t wrong = 0;
    for (uint32_t c = 0; c < COLS; c++) {
        for (uint32_t r = 0; r < part->stride; r++)
            wrong += stored[c * part->stride + r] != (r < ROWS ? (float)(r * COLS + c) : 0);
    }
    ck_assert_uint_eq(wrong, 0);
    free(stored);
    free(values);
    opencl_weights_free(weights);
    check_clean();
}
END_TEST

/* ---- Devices ------------------------------------------------------------------------------- */

START_TEST(found_by_any_name)
{
    struct device_info found, info;
    char reason[DEVICE_REASON_MAX], part[12];
    ck_ok(backend_opencl.find(0, &found));
    ck_assert_str_eq(found.name, "opencl:0:0");
    ck_assert_uint_gt(found.memory_total, 1 << 20);
    snprintf(part, sizeof part, "%.11s", found.description);
    const char *const names[] = { "opencl", "opencl:0:0", "OpenCL:0", part };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct device *device = NULL, *second = NULL;
        ck_ok(device_open(&device, names[i], NULL, reason));
        device->backend->info(device, &info);
        ck_assert_str_eq(info.name, found.name);
        ck_assert_str_eq(info.description, found.description);
        ck_assert(support_contains(reason, info.is_gpu ? "GPU" : "asked for by name"));
        ck_fails(device_open(&second, names[i], NULL, NULL), CINF_EBUSY, "belongs to another");
        if (info.shares_cpu) /* both would count its nanoseconds */
            ck_fails(device_open(&second, "cpu-reference", NULL, NULL), CINF_EBUSY, "the CPU belongs");
        ck_assert_ptr_null(second);
        device_close(device);
    }
    struct device *device = NULL;
    ck_fails(device_open(&device, "opencl:9:9", NULL, reason), CINF_ENOTFOUND, "opencl:0:0");
    bool listed = false;
    for (uint32_t i = 0; device_list(i); i++)
        listed = listed || strcmp(device_list(i), "opencl:0:0") == 0;
    ck_assert(listed);
    ck_ok(device_open(&device, "auto", NULL, reason));
    device->backend->info(device, &info);
    ck_assert(found.is_gpu || (!info.is_gpu && support_contains(reason, "none is a GPU")));
    device_close(device);
    check_clean();
}
END_TEST

/* The backend keeps to the limits that the driver states, whatever the driver would give. */
START_TEST(memory_that_is_not_there)
{
    struct opencl_device *device = (struct opencl_device *)first_device();
    struct weights *weights = NULL;
    struct kv *kv = NULL;
    struct device_info info;
    const struct weight_spec large[] = { { WEIGHT_MATRIX, 65536, 1024 }, { WEIGHT_MATRIX, 65536, 1024 } };
    struct program program = {
        .width = 64, .inner = 64, .heads = 1, .layers = 2, .vocab = 10, .positions = 1 << 20
    };
    const uint64_t total = device->memory_total, alloc_max = device->alloc_max;
    device->memory_total = (uint64_t)400 << 20;
    device->alloc_max = (uint64_t)300 << 20;
    ck_fails(opencl_weights_new(&weights, &device->base, large, 2, WEIGHTS_F32), CINF_ENOMEM, "in use");
    ck_fails(opencl_kv_new(&kv, &device->base, &program, 1), CINF_ENOMEM, "at a time");
    ck_fails(opencl_kv_new(&kv, &device->base, &program, UINT32_MAX), CINF_ENOMEM, "");
    ck_fails(opencl_kv_new(&kv, &device->base, &program, 0), CINF_ENOMEM, "0 slots");
    program.positions = INT32_MAX / 4;
    program.width = INT32_MAX / 4;
    ck_fails(opencl_kv_new(&kv, &device->base, &program, 1), CINF_ENOMEM, "");
    ck_assert(!weights && !kv);
    backend_opencl.info(&device->base, &info);
    ck_assert_uint_eq(info.memory_used, 0);
    device->memory_total = total;
    device->alloc_max = alloc_max;
    check_clean();
}
END_TEST

/* Runs this program once more, with what must be set before a driver is loaded.  OPENCL_PROBE says what it
 * then checks. */
static int run_self(const char *environment)
{
    char command[600], self[256];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    ck_assert_int_gt(n, 0);
    self[n] = 0;
    snprintf(command, sizeof command, "env %s '%s'", environment, self);
    int state = system(command);
    ck_assert(WIFEXITED(state));
    return WEXITSTATUS(state);
}

START_TEST(no_driver)
{
    char environment[128];
    snprintf(environment, sizeof environment, "OPENCL_PROBE=no_driver OCL_ICD_VENDORS=%s",
             support_temp_folder());
    ck_assert_int_eq(run_self(environment), 0);
}
END_TEST

static void probe_no_driver(void)
{
    struct device *device = NULL;
    struct device_info info;
    char reason[DEVICE_REASON_MAX];
    ck_fails(backend_opencl.find(0, &info), CINF_ENOTFOUND, "no OpenCL driver is installed");
    ck_fails(backend_opencl.open(&device, &(struct device_options){ 0 }), CINF_ENOTFOUND, "no platform");
    ck_fails(device_open(&device, "opencl", NULL, reason), CINF_ENOTFOUND, "no OpenCL driver is installed");
    ck_fails(device_open(&device, "opencl:0:0", NULL, reason), CINF_ENOTFOUND, "available: auto, cpu");
    ck_assert_ptr_null(device);
    ck_ok(device_open(&device, "auto", NULL, reason));
    ck_assert(support_contains(reason, "no OpenCL driver is installed"));
    device_close(device);
    check_clean();
}

/* With PoCL limited to 1 GiB, weights and a cache that do not fit are refused, and what fits is allocated. */
START_TEST(limited_memory)
{
    ck_assert_int_eq(run_self("OPENCL_PROBE=limited POCL_MEMORY_LIMIT=1"), 0);
}
END_TEST

static void probe_limited(void)
{
    struct device *device = first_device();
    struct weights *weights = NULL;
    struct kv *kv = NULL;
    struct device_info info;
    const uint64_t gib = (uint64_t)1 << 30;
    backend_opencl.info(device, &info);
    if (info.memory_total > gib) /* not PoCL */
        return;
    const struct weight_spec specs[] = { { WEIGHT_MATRIX, 64, 1 << 19 }, { WEIGHT_HEAD, 1 << 20, 512 } };
    const struct program program = {
        .width = 64, .inner = 64, .heads = 1, .layers = 12, .vocab = 10, .positions = 1 << 18
    };
    ck_fails(opencl_weights_new(&weights, device, specs, 2, WEIGHTS_F32), CINF_ENOMEM, "weights of");
    ck_fails(opencl_kv_new(&kv, device, &program, 1), CINF_ENOMEM, "in use");
    ck_assert(!weights && !kv);
    ck_ok(opencl_weights_new(&weights, device, specs, 1, WEIGHTS_F32));
    backend_opencl.info(device, &info);
    ck_assert_uint_gt(info.memory_used, 64 << 21);
    opencl_weights_free(weights);
    check_clean();
}

START_TEST(probed)
{
    if (strcmp(getenv("OPENCL_PROBE"), "limited") == 0)
        probe_limited();
    else
        probe_no_driver();
    kept_close_all();
}
END_TEST

/* ---- Drivers that fail --------------------------------------------------------------------- */

static struct rig fault_rig;

static enum cinf_status use(struct device *device)
{
    struct rig *rig = &fault_rig;
    const struct backend *b = &backend_opencl;
    struct weights *weights = NULL;
    struct kv *kv = NULL;
    struct prepared *prepared = NULL;
    struct step_rows s;
    bool done = false;
    const float *logits = NULL;
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, 0, 20 }, rig->program.vocab, WANT_ALL);
    step_add(&s, (struct run_of_rows){ 1, 0, 1 }, rig->program.vocab, WANT_ALL);
    s.wants[3] = 1 + 4;
    struct top_k picked = { .n = 0 };
    enum cinf_status status =
        b->weights_new(&weights, device, rig->specs, rig->program.n_specs, WEIGHTS_INT8);
    for (uint32_t w = 0; status == CINF_OK && w < rig->program.n_specs; w++)
        status = b->weights_write(weights, w, 0, rig->specs[w].rows, rig->values[w], CINF_DTYPE_F32);
    if (status == CINF_OK)
        status = b->weights_finish(weights, &done);
    if (status == CINF_OK)
        status = b->kv_new(&kv, device, &rig->program, 2);
    if (status == CINF_OK)
        status = b->kv_copy(kv, 1, 0, 3);
    if (status == CINF_OK)
        status = b->prepare(&prepared, weights, kv, &rig->program, 24);
    for (done = false; status == CINF_OK && !done;)
        status = b->prepare_more(prepared, &done);
    if (status == CINF_OK)
        status = b->run(prepared, &s.batch);
    if (status == CINF_OK)
        status = b->wait(prepared);
    if (status == CINF_OK)
        status = b->logits(prepared, 20, &logits);
    if (status == CINF_OK)
        status = b->top_k(prepared, 3, &picked);
    if (status == CINF_OK)
        status = b->allow(prepared, (const uint8_t[4]){ 0 });
    ck_assert(status != CINF_OK || (logits && picked.n == 4));
    b->prepared_free(prepared);
    b->kv_free(kv);
    b->weights_free(weights);
    struct device_info info;
    b->info(device, &info);
    ck_assert_uint_eq(info.memory_used, 0);
    return status;
}

static void check_failure(enum cinf_status status, const struct device *open)
{
    /* Some failures do no harm: a name that the driver does not give, a clean-up. */
    if (status != CINF_OK) {
        ck_assert_msg(status == CINF_EDEVICE || status == CINF_ENOMEM || status == CINF_ENOTFOUND,
                      "%s: %s: %s", shim.failed, cinf_status_name(status), cinf_last_error());
        ck_assert_uint_gt(strlen(cinf_last_error()), 10);
    }
    check_clean_but(open);
}

static uint64_t fails_in_use(struct device *device, uint64_t n, const char *name)
{
    shim_fail_at(n, name, n % 2 ? CL_OUT_OF_RESOURCES : CL_MEM_OBJECT_ALLOCATION_FAILURE);
    enum cinf_status status = use(device);
    ck_assert_msg(shim.failed != NULL, "call %d of %s", (int)n, name ? name : "all");
    shim_fail_at(0, NULL, 0);
    check_failure(status, device);
    return status != CINF_OK;
}

/* Every call into the driver fails once while a device opens, which then fails or opens as usual.  During a
 * model's life a sample of all calls fails, and the first and third of each function. */
START_TEST(calls_fail)
{
    static const char *const names[] = { "clCreateBuffer",
                                         "clEnqueueFillBuffer",
                                         "clEnqueueMapBuffer",
                                         "clEnqueueWriteBuffer",
                                         "clEnqueueReadBuffer",
                                         "clEnqueueNDRangeKernel",
                                         "clCreateKernel",
                                         "clSetKernelArg",
                                         "clFlush",
                                         "clEnqueueMarkerWithWaitList",
                                         "clGetEventInfo" };
    rig_begin(&fault_rig, (struct shape){ 6, 3, 10, 20, 30, 1 });
    add_program(&fault_rig, PROGRAM_SOME_BIASES);
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", "/proc/nowhere", 1), 0); /* programs come from source */
    struct device *device = NULL;
    uint64_t n_failed = 0, n_tried = 0, before = shim.calls;
    ck_ok(backend_opencl.open(&device, &(struct device_options){ 0 }));
    uint64_t n_open = shim.calls - before, types_unknown = 0;
    const uint32_t lanes = ((struct opencl_device *)device)->tuning.lanes;
    n_failed += fails_in_use(device, 1, "clCreateProgramWithSource"); /* later uses do not need it */
    n_failed += fails_in_use(device, 1, "clBuildProgram");
    n_tried += 2;
    ck_ok(use(device));
    before = shim.calls;
    ck_ok(use(device));
    uint64_t n_use = shim.calls - before;
    ck_assert_uint_gt(n_use, 300);
    for (uint64_t n = 1; n <= n_use; n += n_use / 60, n_tried++)
        n_failed += fails_in_use(device, n, NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++, n_tried += 2)
        n_failed += fails_in_use(device, 1, names[i]) + fails_in_use(device, 3, names[i]);
    ck_assert_uint_gt(n_failed, n_tried * 9 / 10);
    ck_ok(use(device));
    backend_opencl.close(device);
    for (uint64_t n = 1; n <= n_open; n++) {
        struct device *none = NULL;
        shim_fail_at(n, NULL, CL_OUT_OF_RESOURCES);
        enum cinf_status status = backend_opencl.open(&none, &(struct device_options){ 0 });
        ck_assert((status == CINF_OK) == (none != NULL));
        shim_fail_at(0, NULL, 0);
        if (none) {
            ck_assert_uint_eq(((struct opencl_device *)none)->tuning.lanes, lanes);
            backend_opencl.close(none);
        } else if (support_contains(cinf_last_error(), "asking for its type")) {
            types_unknown++;
        }
        check_failure(status, NULL);
    }
    ck_assert_uint_eq(types_unknown, 1);
    unsetenv("XDG_CACHE_HOME");
    for (uint32_t w = 0; w < SPECS_MAX; w++)
        free(fault_rig.values[w]);
}
END_TEST

/* ---- The cache of programs ----------------------------------------------------------------- */

static const char tiny_source[] = "__kernel void three(__global int *x) { x[0] = 3; }";

static cl_program build_tiny(struct opencl_device *device)
{
    const char *text = tiny_source;
    cl_int error;
    cl_program program = clCreateProgramWithSource(device->context, 1, &text, NULL, &error);
    ck_assert_ptr_nonnull(program);
    ck_assert_int_eq(clBuildProgram(program, 1, &device->id, "", NULL, NULL), CL_SUCCESS);
    return program;
}

static void check_works(struct opencl_device *device, cl_program program)
{
    cl_int error, x = 0;
    cl_kernel kernel = clCreateKernel(program, "three", &error);
    cl_mem mem = clCreateBuffer(device->context, CL_MEM_READ_WRITE, sizeof x, NULL, &error);
    const size_t one = 1;
    ck_assert(kernel && mem);
    ck_assert_int_eq(clSetKernelArg(kernel, 0, sizeof mem, &mem), CL_SUCCESS);
    ck_assert_int_eq(clEnqueueNDRangeKernel(device->queue, kernel, 1, NULL, &one, &one, 0, NULL, NULL),
                     CL_SUCCESS);
    ck_assert_int_eq(clEnqueueReadBuffer(device->queue, mem, CL_TRUE, 0, sizeof x, &x, 0, NULL, NULL),
                     CL_SUCCESS);
    ck_assert_int_eq(x, 3);
    clReleaseMemObject(mem);
    clReleaseKernel(kernel);
    clReleaseProgram(program);
}

/* The path of the only file below `root`, or "". */
static const char *cached_file(const char *root)
{
    static char path[512];
    char command[300];
    snprintf(command, sizeof command, "find %s -type f", root);
    FILE *list = popen(command, "r");
    ck_assert_ptr_nonnull(list);
    path[0] = 0;
    if (fgets(path, sizeof path, list))
        path[strcspn(path, "\n")] = 0;
    char more[8];
    ck_assert_ptr_null(fgets(more, sizeof more, list));
    pclose(list);
    return path;
}

START_TEST(cached_programs)
{
    struct opencl_device *device = (struct opencl_device *)first_device();
    char *root = support_temp_folder();
    const char *text = tiny_source;
    struct strbuf key = { 0 }, other = { 0 };
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", root, 1), 0);
    opencl_cache_key(&key, device->id, "-DX", &text, 1);
    opencl_cache_key(&other, device->id, "-DY", &text, 1);
    ck_assert_ptr_null(opencl_cache_load(device->context, device->id, &key));
    ck_assert_str_eq(cached_file(root), "");

    cl_program built = build_tiny(device);
    opencl_cache_save(built, &key);
    cl_program loaded = opencl_cache_load(device->context, device->id, &key);
    ck_assert_ptr_nonnull(loaded);
    check_works(device, loaded);
    ck_assert_ptr_null(opencl_cache_load(device->context, device->id, &other));

    /* Damage is detected before the driver sees the program. */
    const char *path = cached_file(root);
    char *file = NULL;
    size_t size = 0;
    ck_ok(file_load(&file, &size, path, 1 << 26));
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    const size_t step = 1 + size / 400;
    for (size_t i = 0; i < size; i += i < 64 ? 1 : step) {
        file[i] ^= 1;
        support_write(root, path + strlen(root) + 1, file, (long)size);
        ck_assert_ptr_null(opencl_cache_load(device->context, device->id, &key));
        file[i] ^= 1;
    }
    for (size_t n = 0; n < size; n += n < 64 ? 1 : 5 * step) {
        support_write(root, path + strlen(root) + 1, file, (long)n);
        ck_assert_ptr_null(opencl_cache_load(device->context, device->id, &key));
    }
    opencl_cache_save(built, &key); /* replaces what was damaged */
    loaded = opencl_cache_load(device->context, device->id, &key);
    ck_assert_ptr_nonnull(loaded);
    check_works(device, loaded);

    /* Nothing can be kept: a file stands in the folder's place, the place does not exist, there is no place.
     */
    support_write(root, "file", "", 0);
    char below[300];
    snprintf(below, sizeof below, "%s/file", root);
    const char *const places[] = { below, "/proc/nowhere", "" };
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(setenv("XDG_CACHE_HOME", places[i], 1), 0);
        if (i == 2)
            unsetenv("HOME");
        opencl_cache_save(built, &key);
        ck_assert_ptr_null(opencl_cache_load(device->context, device->id, &key));
    }
    unsetenv("XDG_CACHE_HOME");
    mem_free(file);
    clReleaseProgram(built);
    strbuf_free(&key);
    strbuf_free(&other);
    check_clean();
}
END_TEST

/* PoCL has a cache of its own, and filling ours would take it 14 s. */
START_TEST(caches_of_drivers)
{
    struct opencl_device *device = (struct opencl_device *)first_device();
    char name[128] = "";
    cl_platform_id platform;
    clGetDeviceInfo(device->id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL);
    clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name, name, NULL);
    if (strcmp(name, "Portable Computing Language") == 0)
        ck_assert(!device->tuning.cache);
    check_clean();
}
END_TEST

START_TEST(nothing_is_left)
{
    kept_close_all();
    check_clean();
}
END_TEST
#endif

Suite *suite(void)
{
    TCase *t;
#if CINF_HAVE_OPENCL
    if (getenv("OPENCL_PROBE")) {
        Suite *probe = suite_create("opencl_probe");
        t = tcase_create("probe");
        suite_add_tcase(probe, t);
        tcase_add_test(t, probed);
        return probe;
    }
#endif
    Suite *s = opencl_suite("opencl", &t, "", true);
#if CINF_HAVE_OPENCL
    tcase_add_loop_test(t, programs, 0, PROGRAMS);
    tcase_add_loop_test(t, precision, 0, 2 * 2 * TYPES);
    tcase_add_loop_test(t, half_the_cache, 0, 2);
    tcase_add_loop_test(t, batches_are_singles, 0, 4);
    tcase_add_loop_test(t, waiting_after_every_launch_changes_nothing, 0, 2 * (TYPES + 1));
    tcase_add_loop_test(t, picks, 0, 2);
    tcase_add_loop_test(t, what_a_step_asks_of_the_driver, 0, 2);
    tcase_add_test(t, attention_is_built_once);
    tcase_add_loop_test(t, copies, 0, 2);
    tcase_add_loop_test(t, extremes, 0, 2);
    tcase_add_loop_test(t, more_logits_than_room, 0, 2);
    tcase_add_test(t, bad_batches);
    tcase_add_test(t, allocations);
    tcase_add_test(t, measure);
    tcase_add_test(t, weights_beyond_their_type);
    tcase_add_test(t, int8_as_on_the_cpu);
    tcase_add_test(t, every_type_of_elements);
    tcase_add_test(t, long_chunks);
    tcase_add_test(t, found_by_any_name);
    tcase_add_test(t, memory_that_is_not_there);
    tcase_add_test(t, no_driver);
    tcase_add_test(t, limited_memory);
    tcase_add_test(t, calls_fail);
    tcase_add_test(t, cached_programs);
    tcase_add_test(t, caches_of_drivers);
    t = tcase_create("kinds"); /* small enough for a simulator */
    tcase_add_loop_test(t, kernels_of_all_kinds, 0, 4 * TYPES);
    suite_add_tcase(s, t);
    t = tcase_create("end");
    tcase_add_test(t, nothing_is_left);
    suite_add_tcase(s, t);
#endif
    return s;
}
