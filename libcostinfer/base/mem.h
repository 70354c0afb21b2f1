/* mem.h - checked allocation.  Sizes are products that cannot wrap, and a test can make the Nth
 * allocation fail to prove that every failure path releases what it holds. */
#ifndef MEM_H
#define MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Returns n * size bytes, zeroed; NULL if the product overflows or memory is exhausted.  n == 0 alone
 * never gives NULL. */
void *mem_new(size_t n, size_t size);

/* Resizes a block to n * size bytes, as realloc(); on failure the old block is untouched.  New bytes are
 * undefined. */
void *mem_resize(void *block, size_t n, size_t size);

/* Returns n * size bytes at a multiple of `align` (a power of two), not zeroed.  mem_free() frees them. */
void *mem_new_aligned(size_t align, size_t n, size_t size);

char *mem_copy_text(const char *text);
void *mem_copy(const void *bytes, size_t n);
void mem_free(void *block);

/* Checked arithmetic: returns false and leaves the result untouched if it does not fit. */
bool mul_size(size_t *product, size_t a, size_t b);
bool mul_u64(uint64_t *product, uint64_t a, uint64_t b);
bool add_u64(uint64_t *sum, uint64_t a, uint64_t b);

/* Grows *array_pointer (capacity *cap, in elements of `size` bytes) to hold at least `need` elements, at
 * least doubling.  Returns false if memory is exhausted; the array is then as before. */
bool mem_reserve(void *array_pointer, size_t *cap, size_t need, size_t size);

/* For tests: allocation number `n` from now (1 is the next) fails, in any thread; 0 switches this off.
 * mem_fail_hit() tells whether that allocation was reached. */
void mem_fail_at(uint64_t n);
bool mem_fail_hit(void);

#endif
