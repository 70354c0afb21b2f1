/* step_weight.c - flops and bytes as time on this device.
 *
 * The question a reader will ask: why 128 bits?  Attoseconds are fine enough for any device, and a long step
 * of a slow one has more of them than 64 bits hold. */
#include "step_weight.h"

u128 step_weight(const struct model_work *work, uint64_t copied_bytes, uint64_t as_per_flop,
                 uint64_t as_per_byte)
{
    u128 compute = (u128)work->flops * as_per_flop;
    u128 read = (u128)work->weight_bytes * as_per_byte;
    return (compute > read ? compute : read) + ((u128)work->kv_bytes + copied_bytes) * as_per_byte;
}

unsigned step_weight_shift(u128 total)
{
    unsigned shift = 0;
    while (total >> shift > UINT64_MAX)
        shift++;
    return shift;
}
