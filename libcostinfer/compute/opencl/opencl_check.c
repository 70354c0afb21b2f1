/* opencl_check.c - one small layer of GPT-2, on the device and on the CPU reference.
 *
 * Drivers have bugs, and so have kernels that have never run on this hardware.  The steps use every kernel of
 * the device's variant, with weights of each type; a difference beyond rounding is an error. */
#include "opencl_check.h"

#include <math.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

enum { WIDTH = 128, HEADS = 2, INNER = 272, VOCAB = 80, POSITIONS = 64, SLOTS = 2, ROWS_MAX = 20 };

enum { W_TOKENS, W_POSITIONS, W_GAIN, W_QKV, W_QKV_BIAS, W_PROJ, W_BIAS, W_UP, W_UP_BIAS, W_DOWN, SPECS };

static const struct weight_spec specs[SPECS] = {
    [W_TOKENS] = { WEIGHT_TOKENS, VOCAB, WIDTH },   [W_POSITIONS] = { WEIGHT_TABLE, POSITIONS, WIDTH },
    [W_GAIN] = { WEIGHT_VECTOR, 1, WIDTH },         [W_QKV] = { WEIGHT_MATRIX, WIDTH, 3 * WIDTH },
    [W_QKV_BIAS] = { WEIGHT_VECTOR, 1, 3 * WIDTH }, [W_PROJ] = { WEIGHT_MATRIX, WIDTH, WIDTH },
    [W_BIAS] = { WEIGHT_VECTOR, 1, WIDTH },         [W_UP] = { WEIGHT_MATRIX, WIDTH, INNER },
    [W_UP_BIAS] = { WEIGHT_VECTOR, 1, INNER },      [W_DOWN] = { WEIGHT_MATRIX, INNER, WIDTH },
};

#define NORM                                                                                                 \
    {                                                                                                        \
        .kind = OP_NORM, .in = ROWS_X, .out = ROWS_H, .weight = W_GAIN, .bias = W_BIAS, .epsilon = 1e-5f     \
    }
static const struct op ops[] = {
    { .kind = OP_EMBED, .out = ROWS_X, .weight = W_TOKENS, .weight2 = W_POSITIONS },
    NORM,
    { .kind = OP_LINEAR,
      .in = ROWS_H,
      .out = ROWS_Q,
      .weight = W_QKV,
      .bias = W_QKV_BIAS,
      .epilogue = EPILOGUE_QKV,
      .q_cols = WIDTH,
      .k_cols = WIDTH,
      .v_cols = WIDTH },
    { .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_A, .scale = 0.125f },
    { .kind = OP_LINEAR,
      .in = ROWS_A,
      .out = ROWS_X,
      .weight = W_PROJ,
      .bias = W_BIAS,
      .epilogue = EPILOGUE_ADD },
    NORM,
    { .kind = OP_LINEAR,
      .in = ROWS_H,
      .out = ROWS_F,
      .weight = W_UP,
      .bias = W_UP_BIAS,
      .epilogue = EPILOGUE_ACTIVATION,
      .activation = CINF_ACTIVATION_GELU_NEW },
    { .kind = OP_LINEAR,
      .in = ROWS_F,
      .out = ROWS_X,
      .weight = W_DOWN,
      .bias = W_BIAS,
      .epilogue = EPILOGUE_ADD },
    NORM,
    { .kind = OP_LOGITS, .in = ROWS_H, .weight = W_TOKENS },
};
static const struct program program = { .ops = ops,
                                        .n_ops = sizeof ops / sizeof *ops,
                                        .specs = specs,
                                        .n_specs = SPECS,
                                        .width = WIDTH,
                                        .inner = INNER,
                                        .heads = HEADS,
                                        .layers = 1,
                                        .vocab = VOCAB,
                                        .positions = POSITIONS };

/* The steps are a prompt, one row, two rows and six rows: one for each kernel that depends on their number.
 * After the second step slot 1 gets a copy of slot 0. */
enum { STEPS = 4, RUNS = 2, COPIED = 21, ROWS_ALL = ROWS_MAX + 1 + 2 + 6, PICKS = 3 };

static const struct {
    uint32_t slot, first, n;
} steps[STEPS][RUNS] = { { { 0, 0, ROWS_MAX }, { 0 } },
                         { { 0, 20, 1 }, { 0 } },
                         { { 0, 21, 1 }, { 1, COPIED, 1 } },
                         { { 0, 22, 1 }, { 1, COPIED + 1, 5 } } };

struct rows {
    int32_t tokens[ROWS_MAX];
    uint32_t positions[ROWS_MAX], slots[ROWS_MAX];
    uint8_t wants[ROWS_MAX];
};

static struct batch batch_of(struct rows *rows, int step, uint8_t wants)
{
    uint32_t n = 0;
    for (int k = 0; k < RUNS; k++) {
        for (uint32_t r = 0; r < steps[step][k].n; r++, n++) {
            rows->tokens[n] = (7 * step + 11 * (int32_t)n) % VOCAB;
            rows->positions[n] = steps[step][k].first + r;
            rows->slots[n] = steps[step][k].slot;
            rows->wants[n] = wants;
        }
    }
    return (struct batch){ n, rows->tokens, rows->positions, rows->slots, rows->wants };
}

/* The program on one of the two devices. */
struct side {
    const struct backend *backend;
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared;
};

/* A pseudo-random number from -1 to 1 that f16 holds exactly. */
static float number(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return (float)((int32_t)(*state >> 24) - 128) / 128;
}

/* `numbers` is room for the largest weight. */
static enum cinf_status start(struct side *s, struct device *device, enum weights_type type, float *numbers)
{
    static const float scales[SPECS] = {
        [W_TOKENS] = 1,      [W_POSITIONS] = 1, [W_GAIN] = 1,   [W_QKV] = 0.25f, [W_PROJ] = 1,
        [W_QKV_BIAS] = 0.5f, [W_BIAS] = 0.5f,   [W_UP] = 0.25f, [W_DOWN] = 1,    [W_UP_BIAS] = 0.5f
    };
    uint32_t state = 1;
    TRY(s->backend->weights_new(&s->weights, device, specs, SPECS, type));
    for (uint32_t w = 0; w < SPECS; w++) {
        uint32_t n = specs[w].rows * specs[w].cols;
        for (uint32_t k = 0; k < n; k++)
            numbers[k] = number(&state) * scales[w];
        TRY(s->backend->weights_write(s->weights, w, 0, specs[w].rows, numbers, CINF_DTYPE_F32));
    }
    for (bool done = false; !done;)
        TRY(s->backend->weights_finish(s->weights, &done));
    TRY(s->backend->kv_new(&s->kv, device, &program, SLOTS));
    return s->backend->prepare(&s->prepared, s->weights, s->kv, &program, ROWS_MAX);
}

/* Runs the last step again and compares what the device picks with that step's logits [rows, VOCAB]. */
static enum cinf_status check_picks(struct side *s, const float *logits)
{
    struct rows rows;
    struct batch batch = batch_of(&rows, STEPS - 1, 1 + PICKS);
    TRY(s->backend->run(s->prepared, &batch));
    for (uint32_t r = 0; r < batch.n_rows; r++, logits += VOCAB) {
        struct top_k picked;
        int32_t best = 0;
        double sum = 0;
        TRY(s->backend->top_k(s->prepared, r, &picked));
        for (int32_t v = 0; v < VOCAB; v++) {
            best = logits[v] > logits[best] ? v : best;
            sum += exp((double)logits[v]);
        }
        if (picked.n != PICKS || picked.ids[0] != best || picked.logits[0] != logits[best] ||
            !(picked.logits[1] >= picked.logits[2]) || !(fabs(picked.log_sum - log(sum)) < 1e-3))
            return cinf_fail(CINF_EDEVICE, "device %s: the best logit of row %u is %d, picked was %d",
                             ((struct opencl_device *)s->weights->device)->name, r, best, picked.ids[0]);
    }
    return CINF_OK;
}

/* Writes logits[ROWS_ALL, VOCAB] of all steps. */
static enum cinf_status run_steps(struct side *s, float *logits)
{
    const float *last = logits;
    for (int i = 0; i < STEPS; i++) {
        struct rows rows;
        struct batch batch = batch_of(&rows, i, 1);
        if (i == 2)
            TRY(s->backend->kv_copy(s->kv, 1, 0, COPIED));
        TRY(s->backend->run(s->prepared, &batch));
        TRY(s->backend->wait(s->prepared));
        last = logits;
        for (uint32_t r = 0; r < batch.n_rows; r++, logits += VOCAB) {
            const float *row;
            TRY(s->backend->logits(s->prepared, r, &row));
            memcpy(logits, row, VOCAB * sizeof *row);
        }
    }
    return s->backend->top_k ? check_picks(s, last) : CINF_OK;
}

static enum cinf_status run_all(float *logits, struct device *device, enum weights_type type, float *numbers)
{
    struct side s = { .backend = device->backend };
    enum cinf_status status = start(&s, device, type, numbers);
    if (status == CINF_OK)
        status = run_steps(&s, logits);
    s.backend->prepared_free(s.prepared);
    s.backend->kv_free(s.kv);
    s.backend->weights_free(s.weights);
    return status;
}

static enum cinf_status compare(const struct opencl_device *device, const float *seen, const float *right)
{
    for (int i = 0; i < STEPS; i++) {
        double error = 0, square = 0;
        const uint32_t rows = steps[i][0].n + steps[i][1].n;
        for (uint32_t v = 0; v < rows * VOCAB; v++, seen++, right++) {
            error += ((double)*right - *seen) * ((double)*right - *seen);
            square += (double)*right * *right;
        }
        if (!(error < 1e-3 * square)) /* true for a NaN too */
            return cinf_fail(CINF_EDEVICE, "device %s: a step of %u rows is wrong by %.2g of its logits",
                             device->name, rows, sqrt(error / square));
    }
    return CINF_OK;
}

enum cinf_status opencl_check(struct opencl_device *device)
{
    enum { NUMBERS = 3 * WIDTH * WIDTH, LOGITS = ROWS_ALL * VOCAB };
    static const enum weights_type types[] = { WEIGHTS_F32, WEIGHTS_F16, WEIGHTS_INT8 };
    struct device *reference;
    float *numbers = mem_new(NUMBERS + 2 * LOGITS, sizeof *numbers);
    if (!numbers)
        return cinf_fail(CINF_ENOMEM, "no memory to check a device");
    float *seen = numbers + NUMBERS, *right = seen + LOGITS;
    enum cinf_status status = backend_cpu_reference.open(&reference, &(struct device_options){ 0 });
    if (status == CINF_OK) {
        status = run_all(right, reference, WEIGHTS_F32, numbers);
        backend_cpu_reference.close(reference);
    }
    uint32_t split_length = device->tuning.split_length;
    device->tuning.split_length = 8; /* so that even these short pasts are cut into pieces */
    for (size_t i = 0; status == CINF_OK && i < sizeof types / sizeof *types; i++) {
        status = run_all(seen, &device->base, types[i], numbers);
        if (status == CINF_OK)
            status = compare(device, seen, right);
    }
    device->tuning.split_length = split_length;
    mem_free(numbers);
    return status;
}
