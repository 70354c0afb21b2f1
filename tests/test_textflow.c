/* Held-back text against its definition: what is certain never changes, and no part of a stop string is ever
 * certain. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#include "textflow.h"
#include "tiny_tokenizer.h"

static struct cinf_tokenizer *tokenizer;

static void setup(void)
{
    ck_ok(cinf_tokenizer_open(&tokenizer, tiny_tokenizer()));
}

static void teardown(void)
{
    cinf_tokenizer_free(tokenizer);
}

/* Returns where the first stop string in text[0..n) starts, or n. */
static size_t first_stop(const char *text, size_t n, const struct stop_string *stops, uint32_t n_stops)
{
    for (size_t at = 0; at < n; at++)
        for (uint32_t i = 0; i < n_stops; i++)
            if (at + stops[i].n <= n && memcmp(text + at, stops[i].text, stops[i].n) == 0)
                return at;
    return n;
}

/* Texts over three letters, so that stop strings begin, break off and overlap often. */
static void random_text(char *text, size_t n, unsigned *seed)
{
    for (size_t i = 0; i < n; i++)
        text[i] = "abc"[rand_r(seed) % 3];
    text[n] = '\0';
}

START_TEST(random_texts_and_stops)
{
    unsigned seed = 5;
    int stopped = 0, whole = 0;
    for (int round = 0; round < 3000; round++) {
        char text[41], stop_texts[3][8];
        struct stop_string stops[3];
        size_t n = rand_r(&seed) % 40;
        uint32_t n_stops = (uint32_t)rand_r(&seed) % 4;
        random_text(text, n, &seed);
        for (uint32_t i = 0; i < n_stops; i++) {
            random_text(stop_texts[i], 1 + rand_r(&seed) % 7, &seed);
            stops[i] = (struct stop_string){ stop_texts[i], strlen(stop_texts[i]) };
        }
        int32_t *ids;
        size_t n_ids;
        ck_ok(cinf_tokenizer_encode(tokenizer, text, n, 0, &ids, &n_ids));
        struct textflow flow = { 0 };
        /* The text ends with the first token that completes a stop string, before the string's beginning. */
        size_t expected = n, decoded = 0, certain = 0;
        for (size_t i = 0; i < n_ids && expected == n; i++) {
            size_t n_token;
            cinf_tokenizer_token(tokenizer, ids[i], &n_token);
            decoded += n_token;
            size_t stop = first_stop(text, decoded, stops, n_stops);
            expected = stop < decoded ? stop : n;
        }
        for (size_t i = 0; i < n_ids && !flow.stopped; i++) {
            ck_ok(textflow_push(&flow, tokenizer, ids[i], stops, n_stops, true));
            ck_assert_uint_ge(flow.certain, certain);
            ck_assert_uint_le(flow.certain, expected);
            certain = flow.certain;
        }
        ck_ok(textflow_end(&flow));
        ck_assert_int_eq(flow.stopped, expected < n);
        ck_assert_uint_eq(flow.certain, expected);
        ck_assert_mem_eq(flow.certain ? flow.text.text : "", text, flow.certain);
        stopped += flow.stopped;
        whole += !flow.stopped;
        textflow_free(&flow);
        cinf_ids_free(ids);
    }
    ck_assert_int_gt(stopped, 500);
    ck_assert_int_gt(whole, 500);
}
END_TEST

START_TEST(nothing_is_held_back_without_a_reason)
{
    struct stop_string stop = { "xyz", 3 };
    struct textflow flow = { 0 };
    ck_ok(textflow_push(&flow, tokenizer, 'a', &stop, 1, true));
    ck_assert_uint_eq(flow.certain, 1);
    ck_ok(textflow_push(&flow, tokenizer, 'x', &stop, 1, true));
    ck_assert_uint_eq(flow.certain, 1);
    ck_ok(textflow_push(&flow, tokenizer, 'y', &stop, 1, true));
    ck_assert_uint_eq(flow.certain, 1);
    ck_ok(textflow_push(&flow, tokenizer, 'x', &stop, 1, true));
    ck_assert_uint_eq(flow.certain, 3);
    ck_ok(textflow_end(&flow));
    ck_assert_uint_eq(flow.certain, 4);
    textflow_free(&flow);
}
END_TEST

START_TEST(a_stop_string_must_end_where_it_may)
{
    struct stop_string stop = { "xyz", 3 };
    struct textflow flow = { 0 };
    /* One that ends too early is text; what may become one is held back all the same. */
    for (const char *c = "xyzxy"; *c; c++)
        ck_ok(textflow_push(&flow, tokenizer, *c, &stop, 1, false));
    ck_assert(!flow.stopped);
    ck_assert_uint_eq(flow.certain, 3);
    ck_ok(textflow_push(&flow, tokenizer, 'z', &stop, 1, true));
    ck_assert(flow.stopped);
    ck_assert_uint_eq(flow.certain, 3);
    textflow_free(&flow);
}
END_TEST

START_TEST(a_character_in_pieces_comes_out_whole_and_a_broken_one_as_u_fffd)
{
    struct textflow flow = { 0 };
    ck_ok(textflow_push(&flow, tokenizer, 0xE2, NULL, 0, true));
    ck_assert_uint_eq(flow.certain, 0);
    ck_ok(textflow_push(&flow, tokenizer, 0x82, NULL, 0, true));
    ck_ok(textflow_push(&flow, tokenizer, 0xAC, NULL, 0, true));
    ck_assert_uint_eq(flow.certain, 3);
    ck_ok(textflow_push(&flow, tokenizer, 0xE2, NULL, 0, true));
    ck_ok(textflow_end(&flow));
    ck_assert_str_eq(flow.text.text, "\xE2\x82\xAC\xEF\xBF\xBD");
    textflow_free(&flow);
}
END_TEST

START_TEST(without_a_tokenizer_there_is_no_text)
{
    struct textflow flow = { 0 };
    ck_ok(textflow_push(&flow, NULL, 5, NULL, 0, true));
    ck_ok(textflow_end(&flow));
    ck_assert_uint_eq(flow.certain, 0);
    textflow_free(&flow);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("textflow");
    TCase *t = tcase_create("textflow");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, random_texts_and_stops);
    tcase_add_test(t, nothing_is_held_back_without_a_reason);
    tcase_add_test(t, a_stop_string_must_end_where_it_may);
    tcase_add_test(t, a_character_in_pieces_comes_out_whole_and_a_broken_one_as_u_fffd);
    tcase_add_test(t, without_a_tokenizer_there_is_no_text);
    suite_add_tcase(s, t);
    return s;
}
