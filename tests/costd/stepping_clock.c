/* stepping_clock.c - preloaded into a program, it moves the wall clock a millisecond ahead at each reading,
 * as time between two clocks' readings or a step of the clock does. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *at)
{
    static _Atomic long n_readings;
    int status = (int)syscall(SYS_clock_gettime, clock, at);
    if (status == 0 && clock == CLOCK_REALTIME) {
        long ms = atomic_fetch_add(&n_readings, 1) + at->tv_nsec / 1000000;
        at->tv_sec += ms / 1000;
        at->tv_nsec = ms % 1000 * 1000000 + at->tv_nsec % 1000000;
    }
    return status;
}
