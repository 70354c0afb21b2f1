/* model.c - a model on a device: its program, its steps, and what they cost.
 *
 * It knows no architecture.  What one contributes is in the program, and costs are counted from the program's
 * operations, so that what is charged cannot differ from what runs. */
#include "model.h"

#include <assert.h>

#include "fail.h"
#include "mem.h"
#include "model_state.h"

/* ---- Construction ------------------------------------------------------------------------- */

static enum cinf_status check_shape(const struct architecture *a, const struct cinf_config *c, bool own_head)
{
    if (c->n_embd == 0 || c->n_layer == 0 || c->n_head == 0 || c->n_embd % c->n_head != 0 ||
        c->n_inner == 0 || c->vocab_size == 0 || c->n_positions == 0)
        return cinf_fail(CINF_EINVAL,
                         "not the shape of %s: n_embd %u, n_layer %u, n_head %u, n_inner %u, vocab_size %u, "
                         "n_positions %u",
                         a->name, c->n_embd, c->n_layer, c->n_head, c->n_inner, c->vocab_size,
                         c->n_positions);
    uint64_t n_ops = (uint64_t)c->n_layer * a->layer_ops + a->other_ops;
    if (3 * (uint64_t)c->n_embd > UINT32_MAX || architecture_count_specs(a, c, own_head) > UINT32_MAX ||
        n_ops > UINT32_MAX || c->vocab_size > INT32_MAX)
        return cinf_fail(CINF_EUNSUPPORTED, "n_embd %u, n_layer %u or vocab_size %u is too large", c->n_embd,
                         c->n_layer, c->vocab_size);
    return CINF_OK;
}

/* Adds up what each row costs: 2 operations for each weight of a matrix product, and for each position
 * attended to 2D for its score and 2D for its value. */
static void count_work(struct model *m)
{
    for (const struct op *op = m->ops; op < m->ops + m->program.n_ops; op++) {
        const struct weight_spec *spec = &m->specs[op->weight];
        if (op->kind == OP_LINEAR)
            m->matrix_parameters += (uint64_t)spec->rows * spec->cols;
        else if (op->kind == OP_ATTEND)
            m->attend_flops += 4 * (uint64_t)m->program.width;
        else if (op->kind == OP_LOGITS)
            m->head_parameters = (uint64_t)spec->rows * spec->cols;
    }
}

enum cinf_status model_new(struct model **out, const struct architecture *a, const struct cinf_config *config,
                           bool own_head)
{
    TRY(check_shape(a, config, own_head));
    uint32_t n_ops = config->n_layer * a->layer_ops + a->other_ops;
    uint32_t n_specs = (uint32_t)architecture_count_specs(a, config, own_head);
    struct model *m = mem_new(1, sizeof *m);
    if (m) {
        m->architecture = a;
        m->config = *config;
        m->specs = mem_new(n_specs, sizeof *m->specs);
        m->ops = mem_new(n_ops, sizeof *m->ops);
    }
    if (!m || !m->specs || !m->ops) {
        model_free(m);
        return cinf_fail(CINF_ENOMEM, "no memory for the program of %u layers", config->n_layer);
    }
    m->program = (struct program){
        .ops = m->ops,
        .n_ops = n_ops,
        .specs = m->specs,
        .n_specs = n_specs,
        .width = config->n_embd,
        .inner = config->n_inner,
        .heads = config->n_head,
        .layers = config->n_layer,
        .vocab = config->vocab_size,
        .positions = config->n_positions,
    };
    architecture_fill_specs(m->specs, a, config, own_head);
    const struct op *end = a->write_ops(m->ops, config, own_head ? last_spec(a, config, a->last.n) : 0);
    assert(end == m->ops + n_ops);
    (void)end;
    count_work(m);
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
    uint64_t first = first_position, n = n_rows;
    uint64_t attended = n * first + n * (n + 1) / 2; /* the sum of (position + 1) */
    uint64_t unread = n_logits == 0 ? m->head_bytes : only_best ? m->prepared->top_k_saved_bytes : 0;
    return (struct model_work){
        .flops =
            2 * n * m->matrix_parameters + m->attend_flops * attended + 2 * m->head_parameters * n_logits,
        .weight_bytes = m->weights->device->backend->weights_bytes(m->weights) - unread,
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

bool model_has_top_k(const struct model *m)
{
    return m->prepared->has_top_k;
}

bool model_has_top_k_log_sums(const struct model *m)
{
    return m->prepared->log_sums;
}

enum cinf_status model_allow(struct model *m, const uint8_t *allowed)
{
    return m->prepared->device->backend->allow(m->prepared, allowed);
}

enum cinf_status model_top_k(struct model *m, uint32_t i, struct top_k *out)
{
    return m->prepared->device->backend->top_k(m->prepared, i, out);
}

enum cinf_status model_copy_prefix(struct model *m, uint32_t to_slot, uint32_t from_slot, uint32_t n)
{
    assert(to_slot < m->slots && from_slot < m->slots && to_slot != from_slot);
    assert(n <= m->config.n_positions);
    return m->kv->device->backend->kv_copy(m->kv, to_slot, from_slot, n);
}
