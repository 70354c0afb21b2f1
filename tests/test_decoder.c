#include <costinfer/tokenizer.h>

#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "tiny_tokenizer.h"
#include "utf8.h"

/* Ids 0 to 255 are the bytes, so that any bytes can be spelt as tokens. */
static struct cinf_tokenizer *tiny;

static void open_tiny(void)
{
    ck_ok(cinf_tokenizer_open(&tiny, tiny_tokenizer()));
}

static void close_tiny(void)
{
    cinf_tokenizer_free(tiny);
}

static size_t spell(const char *bytes, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)bytes[i];
    return n;
}

static void expect_text(const char *bytes, size_t n_bytes, const char *expected)
{
    int32_t ids[64];
    char *text;
    size_t n;
    ck_ok(cinf_tokenizer_decode(tiny, ids, spell(bytes, n_bytes, ids), &text, &n));
    ck_assert_str_eq(text, expected);
    ck_assert_uint_eq(n, strlen(expected));
    cinf_text_free(text);
}

#define BAD "\xEF\xBF\xBD"

START_TEST(ill_formed_parts_become_one_replacement_each)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        { "", "" },
        { "plain", "plain" },
        { "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80" },
        { BAD, BAD },            /* a genuine one */
        { "\x80\xBF", BAD BAD }, /* continuations of nothing */
        { "\xC0\xAF", BAD BAD }, /* overlong */
        { "\xE0\x80\x80", BAD BAD BAD },
        { "\xED\xA0\x80", BAD BAD BAD },         /* a surrogate */
        { "\xF4\x90\x80\x80", BAD BAD BAD BAD }, /* above U+10FFFF */
        { "\xE2\x82", BAD },                     /* cut off: one part */
        { "\xF0\x9F\x98", BAD },
        { "\xF0\x9F\x98z", BAD "z" },
        { "\xE2\x82\xE2\x82\xAC", BAD "\xE2\x82\xAC" },
        { "\xF0\x9F\xC3\xA9", BAD "\xC3\xA9" },
        { "\xE2\xE2\xE2", BAD BAD BAD },
        { "\xC3(", BAD "(" },
        { "\xFE\xFF", BAD BAD },
        { "a\xF1\x80\x80\xE1\x80\xC2"
          "b\x80"
          "c\x80\xBF"
          "d",
          "a" BAD BAD BAD "b" BAD "c" BAD BAD "d" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_text(cases[i].bytes, strlen(cases[i].bytes), cases[i].text);
}
END_TEST

START_TEST(a_nul_is_a_character)
{
    char *text;
    size_t n;
    ck_ok(cinf_tokenizer_decode(tiny, (int32_t[]){ 'a', 0, 'b' }, 3, &text, &n));
    ck_assert_uint_eq(n, 3);
    ck_assert_mem_eq(text, "a\0b", 4);
    cinf_text_free(text);
    ck_ok(cinf_tokenizer_decode(tiny, NULL, 0, &text, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_str_eq(text, "");
    cinf_text_free(text);
}
END_TEST

START_TEST(unknown_ids_are_named)
{
    static const int32_t unknown[] = { -1, TINY_SIZE, INT32_MAX, INT32_MIN };
    for (size_t i = 0; i < 4; i++) {
        int32_t ids[] = { 'a', 0xE2, unknown[i], 'b' };
        char out[64], *text = out;
        size_t n = 77;
        char words[32];
        snprintf(words, sizeof words, "token id %d is not", unknown[i]);
        ck_fails(cinf_tokenizer_decode(tiny, ids, 4, &text, &n), CINF_EINVAL, words);
        ck_assert_ptr_eq(text, out);
        struct cinf_decoder decoder = { { (char)0xE2 }, 1 };
        ck_fails(cinf_decoder_push(&decoder, tiny, unknown[i], out, &n), CINF_EINVAL, words);
        ck_assert_uint_eq(n, 77);
        ck_assert_uint_eq(decoder.n_pending, 1);
        /* and it goes on as if nothing had happened */
        ck_ok(cinf_decoder_push(&decoder, tiny, 0x82, out, &n));
        ck_assert_uint_eq(n, 0);
        ck_ok(cinf_decoder_push(&decoder, tiny, 0xAC, out, &n));
        ck_assert_uint_eq(n, 3);
        ck_assert_mem_eq(out, "\xE2\x82\xAC", 3);
    }
}
END_TEST

/* The definition, on the joined bytes. */
static size_t replace_naively(const char *bytes, size_t n, char *out)
{
    size_t n_out = 0;
    for (size_t at = 0, used; at < n; at += used) {
        bool good = utf8_read(bytes + at, n - at, &used) != UTF8_BAD;
        memcpy(out + n_out, good ? bytes + at : BAD, good ? used : 3);
        n_out += good ? used : 3;
    }
    return n_out;
}

/* Streams the ids; each text must be whole UTF-8 of at most the size that the header promises. */
static size_t stream(const int32_t *ids, size_t n_ids, char *out)
{
    struct cinf_decoder decoder = { { 0 }, 0 };
    size_t n_out = 0, n, n_token;
    for (size_t i = 0; i < n_ids; i++) {
        ck_assert_ptr_nonnull(cinf_tokenizer_token(tiny, ids[i], &n_token));
        ck_ok(cinf_decoder_push(&decoder, tiny, ids[i], out + n_out, &n));
        ck_assert_uint_le(n, CINF_DECODER_TEXT_MAX(n_token));
        ck_assert(utf8_valid(out + n_out, n));
        ck_assert_uint_le(decoder.n_pending, 3);
        n_out += n;
    }
    char last[4];
    cinf_decoder_flush(&decoder, last, &n);
    ck_assert_uint_le(n, 3);
    ck_assert_uint_eq(decoder.n_pending, 0);
    memcpy(out + n_out, last, n);
    return n_out + n;
}

static void expect_streamed(const int32_t *ids, size_t n_ids)
{
    char bytes[1024], naive[3072], streamed[3072], *text;
    size_t n_bytes = 0, n, n_token;
    for (size_t i = 0; i < n_ids; i++) {
        const char *token = cinf_tokenizer_token(tiny, ids[i], &n_token);
        memcpy(bytes + n_bytes, token, n_token);
        n_bytes += n_token;
    }
    size_t n_naive = replace_naively(bytes, n_bytes, naive), n_streamed = stream(ids, n_ids, streamed);
    ck_assert_uint_eq(n_streamed, n_naive);
    ck_assert_mem_eq(streamed, naive, n_naive);
    ck_ok(cinf_tokenizer_decode(tiny, ids, n_ids, &text, &n));
    ck_assert_uint_eq(n, n_naive);
    ck_assert_mem_eq(text, naive, n_naive);
    cinf_text_free(text);
}

/* Token by token is every split there is. */
START_TEST(streaming_equals_decoding_at_once)
{
    /* All pairs and triples of bytes that begin, continue and end characters in the ways there are. */
    static const unsigned char kinds[] = { 'a',  0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2,
                                           0xE0, 0xE2, 0xED, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF };
    for (size_t i = 0; i < 16 * 16 * 16; i++)
        expect_streamed((int32_t[]){ kinds[i % 16], kinds[i / 16 % 16], kinds[i / 256] }, 3);
    srand(4);
    for (int round = 0; round < 2000; round++) {
        int32_t ids[24];
        size_t n_ids = (size_t)rand() % 24;
        for (size_t i = 0; i < n_ids; i++)
            ids[i] = rand() % 3 == 0 ? 256 + rand() % (TINY_SIZE - 256) : kinds[rand() % 16];
        expect_streamed(ids, n_ids);
    }
}
END_TEST

START_TEST(a_character_is_held_back_only_while_it_may_still_end)
{
    struct cinf_decoder decoder = { { 0 }, 0 };
    char out[64];
    size_t n;
    static const struct {
        int32_t id;
        const char *text;
    } steps[] = {
        { 0xF0, "" },
        { 0x9F, "" },
        { 0x98, "" },
        { 0x80, "\xF0\x9F\x98\x80" },
        { 0xE2, "" },
        { 'a', BAD "a" }, /* impossible: out immediately */
        { 264, "" },
        { 0xAC, "\xE2\x82\xAC" }, /* a token of two bytes */
        { 0xE0, "" },
        { 0x80, BAD BAD }, /* E0 80 never begins a character */
        { 0xF0, "" },
        { 0xF0, BAD }, /* the second one waits in its turn */
        { 265, BAD "\xE2\x82\xAC" },
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        ck_ok(cinf_decoder_push(&decoder, tiny, steps[i].id, out, &n));
        out[n] = '\0';
        ck_assert_str_eq(out, steps[i].text);
    }
    cinf_decoder_flush(&decoder, out, &n);
    ck_assert_uint_eq(n, 0);
    ck_ok(cinf_decoder_push(&decoder, tiny, 0xE2, out, &n));
    cinf_decoder_flush(&decoder, out, &n);
    ck_assert_uint_eq(n, 3);
    ck_assert_mem_eq(out, BAD, 3);
    cinf_decoder_flush(&decoder, out, &n);
    ck_assert_uint_eq(n, 0);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("decoder");
    TCase *c = tcase_create("decoding");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 30);
    tcase_add_checked_fixture(c, open_tiny, close_tiny);
    tcase_add_test(c, ill_formed_parts_become_one_replacement_each);
    tcase_add_test(c, a_nul_is_a_character);
    tcase_add_test(c, unknown_ids_are_named);
    tcase_add_test(c, streaming_equals_decoding_at_once);
    tcase_add_test(c, a_character_is_held_back_only_while_it_may_still_end);
    return s;
}
