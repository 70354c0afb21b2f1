/* guard.h - what libmicrohttpd accepts and a server behind or before other servers must not.
 *
 * Ambiguous framing is how requests are smuggled (RFC 9112, sections 3.2, 5.1 and 6.3): whoever reads a
 * message differently from us is let down here, before the body is read. */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>

#include <microhttpd.h>

/* Whether a request's target, as it was sent, is free of spaces and control characters. */
bool guard_target(const char *target);

/* NULL, or in a few words what is wrong with the request's head.  The answer is 400 and the connection is
 * closed, because where the next request would begin is not certain. */
const char *guard_check(struct MHD_Connection *connection, const char *method, const char *version);

#endif
