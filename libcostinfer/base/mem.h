/* mem.h - checked allocation.  Sizes are products that cannot wrap, and a test can make the Nth
 * allocation fail to prove that every failure path lets go of what it holds. */
#ifndef MEM_H
#define MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n * size bytes, zeroed; NULL when the product overflows or memory is exhausted.  Never NULL for
 * n == 0. */
void *mem_new(size_t n, size_t size);

/* As realloc() to n * size bytes; on failure the old block is untouched.  New bytes are undefined. */
void *mem_resize(void *block, size_t n, size_t size);

/* n * size bytes at a multiple of `align` (a power of two), not zeroed.  Freed by mem_free(). */
void *mem_new_aligned(size_t align, size_t n, size_t size);

char *mem_copy_text(const char *text);
void *mem_copy(const void *bytes, size_t n);
void mem_free(void *block);

/* *product = a * b; false, and *product untouched, when it does not fit. */
bool mul_size(size_t *product, size_t a, size_t b);
bool mul_u64(uint64_t *product, uint64_t a, uint64_t b);
bool add_u64(uint64_t *sum, uint64_t a, uint64_t b);

/* Grows *array (capacity *cap, in elements of `size` bytes) to hold at least `need` elements, at
 * least doubling.  False when memory is exhausted; the array is then as before. */
bool mem_reserve(void *array_pointer, size_t *cap, size_t need, size_t size);

/* For tests: allocation number `n` from now (1 = the next) fails, in whichever thread makes it; 0
 * switches this off.  mem_fail_hit() says whether it was reached. */
void mem_fail_at(uint64_t n);
bool mem_fail_hit(void);

#endif
