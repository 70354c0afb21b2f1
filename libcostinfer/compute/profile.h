/* profile.h - times added up by name, for backend.profile(). */
#ifndef PROFILE_H
#define PROFILE_H

#include "backend.h"

enum { PROFILE_ROWS_MAX = 64 };

struct profile {
    struct profile_row rows[PROFILE_ROWS_MAX];
    uint32_t n;
};

/* Counts one launch more in the row of that name, which is added if there is none and there is room for
 * it. */
void profile_add(struct profile *profile, const char *name, uint64_t ns);

/* Row `index`, the longest first; false behind the last. */
bool profile_row(struct profile *profile, uint32_t index, struct profile_row *out);

#endif
