/* opencl_profile.c - the events of launches, kept until there are many or the profile is read, then added up
 * by the kernel's name. */
#include "opencl_profile.h"

#include "mem.h"
#include "profile.h"

enum { EVENTS_MAX = 1024 };

struct opencl_profile {
    struct timed {
        cl_event event;
        cl_event before;  /* the span begins at its end; NULL: at the event's own start */
        cl_kernel kernel; /* retained: a model may be unloaded before the profile is read; NULL: see `name` */
        const char *name;
    } events[EVENTS_MAX];
    uint32_t n_events;
    bool paused;
    struct profile profile;
};

struct opencl_profile *opencl_profile_new(void)
{
    return mem_new(1, sizeof(struct opencl_profile));
}

static bool time_of(cl_event event, cl_profiling_info which, cl_ulong *ns)
{
    return clWaitForEvents(1, &event) == CL_SUCCESS &&
           clGetEventProfilingInfo(event, which, sizeof *ns, ns, NULL) == CL_SUCCESS;
}

static void timed_free(const struct timed *t)
{
    clReleaseEvent(t->event);
    if (t->before)
        clReleaseEvent(t->before);
    if (t->kernel)
        clReleaseKernel(t->kernel);
}

static void collect(struct opencl_profile *p)
{
    for (uint32_t i = 0; i < p->n_events; i++) {
        const struct timed *t = &p->events[i];
        cl_ulong start = 0, end = 0;
        char name[sizeof p->profile.rows->name] = "?";
        bool known = t->before ? time_of(t->before, CL_PROFILING_COMMAND_END, &start)
                               : time_of(t->event, CL_PROFILING_COMMAND_START, &start);
        if (known && time_of(t->event, CL_PROFILING_COMMAND_END, &end) && end >= start) {
            if (t->kernel)
                clGetKernelInfo(t->kernel, CL_KERNEL_FUNCTION_NAME, sizeof name - 1, name, NULL);
            profile_add(&p->profile, t->kernel ? name : t->name, end - start);
        }
        timed_free(t);
    }
    p->n_events = 0;
}

void opencl_profile_free(struct opencl_profile *profile)
{
    if (profile)
        collect(profile);
    mem_free(profile);
}

void opencl_profile_pause(struct opencl_profile *profile, bool paused)
{
    if (profile)
        profile->paused = paused;
}

static void add(struct opencl_profile *p, struct timed timed)
{
    if (p->paused) {
        timed_free(&timed);
        return;
    }
    if (p->n_events == EVENTS_MAX)
        collect(p);
    p->events[p->n_events++] = timed;
}

void opencl_profile_add(struct opencl_profile *profile, cl_kernel kernel, cl_event event)
{
    clRetainKernel(kernel);
    add(profile, (struct timed){ .event = event, .kernel = kernel });
}

void opencl_profile_span(struct opencl_profile *profile, const char *name, cl_event before, cl_event last)
{
    add(profile, (struct timed){ .event = last, .before = before, .name = name });
}

void opencl_profile_clear(struct opencl_profile *profile)
{
    collect(profile);
    profile->profile.n = 0;
}

bool opencl_profile_row(struct opencl_profile *p, uint32_t index, struct profile_row *out)
{
    collect(p);
    return profile_row(&p->profile, index, out);
}
