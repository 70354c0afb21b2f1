#include "template.h"

#include <string.h>

#include "fail.h"
#include "json.h"
#include "mem.h"

enum { IDS_MAX = 1024, SEQUENCE_DEPTH_MAX = 8 };

/* A second post-processor that adds tokens is refused: tokenizers itself takes what the first one added for
 * texts. */
static enum cinf_status set(struct template *t, const int32_t *ids, size_t n)
{
    if (t->ids)
        return cinf_fail(CINF_EUNSUPPORTED, "\"post_processor\" has more than one that adds tokens");
    t->ids = mem_new(n, sizeof *ids);
    if (!t->ids)
        return cinf_fail(CINF_ENOMEM, "no memory for a post-processor");
    if (n > 0)
        memcpy(t->ids, ids, n * sizeof *ids);
    t->n = n;
    return CINF_OK;
}

enum cinf_status template_prefix(struct template *t, int32_t id)
{
    return set(t, (int32_t[]){ id, TEMPLATE_TEXT }, 2);
}

static bool is_id(const cJSON *value)
{
    return cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < INT32_MAX &&
           value->valuedouble == (double)(int32_t)value->valuedouble;
}

/* ---- TemplateProcessing -------------------------------------------------------------------- */

struct round {
    int32_t ids[IDS_MAX];
    size_t n;
};

static enum cinf_status put(struct round *r, int32_t id)
{
    if (r->n == IDS_MAX)
        return cinf_fail(CINF_EUNSUPPORTED, "\"post_processor\" adds more than %d tokens", IDS_MAX);
    r->ids[r->n++] = id;
    return CINF_OK;
}

/* Puts the ids of a special token: "special_tokens": {NAME: {"id": NAME, "ids": [...], "tokens": [...]}}. */
static enum cinf_status put_special(struct round *r, const cJSON *settings, const char *name)
{
    const cJSON *id, *ids = json_member(json_member(json_member(settings, "special_tokens"), name), "ids");
    if (!cJSON_IsArray(ids))
        return cinf_fail(CINF_EFORMAT, "\"post_processor\" has no ids for its token \"%.60s\"", name);
    cJSON_ArrayForEach(id, ids)
    {
        if (!is_id(id))
            return cinf_fail(CINF_EFORMAT,
                             "\"post_processor\" has an id for its token \"%.60s\" that is none", name);
        TRY(put(r, (int32_t)id->valuedouble));
    }
    return CINF_OK;
}

static enum cinf_status read_pieces(struct round *r, const cJSON *settings)
{
    const cJSON *piece, *single = json_member(settings, "single");
    if (!cJSON_IsArray(single))
        return cinf_fail(CINF_EFORMAT,
                         "a post-processor of type \"TemplateProcessing\" has no array \"single\"");
    cJSON_ArrayForEach(piece, single)
    {
        const char *special = NULL, *sequence = NULL;
        TRY(json_read_text(&special, json_member(piece, "SpecialToken"), "id"));
        TRY(json_read_text(&sequence, json_member(piece, "Sequence"), "id"));
        if (special)
            TRY(put_special(r, settings, special));
        else if (sequence && strcmp(sequence, "A") == 0)
            TRY(put(r, TEMPLATE_TEXT));
        else
            return cinf_fail(CINF_EFORMAT,
                             "\"single\" of a post-processor holds neither a token nor the text");
    }
    return CINF_OK;
}

static enum cinf_status read_template(struct template *t, const cJSON *settings)
{
    struct round *r = mem_new(1, sizeof *r);
    enum cinf_status status =
        r ? read_pieces(r, settings) : cinf_fail(CINF_ENOMEM, "no memory for a post-processor");
    if (status == CINF_OK)
        status = set(t, r->ids, r->n);
    mem_free(r);
    return status;
}

/* ---- The others ---------------------------------------------------------------------------- */

/* Reads "cls": ["<s>", 0] and "sep": ["</s>", 2]. */
static enum cinf_status read_around(struct template *t, const cJSON *settings)
{
    static const char *const keys[] = { "cls", "sep" };
    int32_t round[] = { 0, TEMPLATE_TEXT, 0 };
    for (size_t i = 0; i < 2; i++) {
        const cJSON *token = json_member(settings, keys[i]);
        const cJSON *id = cJSON_IsArray(token) && token->child ? token->child->next : NULL;
        if (!id || !is_id(id))
            return cinf_fail(CINF_EFORMAT, "\"%s\" of a post-processor is not a token with its id", keys[i]);
        round[2 * i] = (int32_t)id->valuedouble;
    }
    return set(t, round, 3);
}

static enum cinf_status read_processor(struct template *t, const cJSON *settings,
                                       int depth) /* NOLINT(misc-no-recursion) */
{
    const char *type = NULL;
    TRY(json_read_text(&type, settings, "type"));
    if (!type)
        return cinf_fail(CINF_EFORMAT, "a post-processor has no \"type\"");
    if (strcmp(type, "ByteLevel") == 0) /* it changes offsets, not ids */
        return CINF_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, settings);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return read_around(t, settings);
    if (strcmp(type, "Sequence") != 0)
        return cinf_fail(CINF_EUNSUPPORTED, "the post-processor \"%.60s\" is not supported", type);
    const cJSON *processor, *list = json_member(settings, "processors");
    if (!cJSON_IsArray(list) || depth == SEQUENCE_DEPTH_MAX)
        return cinf_fail(CINF_EFORMAT, "a post-processor of type \"Sequence\" has no array \"processors\"");
    cJSON_ArrayForEach(processor, list) TRY(read_processor(t, processor, depth + 1));
    return CINF_OK;
}

enum cinf_status template_read(struct template *t, const cJSON *settings)
{
    return settings ? read_processor(t, settings, 0) : CINF_OK;
}

void template_free(struct template *t)
{
    mem_free(t->ids);
    *t = (struct template){ 0 };
}
