/* encoding.h - answers that are compressed when the client asks for it. */
#ifndef ENCODING_H
#define ENCODING_H

#include <stdbool.h>
#include <stddef.h>

#include "exchange.h"

/* Whether the request's Accept-Encoding permits gzip: it names gzip or "*", and not with q=0. */
bool encoding_accepts_gzip(struct exchange *x);

/* Sends a whole answer with status 200, compressed if the client accepts that. */
void encoding_send(struct exchange *x, const char *content_type, const char *body, size_t n);

#endif
