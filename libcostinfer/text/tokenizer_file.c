/* tokenizer_file.c - vocab.json + merges.txt, with added_tokens.json where there is one, or tokenizer.json.
 *
 * Vocabularies spell a token with one character a byte, so that no spelling has a space or a control
 * character in it: the bytes that Latin-1 prints are their own character, the other 68 are U+0100 and up.  A
 * key with any other character is a token that was added by hand and stands for its own UTF-8 (Hugging Face's
 * decoder reads it so).  The keys of added_tokens.json are not spelled at all.
 *
 * A vocabulary may lack some of the 256 bytes (small ones trained without them do).  It opens, and encoding
 * fails when it meets such a byte: there is no unknown token in a byte-level model. */
#include "tokenizer_file.h"

#include <math.h>
#include <string.h>

#include "fail.h"
#include "file.h"
#include "json.h"
#include "mem.h"
#include "strbuf.h"
#include "utf8.h"

enum { FILE_SIZE_MAX = 64 << 20 };

/* The byte that a character of a spelling stands for, or -1. */
static int byte_of(uint32_t c)
{
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))
        return (int)c;
    if (c < 256 || c >= 256 + 68)
        return -1;
    c -= 256;
    return c <= 32 ? (int)c : c <= 66 ? (int)c - 33 + 127 : 173;
}

/* Appends the bytes that the spelling text[0..n) stands for; false, with some of them appended, when it has
 * a character that stands for none. */
static bool add_spelled(struct strbuf *bytes, const char *text, size_t n)
{
    for (size_t i = 0, used; i < n; i += used) {
        int byte = byte_of(utf8_read(text + i, n - i, &used));
        if (byte < 0)
            return false;
        strbuf_putc(bytes, (char)byte);
    }
    return true;
}

/* What a key of a vocabulary is. */
enum key_kind {
    KEY_ORDINARY, /* spelled, and made by merging */
    KEY_ADDED,    /* spelled, and never made by merging */
    KEY_PLAIN,    /* likewise, and its own UTF-8 */
};

static enum cinf_status add_token(struct bpe *b, struct strbuf *bytes, const char *key, const cJSON *id,
                                  enum key_kind kind)
{
    double d = cJSON_IsNumber(id) ? id->valuedouble : NAN;
    if (!(d >= 0 && d < BPE_IDS_MAX) || d != floor(d))
        return cinf_fail(CINF_EFORMAT, "the id of token \"%.60s\" is not an integer from 0 to %d", key,
                         BPE_IDS_MAX - 1);
    size_t n = strlen(key);
    if (n == 0)
        return cinf_fail(CINF_EFORMAT, "the token of id %.0f is empty", d);
    strbuf_clear(bytes);
    if (kind == KEY_PLAIN || !add_spelled(bytes, key, n)) {
        strbuf_clear(bytes);
        strbuf_add(bytes, key, n);
        kind = KEY_PLAIN;
    }
    if (bytes->failed)
        return cinf_fail(CINF_ENOMEM, "no memory for token \"%.60s\"", key);
    enum cinf_status status = bpe_add_token(b, (uint32_t)d, bytes->text, bytes->len, kind != KEY_ORDINARY);
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "token \"%.60s\": ", key);
}

static enum cinf_status add_vocabulary(struct bpe *b, struct strbuf *bytes, const cJSON *vocabulary,
                                       enum key_kind kind)
{
    if (!cJSON_IsObject(vocabulary))
        return cinf_fail(CINF_EFORMAT, "the vocabulary is not an object of tokens and their ids");
    const cJSON *id;
    cJSON_ArrayForEach(id, vocabulary) TRY(add_token(b, bytes, id->string, id, kind));
    return CINF_OK;
}

/* A vocabulary without a single byte is of another kind (WordPiece, SentencePiece). */
static enum cinf_status index_tokens(struct bpe *b, size_t merges_max)
{
    TRY(bpe_index(b, merges_max));
    for (int byte = 0; byte < 256; byte++)
        if (b->byte_ids[byte] >= 0)
            return CINF_OK;
    return cinf_fail(CINF_EFORMAT,
                     "none of the 256 bytes is in the vocabulary, so it is not a byte-level one");
}

/* `what` and `number` say in a message which merge it is. */
static enum cinf_status add_merge(struct bpe *b, struct strbuf *bytes, const char *left, size_t n_left,
                                  const char *right, size_t n_right, const char *what, size_t number)
{
    strbuf_clear(bytes);
    bool good = add_spelled(bytes, left, n_left);
    size_t middle = bytes->len;
    good = good && add_spelled(bytes, right, n_right);
    if (bytes->failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a merge");
    enum cinf_status status = good ? bpe_add_merge(b, bytes->text, middle, bytes->len)
                                   : cinf_fail(CINF_EFORMAT, "it has a character that stands for no byte");
    if (status == CINF_OK)
        return CINF_OK;
    return cinf_fail_in(status, "%s %zu, \"%.*s %.*s\": ", what, number, n_left < 60 ? (int)n_left : 60, left,
                        n_right < 60 ? (int)n_right : 60, right);
}

/* The merge "a b" in text[0..n). */
static enum cinf_status add_merge_text(struct bpe *b, struct strbuf *bytes, const char *text, size_t n,
                                       const char *what, size_t number)
{
    const char *space = memchr(text, ' ', n);
    size_t n_left = space ? (size_t)(space - text) : 0;
    if (!space || n_left == 0 || n_left + 1 == n || memchr(space + 1, ' ', n - n_left - 1))
        return cinf_fail(CINF_EFORMAT, "%s %zu is not two symbols with a space between", what, number);
    return add_merge(b, bytes, text, n_left, space + 1, n - n_left - 1, what, number);
}

static enum cinf_status add_merge_lines(struct bpe *b, struct strbuf *bytes, const char *text, size_t n)
{
    const char *end = text + n;
    for (size_t number = 1; text < end; number++) {
        const char *line = text, *line_end = memchr(text, '\n', (size_t)(end - text));
        if (!line_end)
            line_end = end;
        text = line_end + (line_end < end);
        if (line_end > line && line_end[-1] == '\r')
            line_end--;
        size_t length = (size_t)(line_end - line);
        /* Only the first line is a comment: a merge may begin with '#'. */
        if (length == 0 || (number == 1 && length >= 8 && memcmp(line, "#version", 8) == 0))
            continue;
        TRY(add_merge_text(b, bytes, line, length, "line", number));
    }
    return CINF_OK;
}

static enum cinf_status parse(cJSON **out, const char *text, size_t n)
{
    /* What the largest tokenizer.json has: an id and three values a merge for each token. */
    const struct json_limits limits = { .members_max = BPE_IDS_MAX, .values_max = 5u * BPE_IDS_MAX };
    return json_parse(out, text, n, &limits);
}

static size_t count_lines(const char *text, size_t n)
{
    size_t lines = 1;
    for (const char *at = text, *end = text + n; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        lines++;
    return lines;
}

static enum cinf_status read_vocab(struct bpe *b, struct strbuf *bytes, const struct file_text *vocab,
                                   enum key_kind kind)
{
    cJSON *tree;
    TRY(parse(&tree, vocab->text, vocab->n));
    enum cinf_status status = add_vocabulary(b, bytes, tree, kind);
    cJSON_Delete(tree);
    return status;
}

static enum cinf_status read_merges(struct bpe *b, struct strbuf *bytes, const struct file_text *merges)
{
    TRY(add_merge_lines(b, bytes, merges->text, merges->n));
    return bpe_seal(b);
}

enum cinf_status vocabulary_read(struct bpe *b, const struct file_text *vocab, const struct file_text *merges,
                                 const struct file_text *added)
{
    struct strbuf bytes = { 0 };
    const struct file_text *at_fault = merges;
    size_t lines = count_lines(merges->text, merges->n);
    enum cinf_status status =
        lines > BPE_IDS_MAX ? cinf_fail(CINF_EFORMAT, "has more than %d lines", BPE_IDS_MAX) : CINF_OK;
    if (status == CINF_OK) {
        at_fault = vocab;
        status = read_vocab(b, &bytes, vocab, KEY_ORDINARY);
    }
    if (status == CINF_OK && added) {
        at_fault = added;
        status = read_vocab(b, &bytes, added, KEY_PLAIN);
    }
    if (status == CINF_OK) {
        at_fault = vocab;
        status = index_tokens(b, lines);
    }
    if (status == CINF_OK) {
        at_fault = merges;
        status = read_merges(b, &bytes, merges);
    }
    strbuf_free(&bytes);
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "%s: ", at_fault->name);
}

/* `object.key` when it is there must be of no effect: `usual`, or for a NULL `usual` false, empty or null. */
static enum cinf_status expect(const cJSON *object, const char *key, const char *usual)
{
    const cJSON *value = json_member(object, key);
    if (!value)
        return CINF_OK;
    bool good;
    if (usual)
        good = cJSON_IsString(value) && strcmp(value->valuestring, usual) == 0;
    else
        good = cJSON_IsFalse(value) || (cJSON_IsString(value) && value->valuestring[0] == '\0') ||
               (cJSON_IsNumber(value) && value->valuedouble == 0);
    if (good)
        return CINF_OK;
    return cinf_fail(CINF_EUNSUPPORTED, "\"%s\" is not %s: only GPT-2's way to encode is supported", key,
                     usual ? usual : "off");
}

/* What would make Hugging Face's tokenizer encode in another way than GPT-2's. */
static enum cinf_status check_settings(const cJSON *root, const cJSON *model)
{
    const cJSON *pre = json_member(root, "pre_tokenizer");
    if (json_member(root, "normalizer"))
        return cinf_fail(CINF_EUNSUPPORTED, "it has a \"normalizer\", which GPT-2's tokenizer has not");
    TRY(expect(pre, "type", "ByteLevel"));
    TRY(expect(pre, "add_prefix_space", NULL));
    const cJSON *regex = json_member(pre, "use_regex");
    if (regex && !cJSON_IsTrue(regex))
        return cinf_fail(CINF_EUNSUPPORTED,
                         "\"use_regex\" is not true: only GPT-2's way to encode is supported");
    TRY(expect(model, "type", "BPE"));
    TRY(expect(model, "continuing_subword_prefix", NULL));
    TRY(expect(model, "end_of_word_suffix", NULL));
    TRY(expect(model, "dropout", NULL));
    TRY(expect(model, "byte_fallback", NULL));
    return expect(model, "ignore_merges", NULL);
}

static enum cinf_status add_added(struct bpe *b, struct strbuf *bytes, const cJSON *list)
{
    size_t number = 1;
    const cJSON *token;
    if (list && !cJSON_IsArray(list))
        return cinf_fail(CINF_EFORMAT, "\"added_tokens\" is not an array");
    cJSON_ArrayForEach(token, list)
    {
        const cJSON *content = json_member(token, "content"), *id = json_member(token, "id");
        if (!cJSON_IsString(content) || !id)
            return cinf_fail(CINF_EFORMAT, "added token %zu has no \"content\" and \"id\"", number);
        TRY(add_token(b, bytes, content->valuestring, id, KEY_ADDED));
        number++;
    }
    return CINF_OK;
}

/* A merge is "a b" in older files and ["a", "b"] in newer ones. */
static enum cinf_status add_merge_values(struct bpe *b, struct strbuf *bytes, const cJSON *list)
{
    size_t number = 1;
    const cJSON *merge;
    cJSON_ArrayForEach(merge, list)
    {
        const cJSON *left = cJSON_IsArray(merge) ? merge->child : NULL, *right = left ? left->next : NULL;
        if (cJSON_IsString(merge))
            TRY(add_merge_text(b, bytes, merge->valuestring, strlen(merge->valuestring), "merge", number));
        else if (right && cJSON_IsString(left) && cJSON_IsString(right) && !right->next &&
                 left->valuestring[0] && right->valuestring[0])
            TRY(add_merge(b, bytes, left->valuestring, strlen(left->valuestring), right->valuestring,
                          strlen(right->valuestring), "merge", number));
        else
            return cinf_fail(CINF_EFORMAT, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]", number);
        number++;
    }
    return CINF_OK;
}

static enum cinf_status read_tree(struct bpe *b, struct strbuf *bytes, const cJSON *root)
{
    const cJSON *model = json_member(root, "model");
    if (!cJSON_IsObject(model))
        return cinf_fail(CINF_EFORMAT, "it has no \"model\" object");
    TRY(check_settings(root, model));
    const cJSON *merges = json_member(model, "merges");
    if (!cJSON_IsArray(merges))
        return cinf_fail(CINF_EFORMAT, "\"model\" has no array of \"merges\"");
    TRY(add_vocabulary(b, bytes, json_member(model, "vocab"), KEY_ORDINARY));
    TRY(add_added(b, bytes, json_member(root, "added_tokens")));
    TRY(index_tokens(b, (size_t)cJSON_GetArraySize(merges)));
    TRY(add_merge_values(b, bytes, merges));
    return bpe_seal(b);
}

enum cinf_status tokenizer_json_read(struct bpe *b, const struct file_text *file)
{
    cJSON *tree = NULL;
    struct strbuf bytes = { 0 };
    enum cinf_status status = parse(&tree, file->text, file->n);
    if (status == CINF_OK)
        status = read_tree(b, &bytes, tree);
    cJSON_Delete(tree);
    strbuf_free(&bytes);
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "%s: ", file->name);
}

/* A file's text in new memory, to be freed also on failure: its text is NULL then. */
static enum cinf_status load(struct file_text *out, const char *path)
{
    char *text = NULL;
    enum cinf_status status = file_load(&text, &out->n, path, FILE_SIZE_MAX);
    *out = (struct file_text){ path, text, out->n };
    return status;
}

/* `added_path` names the tokens that a fine-tuned model has beyond the vocabulary, where there is such a
 * file. */
static enum cinf_status read_files(struct bpe *b, const char *vocab_path, const char *merges_path,
                                   const char *added_path)
{
    struct file_text vocab = { 0 }, merges = { 0 }, added = { 0 };
    enum cinf_status status = load(&vocab, vocab_path);
    if (status == CINF_OK)
        status = load(&merges, merges_path);
    if (status == CINF_OK && path_exists(added_path))
        status = load(&added, added_path);
    if (status == CINF_OK)
        status = vocabulary_read(b, &vocab, &merges, added.text ? &added : NULL);
    mem_free((char *)vocab.text);
    mem_free((char *)merges.text);
    mem_free((char *)added.text);
    return status;
}

static enum cinf_status read_single(struct bpe *b, const char *path)
{
    char *text;
    size_t n;
    TRY(file_load(&text, &n, path, FILE_SIZE_MAX));
    enum cinf_status status = tokenizer_json_read(b, &(struct file_text){ path, text, n });
    mem_free(text);
    return status;
}

enum cinf_status tokenizer_folder_read(struct bpe *b, const char *folder)
{
    if (!path_is_folder(folder))
        return cinf_fail(CINF_ENOTFOUND, "%s: no such folder", folder);
    char *vocab = path_join(folder, "vocab.json"), *merges = path_join(folder, "merges.txt");
    char *added = path_join(folder, "added_tokens.json"), *single = path_join(folder, "tokenizer.json");
    enum cinf_status status;
    if (!vocab || !merges || !added || !single)
        status = cinf_fail(CINF_ENOMEM, "%s: no memory for the names of its files", folder);
    else if (path_exists(vocab) && path_exists(merges))
        status = read_files(b, vocab, merges, added);
    else if (path_exists(single))
        status = read_single(b, single);
    else
        status = cinf_fail(CINF_ENOTFOUND, "%s: has neither vocab.json with merges.txt nor tokenizer.json",
                           folder);
    mem_free(vocab);
    mem_free(merges);
    mem_free(added);
    mem_free(single);
    return status;
}
