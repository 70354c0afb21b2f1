/* packed_kv.c - the cache; its blocks are described in packed_memory.h. */
#include <inttypes.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "packed_memory.h"

static uint64_t round_up(uint64_t n)
{
    return (n + PANEL - 1) / PANEL * PANEL;
}

/* Elements of one slot; UINT64_MAX when they cannot be counted. */
static uint64_t slot_elements(const struct program *p)
{
    uint64_t n = 2 * round_up(p->width / p->heads);
    if (!mul_u64(&n, n, round_up(p->positions)) || !mul_u64(&n, n, p->heads) || !mul_u64(&n, n, p->layers))
        return UINT64_MAX;
    return n;
}

uint64_t packed_kv_slot_bytes(const struct device *device, const struct program *program)
{
    bool half = ((const struct packed_device *)device)->half_cache;
    uint64_t n = slot_elements(program);
    return mul_u64(&n, n, half ? sizeof(uint16_t) : sizeof(float)) ? n : UINT64_MAX;
}

enum cinf_status packed_kv_new(struct kv **out, struct device *base, const struct program *program,
                               uint32_t slots)
{
    struct cpu_device *device = (struct cpu_device *)base;
    TRY(program_check(program));
    uint64_t n = packed_kv_slot_bytes(base, program);
    bool fits = mul_u64(&n, n, slots) && n <= SIZE_MAX;
    struct packed_kv *kv = cpu_new(device, 1, sizeof *kv);
    if (kv) {
        kv->base.device = base;
        kv->slots = slots;
        kv->layers = program->layers;
        kv->heads = program->heads;
        kv->positions = program->positions;
        kv->head_width = program->width / program->heads;
        kv->line = (uint32_t)round_up(kv->head_width);
        kv->head_elements = 2 * (size_t)round_up(program->positions) * kv->line;
        kv->half = ((const struct packed_device *)base)->half_cache;
        kv->elements = fits ? cpu_new(device, n, 1) : NULL;
    }
    if (!kv || !kv->elements) {
        packed_kv_free((struct kv *)kv);
        return cinf_fail(CINF_ENOMEM, "no memory for a cache of %u slots of %" PRIu64 " bytes", slots,
                         packed_kv_slot_bytes(base, program));
    }
    *out = &kv->base;
    return CINF_OK;
}

void packed_kv_free(struct kv *base)
{
    if (!base)
        return;
    struct packed_kv *kv = (struct packed_kv *)base;
    struct cpu_device *device = (struct cpu_device *)kv->base.device;
    cpu_free(device, kv->elements);
    cpu_free(device, kv);
}

unsigned char *packed_keys(const struct packed_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    size_t matrix = ((size_t)slot * kv->layers + layer) * kv->heads + head;
    return kv->elements + packed_kv_bytes(kv, matrix * kv->head_elements);
}

unsigned char *packed_values(const struct packed_kv *kv, uint32_t slot, uint32_t layer, uint32_t head)
{
    return packed_keys(kv, slot, layer, head) + packed_kv_bytes(kv, kv->head_elements / 2);
}

struct copy {
    const struct packed_kv *kv;
    uint32_t to, from, n;
};

static void copy_head(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct copy *job = argument;
    const struct packed_kv *kv = job->kv;
    uint32_t layer = tile / kv->heads, head = tile % kv->heads;
    size_t bytes = packed_kv_bytes(kv, (size_t)job->n * kv->line);
    memcpy(packed_keys(kv, job->to, layer, head), packed_keys(kv, job->from, layer, head), bytes);
    memcpy(packed_values(kv, job->to, layer, head), packed_values(kv, job->from, layer, head), bytes);
}

enum cinf_status packed_kv_copy(struct kv *base, uint32_t to, uint32_t from, uint32_t n)
{
    struct packed_kv *kv = (struct packed_kv *)base;
    struct packed_device *device = (struct packed_device *)kv->base.device;
    TRY(copy_check(kv->slots, kv->positions, to, from, n));
    if (to == from || n == 0)
        return CINF_OK;
    struct copy job = { kv, to, from, n };
    struct pool_phase phase = { copy_head, &job, kv->layers * kv->heads };
    pool_run(device->pool, &phase, 1);
    return CINF_OK;
}
