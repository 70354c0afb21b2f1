/* pulse.h - a clock that never goes back, and that tells apart the time in which the process could not run.
 *
 * A stall is a stretch of more than STALL_NS without a sign of life.  Every reading of the clock is such a
 * sign, and a thread that does nothing else (the heartbeat) gives one every BEAT_NS.  A process that was
 * stopped or frozen, or whose virtual machine was paused, gives none.  A thread that waits, for a GPU or for
 * a disk, does not stop the heartbeat: what it waits for is its step's time.
 *
 * Waiting for a processor is no stall either, however long: the kernel counts for how long the heartbeat was
 * ready to run, and that time stays where it was spent.  So sharing a machine, or using up a container's
 * processor quota, moves nothing.  The limit keeps the delays of a busy kernel apart from stops. */
#ifndef PULSE_H
#define PULSE_H

#include <costinfer/status.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BEAT_NS     UINT64_C(20000000)
#define STALL_NS    INT64_C(250000000)
#define PATIENCE_NS UINT64_C(2000000000)

/* One reading of a pulse. */
struct moment {
    uint64_t ns;      /* since the pulse was opened */
    uint64_t lost_ns; /* of these, in which the process could not run */
};

struct pulse {
    uint64_t (*clock_ns)(void *context);
    uint64_t (*stalled_ns)(void *context); /* the caller's own measure of lost time; or NULL */
    void *context;
    bool watched; /* there is a heartbeat */

    /* Any thread.  `claims` is odd while `lost_ns` follows a `last_ns` that has moved already. */
    _Atomic uint64_t offset_ns; /* added to the clock, modulo 2^64 */
    _Atomic uint64_t last_ns;   /* the latest sign of life */
    _Atomic uint64_t usual_ns;  /* the distance between the last two signs of life, at most BEAT_NS */
    _Atomic uint64_t lost_ns;
    _Atomic uint64_t claims;
    _Atomic uint64_t n_stalls;
    _Atomic uint64_t n_steps; /* how often the clock went back */

    pthread_mutex_t lock; /* a stall is judged by one thread at a time */
    pthread_cond_t beats; /* after every beat, and to the heartbeat when it has to end */
    pthread_t heartbeat;
    pid_t pid;
    bool closing;
    uint64_t beat_cpu_ns;  /* CPU time of the process at the last judgement, */
    uint64_t beat_wait_ns; /* and for how long the heartbeat had waited for a processor at its last beat */
    uint64_t n_cpus;
};

/* Starts a pulse at 0.  With `watch` there is a heartbeat: a thread, which takes no signals. */
enum cinf_status pulse_open(struct pulse *pulse, uint64_t (*clock_ns)(void *context),
                            uint64_t (*stalled_ns)(void *context), void *context, bool watch);
void pulse_close(struct pulse *pulse);

/* Reads the clock.  Any thread may call it; no reading is below an earlier one.  After a stall it waits for
 * the heartbeat to judge it, for PATIENCE_NS at most; a processor has to be given to that thread first. */
struct moment pulse_now(struct pulse *pulse);

#endif
