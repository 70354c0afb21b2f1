/* opencl_cache.h - built programs in files, for drivers that keep none themselves. */
#ifndef OPENCL_CACHE_H
#define OPENCL_CACHE_H

#include "opencl_device.h"
#include "strbuf.h"

/* Whether this device's driver needs us to. */
bool opencl_cache_wanted(cl_device_id id);

/* Everything that a built program depends on, as text. */
void opencl_cache_key(struct strbuf *out, cl_device_id id, const char *options, const char *const *sources,
                      uint32_t n_sources);

/* The built program of that key, or NULL: no file, a damaged one, another key, or a driver that does not take
 * what it gave.  Never fails otherwise: the source is always there. */
cl_program opencl_cache_load(cl_context context, cl_device_id id, const struct strbuf *key);

/* Keeps a program, if that can be done. */
void opencl_cache_save(cl_program program, const struct strbuf *key);

#endif
