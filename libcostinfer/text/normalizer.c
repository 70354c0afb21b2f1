/* normalizer.c - the normalizers of Hugging Face's tokenizers, one step after the other. */
#include "normalizer.h"

#include <string.h>

#include "fail.h"
#include "json.h"
#include "mem.h"
#include "pattern.h"
#include "unicode_class.h"
#include "utf8.h"

enum {
    STEPS_MAX = 64,
    CONTENT_MAX = 256, /* bytes that a replacement puts in; it bounds how a text can grow */
    SEQUENCE_DEPTH_MAX = 8,
};

enum step_kind { STEP_FORM, STEP_LOWERCASE, STEP_STRIP_MARKS, STEP_STRIP, STEP_PREPEND, STEP_REPLACE };

struct normalizer_step {
    enum step_kind is;
    enum unicode_form form;
    bool left, right;        /* STEP_STRIP */
    struct pattern *pattern; /* STEP_REPLACE */
    char *content;           /* STEP_REPLACE, STEP_PREPEND */
};

/* ---- Reading ------------------------------------------------------------------------------- */

static enum cinf_status add_step(struct normalizer *n, struct normalizer_step step)
{
    if (n->n_steps == STEPS_MAX)
        return cinf_fail(CINF_EUNSUPPORTED, "\"normalizer\" has more than %d steps", STEPS_MAX);
    if (!mem_reserve(&n->steps, &n->cap, n->n_steps + 1, sizeof *n->steps))
        return cinf_fail(CINF_ENOMEM, "no memory for a normalizer");
    n->steps[n->n_steps++] = step;
    return CINF_OK;
}

static enum cinf_status read_content(char **out, const cJSON *settings, const char *key)
{
    const char *text = NULL;
    TRY(json_read_text(&text, settings, key));
    if (!text)
        return cinf_fail(CINF_EFORMAT, "a normalizer has no \"%s\"", key);
    if (strlen(text) > CONTENT_MAX)
        return cinf_fail(CINF_EUNSUPPORTED, "\"%s\" of a normalizer has more than %d bytes", key,
                         CONTENT_MAX);
    *out = mem_copy_text(text);
    return *out ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for a normalizer");
}

static enum cinf_status read_replace(struct normalizer *n, const cJSON *settings)
{
    struct normalizer_step step = { .is = STEP_REPLACE };
    TRY(read_content(&step.content, settings, "content"));
    enum cinf_status status = pattern_read(&step.pattern, json_member(settings, "pattern"));
    /* tokenizers itself loses count of the characters where it puts something between two. */
    if (status == CINF_OK && pattern_may_be_empty(step.pattern))
        status = cinf_fail(CINF_EUNSUPPORTED,
                           "the normalizer \"Replace\" with a pattern that matches nothing is not supported");
    if (status == CINF_OK)
        status = add_step(n, step);
    if (status != CINF_OK) {
        pattern_free(step.pattern);
        mem_free(step.content);
    }
    return status;
}

static enum cinf_status read_prepend(struct normalizer *n, const cJSON *settings)
{
    struct normalizer_step step = { .is = STEP_PREPEND };
    TRY(read_content(&step.content, settings, "prepend"));
    enum cinf_status status = add_step(n, step);
    if (status != CINF_OK)
        mem_free(step.content);
    return status;
}

static enum cinf_status read_step(struct normalizer *n, const cJSON *settings, int depth);

static enum cinf_status read_sequence(struct normalizer *n, const cJSON *settings,
                                      int depth) /* NOLINT(misc-no-recursion) */
{
    const cJSON *step, *list = json_member(settings, "normalizers");
    if (!cJSON_IsArray(list) || depth == SEQUENCE_DEPTH_MAX)
        return cinf_fail(CINF_EFORMAT, "a normalizer of type \"Sequence\" has no array \"normalizers\"");
    cJSON_ArrayForEach(step, list) TRY(read_step(n, step, depth + 1));
    return CINF_OK;
}

static enum cinf_status read_step(struct normalizer *n, const cJSON *settings,
                                  int depth) /* NOLINT(misc-no-recursion) */
{
    static const struct {
        const char *type;
        struct normalizer_step step;
    } simple[] = {
        { "NFC", { .is = STEP_FORM, .form = UNICODE_NFC } },
        { "NFD", { .is = STEP_FORM, .form = UNICODE_NFD } },
        { "NFKC", { .is = STEP_FORM, .form = UNICODE_NFKC } },
        { "NFKD", { .is = STEP_FORM, .form = UNICODE_NFKD } },
        { "Lowercase", { .is = STEP_LOWERCASE } },
        { "StripAccents", { .is = STEP_STRIP_MARKS } },
    };
    const char *type = NULL;
    TRY(json_read_text(&type, settings, "type"));
    if (!type)
        return cinf_fail(CINF_EFORMAT, "a normalizer has no \"type\"");
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (strcmp(type, simple[i].type) == 0)
            return add_step(n, simple[i].step);
    if (strcmp(type, "Strip") == 0) {
        struct normalizer_step step = { .is = STEP_STRIP, .left = true, .right = true };
        TRY(json_read_bool(&step.left, settings, "strip_left"));
        TRY(json_read_bool(&step.right, settings, "strip_right"));
        return add_step(n, step);
    }
    if (strcmp(type, "Prepend") == 0)
        return read_prepend(n, settings);
    if (strcmp(type, "Replace") == 0)
        return read_replace(n, settings);
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(n, settings, depth);
    return cinf_fail(CINF_EUNSUPPORTED, "the normalizer \"%.60s\" is not supported", type);
}

enum cinf_status normalizer_read(struct normalizer *n, const cJSON *settings)
{
    return settings ? read_step(n, settings, 0) : CINF_OK;
}

void normalizer_free(struct normalizer *n)
{
    for (size_t i = 0; i < n->n_steps; i++) {
        pattern_free(n->steps[i].pattern);
        mem_free(n->steps[i].content);
    }
    mem_free(n->steps);
    *n = (struct normalizer){ 0 };
}

/* ---- Applying ------------------------------------------------------------------------------ */

void normalizer_scratch_free(struct normalizer_scratch *scratch)
{
    strbuf_free(&scratch->texts[0]);
    strbuf_free(&scratch->texts[1]);
    unicode_scratch_free(&scratch->unicode);
}

static enum cinf_status replace(struct strbuf *out, const char *text, size_t n,
                                const struct normalizer_step *step)
{
    struct pattern_search search = { .pattern = step->pattern, .text = text, .n = n };
    size_t done = 0, start, end;
    bool found = n > 0;
    enum cinf_status status = CINF_OK;
    while (found && (status = pattern_next(&search, &found, &start, &end)) == CINF_OK && found) {
        strbuf_add(out, text + done, start - done);
        strbuf_puts(out, step->content);
        done = end;
    }
    pattern_search_free(&search);
    strbuf_add(out, text + done, n - done);
    return status;
}

/* The spaces that text[0..n) begins with, and those that it ends with. */
static void strip(struct strbuf *out, const char *text, size_t n, const struct normalizer_step *step)
{
    size_t used, start = 0, end = 0;
    while (step->left && start < n && unicode_class_at(text + start, n - start, &used) == UNICODE_SPACE)
        start += used;
    if (!step->right)
        end = n;
    for (size_t at = start; step->right && at < n; at += used)
        if (unicode_class_at(text + at, n - at, &used) != UNICODE_SPACE)
            end = at + used;
    if (end > start)
        strbuf_add(out, text + start, end - start);
}

static enum cinf_status apply_step(struct strbuf *out, const char *text, size_t n,
                                   const struct normalizer_step *step, struct unicode_scratch *scratch)
{
    switch (step->is) {
    case STEP_FORM:
        unicode_normalize(out, text, n, step->form, scratch);
        break;
    case STEP_LOWERCASE:
        unicode_lowercase(out, text, n);
        break;
    case STEP_STRIP_MARKS:
        unicode_strip_marks(out, text, n);
        break;
    case STEP_STRIP:
        strip(out, text, n, step);
        break;
    case STEP_PREPEND:
        if (n > 0)
            strbuf_puts(out, step->content);
        strbuf_add(out, text, n);
        break;
    case STEP_REPLACE:
        return replace(out, text, n, step);
    }
    return CINF_OK;
}

enum cinf_status normalizer_apply(const struct normalizer *n, const char *text, size_t n_text,
                                  struct normalizer_scratch *scratch, const struct strbuf **out)
{
    for (size_t i = 0; i < n->n_steps; i++) {
        struct strbuf *to = &scratch->texts[i % 2];
        strbuf_clear(to);
        strbuf_puts(to, ""); /* terminated even when nothing is left */
        TRY(apply_step(to, text, n_text, &n->steps[i], &scratch->unicode));
        if (to->failed)
            return cinf_fail(CINF_ENOMEM, "no memory to normalize a text of %zu bytes", n_text);
        if (to->len > INT32_MAX)
            return cinf_fail(CINF_EINVAL, "the normalized text has more than %d bytes", INT32_MAX);
        text = to->text;
        n_text = to->len;
        *out = to;
    }
    return CINF_OK;
}
