/* opencl_kv.h - the KV cache on the device. */
#ifndef OPENCL_KV_H
#define OPENCL_KV_H

#include "opencl_device.h"

/* A layer is [2, slots, H, P, wide] of float or half: keys, then values; wide is D/H rounded up to a multiple
 * of VECTOR. */
struct opencl_kv {
    struct kv base;
    uint32_t slots, layers, heads, positions, head_width, wide;
    cl_ulong values_at;           /* the element of a layer at which values begin */
    struct opencl_buffer *caches; /* [layers] */
    cl_kernel copy;
};

enum cinf_status opencl_kv_new(struct kv **out, struct device *device, const struct program *program,
                               uint32_t slots);
void opencl_kv_free(struct kv *kv);
uint64_t opencl_kv_slot_bytes(const struct device *device, const struct program *program);
enum cinf_status opencl_kv_slots_max(uint32_t *out, const struct device *device,
                                     const struct program *program);
enum cinf_status opencl_kv_copy(struct kv *kv, uint32_t to, uint32_t from, uint32_t n);

#endif
