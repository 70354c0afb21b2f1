/* backend.c - which devices there are, who has them, and the checks every backend begins with. */
#include "backend.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "fail.h"
#include "u128.h"

/* The CPU is one device, whichever backend drives it: two of them at once would each count the same
 * nanoseconds as its own.  Any other is taken by itself. */
static atomic_bool cpu_taken;
enum { FOUND_MAX = 32 };
static atomic_bool found_taken[FOUND_MAX];

/* Fastest first: "auto" takes the first one.  The reference is only for those who name it. */
static const struct choice {
    const struct backend *backend;
    const char *what;
} choices[] = {
    { &backend_cpu_packed, "packed kernels on the CPU" },
#if CINF_HAVE_BLAS
    { &backend_cpu_blas, "OpenBLAS on the CPU" },
#endif
    { &backend_cpu_reference, "plain C on the CPU, slow" },
};
enum { N_CHOICES = sizeof choices / sizeof choices[0] };

#if CINF_HAVE_OPENCL
static const struct backend *const finder = &backend_opencl;
#else
static const struct backend *const finder = NULL;
#endif

/* ---- Lists -------------------------------------------------------------------------------- */

static struct device_info found[FOUND_MAX];
static uint32_t n_found;

static void find_devices(void)
{
    while (finder && n_found < FOUND_MAX && finder->find(n_found, &found[n_found]) == CINF_OK)
        n_found++;
}

const char *device_list(uint32_t index)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (index < N_CHOICES)
        return choices[index].backend->name;
    pthread_once(&once, find_devices);
    return index - N_CHOICES < n_found ? found[index - N_CHOICES].name : NULL;
}

/* `why` there is none of that name, if there is more to say. */
static enum cinf_status fail_not_found(const char *name, const char *why)
{
    char names[DEVICE_REASON_MAX] = "auto";
    for (uint32_t i = 0; device_list(i); i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, ", %s", device_list(i));
    }
    return cinf_fail(CINF_ENOTFOUND, "no device \"%.64s\"%s%s; there is %s", name, *why ? ": " : "", why,
                     names);
}

/* ---- Choice ------------------------------------------------------------------------------- */

/* What is to be opened, and why. */
struct chosen {
    const struct backend *backend;
    atomic_bool *taken;
    const char *which; /* of device_options */
    char why[DEVICE_REASON_MAX];
};

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        if (strncasecmp(text, part, n) == 0)
            return true;
    }
    return false;
}

static void choose_found(struct chosen *out, uint32_t index, struct device_info *info)
{
    out->backend = finder;
    out->taken = info->shares_cpu ? &cpu_taken : &found_taken[index];
    out->which = info->name;
}

/* The GPU with the most memory. */
static bool choose_gpu(struct chosen *out, struct device_info *best)
{
    struct device_info info;
    uint32_t n = 0, at = FOUND_MAX;
    for (; finder && n < FOUND_MAX && finder->find(n, &info) == CINF_OK; n++) {
        if (info.is_gpu && (at == FOUND_MAX || info.memory_total > best->memory_total)) {
            *best = info;
            at = n;
        }
    }
    if (at < FOUND_MAX) {
        choose_found(out, at, best);
        snprintf(out->why, sizeof out->why, "the GPU with the most memory");
        return true;
    }
    if (n > 0)
        snprintf(out->why, sizeof out->why, "; of OpenCL's devices (%u) none is a GPU", n);
    else if (finder)
        snprintf(out->why, sizeof out->why, "; %.120s", cinf_last_error());
    return false;
}

static void choose_fastest_cpu(struct chosen *out)
{
    char aside[DEVICE_REASON_MAX];
    snprintf(aside, sizeof aside, "%s", out->why);
    out->backend = choices[0].backend;
    out->taken = &cpu_taken;
    out->which = NULL;
    snprintf(out->why, sizeof out->why, "the fastest CPU device of this build%.180s", aside);
}

static enum cinf_status choose_named(struct chosen *out, struct device_info *info, const char *name)
{
    snprintf(out->why, sizeof out->why, "asked for by name");
    for (uint32_t i = 0; i < N_CHOICES; i++) {
        if (strcmp(name, choices[i].backend->name) == 0) {
            out->backend = choices[i].backend;
            out->taken = &cpu_taken;
            return CINF_OK;
        }
    }
    if (!finder || !*name)
        return fail_not_found(name, "");
    bool any = strcmp(name, finder->name) == 0;
    if (any && choose_gpu(out, info))
        return CINF_OK;
    snprintf(out->why, sizeof out->why, "asked for by name");
    for (uint32_t i = 0; i < FOUND_MAX && finder->find(i, info) == CINF_OK; i++) {
        if (any || strcmp(name, info->name) == 0) {
            choose_found(out, i, info);
            return CINF_OK;
        }
    }
    if (any) {
        char why[DEVICE_REASON_MAX];
        snprintf(why, sizeof why, "%s", cinf_last_error());
        return fail_not_found(name, why);
    }
    for (uint32_t i = 0; i < FOUND_MAX && finder->find(i, info) == CINF_OK; i++) {
        if (contains(info->name, name) || contains(info->description, name)) {
            choose_found(out, i, info);
            return CINF_OK;
        }
    }
    return fail_not_found(name, "");
}

static const char *what_of(const struct backend *backend, const struct device_info *info)
{
    for (uint32_t i = 0; i < N_CHOICES; i++) {
        if (choices[i].backend == backend)
            return choices[i].what;
    }
    return info->description;
}

static enum cinf_status open_chosen(struct device **out, const struct chosen *chosen,
                                    const struct device_options *options, char reason[DEVICE_REASON_MAX])
{
    if (atomic_exchange(chosen->taken, true))
        return cinf_fail(CINF_EBUSY, "device %s: %s belongs to another engine of this process",
                         chosen->which ? chosen->which : chosen->backend->name,
                         chosen->taken == &cpu_taken ? "the CPU" : "it");
    struct device *device;
    struct device_options its = *options;
    its.which = chosen->which;
    enum cinf_status status = chosen->backend->open(&device, &its);
    if (status != CINF_OK) {
        atomic_store(chosen->taken, false);
        return status;
    }
    struct device_info info;
    chosen->backend->info(device, &info);
    if (options->half_cache && !info.half_cache) {
        chosen->backend->close(device);
        atomic_store(chosen->taken, false);
        return cinf_fail(CINF_EUNSUPPORTED, "device %s keeps keys and values as f32, not as f16", info.name);
    }
    device->taken = chosen->taken;
    if (reason) {
        int used = snprintf(reason, DEVICE_REASON_MAX, "%s (%.75s): %.145s", info.name,
                            what_of(chosen->backend, &info), chosen->why);
        bool cut = used >= DEVICE_REASON_MAX;
        if (!cut && options->threads != 0 && options->threads != info.threads)
            snprintf(reason + used, DEVICE_REASON_MAX - (size_t)used, "; it runs %u threads, not %u",
                     info.threads, options->threads);
    }
    *out = device;
    return CINF_OK;
}

enum cinf_status device_open(struct device **out, const char *name, const struct device_options *options,
                             char reason[DEVICE_REASON_MAX])
{
    static const struct device_options defaults;
    struct chosen chosen = { 0 };
    struct device_info info;
    options = options ? options : &defaults;
    if (name && strcmp(name, "auto") != 0) {
        TRY(choose_named(&chosen, &info, name));
        return open_chosen(out, &chosen, options, reason);
    }
    if (choose_gpu(&chosen, &info)) {
        enum cinf_status status = open_chosen(out, &chosen, options, reason);
        if (status == CINF_OK || status == CINF_EBUSY || status == CINF_EUNSUPPORTED)
            return status;
        snprintf(chosen.why, sizeof chosen.why, "; the GPU cannot be used: %.120s", cinf_last_error());
    }
    choose_fastest_cpu(&chosen);
    return open_chosen(out, &chosen, options, reason);
}

void device_close(struct device *device)
{
    if (!device)
        return;
    atomic_bool *taken = device->taken;
    device->backend->close(device);
    atomic_store(taken, false);
}

uint64_t attoseconds_each(uint64_t ns, uint64_t n)
{
    u128 each = (u128)ns * 1000000000 / n;
    return each == 0 ? 1 : each < UINT64_MAX ? (uint64_t)each : UINT64_MAX;
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
        if (b->wants_logits[r] > 1 + PICK_MAX)
            return cinf_fail(CINF_EINVAL, "row %u: the %u best logits, of at most %u", r,
                             b->wants_logits[r] - 1u, PICK_MAX);
        if (r > 0 && b->slots[r] == b->slots[r - 1] && b->positions[r] != b->positions[r - 1] + 1)
            return cinf_fail(CINF_EINVAL, "row %u: position %u follows %u in slot %u", r, b->positions[r],
                             b->positions[r - 1], b->slots[r]);
    }
    return CINF_OK;
}

enum cinf_status specs_check(const struct weight_spec *specs, uint32_t n_specs)
{
    for (uint32_t i = 0; i < n_specs; i++) {
        if (specs[i].rows == 0 || specs[i].cols == 0 ||
            (specs[i].role == WEIGHT_VECTOR && specs[i].rows != 1))
            return cinf_fail(CINF_EINVAL, "weight %u is %u x %u", i, specs[i].rows, specs[i].cols);
    }
    return CINF_OK;
}

enum cinf_status write_check(const struct weight_spec *specs, uint32_t n_specs, uint32_t index,
                             uint32_t first, uint32_t n, enum cinf_dtype dtype)
{
    if (index >= n_specs)
        return cinf_fail(CINF_EINVAL, "weight %u of %u", index, n_specs);
    if (first > specs[index].rows || n > specs[index].rows - first)
        return cinf_fail(CINF_EINVAL, "weight %u: rows %u to %" PRIu64 " of %u", index, first,
                         (uint64_t)first + n, specs[index].rows);
    if (dtype >= CINF_DTYPE_OTHER)
        return cinf_fail(CINF_EUNSUPPORTED, "weight %u: elements are not of a floating-point type", index);
    return CINF_OK;
}

enum cinf_status prepare_check(const struct program *program, const struct weight_spec *specs,
                               uint32_t n_specs, uint32_t rows_max)
{
    TRY(program_check(program));
    if (rows_max == 0 || rows_max > 1u << 20)
        return cinf_fail(CINF_EINVAL, "steps of at most %u rows", rows_max);
    bool fits = n_specs == program->n_specs;
    for (uint32_t i = 0; i < n_specs && fits; i++) {
        const struct weight_spec *a = &specs[i], *b = &program->specs[i];
        fits = a->role == b->role && a->rows == b->rows && a->cols == b->cols;
    }
    return fits ? CINF_OK : cinf_fail(CINF_EINVAL, "the program is made for other weights");
}

enum cinf_status copy_check(uint32_t slots, uint32_t positions, uint32_t to, uint32_t from, uint32_t n)
{
    if (to >= slots || from >= slots || n > positions)
        return cinf_fail(CINF_EINVAL,
                         "copy of %u positions from slot %u to slot %u of %u slots x %u positions", n, from,
                         to, slots, positions);
    return CINF_OK;
}

void weights_sum_add(struct weights_sum *sum, enum weight_role role, uint64_t bytes)
{
    switch (role) {
    case WEIGHT_TABLE: /* a row of it, which is nothing */
        break;
    case WEIGHT_TOKENS:
        sum->tokens += bytes;
        break;
    case WEIGHT_HEAD:
        sum->head += bytes;
        break;
    case WEIGHT_MATRIX:
    case WEIGHT_VECTOR:
        sum->layers += bytes;
        break;
    }
}

/* Tokens are read as a head, or a row of them. */
uint64_t weights_sum_read(const struct weights_sum *sum)
{
    return sum->layers + (sum->head ? sum->head : sum->tokens);
}
