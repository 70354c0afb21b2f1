/* opencl_vendor_memory.c - three sources, tried in order when a device opens; the first that answers is kept.
 *
 * NVML is loaded, not linked: it comes with a driver that most machines do not have. */
#include "opencl_vendor_memory.h"

#include <dirent.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "mem.h"

/* ---- NVML, as documented ------------------------------------------------------------------- */

struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    void *library, *device;
    int (*shut_down)(void);
    int (*memory_info)(void *device, struct nvml_memory *out);
};

struct vendor_memory {
    struct nvml nvml;
    char *vram_used; /* amdgpu's file, or NULL */
    char *fdinfo;    /* the folder, or NULL */
    char address[32];
};

/* Copies a function's address through memory: C does not convert dlsym()'s result to a function pointer. */
static bool find_function(void *function, void *library, const char *name)
{
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
    return found != NULL;
}

static bool nvml_used(const struct nvml *nvml, uint64_t *bytes)
{
    struct nvml_memory info = { 0 };
    if (nvml->memory_info(nvml->device, &info) != 0 || info.used > info.total)
        return false;
    *bytes = info.used;
    return true;
}

static bool nvml_open(struct nvml *out, const char *name, const char *address)
{
    int (*start)(void), (*find)(const char *, void **);
    struct nvml nvml = { .library = dlopen(name, RTLD_NOW | RTLD_LOCAL) };
    if (!nvml.library)
        return false;
    if (find_function(&start, nvml.library, "nvmlInit_v2") &&
        find_function(&nvml.shut_down, nvml.library, "nvmlShutdown") &&
        find_function(&find, nvml.library, "nvmlDeviceGetHandleByPciBusId_v2") &&
        find_function(&nvml.memory_info, nvml.library, "nvmlDeviceGetMemoryInfo") && start() == 0) {
        uint64_t bytes;
        if (find(address, &nvml.device) == 0 && nvml_used(&nvml, &bytes)) {
            *out = nvml;
            return true;
        }
        nvml.shut_down();
    }
    dlclose(nvml.library);
    return false;
}

/* ---- Files --------------------------------------------------------------------------------- */

static bool number_in(const char *path, uint64_t *out)
{
    char line[64], *end;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    if (!read || line[0] < '0' || line[0] > '9')
        return false;
    *out = strtoull(line, &end, 10);
    return *end == '\n' || *end == 0;
}

/* One open file of a DRM device. */
struct drm_client {
    char address[32];
    uint64_t id, resident, memory, total; /* bytes in video memory by three keys; a driver has at least one */
};

static void read_key(struct drm_client *out, const char *key, const char *value)
{
    if (strcmp(key, "drm-pdev") == 0)
        snprintf(out->address, sizeof out->address, "%.31s", value);
    if (strcmp(key, "drm-client-id") == 0)
        out->id = strtoull(value, NULL, 10);
    char *unit;
    uint64_t n = strtoull(value, &unit, 10);
    n <<= strcmp(unit, " KiB") == 0 ? 10 : strcmp(unit, " MiB") == 0 ? 20 : 0;
    uint64_t *const sums[] = { &out->resident, &out->memory, &out->total };
    static const char *const prefixes[] = { "drm-resident-vram", "drm-memory-vram", "drm-total-vram" };
    for (int i = 0; i < 3; i++)
        *sums[i] += strncmp(key, prefixes[i], strlen(prefixes[i])) == 0 ? n : 0; /* "vram0", "vram1", … */
}

static bool read_client(struct drm_client *out, const char *folder, const char *name)
{
    char line[128], *path = path_join(folder, name);
    FILE *file = path ? fopen(path, "re") : NULL;
    mem_free(path);
    if (!file)
        return false;
    *out = (struct drm_client){ 0 };
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (!value)
            continue;
        *value++ = 0;
        value += strspn(value, " \t");
        value[strcspn(value, "\n")] = 0;
        read_key(out, line, value);
    }
    fclose(file);
    return out->address[0] != 0;
}

/* Adds up the device's clients.  One with several descriptors has as many files and counts once. */
static bool drm_used(const char *folder, const char *address, uint64_t *bytes)
{
    enum { CLIENTS_MAX = 64 };
    uint64_t seen[CLIENTS_MAX], sum = 0;
    uint32_t n = 0;
    DIR *files = opendir(folder);
    if (!files)
        return false;
    for (const struct dirent *entry; n < CLIENTS_MAX && (entry = readdir(files));) {
        struct drm_client client;
        if (entry->d_name[0] == '.' || !read_client(&client, folder, entry->d_name) ||
            strcmp(client.address, address) != 0)
            continue;
        uint32_t i = 0;
        while (i < n && seen[i] != client.id)
            i++;
        if (i < n)
            continue;
        seen[n++] = client.id;
        sum += client.resident ? client.resident : client.memory ? client.memory : client.total;
    }
    closedir(files);
    *bytes = n > 0 ? sum : *bytes;
    return n > 0;
}

/* ---- Together ------------------------------------------------------------------------------ */

static char *vram_file(const char *sysfs, const char *address)
{
    char *folder = path_join(sysfs, address);
    char *path = folder ? path_join(folder, "mem_info_vram_used") : NULL;
    uint64_t bytes;
    mem_free(folder);
    if (path && number_in(path, &bytes))
        return path;
    mem_free(path);
    return NULL;
}

struct vendor_memory *vendor_memory_open(const struct pci_address *at, const struct vendor_sources *sources)
{
    static const struct vendor_sources real = { 0 };
    const struct vendor_sources *s = sources ? sources : &real;
    struct vendor_memory *m = mem_new(1, sizeof *m);
    uint64_t bytes;
    if (!m)
        return NULL;
    snprintf(m->address, sizeof m->address, "%04x:%02x:%02x.%x", at->domain, at->bus, at->device,
             at->function);
    if (nvml_open(&m->nvml, s->nvml ? s->nvml : "libnvidia-ml.so.1", m->address))
        return m;
    m->vram_used = vram_file(s->sysfs ? s->sysfs : "/sys/bus/pci/devices", m->address);
    const char *fdinfo = s->fdinfo ? s->fdinfo : "/proc/self/fdinfo";
    if (!m->vram_used && drm_used(fdinfo, m->address, &bytes))
        m->fdinfo = mem_copy_text(fdinfo);
    if (m->vram_used || m->fdinfo)
        return m;
    vendor_memory_close(m);
    return NULL;
}

void vendor_memory_close(struct vendor_memory *m)
{
    if (!m)
        return;
    if (m->nvml.library) {
        m->nvml.shut_down();
        dlclose(m->nvml.library);
    }
    mem_free(m->vram_used);
    mem_free(m->fdinfo);
    mem_free(m);
}

bool vendor_memory_used(const struct vendor_memory *m, uint64_t *bytes)
{
    return m->nvml.library ? nvml_used(&m->nvml, bytes)
           : m->vram_used  ? number_in(m->vram_used, bytes)
                           : drm_used(m->fdinfo, m->address, bytes);
}
