/* opencl_profile.h - the time of each kernel by the device's own clock: for diagnostics, never for accounts.
 */
#ifndef OPENCL_PROFILE_H
#define OPENCL_PROFILE_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "backend.h"

struct opencl_profile;

struct opencl_profile *opencl_profile_new(void);          /* NULL: no memory */
void opencl_profile_free(struct opencl_profile *profile); /* accepts NULL; the queue has finished */

/* Takes over the event of a launch on a queue with profiling. */
void opencl_profile_add(struct opencl_profile *profile, cl_kernel kernel, cl_event event);

/* Takes over two events around launches that have only a common name: they count as one, from the end of
 * `before` to the end of `last`. */
void opencl_profile_span(struct opencl_profile *profile, const char *name, cl_event before, cl_event last);

/* Paused, a profile takes events over and forgets them: loading is not part of it.  Accepts NULL. */
void opencl_profile_pause(struct opencl_profile *profile, bool paused);

/* Forgets all launches so far. */
void opencl_profile_clear(struct opencl_profile *profile);

/* Row `index` of all launches so far, the longest first; false behind the last.  Waits for launches that are
 * under way. */
bool opencl_profile_row(struct opencl_profile *profile, uint32_t index, struct profile_row *out);

#endif
