/* The names of enums, in both directions. */
#include "support.h"

#include <costinfer/costinfer.h>

START_TEST(weights)
{
    enum cinf_weights parsed = CINF_WEIGHTS_BF16;
    for (int w = CINF_WEIGHTS_AUTO; w <= CINF_WEIGHTS_INT4; w++) {
        ck_ok(cinf_weights_parse(&parsed, cinf_weights_name((enum cinf_weights)w)));
        ck_assert_int_eq(parsed, w);
    }
    ck_fails(cinf_weights_parse(&parsed, "f64"), CINF_EINVAL,
             "unknown weights type \"f64\"; expected auto, f32, f16, bf16, int8 or int4");
    ck_fails(cinf_weights_parse(&parsed, ""), CINF_EINVAL, "\"\"");
    ck_assert_int_eq(parsed, CINF_WEIGHTS_INT4);
    ck_assert_str_eq(cinf_weights_name((enum cinf_weights)6), "unknown");
    ck_assert_str_eq(cinf_weights_name((enum cinf_weights) - 1), "unknown");
}
END_TEST

START_TEST(keys_and_values)
{
    enum cinf_kv kv = CINF_KV_F16;
    ck_ok(cinf_kv_parse(&kv, "f32"));
    ck_assert_int_eq(kv, CINF_KV_F32);
    ck_ok(cinf_kv_parse(&kv, "f16"));
    ck_assert_int_eq(kv, CINF_KV_F16);
    ck_fails(cinf_kv_parse(&kv, "int8"), CINF_EINVAL, "\"int8\"; expected f32 or f16");
    ck_assert_int_eq(kv, CINF_KV_F16);
    ck_assert_str_eq(cinf_kv_name(CINF_KV_F16), "f16");
    ck_assert_str_eq(cinf_kv_name((enum cinf_kv)2), "unknown");
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("names");
    TCase *t = tcase_create("names");
    tcase_add_test(t, weights);
    tcase_add_test(t, keys_and_values);
    suite_add_tcase(s, t);
    return s;
}
