/* architecture.h - what the library knows of one kind of models: the names and shapes of its tensors, as
 * data, and one function that writes its program.
 *
 * Everything else follows from these: which checkpoint is one (architectures.c, binding.c), which specs a
 * model has, which tensors belong to it and which are harmless extras, and what a row costs (model.c counts
 * the program's operations).  A new architecture is one file like gpt2.c and one line in architectures.c;
 * what its program may consist of is in backend.h, whose letters are used here too. */
#ifndef ARCHITECTURE_H
#define ARCHITECTURE_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/checkpoint.h>

#include "backend.h"
#include "strbuf.h"

/* A size that a configuration decides. */
enum dim { DIM_ONE, DIM_D, DIM_3D, DIM_I, DIM_V, DIM_P };

struct model_tensor {
    const char *name; /* without the prefix, and without the part that names the layer */
    enum weight_role role;
    enum dim rows, cols; /* a vector has one row */
    bool is_gain;        /* of a norm: synthetic ones are around 1, others around 0 */
};

struct tensor_list {
    const struct model_tensor *tensors;
    uint32_t n;
};

struct architecture {
    const char *name;   /* with its article, as messages need it: "a GPT-2" */
    const char *prefix; /* what many checkpoints put before all names except the head's: "transformer." */
    const char *layer;  /* layer 3's tensors begin with this, "3." and their own names: "h." */
    const char *head;   /* the output layer's [V, D], which tied models lack: "lm_head.weight" */

    /* The order of specs: `first`, the layers' one after the other, `last`, then a head of its own if there
     * is one. first.tensors[0] is the table of token embeddings [V, D].  Its name tells whether a checkpoint
     * is of this architecture: struct cinf_config has nothing that could. */
    struct tensor_list first, layers, last;

    /* Names within a layer that older checkpoints use for what is not a weight; ends with NULL. */
    const char *const *extras;

    /* Writes the program of `config`, layer_ops for each layer and other_ops besides, and returns its end.
     * Rows are multiplied by spec `head` for logits. */
    uint32_t layer_ops, other_ops;
    struct op *(*write_ops)(struct op *ops, const struct cinf_config *config, uint32_t head);
};

/* What there is (architectures.c), NULL at the end.  A configuration alone, for synthetic weights, means the
 * first. */
const struct architecture *const *architectures(void);

/* ---- What follows from the tables (architecture.c) ---------------------------------------- */

/* Indexes of specs: tensor `which` of a layer, and of those after the layers.  last_spec() of last.n is the
 * head. */
uint32_t layer_spec(const struct architecture *a, uint32_t layer, uint32_t which);
uint32_t last_spec(const struct architecture *a, const struct cinf_config *config, uint32_t which);

/* The number of specs, which may be too large for an index; and the specs. */
uint64_t architecture_count_specs(const struct architecture *a, const struct cinf_config *config,
                                  bool own_head);
void architecture_fill_specs(struct weight_spec *out, const struct architecture *a,
                             const struct cinf_config *config, bool own_head);

/* Puts the name, without prefix, of the tensor behind spec `index` into *out: "h.3.mlp.c_fc.weight". */
void architecture_spec_name(struct strbuf *out, const struct architecture *a,
                            const struct cinf_config *config, uint32_t index);

/* Whether spec `index` is the gain of a norm. */
bool architecture_spec_is_gain(const struct architecture *a, const struct cinf_config *config,
                               uint32_t index);

/* What a name without prefix means to a model of `n_layer` layers. */
enum name_kind {
    NAME_BOUND,  /* a tensor that is loaded, or the head */
    NAME_EXTRA,  /* not a weight, and expected to be there */
    NAME_BEYOND, /* a tensor of a layer that config.json does not have */
    NAME_UNKNOWN,
};
enum name_kind architecture_name_kind(const struct architecture *a, const char *name, uint32_t n_layer);

#endif
