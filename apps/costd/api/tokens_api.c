/* tokens_api.c - POST /tokenize and /detokenize, in llama-server's shapes. */
#include <string.h>

#include "answer.h"
#include "fail.h"
#include "fields.h"
#include "handlers.h"
#include "json_write.h"
#include "mem.h"
#include "problem.h"
#include "unknown_fields.h"
#include "utf8.h"

/* A piece is a string where it is UTF-8 on its own, else an array of its bytes. */
static void put_piece(struct json_writer *w, const struct cinf_tokenizer *tokenizer, int32_t id)
{
    size_t n;
    const char *piece = cinf_tokenizer_token(tokenizer, id, &n);
    json_open_object(w, NULL);
    json_put_i64(w, "id", id);
    if (utf8_valid(piece, n)) {
        json_put_bytes(w, "piece", piece, n);
    } else {
        json_open_array(w, "piece");
        for (size_t i = 0; i < n; i++)
            json_put_u64(w, NULL, (unsigned char)piece[i]);
        json_close(w);
    }
    json_close(w);
}

static enum cinf_status tokenize(struct strbuf *out, struct fields *f, const struct cinf_tokenizer *tokenizer)
{
    const char *content = NULL;
    bool with_pieces = false, parse_special = false;
    int32_t *ids;
    size_t n;
    TRY(field_bool(f, "with_pieces", &with_pieces));
    TRY(field_bool(f, "parse_special", &parse_special));
    TRY(field_text(f, "content", &content));
    if (!content)
        return cinf_fail(CINF_EINVAL, "\"content\" is missing");
    TRY(cinf_tokenizer_encode(tokenizer, content, strlen(content), parse_special ? CINF_TOKENIZE_SPECIAL : 0,
                              &ids, &n));
    struct json_writer w = json_write_to(out);
    json_open_object(&w, NULL);
    json_open_array(&w, "tokens");
    for (size_t i = 0; i < n; i++) {
        if (with_pieces)
            put_piece(&w, tokenizer, ids[i]);
        else
            json_put_i64(&w, NULL, ids[i]);
    }
    json_close(&w);
    json_close(&w);
    cinf_ids_free(ids);
    return CINF_OK;
}

static enum cinf_status detokenize(struct strbuf *out, struct fields *f,
                                   const struct cinf_tokenizer *tokenizer)
{
    const cJSON *tokens = json_member(f->body, "tokens"), *token;
    size_t n = 0, length;
    char *text;
    f->param = "tokens";
    if (!cJSON_IsArray(tokens))
        return cinf_fail(CINF_EINVAL, "\"tokens\" must be an array of token ids");
    int32_t *ids = mem_new((size_t)cJSON_GetArraySize(tokens), sizeof *ids);
    if (!ids)
        return cinf_fail(CINF_ENOMEM, "no memory for the tokens");
    enum cinf_status status = CINF_OK;
    cJSON_ArrayForEach(token, tokens)
    {
        if (status == CINF_OK)
            status = fields_token(f, token, &ids[n++]);
    }
    if (status == CINF_OK)
        status = cinf_tokenizer_decode(tokenizer, ids, n, &text, &length);
    mem_free(ids);
    TRY(status);
    struct json_writer w = json_write_to(out);
    json_open_object(&w, NULL);
    json_put_bytes(&w, "content", text, length);
    json_close(&w);
    cinf_text_free(text);
    return CINF_OK;
}

static void answer(struct exchange *x, enum body kind,
                   enum cinf_status (*work)(struct strbuf *out, struct fields *f,
                                            const struct cinf_tokenizer *tokenizer))
{
    struct strbuf out = { 0 };
    struct cinf_model_info info;
    struct fields f;
    const char *name = NULL;
    cJSON *body = fields_body(x, false);
    if (!body)
        return;
    fields_init(&f, body, &info);
    enum cinf_status status = field_text(&f, "model", &name);
    struct cinf_model *model = status == CINF_OK ? model_for(x, name, &info) : NULL;
    if (model)
        status = unknown_fields_judge(&f, x, kind);
    if (model && status == CINF_OK) {
        f.param = NULL;
        status = fields_need_text(&f, model);
    }
    if (model && status == CINF_OK)
        status = work(&out, &f, cinf_model_tokenizer(model));
    if (status != CINF_OK)
        problem_answer(x, status, f.param, NO_ACCOUNT);
    else if (model)
        answer_json(x, 200, &out);
    cinf_model_release(model);
    strbuf_free(&out);
    fields_free(&f);
    cJSON_Delete(body);
}

void post_tokenize(struct exchange *x, const char *unused)
{
    (void)unused;
    answer(x, BODY_TOKENIZE, tokenize);
}

void post_detokenize(struct exchange *x, const char *unused)
{
    (void)unused;
    answer(x, BODY_DETOKENIZE, detokenize);
}
