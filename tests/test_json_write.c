/* What json_write.h writes is compared byte for byte, and what it writes is read back by json.h. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "json.h"
#include "json_write.h"
#include "mem.h"
#include "support.h"

START_TEST(commas_and_keys_come_by_themselves)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    json_open_object(&w, NULL);
    json_put_text(&w, "a", "x");
    json_open_object(&w, "empty");
    json_close(&w);
    json_open_array(&w, "list");
    json_put_u64(&w, NULL, 1);
    json_put_null(&w, NULL);
    json_open_array(&w, NULL);
    json_close(&w);
    json_open_object(&w, NULL);
    json_put_bool(&w, "t", true);
    json_put_bool(&w, "f", false);
    json_close(&w);
    json_close(&w);
    json_put_key(&w, "by_hand");
    strbuf_puts(&out, "[1]");
    json_put_i64(&w, "last", -5);
    json_close(&w);
    ck_assert_str_eq(out.text, "{\"a\":\"x\",\"empty\":{},\"list\":[1,null,[],{\"t\":true,\"f\":false}],\"by_"
                               "hand\":[1],\"last\":-5}");
    ck_assert_int_eq(json_check(out.text, out.len, NULL), CINF_OK);
    strbuf_free(&out);
}
END_TEST

START_TEST(numbers_have_their_form)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    json_open_array(&w, NULL);
    json_put_u64(&w, NULL, UINT64_MAX);
    json_put_i64(&w, NULL, INT64_MIN);
    json_put_seconds(&w, NULL, 0);
    json_put_seconds(&w, NULL, UINT64_MAX);
    json_put_double(&w, NULL, 0.1);
    json_put_double(&w, NULL, NAN);
    json_put_double(&w, NULL, -INFINITY);
    json_put_format(&w, NULL, "%.3f", 1.5);
    json_close(&w);
    ck_assert_str_eq(out.text, "[18446744073709551615,-9223372036854775808,0.000000000,18446744073.709551615,"
                               "0.1,null,null,1.500]");
    strbuf_free(&out);
}
END_TEST

START_TEST(texts_are_escaped_keys_too)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    json_open_object(&w, NULL);
    json_put_text(&w, "q\"\\", "a\"b\\c\n\x01\xff");
    json_put_bytes(&w, "cut", "abcdef", 3);
    json_put_text(&w, "none", NULL);
    json_close(&w);
    ck_assert_str_eq(out.text,
                     "{\"q\\\"\\\\\":\"a\\\"b\\\\c\\n\\u0001\xef\xbf\xbd\",\"cut\":\"abc\",\"none\":null}");
    ck_assert_int_eq(json_check(out.text, out.len, NULL), CINF_OK);
    strbuf_free(&out);
}
END_TEST

START_TEST(text_may_stand_around_a_value_and_lines_between)
{
    struct strbuf out = { 0 };
    strbuf_puts(&out, "data: ");
    struct json_writer w = json_write_to(&out);
    json_open_array(&w, NULL);
    for (unsigned i = 0; i < 2; i++) {
        json_new_line(&w);
        json_put_u64(&w, NULL, i);
    }
    json_new_line(&w);
    json_close(&w);
    strbuf_puts(&out, "\n\n");
    ck_assert_str_eq(out.text, "data: [\n0,\n1\n]\n\n");
    strbuf_free(&out);
}
END_TEST

START_TEST(brackets_nest_to_the_limit)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    const struct json_limits limits = { .depth_max = JSON_WRITE_DEPTH_MAX };
    for (int i = 0; i < JSON_WRITE_DEPTH_MAX; i++)
        if (i % 3)
            json_open_array(&w, (i - 1) % 3 ? NULL : "k");
        else
            json_open_object(&w, NULL);
    ck_assert_uint_eq(w.depth, JSON_WRITE_DEPTH_MAX);
    while (w.depth)
        json_close(&w);
    ck_assert_int_eq(json_check(out.text, out.len, &limits), CINF_OK);
    strbuf_free(&out);
}
END_TEST

START_TEST(want_of_memory_sticks)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    mem_fail_at(1);
    json_open_object(&w, NULL);
    mem_fail_at(0);
    json_put_text(&w, "a", "b");
    json_close(&w);
    ck_assert(out.failed);
    ck_assert_uint_eq(w.depth, 0);
    strbuf_free(&out);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("json_write");
    TCase *t = tcase_create("json_write");
    tcase_add_test(t, commas_and_keys_come_by_themselves);
    tcase_add_test(t, numbers_have_their_form);
    tcase_add_test(t, texts_are_escaped_keys_too);
    tcase_add_test(t, text_may_stand_around_a_value_and_lines_between);
    tcase_add_test(t, brackets_nest_to_the_limit);
    tcase_add_test(t, want_of_memory_sticks);
    suite_add_tcase(s, t);
    return s;
}
