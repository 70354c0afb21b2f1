/* normalizer.h - what tokenizer.json changes a text into before it is cut into pieces.
 *
 * Built from JSON, then read only. */
#ifndef NORMALIZER_H
#define NORMALIZER_H

#include "json.h"
#include "strbuf.h"
#include "unicode_normal.h"

struct normalizer {
    struct normalizer_step *steps; /* none: texts stay as they are */
    size_t n_steps, cap;
};

/* Appends the steps of a "normalizer" (NULL: none) to a zeroed *n.  CINF_EUNSUPPORTED names what is not known
 * here; normalizer_free() then too. */
enum cinf_status normalizer_read(struct normalizer *n, const cJSON *settings);
void normalizer_free(struct normalizer *n);

/* Two texts that take turns, and memory for characters.  Zeroed to begin with. */
struct normalizer_scratch {
    struct strbuf texts[2];
    struct unicode_scratch unicode;
};
void normalizer_scratch_free(struct normalizer_scratch *scratch);

/* *out, in the scratch until it is used again, is what becomes of text[0..n). */
enum cinf_status normalizer_apply(const struct normalizer *n, const char *text, size_t n_text,
                                  struct normalizer_scratch *scratch, const struct strbuf **out);

#endif
