/* opencl_find.c - the devices that OpenCL offers, numbered as the loader lists them.
 *
 * Nothing is kept: every call asks the loader anew, and a platform that fails to answer hides no other. */
#include "opencl_find.h"

#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "opencl_device.h"

enum { FOUND_MAX = 32 }; /* devices, over all platforms */

struct found {
    cl_device_id id;
    uint32_t platform, device; /* their numbers in the loader's order */
};

/* Lists every device of every platform; CINF_ENOTFOUND if there is none. */
static enum cinf_status find_all(struct found found[FOUND_MAX], uint32_t *n_found)
{
    cl_platform_id platforms[FOUND_MAX];
    cl_uint n_platforms = 0;
    cl_int error = clGetPlatformIDs(FOUND_MAX, platforms, &n_platforms);
    if (error != CL_SUCCESS || n_platforms == 0)
        return cinf_fail(CINF_ENOTFOUND, "OpenCL has no platform: %s (%d)", opencl_error_name(error), error);
    *n_found = 0;
    char last[128] = "";
    for (uint32_t p = 0; p < n_platforms && p < FOUND_MAX; p++) {
        cl_device_id ids[FOUND_MAX];
        cl_uint n = 0;
        error = clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, FOUND_MAX, ids, &n);
        if (error != CL_SUCCESS) {
            char name[64] = "?";
            clGetPlatformInfo(platforms[p], CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
            snprintf(last, sizeof last, "%.60s: %s (%d)", name, opencl_error_name(error), error);
            continue;
        }
        for (uint32_t d = 0; d < n && d < FOUND_MAX && *n_found < FOUND_MAX; d++)
            found[(*n_found)++] = (struct found){ ids[d], p, d };
    }
    return *n_found > 0
               ? CINF_OK
               : cinf_fail(CINF_ENOTFOUND, "OpenCL has %u platforms and no device; %s", n_platforms, last);
}

/* What the driver says in words about a device, or "?". */
static void device_text(cl_device_id id, cl_device_info what, char *out, size_t size)
{
    char text[256] = "?";
    clGetDeviceInfo(id, what, sizeof text - 1, text, NULL);
    text[sizeof text - 1] = 0;
    snprintf(out, size, "%s", text + strspn(text, " "));
}

uint64_t opencl_find_number(cl_device_id id, cl_device_info what)
{
    cl_ulong number = 0;
    clGetDeviceInfo(id, what, sizeof number, &number, NULL);
    return number;
}

static cl_uint device_uint(cl_device_id id, cl_device_info what)
{
    cl_uint number = 0;
    clGetDeviceInfo(id, what, sizeof number, &number, NULL);
    return number;
}

/* Returns the error of the query for the device's type.  A device of unknown type counts as neither GPU nor
 * CPU. */
static cl_int describe(const struct found *f, struct device_info *out)
{
    char name[64], version[48], driver[32];
    cl_device_type type = 0;
    cl_int error = clGetDeviceInfo(f->id, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    device_text(f->id, CL_DEVICE_NAME, name, sizeof name);
    device_text(f->id, CL_DEVICE_VERSION, version, sizeof version);
    device_text(f->id, CL_DRIVER_VERSION, driver, sizeof driver);
    char *space = strchr(version, ' '); /* "OpenCL 3.0 and what the vendor adds" */
    if (space)
        version[strcspn(space + 1, " ") + (size_t)(space + 1 - version)] = 0;
    *out = (struct device_info){ .is_gpu = (type & CL_DEVICE_TYPE_GPU) != 0,
                                 .shares_cpu = (type & CL_DEVICE_TYPE_CPU) != 0,
                                 .threads = device_uint(f->id, CL_DEVICE_MAX_COMPUTE_UNITS),
                                 .memory_total = opencl_find_number(f->id, CL_DEVICE_GLOBAL_MEM_SIZE) };
    snprintf(out->name, sizeof out->name, "opencl:%u:%u", f->platform, f->device);
    snprintf(out->description, sizeof out->description, "%s, %s, driver %s", name, version, driver);
    return error;
}

enum cinf_status opencl_find(uint32_t index, struct device_info *out)
{
    struct found found[FOUND_MAX];
    uint32_t n;
    TRY(find_all(found, &n));
    if (index >= n)
        return cinf_fail(CINF_ENOTFOUND, "OpenCL device %u of %u", index, n);
    describe(&found[index], out);
    return CINF_OK;
}

enum cinf_status opencl_find_named(cl_device_id *out, struct device_info *info, const char *name)
{
    struct found found[FOUND_MAX];
    uint32_t n, chosen = 0;
    bool is_found = !name;
    TRY(find_all(found, &n));
    for (uint32_t i = n; i-- > 0;) {
        describe(&found[i], info);
        if (name ? strcmp(name, info->name) == 0 : info->is_gpu) {
            chosen = i;
            is_found = true;
        }
    }
    if (!is_found)
        return cinf_fail(CINF_ENOTFOUND, "no OpenCL device %s", name);
    cl_int error = describe(&found[chosen], info);
    if (error != CL_SUCCESS) /* of unknown type, a CPU would get the kernels of a GPU */
        return cinf_fail(CINF_EDEVICE, "device %s: asking for its type: %s (%d)", info->name,
                         opencl_error_name(error), error);
    *out = found[chosen].id;
    return CINF_OK;
}

bool opencl_find_address(struct pci_address *out, cl_device_id id)
{
    enum { PCI_KHR = 0x410F, TOPOLOGY_AMD = 0x4037, BUS_NV = 0x4008, SLOT_NV = 0x4009, DOMAIN_NV = 0x400A };
    cl_uint khr[4], bus, slot, domain;
    unsigned char amd[24]; /* a type, 17 unused bytes, bus, device, function */
    /* 0000:00:00.0 is a host bridge's address; PoCL 7 gives it for a CPU. */
    if (clGetDeviceInfo(id, PCI_KHR, sizeof khr, khr, NULL) == CL_SUCCESS &&
        (khr[0] || khr[1] || khr[2] || khr[3])) {
        *out = (struct pci_address){ khr[0], khr[1], khr[2], khr[3] };
        return true;
    }
    if (clGetDeviceInfo(id, TOPOLOGY_AMD, sizeof amd, amd, NULL) == CL_SUCCESS) {
        *out = (struct pci_address){ 0, amd[21], amd[22], amd[23] };
        return true;
    }
    if (clGetDeviceInfo(id, BUS_NV, sizeof bus, &bus, NULL) != CL_SUCCESS ||
        clGetDeviceInfo(id, SLOT_NV, sizeof slot, &slot, NULL) != CL_SUCCESS)
        return false;
    if (clGetDeviceInfo(id, DOMAIN_NV, sizeof domain, &domain, NULL) != CL_SUCCESS)
        domain = 0;
    *out = (struct pci_address){ domain, bus, slot >> 3, slot & 7 };
    return true;
}
