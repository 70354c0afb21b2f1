/* fuzz_bpe.c - the tokenizer's files and its texts.
 *
 * The input is split at bytes FF: a vocab.json, a merges.txt (or nothing: then the first part is a
 * tokenizer.json too), and texts.  The first two texts are also taken for a tokenizer_config.json and a
 * special_tokens_map.json.  Where they do not open, the texts go through a vocabulary of 256 bytes and some
 * merges.  Every text must come back, and long pieces must be merged as short ones are; added tokens must be
 * found in order and hold their text. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpe.h"
#include "piece.h"
#include "tokenizer_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 4096, TEXTS_FROM = 2 };

static void must(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_bpe: %s\n", what);
    abort();
}

static void open_built_in(struct bpe *b)
{
    static const char *const merges[] = { "aa", "ab", "aaaa",     " a",          "the",
                                          "he", "  ", "\xE2\x82", "\xE2\x82\xAC" };
    static const size_t left[] = { 1, 1, 2, 1, 1, 1, 1, 1, 2 };
    for (uint32_t byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        must(bpe_add_token(b, 255 - byte, &c, 1, false) == CINF_OK, "built-in byte");
    }
    for (uint32_t i = 0; i < 9; i++)
        must(bpe_add_token(b, 300 + i, merges[i], strlen(merges[i]), false) == CINF_OK, "built-in token");
    must(bpe_index(b, 9) == CINF_OK, "built-in index");
    for (size_t i = 0; i < 9; i++)
        must(bpe_add_merge(b, merges[i], left[i], strlen(merges[i])) == CINF_OK, "built-in merge");
    must(bpe_seal(b) == CINF_OK, "built-in vocabulary");
}

/* Lowest rank first, then leftmost, as slowly as that reads. */
static size_t merge_naively(const struct bpe *b, const char *bytes, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = b->byte_ids[(unsigned char)bytes[i]];
    for (;;) {
        uint64_t best = UINT64_MAX;
        size_t best_at = 0;
        for (size_t at = 0; at + 1 < n; at++) {
            uint64_t key = (uint64_t)ids[at] << 20 | (uint64_t)ids[at + 1];
            for (size_t i = 0; i <= b->pairs_mask; i++)
                if (b->pairs[i] != UINT64_MAX && b->pairs[i] >> 24 == key &&
                    (b->pairs[i] & 0xFFFFFF) < best) {
                    best = b->pairs[i] & 0xFFFFFF;
                    best_at = at;
                }
        }
        if (best == UINT64_MAX)
            return n;
        ids[best_at] = (int32_t)b->merged[best];
        memmove(ids + best_at + 1, ids + best_at + 2, (n - best_at - 2) * sizeof *ids);
        n--;
    }
}

static void check_piece(const struct bpe *b, const char *bytes, size_t n, struct bpe_scratch *scratch)
{
    static int32_t ids[TEXT_MAX], expected[TEXT_MAX];
    size_t n_ids, at = 0;
    if (bpe_encode(b, bytes, n, ids, &n_ids, scratch) != CINF_OK)
        return; /* a byte that the vocabulary lacks */
    must(n_ids >= 1 && n_ids <= n, "number of ids");
    for (size_t i = 0; i < n_ids; i++) {
        must(ids[i] >= 0 && (size_t)ids[i] < b->n_ids, "an id out of range");
        const struct bpe_token *token = &b->tokens[ids[i]];
        must(at + token->n <= n && memcmp(bytes + at, b->bytes + token->at, token->n) == 0, "other bytes");
        at += token->n;
    }
    must(at == n, "bytes are missing");
    if (n <= 160 && b->pairs_mask < 64) {
        must(merge_naively(b, bytes, n, expected) == n_ids, "another number of tokens than by definition");
        must(memcmp(ids, expected, n_ids * sizeof *ids) == 0, "other tokens than by definition");
    }
}

static void check_text(const struct bpe *b, const char *text, size_t n)
{
    struct bpe_scratch scratch = { 0 };
    n = n < TEXT_MAX ? n : TEXT_MAX;
    for (size_t at = 0, used; at < n; at += used) {
        used = piece_length(text + at, n - at);
        must(used >= 1 && used <= n - at, "length of a piece");
        check_piece(b, text + at, used, &scratch);
    }
    if (n > 0)
        check_piece(b, text, n, &scratch);
    bpe_scratch_free(&scratch);
}

/* Both rounds over the whole text: tokens may share spaces, but never the characters between. */
static void check_added(const struct added_tokens *a, const char *text, size_t n)
{
    n = n < TEXT_MAX ? n : TEXT_MAX;
    for (int i = 0; i < 2 * ADDED_ROUNDS; i++) {
        struct added_search search = { .added = a, .round = i / 2, .special = i % 2, .text = text, .n = n };
        struct added_match match;
        size_t at = 0;
        while (added_next(&search, &match)) {
            must(search.at > at && match.start < match.end && match.end <= n, "bounds of an added token");
            must(match.start < search.at && search.at <= match.end, "an added token without its text");
            at = search.at;
        }
        must(added_any(a, i / 2, i % 2) || at == 0, "an added token out of nothing");
    }
}

/* The first texts are the two further files, where they are good for that. */
static enum cinf_status read_files(struct vocabulary *v, const struct file_text *parts, bool single, bool all)
{
    struct file_text files[TOKENIZER_FILES] = { 0 };
    if (single) {
        files[FILE_SINGLE] = parts[0];
    } else {
        files[FILE_VOCAB] = parts[0];
        files[FILE_MERGES] = parts[1];
    }
    if (all) {
        files[FILE_CONFIG] = parts[2];
        files[FILE_SPECIAL] = parts[3];
    }
    return vocabulary_read(v, files);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file_text parts[8] = { { 0 }, { .name = "part", .text = "" } };
    size_t n_parts = 0;
    if (size == 0)
        return 0;
    const char *at = (const char *)data, *end = at + size;
    while (n_parts < 8) {
        const char *cut = memchr(at, 0xFF, (size_t)(end - at));
        parts[n_parts++] = (struct file_text){ "part", at, (size_t)((cut ? cut : end) - at) };
        if (!cut)
            break;
        at = cut + 1;
    }
    struct vocabulary v = { 0 };
    enum cinf_status status = CINF_EFORMAT;
    for (int way = 0; way < 4 && status != CINF_OK; way++) {
        vocabulary_free(&v);
        status = read_files(&v, parts, way % 2 == 0, way < 2);
    }
    if (status != CINF_OK) {
        vocabulary_free(&v);
        open_built_in(&v.bpe);
    }
    for (size_t i = TEXTS_FROM; i < n_parts; i++) {
        check_text(&v.bpe, parts[i].text, parts[i].n);
        check_added(&v.added, parts[i].text, parts[i].n);
    }
    check_text(&v.bpe, (const char *)data, size);
    check_added(&v.added, (const char *)data, size);
    vocabulary_free(&v);
    return 0;
}
