#include "cpu_memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "half.h"
#include "mem.h"

/* ---- Memory ------------------------------------------------------------------------------- */

enum { ALIGN = 64 };

/* Stands right before a block. */
struct block {
    void *start;
    uint64_t bytes; /* in all */
};

void *cpu_new(struct cpu_device *device, size_t n, size_t size)
{
    size_t bytes;
    if (!mul_size(&bytes, n, size) || bytes > SIZE_MAX - 2 * ALIGN)
        return NULL;
    /* calloc() and not an aligned allocation plus memset(), which would touch every page of a cache that
     * may never fill up.  No wish for huge pages either: reading them is 3 to 22 % faster, but where memory
     * is fragmented the kernel makes them inside the page fault (500 MB: 1.8 s instead of 0.4), in a load
     * that shares its thread with everybody's steps. */
    bytes += 2 * ALIGN;
    char *start = mem_new(1, bytes);
    if (!start)
        return NULL;
    char *block = start + ALIGN + (ALIGN - (uintptr_t)start % ALIGN) % ALIGN;
    struct block head = { start, bytes };
    memcpy(block - sizeof head, &head, sizeof head);
    atomic_fetch_add(&device->memory_used, bytes);
    return block;
}

void cpu_free(struct cpu_device *device, void *block)
{
    if (!block)
        return;
    struct block head;
    memcpy(&head, (char *)block - sizeof head, sizeof head);
    atomic_fetch_sub(&device->memory_used, head.bytes);
    mem_free(head.start);
}

/* The kernel is asked first: glibc 2.36 gives some AMD processors the caches of the whole socket, twelve
 * times what one core has, and to touch 256 MiB more takes as long as all else that opens an engine. */
size_t cpu_measured_bytes(void)
{
    const size_t least = (size_t)64 << 20;
    size_t cache = 0;
    FILE *f = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "re");
    if (f) {
        if (fscanf(f, "%zuK", &cache) != 1)
            cache = 0;
        fclose(f);
        cache <<= 10;
    }
#ifdef _SC_LEVEL3_CACHE_SIZE
    long said = cache ? 0 : sysconf(_SC_LEVEL3_CACHE_SIZE);
    cache = said > 0 ? (size_t)said : cache;
#endif
    return cache <= least / 2 ? least : cache <= 2 * least ? 2 * cache : 4 * least;
}

/* ---- Device ------------------------------------------------------------------------------- */

/* RAM, or less where the process lives in a container with a limit. */
static uint64_t memory_of_machine(void)
{
    static const char *const limits[] = { "/sys/fs/cgroup/memory.max",
                                          "/sys/fs/cgroup/memory/memory.limit_in_bytes" };
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t total = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        FILE *f = fopen(limits[i], "r");
        uint64_t limit;
        if (f && fscanf(f, "%" SCNu64, &limit) == 1 && limit > 0 && limit < total)
            total = limit;
        if (f)
            fclose(f);
    }
    return total;
}

static void name_of_processor(char *out, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, size, "CPU");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
            break;
        }
    }
    if (f)
        fclose(f);
}

enum cinf_status cpu_device_open(struct device **out, const struct backend *backend, const char *library,
                                 uint32_t threads)
{
    struct cpu_device *device = mem_new(1, sizeof *device);
    if (!device)
        return cinf_fail(CINF_ENOMEM, "no memory for device %s", backend->name);
    device->base.backend = backend;
    device->memory_total = memory_of_machine();
    device->threads = threads;
    char processor[64];
    name_of_processor(processor, sizeof processor);
    snprintf(device->description, sizeof device->description, "%s, %.60s, %u thread%s", processor, library,
             threads, threads == 1 ? "" : "s");
    *out = &device->base;
    return CINF_OK;
}

void cpu_device_close(struct device *device)
{
    mem_free(device);
}

void cpu_device_info(const struct device *base, struct device_info *out)
{
    const struct cpu_device *device = (const struct cpu_device *)base;
    *out = (struct device_info){ .threads = device->threads,
                                 .memory_total = device->memory_total,
                                 .memory_used = atomic_load(&device->memory_used) };
    snprintf(out->name, sizeof out->name, "%s", base->backend->name);
    snprintf(out->description, sizeof out->description, "%s", device->description);
}

uint64_t cpu_median(uint64_t *samples, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        for (uint32_t j = i; j > 0 && samples[j] < samples[j - 1]; j--) {
            uint64_t smaller = samples[j];
            samples[j] = samples[j - 1];
            samples[j - 1] = smaller;
        }
    }
    return samples[n / 2];
}

/* ---- Weights ------------------------------------------------------------------------------ */

static const char *const type_names[] = { "f32", "f16", "bf16", "int8", "int4" };

enum cinf_status cpu_weights_new(struct weights **out, struct device *base, const struct weight_spec *specs,
                                 uint32_t n_specs, enum weights_type type)
{
    struct cpu_device *device = (struct cpu_device *)base;
    uint64_t n_elements = 0;
    if (type != WEIGHTS_F32)
        return cinf_fail(CINF_EUNSUPPORTED, "device %s keeps weights as f32, not as %s", base->backend->name,
                         type_names[type]);
    TRY(specs_check(specs, n_specs));
    for (uint32_t i = 0; i < n_specs; i++) {
        uint64_t n = (uint64_t)specs[i].rows * specs[i].cols;
        /* Each begins at a multiple of 64 bytes. */
        if (n > SIZE_MAX / 8 || !add_u64(&n_elements, n_elements, (n + 15) / 16 * 16))
            return cinf_fail(CINF_ENOMEM, "weight %u is %u x %u: too large", i, specs[i].rows, specs[i].cols);
    }

    struct cpu_weights *w = cpu_new(device, 1, sizeof *w);
    if (w) {
        w->base.device = base;
        w->n_specs = n_specs;
        w->specs = cpu_new(device, n_specs, sizeof *w->specs);
        w->matrices = cpu_new(device, n_specs, sizeof *w->matrices);
        w->elements = cpu_new(device, n_elements, sizeof *w->elements);
    }
    if (!w || !w->specs || !w->matrices || !w->elements) {
        cpu_weights_free((struct weights *)w);
        return cinf_fail(CINF_ENOMEM, "no memory for %" PRIu64 " weights in f32", n_elements);
    }
    float *next = w->elements;
    for (uint32_t i = 0; i < n_specs; i++) {
        w->specs[i] = specs[i];
        w->matrices[i] = next;
        next += ((size_t)specs[i].rows * specs[i].cols + 15) / 16 * 16;
    }
    *out = &w->base;
    return CINF_OK;
}

void cpu_weights_free(struct weights *weights)
{
    if (!weights)
        return;
    struct cpu_weights *w = (struct cpu_weights *)weights;
    struct cpu_device *device = (struct cpu_device *)w->base.device;
    cpu_free(device, w->elements);
    cpu_free(device, w->matrices);
    cpu_free(device, w->specs);
    cpu_free(device, w);
}

/* Elements lie in files at any address, hence memcpy(). */
static void from_f16(float *to, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        to[i] = f32_of_f16(bits);
    }
}

static void from_bf16(float *to, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        to[i] = f32_of_bf16(bits);
    }
}

/* Returns the index of the first finite number that is too large for float32, or n. */
static size_t from_f64(float *to, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, from + 8 * i, sizeof value);
        to[i] = (float)value;
        if (isinf(to[i]) && !isinf(value))
            return i;
    }
    return n;
}

enum cinf_status cpu_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                   const void *elements, enum cinf_dtype dtype)
{
    struct cpu_weights *w = (struct cpu_weights *)weights;
    TRY(write_check(w->specs, w->n_specs, index, first, n, dtype));
    uint32_t cols = w->specs[index].cols;
    float *to = w->matrices[index] + (size_t)first * cols;
    size_t count = (size_t)n * cols, bad;
    switch (dtype) {
    case CINF_DTYPE_F32:
        if (count > 0)
            memcpy(to, elements, count * sizeof *to);
        return CINF_OK;
    case CINF_DTYPE_F16:
        from_f16(to, elements, count);
        return CINF_OK;
    case CINF_DTYPE_BF16:
        from_bf16(to, elements, count);
        return CINF_OK;
    default: /* CINF_DTYPE_F64 */
        bad = from_f64(to, elements, count);
        if (bad < count) {
            double value;
            memcpy(&value, (const char *)elements + 8 * bad, sizeof value);
            return cinf_fail(CINF_EUNSUPPORTED,
                             "weight %u holds %g in row %zu, column %zu: too large for f32", index, value,
                             first + bad / cols, bad % cols);
        }
        return CINF_OK;
    }
}

enum cinf_status cpu_weights_finish(struct weights *weights, bool *done)
{
    (void)weights;
    *done = true;
    return CINF_OK;
}

uint64_t cpu_weights_bytes(const struct weights *weights)
{
    const struct cpu_weights *w = (const struct cpu_weights *)weights;
    struct weights_sum sum = { 0 };
    for (uint32_t i = 0; i < w->n_specs; i++)
        weights_sum_add(&sum, w->specs[i].role,
                        (uint64_t)w->specs[i].rows * w->specs[i].cols * sizeof(float));
    return weights_sum_read(&sum);
}

/* ---- The cache ---------------------------------------------------------------------------- */

/* Floats of one slot; UINT64_MAX when they cannot be counted. */
static uint64_t slot_elements(const struct program *p)
{
    uint64_t n = 2 * (uint64_t)p->positions;
    if (!mul_u64(&n, n, p->width) || !mul_u64(&n, n, p->layers))
        return UINT64_MAX;
    return n;
}

uint64_t cpu_kv_slot_bytes(const struct device *device, const struct program *program)
{
    (void)device;
    uint64_t n = slot_elements(program);
    return n > UINT64_MAX / sizeof(float) ? UINT64_MAX : n * sizeof(float);
}

enum cinf_status cpu_kv_new(struct kv **out, struct device *base, const struct program *program,
                            uint32_t slots)
{
    struct cpu_device *device = (struct cpu_device *)base;
    TRY(program_check(program));
    uint64_t n = slot_elements(program);
    bool fits = mul_u64(&n, n, slots) && n <= SIZE_MAX / sizeof(float);
    struct cpu_kv *kv = cpu_new(device, 1, sizeof *kv);
    if (kv) {
        kv->base.device = base;
        kv->slots = slots;
        kv->layers = program->layers;
        kv->heads = program->heads;
        kv->positions = program->positions;
        kv->head_width = program->width / program->heads;
        kv->elements = fits ? cpu_new(device, n, sizeof(float)) : NULL;
    }
    if (!kv || !kv->elements) {
        cpu_kv_free((struct kv *)kv);
        return cinf_fail(CINF_ENOMEM, "no memory for a cache of %u slots of %" PRIu64 " bytes", slots,
                         cpu_kv_slot_bytes(base, program));
    }
    *out = &kv->base;
    return CINF_OK;
}

void cpu_kv_free(struct kv *base)
{
    if (!base)
        return;
    struct cpu_kv *kv = (struct cpu_kv *)base;
    struct cpu_device *device = (struct cpu_device *)kv->base.device;
    cpu_free(device, kv->elements);
    cpu_free(device, kv);
}

float *cpu_keys(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    size_t matrix = (((size_t)slot * kv->layers + layer) * 2) * kv->heads + head;
    return kv->elements + matrix * kv->positions * kv->head_width;
}

float *cpu_values(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    return cpu_keys(kv, slot, layer, head + kv->heads);
}

enum cinf_status cpu_kv_copy(struct kv *base, uint32_t to, uint32_t from, uint32_t n)
{
    struct cpu_kv *kv = (struct cpu_kv *)base;
    TRY(copy_check(kv->slots, kv->positions, to, from, n));
    if (to == from)
        return CINF_OK;
    for (uint32_t layer = 0; layer < kv->layers; layer++) {
        for (uint32_t h = 0; h < 2 * kv->heads; h++) /* keys, then values */
            memcpy(cpu_keys(kv, to, layer, h), cpu_keys(kv, from, layer, h),
                   (size_t)n * kv->head_width * sizeof(float));
    }
    return CINF_OK;
}

/* ---- Prepared programs -------------------------------------------------------------------- */

static bool fits_cache(const struct cpu_kv *kv, const struct program *p)
{
    return kv->layers == p->layers && kv->heads == p->heads && kv->positions == p->positions &&
           kv->head_width == p->width / p->heads;
}

enum cinf_status cpu_prepared_new(struct prepared **out, struct weights *weights, struct kv *kv,
                                  const struct program *program, uint32_t rows_max, uint64_t scratch_bytes)
{
    struct cpu_device *device = (struct cpu_device *)weights->device;
    const struct cpu_weights *its = (const struct cpu_weights *)weights;
    TRY(prepare_check(program, its->specs, its->n_specs, rows_max));
    if (!fits_cache((struct cpu_kv *)kv, program))
        return cinf_fail(CINF_EINVAL, "the program is made for a cache of another shape");

    struct cpu_prepared *p = cpu_new(device, 1, sizeof *p);
    bool complete = p != NULL;
    if (p) {
        p->base.device = weights->device;
        p->weights = (struct cpu_weights *)weights;
        p->kv = (struct cpu_kv *)kv;
        p->program = program;
        p->rows_max = rows_max;
        for (int b = 0; b < ROWS_COUNT; b++) {
            p->rows[b] =
                cpu_new(device, (size_t)rows_max * row_width(program, (enum row_buffer)b), sizeof(float));
            complete = complete && p->rows[b];
        }
        p->logits = cpu_new(device, (size_t)rows_max * program->vocab, sizeof(float));
        p->scratch = cpu_new(device, scratch_bytes, 1);
        complete = complete && p->logits && p->scratch;
    }
    if (!complete) {
        cpu_prepared_free((struct prepared *)p);
        return cinf_fail(CINF_ENOMEM, "no memory for steps of %u rows of width %u and logits of %u tokens",
                         rows_max, program->width, program->vocab);
    }
    *out = &p->base;
    return CINF_OK;
}

void cpu_prepared_free(struct prepared *base)
{
    if (!base)
        return;
    struct cpu_prepared *p = (struct cpu_prepared *)base;
    struct cpu_device *device = (struct cpu_device *)p->base.device;
    cpu_free(device, p->scratch);
    cpu_free(device, p->logits);
    for (int b = 0; b < ROWS_COUNT; b++)
        cpu_free(device, p->rows[b]);
    cpu_free(device, p);
}

/* out[R,D] = tokens[token] + positions[position] */
static void embed(const struct cpu_prepared *p, const struct op *op, const struct batch *batch)
{
    size_t d = p->program->width;
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        const float *token = p->weights->matrices[op->weight] + (size_t)batch->tokens[r] * d;
        const float *position = p->weights->matrices[op->weight2] + batch->positions[r] * d;
        float *out = p->rows[op->out] + r * d;
        for (size_t i = 0; i < d; i++)
            out[i] = token[i] + position[i];
    }
}

enum cinf_status cpu_run(struct prepared *prepared, const struct batch *batch, const struct cpu_ops *ops)
{
    struct cpu_prepared *p = (struct cpu_prepared *)prepared;
    p->n_logits = 0;
    TRY(batch_check(batch, p->program, p->rows_max, p->kv->slots));
    for (uint32_t i = 0; i < p->program->n_ops; i++) {
        const struct op *op = &p->program->ops[i];
        switch (op->kind) {
        case OP_EMBED:
            embed(p, op, batch);
            break;
        case OP_NORM:
            ops->norm(p, op, batch);
            break;
        case OP_LINEAR:
            ops->linear(p, op, batch);
            break;
        case OP_ATTEND:
            ops->attend(p, op, batch);
            break;
        case OP_LOGITS:
            ops->logits(p, op, batch);
            break;
        }
    }
    return CINF_OK;
}

enum cinf_status cpu_wait(struct prepared *prepared)
{
    (void)prepared;
    return CINF_OK;
}

enum cinf_status cpu_logits(struct prepared *base, uint32_t i, const float **out)
{
    struct cpu_prepared *p = (struct cpu_prepared *)base;
    if (i >= p->n_logits)
        return cinf_fail(CINF_EINVAL, "logits %u of a step that made %u", i, p->n_logits);
    *out = p->logits + (size_t)i * p->program->vocab;
    return CINF_OK;
}
