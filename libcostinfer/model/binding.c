/* binding.c - a checkpoint's names and shapes against an architecture's.
 *
 * The architecture is the first one whose token embeddings the checkpoint has, or whose head, where
 * config.json ties the two: of two tensors that share their memory, some tools keep either.  Names have a
 * prefix: none, the architecture's usual one ("transformer.") or any other that exactly one tensor of the
 * embeddings' name shows. The head stands outside of it.  Tensors that the architecture calls extras are
 * ignored, and others that it does not know are ignored with a note.  A tensor of a layer that config.json
 * does not have is an error: the file then belongs to another model. */
#include "binding.h"

#include <inttypes.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "model_state.h"

enum { COMPARED_BYTES = 1 << 20, NOTED_NAMES_MAX = 4 };

static enum cinf_status no_memory(const struct binding *b)
{
    return cinf_fail(CINF_ENOMEM, "no memory to load %s", b->folder);
}

/* ---- Finding names ------------------------------------------------------------------------ */

static const char *set_name(struct binding *b, size_t prefix_len, const char *name)
{
    strbuf_clear(&b->name);
    strbuf_add(&b->name, b->prefix.text, prefix_len);
    strbuf_puts(&b->name, name);
    return b->name.failed ? NULL : b->name.text;
}

/* Whether `name` is `end` below some prefix. */
static bool is_below_prefix(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n > n_end && name[n - n_end - 1] == '.' && strcmp(name + n - n_end, end) == 0;
}

/* The prefix of the tensors, if architecture `a` has a tensor of this name. */
static enum cinf_status find_prefix(struct binding *b, const struct architecture *a, const char *name_of_one,
                                    bool *is_found)
{
    const char *const usual[] = { "", a->prefix };
    *is_found = true;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        strbuf_clear(&b->prefix);
        strbuf_puts(&b->prefix, usual[i]);
        if (b->prefix.failed || !set_name(b, b->prefix.len, name_of_one))
            return no_memory(b);
        if (cinf_checkpoint_find(b->checkpoint, b->name.text))
            return CINF_OK;
    }
    const char *found = NULL;
    for (uint32_t i = 0; i < cinf_checkpoint_count(b->checkpoint); i++) {
        const char *name = cinf_checkpoint_tensor(b->checkpoint, i)->name;
        if (!is_below_prefix(name, name_of_one))
            continue;
        if (found)
            return cinf_fail(CINF_EFORMAT, "%s: both %s and %s could be %s", b->folder, found, name,
                             name_of_one == a->first.tensors[0].name ? "the token embeddings"
                                                                     : "the model's");
        found = name;
    }
    *is_found = found != NULL;
    if (!found)
        return CINF_OK;
    strbuf_clear(&b->prefix);
    strbuf_add(&b->prefix, found, strlen(found) - strlen(name_of_one));
    return b->prefix.failed ? no_memory(b) : CINF_OK;
}

/* The head: outside the prefix, or below the first parts of a prefix like "_orig_mod.transformer.". */
static enum cinf_status find_head(struct binding *b, const struct cinf_tensor **out)
{
    for (size_t n = 0; n <= b->prefix.len; n++) {
        if (n > 0 && b->prefix.text[n - 1] != '.')
            continue;
        if (!set_name(b, n, b->architecture->head))
            return no_memory(b);
        *out = cinf_checkpoint_find(b->checkpoint, b->name.text);
        if (*out)
            break;
    }
    return CINF_OK;
}

/* By the embeddings; or, without them, by the tensor that is listed behind them and a head that is tied. */
static enum cinf_status find_architecture(struct binding *b, bool is_tied)
{
    const struct architecture *const *all = architectures();
    for (uint32_t which = 0; which < (is_tied ? 2 : 1); which++)
        for (const struct architecture *const *a = all; *a; a++) {
            bool is_found;
            TRY(find_prefix(b, *a, (*a)->first.tensors[which].name, &is_found));
            if (!is_found)
                continue;
            b->architecture = *a;
            if (which == 0)
                b->tokens = cinf_checkpoint_find(b->checkpoint,
                                                 set_name(b, b->prefix.len, (*a)->first.tensors[0].name));
            else
                TRY(find_head(b, &b->tokens));
            if (b->tokens)
                return CINF_OK;
        }
    strbuf_clear(&b->name);
    for (const struct architecture *const *a = all; *a; a++) {
        const char *tokens = (*a)->first.tensors[0].name;
        strbuf_printf(&b->name, "%s%s or %s%s", a == all ? "" : " or ", tokens, (*a)->prefix, tokens);
    }
    return b->name.failed ? no_memory(b)
                          : cinf_fail(CINF_EFORMAT, "%s: there is no tensor %s", b->folder, b->name.text);
}

/* ---- Shapes ------------------------------------------------------------------------------- */

static void put_shape(struct strbuf *out, uint32_t n_dims, const uint64_t *dims)
{
    strbuf_putc(out, '[');
    for (uint32_t i = 0; i < n_dims; i++)
        strbuf_printf(out, "%s%" PRIu64, i ? ", " : "", dims[i]);
    strbuf_putc(out, ']');
}

static enum cinf_status wrong_shape(const struct cinf_tensor *t, uint32_t n_dims, const uint64_t *expected)
{
    struct strbuf text = { 0 };
    strbuf_printf(&text, "%s: tensor %s is ", t->file, t->name);
    put_shape(&text, t->n_dims, t->dims);
    strbuf_puts(&text, ", expected ");
    put_shape(&text, n_dims, expected);
    enum cinf_status status =
        cinf_fail(CINF_EFORMAT, "%s", text.failed ? "a tensor's shape is wrong" : text.text);
    strbuf_free(&text);
    return status;
}

static enum cinf_status check_tensor(const struct cinf_tensor *t, const struct weight_spec *spec)
{
    const uint64_t matrix[] = { spec->rows, spec->cols };
    bool is_vector = spec->role == WEIGHT_VECTOR;
    uint32_t n_dims = is_vector ? 1 : 2;
    const uint64_t *expected = is_vector ? matrix + 1 : matrix;
    if (t->n_dims != n_dims || memcmp(t->dims, expected, n_dims * sizeof *expected) != 0)
        return wrong_shape(t, n_dims, expected);
    if (t->dtype == CINF_DTYPE_OTHER)
        return cinf_fail(CINF_EUNSUPPORTED,
                         "%s: tensor %s is %s; weights are read from F32, F16, BF16 and F64", t->file,
                         t->name, t->dtype_name);
    return CINF_OK;
}

static enum cinf_status missing(const struct binding *b, const char *why)
{
    return cinf_fail(CINF_EFORMAT, "%s: there is no tensor %s%s", b->folder, b->name.text, why);
}

/* V is the number of rows of the token embeddings, which may have been padded beyond what config.json and the
 * tokenizer know. */
static enum cinf_status find_vocab(struct binding *b, struct cinf_config *config)
{
    const struct cinf_tensor *t = b->tokens;
    if (t->n_dims != 2 || t->dims[0] < config->vocab_size || t->dims[0] > INT32_MAX)
        return wrong_shape(t, 2, (const uint64_t[]){ config->vocab_size, config->n_embd });
    if (t->dims[0] > config->vocab_size) {
        strbuf_printf(&b->notes,
                      "%s has %" PRIu64 " rows, vocab_size in config.json is %u: %" PRIu64
                      " rows of padding\n",
                      t->name, t->dims[0], config->vocab_size, t->dims[0] - config->vocab_size);
        config->vocab_size = (uint32_t)t->dims[0];
    }
    return CINF_OK;
}

/* ---- The head ----------------------------------------------------------------------------- */

/* Whether two tensors of one shape hold the same bytes. */
static enum cinf_status compare(const struct binding *b, const struct cinf_tensor *one,
                                const struct cinf_tensor *two, bool *same)
{
    *same = one->dtype == two->dtype && one->n_elements == two->n_elements;
    if (!*same || one->n_elements == 0)
        return CINF_OK;
    uint64_t width = one->n_bytes / one->n_elements;
    uint64_t n = COMPARED_BYTES / width < one->n_elements ? COMPARED_BYTES / width : one->n_elements;
    char *bytes = mem_new(n, 2 * width);
    if (!bytes)
        return no_memory(b);
    enum cinf_status status = CINF_OK;
    for (uint64_t first = 0; first < one->n_elements && *same && status == CINF_OK; first += n) {
        uint64_t now = one->n_elements - first < n ? one->n_elements - first : n;
        status = cinf_checkpoint_read(b->checkpoint, one, first, now, bytes);
        if (status == CINF_OK)
            status = cinf_checkpoint_read(b->checkpoint, two, first, now, bytes + n * width);
        *same = status == CINF_OK && memcmp(bytes, bytes + n * width, now * width) == 0;
    }
    mem_free(bytes);
    return status;
}

/* Whether the head has weights of its own.  A tied model's files may hold them nevertheless: equal bytes are
 * a copy.  Different ones are a decision, which the operator makes by `untied_head`.  Without it we do as
 * transformers does: it reads both into the one tensor that the two share, the head after the embeddings, but
 * shard by shard, so that what comes last stays. */
static enum cinf_status decide_head(struct binding *b, const struct cinf_config *config, bool untied_head,
                                    bool *own)
{
    const struct cinf_tensor *head = NULL;
    TRY(find_head(b, &head));
    *own = false;
    if (!head) {
        strbuf_clear(&b->name);
        strbuf_puts(&b->name, b->architecture->head);
        if (b->name.failed)
            return no_memory(b);
        return config->tie_word_embeddings
                   ? CINF_OK
                   : missing(b, ", which tie_word_embeddings false in config.json asks for");
    }
    TRY(check_tensor(head, &(struct weight_spec){ WEIGHT_HEAD, config->vocab_size, config->n_embd }));

    const struct cinf_tensor *tokens = b->tokens;
    bool same;
    TRY(compare(b, head, tokens, &same));
    if (same)
        return CINF_OK;
    *own = !config->tie_word_embeddings || untied_head;
    if (*own)
        return CINF_OK;
    if (strcmp(head->file, tokens->file) >= 0)
        b->tokens = head;
    strbuf_printf(
        &b->notes,
        "%s differs from %s; %s is taken for both, as transformers does, because config.json ties them; "
        "the untied-head option takes each for itself\n",
        head->name, tokens->name, b->tokens->name);
    return CINF_OK;
}

/* ---- Binding ------------------------------------------------------------------------------ */

static enum cinf_status find_spec(struct binding *b, const struct model *m, uint32_t spec,
                                  const struct cinf_tensor **out)
{
    if (m->specs[spec].role == WEIGHT_HEAD)
        return find_head(b, out);
    if (spec == 0) {
        *out = b->tokens;
        return CINF_OK;
    }
    struct strbuf name = { 0 };
    architecture_spec_name(&name, b->architecture, &m->config, spec);
    bool is_set = !name.failed && set_name(b, b->prefix.len, name.text);
    strbuf_free(&name);
    if (!is_set)
        return no_memory(b);
    *out = cinf_checkpoint_find(b->checkpoint, b->name.text);
    return CINF_OK;
}

static enum cinf_status bind_specs(struct binding *b, const struct model *m)
{
    b->tensors = mem_new(m->program.n_specs, sizeof *b->tensors);
    if (!b->tensors)
        return no_memory(b);
    for (uint32_t i = 0; i < m->program.n_specs; i++) {
        const struct cinf_tensor *t = NULL;
        TRY(find_spec(b, m, i, &t));
        if (!t)
            return missing(b, "");
        TRY(check_tensor(t, &m->specs[i]));
        b->tensors[i] = t;
    }
    return CINF_OK;
}

static enum name_kind kind_of(const struct binding *b, const char *name, uint32_t n_layer)
{
    bool has_prefix = strncmp(name, b->prefix.text, b->prefix.len) == 0;
    enum name_kind kind =
        has_prefix ? architecture_name_kind(b->architecture, name + b->prefix.len, n_layer) : NAME_UNKNOWN;
    return kind == NAME_UNKNOWN && text_ends_with(name, b->architecture->head) ? NAME_BOUND : kind;
}

/* Refuses tensors beyond the model, and notes which ones are ignored. */
static enum cinf_status look_at_the_others(struct binding *b, uint32_t n_layer)
{
    uint32_t n_unknown = 0;
    struct strbuf names = { 0 };
    for (uint32_t i = 0; i < cinf_checkpoint_count(b->checkpoint); i++) {
        const char *name = cinf_checkpoint_tensor(b->checkpoint, i)->name;
        enum name_kind kind = kind_of(b, name, n_layer);
        if (kind == NAME_BEYOND) {
            strbuf_free(&names);
            return cinf_fail(CINF_EFORMAT, "%s: there is a tensor %s, but config.json says n_layer %u",
                             b->folder, name, n_layer);
        }
        if (kind == NAME_UNKNOWN && n_unknown++ < NOTED_NAMES_MAX) {
            strbuf_putc(&names, ' ');
            strbuf_put_json(&names, name, strlen(name));
        }
    }
    if (n_unknown > 0)
        strbuf_printf(&b->notes, "%u tensors are not part of %s and are ignored:%s%s\n", n_unknown,
                      b->architecture->name, names.text ? names.text : "",
                      n_unknown > NOTED_NAMES_MAX ? " ..." : "");
    bool failed = names.failed || b->notes.failed;
    strbuf_free(&names);
    return failed ? no_memory(b) : CINF_OK;
}

enum cinf_status binding_open(struct binding *b, struct model **model, const char *folder, bool untied_head)
{
    struct cinf_config config;
    b->folder = folder;
    char notes[CINF_CONFIG_NOTES_MAX];
    TRY(cinf_config_read_with_notes(&config, notes, folder));
    strbuf_puts(&b->notes, notes);
    TRY(cinf_checkpoint_open(&b->checkpoint, folder));
    TRY(find_architecture(b, config.tie_word_embeddings));
    TRY(find_vocab(b, &config));
    /* Before memory is taken for each layer that config.json claims. */
    if (config.n_layer > cinf_checkpoint_count(b->checkpoint))
        return cinf_fail(CINF_EFORMAT, "%s: config.json says n_layer %u, but there are %u tensors in all",
                         folder, config.n_layer, cinf_checkpoint_count(b->checkpoint));
    bool own_head;
    TRY(decide_head(b, &config, untied_head, &own_head));
    struct model *m;
    TRY(model_new(&m, b->architecture, &config, own_head));
    enum cinf_status status = bind_specs(b, m);
    if (status == CINF_OK)
        status = look_at_the_others(b, config.n_layer);
    if (status != CINF_OK) {
        model_free(m);
        return status;
    }
    *model = m;
    return CINF_OK;
}

void binding_free(struct binding *b)
{
    cinf_checkpoint_free(b->checkpoint);
    strbuf_free(&b->prefix);
    strbuf_free(&b->name);
    strbuf_free(&b->notes);
    mem_free(b->tensors);
}
