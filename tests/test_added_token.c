#include "added_token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mem.h"
#include "support.h"

/* Finding the same as Hugging Face does is test_tokenizer.c's; here is what that cannot see. */

static void put(struct added_tokens *a, const char *text, uint32_t id, unsigned flags)
{
    ck_ok(added_put(a, text, strlen(text), id, flags));
}

/* The matches of one round as "start-end:id ". */
static const char *found(const struct added_tokens *a, int round, bool special, const char *text, size_t n)
{
    static char list[1024];
    struct added_search search = { .added = a, .round = round, .special = special, .text = text, .n = n };
    struct added_match match;
    size_t length = 0;
    list[0] = '\0';
    while (added_next(&search, &match))
        length += (size_t)snprintf(list + length, sizeof list - length, "%zu-%zu:%d ", match.start, match.end,
                                   match.id);
    return list;
}

START_TEST(nothing_is_found_with_no_tokens)
{
    struct added_tokens a = { 0 };
    for (int sealed = 0; sealed < 2; sealed++) {
        ck_assert(!added_any(&a, 0, true) && !added_any(&a, 1, true));
        ck_assert_str_eq(found(&a, 0, true, "abc", 3), "");
        ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
    }
    added_free(&a);
}
END_TEST

START_TEST(what_was_first_said_holds)
{
    struct added_tokens a = { 0 };
    put(&a, "x", 1, ADDED_SPECIAL);
    put(&a, "xy", 3, 0);
    put(&a, "x", 2, ADDED_NORMALIZED);
    put(&a, "x", 4, 0);
    ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
    ck_assert_uint_eq(a.n_tokens, 2);
    ck_assert_str_eq(found(&a, 0, true, "xxyx", 4), "0-1:1 1-3:3 3-4:1 ");
    ck_assert_str_eq(found(&a, 0, false, "xxyx", 4), "1-3:3 ");
    ck_assert(!added_any(&a, 1, true));
    added_free(&a);
    ck_assert_ptr_null(a.tokens);
}
END_TEST

START_TEST(rounds_and_special_ones_are_told_apart)
{
    struct added_tokens a = { 0 };
    put(&a, "b", 1, ADDED_SPECIAL);
    put(&a, "c", 2, ADDED_NORMALIZED);
    put(&a, "\xFF", 3, ADDED_NORMALIZED | ADDED_SPECIAL);
    ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
    ck_assert(added_any(&a, 0, true) && !added_any(&a, 0, false));
    ck_assert(added_any(&a, 1, true) && added_any(&a, 1, false));
    ck_assert_str_eq(found(&a, 0, true, "abc\xFF", 4), "1-2:1 ");
    ck_assert_str_eq(found(&a, 1, true, "abc\xFF", 4), "2-3:2 3-4:3 ");
    ck_assert_str_eq(found(&a, 1, false, "abc\xFF", 4), "2-3:2 ");
    added_free(&a);
}
END_TEST

START_TEST(the_longest_counts_even_if_it_does_not)
{
    struct added_tokens a = { 0 };
    put(&a, "ab", 1, 0);
    put(&a, "abcd", 2, 0);
    put(&a, "abcdef", 3, ADDED_SPECIAL);
    put(&a, "bcdefg", 4, 0);
    ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
    ck_assert_str_eq(found(&a, 0, true, "abcdefg", 7), "0-6:3 ");
    ck_assert_str_eq(found(&a, 0, false, "abcdefg", 7), "");
    ck_assert_str_eq(found(&a, 0, true, "abcdexab", 8), "0-4:2 6-8:1 ");
    /* The end of the text is the end: nothing behind it is read. */
    ck_assert_str_eq(found(&a, 0, true, "abcdefg", 5), "0-4:2 ");
    ck_assert_str_eq(found(&a, 0, true, "abcdefg", 3), "0-2:1 ");
    ck_assert_str_eq(found(&a, 0, true, "abcdefg", 1), "");
    added_free(&a);
}
END_TEST

START_TEST(bytes_that_are_no_character_are_no_space_and_no_word)
{
    struct added_tokens a = { 0 };
    put(&a, "T", 1, ADDED_LSTRIP | ADDED_RSTRIP);
    put(&a, "W", 2, ADDED_SINGLE_WORD);
    ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
    /* U+3000 with a byte missing in front of it, and within it. */
    ck_assert_str_eq(found(&a, 0, true, "\xE3\xE3\x80\x80T\xE3\x80 ", 8), "1-5:1 ");
    ck_assert_str_eq(found(&a, 0, true, "\x80\x80T \x80", 5), "2-4:1 ");
    ck_assert_str_eq(found(&a, 0, true, "\x80\x80\x80\x80\x80T", 6), "5-6:1 ");
    /* U+00E9 is a letter; its bytes are not. */
    ck_assert_str_eq(found(&a, 0, true, "\xC3\xA9W", 3), "");
    ck_assert_str_eq(found(&a, 0, true, "W\xC3\xA9", 3), "");
    ck_assert_str_eq(found(&a, 0, true, "\xC3W\xC3", 3), "1-2:2 ");
    ck_assert_str_eq(found(&a, 0, true, "\xA9W\xA9", 3), "1-2:2 ");
    added_free(&a);
}
END_TEST

START_TEST(spaces_belong_to_one_token)
{
    struct added_tokens a = { 0 };
    put(&a, "L", 1, ADDED_LSTRIP);
    put(&a, "R", 2, ADDED_RSTRIP);
    put(&a, "\t", 3, ADDED_LSTRIP);
    ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
    ck_assert_str_eq(found(&a, 0, true, "R  L", 4), "0-3:2 3-4:1 ");
    ck_assert_str_eq(found(&a, 0, true, "  R  ", 5), "2-5:2 ");
    ck_assert_str_eq(found(&a, 0, true, "  L  ", 5), "0-3:1 ");
    /* A token of spaces of which another one has left nothing. */
    ck_assert_str_eq(found(&a, 0, true, "R \t\t ", 5), "0-5:2 ");
    ck_assert_str_eq(found(&a, 0, true, " \t\tR", 4), "0-2:3 2-3:3 3-4:2 ");
    added_free(&a);
}
END_TEST

/* Each token strips the whole of the spaces that the text is made of. */
START_TEST(many_spaces_take_linear_time)
{
    enum { N = 2000000 };
    struct added_tokens a = { 0 };
    put(&a, " ", 1, ADDED_RSTRIP | (_i ? ADDED_LSTRIP : 0));
    put(&a, "\t", 2, _i ? ADDED_LSTRIP : 0);
    ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
    char *text = mem_new(N, 1);
    for (size_t i = 0; i < N; i++)
        text[i] = i % 2 ? '\t' : ' ';
    struct added_search search = { .added = &a, .special = true, .text = text, .n = N };
    struct added_match match;
    size_t n = 0;
    clock_t start = clock();
    while (added_next(&search, &match))
        n++;
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    ck_assert_uint_eq(n, _i ? 1 : N);
    ck_assert_msg(seconds < 5, "%g seconds for %d spaces", seconds, N);
    mem_free(text);
    added_free(&a);
}
END_TEST

START_TEST(every_failed_allocation_is_reported)
{
    for (uint64_t n = 1;; n++) {
        struct added_tokens a = { 0 };
        enum cinf_status status = CINF_OK;
        mem_fail_at(n);
        for (uint32_t i = 0; i < 40 && status == CINF_OK; i++)
            status = added_put(&a, "token", 1 + i % 5, i, 0);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        ck_assert_int_eq(status, hit ? CINF_ENOMEM : CINF_OK);
        ck_ok(added_seal(&a, &(struct normalizer){ 0 }));
        ck_assert_uint_le(a.n_tokens, 5);
        added_free(&a);
        if (!hit)
            break;
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("added_token");
    TCase *c = tcase_create("added tokens");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 30);
    tcase_add_test(c, nothing_is_found_with_no_tokens);
    tcase_add_test(c, what_was_first_said_holds);
    tcase_add_test(c, rounds_and_special_ones_are_told_apart);
    tcase_add_test(c, the_longest_counts_even_if_it_does_not);
    tcase_add_test(c, bytes_that_are_no_character_are_no_space_and_no_word);
    tcase_add_test(c, spaces_belong_to_one_token);
    tcase_add_loop_test(c, many_spaces_take_linear_time, 0, 2);
    tcase_add_test(c, every_failed_allocation_is_reported);
    return s;
}
