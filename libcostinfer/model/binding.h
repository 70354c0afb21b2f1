/* binding.h - which tensor of a checkpoint is which weight of a model. */
#ifndef BINDING_H
#define BINDING_H

#include <stdbool.h>

#include <costinfer/checkpoint.h>

#include "architecture.h"
#include "model.h"
#include "strbuf.h"

struct binding {
    const char *folder; /* the caller's */
    struct cinf_checkpoint *checkpoint;
    const struct cinf_tensor **tensors; /* [n_specs] */
    struct strbuf notes;                /* for the operator, a line feed after each */

    const struct architecture *architecture;
    struct strbuf prefix;             /* of all names but the head's */
    const struct cinf_tensor *tokens; /* the embeddings, which may be the head's tensor */
    struct strbuf name;               /* the tensor that is being looked up, for messages */
};

/* Opens `folder`, finds its architecture, makes the model without weights, and binds each of the model's
 * specs to one tensor of exactly that shape.  *b is zero before, and to be freed also after a failure. */
enum cinf_status binding_open(struct binding *b, struct model **model, const char *folder, bool untied_head);
void binding_free(struct binding *b);

#endif
