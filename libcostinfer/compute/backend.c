/* backend.c - which devices there are, who has them, and the checks every backend begins with. */
#include "backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"

/* The CPU is one device, whichever backend drives it: two of them at once would each count the same
 * nanoseconds as its own. */
static atomic_bool cpu_taken;

/* Fastest first: "auto" takes the first one.  The reference is only for those who name it. */
static const struct choice {
    const struct backend *backend;
    atomic_bool *taken;
    const char *what;
} choices[] = {
    { &backend_cpu_packed, &cpu_taken, "packed kernels on the CPU" },
#if CINF_HAVE_BLAS
    { &backend_cpu_blas, &cpu_taken, "OpenBLAS on the CPU" },
#endif
    { &backend_cpu_reference, &cpu_taken, "plain C on the CPU, slow" },
};
enum { N_CHOICES = sizeof choices / sizeof choices[0] };

const char *device_list(uint32_t index)
{
    return index < N_CHOICES ? choices[index].backend->name : NULL;
}

static enum cinf_status fail_not_found(const char *name)
{
    char names[DEVICE_REASON_MAX] = "auto";
    for (uint32_t i = 0; i < N_CHOICES; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, ", %s", choices[i].backend->name);
    }
    return cinf_fail(CINF_ENOTFOUND, "no device \"%.64s\"; this build has %s", name, names);
}

enum cinf_status device_open(struct device **out, const char *name, const struct device_options *options,
                             char reason[DEVICE_REASON_MAX])
{
    static const struct device_options defaults;
    const struct choice *choice = NULL;
    bool best = !name || strcmp(name, "auto") == 0;
    if (!name)
        name = "auto";
    if (!options)
        options = &defaults;
    for (uint32_t i = 0; i < N_CHOICES && !choice; i++) {
        if (best || strcmp(name, choices[i].backend->name) == 0)
            choice = &choices[i];
    }
    if (!choice)
        return fail_not_found(name);

    if (atomic_exchange(choice->taken, true))
        return cinf_fail(CINF_EBUSY, "device %s: the CPU belongs to another engine of this process",
                         choice->backend->name);
    struct device *device;
    enum cinf_status status = choice->backend->open(&device, options);
    if (status != CINF_OK) {
        atomic_store(choice->taken, false);
        return status;
    }

    struct device_info info;
    choice->backend->info(device, &info);
    if (reason) {
        int used = snprintf(reason, DEVICE_REASON_MAX, "%s (%s): %s", info.name, choice->what,
                            best ? "the fastest CPU device of this build" : "asked for by name");
        if (options->threads != 0 && options->threads != info.threads)
            snprintf(reason + used, DEVICE_REASON_MAX - (size_t)used, "; it runs %u threads, not %u",
                     info.threads, options->threads);
    }
    *out = device;
    return CINF_OK;
}

void device_close(struct device *device)
{
    if (!device)
        return;
    const struct backend *backend = device->backend;
    backend->close(device);
    for (uint32_t i = 0; i < N_CHOICES; i++) {
        if (choices[i].backend == backend)
            atomic_store(choices[i].taken, false);
    }
}

/* ---- Checks ------------------------------------------------------------------------------- */

uint32_t row_width(const struct program *program, enum row_buffer buffer)
{
    return buffer == ROWS_F ? program->inner : program->width;
}

static bool has_spec(const struct program *p, uint32_t index, enum weight_role role, uint32_t rows,
                     uint32_t cols)
{
    return index < p->n_specs && p->specs[index].role == role && p->specs[index].rows == rows &&
           p->specs[index].cols == cols;
}

/* What is wrong with an operation, or NULL. */
static const char *op_fault(const struct program *p, const struct op *op, bool last)
{
    uint32_t d = p->width;
    uint32_t in, cols;
    if (op->kind == OP_LOGITS) {
        if (!last)
            return "logits are not the last operation";
        if (op->in >= ROWS_COUNT)
            return "no such row buffer";
        in = row_width(p, op->in);
        if (!has_spec(p, op->weight, WEIGHT_HEAD, p->vocab, in) &&
            !has_spec(p, op->weight, WEIGHT_TOKENS, p->vocab, in))
            return "the head is not [V, D]";
        return NULL;
    }
    if (op->out >= ROWS_COUNT || (op->kind != OP_EMBED && op->in >= ROWS_COUNT))
        return "no such row buffer";
    switch (op->kind) {
    case OP_EMBED:
        if (!has_spec(p, op->weight, WEIGHT_TOKENS, p->vocab, d))
            return "the token embeddings are not [V, D]";
        if (!has_spec(p, op->weight2, WEIGHT_TABLE, p->positions, d))
            return "the position embeddings are not [P, D]";
        return op->out == ROWS_F ? "embeddings go to a buffer of width D" : NULL;
    case OP_NORM:
        if (op->in == ROWS_F || op->out == ROWS_F)
            return "norm works on buffers of width D";
        if (!has_spec(p, op->weight, WEIGHT_VECTOR, 1, d) || !has_spec(p, op->bias, WEIGHT_VECTOR, 1, d))
            return "gain and bias are not [D]";
        return NULL;
    case OP_LINEAR:
        cols = op->epilogue == EPILOGUE_QKV ? 3 * d : row_width(p, op->out);
        if (op->in == op->out)
            return "a product cannot overwrite its input";
        if (!has_spec(p, op->weight, WEIGHT_MATRIX, row_width(p, op->in), cols))
            return "the matrix does not fit its input and output";
        if (!has_spec(p, op->bias, WEIGHT_VECTOR, 1, cols))
            return "the bias does not fit the output";
        if (op->epilogue == EPILOGUE_QKV && (op->layer >= p->layers || op->out == ROWS_F))
            return "queries, keys and values have no place to go";
        return NULL;
    case OP_ATTEND:
        if (op->in == op->out || op->in == ROWS_F || op->out == ROWS_F)
            return "attention goes from one buffer of width D to another";
        return op->layer >= p->layers ? "no such layer" : NULL;
    default:
        return "no such operation";
    }
}

enum cinf_status program_check(const struct program *p)
{
    /* Three times a width and every count must fit BLAS's int. */
    const uint32_t max = INT32_MAX / 4;
    if (p->width == 0 || p->width > max || p->inner == 0 || p->inner > max || p->vocab == 0 ||
        p->vocab > max || p->positions == 0 || p->positions > max || p->layers == 0)
        return cinf_fail(CINF_EINVAL,
                         "a program of width %u, inner width %u, vocabulary %u, %u positions, %u layers",
                         p->width, p->inner, p->vocab, p->positions, p->layers);
    if (p->heads == 0 || p->width % p->heads != 0)
        return cinf_fail(CINF_EINVAL, "width %u does not divide into %u heads", p->width, p->heads);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const char *fault = op_fault(p, &p->ops[i], i + 1 == p->n_ops);
        if (fault)
            return cinf_fail(CINF_EINVAL, "operation %u of the program: %s", i, fault);
    }
    return CINF_OK;
}

enum cinf_status batch_check(const struct batch *b, const struct program *p, uint32_t rows_max,
                             uint32_t slots)
{
    if (b->n_rows == 0 || b->n_rows > rows_max)
        return cinf_fail(CINF_EINVAL, "a step of %u rows, 1 to %u are possible", b->n_rows, rows_max);
    for (uint32_t r = 0; r < b->n_rows; r++) {
        if (b->tokens[r] < 0 || (uint32_t)b->tokens[r] >= p->vocab)
            return cinf_fail(CINF_EINVAL, "row %u: token %d of a vocabulary of %u", r, b->tokens[r],
                             p->vocab);
        if (b->positions[r] >= p->positions)
            return cinf_fail(CINF_EINVAL, "row %u: position %u of %u", r, b->positions[r], p->positions);
        if (b->slots[r] >= slots)
            return cinf_fail(CINF_EINVAL, "row %u: slot %u of %u", r, b->slots[r], slots);
        if (r > 0 && b->slots[r] == b->slots[r - 1] && b->positions[r] != b->positions[r - 1] + 1)
            return cinf_fail(CINF_EINVAL, "row %u: position %u follows %u in slot %u", r, b->positions[r],
                             b->positions[r - 1], b->slots[r]);
    }
    return CINF_OK;
}
