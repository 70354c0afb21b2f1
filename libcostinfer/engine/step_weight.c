/* step_weight.c - flops and bytes as time on this device.
 *
 * The question a reader will ask: why 128 bits?  Attoseconds are fine enough for any device, and a long step
 * of a slow one has more of them than 64 bits hold. */
#include "step_weight.h"

wide step_weight(const struct model_work *work, uint64_t copied_bytes, uint64_t as_per_flop,
                 uint64_t as_per_byte)
{
    wide compute = (wide)work->flops * as_per_flop;
    wide read = (wide)work->weight_bytes * as_per_byte;
    return (compute > read ? compute : read) + ((wide)work->kv_bytes + copied_bytes) * as_per_byte;
}

unsigned step_weight_shift(wide total)
{
    unsigned shift = 0;
    while (total >> shift > UINT64_MAX)
        shift++;
    return shift;
}
