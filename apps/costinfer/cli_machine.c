/* cli_machine.c - the speed of memory and of multiply-adds.
 *
 * The best pass counts, not the median, because the result serves as an upper limit.  Memory is read in huge
 * pages, alternately from one place and from four, because machines differ in which is faster. */
#define _GNU_SOURCE /* MADV_HUGEPAGE */
#include "cli_machine.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"

enum {
    THREADS_MAX = 256,
    PASSES = 20,
    STREAMS_MOST = 4,        /* places that a thread reads from in turn */
    BLOCK = 8,               /* vectors read from a place at a time: two cache lines */
    AHEAD_BYTES = 1024,      /* prefetch distance */
    ACCUMULATORS = 12,       /* more than any core's multiply-adds in flight */
    MULTIPLY_ADDS = 1000000, /* for each accumulator in a pass */
};

static const size_t read_bytes = (size_t)256 << 20; /* by all threads together: more than caches hold */

typedef uint64_t words __attribute__((vector_size(16))); /* every processor loads it with one instruction */

/* What all threads do in one pass. */
struct task {
    uint64_t (*work)(const struct task *task,
                     uint32_t index); /* the result keeps compilers from removing the work */
    uint32_t threads;
    uint32_t streams;    /* 1 … STREAMS_MOST */
    const words *memory; /* [read_bytes / sizeof(words)] */
};

struct worker {
    pthread_t thread;
    const struct task *task;
    uint32_t index;
    uint64_t result;
};

static uint64_t read_part(const struct task *task, uint32_t index)
{
    const size_t n = read_bytes / sizeof(words) / task->threads / task->streams / BLOCK * BLOCK;
    const words *part = task->memory + index * n * task->streams;
    words sums[BLOCK] = { { 0 } };
    for (size_t i = 0; i < n; i += BLOCK) {
        for (size_t s = 0; s < task->streams; s++) {
            const words *at = part + s * n + i;
            /* A prefetch beyond the end has no effect. */
            __builtin_prefetch((const char *)at + AHEAD_BYTES);
            __builtin_prefetch((const char *)at + AHEAD_BYTES + 64);
            sums[0] += at[0];
            sums[1] += at[1];
            sums[2] += at[2];
            sums[3] += at[3];
            sums[4] += at[4];
            sums[5] += at[5];
            sums[6] += at[6];
            sums[7] += at[7];
        }
    }
    for (size_t k = 1; k < BLOCK; k++)
        sums[0] += sums[k];
    return sums[0][0] + sums[0][1];
}

#ifdef __x86_64__
#include <immintrin.h>

#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

__attribute__((target("avx512f"))) static uint64_t multiply_512(const struct task *task, uint32_t index)
{
    __m512 x = _mm512_set1_ps(0.999F), y = _mm512_set1_ps((float)(index + task->threads));
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

__attribute__((target("avx2,fma"))) static uint64_t multiply_256(const struct task *task, uint32_t index)
{
    __m256 x = _mm256_set1_ps(0.999F), y = _mm256_set1_ps((float)(index + task->threads));
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
    worker->result = worker->task->work(worker->task, worker->index);
    return NULL;
}

/* The shortest pass in nanoseconds; 0 if not all threads could be started. */
static uint64_t best_pass(struct task *task)
{
    struct worker workers[THREADS_MAX];
    uint64_t best = UINT64_MAX;
    for (uint32_t pass = 0; pass < PASSES; pass++) {
        task->streams = pass % 2 ? 1 : STREAMS_MOST;
        uint64_t start = clock_monotonic_ns();
        uint32_t started = 0;
        for (; started < task->threads; started++) {
            struct worker *w = &workers[started];
            *w = (struct worker){ .task = task, .index = started };
            if (pthread_create(&w->thread, NULL, run_worker, w) != 0)
                break;
        }
        for (uint32_t i = 0; i < started; i++)
            pthread_join(workers[i].thread, NULL);
        uint64_t ns = clock_monotonic_ns() - start;
        if (started < task->threads)
            return 0;
        if (ns < best)
            best = ns;
    }
    return best;
}

static double read_speed(struct task *task)
{
    void *memory = mmap(NULL, read_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 0;
    madvise(memory, read_bytes, MADV_HUGEPAGE);
    memset(memory, 1, read_bytes); /* unwritten pages would all be the shared page of zeros */
    task->memory = memory;
    task->work = read_part;
    uint64_t ns = best_pass(task);
    munmap(memory, read_bytes);
    return ns ? (double)read_bytes / (double)ns : 0;
}

static double multiply_speed(struct task *task)
{
    uint32_t lanes = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) {
        task->work = multiply_512;
        lanes = 16;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        task->work = multiply_256;
        lanes = 8;
    }
#endif
    uint64_t ns = lanes ? best_pass(task) : 0;
    return ns ? 2.0 * lanes * ACCUMULATORS * MULTIPLY_ADDS * task->threads / (double)ns : 0;
}

struct machine_speed machine_measure(uint32_t threads)
{
    struct task task = { .threads = threads == 0 ? 1 : threads < THREADS_MAX ? threads : THREADS_MAX };
    return (struct machine_speed){ .gb_per_second = read_speed(&task),
                                   .gflop_per_second = multiply_speed(&task) };
}
