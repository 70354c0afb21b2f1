/* The packed CPU backend: every operation against its definition in double, on every instruction set that
 * this processor has; kernels against plain loops, with guard words; and the promise that a row's logits do
 * not depend on other rows of the step or on the threads, to the last bit. */
#include <costinfer/checkpoint.h>

#include "backend_ops.h"
#include "half.h"
#include "packed_attend.h"
#include "packed_prepared.h"

enum { SETS_MAX = 3 }; /* of instructions */

/* As ck_assert(), which writes to a pipe each time and is too slow for every number of a matrix. */
#define hold(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg("%s", #condition);                                                                  \
    } while (0)

/* False where the processor lacks set number `index`. */
static bool use_set(int index)
{
    const struct packed_kernels *kernels = packed_kernels_at((uint32_t)index);
    packed_kernels_force(kernels);
    return kernels != NULL;
}

/* ---- Operations --------------------------------------------------------------------------- */

START_TEST(programs)
{
    use_set(0);
    check_program(&backend_cpu_packed, _i);
}
END_TEST

START_TEST(programs_of_other_sets)
{
    if (use_set(1 + _i / 2))
        check_program(&backend_cpu_packed, _i % 2 ? PROGRAM_GPT2 : PROGRAM_LINEAR);
}
END_TEST

START_TEST(copies)
{
    check_copy(&backend_cpu_packed);
}
END_TEST

START_TEST(extremes)
{
    if (use_set(_i))
        check_extremes(&backend_cpu_packed);
}
END_TEST

START_TEST(bad_batches)
{
    check_bad_batches(&backend_cpu_packed);
}
END_TEST

/* Whichever allocation fails, the call that needed it reports it and everything else can be freed. */
START_TEST(allocations)
{
    const struct backend *b = &backend_cpu_packed;
    struct rig rig;
    rig_begin(&rig, (struct shape){ 6, 3, 10, 20, 30, 1 });
    add_program(&rig, PROGRAM_GPT2);
    struct program *p = &rig.program;
    uint64_t n = 0;
    bool hit = true;
    while (hit) {
        struct device *device = NULL;
        struct weights *weights = NULL;
        struct kv *kv = NULL;
        struct prepared *prepared = NULL;
        mem_fail_at(++n);
        enum cinf_status status = b->open(&device, &(struct device_options){ .threads = 2, .profile = true });
        if (status == CINF_OK)
            status =
                b->weights_new(&weights, device, rig.specs, p->n_specs, _i ? WEIGHTS_INT4 : WEIGHTS_INT8);
        for (uint32_t w = 0; w < p->n_specs && status == CINF_OK; w++)
            status = b->weights_write(weights, w, 0, rig.specs[w].rows, rig.values[w], CINF_DTYPE_F32);
        if (status == CINF_OK)
            status = b->kv_new(&kv, device, p, 2);
        if (status == CINF_OK)
            status = b->prepare(&prepared, weights, kv, p, 3);
        hit = mem_fail_hit();
        mem_fail_at(0);
        ck_assert_int_eq(status, hit ? CINF_ENOMEM : CINF_OK);
        ck_assert(hit || prepared);
        b->prepared_free(prepared);
        b->kv_free(kv);
        b->weights_free(weights);
        struct device_info info = { .memory_used = 0 };
        if (device) {
            b->info(device, &info);
            b->close(device);
        }
        ck_assert_uint_eq(info.memory_used, 0);
    }
    ck_assert_uint_gt(n, 12);
    for (uint32_t w = 0; w < SPECS_MAX; w++)
        free(rig.values[w]);
}
END_TEST

START_TEST(allocations_of_measure)
{
    struct device *device;
    struct device_speed speed = { 0 };
    struct device_info info;
    ck_ok(backend_cpu_packed.open(&device, &(struct device_options){ .threads = 2 }));
    mem_fail_at(1); /* there is one */
    ck_fails(backend_cpu_packed.measure(device, &speed), CINF_ENOMEM, "measure");
    mem_fail_at(0);
    ck_assert_uint_eq(speed.as_per_flop, 0);
    backend_cpu_packed.info(device, &info);
    ck_assert_uint_eq(info.memory_used, 0);
    backend_cpu_packed.close(device);
}
END_TEST

START_TEST(measure)
{
    check_measure(&backend_cpu_packed, 5000000000);
}
END_TEST

/* As rig_start(), with threads and a type of weights. */
static void start_as(struct rig *rig, uint32_t rows_max, struct device_options options,
                     enum weights_type type)
{
    const struct backend *b = rig->backend = &backend_cpu_packed;
    struct program *p = &rig->program;
    ck_ok(b->open(&rig->device, &options));
    ck_ok(b->weights_new(&rig->weights, rig->device, rig->specs, p->n_specs, type));
    for (uint32_t w = 0; w < p->n_specs; w++) {
        uint32_t rows = rig->specs[w].rows, half = rows / 2;
        ck_ok(b->weights_write(rig->weights, w, half, rows - half,
                               rig->values[w] + (size_t)half * rig->specs[w].cols, CINF_DTYPE_F32));
        ck_ok(b->weights_write(rig->weights, w, 0, half, rig->values[w], CINF_DTYPE_F32));
    }
    ck_ok(b->kv_new(&rig->kv, rig->device, p, SLOTS));
    ck_ok(b->prepare(&rig->prepared, rig->weights, rig->kv, p, rows_max));
    for (int i = 0; i < ROWS_COUNT; i++)
        rig->rows[i] = array_new((size_t)rows_max * row_width(p, (enum row_buffer)i), sizeof(double));
    rig->keys = array_new((size_t)p->layers * SLOTS * p->positions * p->width, sizeof(double));
    rig->cached = array_new((size_t)p->layers * SLOTS * p->positions * p->width, sizeof(double));
}

static float round_to_f16(float f)
{
    return f32_of_f16(f16_of_f32(f));
}

static float cut_to_bf16(float f)
{
    return f32_of_bits(bits_of_f32(f) & 0xFFFF0000u);
}

/* With weights that 16 bits hold exactly, 16-bit weights change nothing but the last bits. */
START_TEST(half_weights)
{
    enum weights_type type = _i % 2 ? WEIGHTS_F16 : WEIGHTS_BF16;
    if (!use_set(_i / 2))
        return;
    struct rig rig;
    rig_begin(&rig, (struct shape){ 35, 5, 70, 97, 138, 1 });
    add_program(&rig, PROGRAM_GPT2);
    for (uint32_t w = 0; w < rig.program.n_specs; w++) {
        for (size_t i = 0; i < (size_t)rig.specs[w].rows * rig.specs[w].cols; i++) {
            if (rig.specs[w].role != WEIGHT_VECTOR)
                rig.values[w][i] =
                    type == WEIGHTS_F16 ? round_to_f16(rig.values[w][i]) : cut_to_bf16(rig.values[w][i]);
        }
    }
    start_as(&rig, STEP_ROWS_MAX, (struct device_options){ .threads = 2 }, type);
    check_steps(&rig, type == WEIGHTS_F16 ? "f16" : "bf16");
    rig_end(&rig);
}
END_TEST

/* Every phase of a step is in a row of the profile, and none is longer than the step.  Without the option
 * there are no rows. */
START_TEST(profiles)
{
    for (int asked = 0; asked < 2; asked++) {
        struct rig rig;
        struct step_rows s;
        rig_begin(&rig, (struct shape){ 70, 5, 20, 97, 138, 2 });
        add_program(&rig, PROGRAM_GPT2);
        start_as(&rig, 8, (struct device_options){ .threads = 2, .profile = asked }, WEIGHTS_INT8);
        struct profile_row row = { .launches = 0 };
        ck_assert(!rig.backend->profile(rig.device, 0, &row));
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ 1, 0, 5 }, 97, WANT_SOME);
        uint64_t start_ns = clock_monotonic_ns(), total_ns = 0, products = 0, attends = 0;
        ck_ok(rig.backend->run(rig.prepared, &s.batch));
        uint64_t step_ns = clock_monotonic_ns() - start_ns;
        uint32_t n = 0;
        for (uint64_t before = UINT64_MAX; rig.backend->profile(rig.device, n, &row); n++) {
            ck_assert(row.ns <= before && row.launches > 0 && row.name[0]);
            before = row.ns;
            total_ns += row.ns;
            products += strncmp(row.name, "product", 7) == 0 ? row.launches : 0;
            attends += strcmp(row.name, "attend") == 0 ? row.launches : 0;
        }
        ck_assert_uint_eq(products, asked ? 2 * 4 + 1 : 0);
        ck_assert_uint_eq(attends, asked ? 2 : 0);
        ck_assert_uint_le(total_ns, step_ns);
        ck_assert_int_eq(n > 0, asked);
        rig_end(&rig);
    }
}
END_TEST

/* An f16 cache does not change keys and values that f16 holds exactly: small whole numbers and halves. */
START_TEST(cache_of_halves)
{
    if (!use_set(_i))
        return;
    struct rig rig;
    rig_begin(&rig, (struct shape){ 35, 5, 33, 50, 138, 1 });
    add_program(&rig, PROGRAM_ATTEND);
    for (uint32_t w = 0; w < rig.program.n_specs; w++) {
        bool one_hot = w == layer_weight(0, W_QKV);
        for (size_t i = 0; i < (size_t)rig.specs[w].rows * rig.specs[w].cols; i++) {
            if (w != W_HEAD)
                rig.values[w][i] = one_hot
                                       ? (i % rig.specs[w].cols % rig.specs[w].rows == i / rig.specs[w].cols)
                                       : (float)((int)(rig.values[w][i] * 8) % 64) / 8;
        }
    }
    start_as(&rig, STEP_ROWS_MAX, (struct device_options){ .threads = 2, .kv_f16 = true }, WEIGHTS_F32);
    struct cpu_kv *kv = (struct cpu_kv *)rig.kv;
    ck_assert(kv->format.f16);
    ck_assert_uint_eq(packed_kv_slot_bytes(rig.device, &rig.program), 160 * 5 * 2 * 32 * 2);
    check_steps(&rig, "half cache");
    ck_ok(rig.backend->kv_copy(rig.kv, 2, 1, 45));
    const uint16_t *copy[] = { (uint16_t *)(void *)cpu_kv_keys(kv, 2, 0, 4),
                               (uint16_t *)(void *)cpu_kv_values(kv, 2, 0, 4) };
    const unsigned char *from[] = { cpu_kv_keys(kv, 1, 0, 4), cpu_kv_values(kv, 1, 0, 4) };
    for (int part = 0; part < 2; part++) {
        ck_assert_mem_eq(copy[part], from[part], 45 * 32 * 2);
        for (size_t i = 45 * 32; i < 160 * 32; i++)
            ck_assert_uint_eq(copy[part][i], 0);
    }
    rig_end(&rig);
}
END_TEST

/* Many columns, none of which may be forgotten or confused with another: each token's weights point to
 * itself. */
START_TEST(vocabularies)
{
    static const uint32_t sizes[] = { 1, 31, 32, 33, 97, 257, 50257 };
    uint32_t v = sizes[_i];
    struct rig rig;
    struct step_rows s;
    rig_begin(&rig, (struct shape){ 8, 2, 8, v, 8, 1 });
    add_program(&rig, PROGRAM_TIED_HEAD);
    start_as(&rig, 8, (struct device_options){ .threads = 2 }, WEIGHTS_F32);
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 1, 0, 5 }, v, WANT_SOME);
    step_check(&rig, &s.batch, "vocabulary");
    rig_end(&rig);
}
END_TEST

/* A program may end without logits; rows that ask for them get none. */
START_TEST(no_logits)
{
    struct rig rig;
    struct step_rows s;
    rig_begin(&rig, (struct shape){ 8, 2, 8, 9, 8, 1 });
    add_program(&rig, PROGRAM_ATTEND);
    rig.program.n_ops--;
    start_as(&rig, 8, (struct device_options){ .threads = 2 }, WEIGHTS_F32);
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 1, 0, 5 }, 9, WANT_ALL);
    ck_ok(rig.backend->run(rig.prepared, &s.batch));
    const float *logits = NULL;
    ck_fails(rig.backend->logits(rig.prepared, 0, &logits), CINF_EINVAL, "a step that made 0");
    rig_end(&rig);
}
END_TEST

/* ---- Independence ------------------------------------------------------------------------- */

enum { DEPTH = 280, VOCAB = 97 };

/* Logits of each position of a request in slot 1, fed `pieces` positions a step (0: odd pieces, with rows of
 * other requests before and behind). */
static void logits_of_request(float *all, enum weights_type type, bool kv_f16, uint32_t threads,
                              uint32_t pieces)
{
    struct rig rig;
    random_state = 7;
    rig_begin(&rig, (struct shape){ 70, 2, 140, VOCAB, DEPTH, 2 });
    add_program(&rig, PROGRAM_GPT2);
    start_as(&rig, STEP_ROWS_MAX, (struct device_options){ .threads = threads, .kv_f16 = kv_f16 }, type);
    uint32_t others = 0;
    for (uint32_t at = 0, step = 0; at < DEPTH; step++) {
        struct step_rows s;
        uint32_t n = pieces ? pieces : step % 3 == 0 ? 1 : step % 3 == 1 ? 13 : 50, before = 0;
        n = n < DEPTH - at ? n : DEPTH - at;
        step_begin(&s);
        if (pieces == 0) {
            before = step % 5 * 3;
            step_add(&s, (struct run_of_rows){ 0, others, before }, VOCAB, WANT_SOME);
        }
        uint32_t first = 0;
        for (uint32_t r = 0; r < s.batch.n_rows; r++)
            first += s.wants[r];
        step_add(&s, (struct run_of_rows){ 1, at, n }, VOCAB, WANT_ALL);
        if (pieces == 0)
            step_add(&s, (struct run_of_rows){ 2, step, 1 }, VOCAB, WANT_ALL);
        others += before;
        ck_ok(rig.backend->run(rig.prepared, &s.batch));
        for (uint32_t i = 0; i < n; i++) {
            const float *logits;
            ck_ok(rig.backend->logits(rig.prepared, first + i, &logits));
            memcpy(all + (at + i) * VOCAB, logits, VOCAB * sizeof *logits);
        }
        at += n;
    }
    rig_end(&rig);
}

START_TEST(rows_do_not_depend_on_other_rows_or_threads)
{
    static const struct {
        uint32_t threads, pieces;
    } ways[] = { { 1, 150 }, { 2, 31 }, { 3, 0 }, { 4, 7 } };
    enum weights_type type = (enum weights_type)(_i % 5);
    bool kv_f16 = _i / 5 % 2;
    if (!use_set(_i / 10))
        return;
    float *alone = array_new(DEPTH * VOCAB, sizeof *alone), *other = array_new(DEPTH * VOCAB, sizeof *other);
    logits_of_request(alone, type, kv_f16, 1, 1);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        logits_of_request(other, type, kv_f16, ways[w].threads, ways[w].pieces);
        for (size_t i = 0; i < DEPTH * VOCAB; i++)
            if (!(bits_of_f32(alone[i]) == bits_of_f32(other[i])))
                ck_abort_msg("set %d, type %d, half cache %d, %u threads, pieces of %u: position %zu: %.9g, "
                             "alone %.9g",
                             _i / 10, (int)type, kv_f16, ways[w].threads, ways[w].pieces, i / VOCAB,
                             (double)other[i], (double)alone[i]);
    }
    free(alone);
    free(other);
}
END_TEST

/* ---- Kernels ------------------------------------------------------------------------------ */

static const float guard = 1234.5f;
enum { K_MAX = 300, KERNEL_ROWS = 128 };

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)random_normal();
}

static const uint32_t row_counts[] = { 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18,
                                       19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 64, 128 };
static const uint32_t lengths[] = { 1, 2, 3, 7, 64, 193, 300 };

/* Products of every number of rows: near the definition, the same as one row alone, nothing else written;
 * and in two parts the same as in one. */
START_TEST(products)
{
    if (!use_set(_i / 3))
        return;
    enum weights_type type = (enum weights_type)(_i % 3);
    const struct packed_kernels *kernels = packed_kernels_best();
    gemm_kernel *product = type == WEIGHTS_F32   ? kernels->gemm_f32
                           : type == WEIGHTS_F16 ? kernels->gemm_f16
                                                 : kernels->gemm_bf16;
    const size_t ld = PANEL + 8, ld_a = K_MAX + 3;
    static float a[KERNEL_ROWS * (K_MAX + 3)], b[K_MAX * PANEL], alone[KERNEL_ROWS * PANEL],
        acc[(KERNEL_ROWS + 1) * (PANEL + 8)];
    static uint16_t halves[K_MAX * PANEL];
    fill(a, sizeof a / sizeof *a);
    fill(b, sizeof b / sizeof *b);
    for (size_t i = 0; i < sizeof b / sizeof *b && type != WEIGHTS_F32; i++) {
        b[i] = type == WEIGHTS_F16 ? round_to_f16(b[i]) : cut_to_bf16(b[i]);
        halves[i] = type == WEIGHTS_F16 ? f16_of_f32(b[i]) : (uint16_t)(bits_of_f32(b[i]) >> 16);
    }
    const void *panel = type == WEIGHTS_F32 ? (const void *)b : (const void *)halves;
    const size_t element = type == WEIGHTS_F32 ? 4 : 2;
    const struct prefetch nothing = { NULL, 0, 0 }, next = { panel, sizeof halves, 64 };
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        uint32_t k = lengths[l];
        for (uint32_t r = 0; r < KERNEL_ROWS; r++) {
            product(alone + r * PANEL, PANEL, a + r * ld_a, ld_a, 1, panel, PANEL, k, false, nothing);
            for (uint32_t o = 0; o < PANEL; o++) {
                double exact = 0, size = 0;
                for (uint32_t i = 0; i < k; i++) {
                    exact += (double)a[r * ld_a + i] * (double)b[i * PANEL + o];
                    size += fabs((double)a[r * ld_a + i] * (double)b[i * PANEL + o]);
                }
                hold(fabs((double)alone[r * PANEL + o] - exact) <= 1e-6 * size);
            }
        }
        for (size_t c = 0; c < sizeof row_counts / sizeof *row_counts; c++) {
            uint32_t n = row_counts[c], half = k / 2;
            for (int parts = 1; parts <= 2; parts++) {
                for (size_t i = 0; i < sizeof acc / sizeof *acc; i++)
                    acc[i] = guard;
                if (parts == 1) {
                    product(acc, ld, a, ld_a, n, panel, PANEL, k, false, nothing);
                } else {
                    product(acc, ld, a, ld_a, n, panel, PANEL, half, false, next);
                    product(acc, ld, a + half, ld_a, n, (const char *)panel + half * PANEL * element, PANEL,
                            k - half, true, nothing);
                }
                for (size_t i = 0; i < sizeof acc / sizeof *acc; i++) {
                    size_t row = i / ld, o = i % ld;
                    float expected = row < n && o < PANEL ? alone[row * PANEL + o] : guard;
                    if (!(acc[i] == expected))
                        ck_abort_msg("R=%u K=%u row %zu output %zu: %.9g, not %.9g", n, k, row, o,
                                     (double)acc[i], (double)expected);
                }
            }
        }
    }
}
END_TEST

/* Every number of rows and several widths are transposed: element (i, r) is row r's number i, and nothing
 * else is written.  One row times many outputs gives the same as gemm, panel by panel. */
START_TEST(transposes_and_gemv)
{
    if (!use_set(_i))
        return;
    const struct packed_kernels *kernels = packed_kernels_best();
    enum { N = 7 * PANEL, WIDTH = 64, LD = WIDTH + 32, LD_TO = N + 16 };
    static float rows[N * LD], to[(WIDTH + 1) * LD_TO], a[WIDTH], acc[N + 1], alone[N];
    static uint16_t halves[N * LD], half_of[WIDTH * LD_TO];
    fill(rows, N * LD);
    fill(a, WIDTH);
    for (size_t i = 0; i < N * LD; i++)
        halves[i] = f16_of_f32(rows[i]);
    static const uint32_t widths[] = { 1, 7, 16, 20, 33, WIDTH };
    for (uint32_t c = 0; c < sizeof widths / sizeof *widths * N * 2; c++) {
        uint32_t width = widths[c / 2 / N], n = c / 2 % N + 1, half = c % 2;
        for (size_t i = 0; i < (WIDTH + 1) * LD_TO; i++)
            to[i] = guard;
        if (half)
            kernels->transpose_f16(to, LD_TO, halves, LD, n, width, halves);
        else
            kernels->transpose_f32(to, LD_TO, rows, LD, n, width, rows);
        for (uint32_t i = 0; i <= WIDTH; i++) {
            for (uint32_t r = 0; r < LD_TO; r++) {
                bool inside = i < width && r < n;
                if (inside)
                    hold(to[i * LD_TO + r] == (half ? f32_of_f16(halves[r * LD + i]) : rows[r * LD + i]));
                else if (i >= (width + 15) / 16 * 16 || r >= (n + 15) / 16 * 16)
                    hold(to[i * LD_TO + r] == guard);
            }
        }
        if (n % PANEL != 0)
            continue;
        for (size_t i = 0; i < WIDTH * LD_TO && half; i++)
            half_of[i] = f16_of_f32(to[i]);
        for (uint32_t i = 0; i <= n; i++)
            acc[i] = guard;
        gemv_kernel *row = half ? kernels->gemv_f16 : kernels->gemv_f32;
        gemm_kernel *product = half ? kernels->gemm_f16 : kernels->gemm_f32;
        const void *b = half ? (const void *)half_of : (const void *)to;
        row(acc, a, b, LD_TO, n, (width + 1) / 2, false, b);
        if (!half) {
            kernels->gemv_f32_before_f16(alone, a, b, LD_TO, n, (width + 1) / 2, false, b);
            ck_assert_mem_eq(acc, alone, n * sizeof *acc);
        }
        row(acc, a + (width + 1) / 2, (const char *)b + (width + 1) / 2 * LD_TO * (half ? 2 : 4), LD_TO, n,
            width / 2, true, b);
        for (uint32_t at = 0; at < n; at += PANEL)
            product(alone + at, PANEL, a, WIDTH, 1, (const char *)b + at * (half ? 2 : 4), LD_TO, width,
                    false, (struct prefetch){ NULL, 0, 0 });
        ck_assert_mem_eq(acc, alone, n * sizeof *acc);
        hold(acc[n] == guard);
    }
}
END_TEST

/* Two parts of a softmax's sum, the greater maximum in either. */
START_TEST(merges)
{
    if (!use_set(_i))
        return;
    const struct packed_kernels *kernels = packed_kernels_best();
    for (int first = 0; first < 2; first++) {
        float values[2 * PANEL], part[2 * PANEL], max = first ? 3.5f : -1.25f, sum = 2,
                                                  part_max = first ? -1.25f : 3.5f;
        double mine = first ? 1 : exp(-4.75), its = first ? exp(-4.75) : 1;
        fill(values, 2 * PANEL);
        fill(part, 2 * PANEL);
        double exact[PANEL];
        for (int i = 0; i < PANEL; i++)
            exact[i] = (double)values[i] * mine + (double)part[i] * its;
        float beyond = values[PANEL];
        kernels->merge(values, &max, &sum, part, part_max, 5, PANEL);
        for (int i = 0; i < PANEL; i++)
            hold(fabs((double)values[i] - exact[i]) < 1e-6);
        hold(values[PANEL] == beyond && max == 3.5f && fabs((double)sum - 2 * mine - 5 * its) < 5e-6);
    }
}
END_TEST

/* One row in int8, as the kernels read it. */
struct int8_row {
    int8_t q[3 * GROUP];
    float scales[3];
    int32_t offsets[3], offsets4[3 * GROUPS4];
    uint32_t n_out, out_at[OUTLIERS_MAX];
    float out_number[OUTLIERS_MAX];
};

/* What quantise() must do to x[k]: take out outliers and keep everything else to half a step. */
static void check_quantised(const struct int8_row *row, const float *x, uint32_t k)
{
    bool out[3 * GROUP] = { false };
    ck_assert_uint_le(row->n_out, OUTLIERS_MAX);
    for (uint32_t i = 0; i < row->n_out; i++) {
        ck_assert_uint_lt(row->out_at[i], k);
        hold(row->out_number[i] == x[row->out_at[i]] && row->q[row->out_at[i]] == 0);
        out[row->out_at[i]] = true;
    }
    for (uint32_t g = 0; g * GROUP < k; g++) {
        int32_t sum = 0, sum4 = 0;
        double max = 0;
        for (uint32_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            double number = i < k && !out[i] ? (double)x[i] : 0;
            hold(fabs(number - row->q[i] * (double)row->scales[g]) <= 0.501 * (double)row->scales[g]);
            max = fmax(max, fabs(number));
            sum += row->q[i];
            sum4 += row->q[i];
            if (i % GROUP4 == GROUP4 - 1) {
                ck_assert_int_eq(row->offsets4[i / GROUP4], -8 * sum4);
                sum4 = 0;
            }
            hold(i < k || row->q[i] == 0);
        }
        hold(fabs((double)row->scales[g] - max / 127) <= max * 1e-6);
        ck_assert_int_eq(row->offsets[g], -128 * sum);
    }
}

/* One number of an int4 panel, without its scale and with it. */
static int int4_number(const uint8_t *panel, uint32_t k, uint32_t output)
{
    unsigned byte = panel[k / GROUP4 * GROUP4_BYTES + k % GROUP4 / 4 * 64 + output % 16 * 4 + k % 4];
    return (int)(output < 16 ? byte & 15 : byte >> 4) - 8;
}

static double int4_scale(const uint8_t *panel, uint32_t k, uint32_t output)
{
    uint16_t scale;
    memcpy(&scale, panel + k / GROUP4 * GROUP4_BYTES + GROUP4 * PANEL / 2 + output * sizeof scale,
           sizeof scale);
    return (double)f32_of_f16(scale);
}

/* gemm_int4() is near the definition, which is 0 where a row is, and one row gives the same alone as among
 * others. */
static void check_int4(const struct packed_kernels *kernels, const struct int8_rows *rows, uint32_t k)
{
    static uint8_t panel[(K_MAX + GROUP4) / GROUP4 * GROUP4_BYTES];
    static float acc[KERNEL_ROWS + 1][PANEL], alone[KERNEL_ROWS][PANEL];
    uint32_t groups = (k + GROUP4 - 1) / GROUP4;
    for (uint32_t g = 0; g < groups; g++) {
        uint8_t *group = panel + g * GROUP4_BYTES;
        for (uint32_t i = 0; i < GROUP4 * PANEL / 2; i++) /* extremes for outputs 0 and 16, 1 and 17 */
            group[i] = i % 64 < 4 ? 0xF0 : i % 64 < 8 ? 0x0F : (uint8_t)(random_uniform() * 255.99);
        for (uint32_t o = 0; o < PANEL; o++) {
            uint16_t scale = f16_of_f32((float)random_normal());
            memcpy(group + GROUP4 * PANEL / 2 + o * sizeof scale, &scale, sizeof scale);
        }
    }
    for (uint32_t r = 0; r < KERNEL_ROWS; r++) {
        kernels->gemm_int4(alone[r], rows, r, 1, panel, groups * GROUP4);
        for (uint32_t o = 0; o < PANEL; o++) {
            double exact = 0, size = 0;
            for (uint32_t g = 0; g < groups; g++) {
                int32_t sum = 0;
                for (uint32_t i = g * GROUP4; i < (g + 1) * GROUP4; i++)
                    sum += rows->q[r * rows->stride + i] * int4_number(panel, i, o);
                double part = sum * (double)rows->scales[r * rows->groups + g * GROUP4 / GROUP] *
                              int4_scale(panel, g * GROUP4, o);
                exact += part;
                size += fabs(part);
            }
            for (uint32_t i = 0; i < rows->n_out[r]; i++) {
                uint32_t at = rows->out_at[r * OUTLIERS_MAX + i];
                double number = (double)rows->out_number[r * OUTLIERS_MAX + i] * int4_scale(panel, at, o);
                exact += number * int4_number(panel, at, o);
                size += fabs(number) * 8;
            }
            hold(fabs((double)alone[r][o] - exact) <= 1e-6 * size);
        }
    }
    for (size_t c = 0; c < sizeof row_counts / sizeof *row_counts; c++) {
        uint32_t n = row_counts[c], first = KERNEL_ROWS - n < 3 ? 0 : 3;
        for (uint32_t i = 0; i < (KERNEL_ROWS + 1) * PANEL; i++)
            acc[i / PANEL][i % PANEL] = guard;
        kernels->gemm_int4(acc[0], rows, first, n, panel, groups * GROUP4);
        ck_assert_mem_eq(acc, alone[first], n * sizeof acc[0]);
        for (uint32_t o = 0; o < PANEL; o++)
            hold(acc[n][o] == guard);
    }
}

START_TEST(int8_and_int4)
{
    if (!use_set(_i))
        return;
    const struct packed_kernels *kernels = packed_kernels_best();
    static float x[KERNEL_ROWS][K_MAX], acc[KERNEL_ROWS + 1][PANEL], alone[KERNEL_ROWS][PANEL];
    static uint8_t panel[K_MAX / 4 * 4 * PANEL];
    static int8_t q[KERNEL_ROWS][3 * GROUP];
    static float scales[KERNEL_ROWS][3], out_number[KERNEL_ROWS][OUTLIERS_MAX];
    static int32_t offsets[KERNEL_ROWS][3], offsets4[KERNEL_ROWS][3 * GROUPS4];
    static uint32_t n_out[KERNEL_ROWS], out_at[KERNEL_ROWS][OUTLIERS_MAX];
    fill(&x[0][0], sizeof x / sizeof(float));
    for (size_t i = 0; i < sizeof panel; i++)
        panel[i] = (uint8_t)(1 + random_uniform() * 254.99);
    /* The extremes: all outputs of the first column. */
    memset(x[1], 0, sizeof x[1]);
    for (uint32_t k = 0; k < K_MAX; k++) {
        x[2][k] = k % 2 ? 1 : -1;
        x[3][k] = 1;
        panel[(k / 4 * PANEL) * 4 + k % 4] = 255;
        panel[(k / 4 * PANEL + 1) * 4 + k % 4] = 1;
    }
    x[4][5] = 300;
    x[4][200] = -900;
    for (uint32_t i = 0; i < 40; i++)
        x[5][i * 7] = 1000; /* more than can be taken out */
    static const uint32_t ks[] = { 4, GROUP, 300 };
    for (size_t l = 0; l < sizeof ks / sizeof *ks; l++) {
        uint32_t k = ks[l];
        struct int8_rows rows = { &q[0][0],       &scales[0][0],     &offsets[0][0], n_out,
                                  &out_at[0][0],  &out_number[0][0], 3 * GROUP,      3,
                                  &offsets4[0][0] };
        for (uint32_t r = 0; r < KERNEL_ROWS; r++) {
            struct int8_row row;
            memset(&row, 0x55, sizeof row);
            kernels->quantise(row.q, row.scales, row.offsets, row.offsets4, &row.n_out, row.out_at,
                              row.out_number, x[r], k);
            check_quantised(&row, x[r], k);
            hold(r == 4 || r == 5 || row.n_out == 0);
            memcpy(q[r], row.q, sizeof row.q);
            memcpy(scales[r], row.scales, sizeof row.scales);
            memcpy(offsets[r], row.offsets, sizeof row.offsets);
            memcpy(offsets4[r], row.offsets4, sizeof row.offsets4);
            memcpy(out_at[r], row.out_at, sizeof row.out_at);
            memcpy(out_number[r], row.out_number, sizeof row.out_number);
            n_out[r] = row.n_out;
            kernels->gemm_int8(alone[r], &rows, r, 1, panel, k);
            for (uint32_t o = 0; o < PANEL; o++) {
                double exact = 0, size = 0;
                for (uint32_t g = 0; g * GROUP < k; g++) {
                    int32_t sum = 0;
                    for (uint32_t i = g * GROUP; i < k && i < (g + 1) * GROUP; i++)
                        sum += q[r][i] * (panel[(i / 4 * PANEL + o) * 4 + i % 4] - 128);
                    exact += sum * (double)scales[r][g];
                    size += fabs(sum * (double)scales[r][g]);
                }
                for (uint32_t i = 0; i < n_out[r]; i++) {
                    uint32_t at = out_at[r][i];
                    exact += (double)out_number[r][i] * (panel[(at / 4 * PANEL + o) * 4 + at % 4] - 128);
                    size += fabs((double)out_number[r][i]) * 128;
                }
                hold(fabs((double)alone[r][o] - exact) <= 1e-6 * size);
            }
        }
        ck_assert_uint_eq(n_out[4], k > 200 ? 2 : k > 5);
        for (size_t c = 0; c < sizeof row_counts / sizeof *row_counts; c++) {
            uint32_t n = row_counts[c], first = KERNEL_ROWS - n < 3 ? 0 : 3;
            for (uint32_t i = 0; i < (KERNEL_ROWS + 1) * PANEL; i++)
                acc[i / PANEL][i % PANEL] = guard;
            kernels->gemm_int8(acc[0], &rows, first, n, panel, k);
            ck_assert_mem_eq(acc, alone[first], n * sizeof acc[0]);
            for (uint32_t o = 0; o < PANEL; o++)
                hold(acc[n][o] == guard);
        }
        check_int4(kernels, &rows, k);
    }
}
END_TEST

START_TEST(sixteen_bit_conversions)
{
    if (!use_set(_i))
        return;
    const struct packed_kernels *kernels = packed_kernels_best();
    uint16_t in[PANEL], back[PANEL];
    float f16[PANEL], bf16[PANEL], odd[PANEL];
    for (uint32_t i = 0; i < 65536; i += PANEL) {
        for (uint32_t j = 0; j < PANEL; j++) {
            in[j] = (uint16_t)(i + j);
            odd[j] = f32_of_bits((i + j) * 65537u);
        }
        kernels->convert_f16(f16, in, PANEL);
        kernels->convert_bf16(bf16, in, PANEL);
        kernels->convert_to_f16(back, odd, PANEL);
        for (uint32_t j = 0; j < PANEL; j++) {
            float exact = f32_of_f16(in[j]);
            hold(isnan(exact) ? isnan(f16[j]) : bits_of_f32(exact) == bits_of_f32(f16[j]));
            hold(bits_of_f32(bf16[j]) == (uint32_t)in[j] << 16);
            hold(isnan(odd[j]) ? isnan(f32_of_f16(back[j])) : back[j] == f16_of_f32(odd[j]));
        }
    }
    for (uint32_t n = 0; n < PANEL; n++) {
        memset(back, 0x55, sizeof back);
        fill(odd, PANEL);
        kernels->convert_to_f16(back, odd, n);
        for (uint32_t j = 0; j < PANEL; j++)
            hold(back[j] == (j < n ? f16_of_f32(odd[j]) : 0x5555));
    }
}
END_TEST

START_TEST(activations)
{
    if (!use_set(_i))
        return;
    const struct packed_kernels *kernels = packed_kernels_best();
    float one[PANEL], zero[PANEL] = { 0 }, x[PANEL], y[PANEL];
    for (uint32_t i = 0; i < PANEL; i++)
        one[i] = 1;
    for (int a = 0; a < ACTIVATIONS; a++) {
        for (float from = -30; from < 30; from += PANEL * 0.0011f) {
            for (uint32_t i = 0; i < PANEL; i++)
                x[i] = from + (float)i * 0.0011f;
            kernels->finish(y, PANEL, x, 1, one, zero, FINISH_ACTIVATE, (enum cinf_activation)a);
            for (uint32_t i = 0; i < PANEL; i++) {
                double exact = exact_activation((enum cinf_activation)a, (double)x[i]);
                if (!(fabs((double)y[i] - exact) <= 6e-7 * (1 + fabs(exact))))
                    ck_abort_msg("%s(%.9g) = %.9g, not %.9g", cinf_activation_name((enum cinf_activation)a),
                                 (double)x[i], (double)y[i], exact);
            }
        }
    }
    double worst = 0;
    for (float v = -87; v <= 88; v += 0.00731f)
        worst = fmax(worst, fabs((double)kernels->exp(v) / exp((double)v) - 1));
    ck_assert_double_lt(worst, 4e-7);
    hold(kernels->exp(0) == 1 && kernels->exp(-INFINITY) < 2e-38f && isnan(kernels->exp(NAN)));
}
END_TEST

/* ---- Weights ------------------------------------------------------------------------------ */

static struct device *device;

static void open_device(void)
{
    packed_kernels_force(NULL);
    ck_ok(backend_cpu_packed.open(&device, &(struct device_options){ .threads = 2 }));
}

static void close_device(void)
{
    backend_cpu_packed.close(device);
}

/* Every element finds its place from every type of element, in every type of weights, at any address. */
START_TEST(weights_of_every_type)
{
    static const struct weight_spec specs[] = { { WEIGHT_TOKENS, 77, 37 },
                                                { WEIGHT_TABLE, 9, 37 },
                                                { WEIGHT_HEAD, 33, 70 } };
    static const enum cinf_dtype dtypes[] = { CINF_DTYPE_F32, CINF_DTYPE_F16, CINF_DTYPE_BF16,
                                              CINF_DTYPE_F64 };
    enum weights_type type = (enum weights_type)(_i / 4);
    enum cinf_dtype dtype = dtypes[_i % 4];
    struct weights *weights;
    ck_ok(packed_weights_new(&weights, device, specs, 3, type));
    for (uint32_t w = 0; w < 3; w++) {
        uint32_t rows = specs[w].rows, cols = specs[w].cols;
        static unsigned char bytes[77 * 70 * 8 + 1];
        static float values[77 * 70], row[70];
        size_t size = dtype == CINF_DTYPE_F32 ? 4 : dtype == CINF_DTYPE_F64 ? 8 : 2;
        for (size_t i = 0; i < (size_t)rows * cols; i++) {
            /* Few enough bits for all types. */
            values[i] = (float)((int)(random_uniform() * 255) - 127) / 64;
            if (i % cols == 0)
                values[i] = 127.0f / 64;
            double wide = (double)values[i];
            uint16_t f16 = f16_of_f32(values[i]), bf16 = (uint16_t)(bits_of_f32(values[i]) >> 16);
            memcpy(bytes + 1 + i * size,
                   dtype == CINF_DTYPE_F32   ? (void *)&values[i]
                   : dtype == CINF_DTYPE_F64 ? (void *)&wide
                   : dtype == CINF_DTYPE_F16 ? (void *)&f16
                                             : (void *)&bf16,
                   size);
        }
        for (uint32_t first = 0, n; first < rows; first += n) {
            n = rows - first < 13 ? rows - first : 13;
            ck_ok(packed_weights_write(weights, w, first, n, bytes + 1 + first * cols * size, dtype));
        }
        for (uint32_t r = 0; r < rows; r++) {
            packed_row(row, (struct packed_weights *)weights, w, r);
            for (uint32_t c = 0; c < cols; c++)
                if (!(fabsf(row[c] - values[r * cols + c]) <= 1e-6f))
                    ck_abort_msg("weight %u [%u][%u] is %g, not %g", w, r, c, (double)row[c],
                                 (double)values[r * cols + c]);
        }
    }
    packed_weights_free(weights);
}
END_TEST

START_TEST(numbers_that_do_not_fit)
{
    static const struct weight_spec specs[] = { { WEIGHT_MATRIX, 3, 40 }, { WEIGHT_TOKENS, 3, 40 } };
    static const struct {
        enum weights_type type;
        double value;
    } cases[] = { { WEIGHTS_F32, 1e300 },    { WEIGHTS_F16, 65520 },     { WEIGHTS_BF16, 3.4e38 },
                  { WEIGHTS_INT8, NAN },     { WEIGHTS_INT8, HUGE_VAL }, { WEIGHTS_INT4, NAN },
                  { WEIGHTS_INT4, HUGE_VAL } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (uint32_t w = 0; w < 2; w++) {
            struct weights *weights;
            double elements[120] = { 0 };
            elements[2 * 40 + 39] = cases[c].value;
            ck_ok(packed_weights_new(&weights, device, specs, 2, cases[c].type));
            ck_fails(packed_weights_write(weights, w, 0, 3, elements, CINF_DTYPE_F64), CINF_EUNSUPPORTED,
                     "in row 2, column 39");
            packed_weights_free(weights);
        }
    }
    struct weights *weights;
    ck_ok(packed_weights_new(&weights, device, specs, 2, WEIGHTS_F16));
    float most = 65504;
    float row[40] = { most, INFINITY };
    ck_ok(packed_weights_write(weights, 1, 0, 1, row, CINF_DTYPE_F32)); /* f16 has infinities, too */
    ck_fails(packed_weights_write(weights, 2, 0, 1, row, CINF_DTYPE_F32), CINF_EINVAL, "weight 2 of 2");
    ck_fails(packed_weights_write(weights, 1, 2, 2, row, CINF_DTYPE_F32), CINF_EINVAL, "rows 2 to 4 of 3");
    ck_fails(packed_weights_write(weights, 1, 0, 1, row, CINF_DTYPE_OTHER), CINF_EUNSUPPORTED, "weight 1");
    packed_weights_free(weights);
    struct weights *untouched = NULL;
    enum weights_type none = (enum weights_type)(WEIGHTS_INT4 + 1);
    ck_fails(packed_weights_new(&untouched, device, specs, 2, none), CINF_EUNSUPPORTED, "int4");
    struct weight_spec empty = { WEIGHT_MATRIX, 0, 4 }, huge = { WEIGHT_MATRIX, 4000000000u, 4000000000u };
    ck_fails(packed_weights_new(&untouched, device, &empty, 1, WEIGHTS_F32), CINF_EINVAL, "0 x 4");
    ck_fails(packed_weights_new(&untouched, device, &huge, 1, WEIGHTS_F32), CINF_ENOMEM, "4000000000");
    ck_assert_ptr_null(untouched);
}
END_TEST

/* Numbers that a group of 32 with its scale holds exactly come back.  Each group has its own scale, and the
 * matrix may come in pieces and end within a group. */
START_TEST(int4_matrices)
{
    enum { K = 77, N = 41 };
    static const struct weight_spec spec = { WEIGHT_MATRIX, K, N };
    static float values[K * N];
    struct weights *weights;
    for (uint32_t k = 0; k < K; k++)
        for (uint32_t n = 0; n < N; n++)
            values[k * N + n] = (k % GROUP4 == n % 13 ? -8.0f : (float)((k * 7 + n * 3) % 16) - 8) *
                                (float)(1 + (k / GROUP4 + n) % 5) / 64;
    ck_ok(packed_weights_new(&weights, device, &spec, 1, WEIGHTS_INT4));
    ck_ok(packed_weights_write(weights, 0, 30, K - 30, values + 30 * N, CINF_DTYPE_F32));
    ck_ok(packed_weights_write(weights, 0, 0, 30, values, CINF_DTYPE_F32));
    const struct packed_matrix *m = ((struct packed_weights *)weights)->matrices;
    ck_assert_uint_eq(m->panel_bytes, 3 * GROUP4_BYTES);
    ck_assert_uint_eq(packed_weights_bytes(weights), 2 * 3 * GROUP4_BYTES);
    for (uint32_t k = 0; k < K; k++) {
        for (uint32_t n = 0; n < N; n++) {
            const unsigned char *panel = m->elements + n / PANEL * m->panel_bytes;
            double got = int4_number(panel, k, n % PANEL) * int4_scale(panel, k, n % PANEL);
            if (!(got == (double)values[k * N + n]))
                ck_abort_msg("[%u][%u] is %g, not %g", k, n, got, (double)values[k * N + n]);
        }
    }
    packed_weights_free(weights);

    /* All others are off by half a step at most; the largest of a group is off by less. */
    for (uint32_t i = 0; i < K * N; i++)
        values[i] = (float)random_normal();
    values[3 * N + 5] = 400000;
    ck_ok(packed_weights_new(&weights, device, &spec, 1, WEIGHTS_INT4));
    ck_ok(packed_weights_write(weights, 0, 0, K, values, CINF_DTYPE_F32));
    m = ((struct packed_weights *)weights)->matrices;
    for (uint32_t k = 0; k < K; k++) {
        for (uint32_t n = 0; n < N; n++) {
            const unsigned char *panel = m->elements + n / PANEL * m->panel_bytes;
            double scale = int4_scale(panel, k, n % PANEL), got = int4_number(panel, k, n % PANEL) * scale;
            hold(fabs(got - (double)values[k * N + n]) <=
                 1.01 * fabs(scale)); /* beyond the short end: a step */
        }
    }
    packed_weights_free(weights);
    values[3 * N + 5] = 500000; /* a seventh of it is too large for f16 */
    ck_ok(packed_weights_new(&weights, device, &spec, 1, WEIGHTS_INT4));
    ck_fails(packed_weights_write(weights, 0, 0, K, values, CINF_DTYPE_F32), CINF_EUNSUPPORTED,
             "in row 3, column 5");
    packed_weights_free(weights);
}
END_TEST

/* ---- int8 and int4 as a whole ---------------------------------------------------------------------- */

/* Root of the mean square of a type's deviation from f32, in parts of the logits' own. */
static double deviation(enum weights_type type, float outlier)
{
    enum { ROWS = 40 };
    static float exact[ROWS * VOCAB];
    double error = 0, size = 0;
    for (int pass = 0; pass < 2; pass++) {
        struct rig rig;
        struct step_rows s;
        random_state = 11;
        rig_begin(&rig, (struct shape){ 128, 2, 512, VOCAB, 64, 2 });
        add_program(&rig, PROGRAM_GPT2);
        /* Trained models have a few columns that are large in every row. */
        for (uint32_t l = 0; l < 2; l++) {
            rig.values[layer_weight(l, W_NORM1)][17] *= outlier;
            rig.values[layer_weight(l, W_NORM2)][90] *= outlier;
        }
        start_as(&rig, ROWS, (struct device_options){ .threads = 2 }, pass == 0 ? WEIGHTS_F32 : type);
        step_begin(&s);
        step_add(&s, (struct run_of_rows){ 0, 0, ROWS }, VOCAB, WANT_ALL);
        ck_ok(rig.backend->run(rig.prepared, &s.batch));
        for (uint32_t r = 0; r < ROWS; r++) {
            const float *logits;
            ck_ok(rig.backend->logits(rig.prepared, r, &logits));
            for (uint32_t v = 0; v < VOCAB; v++) {
                if (pass == 0)
                    exact[r * VOCAB + v] = logits[v];
                double e = (double)(logits[v] - exact[r * VOCAB + v]);
                error += e * e;
                size += (double)(exact[r * VOCAB + v] * exact[r * VOCAB + v]);
            }
        }
        rig_end(&rig);
    }
    return sqrt(error / size * 2);
}

START_TEST(small_weights_are_near_f32)
{
    if (!use_set(_i))
        return;
    ck_assert_double_lt(deviation(WEIGHTS_INT8, 1), 0.015);
    ck_assert_double_lt(deviation(WEIGHTS_INT8, 60), 0.025);
    ck_assert_double_lt(deviation(WEIGHTS_INT4, 1), 0.15);
    ck_assert_double_lt(deviation(WEIGHTS_INT4, 60), 0.15);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("packed");
    TCase *t = tcase_create("operations");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, programs, 0, PROGRAMS);
    tcase_add_loop_test(t, programs_of_other_sets, 0, 2 * (SETS_MAX - 1));
    tcase_add_test(t, copies);
    tcase_add_loop_test(t, extremes, 0, SETS_MAX);
    tcase_add_test(t, bad_batches);
    tcase_add_loop_test(t, allocations, 0, 2);
    tcase_add_test(t, allocations_of_measure);
    tcase_add_test(t, profiles);
    tcase_add_test(t, measure);
    tcase_add_loop_test(t, half_weights, 0, SETS_MAX * 2);
    tcase_add_loop_test(t, cache_of_halves, 0, SETS_MAX);
    tcase_add_loop_test(t, vocabularies, 0, 7);
    tcase_add_test(t, no_logits);
    tcase_add_loop_test(t, rows_do_not_depend_on_other_rows_or_threads, 0, SETS_MAX * 10);
    tcase_add_loop_test(t, small_weights_are_near_f32, 0, SETS_MAX);
    suite_add_tcase(s, t);
    t = tcase_create("kernels");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, products, 0, SETS_MAX * 3);
    tcase_add_loop_test(t, transposes_and_gemv, 0, SETS_MAX);
    tcase_add_loop_test(t, merges, 0, SETS_MAX);
    tcase_add_loop_test(t, int8_and_int4, 0, SETS_MAX);
    tcase_add_loop_test(t, sixteen_bit_conversions, 0, SETS_MAX);
    tcase_add_loop_test(t, activations, 0, SETS_MAX);
    suite_add_tcase(s, t);
    t = tcase_create("weights");
    tcase_add_checked_fixture(t, open_device, close_device);
    tcase_add_loop_test(t, weights_of_every_type, 0, 20);
    tcase_add_test(t, int4_matrices);
    tcase_add_test(t, numbers_that_do_not_fit);
    suite_add_tcase(s, t);
    return s;
}
