/* token_times.c - linked into a copy of costd, it records when the engine publishes a request's tokens.
 *
 * The linker replaces calls of request_publish() by __wrap_request_publish() (--wrap).  TOKEN_TIMES names a
 * file of RECORDS records that is shared with the measuring process; a request is identified by its seed, a
 * token by the number of events so far.  The clock is the machine's monotonic one, which other processes read
 * too. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "engine_state.h"

enum { RECORDS = 1 << 20 };

struct record {
    uint64_t seed, n_events, ns;
};

static struct {
    _Atomic uint64_t n;
    struct record records[RECORDS];
} * shared;

void __real_request_publish(struct cinf_request *request);
void __wrap_request_publish(struct cinf_request *request);

__attribute__((constructor)) static void open_shared(void)
{
    const char *path = getenv("TOKEN_TIMES");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        shared = map;
}

void __wrap_request_publish(struct cinf_request *request)
{
    uint64_t now = clock_monotonic_ns(), at = shared ? atomic_fetch_add(&shared->n, 1) : RECORDS;
    __real_request_publish(request);
    if (at < RECORDS) /* n_in needs no lock: only this thread, the scheduler's, adds events */
        shared->records[at] = (struct record){ cinf_request_seed(request), request->n_in, now };
}
