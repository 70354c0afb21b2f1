/* completions_prompts.c - reads "prompt" of POST /v1/completions: a string, an array of strings, one prompt's
 * tokens, or an array of token arrays.
 *
 * Each prompt becomes a copy of the body's request options with its own text or ids.  The ids of all prompts
 * share one array, which is measured first: the options point into it, so it cannot grow. */
#include <costinfer/costinfer.h>

#include "completions_prompts.h"
#include "fail.h"
#include "mem.h"

static bool is_array_of(const cJSON *value, cJSON_bool (*is_kind)(const cJSON *))
{
    const cJSON *element;
    if (!cJSON_IsArray(value) || !value->child)
        return false;
    cJSON_ArrayForEach(element, value)
    {
        if (!is_kind(element))
            return false;
    }
    return true;
}

static enum cinf_status prompt_of_ids(struct prompts *p, struct fields *f, const cJSON *tokens)
{
    struct cinf_request_options *o = &p->options[p->n++];
    const cJSON *token;
    o->prompt_ids = p->ids + p->n_ids;
    cJSON_ArrayForEach(token, tokens)
    {
        TRY(fields_token(f, token, &p->ids[p->n_ids++]));
        o->n_prompt_ids++;
    }
    return CINF_OK;
}

static enum cinf_status read_prompt(struct prompts *p, struct fields *f, const cJSON *prompt)
{
    const cJSON *element;
    if (cJSON_IsString(prompt)) {
        p->options[p->n++].prompt = prompt->valuestring;
        return CINF_OK;
    }
    if (is_array_of(prompt, cJSON_IsNumber))
        return prompt_of_ids(p, f, prompt);
    cJSON_ArrayForEach(element, prompt)
    {
        if (cJSON_IsString(element))
            p->options[p->n++].prompt = element->valuestring;
        else
            TRY(prompt_of_ids(p, f, element));
    }
    return CINF_OK;
}

/* Checks the prompts' type and allocates room for them. */
static enum cinf_status prepare_prompts(struct prompts *p, const cJSON *prompt, uint32_t n_choices)
{
    const cJSON *element;
    size_t n = 1, n_ids = 0;
    if (!prompt)
        return cinf_fail(CINF_EINVAL, "\"prompt\" is missing");
    if (is_array_of(prompt, cJSON_IsNumber)) {
        n_ids = (size_t)cJSON_GetArraySize(prompt);
    } else if (is_array_of(prompt, cJSON_IsString) || is_array_of(prompt, cJSON_IsArray)) {
        n = (size_t)cJSON_GetArraySize(prompt);
        cJSON_ArrayForEach(element, prompt) n_ids += (size_t)cJSON_GetArraySize(element);
    } else if (!cJSON_IsString(prompt)) {
        return cinf_fail(
            CINF_EINVAL,
            "\"prompt\" must be a string, an array of strings, tokens, or an array of token arrays");
    }
    if (n * n_choices > CHOICES_MAX)
        return cinf_fail(CINF_EINVAL, "%zu prompts of %u choices each; there may be %d choices", n, n_choices,
                         CHOICES_MAX);
    p->options = mem_new(n, sizeof *p->options);
    p->ids = mem_new(n_ids, sizeof *p->ids);
    return p->options && p->ids ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for %zu prompts", n);
}

enum cinf_status read_prompts(struct prompts *p, struct fields *f, const struct completion *c)
{
    const cJSON *prompt = json_member(f->body, "prompt");
    f->param = "prompt";
    TRY(prepare_prompts(p, prompt, c->n));
    TRY(read_prompt(p, f, prompt));
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->options[i].prompt)
            TRY(fields_need_text(f, c->model));
        struct cinf_request_options o = f->options;
        o.prompt = p->options[i].prompt;
        o.prompt_ids = p->options[i].prompt_ids;
        o.n_prompt_ids = p->options[i].n_prompt_ids;
        TRY(fields_truncate(f, c->model, c->keep, &o));
        p->options[i] = o;
    }
    return CINF_OK;
}
