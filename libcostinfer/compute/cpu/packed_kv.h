/* packed_kv.h - the KV cache of the packed CPU backend: a cpu_kv whose lines and positions are whole panels.
 *
 * The sum of values is a panel's product as they lie there; for scores, keys are transposed into panels when
 * they are read.  To keep keys in panels would be dearer: each number of a new key would be written to a
 * cache line of its own. */
#ifndef PACKED_KV_H
#define PACKED_KV_H

#include "cpu_kv.h"

enum cinf_status packed_kv_new(struct kv **out, struct device *device, const struct program *program,
                               uint32_t slots);
uint64_t packed_kv_slot_bytes(const struct device *device, const struct program *program);
enum cinf_status packed_kv_copy(struct kv *kv, uint32_t to, uint32_t from, uint32_t n); /* by all threads */

#endif
