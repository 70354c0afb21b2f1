/* tokenizer_settings.c - every setting is obeyed, as transformers obeys it, or refused by its name.
 *
 * Beside a tokenizer.json, transformers 4 lets tokenizer_config.json decide one thing alone: GPT-2's class
 * sets add_prefix_space on a pre-tokenizer that is ByteLevel and nothing else, to false when the key is
 * absent.  Its add_bos_token counts only where vocab.json and merges.txt are read.  A tokenizer.json without
 * a tokenizer_config.json is obeyed as it stands.
 *
 * Two settings of tokenizer.json are not about the ids of a text: "truncation" and "padding", which
 * transformers switches off for a call that does not ask for them. */
#include "tokenizer_settings.h"

#include <string.h>

#include "fail.h"
#include "json.h"
#include "spelling.h"

/* Whether model.key is absent or of no effect. */
static bool is_off(const cJSON *model, const char *key)
{
    const cJSON *value = json_member(model, key);
    return !value || cJSON_IsFalse(value) || (cJSON_IsString(value) && value->valuestring[0] == '\0') ||
           (cJSON_IsNumber(value) && value->valuedouble == 0);
}

enum cinf_status settings_check_model(const cJSON *model)
{
    static const char *const others[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix",
                                          "byte_fallback" };
    const char *type = "BPE";
    TRY(json_read_text(&type, model, "type"));
    if (strcmp(type, "BPE") != 0)
        return cinf_fail(CINF_EUNSUPPORTED, "the model \"%.60s\" is not supported: only byte-level BPE is",
                         type);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!is_off(model, others[i]))
            return cinf_fail(CINF_EUNSUPPORTED, "\"%s\" of the model is not off, which is not supported",
                             others[i]);
    return CINF_OK;
}

/* "ignore_merges", "unk_token" and "fuse_unk" */
static enum cinf_status read_model(struct bpe *b, const cJSON *model)
{
    const char *unknown = NULL;
    TRY(json_read_bool(&b->ignore_merges, model, "ignore_merges"));
    TRY(json_read_bool(&b->fuse_unknown, model, "fuse_unk"));
    TRY(json_read_text(&unknown, model, "unk_token"));
    if (!unknown)
        return CINF_OK;
    b->unknown = bpe_find(b, unknown, strlen(unknown));
    b->has_unknown = b->unknown >= 0;
    for (int byte = 0; byte < 256 && !b->has_unknown; byte++)
        if (b->byte_ids[byte] < 0)
            return cinf_fail(CINF_EFORMAT, "\"unk_token\" \"%.60s\" is not in the vocabulary", unknown);
    return CINF_OK;
}

/* Decoding joins the bytes of tokens: what ByteLevel does.  No decoder at all would show the spellings. */
static enum cinf_status check_decoder(const cJSON *decoder)
{
    const char *type = "ByteLevel";
    TRY(json_read_text(&type, decoder, "type"));
    if (strcmp(type, "ByteLevel") == 0)
        return CINF_OK;
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *step = json_member(decoder, "decoders");
        step = cJSON_IsArray(step) ? step->child : NULL;
        const char *first = "";
        TRY(json_read_text(&first, step, "type"));
        type = first;
        if (step && strcmp(first, "ByteLevel") == 0)
            step = step->next;
        for (; step && strcmp(first, "ByteLevel") == 0; step = step->next) {
            TRY(json_read_text(&type, step, "type"));
            if (strcmp(type, "Fuse") != 0)
                break;
        }
        if (!step && strcmp(first, "ByteLevel") == 0)
            return CINF_OK;
    }
    return cinf_fail(CINF_EUNSUPPORTED, "the decoder \"%.60s\" is not supported: only ByteLevel is", type);
}

static enum cinf_status check_template(const struct vocabulary *v)
{
    for (size_t i = 0; i < v->template.n; i++) {
        int32_t id = v->template.ids[i];
        if (id != TEMPLATE_TEXT && ((size_t)id >= v->bpe.n_ids || v->bpe.tokens[id].n == 0))
            return cinf_fail(CINF_EFORMAT, "\"post_processor\" adds token %d, which is not in the vocabulary",
                             id);
    }
    return CINF_OK;
}

enum cinf_status settings_of_single(struct vocabulary *v, const cJSON *root)
{
    const cJSON *splitter = cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer");
    TRY(read_model(&v->bpe, json_member(root, "model")));
    TRY(normalizer_read(&v->normalizer, json_member(root, "normalizer")));
    if (cJSON_IsNull(splitter))
        return cinf_fail(
            CINF_EUNSUPPORTED,
            "\"pre_tokenizer\" is null: only byte-level tokenizers, with ByteLevel there, are supported");
    TRY(splitter ? splitter_read(&v->splitter, splitter) : splitter_default(&v->splitter, false));
    TRY(template_read(&v->template, json_member(root, "post_processor")));
    TRY(check_template(v));
    return check_decoder(json_member(root, "decoder"));
}

/* ---- tokenizer_config.json ----------------------------------------------------------------- */

/* Tells whether `name` is the class, with or without "Fast" behind it. */
static bool is_class(const char *name, const char *class)
{
    size_t n = strlen(class);
    return strncmp(name, class, n) == 0 && (name[n] == '\0' || strcmp(name + n, "Fast") == 0);
}

enum cinf_status settings_of_class(struct vocabulary *v, const cJSON *root, const cJSON *config)
{
    const char *class = "GPT2Tokenizer", *type = "ByteLevel";
    bool prefix = false, bos = false;
    if (!config)
        return CINF_OK;
    TRY(json_read_text(&class, config, "tokenizer_class"));
    TRY(json_read_bool(&prefix, config, "add_prefix_space"));
    TRY(json_read_bool(&bos, config, "add_bos_token"));
    TRY(json_read_text(&type, json_member(root, "pre_tokenizer"), "type"));
    bool gpt2 = is_class(class, "GPT2Tokenizer") || is_class(class, "CodeGenTokenizer");
    if (gpt2 && strcmp(type, "ByteLevel") == 0) {
        if (splitter_set_prefix(&v->splitter, prefix))
            strbuf_printf(
                &v->notes,
                "add_prefix_space is %s, as tokenizer_config.json has it for transformers, although "
                "tokenizer.json says %s\n",
                prefix ? "true" : "false", prefix ? "false" : "true");
    } else if (prefix) {
        strbuf_puts(&v->notes,
                    "add_prefix_space in tokenizer_config.json has no effect beside this tokenizer.json, "
                    "as in transformers\n");
    }
    if (bos && v->template.n == 0)
        strbuf_puts(&v->notes,
                    "add_bos_token in tokenizer_config.json has no effect beside this tokenizer.json, "
                    "whose post-processor adds no token, as in transformers\n");
    return CINF_OK;
}

/* Reads the text of a special token by its key: NULL when it is null; an absent key leaves *text alone. */
static void read_token(const char **text, const cJSON *object, const char *key)
{
    const cJSON *token = cJSON_GetObjectItemCaseSensitive(object, key);
    const cJSON *content = cJSON_IsObject(token) ? json_member(token, "content") : token;
    if (token)
        *text = cJSON_IsString(content) ? content->valuestring : NULL;
}

static enum cinf_status add_bos(struct vocabulary *v, const cJSON *config, const cJSON *special)
{
    const char *bos = "<|endoftext|>";
    read_token(&bos, config, "bos_token");
    if (!json_member(config, "added_tokens_decoder"))
        read_token(&bos, special, "bos_token");
    if (!bos)
        return cinf_fail(CINF_EFORMAT, "\"add_bos_token\" is true, but there is no \"bos_token\"");
    struct strbuf bytes = { 0 };
    int32_t id = bpe_find(&v->bpe, bos, strlen(bos));
    if (id < 0 && spelling_read(&bytes, bos, strlen(bos)) && bytes.len > 0)
        id = bpe_find(&v->bpe, bytes.text, bytes.len);
    bool failed = bytes.failed;
    strbuf_free(&bytes);
    if (failed)
        return cinf_fail(CINF_ENOMEM, "no memory for token \"%.60s\"", bos);
    if (id < 0)
        return cinf_fail(
            CINF_EFORMAT,
            "\"add_bos_token\" is true, but the \"bos_token\" \"%.60s\" is not in the vocabulary", bos);
    return template_prefix(&v->template, id);
}

enum cinf_status settings_of_pair(struct vocabulary *v, const cJSON *config, const cJSON *special)
{
    static const char *const classes[] = { "GPT2Tokenizer", "CodeGenTokenizer", "PreTrainedTokenizer" };
    const char *class = classes[0];
    bool prefix = false, bos = false, known = false;
    TRY(json_read_text(&class, config, "tokenizer_class"));
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        known = known || is_class(class, classes[i]);
    if (!known)
        return cinf_fail(CINF_EUNSUPPORTED,
                         "\"tokenizer_class\" \"%.60s\" is not supported without a tokenizer.json", class);
    TRY(json_read_bool(&prefix, config, "add_prefix_space"));
    TRY(json_read_bool(&bos, config, "add_bos_token"));
    TRY(splitter_default(&v->splitter, prefix));
    return bos ? add_bos(v, config, special) : CINF_OK;
}
