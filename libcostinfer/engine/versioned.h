/* versioned.h - public structs that begin with a struct_size, read from and written to callers that may have
 * been built against an older and shorter declaration.
 *
 * The struct_size is the only mark of a version, and it works because new fields go last: what both sides
 * know is a common prefix.  A field that is new in a release begins where the struct ended in the release
 * before, at a multiple of 8.  Where the last field has 4 bytes of padding after it, a new field of 4 bytes
 * would lie there, and would be read from an older caller that left anything in its padding: so append a
 * pointer, uint64_t or double first. */
#ifndef VERSIONED_H
#define VERSIONED_H

#include <stddef.h>

#include <costinfer/status.h>

/* Copies what the caller knows of an options struct over our defaults, which fill *ours.  `given` may be
 * NULL. CINF_EINVAL when it has no struct_size. */
enum cinf_status versioned_read(void *ours, size_t size, const void *given);

/* Copies as much of *ours as fits the struct_size that *theirs comes with, and sets that to what was copied.
 */
void versioned_write(void *theirs, void *ours, size_t size);

#endif
