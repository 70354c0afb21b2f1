/* cpu_measure.c - see cpu_measure.h. */
#include "cpu_measure.h"

#include <assert.h>
#include <stdio.h>
#include <unistd.h>

#include "clock.h"

/* The kernel is asked first: glibc 2.36 gives some AMD processors the caches of the whole socket, twelve
 * times what one core has, and touching 256 MiB more takes as long as everything else that opens an engine.
 */
size_t cpu_measured_bytes(void)
{
    const size_t min = (size_t)64 << 20;
    size_t cache = 0;
    FILE *f = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "re");
    if (f) {
        if (fscanf(f, "%zuK", &cache) != 1)
            cache = 0;
        fclose(f);
        cache <<= 10;
    }
#ifdef _SC_LEVEL3_CACHE_SIZE
    long reported = cache ? 0 : sysconf(_SC_LEVEL3_CACHE_SIZE);
    cache = reported > 0 ? (size_t)reported : cache;
#endif
    return cache <= min / 2 ? min : cache <= 2 * min ? 2 * cache : 4 * min;
}

uint64_t cpu_median(uint64_t *samples, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        for (uint32_t j = i; j > 0 && samples[j] < samples[j - 1]; j--) {
            uint64_t smaller = samples[j];
            samples[j] = samples[j - 1];
            samples[j - 1] = smaller;
        }
    }
    return samples[n / 2];
}

uint64_t cpu_time_of(void (*work)(const void *argument), const void *argument, uint32_t samples,
                     uint64_t deadline_ns)
{
    uint64_t ns[CPU_SAMPLES_MAX], now = clock_monotonic_ns();
    uint32_t n = 0;
    assert(samples <= CPU_SAMPLES_MAX);
    while (n == 0 || (n < samples && now < deadline_ns)) {
        uint64_t start = now;
        work(argument);
        now = clock_monotonic_ns();
        ns[n++] = now - start;
    }
    return cpu_median(ns, n);
}
