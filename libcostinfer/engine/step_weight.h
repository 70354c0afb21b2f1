/* step_weight.h - what a request's part of a step weighs when the step's time is split. */
#ifndef STEP_WEIGHT_H
#define STEP_WEIGHT_H

#include "model.h"
#include "wide.h"

/* What the work would have taken alone, in attoseconds: its arithmetic or its weights, whichever takes
 * longer, and the bytes of its cache, `copied_bytes` among them.  It fits as long as each count and each
 * constant is below 2^62: an exaflop on a processor that needs four seconds for one operation. */
wide step_weight(const struct model_work *work, uint64_t copied_bytes, uint64_t as_per_flop,
                 uint64_t as_per_byte);

/* By how many bits weights whose sum is `total` are shifted right so that their sum fits 64: 18 seconds do
 * without.  Two parts keep their ratio to 63 bits of the whole. */
unsigned step_weight_shift(wide total);

#endif
