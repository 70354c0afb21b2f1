/* guard.h - refuses what libmicrohttpd accepts and a server behind or before other servers must not.
 *
 * Ambiguous framing is how requests are smuggled (RFC 9112, sections 3.2, 5.1 and 6.3): a message that
 * another server might read differently is refused here, before its body is read. */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>

#include <microhttpd.h>

/* Whether a request's target, as it was sent, is free of spaces and control characters. */
bool guard_target(const char *target);

/* host[:port]: a name, an IPv4 address, or an IPv6 address in brackets. */
bool guard_host(const char *text);

/* NULL, or in a few words what is wrong with the request's head.  The answer must be 400 and the connection
 * must be closed, because where the next request begins is uncertain. */
const char *guard_check(struct MHD_Connection *connection, const char *method, const char *version);

/* What the request's body is encoded as, by all its Content-Encoding headers together. */
enum coding { CODING_NONE, CODING_GZIP, CODING_UNKNOWN };
enum coding guard_coding(struct MHD_Connection *connection);

#endif
