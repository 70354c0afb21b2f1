/* opencl_profile.c - events of launches, kept until there are many or somebody asks, then added up by the
 * kernel's name. */
#include "opencl_profile.h"

#include <stdio.h>
#include <string.h>

#include "mem.h"

enum { EVENTS_MAX = 1024, ROWS_MAX = 64 };

struct opencl_profile {
    struct {
        cl_event event;
        cl_kernel kernel; /* retained: a model may be unloaded before anybody asks */
    } events[EVENTS_MAX];
    uint32_t n_events;
    struct profile_row rows[ROWS_MAX];
    uint32_t n_rows;
};

struct opencl_profile *opencl_profile_new(void)
{
    return mem_new(1, sizeof(struct opencl_profile));
}

static void count(struct opencl_profile *p, const char *name, uint64_t ns)
{
    uint32_t i = 0;
    while (i < p->n_rows && strcmp(p->rows[i].name, name) != 0)
        i++;
    if (i == ROWS_MAX)
        return;
    if (i == p->n_rows) {
        p->rows[p->n_rows] = (struct profile_row){ 0 };
        snprintf(p->rows[p->n_rows++].name, sizeof p->rows->name, "%s", name);
    }
    p->rows[i].launches++;
    p->rows[i].ns += ns;
}

static void collect(struct opencl_profile *p)
{
    for (uint32_t i = 0; i < p->n_events; i++) {
        cl_event event = p->events[i].event;
        cl_ulong start = 0, end = 0;
        char name[sizeof p->rows->name] = "?";
        if (clWaitForEvents(1, &event) == CL_SUCCESS &&
            clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL) ==
                CL_SUCCESS &&
            clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL) == CL_SUCCESS &&
            end >= start) {
            clGetKernelInfo(p->events[i].kernel, CL_KERNEL_FUNCTION_NAME, sizeof name - 1, name, NULL);
            count(p, name, end - start);
        }
        clReleaseEvent(event);
        clReleaseKernel(p->events[i].kernel);
    }
    p->n_events = 0;
}

void opencl_profile_free(struct opencl_profile *profile)
{
    if (profile)
        collect(profile);
    mem_free(profile);
}

void opencl_profile_add(struct opencl_profile *profile, cl_kernel kernel, cl_event event)
{
    if (profile->n_events == EVENTS_MAX)
        collect(profile);
    clRetainKernel(kernel);
    profile->events[profile->n_events].event = event;
    profile->events[profile->n_events++].kernel = kernel;
}

void opencl_profile_clear(struct opencl_profile *profile)
{
    collect(profile);
    profile->n_rows = 0;
}

bool opencl_profile_row(struct opencl_profile *p, uint32_t index, struct profile_row *out)
{
    collect(p);
    if (index >= p->n_rows)
        return false;
    for (uint32_t i = 1; i < p->n_rows; i++) { /* by insertion: they are few */
        struct profile_row row = p->rows[i];
        uint32_t at = i;
        for (; at > 0 && p->rows[at - 1].ns < row.ns; at--)
            p->rows[at] = p->rows[at - 1];
        p->rows[at] = row;
    }
    *out = p->rows[index];
    return true;
}
