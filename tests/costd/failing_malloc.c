/* failing_malloc.c - preloaded into a program, it fails a share of all allocations, those of the libraries
 * too.
 *
 * The share is read from a file that another process writes, so that failures begin when the program runs and
 * end again.  Which allocations fail depends on the seed and on their number since the share was set alone.
 * It also counts the blocks that are not freed. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);
extern void __libc_free(void *block);

static struct control {
    _Atomic uint64_t per_mille, seed, n_calls, n_failed, n_live;
} * control;

__attribute__((constructor)) static void open_control(void)
{
    const char *path = getenv("FAILING_MALLOC");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        control = shared;
}

/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

static int fails(void)
{
    uint64_t per_mille = control ? atomic_load(&control->per_mille) : 0;
    if (!per_mille)
        return 0;
    uint64_t number = atomic_fetch_add(&control->n_calls, 1) + 1;
    if (mix(atomic_load(&control->seed) + number * UINT64_C(0x9E3779B97F4A7C15)) % 1000 >= per_mille)
        return 0;
    atomic_fetch_add(&control->n_failed, 1);
    errno = ENOMEM;
    return 1;
}

static void *counted(void *block)
{
    if (block && control)
        atomic_fetch_add(&control->n_live, 1);
    return block;
}

void *malloc(size_t n)
{
    return fails() ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__libc_calloc(n, size));
}

void *realloc(void *old, size_t n)
{
    if (!old)
        return malloc(n);
    return fails() ? NULL : __libc_realloc(old, n);
}

void *memalign(size_t alignment, size_t n)
{
    return fails() ? NULL : counted(__libc_memalign(alignment, n));
}

void free(void *block)
{
    if (block && control)
        atomic_fetch_sub(&control->n_live, 1);
    __libc_free(block);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    return memalign(alignment, n);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
    void *block = memalign(alignment, n);
    if (!block)
        return ENOMEM;
    *out = block;
    return 0;
}
