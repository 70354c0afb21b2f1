/* cpu_device.c - see cpu_device.h. */
#include "cpu_device.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "mem.h"

/* ---- Memory ------------------------------------------------------------------------------- */

enum { ALIGN = 64 };

/* What stands right before a block. */
struct block {
    void *start;
    uint64_t bytes; /* in all */
};

void *cpu_new(struct cpu_device *device, size_t n, size_t size)
{
    size_t bytes;
    if (!mul_size(&bytes, n, size) || bytes > SIZE_MAX - 2 * ALIGN)
        return NULL;
    /* calloc() and not an aligned allocation plus memset(), which would touch every page of a cache that may
     * never fill up.  Huge pages are not asked for either: reading them is 3 to 22 % faster, but where memory
     * is fragmented the kernel makes them inside the page fault (500 MB: 1.8 s instead of 0.4), and a load
     * shares its thread with the steps of every request. */
    bytes += 2 * ALIGN;
    char *start = mem_new(1, bytes);
    if (!start)
        return NULL;
    char *block = start + ALIGN + (ALIGN - (uintptr_t)start % ALIGN) % ALIGN;
    struct block head = { start, bytes };
    memcpy(block - sizeof head, &head, sizeof head);
    atomic_fetch_add(&device->memory_used, bytes);
    return block;
}

void cpu_free(struct cpu_device *device, void *block)
{
    if (!block)
        return;
    struct block head;
    memcpy(&head, (char *)block - sizeof head, sizeof head);
    atomic_fetch_sub(&device->memory_used, head.bytes);
    mem_free(head.start);
}

/* ---- Device ------------------------------------------------------------------------------- */

/* Bytes of RAM, or less where a container limits the process. */
static uint64_t memory_of_machine(void)
{
    static const char *const limits[] = { "/sys/fs/cgroup/memory.max",
                                          "/sys/fs/cgroup/memory/memory.limit_in_bytes" };
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t total = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        FILE *f = fopen(limits[i], "r");
        uint64_t limit;
        if (f && fscanf(f, "%" SCNu64, &limit) == 1 && limit > 0 && limit < total)
            total = limit;
        if (f)
            fclose(f);
    }
    return total;
}

static void name_of_processor(char *out, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, size, "CPU");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
            break;
        }
    }
    if (f)
        fclose(f);
}

void cpu_device_init(struct cpu_device *device, const struct backend *backend, const char *library,
                     uint32_t threads)
{
    device->base.backend = backend;
    device->memory_total = memory_of_machine();
    device->threads = threads;
    char processor[64];
    name_of_processor(processor, sizeof processor);
    snprintf(device->description, sizeof device->description, "%s, %.60s, %u thread%s", processor, library,
             threads, threads == 1 ? "" : "s");
}

enum cinf_status cpu_device_open(struct device **out, const struct backend *backend, const char *library,
                                 uint32_t threads)
{
    struct cpu_device *device = mem_new(1, sizeof *device);
    if (!device)
        return cinf_fail(CINF_ENOMEM, "no memory for device %s", backend->name);
    cpu_device_init(device, backend, library, threads);
    *out = &device->base;
    return CINF_OK;
}

void cpu_device_close(struct device *device)
{
    mem_free(device);
}

void cpu_device_info(const struct device *base, struct device_info *out)
{
    const struct cpu_device *device = (const struct cpu_device *)base;
    *out = (struct device_info){ .threads = device->threads,
                                 .memory_total = device->memory_total,
                                 .memory_used = atomic_load(&device->memory_used) };
    snprintf(out->name, sizeof out->name, "%s", base->backend->name);
    snprintf(out->description, sizeof out->description, "%s", device->description);
}
