/* unknown_fields.h - what happens to a body's fields that costd does not implement.
 *
 * A field that is taken and ignored is a wrong answer.  Fields of other servers' APIs that would change the
 * answer are refused by name, unless they ask for what happens anyway; other unknown fields are told in the
 * header x-ignored-fields and in the log, or refused with --strict. */
#ifndef UNKNOWN_FIELDS_H
#define UNKNOWN_FIELDS_H

#include "fields.h"
#include "schema.h"

/* Judges the fields of f->body.  On failure f->param names the field. */
enum cinf_status unknown_fields_judge(struct fields *f, struct exchange *x, enum body body);

/* The same for the query of a route that reads the parameters in `names`, which ends with NULL. */
enum cinf_status unknown_parameters_judge(struct fields *f, struct exchange *x, enum body body,
                                          const char *const *names);

#endif
