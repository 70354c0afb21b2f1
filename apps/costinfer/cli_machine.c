/* cli_machine.c - the speed of memory and of multiply-adds.
 *
 * The best pass counts and not the median: a limit is what was seen to be possible.  Every thread reads four
 * streams with prefetching into huge pages, which is what memory answers fastest. */
#define _GNU_SOURCE /* MADV_HUGEPAGE */
#include "cli_machine.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"

enum {
    THREADS_MAX = 256,
    PASSES = 15,
    STREAMS = 4,             /* read by a thread side by side */
    BLOCK = 16,              /* words of a stream read at a time: two lines of cache */
    AHEAD_BYTES = 1024,      /* how far a stream is prefetched */
    ACCUMULATORS = 12,       /* more than the multiply-adds that any core has under way */
    MULTIPLY_ADDS = 1000000, /* of each of them in a pass */
};

static const size_t read_bytes = (size_t)256 << 20; /* of all threads: more than caches hold */

/* One pass of all threads. */
struct job {
    uint64_t (*work)(const struct job *job,
                     uint32_t index); /* what it returns keeps it from being left out */
    uint32_t threads;
    const uint64_t *words; /* [read_bytes / 8] */
};

struct worker {
    pthread_t thread;
    const struct job *job;
    uint32_t index;
    uint64_t result;
};

static uint64_t read_part(const struct job *job, uint32_t index)
{
    const size_t n = read_bytes / sizeof(uint64_t) / job->threads / STREAMS / BLOCK * BLOCK;
    const uint64_t *part = job->words + index * n * STREAMS;
    uint64_t sums[BLOCK] = { 0 }, sum = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        for (size_t s = 0; s < STREAMS; s++) {
            const uint64_t *at = part + s * n + i;
            /* A prefetch beyond the end does nothing, and its address is never used. */
            __builtin_prefetch((const char *)at + AHEAD_BYTES);
            __builtin_prefetch((const char *)at + AHEAD_BYTES + 64);
            for (size_t k = 0; k < BLOCK; k++)
                sums[k] += at[k];
        }
    }
    for (size_t k = 0; k < BLOCK; k++)
        sum += sums[k];
    return sum;
}

#ifdef __x86_64__
#include <immintrin.h>

#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

__attribute__((target("avx512f"))) static uint64_t multiply_512(const struct job *job, uint32_t index)
{
    __m512 x = _mm512_set1_ps(0.999F), y = _mm512_set1_ps((float)(index + job->threads));
#define BEGIN(i) __m512 a##i = _mm512_set1_ps(i);
#define STEP(i)  a##i = _mm512_fmadd_ps(a##i, x, y);
#define END(i)   x = _mm512_add_ps(x, a##i);
    EACH(BEGIN)
    for (uint32_t i = 0; i < MULTIPLY_ADDS; i++) {
        EACH(STEP)
    }
    EACH(END)
#undef BEGIN
#undef STEP
#undef END
    return (uint64_t)_mm512_reduce_add_ps(x);
}

__attribute__((target("avx2,fma"))) static uint64_t multiply_256(const struct job *job, uint32_t index)
{
    __m256 x = _mm256_set1_ps(0.999F), y = _mm256_set1_ps((float)(index + job->threads));
#define BEGIN(i) __m256 a##i = _mm256_set1_ps(i);
#define STEP(i)  a##i = _mm256_fmadd_ps(a##i, x, y);
#define END(i)   x = _mm256_add_ps(x, a##i);
    EACH(BEGIN)
    for (uint32_t i = 0; i < MULTIPLY_ADDS; i++) {
        EACH(STEP)
    }
    EACH(END)
#undef BEGIN
#undef STEP
#undef END
    return (uint64_t)_mm256_cvtss_f32(x);
}
#endif

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    worker->result = worker->job->work(worker->job, worker->index);
    return NULL;
}

/* The shortest pass in nanoseconds; 0 when not all threads can be started. */
static uint64_t best_pass(const struct job *job)
{
    struct worker workers[THREADS_MAX];
    uint64_t best = UINT64_MAX;
    for (uint32_t pass = 0; pass < PASSES; pass++) {
        uint64_t start = clock_monotonic_ns();
        uint32_t started = 0;
        for (; started < job->threads; started++) {
            struct worker *w = &workers[started];
            *w = (struct worker){ .job = job, .index = started };
            if (pthread_create(&w->thread, NULL, run_worker, w) != 0)
                break;
        }
        for (uint32_t i = 0; i < started; i++)
            pthread_join(workers[i].thread, NULL);
        uint64_t ns = clock_monotonic_ns() - start;
        if (started < job->threads)
            return 0;
        if (ns < best)
            best = ns;
    }
    return best;
}

static double read_speed(struct job *job)
{
    void *words = mmap(NULL, read_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        return 0;
    madvise(words, read_bytes, MADV_HUGEPAGE);
    memset(words, 1, read_bytes); /* a page that nobody wrote is the one page of zeros */
    job->words = words;
    job->work = read_part;
    uint64_t ns = best_pass(job);
    munmap(words, read_bytes);
    return ns ? (double)read_bytes / (double)ns : 0;
}

static double multiply_speed(struct job *job)
{
    uint32_t lanes = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) {
        job->work = multiply_512;
        lanes = 16;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        job->work = multiply_256;
        lanes = 8;
    }
#endif
    uint64_t ns = lanes ? best_pass(job) : 0;
    return ns ? 2.0 * lanes * ACCUMULATORS * MULTIPLY_ADDS * job->threads / (double)ns : 0;
}

struct machine_speed machine_measure(uint32_t threads)
{
    struct job job = { .threads = threads == 0 ? 1 : threads < THREADS_MAX ? threads : THREADS_MAX };
    return (struct machine_speed){ .gb_per_second = read_speed(&job),
                                   .gflop_per_second = multiply_speed(&job) };
}
