/* opencl_check.c - whether the kernels of a device compute what they should there.
 *
 * Drivers have bugs, and kernels that no one has run on this hardware have too.  One small layer of GPT-2
 * runs on the device and on the CPU reference, in steps that use every kernel of the device's variant; what
 * differs by more than rounding is wrong. */
#include <math.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "opencl_device.h"

enum { WIDTH = 128, HEADS = 2, INNER = 96, VOCAB = 80, POSITIONS = 64, SLOTS = 2, ROWS_MAX = 20 };

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
      .epilogue = EPILOGUE_QKV },
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

/* The program on one device. */
struct side {
    const struct backend *backend;
    struct device *device;
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared;
};

/* Numbers of -1 to 1 that f16 holds exactly. */
static float number(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return (float)((int32_t)(*state >> 24) - 128) / 128;
}

/* `numbers` is room for the largest weight. */
static enum cinf_status start(struct side *s, enum weights_type type, float *numbers)
{
    static const float scales[SPECS] = {
        [W_TOKENS] = 1,      [W_POSITIONS] = 1, [W_GAIN] = 1,   [W_QKV] = 0.25f, [W_PROJ] = 1,
        [W_QKV_BIAS] = 0.5f, [W_BIAS] = 0.5f,   [W_UP] = 0.25f, [W_DOWN] = 1,    [W_UP_BIAS] = 0.5f
    };
    uint32_t state = 1;
    TRY(s->backend->weights_new(&s->weights, s->device, specs, SPECS, type));
    for (uint32_t w = 0; w < SPECS; w++) {
        uint32_t n = specs[w].rows * specs[w].cols;
        for (uint32_t k = 0; k < n; k++)
            numbers[k] = number(&state) * scales[w];
        TRY(s->backend->weights_write(s->weights, w, 0, specs[w].rows, numbers, CINF_DTYPE_F32));
    }
    for (bool done = false; !done;)
        TRY(s->backend->weights_finish(s->weights, &done));
    TRY(s->backend->kv_new(&s->kv, s->device, &program, SLOTS));
    return s->backend->prepare(&s->prepared, s->weights, s->kv, &program, ROWS_MAX);
}

static void stop(struct side *s)
{
    s->backend->prepared_free(s->prepared);
    s->backend->kv_free(s->kv);
    s->backend->weights_free(s->weights);
}

static enum cinf_status compare_step(struct side *seen, struct side *true_side, const struct batch *batch)
{
    double error = 0, square = 0;
    struct side *const sides[] = { true_side, seen };
    for (int i = 0; i < 2; i++) {
        TRY(sides[i]->backend->run(sides[i]->prepared, batch));
        TRY(sides[i]->backend->wait(sides[i]->prepared));
    }
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        const float *a, *b;
        TRY(true_side->backend->logits(true_side->prepared, r, &a));
        TRY(seen->backend->logits(seen->prepared, r, &b));
        for (uint32_t v = 0; v < VOCAB; v++) {
            error += ((double)a[v] - b[v]) * ((double)a[v] - b[v]);
            square += (double)a[v] * a[v];
        }
    }
    if (!(error < 1e-3 * square)) /* nor is a NaN right */
        return cinf_fail(CINF_EDEVICE, "device %s: a step of %u rows is wrong by %.2g of its logits",
                         ((struct opencl_device *)seen->device)->name, batch->n_rows, sqrt(error / square));
    return CINF_OK;
}

/* A prompt, one row, two, six: as many as have kernels of their own. */
static enum cinf_status compare(struct side *seen, struct side *true_side)
{
    static const struct {
        uint32_t slot, first, n;
    } runs[][2] = { { { 0, 0, ROWS_MAX }, { 0 } },
                    { { 0, 20, 1 }, { 0 } },
                    { { 0, 21, 1 }, { 1, 0, 1 } },
                    { { 0, 22, 1 }, { 1, 1, 5 } } };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        int32_t tokens[ROWS_MAX];
        uint32_t positions[ROWS_MAX], slots[ROWS_MAX], n = 0;
        uint8_t wants[ROWS_MAX];
        for (int k = 0; k < 2; k++) {
            for (uint32_t r = 0; r < runs[i][k].n; r++, n++) {
                tokens[n] = (int32_t)((7 * i + 11 * n) % VOCAB);
                positions[n] = runs[i][k].first + r;
                slots[n] = runs[i][k].slot;
                wants[n] = 1;
            }
        }
        TRY(compare_step(seen, true_side, &(struct batch){ n, tokens, positions, slots, wants }));
    }
    return CINF_OK;
}

static enum cinf_status check_type(struct opencl_device *device, struct device *reference,
                                   enum weights_type type)
{
    struct side seen = { .backend = &backend_opencl, .device = &device->base };
    struct side true_side = { .backend = &backend_cpu_reference, .device = reference };
    float *numbers = mem_new(3 * WIDTH * WIDTH, sizeof *numbers);
    if (!numbers)
        return cinf_fail(CINF_ENOMEM, "no memory to check a device");
    enum cinf_status status = start(&true_side, WEIGHTS_F32, numbers);
    if (status == CINF_OK)
        status = start(&seen, type, numbers);
    if (status == CINF_OK)
        status = compare(&seen, &true_side);
    stop(&seen);
    stop(&true_side);
    mem_free(numbers);
    return status;
}

enum cinf_status opencl_check(struct opencl_device *device)
{
    static const enum weights_type types[] = { WEIGHTS_F32, WEIGHTS_F16, WEIGHTS_INT8 };
    struct device *reference;
    TRY(backend_cpu_reference.open(&reference, &(struct device_options){ 0 }));
    uint32_t split_length = device->tuning.split_length;
    device->tuning.split_length = 8; /* so that pasts as short as these come in pieces */
    enum cinf_status status = CINF_OK;
    for (size_t i = 0; status == CINF_OK && i < sizeof types / sizeof *types; i++)
        status = check_type(device, reference, types[i]);
    device->tuning.split_length = split_length;
    backend_cpu_reference.close(reference);
    return status;
}
