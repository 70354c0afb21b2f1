/* problem.h - error objects, and which failure is which HTTP status. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include <stdint.h>

#include <costinfer/engine.h>

#include "exchange.h"
#include "strbuf.h"

/* {"error":{…}}; param and code may be NULL. */
void problem_write(struct strbuf *out, const char *type, const char *param, const char *code,
                   const char *message);

enum { NO_ACCOUNT = -1 };

/* Answers with the thread's last failure.  `param` is the field at fault, or NULL.  A failure that concerns a
 * known model is counted in its account. */
void problem_answer(struct exchange *x, enum cinf_status status, const char *param, int64_t account);

/* The error object of a status, as an event in a stream that has begun. */
void problem_event(struct strbuf *out, enum cinf_status status, const char *message);

/* What HTTP refuses by itself, for the reason `why`, and the body of such an answer alone. */
void problem_http(struct exchange *x, unsigned status, const char *why);
void problem_write_http(struct strbuf *out, unsigned status, const char *why);

void problem_no_route(struct exchange *x, const char *message);
void problem_no_model(struct exchange *x, const char *name);
void problem_method(struct exchange *x, const char *allowed);
void problem_content_type(struct exchange *x);
void problem_no_key(struct exchange *x);
void problem_no_right(struct exchange *x);
void problem_host(struct exchange *x, const char *host);
void problem_origin(struct exchange *x, const char *origin); /* NULL: it did not say */
void problem_none_loaded(struct exchange *x);
void problem_loading(struct exchange *x, const char *what);
void problem_draining(struct exchange *x, int64_t account);

#endif
