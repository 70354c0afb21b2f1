/* fuzz_fields.c - the body of a request: its fields within their bounds, and its unknown ones.
 *
 * The exchange is a stand-in without a connection.  The first byte says which body it is and whether unknown
 * fields are refused; the rest is the body, and also a query. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "access_log.h"
#include "problem.h"
#include "service.h"
#include "target.h"
#include "unknown_fields.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct exchange {
    struct service service;
    struct access access;
    const char *body, *pairs;
    size_t n_body;
};

void *exchange_context(const struct exchange *x)
{
    return (void *)(uintptr_t)&x->service;
}

void *exchange_user(struct exchange *x)
{
    return &x->access;
}

const char *exchange_body(const struct exchange *x, size_t *n)
{
    *n = x->n_body;
    return x->body;
}

const char *exchange_header(const struct exchange *x, const char *name)
{
    (void)x;
    return strcmp(name, "Content-Type") == 0 ? "application/json" : NULL;
}

const char *exchange_query_pairs(const struct exchange *x)
{
    return x->pairs;
}

void exchange_add_header(struct exchange *x, const char *name, const char *value)
{
    (void)x, (void)name, (void)value;
}

void problem_content_type(struct exchange *x)
{
    (void)x;
}

void problem_answer(struct exchange *x, enum cinf_status status, const char *param, int64_t account)
{
    (void)x, (void)status, (void)param, (void)account;
}

static void must(bool good)
{
    if (!good)
        abort();
}

/* A failure names its field, in one line that can be sent. */
static void check_failure(enum cinf_status status, const struct fields *f)
{
    const char *message = cinf_last_error();
    must(status == CINF_OK || (message[0] && utf8_valid(message, strlen(message)) && !strchr(message, '\n')));
    must(status == CINF_OK || f->param);
}

static void check_sampling(const struct fields *f)
{
    const struct cinf_request_options *o = &f->options;
    must(o->temperature >= 0 && o->temperature <= 2 && o->top_p >= 0 && o->top_p <= 1 && o->min_p >= 0);
    must(o->top_k <= MAX_TOKENS_MAX && o->n_stop <= STOPS_MAX && o->n_logit_bias <= LOGIT_BIASES_MAX);
    must(!json_member(f->body, "seed") || o->seed != 0);
    for (uint32_t i = 0; i < o->n_stop; i++)
        must(o->stop[i][0] && strlen(o->stop[i]) <= CINF_STOP_BYTES_MAX);
    for (uint32_t i = 0; i < o->n_logit_bias; i++)
        must((uint32_t)o->logit_bias[i].token < f->model->config.vocab_size &&
             o->logit_bias[i].bias >= -100 && o->logit_bias[i].bias <= 100);
}

/* Lists of names go into a header and into the log. */
static void check_ignored(const char *list)
{
    must(memchr(list, '\0', IGNORED_BYTES) != NULL);
    for (; *list; list++)
        must(*list >= ' ' && *list <= '~' && *list != '"' && *list != '\\');
}

static void judge(struct exchange *x, struct fields *f, enum body kind)
{
    static const char *const read[] = { "range", NULL };
    enum cinf_status status = unknown_fields_judge(f, x, kind);
    check_failure(status, f);
    must(status != CINF_OK || !f->param);
    status = unknown_parameters_judge(f, x, kind, read);
    must(status == CINF_OK || cinf_last_error()[0]);
    check_ignored(x->access.ignored);
    check_ignored(x->access.ignored_log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum body kinds[] = { BODY_GENERATE,   BODY_COMPLETIONS, BODY_TOKENIZE,
                                       BODY_DETOKENIZE, BODY_LOAD,        BODY_PRICE };
    struct cinf_model_info model = { CINF_MODEL_INFO, .name = "m", .config = { .vocab_size = 100 } };
    struct target target;
    if (size == 0)
        return 0;
    char *text = malloc(size + 1);
    must(text != NULL);
    text[0] = '?'; /* the query's beginning, and no part of the body */
    memcpy(text + 1, data + 1, size - 1);
    text[size] = '\0';
    must(target_read(&target, text));
    struct exchange x = {
        .service.strict = data[0] & 8, .body = text + 1, .n_body = size - 1, .pairs = target.query
    };
    cJSON *body = fields_body(&x, data[0] & 16);
    if (body) {
        struct fields f;
        const char *prompt = NULL;
        fields_init(&f, body, &model);
        judge(&x, &f, kinds[(data[0] & 7) % 6]);
        enum cinf_status status = fields_sampling(&f);
        check_failure(status, &f);
        if (status == CINF_OK)
            check_sampling(&f);
        check_failure(field_text(&f, "prompt", &prompt), &f);
        const cJSON *tokens = json_member(body, "tokens"), *token;
        cJSON_ArrayForEach(token, tokens)
        {
            int32_t id = -1;
            if (fields_token(&f, token, &id) == CINF_OK)
                must(id >= 0 && (uint32_t)id < model.config.vocab_size);
        }
        fields_free(&f);
        cJSON_Delete(body);
    }
    target_free(&target);
    free(text);
    return 0;
}
