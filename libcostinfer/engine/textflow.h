/* textflow.h - the text of one sequence as its tokens arrive: decoded, searched for stop strings, and held
 * back where a stop string may have begun. */
#ifndef TEXTFLOW_H
#define TEXTFLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/tokenizer.h>

#include "strbuf.h"

struct stop_string {
    const char *text;
    size_t n;
};

struct textflow {
    struct strbuf text; /* everything decoded so far, never shortened: callers keep offsets into it */
    size_t certain;     /* text[0..certain) is certain: no stop string reaches into it */
    bool stopped;       /* a stop string was found; it starts at `certain`, where the text ends */
    struct cinf_decoder decoder;
};

void textflow_free(struct textflow *flow);

/* Adds a token's text; without a tokenizer there is none.  Unless it may stop, a stop string that ends in
 * this text is not one.  CINF_ENOMEM. */
enum cinf_status textflow_push(struct textflow *flow, const struct cinf_tokenizer *tokenizer, int32_t token,
                               const struct stop_string *stops, uint32_t n_stops, bool may_stop);

/* Ends a text that no stop string has ended: what was held back becomes certain, and an incomplete character
 * becomes U+FFFD.  Does nothing after a stop string. */
enum cinf_status textflow_end(struct textflow *flow);

#endif
