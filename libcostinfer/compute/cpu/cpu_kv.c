/* cpu_kv.c - see cpu_kv.h. */
#include "cpu_kv.h"

#include <inttypes.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

uint64_t cpu_kv_bytes_of_slot(const struct program *p, struct cpu_kv_format format)
{
    uint64_t n = 2 * round_up(p->width / p->heads, format.unit);
    if (!mul_u64(&n, n, round_up(p->positions, format.unit)) || !mul_u64(&n, n, p->heads) ||
        !mul_u64(&n, n, p->layers) || !mul_u64(&n, n, format.f16 ? sizeof(uint16_t) : sizeof(float)))
        return UINT64_MAX;
    return n;
}

enum cinf_status cpu_kv_new_as(struct kv **out, struct device *base, const struct program *program,
                               uint32_t slots, struct cpu_kv_format format)
{
    struct cpu_device *device = (struct cpu_device *)base;
    TRY(program_check(program));
    uint64_t n = cpu_kv_bytes_of_slot(program, format);
    bool fits = mul_u64(&n, n, slots) && n <= SIZE_MAX;
    struct cpu_kv *kv = cpu_new(device, 1, sizeof *kv);
    if (kv) {
        kv->base.device = base;
        kv->format = format;
        kv->slots = slots;
        kv->layers = program->layers;
        kv->heads = program->heads;
        kv->positions = program->positions;
        kv->head_width = program->width / program->heads;
        kv->line = (uint32_t)round_up(kv->head_width, format.unit);
        kv->matrix_bytes = cpu_kv_bytes(kv, (size_t)round_up(program->positions, format.unit) * kv->line);
        kv->elements = fits ? cpu_new(device, n, 1) : NULL;
    }
    if (!kv || !kv->elements) {
        cpu_kv_free((struct kv *)kv);
        return cinf_fail(CINF_ENOMEM, "no memory for a cache of %u slots of %" PRIu64 " bytes", slots,
                         cpu_kv_bytes_of_slot(program, format));
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

enum cinf_status cpu_kv_check(const struct kv *base, const struct program *p)
{
    const struct cpu_kv *kv = (const struct cpu_kv *)base;
    bool fits = kv->layers == p->layers && kv->heads == p->heads && kv->positions == p->positions &&
                kv->head_width == p->width / p->heads;
    return fits ? CINF_OK : cinf_fail(CINF_EINVAL, "the program is made for a cache of another shape");
}

unsigned char *cpu_kv_keys(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    size_t matrix = (((size_t)slot * kv->layers + layer) * kv->heads + head) * 2;
    return kv->elements + matrix * kv->matrix_bytes;
}

unsigned char *cpu_kv_values(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    return cpu_kv_keys(kv, slot, layer, head) + kv->matrix_bytes;
}

void cpu_kv_copy_head(const struct cpu_kv *kv, uint32_t to, uint32_t from, uint32_t n, uint32_t index)
{
    const uint32_t layer = index / kv->heads, head = index % kv->heads;
    const size_t bytes = cpu_kv_bytes(kv, (size_t)n * kv->line);
    memcpy(cpu_kv_keys(kv, to, layer, head), cpu_kv_keys(kv, from, layer, head), bytes);
    memcpy(cpu_kv_values(kv, to, layer, head), cpu_kv_values(kv, from, layer, head), bytes);
}

enum cinf_status cpu_kv_copy(struct kv *base, uint32_t to, uint32_t from, uint32_t n)
{
    struct cpu_kv *kv = (struct cpu_kv *)base;
    TRY(copy_check(kv->slots, kv->positions, to, from, n));
    for (uint32_t i = 0; i < kv->layers * kv->heads && to != from; i++)
        cpu_kv_copy_head(kv, to, from, n, i);
    return CINF_OK;
}
