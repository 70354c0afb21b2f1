/* step_weight.h - what a request's part of a step weighs when the step's time is split. */
#ifndef STEP_WEIGHT_H
#define STEP_WEIGHT_H

#include "model.h"
#include "u128.h"

/* What the work would have taken alone, in attoseconds: the longer of its arithmetic and the reading of its
 * weights, plus the bytes of its cache and `copied_bytes`.  The result fits as long as each count and each
 * constant is below 2^62: an exaflop on a processor that needs four seconds for one operation. */
u128 step_weight(const struct model_work *work, uint64_t copied_bytes, uint64_t as_per_flop,
                 uint64_t as_per_byte);

/* How many bits weights whose sum is `total` must be shifted right for their sum to fit 64 bits; 0 up to 18
 * seconds.  The ratio of two parts is kept to 63 bits of the whole. */
unsigned step_weight_shift(u128 total);

#endif
