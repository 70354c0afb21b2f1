/* cpu_kv.h - the KV cache of every CPU backend.
 *
 * Each head of each layer of each slot has two matrices, keys and then values, and a line is one position:
 *
 *     slot 0, layer 0, head 0    keys [P][line]   values [P][line]
 *                      head 1    keys [P][line]   values [P][line]   …
 *
 * Heads stand outside positions, so that the past of one head is contiguous.  Backends differ in what they
 * round lines and positions up to, and in the type of elements. */
#ifndef CPU_KV_H
#define CPU_KV_H

#include "cpu_device.h"

struct cpu_kv_format {
    uint32_t unit; /* lines and positions are multiples of it */
    bool f16;      /* instead of float32 */
};

struct cpu_kv {
    struct kv base;
    struct cpu_kv_format format;
    uint32_t slots, layers, heads, positions;
    uint32_t head_width; /* D/H */
    uint32_t line;       /* D/H rounded up */
    size_t matrix_bytes; /* keys or values of one head */
    unsigned char *elements;
};

/* Bytes of one slot; UINT64_MAX when they cannot be counted. */
uint64_t cpu_kv_bytes_of_slot(const struct program *program, struct cpu_kv_format format);

enum cinf_status cpu_kv_new_as(struct kv **out, struct device *device, const struct program *program,
                               uint32_t slots, struct cpu_kv_format format);

/* CINF_EINVAL where the cache was made for another shape. */
enum cinf_status cpu_kv_check(const struct kv *kv, const struct program *program);

/* Bytes of n elements. */
static inline size_t cpu_kv_bytes(const struct cpu_kv *kv, size_t n)
{
    return n * (kv->format.f16 ? sizeof(uint16_t) : sizeof(float));
}

/* [positions][line] of one head. */
unsigned char *cpu_kv_keys(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head);
unsigned char *cpu_kv_values(const struct cpu_kv *kv, uint32_t slot, uint32_t layer, uint32_t head);

/* The part of kv_copy() that is one head's, for callers that have checked the arguments; `index` is below
 * layers * heads. */
void cpu_kv_copy_head(const struct cpu_kv *kv, uint32_t to, uint32_t from, uint32_t n, uint32_t index);

/* Entries of struct backend. */
void cpu_kv_free(struct kv *kv);
enum cinf_status cpu_kv_copy(struct kv *kv, uint32_t to, uint32_t from, uint32_t n); /* by one thread */

#endif
