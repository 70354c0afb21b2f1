/* packed_backend.c - device "cpu": weights in panels, kernels for the processor at hand, a pool of threads.
 *
 * A request's logits are the same whatever rows share its steps and whatever threads compute them: that is
 * the invariant of packed_kernels.h, and no phase gives it up. */
#include "cpu_plain.h"
#include "packed_prepared.h"

const struct backend backend_cpu_packed = {
    .name = "cpu",
    .open = packed_open,
    .close = packed_close,
    .info = packed_info,
    .profile = packed_profile,
    .measure = packed_measure,
    .weights_new = packed_weights_new,
    .weights_free = packed_weights_free,
    .weights_write = packed_weights_write,
    .weights_finish = cpu_weights_finish,
    .weights_bytes = packed_weights_bytes,
    .kv_new = packed_kv_new,
    .kv_free = cpu_kv_free,
    .kv_slot_bytes = packed_kv_slot_bytes,
    .kv_copy = packed_kv_copy,
    .prepare = packed_prepare,
    .prepared_free = packed_prepared_free,
    .run = packed_run,
    .wait = packed_wait,
    .logits = packed_logits,
    .allow = packed_allow,
    .top_k = packed_top_k,
    .parallel = packed_parallel,
};
