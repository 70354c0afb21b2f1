/* pulse.c - signs of life, and judging what lies between two of them.
 *
 * A reading moves `last_ns` to itself by compare-and-swap, so time that has been read, and therefore charged
 * or shown, can no longer become part of a stall.  A thread that is stopped between reading the clock and
 * that exchange finds that `last_ns` has moved, and reads the clock again: no interval can end before a stall
 * and be charged with it. */
#include "pulse.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "cond_wait.h"
#include "fail.h"

/* Processors' clocks may differ by less than this.  A clock that goes back further was set back, as after a
 * virtual machine is restored. */
#define SKEW_NS INT64_C(1000000)

static uint64_t read_clock(struct pulse *pulse)
{
    uint64_t offset_ns = atomic_load(&pulse->offset_ns);
    return pulse->clock_ns(pulse->context) + offset_ns;
}

/* How far the clock has moved since an earlier reading; negative: it went back, perhaps to before the start.
 */
static int64_t passed(uint64_t last_ns, uint64_t now_ns)
{
    return (int64_t)(now_ns - last_ns);
}

/* How much of a gap between two signs of life was lost, of which the heartbeat waited `wait_ns` for a
 * processor, and in which the process used `cpu_ns` of CPU time (or since the beat before it).
 *
 * The process stopped at an unknown moment before the next sign was due: half the usual distance after the
 * first one.  CPU time of more than an eighth of the gap shows that the process did run, and that something
 * else held the heartbeat. */
static uint64_t lost_in(const struct pulse *pulse, uint64_t gap_ns, uint64_t wait_ns, uint64_t cpu_ns)
{
    uint64_t around_ns = 2 * BEAT_NS * pulse->n_cpus;
    uint64_t ran_ns = wait_ns + atomic_load(&pulse->usual_ns) / 2;
    if (gap_ns < ran_ns + (uint64_t)STALL_NS || cpu_ns > (around_ns > gap_ns / 8 ? around_ns : gap_ns / 8))
        return 0;
    return gap_ns - ran_ns;
}

static void set_usual(struct pulse *pulse, uint64_t distance_ns)
{
    uint64_t usual_ns = distance_ns < BEAT_NS ? distance_ns : BEAT_NS;
    atomic_store_explicit(&pulse->usual_ns, usual_ns, memory_order_relaxed);
}

/* For how long the heartbeat was ready to run without a processor: the second number of its schedstat. */
static uint64_t waited_for_processor(int schedstat)
{
    char text[96];
    ssize_t n = schedstat >= 0 ? pread(schedstat, text, sizeof text - 1, 0) : 0;
    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *second = strchr(text, ' ');
    return second ? strtoull(second, NULL, 10) : 0;
}

/* Caller holds the lock.  Moves the last sign of life to now, whatever lies between.  `schedstat` is the
 * heartbeat's own, or -1.
 *
 * A thread can lose its processor between any two readings, so the waiting is measured from before one
 * reading of the clock to after the next: too much is taken for waiting sometimes, and never too little. */
static void judge(struct pulse *pulse, int schedstat)
{
    uint64_t cpu_ns = clock_process_cpu_ns(), wait_from_ns = waited_for_processor(schedstat);
    for (;;) {
        uint64_t last_ns = atomic_load(&pulse->last_ns), now_ns = read_clock(pulse);
        if (passed(last_ns, now_ns) < -SKEW_NS) {
            atomic_fetch_add(&pulse->offset_ns, last_ns - now_ns);
            atomic_fetch_add(&pulse->n_steps, 1);
            break;
        }
        if (passed(last_ns, now_ns) <= 0)
            break;
        uint64_t gap_ns = now_ns - last_ns;
        /* In the child of a fork the CPU clock starts again. */
        uint64_t lost_ns = 0;
        if (pulse->watched && gap_ns > (uint64_t)STALL_NS && cpu_ns >= pulse->beat_cpu_ns) {
            uint64_t wait_ns = schedstat < 0 ? 0 : waited_for_processor(schedstat) - pulse->beat_wait_ns;
            lost_ns = lost_in(pulse, gap_ns, wait_ns, cpu_ns - pulse->beat_cpu_ns);
        }
        atomic_fetch_add(&pulse->claims, 1);
        bool claimed = atomic_compare_exchange_strong(&pulse->last_ns, &last_ns, now_ns);
        if (claimed && lost_ns > 0) {
            atomic_fetch_add(&pulse->lost_ns, lost_ns);
            atomic_fetch_add(&pulse->n_stalls, 1);
        } else if (claimed) {
            set_usual(pulse, gap_ns);
        }
        atomic_fetch_add(&pulse->claims, 1);
        if (claimed)
            break;
    }
    pulse->beat_cpu_ns = cpu_ns;
    if (schedstat >= 0)
        pulse->beat_wait_ns = wait_from_ns;
}

enum reading { READ, AGAIN, TO_JUDGE };

static enum reading read_once(struct pulse *pulse, struct moment *out)
{
    uint64_t claims = atomic_load(&pulse->claims);
    uint64_t last_ns = atomic_load(&pulse->last_ns), lost_ns = atomic_load(&pulse->lost_ns);
    if (claims % 2 == 1 || atomic_load(&pulse->claims) != claims)
        return claims % 2 == 1 ? TO_JUDGE : AGAIN;
    uint64_t now_ns = read_clock(pulse);
    int64_t distance_ns = passed(last_ns, now_ns);
    if (distance_ns < -SKEW_NS || (pulse->watched && distance_ns > STALL_NS))
        return TO_JUDGE;
    if (distance_ns <= 0) {
        now_ns = last_ns;
    } else {
        if (!atomic_compare_exchange_strong(&pulse->last_ns, &last_ns, now_ns))
            return AGAIN;
        set_usual(pulse, (uint64_t)distance_ns);
    }
    *out = (struct moment){ now_ns, lost_ns };
    return READ;
}

/* The heartbeat knows best what happened; without it the CPU time has to do.  In the child of a fork there is
 * no heartbeat. */
static void let_judge(struct pulse *pulse)
{
    pthread_mutex_lock(&pulse->lock);
    uint64_t last_ns = atomic_load(&pulse->last_ns);
    if (pulse->watched && getpid() == pulse->pid && passed(last_ns, read_clock(pulse)) > STALL_NS)
        cond_wait_until(&pulse->beats, &pulse->lock, clock_monotonic_ns() + PATIENCE_NS);
    if (atomic_load(&pulse->last_ns) == last_ns)
        judge(pulse, -1);
    pthread_mutex_unlock(&pulse->lock);
}

static struct moment read_pulse(struct pulse *pulse)
{
    struct moment now;
    enum reading reading;
    while ((reading = read_once(pulse, &now)) != READ)
        if (reading == TO_JUDGE)
            let_judge(pulse);
    return now;
}

struct moment pulse_now(struct pulse *pulse)
{
    if (!pulse->stalled_ns)
        return read_pulse(pulse);
    struct moment now;
    uint64_t before;
    do {
        before = pulse->stalled_ns(pulse->context);
        now = read_pulse(pulse);
        now.lost_ns = pulse->stalled_ns(pulse->context);
    } while (now.lost_ns != before);
    return now;
}

static void *beat(void *context)
{
    struct pulse *pulse = context;
    int schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    pthread_mutex_lock(&pulse->lock);
    pulse->beat_wait_ns = waited_for_processor(schedstat);
    while (!pulse->closing) {
        judge(pulse, schedstat);
        pthread_cond_broadcast(&pulse->beats);
        cond_wait_until(&pulse->beats, &pulse->lock, clock_monotonic_ns() + BEAT_NS);
    }
    pthread_mutex_unlock(&pulse->lock);
    if (schedstat >= 0)
        close(schedstat);
    return NULL;
}

static int start_heartbeat(struct pulse *pulse)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&pulse->heartbeat, NULL, beat, pulse);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum cinf_status pulse_open(struct pulse *pulse, uint64_t (*clock_ns)(void *context),
                            uint64_t (*stalled_ns)(void *context), void *context, bool watch)
{
    long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    pulse->clock_ns = clock_ns;
    pulse->stalled_ns = stalled_ns;
    pulse->context = context;
    pulse->pid = getpid();
    pulse->n_cpus = n_cpus > 0 ? (uint64_t)n_cpus : 1;
    pulse->beat_cpu_ns = clock_process_cpu_ns();
    atomic_init(&pulse->offset_ns, 0 - clock_ns(context));
    pthread_mutex_init(&pulse->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pulse->beats, &attributes);
    pthread_condattr_destroy(&attributes);
    pulse->watched = watch;
    int error = watch ? start_heartbeat(pulse) : 0;
    if (error != 0) {
        pulse->watched = false;
        pulse_close(pulse);
        return cinf_fail(CINF_ENOMEM, "no thread to watch a meter's clock: %s", strerror(error));
    }
    return CINF_OK;
}

void pulse_close(struct pulse *pulse)
{
    if (!pulse->clock_ns)
        return;
    if (pulse->watched) {
        pthread_mutex_lock(&pulse->lock);
        pulse->closing = true;
        pthread_cond_broadcast(&pulse->beats);
        pthread_mutex_unlock(&pulse->lock);
        pthread_join(pulse->heartbeat, NULL);
    }
    pthread_cond_destroy(&pulse->beats);
    pthread_mutex_destroy(&pulse->lock);
    pulse->clock_ns = NULL;
}
