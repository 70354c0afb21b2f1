#include <costinfer/tokenizer.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file.h"
#include "json.h"
#include "mem.h"
#include "strbuf.h"
#include "support.h"
#include "tiny_tokenizer.h"

static void expect_ids(const struct cinf_tokenizer *t, const char *text, size_t n, unsigned flags,
                       const int32_t *expected, size_t n_expected)
{
    int32_t *ids;
    size_t n_ids;
    ck_ok(cinf_tokenizer_encode(t, text, n, flags, &ids, &n_ids));
    ck_assert_uint_eq(n_ids, n_expected);
    for (size_t i = 0; i < n_ids; i++)
        ck_assert_msg(ids[i] == expected[i], "token %zu of \"%.*s\" is %d, not %d", i, (int)n, text, ids[i],
                      expected[i]);
    cinf_ids_free(ids);
}

/* The bytes of the tokens, joined, are the text.  (One assertion in the end: each costs a write to a pipe.)
 */
static size_t expect_lossless(const struct cinf_tokenizer *t, const char *text, size_t n, unsigned flags)
{
    int32_t *ids;
    size_t n_ids, at = 0, length = 0;
    ck_ok(cinf_tokenizer_encode(t, text, n, flags, &ids, &n_ids));
    for (size_t i = 0; i < n_ids; i++, at += length) {
        const char *bytes = cinf_tokenizer_token(t, ids[i], &length);
        if (!bytes || length > n - at || memcmp(text + at, bytes, length) != 0)
            break;
    }
    ck_assert_uint_eq(at, n);
    cinf_ids_free(ids);
    return n_ids;
}

/* ---- the cases with the real vocabulary ---- */

static size_t read_ids(const cJSON *list, int32_t *ids)
{
    size_t n = 0;
    const cJSON *id;
    cJSON_ArrayForEach(id, list) ids[n++] = id->valueint;
    return n;
}

static size_t from_hex(const char *hex, char *bytes)
{
    size_t n = 0;
    for (unsigned byte; hex[2 * n] && sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        bytes[n] = (char)byte;
    return n;
}

static void check_encode(const struct cinf_tokenizer *t, const cJSON *record, const char *text, size_t n)
{
    static int32_t ids[1 << 16];
    const cJSON *special = json_member(record, "ids_special");
    size_t n_ids = read_ids(json_member(record, "ids"), ids);
    expect_ids(t, text, n, 0, ids, n_ids);
    if (special)
        n_ids = read_ids(special, ids);
    expect_ids(t, text, n, CINF_TOKENIZE_SPECIAL, ids, n_ids);
    const cJSON *bare = json_member(record, "ids_bare");
    n_ids = read_ids(bare ? bare : json_member(record, "ids"), ids);
    expect_ids(t, text, n, CINF_TOKENIZE_BARE, ids, n_ids);
}

static void check_decode(const struct cinf_tokenizer *t, const cJSON *record)
{
    static int32_t ids[1 << 16];
    static char bytes[1 << 16];
    size_t n_ids = read_ids(json_member(record, "ids"), ids), n, length, at = 0;
    size_t n_bytes = from_hex(json_member(record, "bytes_hex")->valuestring, bytes);
    const cJSON *text = json_member(record, "text");
    char *decoded;
    ck_ok(cinf_tokenizer_decode(t, ids, n_ids, &decoded, &n));
    ck_assert_str_eq(decoded, text->valuestring);
    ck_assert_uint_eq(n, strlen(decoded));
    cinf_text_free(decoded);
    for (size_t i = 0; i < n_ids; i++, at += length) {
        const char *token = cinf_tokenizer_token(t, ids[i], &length);
        ck_assert_ptr_nonnull(token);
        ck_assert_uint_le(at + length, n_bytes);
        ck_assert_mem_eq(token, bytes + at, length);
    }
    ck_assert_uint_eq(at, n_bytes);
}

/* NUL is not in our JSON, so the \u0000 of a text is put in by hand: U+E321 stands for it meanwhile. */
static size_t put_nuls(char *text)
{
    size_t n = 0;
    for (const char *from = text; *from;) {
        if (strncmp(from, "\xEE\x8C\xA1", 3) == 0) {
            text[n++] = '\0';
            from += 3;
        } else {
            text[n++] = *from++;
        }
    }
    return n;
}

static void run_cases(const struct cinf_tokenizer *t)
{
    char *text, *end;
    size_t size, n_encode = 0, n_decode = 0;
    ck_ok(file_load(&text, &size, support_shared("data/tokenizer-cases/cases.jsonl"), 1 << 24));
    for (char *nul = text; (nul = strstr(nul, "\\u0000"));)
        memcpy(nul, "\\uE321", 6);
    for (char *line = text; *line; line = end + 1) {
        end = strchr(line, '\n');
        cJSON *record;
        ck_ok(json_parse(&record, line, (size_t)(end - line), NULL));
        if (strcmp(json_member(record, "kind")->valuestring, "encode") == 0) {
            char *input = json_member(record, "text")->valuestring;
            size_t n = put_nuls(input);
            check_encode(t, record, input, n);
            expect_lossless(t, input, n, 0);
            n_encode++;
        } else {
            check_decode(t, record);
            n_decode++;
        }
        cJSON_Delete(record);
    }
    ck_assert_uint_eq(n_encode, 396);
    ck_assert_uint_eq(n_decode, 60);
    mem_free(text);
}

static struct cinf_tokenizer *open_gpt2(void)
{
    struct cinf_tokenizer *t = NULL;
    if (support_have(support_shared("data/gpt2-tokenizer/vocab.json")) &&
        support_have(support_shared("data/tokenizer-cases/cases.jsonl")))
        ck_ok(cinf_tokenizer_open(&t, support_shared("data/gpt2-tokenizer")));
    return t;
}

START_TEST(gpt2_vocabulary_passes_every_case)
{
    struct cinf_tokenizer *t = open_gpt2();
    if (!t)
        return;
    ck_assert_uint_eq(cinf_tokenizer_size(t), 50257);
    ck_assert_int_eq(cinf_tokenizer_end_of_text(t), 50256);
    ck_assert_int_eq(cinf_tokenizer_find(t, " the", 4), 262);
    run_cases(t);
    cinf_tokenizer_free(t);
}
END_TEST

/* The same tokenizer as one file, with merges in either form. */
START_TEST(gpt2_as_tokenizer_json_passes_every_case)
{
    if (!support_have(support_shared("data/gpt2-tokenizer/vocab.json")))
        return;
    char *vocab, *merges, *end;
    size_t n_vocab, n_merges;
    ck_ok(file_load(&vocab, &n_vocab, support_shared("data/gpt2-tokenizer/vocab.json"), 1 << 24));
    ck_ok(file_load(&merges, &n_merges, support_shared("data/gpt2-tokenizer/merges.txt"), 1 << 24));
    struct strbuf b = { 0 };
    strbuf_puts(
        &b, "{\"version\":\"1.0\",\"truncation\":null,\"normalizer\":null,\"added_tokens\":[{\"id\":50256,"
            "\"content\":\"<|endoftext|>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\","
            "\"add_prefix_space\":false,\"trim_offsets\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
            "\"continuing_subword_prefix\":\"\",\"end_of_word_suffix\":\"\",\"vocab\":");
    strbuf_add(&b, vocab, n_vocab);
    strbuf_puts(&b, ",\"merges\":[");
    size_t number = 0;
    for (char *line = strchr(merges, '\n') + 1; *line; line = end + 1, number++) {
        end = strchr(line, '\n');
        char *space = strchr(line, ' ');
        if (number)
            strbuf_putc(&b, ',');
        if (_i == 0) {
            strbuf_put_json(&b, line, (size_t)(end - line));
        } else {
            strbuf_putc(&b, '[');
            strbuf_put_json(&b, line, (size_t)(space - line));
            strbuf_putc(&b, ',');
            strbuf_put_json(&b, space + 1, (size_t)(end - space - 1));
            strbuf_putc(&b, ']');
        }
    }
    ck_assert_uint_eq(number, 50000);
    strbuf_puts(&b, "]}}");
    char *folder = support_temp_folder();
    support_write(folder, "tokenizer.json", b.text, (long)b.len);
    struct cinf_tokenizer *t;
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_assert_uint_eq(cinf_tokenizer_size(t), 50257);
    run_cases(t);
    cinf_tokenizer_free(t);
    strbuf_free(&b);
    mem_free(vocab);
    mem_free(merges);
}
END_TEST

START_TEST(demo_vocabularies_are_lossless)
{
    static const char *const models[] = { "demo-models/stories-small", "demo-models/stories-large" };
    const char *folder = support_shared(models[_i]),
               text[] = "Once upon a time, Lily's cat \xE2\x82\xAC\xFF ran.\n";
    if (!support_have(folder))
        return;
    struct cinf_tokenizer *t;
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_assert_uint_eq(cinf_tokenizer_size(t), 2048);
    ck_assert_int_eq(cinf_tokenizer_end_of_text(t), 2047);
    ck_assert_uint_lt(expect_lossless(t, text, sizeof text - 1, 0), 25);
    cinf_tokenizer_free(t);
}
END_TEST

/* ---- with the tiny vocabulary ---- */

/* As one file, whose settings and model begin with these members. */
static char *tiny_tokenizer_with(char *folder, const char *settings, const char *model)
{
    struct strbuf b = { 0 };
    strbuf_printf(&b, "{%s,\"model\":{%s\"vocab\":", settings, model);
    tiny_vocab(&b);
    strbuf_puts(&b, ",\"merges\":[");
    for (int i = 0; i < TINY_MERGES; i++)
        strbuf_printf(&b, "%s\"%s\"", i ? "," : "", tiny_merges[i]);
    strbuf_puts(&b, "]}}");
    support_write(folder, "tokenizer.json", b.text, (long)b.len);
    strbuf_free(&b);
    return folder;
}

/* `added` is its list of added tokens. */
static char *tiny_tokenizer_json(char *folder, const char *added)
{
    struct strbuf settings = { 0 };
    strbuf_printf(&settings, "\"added_tokens\":%s", added);
    tiny_tokenizer_with(folder, settings.text, "");
    strbuf_free(&settings);
    return folder;
}

/* The members of an object, without its braces and with a comma when there are any and `comma` is set. */
static char *members(const cJSON *object, bool comma)
{
    char *text = cJSON_PrintUnformatted(object);
    size_t n = strlen(text);
    memmove(text, text + 1, n - 1);
    text[n - 2] = '\0';
    if (comma && n > 2)
        memcpy(text + n - 2, ",", 2);
    return text;
}

/* tests/golden/make_tokenizers.py: every setting that is obeyed, as Hugging Face's tokenizers obeys it. */
START_TEST(settings_are_obeyed_as_by_hugging_face)
{
    char *lines, *line, *rest, *folder = support_temp_folder();
    size_t n, n_tokenizers = 0, n_texts = 0;
    ck_ok(file_load(&lines, &n, support_source("tests/golden/tokenizers.jsonl"), 1 << 24));
    for (line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n_tokenizers++) {
        struct cinf_tokenizer *t;
        cJSON *tree;
        ck_ok(json_parse(&tree, line, strlen(line), NULL));
        cJSON *single = cJSON_GetObjectItemCaseSensitive(tree, "tokenizer");
        cJSON *model = cJSON_DetachItemFromObjectCaseSensitive(single, "model");
        char *settings = members(single, false), *of_model = members(model, true);
        ck_ok(cinf_tokenizer_open(&t, tiny_tokenizer_with(folder, settings, of_model)));
        const cJSON *record;
        cJSON_ArrayForEach(record, json_member(tree, "texts"))
        {
            const char *text = json_member(record, "text")->valuestring;
            check_encode(t, record, text, strlen(text));
            n_texts++;
        }
        cinf_tokenizer_free(t);
        cJSON_free(settings);
        cJSON_free(of_model);
        cJSON_Delete(model);
        cJSON_Delete(tree);
    }
    ck_assert_uint_ge(n_tokenizers, 100);
    ck_assert_uint_ge(n_texts, 1000);
    mem_free(lines);
}
END_TEST

/* What Hugging Face's tokenizers makes of them: tests/golden/make_added_tokens.py. */
START_TEST(added_tokens_are_found_as_by_hugging_face)
{
    char *lines, *line, *rest, *folder = support_temp_folder();
    size_t n, n_tokenizers = 0, n_texts = 0;
    ck_ok(file_load(&lines, &n, support_source("tests/golden/added_tokens.jsonl"), 1 << 24));
    for (line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n_tokenizers++) {
        struct cinf_tokenizer *t;
        cJSON *tree;
        ck_ok(json_parse(&tree, line, strlen(line), NULL));
        char *added = cJSON_PrintUnformatted(json_member(tree, "added_tokens"));
        ck_ok(cinf_tokenizer_open(&t, tiny_tokenizer_json(folder, added)));
        const cJSON *record;
        cJSON_ArrayForEach(record, json_member(tree, "texts"))
        {
            const char *text = json_member(record, "text")->valuestring;
            check_encode(t, record, text, strlen(text));
            n_texts++;
        }
        cinf_tokenizer_free(t);
        cJSON_free(added);
        cJSON_Delete(tree);
    }
    ck_assert_uint_ge(n_tokenizers, 100);
    ck_assert_uint_ge(n_texts, 1000);
    mem_free(lines);
}
END_TEST

static struct cinf_tokenizer *tiny;

static void open_tiny(void)
{
    ck_ok(cinf_tokenizer_open(&tiny, tiny_tokenizer()));
}

static void close_tiny(void)
{
    cinf_tokenizer_free(tiny);
}

START_TEST(queries)
{
    size_t n = 99;
    ck_assert_uint_eq(cinf_tokenizer_size(tiny), TINY_SIZE);
    ck_assert_int_eq(cinf_tokenizer_end_of_text(tiny), TINY_END_OF_TEXT);
    ck_assert_int_eq(cinf_tokenizer_find(tiny, " the", 4), 258);
    ck_assert_int_eq(cinf_tokenizer_find(tiny, "\0", 1), 0);
    ck_assert_int_eq(cinf_tokenizer_find(tiny, "\xE2\x82\xAC", 3), 265);
    ck_assert_int_eq(cinf_tokenizer_find(tiny, "nope", 4), -1);
    ck_assert_int_eq(cinf_tokenizer_find(tiny, "", 0), -1);
    ck_assert_mem_eq(cinf_tokenizer_token(tiny, 258, &n), " the", 4);
    ck_assert_uint_eq(n, 4);
    n = 99;
    ck_assert_ptr_null(cinf_tokenizer_token(tiny, -1, &n));
    ck_assert_ptr_null(cinf_tokenizer_token(tiny, TINY_SIZE, &n));
    ck_assert_ptr_null(cinf_tokenizer_token(tiny, INT32_MAX, &n));
    ck_assert_uint_eq(n, 99);
    cinf_tokenizer_free(NULL);
}
END_TEST

START_TEST(texts_become_ids)
{
    expect_ids(tiny, "", 0, 0, NULL, 0);
    expect_ids(tiny, NULL, 0, CINF_TOKENIZE_SPECIAL, NULL, 0);
    expect_ids(tiny, "in the", 6, 0, (int32_t[]){ 259, 258 }, 2);
    expect_ids(tiny, "aaaaaaa", 7, 0, (int32_t[]){ 261, 260, 'a' }, 3);
    expect_ids(tiny, "a\0b", 3, 0, (int32_t[]){ 'a', 0, 'b' }, 3);
    expect_ids(tiny, "\xE2\x82\xAC\xE2\x82\xFF", 6, 0, (int32_t[]){ 265, 264, 0xFF }, 3);
}
END_TEST

START_TEST(end_of_text_is_special_only_when_asked_for)
{
    static const char text[] = "<|endoftext|> the<|endoftext|><|endoftext|> ";
    size_t n = sizeof text - 1;
    expect_ids(tiny, text, n, CINF_TOKENIZE_SPECIAL,
               (int32_t[]){ TINY_END_OF_TEXT, 258, TINY_END_OF_TEXT, TINY_END_OF_TEXT, ' ' }, 5);
    ck_assert_uint_gt(expect_lossless(tiny, text, n, 0), 30);
    expect_lossless(tiny, text, n, CINF_TOKENIZE_SPECIAL);
    /* An incomplete one, also at the very end, is ordinary text, and so is what a '<' before it begins. */
    expect_ids(tiny, "<|endoftext|", 12, CINF_TOKENIZE_SPECIAL,
               (int32_t[]){ '<', '|', 'e', 'n', 'd', 'o', 'f', 't', 'e', 'x', 't', '|' }, 12);
    expect_ids(tiny, "<<|endoftext|>>", 15, CINF_TOKENIZE_SPECIAL, (int32_t[]){ '<', TINY_END_OF_TEXT, '>' },
               3);
    /* Each side is a text of its own: the spaces before it are at an end. */
    expect_ids(tiny, "  <|endoftext|>", 15, CINF_TOKENIZE_SPECIAL, (int32_t[]){ 263, TINY_END_OF_TEXT }, 2);
}
END_TEST

START_TEST(any_bytes_come_back)
{
    srand(2);
    for (int round = 0; round < 3000; round++) {
        static const char *const parts[] = { " the",          "  ",  "aaaaaaaaa", "\xE2\x82\xAC",
                                             "<|endoftext|>", "'ll", "\n" };
        char text[1024];
        size_t n = 0;
        for (int i = rand() % 40; i > 0; i--) {
            const char *part = parts[rand() % 7];
            if (rand() % 3 == 0) {
                memcpy(text + n, part, strlen(part));
                n += strlen(part);
            } else {
                text[n++] = (char)rand();
            }
        }
        expect_lossless(tiny, text, n, rand() % 2 ? CINF_TOKENIZE_SPECIAL : 0);
    }
}
END_TEST

START_TEST(a_text_that_is_too_long_is_refused)
{
    int32_t *ids = (int32_t *)&tiny;
    size_t n_ids = 7;
    ck_fails(cinf_tokenizer_encode(tiny, "", (size_t)INT32_MAX + 1, 0, &ids, &n_ids), CINF_EINVAL,
             "2147483648");
    ck_assert_ptr_eq(ids, (int32_t *)&tiny);
    ck_assert_uint_eq(n_ids, 7);
}
END_TEST

START_TEST(missing_files_are_named)
{
    char *folder = support_temp_folder();
    struct cinf_tokenizer *t = tiny;
    ck_fails(cinf_tokenizer_open(&t, "/nonexistent/folder"), CINF_ENOTFOUND, "/nonexistent/folder: No such");
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_ENOTFOUND, "neither vocab.json with merges.txt nor");
    support_write(folder, "vocab.json", "{}", -1);
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT, "vocab.json without merges.txt");
    support_write(folder, "merges.txt", "", -1);
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT, "/vocab.json: none of the 256 bytes");
    ck_assert_ptr_eq(t, tiny);
}
END_TEST

#define ADDED "[{\"id\":300,\"content\":\"<|user|>\",\"special\":true},{\"id\":301,\"content\":\"hat\"}]"

#define SETTINGS                                                                                             \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},{\"type\":\"Replace\","       \
    "\"pattern\":"                                                                                           \
    "{\"Regex\":\"(?:i|o)n\"},\"content\":\"in \\u00e9\"},{\"type\":\"Prepend\",\"prepend\":\"x\"}]},"       \
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"          \
    "\"String\":\" \"},"                                                                                     \
    "\"behavior\":\"MergedWithNext\"},{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]},"                     \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"s\"}},"     \
    "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"s\":{\"ids\":[1,2]}}}"

START_TEST(every_failed_allocation_is_reported_and_let_go_of)
{
    /* The long run of 'a' needs the memory for long pieces, the many words that for many ids. */
    struct strbuf text = { 0 };
    char *folder = _i == 0 ? tiny_tokenizer() : support_temp_folder();
    if (_i == 1)
        tiny_tokenizer_json(folder, ADDED);
    if (_i == 2)
        tiny_tokenizer_with(folder, "\"added_tokens\":" ADDED "," SETTINGS, "\"ignore_merges\":true,");
    for (int i = 0; i < 500; i++)
        strbuf_puts(&text, i < 300 ? "a" : " the in");
    for (uint64_t n = 1;; n++) {
        struct cinf_tokenizer *t = NULL;
        int32_t *ids = NULL;
        char *back = NULL;
        size_t n_ids = 0, n_back = 0;
        mem_fail_at(n);
        enum cinf_status status = cinf_tokenizer_open(&t, folder);
        if (status == CINF_OK)
            status = cinf_tokenizer_encode(t, text.text, text.len, 0, &ids, &n_ids);
        if (status == CINF_OK)
            status = cinf_tokenizer_decode(t, ids, n_ids, &back, &n_back);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        if (hit) {
            ck_assert_int_eq(status, CINF_ENOMEM);
            ck_assert_ptr_null(back);
        } else {
            ck_assert_int_eq(status, CINF_OK);
            if (_i < 2) /* the others change the text */
                ck_assert_str_eq(back, text.text);
            ck_assert_uint_gt(n, 20);
        }
        cinf_text_free(back);
        cinf_ids_free(ids);
        cinf_tokenizer_free(t);
        if (!hit)
            break;
    }
    strbuf_free(&text);
}
END_TEST

/* ---- threads ---- */

static void *encode_again(void *expected)
{
    static const char text[] = "the aaaaaaaaa in \xE2\x82\xAC <|endoftext|>";
    int32_t *ids;
    size_t n_ids, wrong = 0;
    for (int i = 0; i < 200; i++) {
        wrong += cinf_tokenizer_encode(tiny, text, sizeof text - 1, i % 2, &ids, &n_ids) != CINF_OK;
        char *back;
        size_t n;
        wrong += cinf_tokenizer_decode(tiny, ids, n_ids, &back, &n) != CINF_OK;
        wrong += n != sizeof text - 1 || memcmp(back, text, n) != 0;
        cinf_text_free(back);
        cinf_ids_free(ids);
    }
    return wrong ? NULL : expected;
}

START_TEST(threads_share_a_tokenizer)
{
    pthread_t threads[4];
    void *result;
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, encode_again, threads), 0);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &result), 0);
        ck_assert_ptr_eq(result, threads);
    }
}
END_TEST

/* ---- the worst case ---- */

static double seconds_for(const struct cinf_tokenizer *t, const char *text, size_t n)
{
    int32_t *ids;
    size_t n_ids;
    clock_t start = clock();
    ck_ok(cinf_tokenizer_encode(t, text, n, 0, &ids, &n_ids));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    cinf_ids_free(ids);
    return seconds;
}

/* Ten times the text takes about ten times as long; a quadratic way would take a hundred times. */
START_TEST(long_pieces_take_linear_time)
{
    enum { SMALL = 20000, LARGE = 200000 };
    struct cinf_tokenizer *gpt2 = open_gpt2();
    const struct cinf_tokenizer *t = gpt2 ? gpt2 : tiny;
    char *text = mem_new(LARGE, 1);
    for (size_t i = 0; i < LARGE; i++)
        text[i] = (char)(_i == 0   ? 'a'
                         : _i == 1 ? ' '
                         : _i == 2 ? rand()
                         : _i == 3 ? 'a' + rand() % 26
                                   : '\'');
    double small = 1e9;
    for (int i = 0; i < 3; i++) {
        double seconds = seconds_for(t, text, SMALL);
        small = seconds < small ? seconds : small;
    }
    double large = seconds_for(t, text, LARGE);
    ck_assert_msg(large < 40 * small + 0.02, "%g seconds for %d bytes, %g for %d", small, SMALL, large,
                  LARGE);
    expect_lossless(t, text, LARGE, 0);
    mem_free(text);
    cinf_tokenizer_free(gpt2);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("tokenizer");
    TCase *c = tcase_create("real vocabularies");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, gpt2_vocabulary_passes_every_case);
    tcase_add_loop_test(c, gpt2_as_tokenizer_json_passes_every_case, 0, 2);
    tcase_add_loop_test(c, demo_vocabularies_are_lossless, 0, 2);
    c = tcase_create("added tokens");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, settings_are_obeyed_as_by_hugging_face);
    tcase_add_test(c, added_tokens_are_found_as_by_hugging_face);
    c = tcase_create("tiny vocabulary");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, open_tiny, close_tiny);
    tcase_add_test(c, queries);
    tcase_add_test(c, texts_become_ids);
    tcase_add_test(c, end_of_text_is_special_only_when_asked_for);
    tcase_add_test(c, any_bytes_come_back);
    tcase_add_test(c, a_text_that_is_too_long_is_refused);
    tcase_add_test(c, missing_files_are_named);
    tcase_add_loop_test(c, every_failed_allocation_is_reported_and_let_go_of, 0, 3);
    tcase_add_test(c, threads_share_a_tokenizer);
    tcase_add_loop_test(c, long_pieces_take_linear_time, 0, 5);
    return s;
}
