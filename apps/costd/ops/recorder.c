#include "recorder.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <costinfer/engine.h>

#include "clock.h"
#include "fail.h"
#include "log.h"
#include "mem.h"

struct recorder {
    struct cinf_engine *engine;
    uint64_t run;
    uint64_t start_ns; /* when the meter was opened, on the monotonic clock */
    pthread_t thread;
    uint64_t n_stalls, n_clock_steps, lost_ns; /* the thread's: what has been told */
    pthread_mutex_t lock;                      /* guards the fields below */
    pthread_cond_t wake;
    bool stopping;
    struct history *history;
    struct recent recent[RECENT_MAX];
    uint64_t n_recent; /* ever; the last lies at (n_recent - 1) % RECENT_MAX */
};

uint64_t recorder_process_bytes(void)
{
    char text[128];
    unsigned long long size, resident;
    FILE *f = fopen("/proc/self/statm", "re");
    bool good = f && fgets(text, sizeof text, f) && sscanf(text, "%llu %llu", &size, &resident) == 2;
    if (f)
        fclose(f);
    return good ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t recorder_run(const struct recorder *r)
{
    return r->run;
}

struct cinf_engine *recorder_engine(const struct recorder *r)
{
    return r->engine;
}

uint64_t recorder_now(const struct recorder *r)
{
    return clock_monotonic_ns() - r->start_ns;
}

/* ---- The thread --------------------------------------------------------------------------- */

/* Says what happened to the clock since the last sample. */
static void tell_stalls(struct recorder *r, const struct cinf_snapshot *now)
{
    struct log_line line;
    if (now->stalls > r->n_stalls) {
        log_begin(&line, "warn", "stalled");
        log_u64(&line, "stalls", now->stalls - r->n_stalls);
        log_seconds(&line, "lost_seconds", now->lost_ns - r->lost_ns);
        log_text(&line, "message", "the process could not run; no request is charged for that time");
        log_end(&line);
    }
    if (now->clock_steps > r->n_clock_steps) {
        log_begin(&line, "warn", "clock_stepped");
        log_u64(&line, "steps", now->clock_steps - r->n_clock_steps);
        log_text(&line, "message", "the monotonic clock went back; accounts go on from where they were");
        log_end(&line);
    }
    r->n_stalls = now->stalls;
    r->lost_ns = now->lost_ns;
    r->n_clock_steps = now->clock_steps;
}

/* A sample that fails for lack of memory leaves a gap. */
static void sample(struct recorder *r)
{
    struct cinf_snapshot snapshot = { CINF_SNAPSHOT };
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    uint64_t process_bytes = recorder_process_bytes();
    cinf_engine_device(r->engine, &device);
    if (cinf_meter_snapshot(&snapshot, cinf_engine_meter(r->engine)) != CINF_OK)
        return;
    tell_stalls(r, &snapshot);
    pthread_mutex_lock(&r->lock);
    history_record(r->history, recorder_now(r), &snapshot, device.memory_used, process_bytes);
    pthread_mutex_unlock(&r->lock);
    cinf_snapshot_free(&snapshot);
}

/* Returns false when it is time to stop. */
static bool sleep_until(struct recorder *r, uint64_t monotonic_ns)
{
    const struct timespec until = { .tv_sec = (time_t)(monotonic_ns / 1000000000),
                                    .tv_nsec = (long)(monotonic_ns % 1000000000) };
    int result = 0;
    pthread_mutex_lock(&r->lock);
    while (!r->stopping && result == 0)
        result = pthread_cond_timedwait(&r->wake, &r->lock, &until);
    bool stopping = r->stopping;
    pthread_mutex_unlock(&r->lock);
    return !stopping;
}

static void *record(void *context)
{
    struct recorder *r = context;
    for (;;) {
        uint64_t next = recorder_now(r) / HISTORY_TICK_NS + 1;
        if (!sleep_until(r, r->start_ns + next * HISTORY_TICK_NS))
            return NULL;
        sample(r);
    }
}

/* ---- Requests ----------------------------------------------------------------------------- */

static int64_t unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void recorder_add(struct recorder *r, const struct access *access, const struct outcome *o)
{
    if (!r)
        return;
    struct recent recent = { .ended_unix_ms = unix_ms(),
                             .key = access->key,
                             .status = access->status,
                             .endpoint = o->endpoint,
                             .stream = o->stream,
                             .report = o->report };
    memcpy(recent.id, access->id, sizeof recent.id);
    pthread_mutex_lock(&r->lock);
    r->recent[r->n_recent++ % RECENT_MAX] = recent;
    history_observe(r->history, o->report.model, o->report.latency_ns, o->report.first_token_ns);
    pthread_mutex_unlock(&r->lock);
}

uint32_t recorder_recent(struct recorder *r, struct recent *out)
{
    pthread_mutex_lock(&r->lock);
    uint32_t n = r->n_recent < RECENT_MAX ? (uint32_t)r->n_recent : RECENT_MAX;
    for (uint32_t i = 0; i < n; i++)
        out[i] = r->recent[(r->n_recent - 1 - i) % RECENT_MAX];
    pthread_mutex_unlock(&r->lock);
    return n;
}

const struct history *recorder_hold(struct recorder *r)
{
    pthread_mutex_lock(&r->lock);
    return r->history;
}

void recorder_release(struct recorder *r)
{
    pthread_mutex_unlock(&r->lock);
}

/* ---- Starting and stopping ---------------------------------------------------------------- */

static void recorder_free(struct recorder *r)
{
    history_free(r->history);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    mem_free(r);
}

enum cinf_status recorder_start(struct recorder **out, struct cinf_engine *engine)
{
    struct cinf_snapshot snapshot = { CINF_SNAPSHOT };
    pthread_condattr_t monotonic;
    struct recorder *r = mem_new(1, sizeof *r);
    if (!r)
        return cinf_fail(CINF_ENOMEM, "no memory for the recorder");
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    r->engine = engine;
    enum cinf_status status = history_new(&r->history);
    if (status == CINF_OK)
        status = cinf_meter_snapshot(&snapshot, cinf_engine_meter(engine));
    if (status == CINF_OK) {
        /* The device has been idle, so this is when the timeline began (a moment later on the basis of CPU
         * time, where the two clocks differ). */
        r->start_ns = clock_monotonic_ns() - snapshot.as_of_ns;
        cinf_snapshot_free(&snapshot);
        if (getrandom(&r->run, sizeof r->run, 0) != (ssize_t)sizeof r->run)
            r->run = r->start_ns ^ (uint64_t)getpid() << 32;
        if (pthread_create(&r->thread, NULL, record, r) != 0)
            status = cinf_fail(CINF_ENOMEM, "cannot start a thread for the history");
    }
    if (status != CINF_OK) {
        recorder_free(r);
        return status;
    }
    *out = r;
    return CINF_OK;
}

void recorder_stop(struct recorder *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    recorder_free(r);
}
