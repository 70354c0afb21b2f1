/* gpt2.c - the architecture of GPT-2: which tensors there are and which program runs them.
 *
 *   x = tokens[token] + positions[position]
 *   L times:  x = x + attention(norm(x)) * c_proj
 *             x = x + activation(norm(x) * c_fc) * c_proj
 *   logits = norm(x) * head^T
 *
 * Everything that a configuration changes (scales, activation, epsilon, tied head) is decided here, once, as
 * data of the program; backends know operations, not GPT-2.  D, I, V, P, L, H are as in backend.h. */
#include "gpt2.h"

#include <math.h>

/* ---- Tensors ------------------------------------------------------------------------------ */

enum { TOKENS, POSITIONS, FIRST_TENSORS };

static const struct model_tensor first_tensors[FIRST_TENSORS] = {
    [TOKENS] = { .name = "wte.weight", .role = WEIGHT_TOKENS, .rows = DIM_V, .cols = DIM_D },
    [POSITIONS] = { .name = "wpe.weight", .role = WEIGHT_TABLE, .rows = DIM_P, .cols = DIM_D },
};

enum {
    NORM1_GAIN,
    NORM1_BIAS,
    QKV_WEIGHT,
    QKV_BIAS,
    ATTN_OUT_WEIGHT,
    ATTN_OUT_BIAS,
    NORM2_GAIN,
    NORM2_BIAS,
    MLP_IN_WEIGHT,
    MLP_IN_BIAS,
    MLP_OUT_WEIGHT,
    MLP_OUT_BIAS,
    LAYER_TENSORS,
};

static const struct model_tensor layer_tensors[LAYER_TENSORS] = {
    [NORM1_GAIN] = { .name = "ln_1.weight", .role = WEIGHT_VECTOR, .cols = DIM_D, .is_gain = true },
    [NORM1_BIAS] = { .name = "ln_1.bias", .role = WEIGHT_VECTOR, .cols = DIM_D },
    [QKV_WEIGHT] = { .name = "attn.c_attn.weight", .role = WEIGHT_MATRIX, .rows = DIM_D, .cols = DIM_3D },
    [QKV_BIAS] = { .name = "attn.c_attn.bias", .role = WEIGHT_VECTOR, .cols = DIM_3D },
    [ATTN_OUT_WEIGHT] = { .name = "attn.c_proj.weight", .role = WEIGHT_MATRIX, .rows = DIM_D, .cols = DIM_D },
    [ATTN_OUT_BIAS] = { .name = "attn.c_proj.bias", .role = WEIGHT_VECTOR, .cols = DIM_D },
    [NORM2_GAIN] = { .name = "ln_2.weight", .role = WEIGHT_VECTOR, .cols = DIM_D, .is_gain = true },
    [NORM2_BIAS] = { .name = "ln_2.bias", .role = WEIGHT_VECTOR, .cols = DIM_D },
    [MLP_IN_WEIGHT] = { .name = "mlp.c_fc.weight", .role = WEIGHT_MATRIX, .rows = DIM_D, .cols = DIM_I },
    [MLP_IN_BIAS] = { .name = "mlp.c_fc.bias", .role = WEIGHT_VECTOR, .cols = DIM_I },
    [MLP_OUT_WEIGHT] = { .name = "mlp.c_proj.weight", .role = WEIGHT_MATRIX, .rows = DIM_I, .cols = DIM_D },
    [MLP_OUT_BIAS] = { .name = "mlp.c_proj.bias", .role = WEIGHT_VECTOR, .cols = DIM_D },
};

enum { LAST_NORM_GAIN, LAST_NORM_BIAS, LAST_TENSORS };

static const struct model_tensor last_tensors[LAST_TENSORS] = {
    [LAST_NORM_GAIN] = { .name = "ln_f.weight", .role = WEIGHT_VECTOR, .cols = DIM_D, .is_gain = true },
    [LAST_NORM_BIAS] = { .name = "ln_f.bias", .role = WEIGHT_VECTOR, .cols = DIM_D },
};

/* Attention masks: buffers that transformers saved before 2023. */
static const char *const masks[] = { "attn.bias", "attn.masked_bias", NULL };

/* ---- Program ------------------------------------------------------------------------------ */

/* A vector's bias follows its gain, a matrix's the matrix. */
static struct op norm(const struct cinf_config *c, uint32_t gain)
{
    return (struct op){ .kind = OP_NORM,
                        .in = ROWS_X,
                        .out = ROWS_H,
                        .weight = gain,
                        .bias = gain + 1,
                        .epsilon = c->layer_norm_epsilon };
}

static struct op linear(enum row_buffer out, enum row_buffer in, uint32_t weight, enum op_epilogue epilogue)
{
    return (struct op){
        .kind = OP_LINEAR, .in = in, .out = out, .weight = weight, .bias = weight + 1, .epilogue = epilogue
    };
}

static float attention_scale(const struct cinf_config *c, uint32_t layer)
{
    double scale = 1;
    uint32_t width = c->n_embd / c->n_head; /* of a head */
    if (c->scale_attn_weights)
        scale /= sqrt((double)width);
    if (c->scale_attn_by_inverse_layer_idx)
        scale /= (double)layer + 1;
    return (float)scale;
}

static uint32_t spec_of(uint32_t layer, uint32_t which)
{
    return layer_spec(&architecture_gpt2, layer, which);
}

static struct op *write_layer(struct op *op, const struct cinf_config *c, uint32_t layer)
{
    *op++ = norm(c, spec_of(layer, NORM1_GAIN));
    *op = linear(ROWS_Q, ROWS_H, spec_of(layer, QKV_WEIGHT), EPILOGUE_QKV);
    op->q_cols = op->k_cols = op->v_cols = c->n_embd;
    op++->layer = layer;
    *op++ = (struct op){
        .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_A, .layer = layer, .scale = attention_scale(c, layer)
    };
    *op++ = linear(ROWS_X, ROWS_A, spec_of(layer, ATTN_OUT_WEIGHT), EPILOGUE_ADD);
    *op++ = norm(c, spec_of(layer, NORM2_GAIN));
    *op = linear(ROWS_F, ROWS_H, spec_of(layer, MLP_IN_WEIGHT), EPILOGUE_ACTIVATION);
    op++->activation = c->activation;
    *op++ = linear(ROWS_X, ROWS_F, spec_of(layer, MLP_OUT_WEIGHT), EPILOGUE_ADD);
    return op;
}

static struct op *write_ops(struct op *op, const struct cinf_config *c, uint32_t head)
{
    *op++ = (struct op){ .kind = OP_EMBED, .out = ROWS_X, .weight = TOKENS, .weight2 = POSITIONS };
    for (uint32_t layer = 0; layer < c->n_layer; layer++)
        op = write_layer(op, c, layer);
    *op++ = norm(c, last_spec(&architecture_gpt2, c, LAST_NORM_GAIN));
    *op++ = (struct op){ .kind = OP_LOGITS, .in = ROWS_H, .weight = head };
    return op;
}

const struct architecture architecture_gpt2 = {
    .name = "a GPT-2",
    .prefix = "transformer.",
    .layer = "h.",
    .head = "lm_head.weight",
    .first = { first_tensors, FIRST_TENSORS },
    .layers = { layer_tensors, LAYER_TENSORS },
    .last = { last_tensors, LAST_TENSORS },
    .extras = masks,
    .layer_ops = 7,
    .other_ops = 3,
    .write_ops = write_ops,
};
