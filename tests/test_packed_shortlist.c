/* The shortlist: its bounds hold for all kinds of numbers, the panels it keeps hold the best, and the best
 * logits of a step are those of all its logits, on every instruction set. */
#include <stdio.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* test_packed.c has them */
#include "backend_ops.h"
#pragma GCC diagnostic pop
#include "half.h"
#include "packed_prepared.h"

enum { N = 300, N_PANELS = (N + PANEL - 1) / PANEL, K_MAX = 800, ROWS = 4 };

/* ---- Bounds -------------------------------------------------------------------------------- */

/* Among others, numbers that are hard to quantise. */
static float odd_number(int kind, uint32_t i)
{
    double x = random_normal();
    switch (kind) {
    case 0:
        return (float)x;
    case 1: /* few large ones */
        return (float)(random_uniform() < 0.01 ? 300 * x : x);
    case 2: /* over twelve orders of magnitude */
        return (float)(x * exp(28 * random_uniform() - 14));
    case 3: /* whole, so that sums are exact and many are equal */
        return (float)rint(2 * x);
    case 4:
        return i % 7 ? 0 : (float)(x * 1e-30);
    case 5:
        return (float)(x * 1e12);
    case 6: /* nearly the same for all */
        return (float)(1 + x * 1e-6);
    default:
        return 0;
    }
}
enum { KINDS = 8 };

/* A head in panels of a type, its copy, and some rows. */
static struct {
    const struct packed_kernels *kernels;
    uint32_t k;
    float x[ROWS][K_MAX];
    float f32[N_PANELS][K_MAX * PANEL];
    uint16_t f16[N_PANELS][K_MAX * PANEL];
    struct shortlist shortlist;
    void *block; /* its memory */
    float upper[ROWS][N_PANELS], lower[ROWS][N_PANELS], a[ROWS], b[ROWS], threshold[ROWS];
    float floors[N_PANELS * PANEL], logits[ROWS][N_PANELS * PANEL];
    int8_t q[ROWS][K_MAX + GROUP];
    float scales[ROWS][K_MAX / GROUP + 1], out_number[ROWS][OUTLIERS_MAX];
    int32_t offsets[ROWS][K_MAX / GROUP + 1], offsets4[ROWS][GROUPS4 * (K_MAX / GROUP + 1)];
    uint32_t n_out[ROWS], out_at[ROWS][OUTLIERS_MAX];
    struct shortlist_rows rows;
    struct int8_rows int8;
} bed;

static void make_bed(const struct packed_kernels *kernels, uint32_t k, enum weights_type type, int weights,
                     int inputs)
{
    bed.kernels = kernels;
    bed.k = k;
    struct arena arena = { 0 };
    shortlist_lay_out(&arena, &bed.shortlist, N, k);
    bed.block = mem_new_aligned(64, arena.used, 1);
    ck_assert_ptr_nonnull(bed.block);
    memset(bed.block, 0, arena.used);
    arena_begin(&arena, bed.block);
    shortlist_lay_out(&arena, &bed.shortlist, N, k);
    bed.rows = (struct shortlist_rows){ bed.upper[0], bed.lower[0], bed.a, bed.b, bed.threshold, bed.floors };
    bed.int8 = (struct int8_rows){ .q = bed.q[0],
                                   .scales = bed.scales[0],
                                   .offsets = bed.offsets[0],
                                   .n_out = bed.n_out,
                                   .out_at = bed.out_at[0],
                                   .out_number = bed.out_number[0],
                                   .stride = sizeof bed.q[0],
                                   .groups = K_MAX / GROUP + 1,
                                   .offsets4 = bed.offsets4[0] };
    memset(bed.f32, 0, sizeof bed.f32);
    for (uint32_t id = 0; id < N; id++) {
        for (uint32_t i = 0; i < k; i++) {
            float number = odd_number(weights, i);
            uint16_t half = type == WEIGHTS_F16 ? f16_of_f32(fminf(fmaxf(number, -6e4f), 6e4f))
                                                : (uint16_t)(bits_of_f32(number) >> 16);
            bed.f16[id / PANEL][i * PANEL + id % PANEL] = half;
            bed.f32[id / PANEL][i * PANEL + id % PANEL] = type == WEIGHTS_F32   ? number
                                                          : type == WEIGHTS_F16 ? f32_of_f16(half)
                                                                                : f32_of_bf16(half);
        }
    }
    for (uint32_t p = 0; p < N_PANELS; p++)
        shortlist_write(&bed.shortlist, p, type == WEIGHTS_F32 ? (void *)bed.f32[p] : (void *)bed.f16[p],
                        type == WEIGHTS_F16    ? kernels->convert_f16
                        : type == WEIGHTS_BF16 ? kernels->convert_bf16
                                               : NULL);
    for (uint32_t id = 0; id < N_PANELS * PANEL; id++)
        bed.floors[id] = id < N ? 0 : -INFINITY;
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t i = 0; i < k; i++)
            bed.x[r][i] = odd_number(inputs, i);
        kernels->quantise(bed.q[r], bed.scales[r], bed.offsets[r], bed.offsets4[r], &bed.n_out[r],
                          bed.out_at[r], bed.out_number[r], bed.x[r], k);
    }
}

/* Does what a step does, and computes all logits, too. */
static void run_bed(void)
{
    float acc[ROWS * PANEL];
    for (uint32_t r = 0; r < ROWS; r++)
        shortlist_row(&bed.rows, r, &bed.shortlist, bed.x[r], &bed.int8);
    for (uint32_t p = 0; p < N_PANELS; p++) {
        bed.kernels->gemm_int8(acc, &bed.int8, 0, ROWS, bed.shortlist.panels + p * bed.shortlist.panel_bytes,
                               (bed.k + 3) / 4 * 4);
        for (uint32_t r = 0; r < ROWS; r++)
            bed.kernels->logit_bounds(&bed.upper[r][p], &bed.lower[r][p], acc + (size_t)r * PANEL,
                                      &bed.shortlist.bounds[p], bed.floors + (size_t)p * PANEL, bed.a[r],
                                      bed.b[r]);
        for (uint32_t r = 0; r < ROWS; r++)
            bed.kernels->gemm_f32(bed.logits[r] + (size_t)p * PANEL, PANEL, bed.x[r], K_MAX, 1, bed.f32[p],
                                  PANEL, bed.k, false, (struct prefetch){ NULL, 0, 0 });
    }
}

static bool may_be_picked(const float *logits, uint32_t id)
{
    return logits[id] < INFINITY && !(bed.floors[id] < 0);
}

/* Checks the n best against a search through all logits. */
static void check_best(const struct top_k *picked, const float *logits, uint32_t n)
{
    static bool taken[N_PANELS * PANEL];
    memset(taken, 0, sizeof taken);
    uint32_t found = 0;
    for (int best = 0; found < n && best >= 0; found += best >= 0) {
        best = -1;
        for (int id = 0; id < N; id++) {
            if (!taken[id] && may_be_picked(logits, (uint32_t)id) && (best < 0 || logits[id] > logits[best]))
                best = id;
        }
        if (best < 0)
            break;
        taken[best] = true;
        ck_assert_uint_gt(picked->n, found);
        ck_assert_int_eq(picked->ids[found], best);
        ck_assert_uint_eq(bits_of_f32(picked->logits[found]), bits_of_f32(logits[best]));
    }
    ck_assert_uint_eq(picked->n, found);
}

static void check_bed(const char *what)
{
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t p = 0; p < N_PANELS; p++) {
            float most = -INFINITY;
            for (uint32_t id = p * PANEL; id < (p + 1) * PANEL && id < N; id++)
                if (!(bed.floors[id] < 0) && bed.logits[r][id] > most)
                    most = bed.logits[r][id];
            if (!(most > bed.upper[r][p]) && !(most < bed.lower[r][p]))
                continue;
            ck_abort_msg("%s, K=%u, row %u, panel %u: %.9g is not in %.9g to %.9g", what, bed.k, r, p,
                         (double)most, (double)bed.lower[r][p], (double)bed.upper[r][p]);
        }
        static const uint32_t counts[] = { 1, 2, 9, 50, TOP_K_MAX };
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct top_k picked;
            shortlist_threshold(&bed.rows, r, &bed.shortlist, counts[i]);
            /* Only kept panels may be read. */
            static float seen[N_PANELS * PANEL];
            memcpy(seen, bed.logits[r], sizeof seen);
            for (uint32_t p = 0; p < N_PANELS; p++)
                for (uint32_t id = p * PANEL; id < (p + 1) * PANEL; id++)
                    seen[id] = shortlist_keeps(&bed.rows, r, &bed.shortlist, p) ? seen[id] : 3e38f;
            shortlist_top_k(&picked, &bed.rows, r, &bed.shortlist, seen, counts[i]);
            check_best(&picked, bed.logits[r], counts[i]);
        }
    }
}

START_TEST(bounds_hold_for_all_numbers)
{
    static const uint32_t ks[] = { 1, 3, 64, 130, K_MAX };
    const struct packed_kernels *kernels = packed_kernels_at((uint32_t)_i);
    char what[64];
    for (int weights = 0; weights < KINDS && kernels; weights++) {
        for (int inputs = 0; inputs < KINDS; inputs++) {
            uint32_t k = ks[(weights + inputs) % 5];
            enum weights_type type = (enum weights_type)((weights + 3 * inputs) % 3);
            snprintf(what, sizeof what, "weights %d, inputs %d, type %d", weights, inputs, (int)type);
            make_bed(kernels, k, type, weights, inputs);
            run_bed();
            check_bed(what);
            for (uint32_t id = 0; id < N; id++) /* some excluded, all of a panel among them */
                bed.floors[id] = id % 3 == 0 || id / PANEL == 4 ? -INFINITY : 0;
            run_bed();
            check_bed(what);
            mem_free(bed.block);
        }
    }
}
END_TEST

START_TEST(of_ordinary_numbers_little_is_kept)
{
    uint32_t kept = 0;
    make_bed(packed_kernels_best(), 768, WEIGHTS_F32, 0, 0);
    /* One token of each row stands out, as in most texts. */
    for (uint32_t r = 0; r < ROWS; r++)
        for (uint32_t i = 0; i < 768; i++)
            bed.f32[2 * r][i * PANEL + r] += 0.2f * bed.x[r][i];
    for (uint32_t p = 0; p < N_PANELS; p++)
        shortlist_write(&bed.shortlist, p, bed.f32[p], NULL);
    run_bed();
    for (uint32_t r = 0; r < ROWS; r++) {
        shortlist_threshold(&bed.rows, r, &bed.shortlist, 1);
        for (uint32_t p = 0; p < N_PANELS; p++)
            kept += shortlist_keeps(&bed.rows, r, &bed.shortlist, p);
    }
    ck_assert_uint_ge(kept, ROWS);
    ck_assert_uint_le(kept, ROWS + 1);
    check_bed("ordinary numbers");
    mem_free(bed.block);
}
END_TEST

/* A NaN, or a number that is too large for a bound, makes every panel be kept. */
START_TEST(without_bounds_all_is_kept)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY, 1e30f };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_bed(packed_kernels_best(), 130, WEIGHTS_F32, 0, 0);
        bed.x[1][77] = bad[i];
        bed.kernels->quantise(bed.q[1], bed.scales[1], bed.offsets[1], bed.offsets4[1], &bed.n_out[1],
                              bed.out_at[1], bed.out_number[1], bed.x[1], 130);
        run_bed();
        shortlist_threshold(&bed.rows, 1, &bed.shortlist, 1);
        for (uint32_t p = 0; p < N_PANELS; p++)
            ck_assert(shortlist_keeps(&bed.rows, 1, &bed.shortlist, p));
        mem_free(bed.block);

        make_bed(packed_kernels_best(), 130, WEIGHTS_F32, 0, 0);
        ck_assert(!bed.shortlist.unusable);
        bed.f32[2][40] = bad[i];
        shortlist_write(&bed.shortlist, 2, bed.f32[2], NULL);
        ck_assert(bed.shortlist.unusable);
        run_bed();
        shortlist_threshold(&bed.rows, 0, &bed.shortlist, 1);
        for (uint32_t p = 0; p < N_PANELS; p++)
            ck_assert(shortlist_keeps(&bed.rows, 0, &bed.shortlist, p));
        mem_free(bed.block);
    }
}
END_TEST

/* ---- Steps --------------------------------------------------------------------------------- */

enum { HEAD_V = 8210, HEAD_D = 512, HEAD_ROWS = 20 };

static void start_with(struct rig *rig, enum weights_type type, uint32_t threads)
{
    const struct backend *b = rig->backend = &backend_cpu_packed;
    struct program *p = &rig->program;
    ck_ok(b->open(&rig->device, &(struct device_options){ .threads = threads }));
    ck_ok(b->weights_new(&rig->weights, rig->device, rig->specs, p->n_specs, type));
    for (uint32_t w = 0; w < p->n_specs; w++) /* in pieces that share panels */
        for (uint32_t first = 0; first < rig->specs[w].rows; first += 1111)
            ck_ok(b->weights_write(rig->weights, w, first,
                                   rig->specs[w].rows - first < 1111 ? rig->specs[w].rows - first : 1111,
                                   rig->values[w] + (size_t)first * rig->specs[w].cols, CINF_DTYPE_F32));
    ck_ok(b->kv_new(&rig->kv, rig->device, p, 1));
    ck_ok(b->prepare(&rig->prepared, rig->weights, rig->kv, p, HEAD_ROWS));
}

static void stop(struct rig *rig)
{
    const struct backend *b = rig->backend;
    struct device_info info;
    b->prepared_free(rig->prepared);
    b->kv_free(rig->kv);
    b->weights_free(rig->weights);
    b->info(rig->device, &info);
    ck_assert_uint_eq(info.memory_used, 0);
    b->close(rig->device);
}

/* Compares a step whose rows want wants[i % n] with one in which all rows want all logits. */
static void check_step(struct rig *rig, const uint8_t *wants, uint32_t n_wants, const uint8_t *allowed)
{
    static float all[HEAD_ROWS][HEAD_V];
    struct step_rows s;
    struct top_k picked;
    const float *logits;
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, 0, HEAD_ROWS }, HEAD_V, WANT_ALL);
    ck_ok(rig->backend->run(rig->prepared, &s.batch));
    for (uint32_t r = 0; r < HEAD_ROWS; r++) {
        ck_ok(rig->backend->logits(rig->prepared, r, &logits));
        memcpy(all[r], logits, sizeof all[r]);
        ck_fails(rig->backend->top_k(rig->prepared, r, &picked), CINF_EINVAL, "did not want");
    }
    for (uint32_t r = 0; r < HEAD_ROWS; r++)
        s.wants[r] = wants[r % n_wants];
    ck_ok(rig->backend->run(rig->prepared, &s.batch));
    for (uint32_t r = 0, i = 0; r<HEAD_ROWS; i += s.wants[r++]> 0) {
        if (s.wants[r] == LOGITS_ALL) {
            ck_ok(rig->backend->logits(rig->prepared, i, &logits));
            ck_assert(memcmp(logits, all[r], sizeof all[r]) == 0);
        }
        if (top_k_of(s.wants[r]) == 0)
            continue;
        ck_fails(rig->backend->logits(rig->prepared, i, &logits), CINF_EINVAL, "wanted the best");
        ck_ok(rig->backend->top_k(rig->prepared, i, &picked));
        uint32_t n = top_k_of(s.wants[r]), better = 0;
        ck_assert_uint_eq(picked.n, n);
        for (uint32_t k = 0; k < n; k++) {
            int32_t id = picked.ids[k];
            ck_assert(allowed == NULL || (allowed[id / 8] >> id % 8 & 1));
            ck_assert_uint_eq(bits_of_f32(picked.logits[k]), bits_of_f32(all[r][id]));
            ck_assert(k == 0 || picked.logits[k] < picked.logits[k - 1] ||
                      (!(picked.logits[k] > picked.logits[k - 1]) && id > picked.ids[k - 1]));
        }
        for (uint32_t id = 0; id < HEAD_V; id++) {
            if (allowed && !(allowed[id / 8] >> id % 8 & 1))
                continue;
            better += all[r][id] > picked.logits[n - 1] ||
                      (!(all[r][id] < picked.logits[n - 1]) && (int32_t)id < picked.ids[n - 1]);
        }
        ck_assert_uint_eq(better, n - 1);
    }
}

static const uint8_t greedy[] = { 2 }, some[] = { 2, 0, 0, 66, 41, 0, 2, 10 }, mixed[] = { 2, 1, 0, 6 };

START_TEST(picks_are_what_all_logits_say)
{
    static const struct {
        enum weights_type type;
        uint32_t threads;
    } cases[] = { { WEIGHTS_F32, 1 }, { WEIGHTS_F16, 2 }, { WEIGHTS_BF16, 3 } };
    static uint8_t allowed[HEAD_V / 8 + 1];
    struct rig rig;
    rig_begin(&rig, (struct shape){ HEAD_D, 8, 16, HEAD_V, HEAD_ROWS, 1 });
    add_program(&rig, PROGRAM_EMBED);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start_with(&rig, cases[i].type, cases[i].threads);
        ck_assert(rig.prepared->has_top_k);
        ck_assert(!rig.prepared->log_sums);
        ck_assert_uint_gt(rig.prepared->top_k_saved_bytes, 0);
        check_step(&rig, greedy, 1, NULL);
        check_step(&rig, some, sizeof some, NULL);
        check_step(&rig, mixed, sizeof mixed, NULL);
        for (uint32_t v = 0; v < sizeof allowed; v++)
            allowed[v] = (uint8_t)(v * 37);
        ck_ok(rig.backend->allow(rig.prepared, allowed));
        check_step(&rig, greedy, 1, allowed);
        check_step(&rig, some, sizeof some, allowed);
        stop(&rig);
    }
    rig.backend = &backend_cpu_packed;
    for (uint32_t w = 0; w < SPECS_MAX; w++)
        free(rig.values[w]);
}
END_TEST

/* Where every bound reaches the best one the shortlist is in vain.  The step is right nevertheless, and so
 * are the steps after it, which do without. */
START_TEST(a_shortlist_in_vain)
{
    struct rig rig;
    rig_begin(&rig, (struct shape){ HEAD_D, 8, 16, HEAD_V, HEAD_ROWS, 1 });
    add_program(&rig, PROGRAM_EMBED);
    for (uint32_t v = 1; v < HEAD_V; v++)
        memcpy(rig.values[W_HEAD] + (size_t)v * HEAD_D, rig.values[W_HEAD], HEAD_D * sizeof(float));
    start_with(&rig, WEIGHTS_F32, 2);
    for (int i = 0; i < 40; i++)
        check_step(&rig, i % 2 ? some : greedy, i % 2 ? sizeof some : 1, NULL);
    stop(&rig);
    for (uint32_t w = 0; w < SPECS_MAX; w++)
        free(rig.values[w]);
}
END_TEST

/* int8 weights are as small as their copy would be, and small heads are read as fast. */
START_TEST(heads_without_a_shortlist)
{
    static const uint8_t allowed[HEAD_V / 8 + 1] = { 1 };
    struct rig rig;
    struct top_k picked;
    for (int i = 0; i < 2; i++) {
        rig_begin(&rig, (struct shape){ i ? 32 : HEAD_D, 8, 16, HEAD_V, HEAD_ROWS, 1 });
        add_program(&rig, PROGRAM_EMBED);
        start_with(&rig, i ? WEIGHTS_F32 : WEIGHTS_INT8, 2);
        ck_assert(!rig.prepared->has_top_k);
        ck_assert_uint_eq(rig.prepared->top_k_saved_bytes, 0);
        ck_fails(rig.backend->allow(rig.prepared, allowed), CINF_EINVAL, "not picked");
        ck_fails(rig.backend->top_k(rig.prepared, 0, &picked), CINF_EINVAL, "did not want");
        stop(&rig);
        for (uint32_t w = 0; w < SPECS_MAX; w++)
            free(rig.values[w]);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("packed_shortlist");
    TCase *t = tcase_create("shortlist");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, bounds_hold_for_all_numbers, 0, 3);
    tcase_add_test(t, of_ordinary_numbers_little_is_kept);
    tcase_add_test(t, without_bounds_all_is_kept);
    tcase_add_test(t, picks_are_what_all_logits_say);
    tcase_add_test(t, a_shortlist_in_vain);
    tcase_add_test(t, heads_without_a_shortlist);
    suite_add_tcase(s, t);
    return s;
}
