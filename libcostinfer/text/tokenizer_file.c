/* tokenizer_file.c - vocab.json + merges.txt or tokenizer.json, and what says which tokens were added.
 *
 * Vocabularies spell a token with one character a byte, so that no spelling has a space or a control
 * character in it: the bytes that Latin-1 prints are their own character, the other 68 are U+0100 and up.  A
 * key with any other character is a token that was added by hand and stands for its own UTF-8 (Hugging Face's
 * decoder reads it so).  The keys of added_tokens.json are not spelled at all.
 *
 * A vocabulary may lack some of the 256 bytes (small ones trained without them do).  It opens, and encoding
 * fails when it meets such a byte: there is no unknown token in a byte-level model.
 *
 * Four files may speak of added tokens, depending on the age of the tools that wrote them.  The first of
 * these that has a token says how it is matched: tokenizer.json, tokenizer_config.json where it lists tokens
 * by id, special_tokens_map.json and tokenizer_config.json where they name the special ones, and
 * added_tokens.json, whose tokens are not special when nobody says so.  A text is matched with the token's
 * content, whatever its bytes are when it is decoded. */
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

/* What the readers share. */
struct reading {
    struct vocabulary *v;
    struct strbuf bytes; /* of the token at hand */
    const struct file_text *files;
    cJSON *trees[TOKENIZER_FILES]; /* NULL for the files that are not there */
};

static double number_of(const cJSON *id)
{
    return cJSON_IsNumber(id) ? id->valuedouble : NAN;
}

static enum cinf_status add_token(struct reading *r, const char *key, double id, enum key_kind kind)
{
    struct strbuf *bytes = &r->bytes;
    if (!(id >= 0 && id < BPE_IDS_MAX) || id != floor(id))
        return cinf_fail(CINF_EFORMAT, "the id of token \"%.60s\" is not an integer from 0 to %d", key,
                         BPE_IDS_MAX - 1);
    size_t n = strlen(key);
    if (n == 0)
        return cinf_fail(CINF_EFORMAT, "the token of id %.0f is empty", id);
    strbuf_clear(bytes);
    if (kind == KEY_PLAIN || !add_spelled(bytes, key, n)) {
        strbuf_clear(bytes);
        strbuf_add(bytes, key, n);
        kind = KEY_PLAIN;
    }
    if (bytes->failed)
        return cinf_fail(CINF_ENOMEM, "no memory for token \"%.60s\"", key);
    enum cinf_status status =
        bpe_add_token(&r->v->bpe, (uint32_t)id, bytes->text, bytes->len, kind != KEY_ORDINARY);
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "token \"%.60s\": ", key);
}

static enum cinf_status add_vocabulary(struct reading *r, const cJSON *vocabulary, enum key_kind kind)
{
    if (!cJSON_IsObject(vocabulary))
        return cinf_fail(CINF_EFORMAT, "the vocabulary is not an object of tokens and their ids");
    const cJSON *id;
    cJSON_ArrayForEach(id, vocabulary) TRY(add_token(r, id->string, number_of(id), kind));
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
static enum cinf_status add_merge(struct reading *r, const char *left, size_t n_left, const char *right,
                                  size_t n_right, const char *what, size_t number)
{
    struct strbuf *bytes = &r->bytes;
    strbuf_clear(bytes);
    bool good = add_spelled(bytes, left, n_left);
    size_t middle = bytes->len;
    good = good && add_spelled(bytes, right, n_right);
    if (bytes->failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a merge");
    enum cinf_status status = good ? bpe_add_merge(&r->v->bpe, bytes->text, middle, bytes->len)
                                   : cinf_fail(CINF_EFORMAT, "it has a character that stands for no byte");
    if (status == CINF_OK)
        return CINF_OK;
    return cinf_fail_in(status, "%s %zu, \"%.*s %.*s\": ", what, number, n_left < 60 ? (int)n_left : 60, left,
                        n_right < 60 ? (int)n_right : 60, right);
}

/* The merge "a b" in text[0..n). */
static enum cinf_status add_merge_text(struct reading *r, const char *text, size_t n, const char *what,
                                       size_t number)
{
    const char *space = memchr(text, ' ', n);
    size_t n_left = space ? (size_t)(space - text) : 0;
    if (!space || n_left == 0 || n_left + 1 == n || memchr(space + 1, ' ', n - n_left - 1))
        return cinf_fail(CINF_EFORMAT, "%s %zu is not two symbols with a space between", what, number);
    return add_merge(r, text, n_left, space + 1, n - n_left - 1, what, number);
}

static enum cinf_status add_merge_lines(struct reading *r, const char *text, size_t n)
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
        TRY(add_merge_text(r, line, length, "line", number));
    }
    return CINF_OK;
}

static size_t count_lines(const char *text, size_t n)
{
    size_t lines = 1;
    for (const char *at = text, *end = text + n; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        lines++;
    return lines;
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

/* A merge is "a b" in older files and ["a", "b"] in newer ones. */
static enum cinf_status add_merge_values(struct reading *r, const cJSON *list)
{
    size_t number = 1;
    const cJSON *merge;
    cJSON_ArrayForEach(merge, list)
    {
        const cJSON *left = cJSON_IsArray(merge) ? merge->child : NULL, *right = left ? left->next : NULL;
        if (cJSON_IsString(merge))
            TRY(add_merge_text(r, merge->valuestring, strlen(merge->valuestring), "merge", number));
        else if (right && cJSON_IsString(left) && cJSON_IsString(right) && !right->next &&
                 left->valuestring[0] && right->valuestring[0])
            TRY(add_merge(r, left->valuestring, strlen(left->valuestring), right->valuestring,
                          strlen(right->valuestring), "merge", number));
        else
            return cinf_fail(CINF_EFORMAT, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]", number);
        number++;
    }
    return CINF_OK;
}

/* ---- Added tokens --------------------------------------------------------------------------- */

/* Adds what an AddedToken as an object says of matching to *flags. */
static enum cinf_status read_flags(unsigned *flags, const cJSON *token)
{
    static const struct {
        const char *key;
        unsigned flag;
    } keys[] = { { "special", ADDED_SPECIAL },
                 { "lstrip", ADDED_LSTRIP },
                 { "rstrip", ADDED_RSTRIP },
                 { "single_word", ADDED_SINGLE_WORD } };
    bool value;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        value = false;
        TRY(json_read_bool(&value, token, keys[i].key));
        *flags |= value ? keys[i].flag : 0;
    }
    value = !(*flags & ADDED_SPECIAL);
    TRY(json_read_bool(&value, token, "normalized"));
    *flags |= value ? ADDED_NORMALIZED : 0;
    return CINF_OK;
}

/* Whether `id` is already the token of these bytes as they stand: one of added_tokens.json. */
static bool has_plain(const struct bpe *b, double id, const char *text)
{
    if (!(id >= 0 && id < (double)b->n_ids) || id != floor(id))
        return false;
    const struct bpe_token *token = &b->tokens[(size_t)id];
    return token->n > 0 && token->n == strlen(text) && memcmp(b->bytes + token->at, text, token->n) == 0;
}

/* One AddedToken with its id; `number` says in a message which one it is. */
static enum cinf_status add_added(struct reading *r, const cJSON *token, double id, size_t number)
{
    unsigned flags = 0;
    const cJSON *content = json_member(token, "content");
    if (!cJSON_IsString(content))
        return cinf_fail(CINF_EFORMAT, "added token %zu has no \"content\" and \"id\"", number);
    if (read_flags(&flags, token) != CINF_OK)
        return cinf_fail_in(CINF_EFORMAT, "added token %zu: ", number);
    const char *text = content->valuestring;
    if (!has_plain(&r->v->bpe, id, text))
        TRY(add_token(r, text, id, KEY_ADDED));
    return added_put(&r->v->added, text, strlen(text), (uint32_t)id, flags);
}

/* tokenizer.json's list. */
static enum cinf_status add_added_list(struct reading *r)
{
    size_t number = 1;
    const cJSON *token, *list = json_member(r->trees[FILE_SINGLE], "added_tokens");
    if (list && !cJSON_IsArray(list))
        return cinf_fail(CINF_EFORMAT, "\"added_tokens\" is not an array");
    cJSON_ArrayForEach(token, list)
    {
        const cJSON *id = json_member(token, "id");
        if (!id)
            return cinf_fail(CINF_EFORMAT, "added token %zu has no \"content\" and \"id\"", number);
        TRY(add_added(r, token, number_of(id), number++));
    }
    return CINF_OK;
}

/* tokenizer_config.json's, whose keys are the ids. */
static enum cinf_status add_added_by_id(struct reading *r)
{
    size_t number = 1;
    const cJSON *token, *list = json_member(r->trees[FILE_CONFIG], "added_tokens_decoder");
    if (list && !cJSON_IsObject(list))
        return cinf_fail(CINF_EFORMAT, "\"added_tokens_decoder\" is not an object");
    cJSON_ArrayForEach(token, list)
    {
        double id = 0;
        for (const char *c = token->string; *c; c++)
            id = *c >= '0' && *c <= '9' ? 10 * id + (*c - '0') : NAN;
        TRY(add_added(r, token, token->string[0] ? id : NAN, number++));
    }
    return CINF_OK;
}

/* A special token by its text, or as an AddedToken, when it has an id. */
static enum cinf_status note_special(struct reading *r, const cJSON *token)
{
    unsigned flags = ADDED_SPECIAL;
    const cJSON *content = cJSON_IsString(token) ? token : json_member(token, "content");
    if (!cJSON_IsString(content))
        return CINF_OK;
    TRY(read_flags(&flags, token));
    const char *text = content->valuestring;
    size_t n = strlen(text);
    int32_t id = bpe_find(&r->v->bpe, text, n);
    if (id < 0) {
        strbuf_clear(&r->bytes);
        if (add_spelled(&r->bytes, text, n) && r->bytes.len > 0)
            id = bpe_find(&r->v->bpe, r->bytes.text, r->bytes.len);
        if (r->bytes.failed)
            return cinf_fail(CINF_ENOMEM, "no memory for token \"%.60s\"", text);
    }
    return id < 0 ? CINF_OK : added_put(&r->v->added, text, n, (uint32_t)id, flags);
}

/* "eos_token": a token, "additional_special_tokens": an array or an object of such, and the like. */
static enum cinf_status note_special_members(struct reading *r, enum tokenizer_file file)
{
    const cJSON *member, *token;
    cJSON_ArrayForEach(member, r->trees[file])
    {
        if (!member->string)
            return cinf_fail(CINF_EFORMAT, "it is not an object");
        enum cinf_status status = CINF_OK;
        if (text_ends_with(member->string, "_token"))
            status = note_special(r, member);
        else if (text_ends_with(member->string, "_tokens"))
            for (token = member->child; token && status == CINF_OK; token = token->next)
                status = note_special(r, token);
        if (status != CINF_OK)
            return cinf_fail_in(status == CINF_EINVAL ? CINF_EFORMAT : status, "\"%s\": ", member->string);
    }
    return CINF_OK;
}

/* What is left of added_tokens.json, whose tokens are in the vocabulary by now. */
static enum cinf_status add_added_plain(struct reading *r)
{
    const cJSON *id;
    cJSON_ArrayForEach(id, r->trees[FILE_ADDED]) TRY(
        added_put(&r->v->added, id->string, strlen(id->string), (uint32_t)id->valuedouble, ADDED_NORMALIZED));
    return CINF_OK;
}

/* ---- Files ---------------------------------------------------------------------------------- */

static enum cinf_status in_file(const struct reading *r, enum tokenizer_file file, enum cinf_status status)
{
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "%s: ", r->files[file].name);
}

static enum cinf_status parse_files(struct reading *r)
{
    /* What the largest tokenizer.json has: an id and three values a merge for each token. */
    const struct json_limits limits = { .members_max = BPE_IDS_MAX, .values_max = 5u * BPE_IDS_MAX };
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        const struct file_text *file = &r->files[i];
        if (file->text && i != FILE_MERGES && (i != FILE_VOCAB || r->files[FILE_MERGES].text))
            TRY(in_file(r, i, json_parse(&r->trees[i], file->text, file->n, &limits)));
    }
    return CINF_OK;
}

/* The added tokens' ids, and for those that have one what is said of matching. */
static enum cinf_status read_added(struct reading *r)
{
    if (r->trees[FILE_ADDED])
        TRY(in_file(r, FILE_ADDED, add_vocabulary(r, r->trees[FILE_ADDED], KEY_PLAIN)));
    TRY(in_file(r, FILE_SINGLE, add_added_list(r)));
    return in_file(r, FILE_CONFIG, add_added_by_id(r));
}

/* What needs the index: ids are looked for by text. */
static enum cinf_status read_special(struct reading *r)
{
    static const char end_of_text[] = "<|endoftext|>";
    TRY(in_file(r, FILE_SPECIAL, note_special_members(r, FILE_SPECIAL)));
    TRY(in_file(r, FILE_CONFIG, note_special_members(r, FILE_CONFIG)));
    TRY(in_file(r, FILE_ADDED, add_added_plain(r)));
    int32_t id = bpe_find(&r->v->bpe, end_of_text, strlen(end_of_text));
    if (id >= 0)
        TRY(added_put(&r->v->added, end_of_text, strlen(end_of_text), (uint32_t)id, ADDED_SPECIAL));
    added_seal(&r->v->added);
    return CINF_OK;
}

static enum cinf_status read_pair(struct reading *r)
{
    const struct file_text *merges = &r->files[FILE_MERGES];
    size_t lines = count_lines(merges->text, merges->n);
    if (lines > BPE_IDS_MAX)
        return in_file(r, FILE_MERGES, cinf_fail(CINF_EFORMAT, "has more than %d lines", BPE_IDS_MAX));
    TRY(in_file(r, FILE_VOCAB, add_vocabulary(r, r->trees[FILE_VOCAB], KEY_ORDINARY)));
    TRY(read_added(r));
    TRY(in_file(r, FILE_VOCAB, index_tokens(&r->v->bpe, lines)));
    return in_file(r, FILE_MERGES, add_merge_lines(r, merges->text, merges->n));
}

static enum cinf_status read_model(struct reading *r, const cJSON **merges)
{
    const cJSON *root = r->trees[FILE_SINGLE], *model = json_member(root, "model");
    if (!cJSON_IsObject(model))
        return cinf_fail(CINF_EFORMAT, "it has no \"model\" object");
    TRY(check_settings(root, model));
    *merges = json_member(model, "merges");
    if (!cJSON_IsArray(*merges))
        return cinf_fail(CINF_EFORMAT, "\"model\" has no array of \"merges\"");
    return add_vocabulary(r, json_member(model, "vocab"), KEY_ORDINARY);
}

static enum cinf_status read_single(struct reading *r)
{
    const cJSON *merges = NULL;
    TRY(in_file(r, FILE_SINGLE, read_model(r, &merges)));
    TRY(read_added(r));
    TRY(in_file(r, FILE_SINGLE, index_tokens(&r->v->bpe, (size_t)cJSON_GetArraySize(merges))));
    return in_file(r, FILE_SINGLE, add_merge_values(r, merges));
}

enum cinf_status vocabulary_read(struct vocabulary *v, const struct file_text files[TOKENIZER_FILES])
{
    struct reading r = { .v = v, .files = files };
    enum cinf_status status = parse_files(&r);
    if (status == CINF_OK)
        status = files[FILE_VOCAB].text && files[FILE_MERGES].text ? read_pair(&r) : read_single(&r);
    if (status == CINF_OK)
        status = bpe_seal(&v->bpe);
    if (status == CINF_OK)
        status = read_special(&r);
    for (int i = 0; i < TOKENIZER_FILES; i++)
        cJSON_Delete(r.trees[i]);
    strbuf_free(&r.bytes);
    return status;
}

void vocabulary_free(struct vocabulary *v)
{
    bpe_free(&v->bpe);
    added_free(&v->added);
}

enum cinf_status vocabulary_folder_read(struct vocabulary *v, const char *folder)
{
    static const char *const names[TOKENIZER_FILES] = {
        [FILE_VOCAB] = "vocab.json",
        [FILE_MERGES] = "merges.txt",
        [FILE_ADDED] = "added_tokens.json",
        [FILE_SINGLE] = "tokenizer.json",
        [FILE_CONFIG] = "tokenizer_config.json",
        [FILE_SPECIAL] = "special_tokens_map.json",
    };
    struct file_text files[TOKENIZER_FILES] = { 0 };
    if (!path_is_folder(folder))
        return cinf_fail(CINF_ENOTFOUND, "%s: no such folder", folder);
    enum cinf_status status = CINF_OK;
    for (int i = 0; i < TOKENIZER_FILES && status == CINF_OK; i++) {
        char *text, *path = path_join(folder, names[i]);
        files[i].name = path;
        if (!path)
            status = cinf_fail(CINF_ENOMEM, "%s: no memory for the names of its files", folder);
        else if (path_exists(path) &&
                 (status = file_load(&text, &files[i].n, path, FILE_SIZE_MAX)) == CINF_OK)
            files[i].text = text;
    }
    if (status == CINF_OK && !(files[FILE_VOCAB].text && files[FILE_MERGES].text) && !files[FILE_SINGLE].text)
        status = cinf_fail(CINF_ENOTFOUND, "%s: has neither vocab.json with merges.txt nor tokenizer.json",
                           folder);
    if (status == CINF_OK)
        status = vocabulary_read(v, files);
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        mem_free((char *)files[i].name);
        mem_free((char *)files[i].text);
    }
    return status;
}
