/* memory_room.c - see memory_room.h.
 *
 * The question a reader will ask: why not let the allocation fail?  On Linux it does not: the kernel promises
 * the memory, and when the weights are written it kills the process, with the models that it serves. */
#include "memory_room.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine_state.h"
#include "fail.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* A file of one number; `otherwise` where there is none ("max", or no such file). */
static uint64_t read_number(const char *path, uint64_t otherwise)
{
    uint64_t value;
    FILE *f = fopen(path, "re");
    bool good = f && fscanf(f, "%" SCNu64, &value) == 1;
    if (f)
        fclose(f);
    return good ? value : otherwise;
}

/* The number after `key` in a file of lines "key value", or `otherwise`. */
static uint64_t read_line(const char *path, const char *key, uint64_t otherwise)
{
    char line[128];
    size_t n = strlen(key);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && sscanf(line + n, "%" SCNu64, &otherwise) == 1)
            break;
    if (f)
        fclose(f);
    return otherwise;
}

static uint64_t left_of_machine(void)
{
    uint64_t kib = read_line("/proc/meminfo", "MemAvailable:", UINT64_MAX >> 10);
    return kib << 10;
}

/* What a container's limit leaves; cached file pages give way, so they count as free. */
static uint64_t left_of_container(void)
{
    static const struct {
        const char *limit, *used, *stat, *cached;
    } versions[] = {
        { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
          "inactive_file " },
        { "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
          "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file " },
    };
    uint64_t left = UINT64_MAX;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        uint64_t limit = read_number(versions[i].limit, UINT64_MAX);
        uint64_t used = read_number(versions[i].used, 0), cached = 0;
        if (limit == UINT64_MAX)
            continue;
        cached = read_line(versions[i].stat, versions[i].cached, 0);
        left = smaller(left, minus(limit, minus(used, cached)));
    }
    return left;
}

static uint64_t left_of_address_space(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    uint64_t pages = read_number("/proc/self/statm", 0);
    return minus(limit.rlim_cur, pages * (uint64_t)sysconf(_SC_PAGESIZE));
}

enum cinf_status memory_room_check(struct cinf_engine *e, uint64_t bytes)
{
    struct device_info info;
    e->device->backend->info(e->device, &info);
    uint64_t left = minus(info.memory_total, info.memory_used);
    if (!info.is_gpu)
        left =
            smaller(smaller(left, left_of_machine()), smaller(left_of_container(), left_of_address_space()));
    if (bytes <= left)
        return CINF_OK;
    return cinf_fail(CINF_ENOMEM,
                     "it takes at least %" PRIu64 " bytes beside the models that are loaded, and %" PRIu64
                     " are left",
                     bytes, left);
}
