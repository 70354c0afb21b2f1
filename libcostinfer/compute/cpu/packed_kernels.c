/* packed_kernels.c - which kernels this processor runs. */
#include "packed_kernels.h"

#include <stdatomic.h>

#include "packed_isa.h"

static _Atomic(const struct packed_kernels *) forced;

static bool runs(const struct packed_kernels *kernels)
{
#if defined(__x86_64__)
    if (kernels == &packed_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
    if (kernels == &packed_kernels_avx2) /* F16C is older than both and always present with them */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return kernels == &packed_kernels_portable;
}

const struct packed_kernels *packed_kernels_at(uint32_t index)
{
    static const struct packed_kernels *const all[] = {
#if defined(__x86_64__)
        &packed_kernels_avx512,
        &packed_kernels_avx2,
#endif
        &packed_kernels_portable
    };
    for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (runs(all[i]) && index-- == 0)
            return all[i];
    }
    return NULL;
}

const struct packed_kernels *packed_kernels_best(void)
{
    const struct packed_kernels *kernels = atomic_load(&forced);
    return kernels ? kernels : packed_kernels_at(0);
}

void packed_kernels_force(const struct packed_kernels *kernels)
{
    atomic_store(&forced, kernels);
}
