/* opencl_cache.h - built programs in files, for drivers that do not keep them. */
#ifndef OPENCL_CACHE_H
#define OPENCL_CACHE_H

#include "opencl_device.h"
#include "strbuf.h"

/* Whether this device's driver keeps no built programs itself. */
bool opencl_cache_wanted(cl_device_id id);

/* Appends everything that a built program depends on, as text. */
void opencl_cache_key(struct strbuf *out, cl_device_id id, const char *options, const char *const *sources,
                      uint32_t n_sources);

/* The built program of that key; NULL if there is no file, it is damaged or has another key, or the driver
 * rejects its own binary.  The caller then builds from source, so this is never an error. */
cl_program opencl_cache_load(cl_context context, cl_device_id id, const struct strbuf *key);

/* Keeps a program.  If it cannot be kept, the next run builds it again. */
void opencl_cache_save(cl_program program, const struct strbuf *key);

#endif
