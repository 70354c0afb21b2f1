/* percent.h - percent-decoding of paths and queries (RFC 3986, section 2.1). */
#ifndef PERCENT_H
#define PERCENT_H

#include <stdbool.h>

#include <costinfer/status.h>

/* Decodes into new memory, which mem_free() frees.  If `plus`, '+' becomes a space, as in queries.  A '%'
 * without two hexadecimal digits, %00 and text that is not UTF-8 are CINF_EINVAL. */
enum cinf_status percent_decode(char **out, const char *text, bool plus);

#endif
