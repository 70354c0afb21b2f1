/* tokenizer_file.c - the vocabulary, the merges and the added tokens, from the files that have them.
 *
 * Vocabularies spell a token with one character a byte (spelling.h).  A key with any other character is a
 * token that was added by hand and stands for its own UTF-8 (Hugging Face's decoder reads it so).  The keys
 * of added_tokens.json are not spelled at all.
 *
 * Where there is a tokenizer.json, it is what transformers reads, and vocab.json and merges.txt beside it do
 * not count.  What the files say beyond vocabulary and tokens is tokenizer_settings.c's.
 *
 * A vocabulary may lack some of the 256 bytes (small ones trained without them do).  It opens, and encoding
 * fails when it meets such a byte, unless the model names an unknown token.
 *
 * Four files may speak of added tokens, depending on the age of the tools that wrote them.  The first of
 * these that has a token says how it is matched: tokenizer.json, tokenizer_config.json where it lists tokens
 * by id, special_tokens_map.json and tokenizer_config.json where they name the special ones, and
 * added_tokens.json, whose tokens are not special unless one of the others says so.  A text is matched with
 * the token's content, whatever its bytes are when it is decoded. */
#include "tokenizer_file.h"

#include <math.h>
#include <string.h>

#include "fail.h"
#include "json.h"
#include "spelling.h"
#include "strbuf.h"
#include "tokenizer_settings.h"

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
    if (kind == KEY_PLAIN || !spelling_read(bytes, key, n)) {
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

/* Adds a merge; `what` and `number` name it in a message. */
static enum cinf_status add_merge(struct reading *r, const char *left, size_t n_left, const char *right,
                                  size_t n_right, const char *what, size_t number)
{
    struct strbuf *bytes = &r->bytes;
    strbuf_clear(bytes);
    bool good = spelling_read(bytes, left, n_left);
    size_t middle = bytes->len;
    good = good && spelling_read(bytes, right, n_right);
    if (bytes->failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a merge");
    enum cinf_status status = good ? bpe_add_merge(&r->v->bpe, bytes->text, middle, bytes->len)
                                   : cinf_fail(CINF_EFORMAT, "it has a character that stands for no byte");
    if (status == CINF_OK)
        return CINF_OK;
    return cinf_fail_in(status, "%s %zu, \"%.*s %.*s\": ", what, number, n_left < 60 ? (int)n_left : 60, left,
                        n_right < 60 ? (int)n_right : 60, right);
}

/* Adds the merge "a b" in text[0..n). */
static enum cinf_status add_merge_text(struct reading *r, const char *text, size_t n, const char *what,
                                       size_t number)
{
    const char *space = memchr(text, ' ', n);
    size_t n_left = space ? (size_t)(space - text) : 0;
    if (!space || n_left == 0 || n_left + 1 == n || memchr(space + 1, ' ', n - n_left - 1))
        return cinf_fail(CINF_EFORMAT, "%s %zu is not two symbols with a space between", what, number);
    return add_merge(r, text, n_left, space + 1, n - n_left - 1, what, number);
}

/* Whether a line that begins with '#' is a comment.  It is a merge when it reads as one and its result is in
 * the vocabulary: GPT-2's own merges have "# #". */
static bool is_comment(struct reading *r, const char *line, size_t n, bool first)
{
    if (n == 0 || line[0] != '#')
        return false;
    if (first && n >= 8 && memcmp(line, "#version", 8) == 0)
        return true;
    const char *space = memchr(line, ' ', n);
    strbuf_clear(&r->bytes);
    if (!space || !spelling_read(&r->bytes, line, (size_t)(space - line)) ||
        !spelling_read(&r->bytes, space + 1, n - (size_t)(space + 1 - line)))
        return true;
    return bpe_find(&r->v->bpe, r->bytes.text, r->bytes.len) < 0;
}

static enum cinf_status add_merge_lines(struct reading *r, const char *text, size_t n)
{
    const char *end = text + n;
    if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) /* a byte order mark */
        text += 3;
    for (size_t number = 1; text < end; number++) {
        const char *line = text, *line_end = memchr(text, '\n', (size_t)(end - text));
        if (!line_end)
            line_end = end;
        text = line_end + (line_end < end);
        if (line_end > line && line_end[-1] == '\r')
            line_end--;
        size_t length = (size_t)(line_end - line);
        if (length > 0 && !is_comment(r, line, length, number == 1))
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

/* Adds to *flags what an AddedToken, written as an object, says about matching. */
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

/* Adds one AddedToken with its id; `number` names it in a message. */
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

/* Adds tokenizer.json's list. */
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

/* Adds tokenizer_config.json's list, whose keys are the ids. */
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

/* Notes a special token, given by its text or as an AddedToken, if it has an id. */
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
        if (spelling_read(&r->bytes, text, n) && r->bytes.len > 0)
            id = bpe_find(&r->v->bpe, r->bytes.text, r->bytes.len);
        if (r->bytes.failed)
            return cinf_fail(CINF_ENOMEM, "no memory for token \"%.60s\"", text);
    }
    return id < 0 ? CINF_OK : added_put(&r->v->added, text, n, (uint32_t)id, flags);
}

/* Notes the tokens of "eos_token" and the like, and of "additional_special_tokens", an array or an object. */
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

/* Adds what is left of added_tokens.json. Its tokens are in the vocabulary by now. */
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
    if (status == CINF_OK)
        return CINF_OK;
    return cinf_fail_in(status == CINF_EINVAL ? CINF_EFORMAT : status, "%s: ", r->files[file].name);
}

/* Tells whether a file is read: tokenizer.json or the pair, not both. */
static bool is_read(const struct reading *r, int file)
{
    bool single = r->files[FILE_SINGLE].text != NULL;
    return r->files[file].text && file != FILE_MERGES && (file != FILE_VOCAB || !single);
}

static enum cinf_status parse_files(struct reading *r)
{
    /* The largest tokenizer.json has an id and three values of a merge for each token. */
    const struct json_limits limits = { .members_max = BPE_IDS_MAX,
                                        .values_max = 5u * BPE_IDS_MAX,
                                        .python = true };
    for (int i = 0; i < TOKENIZER_FILES; i++)
        if (is_read(r, i))
            TRY(in_file(r, i, json_parse(&r->trees[i], r->files[i].text, r->files[i].n, &limits)));
    return CINF_OK;
}

/* Reads the added tokens' ids, and what the same files say about matching them. */
static enum cinf_status read_added(struct reading *r)
{
    if (r->trees[FILE_ADDED])
        TRY(in_file(r, FILE_ADDED, add_vocabulary(r, r->trees[FILE_ADDED], KEY_PLAIN)));
    TRY(in_file(r, FILE_SINGLE, add_added_list(r)));
    return in_file(r, FILE_CONFIG, add_added_by_id(r));
}

/* Reads what needs the index, because it looks up ids by text. */
static enum cinf_status read_special(struct reading *r)
{
    static const char end_of_text[] = "<|endoftext|>";
    TRY(in_file(r, FILE_SPECIAL, note_special_members(r, FILE_SPECIAL)));
    TRY(in_file(r, FILE_CONFIG, note_special_members(r, FILE_CONFIG)));
    TRY(in_file(r, FILE_ADDED, add_added_plain(r)));
    int32_t id = bpe_find(&r->v->bpe, end_of_text, strlen(end_of_text));
    if (id >= 0)
        TRY(added_put(&r->v->added, end_of_text, strlen(end_of_text), (uint32_t)id, ADDED_SPECIAL));
    return added_seal(&r->v->added, &r->v->normalizer);
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
    TRY(in_file(r, FILE_MERGES, add_merge_lines(r, merges->text, merges->n)));
    return in_file(r, FILE_CONFIG, settings_of_pair(r->v, r->trees[FILE_CONFIG], r->trees[FILE_SPECIAL]));
}

static enum cinf_status read_model(struct reading *r, const cJSON **merges)
{
    const cJSON *root = r->trees[FILE_SINGLE], *model = json_member(root, "model");
    if (!cJSON_IsObject(model))
        return cinf_fail(CINF_EFORMAT, "it has no \"model\" object");
    TRY(settings_check_model(model));
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
    TRY(in_file(r, FILE_SINGLE, add_merge_values(r, merges)));
    TRY(in_file(r, FILE_SINGLE, settings_of_single(r->v, r->trees[FILE_SINGLE])));
    return in_file(r, FILE_CONFIG, settings_of_class(r->v, r->trees[FILE_SINGLE], r->trees[FILE_CONFIG]));
}

/* Notes a vocabulary of words without the merges that make them: a file was lost on the way. */
static void note_no_merges(struct vocabulary *v)
{
    size_t n = 0;
    if (v->bpe.n_merges > 0 || v->bpe.ignore_merges)
        return;
    for (size_t id = 0; id < v->bpe.n_ids; id++)
        n += v->bpe.tokens[id].n > 1 && !v->bpe.tokens[id].added;
    if (n > 1) /* one may be <|endoftext|> */
        strbuf_printf(
            &v->notes,
            "there are no merges, although the vocabulary has %zu tokens of more than one byte: every text "
            "is encoded byte by byte\n",
            n);
}

enum cinf_status vocabulary_read(struct vocabulary *v, const struct file_text files[TOKENIZER_FILES])
{
    struct reading r = { .v = v, .files = files };
    enum cinf_status status = parse_files(&r);
    if (status == CINF_OK)
        status = files[FILE_SINGLE].text ? read_single(&r) : read_pair(&r);
    if (status == CINF_OK)
        status = bpe_seal(&v->bpe);
    if (status == CINF_OK)
        status = read_special(&r);
    if (status == CINF_OK)
        note_no_merges(v);
    if (status == CINF_OK && v->notes.failed)
        status = cinf_fail(CINF_ENOMEM, "no memory for what is to be said about a tokenizer");
    for (int i = 0; i < TOKENIZER_FILES; i++)
        cJSON_Delete(r.trees[i]);
    strbuf_free(&r.bytes);
    return status;
}

void vocabulary_free(struct vocabulary *v)
{
    bpe_free(&v->bpe);
    added_free(&v->added);
    normalizer_free(&v->normalizer);
    splitter_free(&v->splitter);
    template_free(&v->template);
    strbuf_free(&v->notes);
}
