/* model_state.h - what the files of model/ share: a model on its way to a device, or there. */
#ifndef MODEL_STATE_H
#define MODEL_STATE_H

#include "architecture.h"
#include "model.h"

struct model {
    const struct architecture *architecture;
    struct cinf_config config; /* vocab_size is V, the rows of the token embeddings */
    struct program program;
    struct weight_spec *specs; /* [program.n_specs] */
    struct op *ops;            /* [program.n_ops] */

    uint64_t matrix_parameters; /* of the layers: what every row is multiplied by */
    uint64_t head_parameters;   /* what a row that wants logits is multiplied by */
    uint64_t attend_flops;      /* a row, for each position that it attends to, in all layers */

    /* Set by model_stream_step(): the device's part is NULL until then. */
    uint64_t kv_position_bytes; /* cache of one position, all layers, keys and values */
    uint64_t head_bytes;        /* of weights_bytes: read only by steps that want logits */
    uint32_t slots;
    uint32_t rows_max;
    enum weights_type weights_type;
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared;
};

/* A model without weights: the specs and the program of `config`.  `own_head`: the head has weights of its
 * own instead of the embeddings'.  CINF_EINVAL for a configuration that is not the shape of a model. */
enum cinf_status model_new(struct model **out, const struct architecture *architecture,
                           const struct cinf_config *config, bool own_head);

#endif
