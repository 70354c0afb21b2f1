/* config.c - config.json and generation_config.json.
 *
 * An absent key means GPT-2's default: the published gpt2 itself names few of them.  Unknown keys are
 * ignored, and so are dtype and sampling: the tensors and the caller decide those.  Bounds are far above any
 * GPT-2, and low enough that sizes multiplied from them stay in 64 bits. */
#include <costinfer/checkpoint.h>

#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "file.h"
#include "hub_cache.h"
#include "json.h"
#include "mem.h"

enum {
    CONFIG_BYTES_MAX = 1 << 20,
    VOCAB_MAX = 1 << 24,
    POSITIONS_MAX = 1 << 20,
    EMBD_MAX = 1 << 16,
    LAYER_MAX = 1 << 10,
    INNER_MAX = 1 << 20,
    END_OF_TEXT = 50256,
};

static const struct cinf_config defaults = {
    .vocab_size = 50257,
    .n_positions = 1024,
    .n_embd = 768,
    .n_layer = 12,
    .n_head = 12,
    .activation = CINF_ACTIVATION_GELU_NEW,
    .layer_norm_epsilon = 1e-5f,
    .scale_attn_weights = true,
    .tie_word_embeddings = true,
    .n_eos = 1,
    .eos = { END_OF_TEXT },
    .bos = END_OF_TEXT,
};

static const struct {
    const char *name;
    enum cinf_activation activation;
} activations[] = {
    /* The first name of each is the one that is shown.  gelu_fast has sqrt(2/pi) to ten digits, which are
     * more than float32 holds. */
    { "gelu_new", CINF_ACTIVATION_GELU_NEW },
    { "gelu_pytorch_tanh", CINF_ACTIVATION_GELU_NEW },
    { "gelu_python_tanh", CINF_ACTIVATION_GELU_NEW },
    { "gelu_accurate", CINF_ACTIVATION_GELU_NEW },
    { "gelu_fast", CINF_ACTIVATION_GELU_NEW },
    { "gelu", CINF_ACTIVATION_GELU },
    { "gelu_python", CINF_ACTIVATION_GELU },
    { "gelu_10", CINF_ACTIVATION_GELU_10 },
    { "quick_gelu", CINF_ACTIVATION_QUICK_GELU },
    { "relu", CINF_ACTIVATION_RELU },
    { "relu2", CINF_ACTIVATION_RELU2 },
    { "relu6", CINF_ACTIVATION_RELU6 },
    { "leaky_relu", CINF_ACTIVATION_LEAKY_RELU },
    { "silu", CINF_ACTIVATION_SILU },
    { "swish", CINF_ACTIVATION_SILU },
    { "mish", CINF_ACTIVATION_MISH },
    { "tanh", CINF_ACTIVATION_TANH },
    { "sigmoid", CINF_ACTIVATION_SIGMOID },
    { "linear", CINF_ACTIVATION_LINEAR },
    { "laplace", CINF_ACTIVATION_LAPLACE },
};

const char *cinf_activation_name(enum cinf_activation activation)
{
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (activations[i].activation == activation)
            return activations[i].name;
    return "unknown";
}

/* Reads a size under its GPT-2 name or the name that other models give it. An absent key leaves *value alone.
 */
static enum cinf_status read_size(uint32_t *value, const cJSON *config, const char *key, const char *alias,
                                  int64_t high)
{
    int64_t v = 0, other = 0;
    TRY(json_read_int(&v, config, key, 1, high));
    if (alias)
        TRY(json_read_int(&other, config, alias, 1, high));
    if (v && other && v != other)
        return cinf_fail(CINF_EFORMAT, "\"%s\" is %d, but \"%s\" is %d", key, (int)v, alias, (int)other);
    if (v || other)
        *value = (uint32_t)(v ? v : other);
    return CINF_OK;
}

static enum cinf_status read_activation(enum cinf_activation *value, const cJSON *config)
{
    const char *name = NULL;
    TRY(json_read_text(&name, config, "activation_function"));
    if (!name)
        return CINF_OK;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(activations[i].name, name) == 0) {
            *value = activations[i].activation;
            return CINF_OK;
        }
    return cinf_fail(CINF_EUNSUPPORTED, "\"activation_function\" \"%.60s\" is not supported", name);
}

/* Adds one token of "eos_token_id"; some files use -1 for "none". */
static enum cinf_status add_eos(struct cinf_config *c, const cJSON *token)
{
    double id = cJSON_IsNumber(token) ? token->valuedouble : -2;
    if (!(id >= -1 && id <= INT32_MAX) || id != (double)(int32_t)id)
        return cinf_fail(CINF_EFORMAT, "\"eos_token_id\" is neither a token nor a list of tokens");
    if (id < 0)
        return CINF_OK;
    if (c->n_eos == CINF_EOS_MAX)
        return cinf_fail(CINF_EUNSUPPORTED, "\"eos_token_id\" lists more than %d tokens", CINF_EOS_MAX);
    c->eos[c->n_eos++] = (int32_t)id;
    return CINF_OK;
}

static enum cinf_status read_special_tokens(struct cinf_config *c, const cJSON *tree)
{
    const cJSON *token, *eos = json_member(tree, "eos_token_id");
    if (eos)
        c->n_eos = 0;
    if (cJSON_IsArray(eos))
        cJSON_ArrayForEach(token, eos)
        {
            TRY(add_eos(c, token));
        }
    else if (eos)
        TRY(add_eos(c, eos));
    int64_t bos = c->bos;
    TRY(json_read_int(&bos, tree, "bos_token_id", -1, INT32_MAX));
    c->bos = (int32_t)bos;
    return CINF_OK;
}

/* Tokens that the vocabulary lacks never occur: a small model may not have 50256, the default. */
static void drop_unknown_tokens(struct cinf_config *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_eos; i++)
        if ((uint32_t)c->eos[i] < c->vocab_size)
            c->eos[n++] = c->eos[i];
    c->n_eos = n;
    for (; n < CINF_EOS_MAX; n++)
        c->eos[n] = 0;
    if (c->bos >= (int64_t)c->vocab_size)
        c->bos = -1;
}

static enum cinf_status refuse_other_models(const cJSON *tree)
{
    const char *type = "gpt2";
    bool cross = false;
    TRY(json_read_text(&type, tree, "model_type"));
    if (strcmp(type, "gpt2") != 0)
        return cinf_fail(CINF_EUNSUPPORTED, "\"model_type\" is \"%.60s\"; only gpt2 is supported", type);
    TRY(json_read_bool(&cross, tree, "add_cross_attention"));
    if (cross)
        return cinf_fail(CINF_EUNSUPPORTED, "\"add_cross_attention\" is true, which is not supported");
    return CINF_OK;
}

static enum cinf_status read_config(struct cinf_config *out, const cJSON *tree)
{
    struct cinf_config c = defaults;
    double epsilon = c.layer_norm_epsilon;
    TRY(refuse_other_models(tree));
    TRY(read_size(&c.vocab_size, tree, "vocab_size", NULL, VOCAB_MAX));
    TRY(read_size(&c.n_positions, tree, "n_positions", "max_position_embeddings", POSITIONS_MAX));
    TRY(read_size(&c.n_embd, tree, "n_embd", "hidden_size", EMBD_MAX));
    TRY(read_size(&c.n_layer, tree, "n_layer", "num_hidden_layers", LAYER_MAX));
    TRY(read_size(&c.n_head, tree, "n_head", "num_attention_heads", EMBD_MAX));
    c.n_inner = 4 * c.n_embd;
    TRY(read_size(&c.n_inner, tree, "n_inner", NULL, INNER_MAX));
    if (c.n_embd % c.n_head != 0)
        return cinf_fail(CINF_EFORMAT, "\"n_embd\" %u is not a multiple of \"n_head\" %u", c.n_embd,
                         c.n_head);
    TRY(read_activation(&c.activation, tree));
    /* The low end keeps the float above 0. */
    TRY(json_read_double(&epsilon, tree, "layer_norm_epsilon", 1e-30, 1));
    c.layer_norm_epsilon = (float)epsilon;
    TRY(json_read_bool(&c.scale_attn_weights, tree, "scale_attn_weights"));
    TRY(json_read_bool(&c.scale_attn_by_inverse_layer_idx, tree, "scale_attn_by_inverse_layer_idx"));
    TRY(json_read_bool(&c.tie_word_embeddings, tree, "tie_word_embeddings"));
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(tree, "eos_token_id")))
        c.n_eos = 0;
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(tree, "bos_token_id")))
        c.bos = -1;
    TRY(read_special_tokens(&c, tree));
    *out = c;
    return CINF_OK;
}

/* Parses a file that must hold an object. *tree is freed by cJSON_Delete(). */
static enum cinf_status parse_file(cJSON **tree, const char *path)
{
    const struct json_limits limits = { .python = true };
    char *text;
    size_t n;
    TRY(file_load(&text, &n, path, CONFIG_BYTES_MAX));
    enum cinf_status status = json_parse(tree, text, n, &limits);
    mem_free(text);
    if (status == CINF_OK && !cJSON_IsObject(*tree)) {
        cJSON_Delete(*tree);
        status = cinf_fail(CINF_EFORMAT, "is not a JSON object");
    }
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "%s: ", path);
}

/* Hands the object of a file to `read`, and frees it. */
static enum cinf_status read_tree(struct cinf_config *c, cJSON *tree, const char *path,
                                  enum cinf_status (*read)(struct cinf_config *, const cJSON *))
{
    enum cinf_status status = read(c, tree);
    cJSON_Delete(tree);
    return status == CINF_OK ? CINF_OK
                             : cinf_fail_in(status == CINF_EINVAL ? CINF_EFORMAT : status, "%s: ", path);
}

/* Ignores a file that is not JSON, as transformers does, and leaves a note. */
static enum cinf_status read_generation(struct cinf_config *c, char *notes, const char *path)
{
    cJSON *tree;
    if (!path_exists(path))
        return CINF_OK;
    enum cinf_status status = parse_file(&tree, path);
    if (status == CINF_EFORMAT) {
        snprintf(notes, CINF_CONFIG_NOTES_MAX, "%s (the file is ignored, as by transformers)\n",
                 cinf_last_error());
        return CINF_OK;
    }
    TRY(status);
    return read_tree(c, tree, path, read_special_tokens);
}

/* Does what cinf_config_read_with_notes() does, given the paths of both files. */
static enum cinf_status read_both(struct cinf_config *out, char *notes, const char *folder,
                                  const char *config, const char *generation)
{
    struct cinf_config c;
    char found[CINF_CONFIG_NOTES_MAX] = "";
    if (!config || !generation)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for its path", folder);
    cJSON *tree;
    enum cinf_status status = parse_file(&tree, config);
    if (status == CINF_ENOTFOUND)
        hub_cache_hint(folder);
    TRY(status);
    TRY(read_tree(&c, tree, config, read_config));
    TRY(read_generation(&c, found, generation));
    drop_unknown_tokens(&c);
    *out = c;
    memcpy(notes, found, sizeof found);
    return CINF_OK;
}

enum cinf_status cinf_config_read_with_notes(struct cinf_config *out, char notes[CINF_CONFIG_NOTES_MAX],
                                             const char *folder)
{
    char *config = path_join(folder, "config.json"),
         *generation = path_join(folder, "generation_config.json");
    enum cinf_status status = read_both(out, notes, folder, config, generation);
    mem_free(config);
    mem_free(generation);
    return status;
}

enum cinf_status cinf_config_read(struct cinf_config *out, const char *folder)
{
    char notes[CINF_CONFIG_NOTES_MAX];
    return cinf_config_read_with_notes(out, notes, folder);
}

enum cinf_status cinf_config_named(struct cinf_config *out, const char *name)
{
    static const struct {
        const char *name;
        uint32_t n_layer, n_embd, n_head;
    } shapes[] = {
        { "distilgpt2", 6, 768, 12 },   { "gpt2", 12, 768, 12 },     { "gpt2-medium", 24, 1024, 16 },
        { "gpt2-large", 36, 1280, 20 }, { "gpt2-xl", 48, 1600, 25 },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0) {
            *out = defaults;
            out->n_layer = shapes[i].n_layer;
            out->n_embd = shapes[i].n_embd;
            out->n_head = shapes[i].n_head;
            out->n_inner = 4 * shapes[i].n_embd;
            return CINF_OK;
        }
    return cinf_fail(CINF_ENOTFOUND,
                     "\"%.60s\" is none of distilgpt2, gpt2, gpt2-medium, gpt2-large, gpt2-xl", name);
}
