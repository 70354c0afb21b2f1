/* gzip.h - request bodies with Content-Encoding: gzip (RFC 1952). */
#ifndef GZIP_H
#define GZIP_H

#include <stddef.h>

#include <costinfer/status.h>

#include "strbuf.h"

/* Appends the plain text of one or more members.  CINF_EFORMAT: malformed or cut short; CINF_EFULL: `out`
 * would grow beyond `max` bytes, and no more than that was ever in memory; CINF_ENOMEM. */
enum cinf_status gzip_inflate(struct strbuf *out, const char *bytes, size_t n, size_t max);

#endif
