/* tokenizer.c - the public tokenizer: texts to ids. */
#include <costinfer/tokenizer.h>

#include <string.h>

#include "added_token.h"
#include "bpe.h"
#include "fail.h"
#include "mem.h"
#include "piece.h"
#include "tokenizer_file.h"

#define END_OF_TEXT "<|endoftext|>"

struct cinf_tokenizer {
    struct vocabulary vocabulary;
    int32_t end_of_text;
};

enum cinf_status cinf_tokenizer_open(struct cinf_tokenizer **out, const char *folder)
{
    struct cinf_tokenizer *t = mem_new(1, sizeof *t);
    if (!t)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for a tokenizer", folder);
    enum cinf_status status = vocabulary_folder_read(&t->vocabulary, folder);
    if (status != CINF_OK) {
        cinf_tokenizer_free(t);
        return status;
    }
    t->end_of_text = bpe_find(&t->vocabulary.bpe, END_OF_TEXT, strlen(END_OF_TEXT));
    *out = t;
    return CINF_OK;
}

void cinf_tokenizer_free(struct cinf_tokenizer *tokenizer)
{
    if (tokenizer)
        vocabulary_free(&tokenizer->vocabulary);
    mem_free(tokenizer);
}

uint32_t cinf_tokenizer_size(const struct cinf_tokenizer *tokenizer)
{
    return (uint32_t)tokenizer->vocabulary.bpe.n_ids;
}

int32_t cinf_tokenizer_end_of_text(const struct cinf_tokenizer *tokenizer)
{
    return tokenizer->end_of_text;
}

const char *cinf_tokenizer_token(const struct cinf_tokenizer *tokenizer, int32_t id, size_t *n)
{
    const struct bpe *b = &tokenizer->vocabulary.bpe;
    if (id < 0 || (size_t)id >= b->n_ids || b->tokens[id].n == 0)
        return NULL;
    *n = b->tokens[id].n;
    return b->bytes + b->tokens[id].at;
}

int32_t cinf_tokenizer_find(const struct cinf_tokenizer *tokenizer, const char *bytes, size_t n)
{
    return bpe_find(&tokenizer->vocabulary.bpe, bytes, n);
}

/* The ids so far, and what encoding them needs. */
struct encoding {
    const struct bpe *bpe;
    const struct added_tokens *added;
    bool special;
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

/* Encodes text[at..end) without looking for added tokens. */
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

/* Encodes text[at..end), which is what rounds before this one left: each such part is a text of its own. */
static enum cinf_status encode_round(struct encoding *e, int round, size_t at, size_t end)
{
    while (round < ADDED_ROUNDS && !added_any(e->added, round, e->special))
        round++;
    if (round == ADDED_ROUNDS)
        return encode_ordinary(e, at, end);
    struct added_search search = {
        .added = e->added, .round = round, .special = e->special, .text = e->text + at, .n = end - at
    };
    struct added_match match;
    size_t done = 0;
    while (added_next(&search, &match)) {
        if (done < match.start)
            TRY(encode_round(e, round + 1, at + done, at + match.start));
        TRY(reserve(e, 1));
        e->ids[e->n_ids++] = match.id;
        done = match.end;
    }
    return encode_round(e, round + 1, at + done, end);
}

enum cinf_status cinf_tokenizer_encode(const struct cinf_tokenizer *tokenizer, const char *text, size_t n,
                                       unsigned flags, int32_t **ids, size_t *n_ids)
{
    if (n > INT32_MAX)
        return cinf_fail(CINF_EINVAL, "a text of %zu bytes is longer than the %d that can be encoded", n,
                         INT32_MAX);
    struct encoding e = { .bpe = &tokenizer->vocabulary.bpe,
                          .added = &tokenizer->vocabulary.added,
                          .special = flags & CINF_TOKENIZE_SPECIAL,
                          .text = text };
    /* English text has four to five bytes a token. */
    enum cinf_status status = reserve(&e, n / 4 + 1);
    if (status == CINF_OK)
        status = encode_round(&e, 0, 0, n);
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
