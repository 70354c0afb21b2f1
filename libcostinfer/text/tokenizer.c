/* tokenizer.c - the public tokenizer: texts to ids. */
#include <costinfer/tokenizer.h>

#include <string.h>

#include "bpe.h"
#include "fail.h"
#include "mem.h"
#include "piece.h"
#include "tokenizer_file.h"

#define END_OF_TEXT "<|endoftext|>"

struct cinf_tokenizer {
    struct bpe bpe;
    int32_t end_of_text;
};

enum cinf_status cinf_tokenizer_open(struct cinf_tokenizer **out, const char *folder)
{
    struct cinf_tokenizer *t = mem_new(1, sizeof *t);
    if (!t)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for a tokenizer", folder);
    enum cinf_status status = tokenizer_folder_read(&t->bpe, folder);
    if (status != CINF_OK) {
        cinf_tokenizer_free(t);
        return status;
    }
    t->end_of_text = bpe_find(&t->bpe, END_OF_TEXT, strlen(END_OF_TEXT));
    *out = t;
    return CINF_OK;
}

void cinf_tokenizer_free(struct cinf_tokenizer *tokenizer)
{
    if (tokenizer)
        bpe_free(&tokenizer->bpe);
    mem_free(tokenizer);
}

uint32_t cinf_tokenizer_size(const struct cinf_tokenizer *tokenizer)
{
    return (uint32_t)tokenizer->bpe.n_ids;
}

int32_t cinf_tokenizer_end_of_text(const struct cinf_tokenizer *tokenizer)
{
    return tokenizer->end_of_text;
}

const char *cinf_tokenizer_token(const struct cinf_tokenizer *tokenizer, int32_t id, size_t *n)
{
    const struct bpe *b = &tokenizer->bpe;
    if (id < 0 || (size_t)id >= b->n_ids || b->tokens[id].n == 0)
        return NULL;
    *n = b->tokens[id].n;
    return b->bytes + b->tokens[id].at;
}

int32_t cinf_tokenizer_find(const struct cinf_tokenizer *tokenizer, const char *bytes, size_t n)
{
    return bpe_find(&tokenizer->bpe, bytes, n);
}

/* The ids so far, and what encoding them needs. */
struct encoding {
    const struct bpe *bpe;
    const char *text;
    int32_t *ids;
    size_t n_ids, cap;
    struct bpe_scratch scratch;
};

static enum cinf_status reserve(struct encoding *e, size_t more)
{
    if (mem_reserve(&e->ids, &e->cap, e->n_ids + more, sizeof *e->ids))
        return CINF_OK;
    return cinf_fail(CINF_ENOMEM, "no memory for %zu tokens", e->n_ids + more);
}

/* Encodes text[at..end) without looking for special tokens. */
static enum cinf_status encode_ordinary(struct encoding *e, size_t at, size_t end)
{
    for (size_t n, n_new; at < end; at += n, e->n_ids += n_new) {
        n = piece_length(e->text + at, end - at);
        TRY(reserve(e, n));
        enum cinf_status status = bpe_encode(e->bpe, e->text + at, n, e->ids + e->n_ids, &n_new, &e->scratch);
        if (status != CINF_OK)
            return cinf_fail_in(status, "text at byte %zu: ", at);
    }
    return CINF_OK;
}

/* Where END_OF_TEXT next stands in text[at..n); n when it does not. */
static size_t find_special(const char *text, size_t at, size_t n)
{
    const char *found;
    while (at < n && (found = memchr(text + at, END_OF_TEXT[0], n - at))) {
        at = (size_t)(found - text);
        if (n - at >= strlen(END_OF_TEXT) && memcmp(found, END_OF_TEXT, strlen(END_OF_TEXT)) == 0)
            return at;
        at++;
    }
    return n;
}

static enum cinf_status encode_special(struct encoding *e, size_t n, int32_t end_of_text)
{
    for (size_t at = 0; at < n;) {
        size_t end = find_special(e->text, at, n);
        TRY(encode_ordinary(e, at, end));
        if (end == n)
            break;
        TRY(reserve(e, 1));
        e->ids[e->n_ids++] = end_of_text;
        at = end + strlen(END_OF_TEXT);
    }
    return CINF_OK;
}

enum cinf_status cinf_tokenizer_encode(const struct cinf_tokenizer *tokenizer, const char *text, size_t n,
                                       unsigned flags, int32_t **ids, size_t *n_ids)
{
    if (n > INT32_MAX)
        return cinf_fail(CINF_EINVAL, "a text of %zu bytes is longer than the %d that can be encoded", n,
                         INT32_MAX);
    struct encoding e = { .bpe = &tokenizer->bpe, .text = text };
    /* English text has four to five bytes a token. */
    enum cinf_status status = reserve(&e, n / 4 + 1);
    if (status == CINF_OK)
        status = flags & CINF_TOKENIZE_SPECIAL && tokenizer->end_of_text >= 0
                     ? encode_special(&e, n, tokenizer->end_of_text)
                     : encode_ordinary(&e, 0, n);
    bpe_scratch_free(&e.scratch);
    if (status != CINF_OK) {
        mem_free(e.ids);
        return status;
    }
    *ids = e.ids;
    *n_ids = e.n_ids;
    return CINF_OK;
}

void cinf_ids_free(int32_t *ids)
{
    mem_free(ids);
}
