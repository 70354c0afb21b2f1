/* completions_logprobs.c - "logprobs" and "prompt_logprobs" of POST /v1/completions: collects what events say
 * of each token, and writes it.
 *
 * text_offset counts characters.  They are counted by decoding each token again, not from an event's text,
 * which may lag behind its token. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "completions_logprobs.h"
#include "mem.h"
#include "utf8.h"

/* A token with what is said of it. */
struct scored_token {
    int32_t id;
    float logprob;   /* NaN: unknown, as for a prompt's first token */
    uint64_t offset; /* characters of text before it */
    uint32_t rank;   /* of a prompt's token */
    uint32_t n_top;
    struct cinf_logprob top[CINF_TOP_LOGPROBS_MAX]; /* most likely first */
};

uint64_t count_characters(const char *text, size_t n)
{
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

/* Counts the characters that this token completes.  They are decoded separately, because an event's text may
 * lag behind its token. */
static uint64_t characters_of(struct choice *c, const struct cinf_tokenizer *tokenizer, int32_t id)
{
    size_t n;
    if (!tokenizer || !cinf_tokenizer_token(tokenizer, id, &n))
        return 0;
    char *text = mem_new(CINF_DECODER_TEXT_MAX(n), 1);
    uint64_t count = 0;
    if (text && cinf_decoder_push(&c->decoder, tokenizer, id, text, &n) == CINF_OK)
        count = count_characters(text, n);
    else
        c->text.failed = true;
    mem_free(text);
    return count;
}

static struct scored_token scored(const struct cinf_event *event, uint64_t offset)
{
    struct scored_token t = { .id = event->token,
                              .logprob = event->logprob,
                              .offset = offset,
                              .rank = event->rank,
                              .n_top = event->n_top };
    assert(event->n_top <= CINF_TOP_LOGPROBS_MAX);
    if (event->n_top)
        memcpy(t.top, event->top, event->n_top * sizeof *t.top);
    return t;
}

bool add_prompt_logprob(struct prompt *p, const struct cinf_event *event)
{
    if (!mem_reserve(&p->scored, &p->cap_scored, p->n_scored + 1, sizeof *p->scored))
        return false;
    p->scored[p->n_scored++] = scored(event, 0);
    return true;
}

void add_logprob(struct choice *c, const struct cinf_tokenizer *tokenizer, const struct cinf_event *event)
{
    if (!mem_reserve(&c->scored, &c->cap_scored, c->n_scored + 1, sizeof *c->scored)) {
        c->text.failed = true;
        return;
    }
    c->scored[c->n_scored++] = scored(event, c->n_characters);
    c->n_characters += characters_of(c, tokenizer, event->token);
}

/* A token's bytes are often not UTF-8 on their own; such ones are spelt so that different tokens stay
 * different keys. */
static void spell_token(struct json_writer *w, struct strbuf *text, const struct cinf_tokenizer *tokenizer,
                        int32_t id)
{
    size_t n;
    const char *piece = tokenizer ? cinf_tokenizer_token(tokenizer, id, &n) : NULL;
    strbuf_clear(text);
    if (!tokenizer) {
        strbuf_printf(text, "token_id:%" PRId32, id);
    } else if (piece && utf8_valid(piece, n)) {
        strbuf_add(text, piece, n);
    } else {
        strbuf_puts(text, "bytes:");
        for (size_t i = 0; piece && i < n; i++)
            strbuf_printf(text, "\\x%02x", (unsigned char)piece[i]);
    }
    w->out->failed = w->out->failed || text->failed;
}

static void put_logprob(struct json_writer *w, const char *key, float logprob)
{
    if (isnan(logprob))
        json_put_null(w, key);
    else
        json_put_format(w, key, "%.9g", isinf(logprob) ? -9999.0 : (double)logprob);
}

static void put_top_logprob(struct json_writer *w, struct strbuf *spelt,
                            const struct cinf_tokenizer *tokenizer, struct cinf_logprob top)
{
    spell_token(w, spelt, tokenizer, top.token);
    put_logprob(w, spelt->failed ? "" : spelt->text, top.logprob);
}

/* The most likely tokens, and the one that was chosen where it is not among them. */
static void put_top(struct json_writer *w, struct strbuf *spelt, const struct cinf_tokenizer *tokenizer,
                    const struct scored_token *t, uint32_t n_top)
{
    bool listed = false;
    if (isnan(t->logprob)) {
        json_put_null(w, NULL);
        return;
    }
    json_open_object(w, NULL);
    for (uint32_t i = 0; i < t->n_top && i < n_top; i++) {
        listed = listed || t->top[i].token == t->id;
        put_top_logprob(w, spelt, tokenizer, t->top[i]);
    }
    if (!listed)
        put_top_logprob(w, spelt, tokenizer, (struct cinf_logprob){ .token = t->id, .logprob = t->logprob });
    json_close(w);
}

void put_logprobs(struct json_writer *w, const struct completion *c, const struct choice *choice)
{
    struct strbuf spelt = { 0 };
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(c->model);
    if (!c->logprobs) {
        json_put_null(w, "logprobs");
        return;
    }
    json_open_object(w, "logprobs");
    json_open_array(w, "tokens");
    for (size_t i = 0; i < choice->n_scored; i++) {
        spell_token(w, &spelt, tokenizer, choice->scored[i].id);
        json_put_bytes(w, NULL, spelt.text, spelt.len);
    }
    json_close(w);
    json_open_array(w, "token_logprobs");
    for (size_t i = 0; i < choice->n_scored; i++)
        put_logprob(w, NULL, choice->scored[i].logprob);
    json_close(w);
    json_open_array(w, "top_logprobs");
    for (size_t i = 0; i < choice->n_scored; i++)
        put_top(w, &spelt, tokenizer, &choice->scored[i], c->n_top);
    json_close(w);
    json_open_array(w, "text_offset");
    for (size_t i = 0; i < choice->n_scored; i++)
        json_put_u64(w, NULL, choice->scored[i].offset);
    json_close(w);
    json_close(w);
    strbuf_free(&spelt);
}

/* "id": {"logprob": …, "rank": …, "decoded_token": …} */
static void put_ranked(struct json_writer *w, const struct cinf_tokenizer *tokenizer,
                       struct cinf_logprob token, uint32_t rank)
{
    char id[16];
    size_t n;
    const char *piece = tokenizer ? cinf_tokenizer_token(tokenizer, token.token, &n) : NULL;
    snprintf(id, sizeof id, "%" PRId32, token.token);
    json_open_object(w, id);
    put_logprob(w, "logprob", token.logprob);
    json_put_u64(w, "rank", rank);
    if (piece)
        json_put_bytes(w, "decoded_token", piece, n);
    else
        json_put_null(w, "decoded_token");
    json_close(w);
}

void put_prompt_logprobs(struct json_writer *w, const struct completion *c, const struct prompt *p)
{
    const struct cinf_tokenizer *tokenizer = cinf_model_tokenizer(c->model);
    json_open_array(w, "prompt_logprobs");
    for (size_t i = 0; i < p->n_scored; i++) {
        const struct scored_token *t = &p->scored[i];
        if (t->rank == 0) {
            json_put_null(w, NULL);
            continue;
        }
        json_open_object(w, NULL);
        put_ranked(w, tokenizer, (struct cinf_logprob){ .token = t->id, .logprob = t->logprob }, t->rank);
        for (uint32_t k = 0; k < t->n_top && k < c->n_prompt_top; k++)
            if (t->top[k].token != t->id)
                put_ranked(w, tokenizer, t->top[k], k + 1);
        json_close(w);
    }
    json_close(w);
}
