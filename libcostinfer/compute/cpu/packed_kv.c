/* packed_kv.c - see packed_kv.h. */
#include "packed_kv.h"

#include "fail.h"
#include "packed_device.h"

static struct cpu_kv_format format_of(const struct device *device)
{
    return (struct cpu_kv_format){ PANEL, ((const struct packed_device *)device)->kv_f16 };
}

uint64_t packed_kv_slot_bytes(const struct device *device, const struct program *program)
{
    return cpu_kv_bytes_of_slot(program, format_of(device));
}

enum cinf_status packed_kv_new(struct kv **out, struct device *device, const struct program *program,
                               uint32_t slots)
{
    return cpu_kv_new_as(out, device, program, slots, format_of(device));
}

struct copy_task {
    const struct cpu_kv *kv;
    uint32_t to, from, n;
};

static void copy_tile(const void *argument, uint32_t tile, uint32_t worker)
{
    (void)worker;
    const struct copy_task *task = argument;
    cpu_kv_copy_head(task->kv, task->to, task->from, task->n, tile);
}

enum cinf_status packed_kv_copy(struct kv *base, uint32_t to, uint32_t from, uint32_t n)
{
    const struct cpu_kv *kv = (const struct cpu_kv *)base;
    TRY(copy_check(kv->slots, kv->positions, to, from, n));
    if (to == from || n == 0)
        return CINF_OK;
    const struct copy_task task = { kv, to, from, n };
    const struct pool_phase phase = { copy_tile, &task, kv->layers * kv->heads };
    pool_run(((struct packed_device *)base->device)->pool, &phase, 1);
    return CINF_OK;
}
