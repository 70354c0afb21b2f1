/* device_threads.c - finding the threads of a device, and the sum of their clocks. */
#include "device_threads.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"

/* A thread that used less than this part of a measurement did not compute in it. */
enum { LEAST_PART = 20 };

static bool read_thread(clockid_t clock, uint64_t *ns)
{
    struct timespec t;
    if (clock_gettime(clock, &t) != 0)
        return false;
    *ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    return true;
}

/* The clock that pthread_getcpuclockid() gives for the thread of that number: part of Linux's interface to
 * programs, as clock numbers are made of thread numbers by the C library. */
static clockid_t thread_clock(long tid)
{
    return (clockid_t)(~(unsigned)tid << 3 | 6);
}

static void add(struct device_threads *threads, clockid_t clock)
{
    uint64_t used_ns;
    if (threads->n < DEVICE_THREADS_MAX && read_thread(clock, &used_ns))
        threads->thread[threads->n++] = (struct device_thread){ clock, used_ns };
}

void device_threads_add_self(struct device_threads *threads)
{
    clockid_t clock;
    if (pthread_getcpuclockid(pthread_self(), &clock) == 0)
        add(threads, clock);
}

/* ---- A pool that is lent --------------------------------------------------------------------- */

struct roll_call {
    pthread_mutex_t lock;
    struct device_threads *threads;
    atomic_uint n_arrived;
    uint32_t n;
    uint64_t until_ns;
};

/* No thread leaves before all are there, so each of them comes once. */
static void answer(const void *argument, uint32_t i, uint32_t worker)
{
    struct roll_call *call = (struct roll_call *)argument;
    (void)i;
    if (worker > 0) {
        pthread_mutex_lock(&call->lock);
        device_threads_add_self(call->threads);
        pthread_mutex_unlock(&call->lock);
    }
    atomic_fetch_add(&call->n_arrived, 1);
    while (atomic_load(&call->n_arrived) < call->n && clock_monotonic_ns() < call->until_ns)
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

static void call_roll(struct device_threads *threads, struct device *device, uint32_t n)
{
    struct roll_call call = { PTHREAD_MUTEX_INITIALIZER, threads, 0, n, clock_monotonic_ns() + 2000000000u };
    device->backend->parallel(device, answer, &call, n);
    pthread_mutex_destroy(&call.lock);
}

/* ---- A library's threads --------------------------------------------------------------------- */

/* All threads of the process but the calling one. */
static void list_threads(struct device_threads *all)
{
    DIR *folder = opendir("/proc/self/task");
    clockid_t self;
    if (!folder || pthread_getcpuclockid(pthread_self(), &self) != 0) {
        if (folder)
            closedir(folder);
        return;
    }
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        long tid = strtol(entry->d_name, NULL, 10);
        if (tid > 0 && thread_clock(tid) != self)
            add(all, thread_clock(tid));
    }
    closedir(folder);
}

static uint64_t used_before(const struct device_threads *before, clockid_t clock)
{
    for (uint32_t i = 0; i < before->n; i++)
        if (before->thread[i].clock == clock)
            return before->thread[i].used_ns;
    return 0;
}

/* Keeps the threads that used at least `least_ns` since `before`; at most `max`, those that used most. */
static void keep_busy(struct device_threads *threads, const struct device_threads *before, uint64_t least_ns,
                      uint32_t max)
{
    struct device_threads now = { 0 };
    list_threads(&now);
    while (threads->n < max) {
        struct device_thread *most = NULL;
        uint64_t most_ns = least_ns;
        for (uint32_t i = 0; i < now.n; i++) {
            uint64_t ns = now.thread[i].used_ns - used_before(before, now.thread[i].clock);
            if (now.thread[i].used_ns > 0 && ns >= most_ns) {
                most = &now.thread[i];
                most_ns = ns;
            }
        }
        if (!most)
            return;
        threads->thread[threads->n++] = *most;
        *most = (struct device_thread){ 0 };
    }
}

enum cinf_status device_threads_find(struct device_threads *threads, struct device *device,
                                     struct device_speed *speed)
{
    struct device_info info;
    device->backend->info(device, &info);
    if (device->backend->parallel) {
        call_roll(threads, device, info.threads);
        return device->backend->measure(device, speed);
    }
    struct device_threads before = { 0 };
    list_threads(&before);
    uint64_t start_ns = clock_monotonic_ns();
    enum cinf_status status = device->backend->measure(device, speed);
    uint64_t took_ns = clock_monotonic_ns() - start_ns;
    if (!info.is_gpu)
        keep_busy(threads, &before, took_ns / LEAST_PART + 1,
                  info.threads < DEVICE_THREADS_MAX ? info.threads : DEVICE_THREADS_MAX);
    return status;
}

uint64_t device_threads_cpu_ns(struct device_threads *threads)
{
    uint64_t sum_ns = 0;
    for (uint32_t i = 0; i < threads->n; i++) {
        struct device_thread *t = &threads->thread[i];
        uint64_t used_ns;
        if (read_thread(t->clock, &used_ns) && used_ns > t->used_ns)
            t->used_ns = used_ns;
        sum_ns += t->used_ns;
    }
    return sum_ns;
}
