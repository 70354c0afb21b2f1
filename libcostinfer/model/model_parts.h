/* model_parts.h - what gpt2.c (the architecture) and model_stream.c (the way there) share. */
#ifndef MODEL_PARTS_H
#define MODEL_PARTS_H

#include "model.h"
#include "strbuf.h"

struct model {
    struct cinf_config config;
    struct program program;
    struct weight_spec *specs;
    struct op *ops;
    uint64_t matrix_parameters; /* of the layers: what every row is multiplied by */
    uint64_t kv_position_bytes; /* cache of one position, all layers, keys and values */
    uint64_t head_bytes;        /* of weights_bytes: read only by steps that want logits */
    uint32_t slots;
    uint32_t rows_max;
    enum weights_type weights_type;

    /* The device's, NULL until the loader has made them. */
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared;
};

/* A model without weights: the specs and the program of `config`.  `own_head`: the head has weights of its
 * own instead of the embeddings'. */
enum cinf_status gpt2_new(struct model **out, const struct cinf_config *config, bool own_head);

/* Writes the name, without prefix, of the tensor behind spec `index`: "h.3.mlp.c_fc.weight". */
void gpt2_spec_name(struct strbuf *out, const struct model *model, uint32_t index);

/* Whether spec `index` is the gain of a norm (made-up ones are around 1, not 0). */
bool gpt2_spec_is_gain(const struct model *model, uint32_t index);

/* What a name without prefix is to a model of `n_layer` layers. */
enum gpt2_name {
    GPT2_NAME_BOUND,  /* a tensor that is loaded, or lm_head.weight */
    GPT2_NAME_MASK,   /* h.N.attn.bias or .masked_bias: buffers of older checkpoints, not weights */
    GPT2_NAME_BEYOND, /* a tensor of a layer that config.json does not have */
    GPT2_NAME_UNKNOWN,
};
enum gpt2_name gpt2_name_of(const char *name, uint32_t n_layer);

#endif
