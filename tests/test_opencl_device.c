/* A simulated machine with a GPU: the first OpenCL device, with the answers about its type and its place on a
 * bus replaced. */
#include "opencl_suite.h"

#if CINF_HAVE_OPENCL
#include <costinfer/costinfer.h>
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* only its shapes are used */
#include "backend_ops.h"
#pragma GCC diagnostic pop
#include "meter_state.h"
#include "opencl_find.h"
#include "opencl_program.h"
#include "opencl_queue.h"
#include "opencl_vendor_memory.h"

static bool as_gpu, no_context, no_devices;
static atomic_bool lost;
static cl_device_info bus_query; /* the bus query that gets an answer; 0: none */

#pragma GCC visibility push(default)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

static void real_function(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

cl_int clGetDeviceInfo(cl_device_id id, cl_device_info what, size_t size, void *value, size_t *needed)
{
    static __typeof__(clGetDeviceInfo) *real;
    if (!real)
        real_function(&real, "clGetDeviceInfo");
    if (as_gpu && value && what == CL_DEVICE_TYPE) {
        memcpy(value, &(cl_device_type){ CL_DEVICE_TYPE_GPU }, sizeof(cl_device_type));
        return CL_SUCCESS;
    }
    const bool nv = what >= 0x4008 && what <= 0x400A;
    if (bus_query && (what == bus_query || (bus_query == 0x4008 && nv))) {
        static const cl_uint khr[4] = { 1, 0x65, 2, 3 }, bus = 0x41, slot = 5 << 3 | 1, domain = 2;
        unsigned char amd[24] = { 0 };
        amd[21] = 0x65; /* 0000:65:00.0, as in fake_nvml.c */
        const void *answer = what == 0x410F   ? (const void *)khr
                             : what == 0x4037 ? (const void *)amd
                             : what == 0x4008 ? (const void *)&bus
                             : what == 0x4009 ? (const void *)&slot
                                              : (const void *)&domain;
        memcpy(value, answer, size);
        return CL_SUCCESS;
    }
    return real(id, what, size, value, needed);
}

cl_context clCreateContext(const cl_context_properties *properties, cl_uint n, const cl_device_id *ids,
                           void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *data,
                           cl_int *error)
{
    static __typeof__(clCreateContext) *real;
    if (!real)
        real_function(&real, "clCreateContext");
    if (!no_context)
        return real(properties, n, ids, notify, data, error);
    *error = CL_DEVICE_NOT_AVAILABLE;
    return NULL;
}

cl_int clEnqueueMarkerWithWaitList(cl_command_queue queue, cl_uint n, const cl_event *events, cl_event *event)
{
    static __typeof__(clEnqueueMarkerWithWaitList) *real;
    if (!real)
        real_function(&real, "clEnqueueMarkerWithWaitList");
    return atomic_load(&lost) ? CL_DEVICE_NOT_AVAILABLE : real(queue, n, events, event);
}

cl_int clGetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint room, cl_device_id *ids,
                      cl_uint *n)
{
    static __typeof__(clGetDeviceIDs) *real;
    if (!real)
        real_function(&real, "clGetDeviceIDs");
    return no_devices ? CL_DEVICE_NOT_FOUND : real(platform, type, room, ids, n);
}

#pragma GCC diagnostic pop
#pragma GCC visibility pop

static enum cinf_status open_profiled(struct device **out, const struct device_options *options)
{
    struct device_options its = *options;
    its.profile = true;
    return backend_opencl.open(out, &its);
}

static void begin(void)
{
    as_gpu = no_context = no_devices = false;
    atomic_store(&lost, false);
    bus_query = 0;
    setenv("COSTINFER_OPENCL_SHAPE", "cpu", 1); /* compiles fast */
    unsetenv("COSTINFER_FAKE_NVML");
}

START_TEST(auto_takes_a_gpu)
{
    struct device *device = NULL;
    struct device_info info;
    char reason[DEVICE_REASON_MAX];
    ck_ok(device_open(&device, "auto", NULL, reason));
    device->backend->info(device, &info);
    ck_assert(!info.is_gpu);
    ck_assert(support_contains(reason, "none is a GPU"));
    device_close(device);

    as_gpu = true;
    setenv("COSTINFER_OPENCL_SHAPE", "gpu", 1);
    ck_ok(device_open(&device, "auto", NULL, reason));
    device->backend->info(device, &info);
    ck_assert(info.is_gpu && info.memory_total > 0);
    ck_assert_msg(support_contains(reason, "opencl:0:0") && support_contains(reason, "most memory"), "%s",
                  reason);
    device_close(device);
}
END_TEST

/* `auto` falls back when the GPU does not open, and says so.  Naming the GPU gets the failure. */
START_TEST(auto_falls_back)
{
    struct device *device = NULL;
    struct device_info info;
    char reason[DEVICE_REASON_MAX];
    as_gpu = no_context = true;
    ck_ok(device_open(&device, "auto", NULL, reason));
    device->backend->info(device, &info);
    ck_assert(!info.is_gpu);
    ck_assert_msg(support_contains(reason, "the GPU cannot be used: device opencl:0:0: creating a context: "
                                           "CL_DEVICE_NOT_AVAILABLE"),
                  "%s", reason);
    device_close(device);
    device = NULL;
    ck_fails(device_open(&device, "opencl", NULL, NULL), CINF_EDEVICE, "CL_DEVICE_NOT_AVAILABLE");
    ck_assert_ptr_null(device);
    no_context = false;
    ck_ok(device_open(&device, "opencl", NULL, NULL)); /* the failure left nothing taken */
    device_close(device);
}
END_TEST

/* A driver without devices, like PoCL when it finds no folder to write to. */
START_TEST(platform_without_devices)
{
    struct device *device = NULL;
    struct device_info info;
    char reason[DEVICE_REASON_MAX];
    no_devices = true;
    ck_fails(backend_opencl.find(0, &info), CINF_ENOTFOUND, "platforms and no device; ");
    ck_fails(device_open(&device, "opencl", NULL, NULL), CINF_ENOTFOUND, "CL_DEVICE_NOT_FOUND (-1)");
    ck_assert_ptr_null(device);
    ck_ok(device_open(&device, "auto", NULL, reason));
    ck_assert_msg(support_contains(reason, "no device"), "%s", reason);
    device_close(device);
}
END_TEST

/* Losing the device fails the step under way, and the thread that waits for it gets the error. */
START_TEST(lost_device)
{
    struct device *device;
    ck_ok(backend_opencl.open(&device, &(struct device_options){ 0 }));
    struct opencl_device *d = (struct opencl_device *)device;
    for (int sleeps = 0; sleeps < 2; sleeps++) {
        d->sleeps = sleeps;
        cl_int error;
        cl_event event = clCreateUserEvent(d->context, &error);
        ck_assert_int_eq(error, CL_SUCCESS);
        clSetUserEventStatus(event, CL_OUT_OF_RESOURCES);
        ck_fails(opencl_wait_event(d, event), CINF_EDEVICE, "waiting for a step");
    }
    backend_opencl.close(device);
}
END_TEST

/* The running request fails with the reason, its time is still charged, and the engine closes. */
START_TEST(lost_device_under_an_engine)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    struct cinf_result *result = NULL;
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    char path[512];
    snprintf(path, sizeof path, "%s/examples/models/stories-small", getenv("CINF_SOURCE"));
    ck_ok(
        cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = "opencl" }));
    ck_ok(
        cinf_model_load(&model, engine, &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = path }));
    const struct cinf_request_options options = { CINF_REQUEST_OPTIONS, .prompt = "Once", .max_tokens = 3 };
    ck_ok(cinf_generate(&result, model, &options, NULL, NULL));
    cinf_result_free(result);
    result = NULL;
    atomic_store(&lost, true);
    ck_fails(cinf_generate(&result, model, &options, NULL, NULL), CINF_EDEVICE, "CL_DEVICE_NOT_AVAILABLE");
    ck_assert_ptr_null(result);
    ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
    ck_assert_uint_eq(s.serve_ns + s.load_ns + s.idle_ns + s.lost_ns + s.overhead_ns, s.as_of_ns);
    ck_assert_uint_eq(s.models[0].running, 0);
    cinf_snapshot_free(&s);
    cinf_model_release(model);
    cinf_engine_close(engine);
}
END_TEST

START_TEST(addresses)
{
    static const struct {
        cl_device_info query;
        struct pci_address at;
    } queries[] = { { 0x410F, { 1, 0x65, 2, 3 } },
                    { 0x4037, { 0, 0x65, 0, 0 } },
                    { 0x4008, { 2, 0x41, 5, 1 } } };
    struct pci_address at = { 9, 9, 9, 9 };
    struct device *device;
    ck_ok(backend_opencl.open(&device, &(struct device_options){ 0 }));
    cl_device_id id = ((struct opencl_device *)device)->id;
    ck_assert(!opencl_find_address(&at, id));
    ck_assert_uint_eq(at.bus, 9);
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        bus_query = queries[i].query;
        ck_assert(opencl_find_address(&at, id));
        ck_assert_uint_eq(at.domain, queries[i].at.domain);
        ck_assert_uint_eq(at.bus, queries[i].at.bus);
        ck_assert_uint_eq(at.device, queries[i].at.device);
        ck_assert_uint_eq(at.function, queries[i].at.function);
    }
    backend_opencl.close(device);
}
END_TEST

/* Caches get four fifths of the free memory, by our count or by the driver's, and a layer's cache is one
 * buffer. */
START_TEST(room_for_caches)
{
    struct rig rig;
    struct device_info info;
    uint32_t n = 7;
    rig_begin(&rig, (struct shape){ 32, 2, 64, 50, 100, 2 });
    ck_ok(backend_opencl.open(&rig.device, &(struct device_options){ 0 }));
    struct opencl_device *device = (struct opencl_device *)rig.device;
    const uint64_t slot = backend_opencl.kv_slot_bytes(rig.device, &rig.program);
    const uint64_t total = device->memory_total, alloc_max = device->alloc_max;
    device->memory_total = 50 * slot;
    ck_ok(backend_opencl.kv_slots_max(&n, rig.device, &rig.program));
    ck_assert_uint_eq(n, 40);
    atomic_store(&device->memory_used, 30 * slot); /* the weights */
    ck_ok(backend_opencl.kv_slots_max(&n, rig.device, &rig.program));
    ck_assert_uint_eq(n, 16);
    device->alloc_max = 5 * slot / 2; /* the slot has two layers */
    ck_ok(backend_opencl.kv_slots_max(&n, rig.device, &rig.program));
    ck_assert_uint_eq(n, 5);
    device->alloc_max = slot / 2 - 1;
    ck_fails(backend_opencl.kv_slots_max(&n, rig.device, &rig.program), CINF_ENOMEM, "at a time");
    ck_assert_uint_eq(n, 5);
    device->alloc_max = alloc_max;

    char library[512], used[64];
    snprintf(library, sizeof library, "%s/bin/libfake_nvml.so", getenv("CINF_BUILD"));
    snprintf(used, sizeof used, "%llu %llu", 45ull * slot, 50ull * slot);
    setenv("COSTINFER_FAKE_NVML", used, 1);
    device->vendor = vendor_memory_open(&(struct pci_address){ 0, 0x65, 0, 0 },
                                        &(struct vendor_sources){ library, "/nowhere", "/nowhere" });
    ck_assert_ptr_nonnull(device->vendor);
    ck_ok(backend_opencl.kv_slots_max(&n, rig.device, &rig.program));
    ck_assert_uint_eq(n, 4);
    backend_opencl.info(rig.device, &info);
    ck_assert_uint_eq(info.memory_used, 30 * slot);
    ck_assert_uint_eq(info.memory_taken, 45 * slot);
    snprintf(used, sizeof used, "%llu %llu", 49ull * slot, 50ull * slot);
    setenv("COSTINFER_FAKE_NVML", used, 1);
    ck_fails(backend_opencl.kv_slots_max(&n, rig.device, &rig.program), CINF_ENOMEM, "are left");
    ck_assert_uint_eq(n, 4);
    setenv("COSTINFER_FAKE_NVML", "memory", 1); /* the driver stops answering: our own count remains */
    ck_ok(backend_opencl.kv_slots_max(&n, rig.device, &rig.program));
    ck_assert_uint_eq(n, 16);
    device->memory_total = total;
    atomic_store(&device->memory_used, 0);
    rig.backend = &backend_opencl;
    rig_end(&rig);
}
END_TEST
/* End to end: a GPU with NVIDIA's library, an engine on it, and its meter, which follows even while idle. */
START_TEST(others_memory_is_watched)
{
    char library[512];
    snprintf(library, sizeof library, "%s/bin/libfake_nvml.so", getenv("CINF_BUILD"));
    void *fake = dlopen(library, RTLD_NOW), *symbol = fake ? dlsym(fake, "fake_nvml_use") : NULL;
    void (*use)(unsigned long long);
    ck_assert_msg(symbol != NULL, "%s", dlerror());
    memcpy(&use, &symbol, sizeof use);
    as_gpu = true;
    bus_query = 0x4037;
    use(5000000);
    struct cinf_engine *engine;
    ck_ok(cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS }));
    const struct cinf_meter *meter = cinf_engine_meter(engine);
    ck_assert_uint_eq(atomic_load(&meter->gpu_taken_bytes), 5000000);
    ck_assert_uint_eq(atomic_load(&meter->gpu_used_bytes), 0);
    use(7000000);
    for (int i = 0; i < 6000 && atomic_load(&meter->gpu_taken_bytes) != 7000000; i++)
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    ck_assert_uint_eq(atomic_load(&meter->gpu_taken_bytes), 7000000);
    cinf_engine_close(engine);
    use(0);
    dlclose(fake);
}
END_TEST

/* A profile lists every kernel that ran, with the device's time; without `profile` it is empty. */
START_TEST(profiles)
{
    for (int asked = 0; asked < 2; asked++) {
        struct profile_row row, before = { .ns = UINT64_MAX };
        struct rig rig;
        struct step_rows s;
        uint64_t norms = 0;
        uint32_t n = 0;
        struct backend backend = backend_opencl;
        backend.open = asked ? open_profiled : backend.open;
        rig_begin(&rig, (struct shape){ 32, 2, 64, 50, 100, 2 });
        add_program(&rig, PROGRAM_GPT2);
        rig_start(&rig, &backend, 16);
        struct opencl_profile *profile = ((struct opencl_device *)rig.device)->profile;
        ck_assert_int_eq(profile != NULL, asked);
        for (bool done = false; !done;)
            ck_ok(backend_opencl.prepare_more(rig.prepared, &done));
        ck_assert(!backend_opencl.profile(rig.device, 0, &row)); /* loading and warming up do not count */
        for (uint32_t i = 0; i < 3; i++) {
            step_begin(&s);
            step_add(&s, (struct run_of_rows){ 0, i, 1 }, 50, WANT_ALL);
            step_check(&rig, &s.batch, "timed");
        }
        for (; backend_opencl.profile(rig.device, n, &row); n++) {
            ck_assert_uint_le(row.ns, before.ns);
            ck_assert_uint_gt(row.launches, 0);
            norms += strcmp(row.name, "norm") == 0 ? row.launches : 0;
            before = row;
        }
        ck_assert_int_eq(n > 4, asked);
        ck_assert_uint_eq(norms, asked ? 3 * 5 : 0);
        rig_end(&rig);
    }
}
END_TEST

/* More launches than events are kept; and clearing them. */
START_TEST(profiles_of_many_launches)
{
    struct device *device;
    struct profile_row row;
    ck_ok(open_profiled(&device, &(struct device_options){ 0 }));
    struct opencl_device *d = (struct opencl_device *)device;
    static const char *const source[] = { "__kernel void one(__global int *x) { x[0] = 1; }" };
    cl_program program;
    cl_kernel kernel;
    struct opencl_buffer x;
    ck_ok(opencl_program_new(&program, d, "", source, 1));
    ck_ok(opencl_kernel_new(&kernel, d, program, "one"));
    ck_ok(opencl_buffer_new(&x, d, 64, 0, true, "x"));
    const struct opencl_argument arguments[] = { ARGUMENT(x.mem), { 0 } };
    ck_ok(opencl_arguments(d, kernel, arguments));
    const size_t one[3] = { 1, 1, 1 };
    for (int i = 0; i < 2500; i++)
        ck_ok(opencl_launch(d, kernel, one, one));
    clReleaseKernel(kernel); /* its launches outlive it */
    clReleaseProgram(program);
    ck_assert(backend_opencl.profile(device, 0, &row));
    ck_assert_str_eq(row.name, "one");
    ck_assert_uint_eq(row.launches, 2500);
    ck_assert(!backend_opencl.profile(device, 1, &row));
    opencl_profile_clear(d->profile);
    ck_assert(!backend_opencl.profile(device, 0, &row));
    opencl_buffer_free(d, &x);
    backend_opencl.close(device);
}
END_TEST

/* Warming up runs each operation at each size, one a call; a step then works. */
START_TEST(prepared_in_pieces)
{
    struct rig rig;
    struct step_rows s;
    const float *logits;
    bool done = false;
    uint32_t n = 0;
    rig_begin(&rig, (struct shape){ 32, 2, 64, 50, 100, 1 });
    add_program(&rig, PROGRAM_GPT2);
    rig_start(&rig, &backend_opencl, 16);
    for (; !done; n++)
        ck_ok(backend_opencl.prepare_more(rig.prepared, &done));
    ck_assert_uint_eq(n, 4 * rig.program.n_ops);
    ck_fails(backend_opencl.logits(rig.prepared, 0, &logits), CINF_EINVAL, "logits 0");
    step_begin(&s);
    step_add(&s, (struct run_of_rows){ 0, 0, 9 }, 50, WANT_ALL);
    step_check(&rig, &s.batch, "after warming up");
    rig_end(&rig);
}
END_TEST
static void *complete_later(void *event)
{
    nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
    clSetUserEventStatus((cl_event)event, CL_COMPLETE);
    clReleaseEvent((cl_event)event);
    return NULL;
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Waiting takes no processor time, whether the driver sleeps or we do because it would spin. */
START_TEST(waiting_does_not_spin)
{
    struct device *device;
    ck_ok(backend_opencl.open(&device, &(struct device_options){ 0 }));
    struct opencl_device *d = (struct opencl_device *)device;
    for (int sleeps = 0; sleeps < 2; sleeps++) {
        d->sleeps = sleeps;
        cl_int error;
        pthread_t thread;
        cl_event event = clCreateUserEvent(d->context, &error);
        ck_assert_int_eq(error, CL_SUCCESS);
        clRetainEvent(event);
        pthread_create(&thread, NULL, complete_later, event);
        uint64_t wall = clock_monotonic_ns(), cpu = thread_cpu_ns();
        ck_ok(opencl_wait_event(d, event));
        wall = clock_monotonic_ns() - wall;
        cpu = thread_cpu_ns() - cpu;
        pthread_join(thread, NULL);
        printf("%s: waited %.1f ms, %.2f ms of processor\n", sleeps ? "the driver" : "we", (double)wall / 1e6,
               (double)cpu / 1e6);
        ck_assert_uint_ge(wall, 290000000);
        ck_assert_uint_lt(cpu, wall / 10);
    }
    backend_opencl.close(device);
}
END_TEST
#endif

Suite *suite(void)
{
    TCase *t;
    Suite *s = opencl_suite("opencl_device", &t, "", false);
#if CINF_HAVE_OPENCL
    tcase_add_checked_fixture(t, begin, NULL);
    tcase_add_test(t, auto_takes_a_gpu);
    tcase_add_test(t, auto_falls_back);
    tcase_add_test(t, platform_without_devices);
    tcase_add_test(t, lost_device);
    tcase_add_test(t, lost_device_under_an_engine);
    tcase_add_test(t, addresses);
    tcase_add_test(t, room_for_caches);
    tcase_add_test(t, others_memory_is_watched);
    tcase_add_test(t, profiles);
    tcase_add_test(t, profiles_of_many_launches);
    tcase_add_test(t, prepared_in_pieces);
    tcase_add_test(t, waiting_does_not_spin);
#endif
    return s;
}
