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

const char *cinf_tokenizer_notes(const struct cinf_tokenizer *tokenizer)
{
    return tokenizer->vocabulary.notes.text ? tokenizer->vocabulary.notes.text : "";
}

/* The ids so far, and what encoding them needs. */
struct encoding {
    const struct vocabulary *v;
    bool special;
    int32_t *ids;
    size_t n_ids, cap;
    struct bpe_scratch scratch;
    struct normalizer_scratch normal;
    struct splitter_scratch pieces;
};

static enum cinf_status reserve(struct encoding *e, size_t more)
{
    if (mem_reserve(&e->ids, &e->cap, e->n_ids + more, sizeof *e->ids))
        return CINF_OK;
    return cinf_fail(CINF_ENOMEM, "no memory for %zu tokens", e->n_ids + more);
}

/* Merges one piece, which begins at byte `at` of a part of the text. */
static inline enum cinf_status encode_piece(struct encoding *e, const char *piece, size_t n, size_t at)
{
    size_t n_new;
    TRY(reserve(e, n));
    enum cinf_status status = bpe_encode(&e->v->bpe, piece, n, e->ids + e->n_ids, &n_new, &e->scratch);
    if (status != CINF_OK)
        return cinf_fail_in(status, "text at byte %zu: ", at);
    e->n_ids += n_new;
    return CINF_OK;
}

/* Encodes a part of a text, already normalized, without looking for added tokens.  `at` is where it began. */
static enum cinf_status encode_ordinary(struct encoding *e, const char *text, size_t n, size_t at)
{
    if (e->v->splitter.plain) {
        for (size_t done = 0, used; done < n; done += used) {
            used = piece_length(text + done, n - done);
            TRY(encode_piece(e, text + done, used, at + done));
        }
        return CINF_OK;
    }
    TRY(splitter_apply(&e->v->splitter, text, n, &e->pieces));
    for (size_t i = 0; i < e->pieces.n_pieces; i++) {
        const struct piece *piece = &e->pieces.pieces[i];
        TRY(encode_piece(e, e->pieces.text + piece->at, piece->n, at));
    }
    return CINF_OK;
}

/* Encodes text[0..n), which is what rounds before this one left: each such part is a text of its own, and
 * what the first round leaves is normalized. */
static enum cinf_status encode_round(struct encoding *e, int round, const char *text, size_t n, size_t at)
{
    const struct strbuf *normal = NULL;
    if (round == 1 && n > 0 && e->v->normalizer.n_steps > 0) {
        TRY(normalizer_apply(&e->v->normalizer, text, n, &e->normal, &normal));
        text = normal->text;
        n = normal->len;
    }
    if (round == ADDED_ROUNDS)
        return encode_ordinary(e, text, n, at);
    struct added_search search = {
        .added = &e->v->added, .round = round, .special = e->special, .text = text, .n = n
    };
    struct added_match match;
    size_t done = 0;
    while (added_any(search.added, round, e->special) && added_next(&search, &match)) {
        if (done < match.start)
            TRY(encode_round(e, round + 1, text + done, match.start - done, at + done));
        TRY(reserve(e, 1));
        e->ids[e->n_ids++] = match.id;
        done = match.end;
    }
    return encode_round(e, round + 1, text + done, n - done, at + done);
}

/* Puts around the ids what the tokenizer puts around every text. */
static enum cinf_status surround(struct encoding *e)
{
    const struct template *t = &e->v->template;
    size_t n_text = e->n_ids, n = 0;
    for (size_t i = 0; i < t->n; i++)
        n += t->ids[i] == TEMPLATE_TEXT ? n_text : 1;
    int32_t *ids = mem_new(n, sizeof *ids);
    if (!ids)
        return cinf_fail(CINF_ENOMEM, "no memory for %zu tokens", n);
    n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->ids[i] != TEMPLATE_TEXT) {
            ids[n++] = t->ids[i];
        } else if (n_text > 0) {
            memcpy(ids + n, e->ids, n_text * sizeof *ids);
            n += n_text;
        }
    }
    mem_free(e->ids);
    e->ids = ids;
    e->n_ids = n;
    return CINF_OK;
}

enum cinf_status cinf_tokenizer_encode(const struct cinf_tokenizer *tokenizer, const char *text, size_t n,
                                       unsigned flags, int32_t **ids, size_t *n_ids)
{
    if (n > INT32_MAX)
        return cinf_fail(CINF_EINVAL, "a text of %zu bytes is longer than the %d that can be encoded", n,
                         INT32_MAX);
    struct encoding e = { .v = &tokenizer->vocabulary, .special = flags & CINF_TOKENIZE_SPECIAL };
    /* English text has four to five bytes a token. */
    enum cinf_status status = reserve(&e, n / 4 + 1);
    if (status == CINF_OK)
        status = encode_round(&e, 0, text, n, 0);
    if (status == CINF_OK && e.v->template.n > 0 && !(flags & CINF_TOKENIZE_BARE))
        status = surround(&e);
    bpe_scratch_free(&e.scratch);
    normalizer_scratch_free(&e.normal);
    splitter_scratch_free(&e.pieces);
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
