/* fuzz_tokenizer_json.c - the settings of tokenizer.json and tokenizer_config.json, and texts with them.
 *
 * The input is split at bytes FF: the members of a tokenizer.json but for its model, members of that model, a
 * tokenizer_config.json, and texts.  The vocabulary is built in, so that an input is about settings.  Texts
 * are normalized, cut and merged: no piece may be empty, and every id must be one of the vocabulary. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spelling.h"
#include "strbuf.h"
#include "tokenizer_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 2048, PARTS = 8, TEXTS_FROM = 3 };

static void must(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_tokenizer_json: %s: %s\n", what, cinf_last_error());
    abort();
}

/* Every byte in its spelling and a few merges. */
static const char *vocabulary(void)
{
    static struct strbuf b;
    if (b.len > 0)
        return b.text;
    strbuf_puts(&b, "\"vocab\":{");
    for (int byte = 0; byte < 256; byte++) {
        struct strbuf spelled = { 0 };
        char c = (char)byte;
        spelling_write(&spelled, &c, 1);
        strbuf_put_json(&b, spelled.text, spelled.len);
        strbuf_printf(&b, ":%d,", byte);
        strbuf_free(&spelled);
    }
    strbuf_puts(
        &b, "\"aa\":256,\"ab\":257,\"\u0120a\":258,\"<s>\":259},\"merges\":[\"a a\",\"a b\",\"\u0120 a\"]");
    must(!b.failed, "memory");
    return b.text;
}

static void check_piece(const struct bpe *b, const char *bytes, size_t n)
{
    struct bpe_scratch scratch = { 0 };
    int32_t *ids = malloc(n * sizeof *ids);
    size_t n_ids = 0;
    must(ids && bpe_encode(b, bytes, n, ids, &n_ids, &scratch) == CINF_OK, "a piece");
    must(n_ids >= 1 && n_ids <= n, "number of ids");
    for (size_t i = 0; i < n_ids; i++)
        must(ids[i] >= 0 && (size_t)ids[i] < b->n_ids && b->tokens[ids[i]].n > 0, "an id out of range");
    free(ids);
    bpe_scratch_free(&scratch);
}

static void check_text(const struct vocabulary *v, const char *text, size_t n)
{
    struct normalizer_scratch scratch = { 0 };
    struct splitter_scratch pieces = { 0 };
    const struct strbuf *normal = NULL;
    if (v->normalizer.n_steps > 0) {
        if (normalizer_apply(&v->normalizer, text, n, &scratch, &normal) != CINF_OK)
            goto done;
        text = normal->text;
        n = normal->len;
    }
    if (n > 64 * TEXT_MAX || splitter_apply(&v->splitter, text, n, &pieces) != CINF_OK)
        goto done;
    for (size_t i = 0; i < pieces.n_pieces; i++) {
        must(pieces.pieces[i].n > 0, "an empty piece");
        check_piece(&v->bpe, pieces.text + pieces.pieces[i].at, pieces.pieces[i].n);
    }
done:
    normalizer_scratch_free(&scratch);
    splitter_scratch_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file_text parts[PARTS] = { { 0 } };
    size_t n_parts = 0;
    const char *at = (const char *)data, *end = at + size;
    while (size > 0 && n_parts < PARTS) {
        const char *cut = memchr(at, 0xFF, (size_t)(end - at));
        parts[n_parts++] = (struct file_text){ "part", at, (size_t)((cut ? cut : end) - at) };
        if (!cut)
            break;
        at = cut + 1;
    }
    struct strbuf single = { 0 };
    strbuf_puts(&single, "{");
    for (size_t i = 0; i < 2; i++) {
        if (i == 1)
            strbuf_puts(&single, "\"model\":{");
        strbuf_add(&single, parts[i].text ? parts[i].text : "", parts[i].n);
        strbuf_puts(&single, parts[i].n > 0 ? "," : "");
    }
    strbuf_puts(&single, vocabulary());
    strbuf_puts(&single, "}}");
    must(!single.failed, "memory");
    struct file_text files[TOKENIZER_FILES] = { [FILE_SINGLE] = { "single", single.text, single.len } };
    if (parts[2].n > 0)
        files[FILE_CONFIG] = parts[2];
    struct vocabulary v = { 0 };
    if (vocabulary_read(&v, files) == CINF_OK)
        for (size_t i = TEXTS_FROM; i < n_parts; i++)
            check_text(&v, parts[i].text, parts[i].n < TEXT_MAX ? parts[i].n : TEXT_MAX);
    vocabulary_free(&v);
    strbuf_free(&single);
    return 0;
}
