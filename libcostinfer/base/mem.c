/* mem.c - allocation, and the failure that tests can ask for. */
#include "mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Allocations left until one fails; 0 is off.  It costs one relaxed load an allocation, too little to
 * compile it out, so the library that is tested is the library that ships. */
static _Atomic uint64_t fail_countdown;
static atomic_bool fail_was_hit;

static bool fails_now(void)
{
    uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    while (left > 0) {
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) {
            if (left == 1)
                atomic_store(&fail_was_hit, true);
            return left == 1;
        }
    }
    return false;
}

void mem_fail_at(uint64_t n)
{
    atomic_store(&fail_was_hit, false);
    atomic_store(&fail_countdown, n);
}

bool mem_fail_hit(void)
{
    return atomic_load(&fail_was_hit);
}

bool mul_size(size_t *product, size_t a, size_t b)
{
    size_t result;
    if (__builtin_mul_overflow(a, b, &result))
        return false;
    *product = result;
    return true;
}

bool mul_u64(uint64_t *product, uint64_t a, uint64_t b)
{
    uint64_t result;
    if (__builtin_mul_overflow(a, b, &result))
        return false;
    *product = result;
    return true;
}

bool add_u64(uint64_t *sum, uint64_t a, uint64_t b)
{
    uint64_t result;
    if (__builtin_add_overflow(a, b, &result))
        return false;
    *sum = result;
    return true;
}

void *mem_new(size_t n, size_t size)
{
    size_t bytes;
    if (!mul_size(&bytes, n, size) || fails_now())
        return NULL;
    return calloc(bytes ? bytes : 1, 1);
}

void *mem_resize(void *block, size_t n, size_t size)
{
    size_t bytes;
    if (!mul_size(&bytes, n, size) || fails_now())
        return NULL;
    return realloc(block, bytes ? bytes : 1);
}

void *mem_new_aligned(size_t align, size_t n, size_t size)
{
    size_t bytes;
    void *block;
    if (!mul_size(&bytes, n, size) || fails_now())
        return NULL;
    return posix_memalign(&block, align, bytes ? bytes : 1) == 0 ? block : NULL;
}

void *mem_copy(const void *bytes, size_t n)
{
    void *copy = mem_new(n, 1);
    if (copy && n)
        memcpy(copy, bytes, n);
    return copy;
}

char *mem_copy_text(const char *text)
{
    return mem_copy(text, strlen(text) + 1);
}

void mem_free(void *block)
{
    free(block);
}

bool mem_reserve(void *array_pointer, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return true;
    size_t doubled = *cap > SIZE_MAX / 2 ? need : *cap * 2;
    size_t new_cap = doubled > need ? doubled : need;
    if (new_cap < 8)
        new_cap = 8;
    void *old;
    memcpy(&old, array_pointer, sizeof old);
    void *grown = mem_resize(old, new_cap, size);
    if (!grown)
        return false;
    memcpy(array_pointer, &grown, sizeof grown);
    *cap = new_cap;
    return true;
}
