#include "tokenizer_file.h"

#include <costinfer/tokenizer.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"
#include "tiny_tokenizer.h"

static enum cinf_status read_pair(struct vocabulary *v, const char *vocab, const char *merges)
{
    *v = (struct vocabulary){ 0 };
    return vocabulary_read(v, (struct file_text[TOKENIZER_FILES]){
                                  [FILE_VOCAB] = { "V", vocab, strlen(vocab) },
                                  [FILE_MERGES] = { "M", merges, strlen(merges) },
                              });
}

static enum cinf_status read_single(struct vocabulary *v, const char *text)
{
    *v = (struct vocabulary){ 0 };
    return vocabulary_read(
        v, (struct file_text[TOKENIZER_FILES]){ [FILE_SINGLE] = { "T", text, strlen(text) } });
}

START_TEST(spellings_are_read)
{
    struct vocabulary v;
    ck_ok(read_pair(&v,
                    "{\"a\": 7, \"\xC4\xA0\": 0, \"\xC4\xA0\x61\": 2, \"\xC4\x80\": 3, \"\xC5\x83\": 4,"
                    " \"\xC3\xA9\": 5, \"\\u0120b c\": 9, \"\xE2\x82\xAC\": 10}",
                    "\xC4\xA0 a"));
    ck_assert_int_eq(bpe_find(&v.bpe, " a", 2), 2);
    ck_assert_int_eq(bpe_find(&v.bpe, "\0", 1), 3);   /* U+0100 */
    ck_assert_int_eq(bpe_find(&v.bpe, "\xAD", 1), 4); /* U+0143, the last of the 68 */
    ck_assert_int_eq(bpe_find(&v.bpe, "\xE9", 1), 5); /* Latin-1's own character */
    /* Characters that stand for no byte: the token is its own UTF-8. */
    ck_assert_int_eq(bpe_find(&v.bpe,
                              "\xC4\xA0"
                              "b c",
                              5),
                     9);
    ck_assert_int_eq(bpe_find(&v.bpe, "\xE2\x82\xAC", 3), 10);
    ck_assert_uint_eq(v.bpe.n_merges, 1);
    vocabulary_free(&v);
}
END_TEST

START_TEST(every_byte_has_its_spelling)
{
    struct strbuf text = { 0 };
    struct vocabulary v;
    tiny_vocab(&text);
    ck_ok(read_pair(&v, text.text, ""));
    for (int byte = 0; byte < 256; byte++)
        ck_assert_int_eq(v.bpe.byte_ids[byte], byte);
    vocabulary_free(&v);
    strbuf_free(&text);
}
END_TEST

START_TEST(merges_are_lines)
{
    static const char vocab[] =
        "{\"a\":0,\"#\":1,\"##\":2,\"aa\":3,\"#a\":4,\"#version:\":5,\"#version:a\":6}";
    static const struct {
        const char *merges;
        size_t n_merges;
    } cases[] = {
        { "", 0 },
        { "\n", 0 },
        { "#version: 0.2", 0 },
        { "#version: 0.2\n", 0 },
        { "#version: 0.2\r\na a\r\n", 1 },
        { "a a", 1 },        /* no version line, no last line feed */
        { "# #\na a\n", 2 }, /* not a comment */
        { "#version: 0.2\n# a\n\n\na a\n\n", 2 },
        { "a a\n#version: a\n", 2 }, /* a merge, as its result is in the vocabulary */
        { "\xEF\xBB\xBF#version: 0.2\na a\n", 1 },
        { "\xEF\xBB\xBF"
          "a a\n",
          1 },
        { "# trained on a lot of text\n#version: 0.2\n#\n#two words\n# a\na a\n", 2 },
        { "#version: 0.2\na a\n# the end\n", 1 },
        { "#version: 0.2\n# \xE2\x82\xAC uro\na a\n", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vocabulary v;
        ck_ok(read_pair(&v, vocab, cases[i].merges));
        ck_assert_msg(v.bpe.n_merges == cases[i].n_merges, "case %zu: %zu merges", i, v.bpe.n_merges);
        vocabulary_free(&v);
    }
}
END_TEST

START_TEST(faults_of_vocab_and_merges)
{
    static const char good[] = "{\"a\":0,\"b\":1,\"ab\":2}";
    static const struct {
        const char *vocab, *merges, *words;
    } cases[] = {
        { "", "", "V: JSON: unexpected end" },
        { "version https://git-lfs.github.com/spec/v1", "", "V: JSON: unexpected character at byte 0" },
        { "[]", "", "V: the vocabulary is not an object" },
        { "\"a\"", "", "V: the vocabulary is not an object" },
        { "{}", "", "V: none of the 256 bytes" },
        { "{\"ab\":2,\"##c\":3}", "", "V: none of the 256 bytes" },
        { "{\"a\":-1}", "", "V: the id of token \"a\" is not an integer from 0 to 1048575" },
        { "{\"a\":1048576}", "", "V: the id of token \"a\"" },
        { "{\"a\":1e300}", "", "V: the id of token \"a\"" },
        { "{\"a\":0.5}", "", "V: the id of token \"a\"" },
        { "{\"a\":\"0\"}", "", "V: the id of token \"a\"" },
        { "{\"a\":null}", "", "V: the id of token \"a\"" },
        { "{\"a\":true}", "", "V: the id of token \"a\"" },
        { "{\"a\":0,\"b\":0}", "", "V: token \"b\": id 0 is another token's already" },
        { "{\"a\":0,\"a\":1}", "", "V: JSON: duplicate key \"a\"" },
        { "{\"a\":0,\"\":1}", "", "V: the token of id 1 is empty" },
        { good, "ab", "M: line 1 is not two symbols" },
        { good, "\n\na  b", "M: line 3 is not two symbols" },
        { good, " b", "M: line 1 is not two symbols" },
        { good, "a ", "M: line 1 is not two symbols" },
        { good, "a b b", "M: line 1 is not two symbols" },
        { good, "a\tb", "M: line 1 is not two symbols" },
        { good, "a c", "M: line 1, \"a c\": its right side is not in the vocabulary" },
        { good, "c b", "M: line 1, \"c b\": its left side is not in the vocabulary" },
        { good, "b a", "M: line 1, \"b a\": its result is not in the vocabulary" },
        { good, "a b\na b", "M: line 2, \"a b\": is the same as merge 1" },
        { good, "a \xE2\x82\xAC",
          "M: line 1, \"a \xE2\x82\xAC\": it has a character that stands for no byte" },
        { good, "a \xFF", "M: line 1, \"a ?\": it has a character that stands for no byte" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vocabulary v;
        ck_fails(read_pair(&v, cases[i].vocab, cases[i].merges), CINF_EFORMAT, cases[i].words);
        vocabulary_free(&v);
    }
}
END_TEST

#define AROUND "{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",1]}"
#define MODEL  "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":"

START_TEST(tokenizer_json_variants_are_read)
{
    static const char *const cases[] = {
        "{" MODEL "[\"a b\"]}}",
        "{" MODEL "[[\"a\",\"b\"]]}}",
        "{" MODEL "[\"a b\"],\"unk_token\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"dropout\":null,"
        "\"ignore_merges\":false,\"end_of_word_suffix\":\"\",\"continuing_subword_prefix\":null}}",
        "{\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"use_regex\":true}," MODEL "[\"a b\"]}}",
        "{\"added_tokens\":[]," MODEL "[\"a b\"]}}",
        "{\"added_tokens\":[{\"id\":2,\"content\":\"ab\"}]," MODEL "[\"a b\"]}}",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vocabulary v;
        ck_ok(read_single(&v, cases[i]));
        ck_assert_uint_eq(v.bpe.n_merges, 1);
        ck_assert_uint_eq(v.bpe.n_ids, 3);
        ck_assert_int_eq(bpe_find(&v.bpe, "ab", 2), 2);
        vocabulary_free(&v);
    }
}
END_TEST

START_TEST(added_tokens_are_read)
{
    struct vocabulary v;
    ck_ok(read_single(&v, "{\"added_tokens\":[{\"id\":5,\"content\":\"<|pad|>\",\"special\":true},"
                          "{\"id\":9,\"content\":\"two words\"}]," MODEL "[]}}"));
    ck_assert_uint_eq(v.bpe.n_ids, 10);
    ck_assert_int_eq(bpe_find(&v.bpe, "<|pad|>", 7), 5);
    ck_assert_int_eq(bpe_find(&v.bpe, "two words", 9), 9);
    ck_assert_uint_eq(v.bpe.tokens[3].n, 0);
    vocabulary_free(&v);
}
END_TEST

START_TEST(faults_of_tokenizer_json)
{
    static const struct {
        const char *text, *words;
        enum cinf_status status;
    } cases[] = {
        { "", "T: JSON: unexpected end", CINF_EFORMAT },
        { "[1]", "T: it has no \"model\"", CINF_EFORMAT },
        { "{\"model\":[]}", "T: it has no \"model\"", CINF_EFORMAT },
        { "{\"model\":{\"vocab\":{\"a\":0}}}", "T: \"model\" has no array of \"merges\"", CINF_EFORMAT },
        { "{\"model\":{\"merges\":[]}}", "T: the vocabulary is not an object", CINF_EFORMAT },
        { "{\"model\":{\"merges\":[],\"vocab\":[[\"a\",0]]}}", "T: the vocabulary is not an object",
          CINF_EFORMAT },
        { "{" MODEL "[\"ab\"]}}", "T: merge 1 is not two symbols", CINF_EFORMAT },
        { "{" MODEL "[\"a b\",\"b b\"]}}", "T: merge 2, \"b b\": its result", CINF_EFORMAT },
        { "{" MODEL "[[\"a\"]]}}", "T: merge 1 is neither", CINF_EFORMAT },
        { "{" MODEL "[[\"a\",\"b\",\"a\"]]}}", "T: merge 1 is neither", CINF_EFORMAT },
        { "{" MODEL "[[\"a\",\"\"]]}}", "T: merge 1 is neither", CINF_EFORMAT },
        { "{" MODEL "[[1,2]]}}", "T: merge 1 is neither", CINF_EFORMAT },
        { "{" MODEL "[\"a b\",{}]}}", "T: merge 2 is neither", CINF_EFORMAT },
        { "{" MODEL "[null]}}", "T: merge 1 is neither", CINF_EFORMAT },
        { "{\"added_tokens\":{}," MODEL "[]}}", "T: \"added_tokens\" is not an array", CINF_EFORMAT },
        { "{\"added_tokens\":[7]," MODEL "[]}}", "T: added token 1 has no", CINF_EFORMAT },
        { "{\"added_tokens\":[{\"id\":7}]," MODEL "[]}}", "T: added token 1 has no", CINF_EFORMAT },
        { "{\"added_tokens\":[{\"content\":\"x\"}]," MODEL "[]}}", "T: added token 1 has no", CINF_EFORMAT },
        { "{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," MODEL "[]}}",
          "T: token \"x\": id 1 is another token's", CINF_EFORMAT },
        { "{\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]," MODEL "[]}}", "T: the id of token \"x\"",
          CINF_EFORMAT },
        { "{" MODEL "[],\"unk_token\":\"?\"}}", "T: \"unk_token\" \"?\" is not in the vocabulary",
          CINF_EFORMAT },
        { "{" MODEL "[],\"ignore_merges\":1}}", "T: \"ignore_merges\" must be true or false", CINF_EFORMAT },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vocabulary v;
        ck_fails(read_single(&v, cases[i].text), cases[i].status, cases[i].words);
        vocabulary_free(&v);
    }
}
END_TEST

#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"

/* Every setting that is not obeyed is named. */
START_TEST(settings_are_refused_by_name)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}", "T: the model \"WordPiece\" is not supported" },
        { "\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}", "T: the model \"WordLevel\" is not supported" },
        { "\"model\":{\"type\":\"Unigram\",\"vocab\":[]}", "T: the model \"Unigram\" is not supported" },
        { MODEL "[],\"dropout\":0.1}", "T: \"dropout\" of the model is not off" },
        { MODEL "[],\"byte_fallback\":true}", "T: \"byte_fallback\" of the model" },
        { MODEL "[],\"end_of_word_suffix\":\"</w>\"}", "T: \"end_of_word_suffix\" of the model" },
        { MODEL "[],\"continuing_subword_prefix\":\"##\"}", "T: \"continuing_subword_prefix\" of the model" },
        { "\"normalizer\":{\"type\":\"BertNormalizer\"}," MODEL "[]}",
          "T: the normalizer \"BertNormalizer\"" },
        { "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Nmt\"}]}"
          "," MODEL "[]}",
          "T: the normalizer \"Nmt\" is not supported" },
        { "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(?<x>a)\"},\"content\":\"\"}," MODEL
          "[]}",
          "T: the pattern \"(?<x>a)\" is not supported: a group of this kind at byte 1" },
        { "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a*\"},\"content\":\"\"}," MODEL
          "[]}",
          "T: the normalizer \"Replace\" with a pattern that matches nothing" },
        { "\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":[]," MODEL "[]}", NULL },
        { "\"normalizer\":{\"type\":\"Strip\"},\"added_tokens\":[{\"id\":7,\"content\":\" \"}]," MODEL "[]}",
          "the normalizer leaves nothing of added token \" \"" },
        { "\"pre_tokenizer\":null," MODEL "[]}", "T: \"pre_tokenizer\" is null" },
        { "\"pre_tokenizer\":{\"type\":\"Metaspace\"}," MODEL "[]}", "T: the pre-tokenizer \"Metaspace\"" },
        { "\"pre_tokenizer\":{\"type\":\"Digits\"}," MODEL "[]}", "T: \"pre_tokenizer\" has no ByteLevel" },
        { "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[]}," MODEL "[]}",
          "T: \"pre_tokenizer\" has no ByteLevel" },
        { "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" BYTES "," BYTES "]}," MODEL "[]}",
          "T: \"pre_tokenizer\" has ByteLevel twice" },
        { "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Dropped\"}"
          "," MODEL "[]}",
          "T: the \"behavior\" \"Dropped\"" },
        { "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Han}\"}}," MODEL "[]}",
          "T: the pattern \"\\p{Han}\" is not supported: a property" },
        { "\"post_processor\":{\"type\":\"Mystery\"}," MODEL "[]}", "T: the post-processor \"Mystery\"" },
        { "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[" AROUND "," AROUND "]}," MODEL "[]}",
          "T: \"post_processor\" has more than one that adds tokens" },
        { "\"decoder\":{\"type\":\"WordPiece\"}," MODEL "[]}", "T: the decoder \"WordPiece\"" },
        { "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"},{\"type\":\"Strip\"}]}"
          "," MODEL "[]}",
          "T: the decoder \"Strip\"" },
        { "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"},{\"type\":\"Fuse\"}]}"
          "," MODEL "[]}",
          NULL },
        { "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[]}," MODEL "[]}", "T: the decoder \"\"" },
        { "\"post_processor\":" AROUND ",\"pre_tokenizer\":" BYTES "," MODEL
          "[\"a b\"],\"ignore_merges\":true}",
          NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vocabulary v;
        char text[1024];
        snprintf(text, sizeof text, "{%s}", cases[i].text);
        if (cases[i].words)
            ck_fails(read_single(&v, text), CINF_EUNSUPPORTED, cases[i].words);
        else
            ck_ok(read_single(&v, text));
        vocabulary_free(&v);
    }
}
END_TEST

START_TEST(faults_of_settings)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "\"normalizer\":{}," MODEL "[]}", "T: a normalizer has no \"type\"" },
        { "\"normalizer\":{\"type\":7}," MODEL "[]}", "T: \"type\" must be a string" },
        { "\"normalizer\":{\"type\":\"Prepend\"}," MODEL "[]}", "T: a normalizer has no \"prepend\"" },
        { "\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}," MODEL "[]}",
          "T: a \"pattern\" is neither" },
        { "\"normalizer\":{\"type\":\"Sequence\"}," MODEL "[]}",
          "T: a normalizer of type \"Sequence\" has no array" },
        { "\"pre_tokenizer\":{}," MODEL "[]}", "T: a pre-tokenizer has no \"type\"" },
        { "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":0}," MODEL "[]}",
          "T: \"use_regex\" must be true" },
        { "\"pre_tokenizer\":{\"type\":\"Split\"}," MODEL "[]}", "T: a \"pattern\" is neither" },
        { "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"}}," MODEL "[]}",
          "T: the pattern \"(a\" is not a regular expression: a group without its )" },
        { "\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\"}," MODEL "[]}",
          "T: a pre-tokenizer has no \"delimiter\"" },
        { "\"post_processor\":{}," MODEL "[]}", "T: a post-processor has no \"type\"" },
        { "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\"]}," MODEL "[]}",
          "T: \"sep\" of a post-processor is not a token with its id" },
        { "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",9]}," MODEL "[]}",
          "T: \"post_processor\" adds token 9, which is not in the vocabulary" },
        { "\"post_processor\":{\"type\":\"TemplateProcessing\"}," MODEL "[]}",
          "T: a post-processor of type \"TemplateProcessing\" has no array \"single\"" },
        { "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}]}"
          "," MODEL "[]}",
          "T: \"single\" of a post-processor holds neither" },
        { "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]"
          "}," MODEL "[]}",
          "T: \"post_processor\" has no ids for its token \"x\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vocabulary v;
        char text[1024];
        snprintf(text, sizeof text, "{%s}", cases[i].text);
        ck_fails(read_single(&v, text), CINF_EFORMAT, cases[i].words);
        vocabulary_free(&v);
    }
}
END_TEST

START_TEST(too_many_values_are_refused)
{
    /* Ten million zeros where the merges should be would be a gigabyte of tree. */
    struct strbuf text = { 0 };
    struct vocabulary v = { 0 };
    strbuf_puts(&text, "{" MODEL "[0");
    size_t n = 12000000;
    char *zeros = strbuf_reserve(&text, n);
    ck_assert_ptr_nonnull(zeros);
    for (size_t i = 0; i < n; i += 2)
        memcpy(zeros + i, ",0", 2);
    strbuf_extend(&text, n);
    strbuf_puts(&text, "]}}");
    ck_fails(read_single(&v, text.text), CINF_EFORMAT, "too many values");
    vocabulary_free(&v);
    strbuf_free(&text);
}
END_TEST

START_TEST(folders_are_read_by_what_they_have)
{
    struct cinf_tokenizer *t, *untouched = (struct cinf_tokenizer *)&t;
    char *folder = support_temp_folder();
    /* tokenizer.json alone, then beside half of the pair, then beside the whole pair, then the pair alone. */
    support_write(folder, "tokenizer.json", "{" MODEL "[]}}", -1);
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_assert_uint_eq(cinf_tokenizer_size(t), 3);
    ck_assert_int_eq(cinf_tokenizer_end_of_text(t), -1);
    cinf_tokenizer_free(t);
    support_write(folder, "vocab.json", "{\"a\":0,\"<|endoftext|>\":6}", -1);
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_assert_uint_eq(cinf_tokenizer_size(t), 3);
    cinf_tokenizer_free(t);
    support_write(folder, "merges.txt", "#version: 0.2\n", -1);
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_assert_uint_eq(cinf_tokenizer_size(t), 3);
    cinf_tokenizer_free(t);
    char path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    ck_assert_int_eq(unlink(path), 0);
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_assert_uint_eq(cinf_tokenizer_size(t), 7);
    ck_assert_int_eq(cinf_tokenizer_end_of_text(t), 6);

    int32_t *ids = (int32_t *)&untouched;
    size_t n_ids = 5;
    ck_fails(cinf_tokenizer_encode(t, "aa b", 4, 0, &ids, &n_ids), CINF_EINVAL,
             "text at byte 2: byte 0x20 has no token");
    ck_assert_ptr_eq(ids, (int32_t *)&untouched);
    ck_assert_uint_eq(n_ids, 5);
    cinf_tokenizer_free(t);

    /* Messages carry the path of the file. */
    t = untouched;
    support_write(folder, "merges.txt", "a a\n", -1);
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT, folder);
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT, "/merges.txt: line 1, \"a a\": its result");
    support_write(folder, "vocab.json", "{\"a\":\n}", -1);
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT,
             "/vocab.json: JSON: unexpected character at byte 6");
    ck_assert_ptr_eq(t, untouched);
}
END_TEST

/* The file that transformers 4.57.1 wrote for GPT-2's tokenizer after add_special_tokens() and add_tokens(),
 * and what it decodes [17250, 220, 50258, 220, 50260, 50261, 50257] to, token by token. */
#define ADDED_TOKENS                                                                                         \
    "{\n  \" n\xC3\xA9\": 50261,\n  \"<|in\xC3\xAD"                                                          \
    "cio|>\": 50259,\n  \"<|pad|>\": 50257,\n"                                                               \
    "  \"<|user|>\": 50258,\n  \"covfefe\": 50260\n}\n"

START_TEST(added_tokens_of_a_fine_tuned_model)
{
    if (!support_have(support_shared("data/gpt2-tokenizer/vocab.json")))
        return;
    char *folder = support_temp_folder(), path[4096];
    static const char *const files[] = { "vocab.json", "merges.txt" };
    for (int i = 0; i < 2; i++) {
        char from[4096];
        snprintf(path, sizeof path, "data/gpt2-tokenizer/%s", files[i]);
        snprintf(from, sizeof from, "%s", support_shared(path));
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        ck_assert_int_eq(symlink(from, path), 0);
    }
    support_write(folder, "added_tokens.json", ADDED_TOKENS, -1);
    struct cinf_tokenizer *t;
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_assert_uint_eq(cinf_tokenizer_size(t), 50262);
    ck_assert_int_eq(cinf_tokenizer_end_of_text(t), 50256);
    static const int32_t ids[] = { 17250, 220, 50258, 220, 50260, 50261, 50257 };
    char *text;
    size_t n;
    ck_ok(cinf_tokenizer_decode(t, ids, sizeof ids / sizeof *ids, &text, &n));
    static const char text_of_all[] = "Hi <|user|> covfefe n\xC3\xA9<|pad|>";
    ck_assert_str_eq(text, text_of_all);
    cinf_text_free(text);
    /* Not spelled: U+00ED is two bytes here, while in vocab.json it is the byte 0xED. */
    ck_assert_int_eq(cinf_tokenizer_find(t,
                                         "<|in\xC3\xAD"
                                         "cio|>",
                                         11),
                     50259);
    /* No file says that any of them is special, so all are tokens wherever they stand. */
    int32_t *written;
    size_t n_written;
    ck_ok(cinf_tokenizer_encode(t, text_of_all, strlen(text_of_all), 0, &written, &n_written));
    ck_assert_uint_eq(n_written, sizeof ids / sizeof *ids);
    ck_assert_mem_eq(written, ids, sizeof ids);
    cinf_ids_free(written);
    cinf_tokenizer_free(t);
}
END_TEST

START_TEST(faults_of_added_tokens)
{
    static const struct {
        const char *text, *words;
    } faults[] = {
        { "[]", "/added_tokens.json: the vocabulary is not an object of tokens and their ids" },
        { "{\"x\": 1.5}", "/added_tokens.json: the id of token \"x\" is not an integer" },
        { "{\"x\": 0}", "/added_tokens.json: token \"x\": id 0 is another token's already" },
        { "{\"\": 9}", "/added_tokens.json: the token of id 9 is empty" },
        { "{\"x\": 9", "/added_tokens.json: JSON: " },
    };
    struct cinf_tokenizer *t, *untouched = (struct cinf_tokenizer *)&t;
    char *folder = support_temp_folder();
    support_write(folder, "vocab.json", "{\"a\":0,\"<|endoftext|>\":6}", -1);
    support_write(folder, "merges.txt", "#version: 0.2\n", -1);
    t = untouched;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        support_write(folder, "added_tokens.json", faults[i].text, -1);
        ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT, faults[i].words);
        ck_assert_ptr_eq(t, untouched);
    }
    /* Empty, as old versions write it, or naming again what the vocabulary has. */
    static const char *const good[] = { "{}", "{\"<|endoftext|>\": 6}" };
    for (int i = 0; i < 2; i++) {
        support_write(folder, "added_tokens.json", good[i], -1);
        ck_ok(cinf_tokenizer_open(&t, folder));
        ck_assert_uint_eq(cinf_tokenizer_size(t), 7);
        cinf_tokenizer_free(t);
    }
    /* The same token in another file, with an id that is not an integer. */
    t = untouched;
    support_write(folder, "added_tokens.json", "{\"<x>\": 7}", -1);
    support_write(folder, "tokenizer.json",
                  "{\"added_tokens\":[{\"id\":7.5,\"content\":\"<x>\"}]," MODEL "[]}}", -1);
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT,
             "/tokenizer.json: the id of token \"<x>\" is not an integer");
    ck_assert_ptr_eq(t, untouched);
}
END_TEST

/* How many ids the library finds in `text`, and the first of them. */
static size_t count_ids(const char *folder, const char *text, unsigned flags, int32_t *first)
{
    struct cinf_tokenizer *t;
    int32_t *ids;
    size_t n;
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_ok(cinf_tokenizer_encode(t, text, strlen(text), flags, &ids, &n));
    *first = n ? ids[0] : -1;
    cinf_ids_free(ids);
    cinf_tokenizer_free(t);
    return n;
}

#define WITH_X(added)                                                                                        \
    "{\"model\":{\"vocab\":{\"<\":0,\"x\":1,\">\":2,\"\u0120\":3,\"a\":4},\"merges\":[]},\"added_tokens\":"  \
    "[" added "]}"

/* Each file speaks of <x> in another way, the one that counts most first. */
START_TEST(files_are_asked_for_flags_in_order)
{
    static const struct {
        const char *name, *text;
        size_t n_plain, n_special; /* ids of "  <x>  a" */
    } files[] = {
        { "tokenizer.json", WITH_X("{\"id\":7,\"content\":\"<x>\",\"lstrip\":true,\"rstrip\":true}"), 2, 2 },
        { "tokenizer_config.json",
          "{\"added_tokens_decoder\":{\"7\":{\"content\":\"<x>\",\"lstrip\":true,\"special\":true}},"
          "\"x_token\":\"<x>\",\"add_prefix_space\":false}",
          8, 4 },
        { "special_tokens_map.json", "{\"pad_token\":{\"content\":\"<x>\",\"rstrip\":true},\"x\":1}", 8, 4 },
        { "special_tokens_map.json",
          "{\"extra_special_tokens\":{\"image_token\":\"<x>\"},\"unk_token\":\"\"}", 8, 6 },
        { "tokenizer_config.json", "{\"eos_token\":null,\"more_tokens\":[\"<x>\",\"unknown\",5]}", 8, 6 },
        { "added_tokens.json", "{\"<x>\":7}", 6, 6 },
    };
    char *folder = support_temp_folder();
    support_write(folder, "vocab.json", "{\"<\":0,\"x\":1,\">\":2,\"\u0120\":3,\"a\":4}", -1);
    support_write(folder, "merges.txt", "", -1);
    for (size_t kept = 0; kept < sizeof files / sizeof *files; kept++) {
        static const char *const names[] = { "tokenizer.json", "tokenizer_config.json",
                                             "special_tokens_map.json" };
        /* What counts less than the one under test is there, what counts more is not. */
        for (size_t i = 0; i < 3; i++)
            support_write(folder, names[i], i == 0 ? WITH_X("") : "{}", -1);
        for (size_t i = sizeof files / sizeof *files; i-- > kept;)
            support_write(folder, files[i].name, files[i].text, -1);
        int32_t first;
        size_t n = count_ids(folder, "  <x>  a", 0, &first);
        ck_assert_msg(n == files[kept].n_plain, "case %zu: %zu ids without special tokens", kept, n);
        n = count_ids(folder, "  <x>  a", CINF_TOKENIZE_SPECIAL, &first);
        ck_assert_msg(n == files[kept].n_special, "case %zu: %zu ids with special tokens", kept, n);
    }
}
END_TEST

/* Tokens of the vocabulary that are named as special: a tokenizer that was trained with them. */
START_TEST(special_tokens_of_the_vocabulary)
{
    char *folder = support_temp_folder();
    int32_t first;
    support_write(folder, "vocab.json",
                  "{\"<\":0,\"s\":1,\">\":2,\"<s>\":3,\"\u0120\":4,\"\u0120s\":5,\"<|endoftext|>\":6}", -1);
    support_write(folder, "merges.txt", "", -1);
    ck_assert_uint_eq(count_ids(folder, "<s>", CINF_TOKENIZE_SPECIAL, &first), 3);
    support_write(folder, "special_tokens_map.json", "{\"bos_token\":\"<s>\",\"mask_token\":\"\u0120s\"}",
                  -1);
    ck_assert_uint_eq(count_ids(folder, "<s>", 0, &first), 3);
    ck_assert_uint_eq(count_ids(folder, "<s>", CINF_TOKENIZE_SPECIAL, &first), 1);
    ck_assert_int_eq(first, 3);
    /* It is found in a text as it is written, whatever its bytes are. */
    ck_assert_uint_eq(count_ids(folder, " s", CINF_TOKENIZE_SPECIAL, &first), 2);
    support_write(folder, "added_tokens.json", "{\"\u0120s\":9}", -1);
    ck_assert_uint_eq(count_ids(folder, "\xC4\xA0s", CINF_TOKENIZE_SPECIAL, &first), 1);
    ck_assert_int_eq(first, 9);
    /* What another file says of <|endoftext|> holds for it as well. */
    ck_assert_uint_eq(count_ids(folder, " <|endoftext|>", CINF_TOKENIZE_SPECIAL, &first), 2);
    support_write(folder, "tokenizer_config.json",
                  "{\"eos_token\":{\"content\":\"<|endoftext|>\",\"lstrip\":true}}", -1);
    ck_assert_uint_eq(count_ids(folder, " <|endoftext|>", CINF_TOKENIZE_SPECIAL, &first), 1);
    ck_assert_int_eq(first, 6);
}
END_TEST

START_TEST(faults_of_what_says_how_tokens_are_matched)
{
    static const struct {
        const char *name, *text, *words;
    } faults[] = {
        { "tokenizer.json", "{\"added_tokens\":[{\"id\":7,\"content\":\"x\",\"lstrip\":1}]," MODEL "[]}}",
          "/tokenizer.json: added token 1: \"lstrip\"" },
        { "tokenizer.json",
          "{\"added_tokens\":[{\"id\":7,\"content\":\"x\",\"normalized\":\"yes\"}]," MODEL "[]}}",
          "/tokenizer.json: added token 1: \"normalized\"" },
        { "tokenizer.json", "{\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]," MODEL "[]}}",
          "/tokenizer.json: token \"x\": id 0 is another token's already" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\":[]}",
          "/tokenizer_config.json: \"added_tokens_decoder\" is not an object" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":\"x\"}}",
          "/tokenizer_config.json: added token 1 has no \"content\"" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\":{\"-7\":{\"content\":\"x\"}}}",
          "/tokenizer_config.json: the id of token \"x\" is not an integer" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\":{\"\":{\"content\":\"x\"}}}",
          "/tokenizer_config.json: the id of token \"x\" is not an integer" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\":{\"1048576\":{\"content\":\"x\"}}}",
          "/tokenizer_config.json: the id of token \"x\" is not an integer" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":{\"content\":\"\"}}}",
          "/tokenizer_config.json: the token of id 7 is empty" },
        { "tokenizer_config.json", "[1]", "/tokenizer_config.json: it is not an object" },
        { "tokenizer_config.json", "{\"eos_token\":{\"content\":\"a\",\"rstrip\":[]}}",
          "/tokenizer_config.json: \"eos_token\": \"rstrip\"" },
        { "special_tokens_map.json", "{", "/special_tokens_map.json: JSON: " },
        { "special_tokens_map.json", "{\"more_tokens\":[{\"content\":\"a\",\"single_word\":0}]}",
          "/special_tokens_map.json: \"more_tokens\": \"single_word\"" },
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct cinf_tokenizer *untouched = (struct cinf_tokenizer *)&i, *t = untouched;
        char *folder = support_temp_folder();
        support_write(folder, "vocab.json", "{\"a\":0}", -1);
        support_write(folder, "merges.txt", "", -1);
        support_write(folder, faults[i].name, faults[i].text, -1);
        ck_fails(cinf_tokenizer_open(&t, folder), CINF_EFORMAT, faults[i].words);
        ck_assert_ptr_eq(t, untouched);
    }
}
END_TEST

/* ---- what tokenizer_config.json says ---- */

static char *write_pair(const char *config)
{
    char *folder = support_temp_folder();
    support_write(folder, "vocab.json",
                  "{\"a\":0,\"b\":1,\"\u0120\":2,\"<s>\":3,\"\u0120\u0120\":4,\"<|endoftext|>\":5}", -1);
    support_write(folder, "merges.txt", "#version: 0.2\n\u0120 \u0120\n", -1);
    if (config)
        support_write(folder, "tokenizer_config.json", config, -1);
    return folder;
}

/* The ids of `text`, as digits. */
static void expect(const char *folder, const char *text, unsigned flags, const char *digits)
{
    struct cinf_tokenizer *t;
    int32_t *ids;
    size_t n;
    char got[64] = "";
    ck_ok(cinf_tokenizer_open(&t, folder));
    ck_ok(cinf_tokenizer_encode(t, text, strlen(text), flags, &ids, &n));
    for (size_t i = 0; i < n && i < sizeof got - 1; i++)
        got[i] = (char)('0' + ids[i]);
    ck_assert_str_eq(got, digits);
    cinf_ids_free(ids);
    cinf_tokenizer_free(t);
}

START_TEST(pairs_with_settings)
{
    static const struct {
        const char *config, *ids, *bare; /* of "a b" */
    } cases[] = {
        { NULL, "021", "021" },
        { "{}", "021", "021" },
        { "{\"add_bos_token\":false,\"add_prefix_space\":false}", "021", "021" },
        { "{\"add_bos_token\":true}", "5021", "021" },
        { "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", "3021", "021" },
        { "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<s>\",\"__type\":\"AddedToken\"}}", "3021",
          "021" },
        { "{\"add_prefix_space\":true}", "2021", "2021" },
        { "{\"add_prefix_space\":true,\"add_bos_token\":true,\"tokenizer_class\":\"GPT2TokenizerFast\"}",
          "52021", "2021" },
        { "\xEF\xBB\xBF{\"add_bos_token\":true,\"model_max_length\":Infinity,\"x\":NaN}", "5021", "021" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = write_pair(cases[i].config);
        expect(folder, "a b", 0, cases[i].ids);
        expect(folder, "a b", CINF_TOKENIZE_BARE, cases[i].bare);
    }
    /* The token before every text is there for an empty one, too; the space is not. */
    expect(write_pair(cases[7].config), "", 0, "5");
    char *folder = write_pair("{\"add_bos_token\":true}");
    support_write(folder, "special_tokens_map.json", "{\"bos_token\":\"<s>\"}", -1);
    expect(folder, "a b", 0, "3021");
    static const struct {
        const char *config, *words;
        enum cinf_status status;
    } faults[] = {
        { "{\"add_bos_token\":true,\"bos_token\":\"<x>\"}",
          "the \"bos_token\" \"<x>\" is not in the vocabulary", CINF_EFORMAT },
        { "{\"add_bos_token\":true,\"bos_token\":null}", "there is no \"bos_token\"", CINF_EFORMAT },
        { "{\"add_bos_token\":1}", "/tokenizer_config.json: \"add_bos_token\" must be true or false",
          CINF_EFORMAT },
        { "{\"tokenizer_class\":\"RobertaTokenizer\"}",
          "/tokenizer_config.json: \"tokenizer_class\" \"RobertaTokenizer\"", CINF_EUNSUPPORTED },
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct cinf_tokenizer *t;
        ck_fails(cinf_tokenizer_open(&t, write_pair(faults[i].config)), faults[i].status, faults[i].words);
    }
}
END_TEST

/* The notes of a tokenizer hold `words`; "" stands for no note. */
static void expect_note(const char *folder, const char *words)
{
    struct cinf_tokenizer *t;
    ck_ok(cinf_tokenizer_open(&t, folder));
    if (words[0])
        ck_assert_msg(support_contains(cinf_tokenizer_notes(t), words), "the notes \"%s\" lack \"%s\"",
                      cinf_tokenizer_notes(t), words);
    else
        ck_assert_str_eq(cinf_tokenizer_notes(t), "");
    cinf_tokenizer_free(t);
}

#define SINGLE(pre, post)                                                                                    \
    "{\"pre_tokenizer\":" pre ",\"post_processor\":" post                                                    \
    ",\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"\u0120\":2,\"<s>\":3},\"merges\":[]}}"
#define SPACED   "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"
#define SEQUENCE "{\"type\":\"Sequence\",\"pretokenizers\":[" SPACED "]}"

/* As tests/peers/tokenizers_agreement.py has seen transformers do. */
START_TEST(classes_beside_a_tokenizer_json)
{
    static const struct {
        const char *single, *config, *ids, *note; /* of "a b" */
    } cases[] = {
        { SINGLE(SPACED, "null"), NULL, "2021", "" },
        { SINGLE(SPACED, "null"), "{}", "021", "add_prefix_space is false" },
        { SINGLE(SPACED, "null"), "{\"tokenizer_class\":\"GPT2Tokenizer\"}", "021",
          "add_prefix_space is false" },
        { SINGLE(SPACED, "null"), "{\"add_prefix_space\":true}", "2021", "" },
        { SINGLE(BYTES, "null"), "{\"add_prefix_space\":true}", "2021", "add_prefix_space is true" },
        { SINGLE(SPACED, "null"), "{\"tokenizer_class\":\"PreTrainedTokenizerFast\"}", "2021", "" },
        { SINGLE(BYTES, "null"),
          "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"add_prefix_space\":true}", "021",
          "add_prefix_space in tokenizer_config.json has no effect" },
        { SINGLE(SEQUENCE, "null"), "{\"add_prefix_space\":false}", "2021", "" },
        { SINGLE(BYTES, "null"), "{\"add_bos_token\":true}", "021",
          "add_bos_token in tokenizer_config.json has no effect" },
        { SINGLE(BYTES, AROUND), "{\"add_bos_token\":false}", "00211", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = support_temp_folder();
        support_write(folder, "tokenizer.json", cases[i].single, -1);
        if (cases[i].config)
            support_write(folder, "tokenizer_config.json", cases[i].config, -1);
        expect(folder, "a b", 0, cases[i].ids);
        expect_note(folder, cases[i].note);
    }
}
END_TEST

/* As Hugging Face's tokenizers 0.20.3 has them, of a vocabulary that lacks most bytes. */
START_TEST(unknown_bytes)
{
    static const struct {
        const char *settings, *ids[5]; /* of "axxb ab", "xx", "xa", "ab\u00e9ab" and "x x" */
    } cases[] = {
        { "\"fuse_unk\":false", { "022123", "22", "20", "3223", "222" } },
        { "\"fuse_unk\":true", { "02123", "2", "20", "323", "22" } },
        { "\"ignore_merges\":true", { "022123", "22", "4", "3223", "222" } },
    };
    static const char *const texts[] = { "axxb ab", "xx", "xa", "ab\u00e9ab", "x x" };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = support_temp_folder(), single[256];
        snprintf(single, sizeof single,
                 "{\"model\":{%s,\"unk_token\":\"?\",\"vocab\":{\"a\":0,\"b\":1,\"?\":2,\"ab\":3,\"xa\":4},"
                 "\"merges\":[\"a b\"]}}",
                 cases[i].settings);
        support_write(folder, "tokenizer.json", single, -1);
        for (size_t k = 0; k < 5; k++)
            expect(folder, texts[k], 0, cases[i].ids[k]);
    }
}
END_TEST

START_TEST(what_transformers_reads_differently)
{
    /* A vocabulary of words without what makes them. */
    char *folder = write_pair(NULL);
    expect_note(folder, "");
    support_write(folder, "merges.txt", "", -1);
    expect_note(folder, "there are no merges, although the vocabulary has 3 tokens of more than one byte");
    support_write(folder, "vocab.json", "{\"a\":0,\"b\":1,\"<|endoftext|>\":5}", -1);
    expect_note(folder, "");
}
END_TEST

START_TEST(broken_is_not_absent)
{
    static const char *const names[] = { "vocab.json",
                                         "merges.txt",
                                         "added_tokens.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cinf_tokenizer *t;
        char *folder = write_pair("{}"), path[256], words[256];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
        ck_assert_int_eq(symlink("../blobs/123", path), 0);
        snprintf(words, sizeof words, "/%s: is a link to ../blobs/123, which does not exist", names[i]);
        ck_fails(cinf_tokenizer_open(&t, folder), CINF_EIO, words);
    }
}
END_TEST

START_TEST(what_a_folder_lacks_is_named)
{
    static const struct {
        const char *name, *words;
        enum cinf_status status;
    } cases[] = {
        { "config.json", "has neither vocab.json with merges.txt nor tokenizer.json", CINF_ENOTFOUND },
        { "vocab.json", "has vocab.json without merges.txt, and no tokenizer.json", CINF_EFORMAT },
        { "merges.txt", "has merges.txt without vocab.json, and no tokenizer.json", CINF_EFORMAT },
        { "tokenizer_config.json", "has tokenizer_config.json, but neither", CINF_EFORMAT },
        { "added_tokens.json", "has added_tokens.json, but neither", CINF_EFORMAT },
        { "tokenizer.model", "has tokenizer.model: a SentencePiece tokenizer", CINF_EUNSUPPORTED },
        { "vocab.txt", "has vocab.txt: a WordPiece tokenizer", CINF_EUNSUPPORTED },
        { "vocab.bpe", "rename encoder.json to vocab.json and vocab.bpe to merges.txt", CINF_EUNSUPPORTED },
    };
    struct cinf_tokenizer *t;
    char *folder, path[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder = support_temp_folder();
        support_write(folder, cases[i].name, "{}", -1);
        ck_fails(cinf_tokenizer_open(&t, folder), cases[i].status, cases[i].words);
    }
    /* The root of a cached model, with and without a name for its snapshot, and the whole cache. */
    folder = support_temp_folder();
    static const char *const below[] = { "models--gpt2", "models--gpt2/snapshots",
                                         "models--gpt2/snapshots/607a", "models--gpt2/refs" };
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, below[i]);
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_ENOTFOUND, "a model is in");
    ck_fails(cinf_tokenizer_open(&t, folder), CINF_ENOTFOUND, "/models--gpt2/snapshots");
    snprintf(path, sizeof path, "%s/models--gpt2", folder);
    ck_fails(cinf_tokenizer_open(&t, path), CINF_ENOTFOUND, "/models--gpt2/snapshots/607a");
    support_write(path, "refs/main", "607a\n", -1);
    ck_fails(cinf_tokenizer_open(&t, path), CINF_ENOTFOUND, "/models--gpt2/snapshots/607a");
    support_write(path, "refs/main", "../../etc", -1);
    ck_fails(cinf_tokenizer_open(&t, path), CINF_ENOTFOUND, "/models--gpt2/snapshots/607a");
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("tokenizer_file");
    TCase *c = tcase_create("files");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 30);
    tcase_add_test(c, spellings_are_read);
    tcase_add_test(c, every_byte_has_its_spelling);
    tcase_add_test(c, merges_are_lines);
    tcase_add_test(c, faults_of_vocab_and_merges);
    tcase_add_test(c, tokenizer_json_variants_are_read);
    tcase_add_test(c, added_tokens_are_read);
    tcase_add_test(c, faults_of_tokenizer_json);
    tcase_add_test(c, settings_are_refused_by_name);
    tcase_add_test(c, faults_of_settings);
    tcase_add_test(c, too_many_values_are_refused);
    tcase_add_test(c, pairs_with_settings);
    tcase_add_test(c, classes_beside_a_tokenizer_json);
    tcase_add_test(c, unknown_bytes);
    tcase_add_test(c, what_transformers_reads_differently);
    tcase_add_test(c, broken_is_not_absent);
    tcase_add_test(c, what_a_folder_lacks_is_named);
    tcase_add_test(c, folders_are_read_by_what_they_have);
    tcase_add_test(c, added_tokens_of_a_fine_tuned_model);
    tcase_add_test(c, faults_of_added_tokens);
    tcase_add_test(c, files_are_asked_for_flags_in_order);
    tcase_add_test(c, special_tokens_of_the_vocabulary);
    tcase_add_test(c, faults_of_what_says_how_tokens_are_matched);
    return s;
}
