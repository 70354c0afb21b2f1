/* template.h - the tokens that a tokenizer puts around every text: the post-processors of tokenizer.json. */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#include "json.h"

enum { TEMPLATE_TEXT = -1 }; /* the place of the text's own tokens */

struct template
{
    int32_t *ids; /* TEMPLATE_TEXT among them; none: the text's tokens alone */
    size_t n;
};

/* Reads the single-text template of a "post_processor" (NULL: none) into a zeroed *t. CINF_EUNSUPPORTED names
 * what is not supported. *t needs template_free() after a failure too. */
enum cinf_status template_read(struct template *t, const cJSON *settings);

/* Makes *t the template that puts `id` before the text. */
enum cinf_status template_prefix(struct template *t, int32_t id);
void template_free(struct template *t); /* leaves *t zeroed */

#endif
