/* target.h - a request's target taken apart: authority, path and query (RFC 9112, section 3.2).
 *
 * The target is copied and taken apart here, and not by libmicrohttpd 0.9: it parses a query into the memory
 * that it has for the whole request, and forgets to answer when that is too small. */
#ifndef TARGET_H
#define TARGET_H

#include <stdbool.h>
#include <stddef.h>

struct target {
    char *text;            /* owns what the others point into */
    const char *authority; /* of the absolute form ("http://HOST:PORT/…"); else NULL */
    const char *path;      /* percent-encoded; "/" if it is empty */
    const char *query;     /* its pairs, each ending in '\0', then an empty one */
};

/* False: no memory.  With a scheme other than http and https the authority is "", which is not a host. */
bool target_read(struct target *out, const char *sent);
void target_free(struct target *target);

/* The value of the first pair of that name, percent-encoded, or NULL. */
const char *target_query(const struct target *target, const char *name);

#endif
