/* architecture.c - specs and names that follow from an architecture's tables.
 *
 * A spec's index says which table's tensor it is, and a name is taken apart the same way, so that neither a
 * list of all names nor a hash table exists: a model has a dozen names and many layers of them. */
#include "architecture.h"

#include <string.h>

uint32_t layer_spec(const struct architecture *a, uint32_t layer, uint32_t which)
{
    return a->first.n + layer * a->layers.n + which;
}

uint32_t last_spec(const struct architecture *a, const struct cinf_config *config, uint32_t which)
{
    return layer_spec(a, config->n_layer, which);
}

uint64_t architecture_count_specs(const struct architecture *a, const struct cinf_config *config,
                                  bool own_head)
{
    return (uint64_t)a->first.n + (uint64_t)config->n_layer * a->layers.n + a->last.n + (own_head ? 1 : 0);
}

/* The tensor of spec `index`, and its layer where *in_layer; NULL for the head. */
static const struct model_tensor *tensor_of(const struct architecture *a, const struct cinf_config *config,
                                            uint32_t index, bool *in_layer, uint32_t *layer)
{
    uint32_t last = last_spec(a, config, 0);
    *in_layer = index >= a->first.n && index < last;
    if (*in_layer) {
        *layer = (index - a->first.n) / a->layers.n;
        return &a->layers.tensors[(index - a->first.n) % a->layers.n];
    }
    if (index < a->first.n)
        return &a->first.tensors[index];
    return index - last < a->last.n ? &a->last.tensors[index - last] : NULL;
}

static uint32_t size_of_dim(const struct cinf_config *c, enum dim dim)
{
    switch (dim) {
    case DIM_D:
        return c->n_embd;
    case DIM_3D:
        return 3 * c->n_embd;
    case DIM_I:
        return c->n_inner;
    case DIM_V:
        return c->vocab_size;
    case DIM_P:
        return c->n_positions;
    case DIM_ONE:
        break;
    }
    return 1;
}

void architecture_fill_specs(struct weight_spec *out, const struct architecture *a,
                             const struct cinf_config *config, bool own_head)
{
    uint32_t n = (uint32_t)architecture_count_specs(a, config, own_head), layer;
    bool in_layer;
    for (uint32_t i = 0; i < n; i++) {
        const struct model_tensor *t = tensor_of(a, config, i, &in_layer, &layer);
        out[i] =
            t ? (struct weight_spec){ t->role, size_of_dim(config, t->rows), size_of_dim(config, t->cols) }
              : (struct weight_spec){ WEIGHT_HEAD, config->vocab_size, config->n_embd };
    }
}

void architecture_spec_name(struct strbuf *out, const struct architecture *a,
                            const struct cinf_config *config, uint32_t index)
{
    uint32_t layer;
    bool in_layer;
    const struct model_tensor *t = tensor_of(a, config, index, &in_layer, &layer);
    strbuf_clear(out);
    if (in_layer)
        strbuf_printf(out, "%s%u.", a->layer, layer);
    strbuf_puts(out, t ? t->name : a->head);
}

bool architecture_spec_is_gain(const struct architecture *a, const struct cinf_config *config, uint32_t index)
{
    uint32_t layer;
    bool in_layer;
    const struct model_tensor *t = tensor_of(a, config, index, &in_layer, &layer);
    return t && t->is_gain;
}

static bool lists(const struct tensor_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (strcmp(name, list->tensors[i].name) == 0)
            return true;
    }
    return false;
}

/* Reads "12.rest": decimal, without leading zeros.  Returns "rest", or NULL; numbers above UINT32_MAX stay
 * above. */
static const char *read_layer(uint64_t *layer, const char *text)
{
    const char *at = text;
    *layer = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        *layer = *layer > UINT32_MAX ? *layer : *layer * 10 + (uint64_t)(*at - '0');
    bool leading_zero = text[0] == '0' && at - text > 1;
    return at == text || leading_zero || *at != '.' ? NULL : at + 1;
}

enum name_kind architecture_name_kind(const struct architecture *a, const char *name, uint32_t n_layer)
{
    if (lists(&a->first, name) || lists(&a->last, name) || strcmp(name, a->head) == 0)
        return NAME_BOUND;
    uint64_t layer;
    size_t n = strlen(a->layer);
    const char *rest = strncmp(name, a->layer, n) == 0 ? read_layer(&layer, name + n) : NULL;
    if (!rest)
        return NAME_UNKNOWN;
    for (const char *const *extra = a->extras; *extra; extra++) {
        if (strcmp(rest, *extra) == 0)
            return NAME_EXTRA;
    }
    if (!lists(&a->layers, rest))
        return NAME_UNKNOWN;
    return layer < n_layer ? NAME_BOUND : NAME_BEYOND;
}
