/* completions_prompts.h - the prompts of a completion's body, in all their forms. */
#ifndef COMPLETIONS_PROMPTS_H
#define COMPLETIONS_PROMPTS_H

#include "completion.h"
#include "fields.h"

struct prompts {
    struct cinf_request_options *options; /* [n] */
    uint32_t n;
    int32_t *ids; /* of all prompts that are given as ids, one after the other */
    size_t n_ids;
};

/* Reads "prompt" into the options of each prompt; *p is zeroed before.  The caller frees p->options and
 * p->ids, also after a failure. */
enum cinf_status read_prompts(struct prompts *p, struct fields *f, const struct completion *c);

#endif
