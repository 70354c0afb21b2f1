/* elements.h - a checkpoint's elements as numbers.  They lie in files at any address. */
#ifndef ELEMENTS_H
#define ELEMENTS_H

#include <stddef.h>

#include <costinfer/types.h>

/* to[n] = elements first, first + 1, … of any type but CINF_DTYPE_OTHER.  Returns n, or where in `to` the
 * first finite number is that float32 cannot hold; it becomes an infinity. */
size_t elements_read(float *to, const void *elements, enum cinf_dtype dtype, size_t first, size_t n);

/* Element `at`. */
double element_read(const void *elements, enum cinf_dtype dtype, size_t at);

#endif
