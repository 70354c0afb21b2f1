/* added_token.c - finding added tokens in a text, exactly as Hugging Face's tokenizers do.
 *
 * That includes what looks arbitrary: a match that does not count (a special token that the caller did not
 * ask for, or part of a word) is passed over as a whole, so a shorter token in it is not found either; and a
 * token that is itself of spaces is found in those that the token before it has taken.
 *
 * The tokens of a round are sorted, and a look at a place in the text narrows the range of those that begin
 * like it, byte by byte.  That is a trie without its nodes; an automaton would spare looking at a byte again
 * for a later place, but tokens are short and few places begin like one. */
#include "added_token.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "unicode_class.h"
#include "utf8.h"

enum cinf_status added_put(struct added_tokens *a, const char *text, size_t n, uint32_t id, unsigned flags)
{
    char *copy = mem_copy(text, n);
    if (!copy || !mem_reserve(&a->tokens, &a->tokens_cap, a->n_tokens + 1, sizeof *a->tokens)) {
        mem_free(copy);
        return cinf_fail(CINF_ENOMEM, "no memory for an added token of %zu bytes", n);
    }
    a->tokens[a->n_tokens] = (struct added_token){ copy, n, id, (uint32_t)a->n_tokens, flags };
    a->n_tokens++;
    return CINF_OK;
}

static int round_of(const struct added_token *t)
{
    return (t->flags & ADDED_NORMALIZED) != 0;
}

static int compare_text(const struct added_token *a, const struct added_token *b)
{
    int order = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

static int by_text(const void *left, const void *right)
{
    const struct added_token *a = left, *b = right;
    int order = compare_text(a, b);
    return order ? order : (a->order > b->order) - (a->order < b->order);
}

/* Of those that are the same once normalized, a special one comes first. */
static int by_round(const void *left, const void *right)
{
    const struct added_token *a = left, *b = right;
    int order = round_of(a) - round_of(b);
    order = order ? order : compare_text(a, b);
    order = order ? order : (int)(b->flags & ADDED_SPECIAL) - (int)(a->flags & ADDED_SPECIAL);
    return order ? order : by_text(left, right);
}

/* Keeps the first of each run of equal tokens. */
static void drop_repeated(struct added_tokens *a, int (*compare)(const void *, const void *), bool by_rounds)
{
    size_t kept = 0;
    qsort(a->tokens, a->n_tokens, sizeof *a->tokens, compare);
    for (size_t i = 0; i < a->n_tokens; i++) {
        const struct added_token *last = kept > 0 ? &a->tokens[kept - 1] : NULL;
        if (last && compare_text(last, &a->tokens[i]) == 0 &&
            (!by_rounds || round_of(last) == round_of(&a->tokens[i])))
            mem_free(a->tokens[i].text);
        else
            a->tokens[kept++] = a->tokens[i];
    }
    a->n_tokens = kept;
}

/* What a token of the second round is looked for as. */
static enum cinf_status normalize(struct added_token *token, const struct normalizer *normalizer,
                                  struct normalizer_scratch *scratch)
{
    const struct strbuf *text = NULL;
    TRY(normalizer_apply(normalizer, token->text, token->n, scratch, &text));
    if (text->len == 0)
        return cinf_fail(CINF_EUNSUPPORTED, "the normalizer leaves nothing of added token \"%.*s\"",
                         token->n < 60 ? (int)token->n : 60, token->text);
    char *copy = mem_copy(text->text, text->len);
    if (!copy)
        return cinf_fail(CINF_ENOMEM, "no memory for an added token of %zu bytes", text->len);
    mem_free(token->text);
    token->text = copy;
    token->n = text->len;
    return CINF_OK;
}

static enum cinf_status normalize_all(struct added_tokens *a, const struct normalizer *normalizer)
{
    struct normalizer_scratch scratch = { 0 };
    enum cinf_status status = CINF_OK;
    for (size_t i = 0; i < a->n_tokens && normalizer->n_steps > 0 && status == CINF_OK; i++)
        if (a->tokens[i].flags & ADDED_NORMALIZED)
            status = normalize(&a->tokens[i], normalizer, &scratch);
    normalizer_scratch_free(&scratch);
    return status;
}

enum cinf_status added_seal(struct added_tokens *a, const struct normalizer *normalizer)
{
    if (a->n_tokens == 0)
        return CINF_OK;
    drop_repeated(a, by_text, false);
    TRY(normalize_all(a, normalizer));
    drop_repeated(a, by_round, true);
    uint32_t i = 0;
    for (int round = 0; round < ADDED_ROUNDS; round++) {
        struct added_round *r = &a->rounds[round];
        for (unsigned byte = 0; byte < 257; byte++) {
            for (; i < a->n_tokens && round_of(&a->tokens[i]) == round; i++) {
                if ((unsigned char)a->tokens[i].text[0] >= byte)
                    break;
                r->has_ordinary |= !(a->tokens[i].flags & ADDED_SPECIAL);
            }
            r->from[byte] = i;
        }
        r->only = -1;
        for (int byte = 0; byte < 256; byte++)
            if (r->from[byte] == r->from[0] && r->from[byte + 1] == r->from[256])
                r->only = byte;
    }
    return CINF_OK;
}

void added_free(struct added_tokens *a)
{
    for (size_t i = 0; i < a->n_tokens; i++)
        mem_free(a->tokens[i].text);
    mem_free(a->tokens);
    *a = (struct added_tokens){ 0 };
}

bool added_any(const struct added_tokens *a, int round, bool special)
{
    return a->rounds[round].has_ordinary ||
           (special && a->rounds[round].from[0] < a->rounds[round].from[256]);
}

/* The next place in text[at..n), at < n, where a token of the round may begin; n when there is none. */
static size_t next_place(const struct added_round *r, const char *text, size_t at, size_t n)
{
    if (r->only >= 0) {
        const char *found = memchr(text + at, r->only, n - at);
        return found ? (size_t)(found - text) : n;
    }
    while (at < n && r->from[(unsigned char)text[at]] == r->from[(unsigned char)text[at] + 1])
        at++;
    return at;
}

/* The first of tokens[low..high), all longer than `depth`, whose byte there is at least `byte`. */
static size_t first_with(const struct added_token *tokens, size_t low, size_t high, size_t depth,
                         unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)tokens[middle].text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token of a round that text[0..n), n >= 1, begins with, or NULL. */
static const struct added_token *longest(const struct added_tokens *a, const struct added_round *round,
                                         const char *text, size_t n)
{
    const struct added_token *found = NULL;
    unsigned byte = (unsigned char)text[0];
    size_t low = round->from[byte], high = round->from[byte + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (a->tokens[low].n == depth) /* it sorts before those that go on from it */
            found = &a->tokens[low++];
        if (depth == n)
            break;
        byte = (unsigned char)text[depth];
        low = first_with(a->tokens, low, high, depth, byte);
        high = first_with(a->tokens, low, high, depth, byte + 1);
    }
    return found;
}

/* Where the character before text[at] begins that ends there, and not before `from`; UTF8_BAD when none
 * does. */
static uint32_t character_before(const char *text, size_t from, size_t at, size_t *start)
{
    size_t used;
    if (at == from)
        return UTF8_BAD;
    for (*start = at - 1; *start > from && at - *start < 4 && ((unsigned char)text[*start] & 0xC0) == 0x80;)
        --*start;
    uint32_t c = utf8_read(text + *start, at - *start, &used);
    return *start + used == at ? c : UTF8_BAD;
}

static size_t spaces_start(const char *text, size_t from, size_t at)
{
    size_t start;
    for (uint32_t c; (c = character_before(text, from, at, &start)) != UTF8_BAD; at = start)
        if (unicode_class(c) != UNICODE_SPACE)
            break;
    return at;
}

static size_t spaces_end(const char *text, size_t n, size_t at)
{
    size_t used;
    while (at < n && unicode_class_at(text + at, n - at, &used) == UNICODE_SPACE)
        at += used;
    return at;
}

/* Whether no word goes on before text[start] or at text[end]. */
static bool is_single_word(const struct added_search *s, size_t start, size_t end)
{
    size_t unused;
    if (unicode_is_word(character_before(s->text, 0, start, &unused)))
        return false;
    return end == s->n || !unicode_is_word(utf8_read(s->text + end, s->n - end, &unused));
}

bool added_next(struct added_search *s, struct added_match *out)
{
    const struct added_round *round = &s->added->rounds[s->round];
    while (s->at < s->n && (s->at = next_place(round, s->text, s->at, s->n)) < s->n) {
        const struct added_token *t = longest(s->added, round, s->text + s->at, s->n - s->at);
        if (!t) {
            s->at++;
            continue;
        }
        size_t start = s->at, end = s->at + t->n;
        s->at = end;
        if ((t->flags & ADDED_SPECIAL && !s->special) ||
            (t->flags & ADDED_SINGLE_WORD && !is_single_word(s, start, end)))
            continue;
        if (t->flags & ADDED_LSTRIP)
            start = start > s->taken ? spaces_start(s->text, s->taken, start) : s->taken;
        if (t->flags & ADDED_RSTRIP) {
            if (end > s->spaces_end) /* else within spaces whose end is known */
                s->spaces_end = spaces_end(s->text, s->n, end);
            end = s->spaces_end;
        }
        if (start >= end) /* a token of spaces that the one before it took */
            continue;
        s->taken = end;
        *out = (struct added_match){ start, end, (int32_t)t->id };
        return true;
    }
    return false;
}
