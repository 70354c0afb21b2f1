/* devices.c - which devices there are, which of them a name means, and who has them open.
 *
 * All backends without find() drive one device, the CPU: two of them open at a time would each count the same
 * nanoseconds as its own.  Of a backend with find() each device is taken by itself, unless it computes on the
 * CPU, too.  Nothing here knows a backend by name: backends.c lists them, and they say themselves why they
 * have no device. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "backend_impl.h"
#include "fail.h"

enum { FOUND_MAX = 32 }; /* devices of one backend */

static atomic_bool cpu_taken;
static atomic_bool found_taken[BACKENDS_MAX][FOUND_MAX];

/* A device that may be opened. */
struct candidate {
    const struct backend *backend;
    bool found;              /* by find() */
    struct device_info info; /* of one that was found */
    atomic_bool *taken;
};

static const struct backend *backend_at(uint32_t b)
{
    return b < BACKENDS_MAX ? backends[b].backend : NULL;
}

/* Device `index` of backend `b`; false behind its last. */
static bool find_device(struct candidate *out, uint32_t b, uint32_t index)
{
    const struct backend *backend = backend_at(b);
    struct candidate found = { .backend = backend, .found = true };
    if (!backend->find || index >= FOUND_MAX || backend->find(index, &found.info) != CINF_OK)
        return false;
    found.taken = found.info.shares_cpu ? &cpu_taken : &found_taken[b][index];
    *out = found;
    return true;
}

/* ---- Lists -------------------------------------------------------------------------------- */

static char found_names[BACKENDS_MAX * FOUND_MAX][sizeof((struct device_info *)NULL)->name];
static uint32_t n_found;

static void list_found(void)
{
    struct candidate device;
    for (uint32_t b = 0; backend_at(b); b++)
        for (uint32_t i = 0; find_device(&device, b, i); i++)
            memcpy(found_names[n_found++], device.info.name, sizeof found_names[0]);
}

const char *device_list(uint32_t index)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    for (uint32_t b = 0; backend_at(b); b++) {
        if (!backend_at(b)->find && index-- == 0)
            return backend_at(b)->name;
    }
    pthread_once(&once, list_found);
    return index < n_found ? found_names[index] : NULL;
}

/* `why` there is no device of that name, where there is more to say. */
static enum cinf_status fail_not_found(const char *name, const char *why)
{
    char names[DEVICE_REASON_MAX] = "auto";
    for (uint32_t i = 0; device_list(i); i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, ", %s", device_list(i));
    }
    return cinf_fail(CINF_ENOTFOUND, "no device \"%.64s\"%s%s; available: %s", name, *why ? ": " : "", why,
                     names);
}

/* ---- Choosing ----------------------------------------------------------------------------- */

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        if (strncasecmp(text, part, n) == 0)
            return true;
    }
    return false;
}

static void append_reason(char why[DEVICE_REASON_MAX], const char *reason)
{
    size_t used = strlen(why);
    snprintf(why + used, DEVICE_REASON_MAX - used, "; %.120s", reason);
}

/* The GPU with the most memory, of all backends or of `only`; false, and `why` tells what each backend has
 * instead, where there is none. */
static bool choose_gpu(struct candidate *out, char why[DEVICE_REASON_MAX], const struct backend *only)
{
    bool any = false;
    why[0] = 0;
    for (uint32_t b = 0; backend_at(b); b++) {
        if (!backend_at(b)->find || (only && only != backend_at(b)))
            continue;
        struct candidate device;
        uint32_t n = 0, n_gpus = 0;
        for (; find_device(&device, b, n); n++) {
            if (!device.info.is_gpu)
                continue;
            n_gpus++;
            if (!any || device.info.memory_total > out->info.memory_total)
                *out = device;
            any = true;
        }
        char reason[DEVICE_REASON_MAX];
        snprintf(reason, sizeof reason, "of %u %s device%s none is a GPU", n, backend_at(b)->name,
                 n == 1 ? "" : "s");
        if (n_gpus == 0)
            append_reason(why, n > 0 ? reason : cinf_last_error());
    }
    return any;
}

static void choose_backend(struct candidate *out, const struct backend *backend)
{
    *out = (struct candidate){ .backend = backend, .taken = &cpu_taken };
}

static void choose_fastest_cpu(struct candidate *out)
{
    uint32_t b = 0;
    while (backend_at(b)->find)
        b++;
    choose_backend(out, backend_at(b));
}

static bool is_named(const struct candidate *device, const char *name)
{
    return strcmp(device->info.name, name) == 0;
}

static bool is_described(const struct candidate *device, const char *part)
{
    return contains(device->info.name, part) || contains(device->info.description, part);
}

/* The first device that was found and that `fits` accepts. */
static bool choose_found(struct candidate *out, const char *name,
                         bool (*fits)(const struct candidate *, const char *))
{
    struct candidate device;
    for (uint32_t b = 0; backend_at(b); b++) {
        for (uint32_t i = 0; find_device(&device, b, i); i++) {
            if (fits(&device, name)) {
                *out = device;
                return true;
            }
        }
    }
    return false;
}

/* The best device of backend `b`, which has find(). */
static enum cinf_status choose_best_of(struct candidate *out, char why[DEVICE_REASON_MAX], uint32_t b)
{
    const bool is_gpu = choose_gpu(out, why, backend_at(b));
    if (is_gpu || find_device(out, b, 0)) {
        snprintf(why, DEVICE_REASON_MAX, is_gpu ? "the GPU with the most memory" : "asked for by name");
        return CINF_OK;
    }
    snprintf(why, DEVICE_REASON_MAX, "%s", cinf_last_error());
    return fail_not_found(backend_at(b)->name, why);
}

static enum cinf_status choose_named(struct candidate *out, char why[DEVICE_REASON_MAX], const char *name)
{
    snprintf(why, DEVICE_REASON_MAX, "asked for by name");
    for (uint32_t b = 0; backend_at(b); b++) {
        if (strcmp(name, backend_at(b)->name) != 0)
            continue;
        if (backend_at(b)->find)
            return choose_best_of(out, why, b);
        choose_backend(out, backend_at(b));
        return CINF_OK;
    }
    if (*name && (choose_found(out, name, is_named) || choose_found(out, name, is_described)))
        return CINF_OK;
    return fail_not_found(name, "");
}

/* ---- Opening ------------------------------------------------------------------------------ */

static const char *what_of(const struct backend *backend, const struct device_info *info)
{
    for (uint32_t b = 0; backend_at(b); b++) {
        if (backend_at(b) == backend && backends[b].what)
            return backends[b].what;
    }
    return info->description;
}

static enum cinf_status open_candidate(struct device **out, const struct candidate *its, const char *why,
                                       const struct device_options *options, char reason[DEVICE_REASON_MAX])
{
    if (atomic_exchange(its->taken, true))
        return cinf_fail(CINF_EBUSY, "device %s: %s belongs to another engine of this process",
                         its->found ? its->info.name : its->backend->name,
                         its->taken == &cpu_taken ? "the CPU" : "it");
    struct device *device;
    struct device_options its_options = *options;
    its_options.which = its->found ? its->info.name : NULL;
    enum cinf_status status = its->backend->open(&device, &its_options);
    if (status != CINF_OK) {
        atomic_store(its->taken, false);
        return status;
    }
    struct device_info info;
    its->backend->info(device, &info);
    if (options->kv_f16 && !info.kv_f16) {
        its->backend->close(device);
        atomic_store(its->taken, false);
        return cinf_fail(CINF_EUNSUPPORTED, "device %s keeps keys and values as f32, not as f16", info.name);
    }
    device->taken = its->taken;
    if (reason) {
        int used = snprintf(reason, DEVICE_REASON_MAX, "%s (%.75s): %.145s", info.name,
                            what_of(its->backend, &info), why);
        bool cut = used >= DEVICE_REASON_MAX;
        if (!cut && options->threads != 0 && options->threads != info.threads)
            snprintf(reason + used, DEVICE_REASON_MAX - (size_t)used, "; it runs %u threads, not %u",
                     info.threads, options->threads);
    }
    *out = device;
    return CINF_OK;
}

/* Falls back to the CPU where the GPU fails to open, but not where it is busy or lacks what was asked for:
 * then the caller must decide. */
static enum cinf_status open_best(struct device **out, const struct device_options *options,
                                  char reason[DEVICE_REASON_MAX])
{
    struct candidate device;
    char why[DEVICE_REASON_MAX], why_cpu[DEVICE_REASON_MAX];
    if (choose_gpu(&device, why, NULL)) {
        enum cinf_status status =
            open_candidate(out, &device, "the GPU with the most memory", options, reason);
        if (status == CINF_OK || status == CINF_EBUSY || status == CINF_EUNSUPPORTED)
            return status;
        snprintf(why, sizeof why, "; the GPU cannot be used: %.120s", cinf_last_error());
    }
    choose_fastest_cpu(&device);
    snprintf(why_cpu, sizeof why_cpu, "the fastest CPU device of this build%.180s", why);
    return open_candidate(out, &device, why_cpu, options, reason);
}

enum cinf_status device_open(struct device **out, const char *name, const struct device_options *options,
                             char reason[DEVICE_REASON_MAX])
{
    static const struct device_options defaults;
    struct candidate device;
    char why[DEVICE_REASON_MAX];
    options = options ? options : &defaults;
    if (!name || strcmp(name, "auto") == 0)
        return open_best(out, options, reason);
    TRY(choose_named(&device, why, name));
    return open_candidate(out, &device, why, options, reason);
}

void device_close(struct device *device)
{
    if (!device)
        return;
    atomic_bool *taken = device->taken;
    device->backend->close(device);
    atomic_store(taken, false);
}
