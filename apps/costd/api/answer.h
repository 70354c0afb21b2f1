/* answer.h - answers in JSON that are not errors (those are problem.h's). */
#ifndef ANSWER_H
#define ANSWER_H

#include "exchange.h"
#include "strbuf.h"

/* Answers with the JSON in `out`, or, if memory for it ran out, with that error.  Frees `out`. */
void answer_json(struct exchange *x, unsigned status, struct strbuf *out);

/* {"status":"word"} */
void answer_status(struct exchange *x, unsigned status, const char *word);

#endif
