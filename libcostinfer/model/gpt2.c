/* gpt2.c - the architecture: which tensors there are, which program runs them, and what a row costs.
 *
 *   x = tokens[token] + positions[position]
 *   L times:  x = x + attention(norm(x)) * c_proj
 *             x = x + activation(norm(x) * c_fc) * c_proj
 *   logits = norm(x) * head^T
 *
 * Everything that a configuration changes (scales, activation, epsilon, tied head) is decided here, once, as
 * data of the program; backends know operations, not GPT-2.  D, I, V, P, L, H, R are as in backend.h. */
#include "model_parts.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

/* ---- Tensors ------------------------------------------------------------------------------ */

/* The order of specs: tokens, positions, the layers' one after the other, the last norm, perhaps a head. */
enum { SPEC_TOKENS, SPEC_POSITIONS, SPEC_LAYERS };

enum layer_spec {
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
    LAYER_SPECS,
};

enum size { ONE, D, D3, I };

static const struct {
    const char *name;
    enum size rows, cols; /* ONE row: a vector */
} layer_tensors[LAYER_SPECS] = {
    [NORM1_GAIN] = { "ln_1.weight", ONE, D },           [NORM1_BIAS] = { "ln_1.bias", ONE, D },
    [QKV_WEIGHT] = { "attn.c_attn.weight", D, D3 },     [QKV_BIAS] = { "attn.c_attn.bias", ONE, D3 },
    [ATTN_OUT_WEIGHT] = { "attn.c_proj.weight", D, D }, [ATTN_OUT_BIAS] = { "attn.c_proj.bias", ONE, D },
    [NORM2_GAIN] = { "ln_2.weight", ONE, D },           [NORM2_BIAS] = { "ln_2.bias", ONE, D },
    [MLP_IN_WEIGHT] = { "mlp.c_fc.weight", D, I },      [MLP_IN_BIAS] = { "mlp.c_fc.bias", ONE, I },
    [MLP_OUT_WEIGHT] = { "mlp.c_proj.weight", I, D },   [MLP_OUT_BIAS] = { "mlp.c_proj.bias", ONE, D },
};

static uint32_t layer_spec(uint32_t layer, enum layer_spec which)
{
    return SPEC_LAYERS + layer * LAYER_SPECS + which;
}

/* Specs after the layers': gain and bias of the last norm, then the head. */
static uint32_t last_norm(const struct cinf_config *c)
{
    return layer_spec(c->n_layer, 0);
}

void gpt2_spec_name(struct strbuf *out, const struct model *model, uint32_t index)
{
    uint32_t last = last_norm(&model->config);
    strbuf_clear(out);
    if (index == SPEC_TOKENS)
        strbuf_puts(out, "wte.weight");
    else if (index == SPEC_POSITIONS)
        strbuf_puts(out, "wpe.weight");
    else if (index < last)
        strbuf_printf(out, "h.%u.%s", (index - SPEC_LAYERS) / LAYER_SPECS,
                      layer_tensors[(index - SPEC_LAYERS) % LAYER_SPECS].name);
    else if (index == last)
        strbuf_puts(out, "ln_f.weight");
    else if (index == last + 1)
        strbuf_puts(out, "ln_f.bias");
    else
        strbuf_puts(out, "lm_head.weight");
}

bool gpt2_spec_is_gain(const struct model *model, uint32_t index)
{
    uint32_t last = last_norm(&model->config);
    if (index < SPEC_LAYERS || index >= last)
        return index == last;
    uint32_t which = (index - SPEC_LAYERS) % LAYER_SPECS;
    return which == NORM1_GAIN || which == NORM2_GAIN;
}

enum gpt2_name gpt2_name_of(const char *name, uint32_t n_layer)
{
    static const char *const outside[] = { "wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias",
                                           "lm_head.weight" };
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        if (strcmp(name, outside[i]) == 0)
            return GPT2_NAME_BOUND;
    }
    if (strncmp(name, "h.", 2) != 0 || name[2] < '0' || name[2] > '9')
        return GPT2_NAME_UNKNOWN;
    uint64_t layer = 0;
    const char *rest = name + 2;
    for (; *rest >= '0' && *rest <= '9'; rest++)
        layer = layer > UINT32_MAX ? layer : layer * 10 + (uint64_t)(*rest - '0');
    if (*rest++ != '.' || (name[2] == '0' && name[3] != '.'))
        return GPT2_NAME_UNKNOWN;
    if (strcmp(rest, "attn.bias") == 0 || strcmp(rest, "attn.masked_bias") == 0)
        return GPT2_NAME_MASK;
    for (uint32_t i = 0; i < LAYER_SPECS; i++) {
        if (strcmp(rest, layer_tensors[i].name) == 0)
            return layer < n_layer ? GPT2_NAME_BOUND : GPT2_NAME_BEYOND;
    }
    return GPT2_NAME_UNKNOWN;
}

/* ---- Program ------------------------------------------------------------------------------ */

static void fill_specs(struct model *m, bool own_head)
{
    const struct cinf_config *c = &m->config;
    const uint32_t sizes[] = { [ONE] = 1, [D] = c->n_embd, [D3] = 3 * c->n_embd, [I] = c->n_inner };
    m->specs[SPEC_TOKENS] = (struct weight_spec){ WEIGHT_TOKENS, c->vocab_size, c->n_embd };
    m->specs[SPEC_POSITIONS] = (struct weight_spec){ WEIGHT_TABLE, c->n_positions, c->n_embd };
    for (uint32_t layer = 0; layer < c->n_layer; layer++) {
        for (uint32_t i = 0; i < LAYER_SPECS; i++) {
            m->specs[layer_spec(layer, i)] = (struct weight_spec){
                .role = layer_tensors[i].rows == ONE ? WEIGHT_VECTOR : WEIGHT_MATRIX,
                .rows = sizes[layer_tensors[i].rows],
                .cols = sizes[layer_tensors[i].cols],
            };
        }
    }
    uint32_t last = last_norm(c);
    m->specs[last] = m->specs[last + 1] = (struct weight_spec){ WEIGHT_VECTOR, 1, c->n_embd };
    if (own_head)
        m->specs[last + 2] = (struct weight_spec){ WEIGHT_HEAD, c->vocab_size, c->n_embd };
}

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

enum { LAYER_OPS = 7, OTHER_OPS = 3 };

static void fill_ops(struct model *m, bool own_head)
{
    const struct cinf_config *c = &m->config;
    struct op *op = m->ops;
    *op++ = (struct op){ .kind = OP_EMBED, .out = ROWS_X, .weight = SPEC_TOKENS, .weight2 = SPEC_POSITIONS };
    for (uint32_t layer = 0; layer < c->n_layer; layer++) {
        *op++ = norm(c, layer_spec(layer, NORM1_GAIN));
        *op = linear(ROWS_Q, ROWS_H, layer_spec(layer, QKV_WEIGHT), EPILOGUE_QKV);
        op++->layer = layer;
        *op++ = (struct op){
            .kind = OP_ATTEND, .in = ROWS_Q, .out = ROWS_A, .layer = layer, .scale = attention_scale(c, layer)
        };
        *op++ = linear(ROWS_X, ROWS_A, layer_spec(layer, ATTN_OUT_WEIGHT), EPILOGUE_ADD);
        *op++ = norm(c, layer_spec(layer, NORM2_GAIN));
        *op = linear(ROWS_F, ROWS_H, layer_spec(layer, MLP_IN_WEIGHT), EPILOGUE_ACTIVATION);
        op++->activation = c->activation;
        *op++ = linear(ROWS_X, ROWS_F, layer_spec(layer, MLP_OUT_WEIGHT), EPILOGUE_ADD);
    }
    *op++ = norm(c, last_norm(c));
    *op++ =
        (struct op){ .kind = OP_LOGITS, .in = ROWS_H, .weight = own_head ? last_norm(c) + 2 : SPEC_TOKENS };
    assert(op == m->ops + m->program.n_ops);
}

enum cinf_status gpt2_new(struct model **out, const struct cinf_config *config, bool own_head)
{
    uint64_t d = config->n_embd;
    uint64_t n_ops = (uint64_t)config->n_layer * LAYER_OPS + OTHER_OPS;
    uint64_t n_specs = (uint64_t)config->n_layer * LAYER_SPECS + SPEC_LAYERS + (own_head ? 3 : 2);
    if (d == 0 || config->n_layer == 0 || config->n_head == 0 || d % config->n_head != 0 ||
        config->n_inner == 0 || config->vocab_size == 0 || config->n_positions == 0)
        return cinf_fail(CINF_EINVAL,
                         "not the shape of a GPT-2: n_embd %u, n_layer %u, n_head %u, n_inner %u, vocab_size "
                         "%u, n_positions %u",
                         config->n_embd, config->n_layer, config->n_head, config->n_inner, config->vocab_size,
                         config->n_positions);
    if (3 * d > UINT32_MAX || n_specs > UINT32_MAX || config->vocab_size > INT32_MAX)
        return cinf_fail(CINF_EUNSUPPORTED, "n_embd %u, n_layer %u or vocab_size %u is too large",
                         config->n_embd, config->n_layer, config->vocab_size);

    struct model *m = mem_new(1, sizeof *m);
    if (m) {
        m->config = *config;
        m->matrix_parameters = config->n_layer * (4 * d * d + 2 * d * config->n_inner);
        m->specs = mem_new(n_specs, sizeof *m->specs);
        m->ops = mem_new(n_ops, sizeof *m->ops);
    }
    if (!m || !m->specs || !m->ops) {
        model_free(m);
        return cinf_fail(CINF_ENOMEM, "no memory for the program of %u layers", config->n_layer);
    }
    m->program = (struct program){
        .ops = m->ops,
        .n_ops = (uint32_t)n_ops,
        .specs = m->specs,
        .n_specs = (uint32_t)n_specs,
        .width = config->n_embd,
        .inner = config->n_inner,
        .heads = config->n_head,
        .layers = config->n_layer,
        .vocab = config->vocab_size,
        .positions = config->n_positions,
    };
    fill_specs(m, own_head);
    fill_ops(m, own_head);
    *out = m;
    return CINF_OK;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    if (m->prepared)
        m->prepared->device->backend->prepared_free(m->prepared);
    if (m->kv)
        m->kv->device->backend->kv_free(m->kv);
    if (m->weights)
        m->weights->device->backend->weights_free(m->weights);
    mem_free(m->ops);
    mem_free(m->specs);
    mem_free(m);
}

/* ---- Queries ------------------------------------------------------------------------------ */

const struct cinf_config *model_config(const struct model *m)
{
    return &m->config;
}

enum weights_type model_weights_type(const struct model *m)
{
    return m->weights_type;
}

uint32_t model_slots(const struct model *m)
{
    return m->slots;
}

uint64_t model_kv_bytes(const struct model *m)
{
    return m->kv_position_bytes * m->config.n_positions * m->slots;
}

uint64_t model_parameters(const struct model *m)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->program.n_specs; i++)
        sum += (uint64_t)m->specs[i].rows * m->specs[i].cols;
    return sum;
}

struct model_work model_work_of(const struct model *m, uint32_t first_position, uint32_t n_rows,
                                uint32_t n_logits, bool only_best)
{
    uint64_t d = m->config.n_embd, first = first_position, n = n_rows;
    uint64_t pasts = n * first + n * (n + 1) / 2; /* the sum of (position + 1) */
    return (struct model_work){
        .flops = 2 * n * m->matrix_parameters + 4 * d * m->config.n_layer * pasts +
                 2 * (uint64_t)m->config.vocab_size * d * n_logits,
        .weight_bytes =
            m->weights->device->backend->weights_bytes(m->weights) - (n_logits == 0 ? m->head_bytes
                                                                      : only_best   ? m->prepared->pick_spares
                                                                                    : 0),
        .kv_bytes = n == 0 ? 0 : m->kv_position_bytes * (first + n + n),
    };
}

uint64_t model_copy_bytes(const struct model *m, uint32_t n)
{
    return 2 * m->kv_position_bytes * n;
}

/* ---- Steps -------------------------------------------------------------------------------- */

static bool batch_is_valid(const struct model *m, const struct batch *b)
{
    if (b->n_rows == 0 || b->n_rows > m->rows_max)
        return false;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        if (b->tokens[i] < 0 || (uint32_t)b->tokens[i] >= m->config.vocab_size ||
            b->positions[i] >= m->config.n_positions || b->slots[i] >= m->slots)
            return false;
        if (i > 0 && b->slots[i] == b->slots[i - 1] && b->positions[i] != b->positions[i - 1] + 1)
            return false;
    }
    return true;
}

enum cinf_status model_run(struct model *m, const struct batch *batch)
{
    assert(batch_is_valid(m, batch));
    return m->prepared->device->backend->run(m->prepared, batch);
}

enum cinf_status model_wait(struct model *m)
{
    return m->prepared->device->backend->wait(m->prepared);
}

enum cinf_status model_logits(struct model *m, uint32_t i, const float **out)
{
    return m->prepared->device->backend->logits(m->prepared, i, out);
}

bool model_picks(const struct model *m)
{
    return m->prepared->picks;
}

bool model_picks_log_sums(const struct model *m)
{
    return m->prepared->log_sums;
}

enum cinf_status model_allow(struct model *m, const uint8_t *allowed)
{
    return m->prepared->device->backend->allow(m->prepared, allowed);
}

enum cinf_status model_picked(struct model *m, uint32_t i, struct picked *out)
{
    return m->prepared->device->backend->picked(m->prepared, i, out);
}

enum cinf_status model_copy_prefix(struct model *m, uint32_t to_slot, uint32_t from_slot, uint32_t n)
{
    assert(to_slot < m->slots && from_slot < m->slots && to_slot != from_slot);
    assert(n <= m->config.n_positions);
    return m->kv->device->backend->kv_copy(m->kv, to_slot, from_slot, n);
}
