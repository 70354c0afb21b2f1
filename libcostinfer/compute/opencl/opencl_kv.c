/* opencl_kv.c - keys and values of all slots: one buffer a layer, since a device gives only a part of its
 * memory at a time. */
#include "opencl_kv.h"

#include <inttypes.h>

#include "fail.h"
#include "mem.h"
#include "opencl_program.h"
#include "opencl_queue.h"

/* Bytes of one slot in one layer; UINT64_MAX if they do not fit a uint64_t. */
static uint64_t layer_bytes(const struct device *device, const struct program *p)
{
    bool half = ((const struct opencl_device *)device)->kv_f16;
    uint64_t n = 2 * (half ? sizeof(cl_half) : sizeof(float)) * (uint64_t)p->heads;
    if (!mul_u64(&n, n, round_up(p->width / p->heads, VECTOR)) || !mul_u64(&n, n, p->positions))
        return UINT64_MAX;
    return n;
}

uint64_t opencl_kv_slot_bytes(const struct device *device, const struct program *program)
{
    uint64_t n = layer_bytes(device, program);
    return mul_u64(&n, n, program->layers) ? n : UINT64_MAX;
}

/* A fifth of the free memory stays free: steps need rows and logits, and the driver needs memory of its own.
 * A layer's cache is one buffer, so the device's largest buffer limits the slots too. */
enum cinf_status opencl_kv_slots_max(uint32_t *out, const struct device *base, const struct program *program)
{
    const struct opencl_device *device = (const struct opencl_device *)base;
    uint64_t slot = opencl_kv_slot_bytes(base, program), layer = slot / program->layers;
    uint64_t ours = atomic_load(&device->memory_used), taken = opencl_memory_taken(device);
    uint64_t used = taken > ours ? taken : ours;
    uint64_t left = used < device->memory_total ? device->memory_total - used : 0;
    uint64_t by_memory = left / 5 * 4 / slot, by_buffer = device->alloc_max / layer;
    uint64_t n = by_memory < by_buffer ? by_memory : by_buffer;
    if (n == 0)
        return cinf_fail(CINF_ENOMEM,
                         "device %s: the cache of one context takes %" PRIu64 " bytes, %" PRIu64
                         " a layer; besides the weights %" PRIu64 " of its %" PRIu64
                         " are left, of which caches may take 4/5, and it gives at most %" PRIu64
                         " at a time",
                         device->name, slot, layer, left, device->memory_total, device->alloc_max);
    *out = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    return CINF_OK;
}

enum cinf_status opencl_kv_new(struct kv **out, struct device *base, const struct program *program,
                               uint32_t slots)
{
    struct opencl_device *device = (struct opencl_device *)base;
    TRY(program_check(program));
    uint64_t bytes = layer_bytes(base, program);
    if (slots == 0 || !mul_u64(&bytes, bytes, slots))
        return cinf_fail(CINF_ENOMEM, "a cache of %u slots of %" PRIu64 " bytes", slots,
                         opencl_kv_slot_bytes(base, program));
    struct opencl_kv *kv = mem_new(1, sizeof *kv);
    if (kv) {
        kv->base.device = base;
        kv->slots = slots;
        kv->layers = program->layers;
        kv->heads = program->heads;
        kv->positions = program->positions;
        kv->head_width = program->width / program->heads;
        kv->wide = (uint32_t)round_up(kv->head_width, VECTOR);
        kv->values_at = (cl_ulong)slots * kv->heads * kv->positions * kv->wide;
        kv->caches = mem_new(kv->layers, sizeof *kv->caches);
    }
    enum cinf_status status = kv && kv->caches ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for a cache");
    /* Kernels read nothing before it is written but the end of a head that does not fill its vectors. */
    bool zero = kv && kv->wide != kv->head_width;
    for (uint32_t l = 0; status == CINF_OK && l < kv->layers; l++)
        status = opencl_buffer_new(&kv->caches[l], device, bytes, 0, zero, "a layer's keys and values");
    if (status == CINF_OK)
        status = opencl_kernel_new(&kv->copy, device, device->program, "copy_slot");
    if (status != CINF_OK) {
        opencl_kv_free((struct kv *)kv);
        return status;
    }
    *out = &kv->base;
    return CINF_OK;
}

void opencl_kv_free(struct kv *base)
{
    if (!base)
        return;
    struct opencl_kv *kv = (struct opencl_kv *)base;
    struct opencl_device *device = (struct opencl_device *)base->device;
    for (uint32_t l = 0; kv->caches && l < kv->layers; l++)
        opencl_buffer_free(device, &kv->caches[l]);
    opencl_kernel_free(kv->copy);
    mem_free(kv->caches);
    mem_free(kv);
}

enum cinf_status opencl_kv_copy(struct kv *base, uint32_t to, uint32_t from, uint32_t n)
{
    struct opencl_kv *kv = (struct opencl_kv *)base;
    struct opencl_device *device = (struct opencl_device *)base->device;
    TRY(copy_check(kv->slots, kv->positions, to, from, n));
    if (to == from || n == 0)
        return CINF_OK;
    const size_t global[3] = { (size_t)n * kv->wide, kv->heads, 2 };
    for (uint32_t l = 0; l < kv->layers; l++) {
        const struct opencl_argument arguments[] = { ARGUMENT(kv->caches[l].mem),
                                                     ARGUMENT(kv->heads),
                                                     ARGUMENT(kv->positions),
                                                     ARGUMENT(kv->wide),
                                                     ARGUMENT(kv->values_at),
                                                     ARGUMENT(to),
                                                     ARGUMENT(from),
                                                     ARGUMENT(n),
                                                     { 0 } };
        TRY(opencl_arguments(device, kv->copy, arguments));
        TRY(opencl_launch(device, kv->copy, global, (const size_t[]){ 64, 1, 1 }));
    }
    return CINF_OK;
}
