#include <stdio.h>

#include "checkpoint_builder.h"

#define NAME "model.safetensors"
#define ENTRY(name, dtype, shape, offsets)                                                                   \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static struct blob b;

static void refused(const char *header, size_t n_data, const char *words)
{
    build_safetensors(&b, header, n_data);
    ck_refused(&b, NAME, CINF_EFORMAT, words);
}

static struct cinf_checkpoint *opened(const char *header, size_t n_data)
{
    struct cinf_checkpoint *c = NULL;
    build_safetensors(&b, header, n_data);
    ck_ok(open_blob(&c, &b, NAME));
    return c;
}

START_TEST(check_1_eight_bytes)
{
    b.n = 0;
    ck_refused(&b, NAME, CINF_EFORMAT, "is empty");
    put(&b, "\1\0\0\0\0\0\0", 7);
    ck_refused(&b, NAME, CINF_EFORMAT, "fewer than the 8 bytes");
}
END_TEST

START_TEST(check_2_header_limit)
{
    build_safetensors(&b, "{" ENTRY("test", "I32", "[2,2]", "[0,16]") "}", 16);
    memset(b.bytes + 5, 0xff, 3);
    ck_refused(&b, NAME, CINF_EFORMAT, "18446742974197923900 bytes, more than the 100000000 allowed");
    set_number(&b, 0, 100000001, 8);
    ck_refused(&b, NAME, CINF_EFORMAT, "100000001 bytes, more than the 100000000 allowed");
    set_number(&b, 0, 100000000, 8);
    ck_refused(&b, NAME, CINF_EFORMAT, "100000000 bytes, but");
}
END_TEST

START_TEST(check_3_header_in_file)
{
    b.n = 0;
    put_number(&b, 60, 8);
    ck_refused(&b, NAME, CINF_EFORMAT, "60 bytes, but 0 follow");
}
END_TEST

START_TEST(check_4_utf8)
{
    refused("\xff", 0, "not UTF-8");
    refused("{\"a\xc3\":{}}", 0, "not UTF-8");
}
END_TEST

START_TEST(check_5_json)
{
    refused("", 0, "malformed");
    refused("{", 0, "malformed");
    refused("{} {}", 0, "malformed");
    refused("[]", 0, "not an object");
    refused("{\"test\":1}", 0, "tensor \"test\": its entry is not an object");
    refused("{\"test\":null}", 0, "not an object");
    refused("{\"test\":{}}", 0, "has no \"dtype\"");
    refused("{\"test\":{\"dtype\":\"F32\"}}", 0, "has no \"shape\"");
    refused("{\"test\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, "has no \"data_offsets\"");
    refused("{\"test\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" is not a string");
    refused("{" ENTRY("test", "F33", "[1]", "[0,4]") "}", 4, "unknown dtype \"F33\"");
    refused("{" ENTRY("test", "F32", "[-1]", "[0,4]") "}", 4, "\"shape\"");
    refused("{" ENTRY("test", "F32", "[1.0]", "[0,4]") "}", 4, "\"shape\"");
    refused("{" ENTRY("test", "F32", "[1e0]", "[0,4]") "}", 4, "\"shape\"");
    refused("{" ENTRY("test", "F32", "[\"1\"]", "[0,4]") "}", 4, "\"shape\"");
    refused("{" ENTRY("test", "F32", "[18446744073709551616]", "[0,4]") "}", 4, "\"shape\"");
    refused("{" ENTRY("test", "F32", "1", "[0,4]") "}", 4, "\"shape\"");
    refused("{" ENTRY("test", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "at most 8");
    refused("{" ENTRY("test", "F32", "[1]", "[0]") "}", 4, "\"data_offsets\"");
    refused("{" ENTRY("test", "F32", "[1]", "[0,4,8]") "}", 4, "\"data_offsets\"");
    refused("{" ENTRY("test", "F32", "[1]", "[0,-4]") "}", 4, "\"data_offsets\"");
    refused("{\"__metadata__\":7}", 0, "\"__metadata__\" is not an object");
    refused("{\"__metadata__\":{\"a\":\"b\",\"c\":1}}", 0, "other than strings");
    refused("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "other than strings");
    refused("{\"\\u0000\":{}}", 0, "malformed");
}
END_TEST

START_TEST(check_5_no_key_twice)
{
    refused("{" ENTRY("a", "U8", "[1]", "[0,1]") "," ENTRY("a", "U8", "[1]", "[1,2]") "}", 2,
            "tensor \"a\": occurs twice");
    refused("{" ENTRY("a", "U8", "[1]", "[0,1]") "," ENTRY("\\u0061", "U8", "[1]", "[1,2]") "}", 2,
            "tensor \"a\": occurs twice");
    refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            "\"dtype\" occurs twice");
    refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "\"__metadata__\" occurs twice");
}
END_TEST

START_TEST(check_6_offsets)
{
    refused("{" ENTRY("test", "U8", "[4]", "[1,5]") "}", 5, "tensor \"test\": begins at offset 1, where 0");
    refused("{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("b", "U8", "[4]", "[5,9]") "}", 9, "a hole");
    refused("{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("b", "U8", "[4]", "[3,7]") "}", 7, "overlap");
    refused("{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("b", "U8", "[4]", "[4,0]") "}", 4,
            "ends at offset 0, before it begins at 4");

    /* Ten names for the same bytes. */
    char header[2048] = "{";
    for (int i = 0; i < 10; i++) {
        char entry[128];
        snprintf(entry, sizeof entry,
                 "%s\"weight_%d\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}", i ? "," : "",
                 i);
        strcat(header, entry);
    }
    strcat(header, "}");
    refused(header, 16, "overlap");
}
END_TEST

START_TEST(check_7_overflow)
{
    refused("{" ENTRY("test", "I32", "[2,18446744073709551614]", "[0,16]") "}", 16,
            "product of its dimensions overflows at dimension 2 of 2, 18446744073709551614");
    refused("{" ENTRY("test", "I32", "[2,9223372036854775807]", "[0,16]") "}", 16,
            "18446744073709551614 elements of I32 overflows");
    refused("{" ENTRY("test", "I32", "[2,18446744073709551614,0]", "[0,0]") "}", 0, "overflows");
}
END_TEST

START_TEST(check_8_whole_bytes)
{
    refused("{" ENTRY("test", "F4", "[3]", "[0,1]") "}", 1, "not a whole number of bytes");
}
END_TEST

START_TEST(check_9_size)
{
    refused("{" ENTRY("test", "I32", "[2,2]", "[0,4]") "}", 0, "needs 16 bytes of I32, its offsets give 4");
    refused("{" ENTRY("test", "F16", "[2,2]", "[0,16]") "}", 16, "needs 8 bytes of F16, its offsets give 16");
}
END_TEST

START_TEST(check_10_file_size)
{
    const char *header = "{" ENTRY("test", "I32", "[2,2]", "[0,16]") "}";
    refused(header, 14, "truncated");
    refused(header, 16 + 34, "something was appended");
    refused("{}", 1, "something was appended");
    refused("{" ENTRY("test", "U8", "[1152921504606846976]", "[0,1152921504606846976]") "}", 16, "truncated");
}
END_TEST

START_TEST(hostile_names_are_shown_tame)
{
    refused("{\"\\u001b[2J\\n\\u202e\":1}", 0, "tensor \"?[2J????\": its entry");
    char header[4096];
    snprintf(header, sizeof header, "{\"%02000d\":1}", 7);
    refused(header, 0, "a name of 2000 bytes");
    ck_assert_uint_lt(strlen(cinf_last_error()), 400);
}
END_TEST

START_TEST(deep_nesting)
{
    char header[4096] = "{\"a\":";
    memset(header + strlen(header), '[', 1000);
    refused(header, 0, "nested too deeply");
}
END_TEST

START_TEST(other_files_are_recognised)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *words;
    } files[] = {
        { "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n", 72,
          "git-LFS pointer" },
        { "<!DOCTYPE html>\n<html>", 22, "an HTML page" },
        { "PK\3\4\24\0\0\0\0\0\0\0", 12, "a zip archive" },
        { "\x1f\x8b\x08\0\0\0\0\0\0\3abc", 13, "a gzip file" },
        { "GGUF\3\0\0\0\0\0\0\0", 12, "a GGUF file" },
        { "{\"weight_map\":{}}", 17, "JSON text" },
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        b.n = 0;
        put(&b, files[i].bytes, files[i].n);
        ck_refused(&b, NAME, CINF_EFORMAT, files[i].words);
    }
    /* A header of 123 bytes, which is '{', so the header is not JSON. */
    b.n = 0;
    put_number(&b, '{', 8);
    while (b.n < 200)
        put_text(&b, "x");
    ck_refused(&b, NAME, CINF_EFORMAT, "malformed");
}
END_TEST

START_TEST(empty_headers_and_padding)
{
    static const char *const headers[] = { "{}",
                                           "{}      ",
                                           "\t\n{}\r ",
                                           "{\"__metadata__\":{\"format\":\"pt\"}}",
                                           "{\"__metadata__\":{}}",
                                           "{\"__metadata__\":null}" };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct cinf_checkpoint *c = opened(headers[i], 0);
        ck_assert_uint_eq(cinf_checkpoint_count(c), 0);
        ck_assert_ptr_null(cinf_checkpoint_find(c, "test"));
        ck_assert_ptr_null(cinf_checkpoint_tensor(c, 0));
        cinf_checkpoint_free(c);
    }
}
END_TEST

START_TEST(scalars_and_zero_sizes)
{
    struct cinf_checkpoint *c = opened(
        "{" ENTRY("zero", "F32", "[2,0]", "[4, 4]") "," ENTRY(
            "none", "F32", "[0,18446744073709551615]", "[0,0]") "," ENTRY("one", "F32", "[]", "[0,4]") "}",
        4);
    const struct cinf_tensor *one = cinf_checkpoint_find(c, "one"), *zero = cinf_checkpoint_find(c, "zero");
    unsigned char bytes[8] = { 9, 9, 9, 9, 9, 9, 9, 9 };
    ck_assert_uint_eq(one->n_dims, 0);
    ck_assert_uint_eq(one->n_elements, 1);
    ck_assert_uint_eq(one->n_bytes, 4);
    ck_ok(cinf_checkpoint_read(c, one, 0, 1, bytes));
    ck_assert_mem_eq(bytes, "\0\1\2\3\11\11\11\11", 8);
    ck_assert_uint_eq(zero->n_dims, 2);
    ck_assert_uint_eq(zero->dims[0], 2);
    ck_assert_uint_eq(zero->n_elements, 0);
    ck_ok(cinf_checkpoint_read(c, zero, 0, 0, bytes));
    ck_fails(cinf_checkpoint_read(c, zero, 0, 1, bytes), CINF_EINVAL, "of 0");
    ck_fails(cinf_checkpoint_read(c, one, 1, 1, bytes), CINF_EINVAL, "of 1");
    ck_fails(cinf_checkpoint_read(c, one, 0, UINT64_MAX, bytes), CINF_EINVAL, "of 1");
    ck_fails(cinf_checkpoint_read(c, one, UINT64_MAX, 2, bytes), CINF_EINVAL, "of 1");
    ck_assert_mem_eq(bytes, "\0\1\2\3\11\11\11\11", 8);
    cinf_checkpoint_free(c);
}
END_TEST

/* Only old and foreign writers do it, but it is legal: tensor bytes at an odd offset. */
START_TEST(odd_alignment)
{
    struct cinf_checkpoint *c =
        opened("{" ENTRY("b", "F64", "[2]", "[1,17]") "," ENTRY("a", "U8", "[1]", "[0,1]") "}", 17);
    double values[2];
    unsigned char bytes[16];
    const struct cinf_tensor *t = cinf_checkpoint_find(c, "b");
    ck_ok(cinf_checkpoint_read(c, t, 0, 2, values));
    memcpy(bytes, values, 16);
    for (int i = 0; i < 16; i++)
        ck_assert_uint_eq(bytes[i], i + 1);
    ck_ok(cinf_checkpoint_read(c, t, 1, 1, bytes));
    ck_assert_uint_eq(bytes[0], 9);
    cinf_checkpoint_free(c);
}
END_TEST

START_TEST(names_order_and_unknown_members)
{
    struct cinf_checkpoint *c = opened("{\"b\\u00e9\\ud83d\\ude00\\\"\\\\\\/\\n\" : {\"shape\" :[ 1 , 2 "
                                       "],\"more\":[{\"x\":[]},\"]}\\\"\",-1.5e3,true],"
                                       "\"dtype\":\"BF16\",\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"U8\","
                                       "\"data_offsets\":[4,5],\"shape\":[1]},"
                                       "\"\":{\"dtype\":\"F8_E4M3\",\"data_offsets\":[5,6],\"shape\":[1]}}",
                                       6);
    ck_assert_uint_eq(cinf_checkpoint_count(c), 3);
    ck_assert_str_eq(cinf_checkpoint_tensor(c, 0)->name, "");
    ck_assert_str_eq(cinf_checkpoint_tensor(c, 1)->name, "a");
    const struct cinf_tensor *t = cinf_checkpoint_find(c, "b\xc3\xa9\xf0\x9f\x98\x80\"\\/\n");
    ck_assert_ptr_eq(t, cinf_checkpoint_tensor(c, 2));
    ck_assert_str_eq(t->dtype_name, "BF16");
    ck_assert_int_eq(t->dtype, CINF_DTYPE_BF16);
    ck_assert_uint_eq(t->n_dims, 2);
    ck_assert_uint_eq(t->dims[1], 2);
    ck_assert(support_contains(t->file, NAME));
    t = cinf_checkpoint_find(c, "a");
    ck_assert_int_eq(t->dtype, CINF_DTYPE_OTHER);
    unsigned char byte = 7;
    ck_fails(cinf_checkpoint_read(c, t, 0, 1, &byte), CINF_EUNSUPPORTED, "tensor \"a\": elements of type U8");
    ck_assert_uint_eq(byte, 7);
    cinf_checkpoint_free(c);
}
END_TEST

START_TEST(all_dtypes)
{
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = { { "BOOL", 8 },    { "F4", 4 },   { "F6_E2M3", 6 },     { "F6_E3M2", 6 },
                  { "U8", 8 },      { "I8", 8 },   { "F8_E5M2", 8 },     { "F8_E4M3", 8 },
                  { "F8_E8M0", 8 }, { "I16", 16 }, { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 },
                  { "U16", 16 },    { "F16", 16 }, { "BF16", 16 },       { "I32", 32 },
                  { "U32", 32 },    { "F32", 32 }, { "C64", 64 },        { "F64", 64 },
                  { "I64", 64 },    { "U64", 64 } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char header[128];
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%u]}}",
                 types[i].name, types[i].bits / 2);
        struct cinf_checkpoint *c = opened(header, types[i].bits / 2);
        ck_assert_str_eq(cinf_checkpoint_tensor(c, 0)->dtype_name, types[i].name);
        ck_assert_uint_eq(cinf_checkpoint_tensor(c, 0)->n_bytes, types[i].bits / 2);
        cinf_checkpoint_free(c);
    }
}
END_TEST

START_TEST(every_truncation_is_refused)
{
    build_safetensors(&b,
                      "{\"__metadata__\":{\"a\":\"b\"}," ENTRY("x", "F32", "[2,3]", "[0,24]") "," ENTRY(
                          "y", "F16", "[1]", "[24,26]") "}  ",
                      26);
    for (size_t whole = b.n--; b.n < whole; b.n--) {
        struct cinf_checkpoint *c = NULL;
        ck_fails(open_blob(&c, &b, NAME), CINF_EFORMAT, NAME);
        ck_assert_ptr_null(c);
        if (b.n == 0)
            break;
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("safetensors");
    TCase *t = tcase_create("safetensors");
    tcase_add_test(t, check_1_eight_bytes);
    tcase_add_test(t, check_2_header_limit);
    tcase_add_test(t, check_3_header_in_file);
    tcase_add_test(t, check_4_utf8);
    tcase_add_test(t, check_5_json);
    tcase_add_test(t, check_5_no_key_twice);
    tcase_add_test(t, check_6_offsets);
    tcase_add_test(t, check_7_overflow);
    tcase_add_test(t, check_8_whole_bytes);
    tcase_add_test(t, check_9_size);
    tcase_add_test(t, check_10_file_size);
    tcase_add_test(t, hostile_names_are_shown_tame);
    tcase_add_test(t, deep_nesting);
    tcase_add_test(t, other_files_are_recognised);
    tcase_add_test(t, empty_headers_and_padding);
    tcase_add_test(t, scalars_and_zero_sizes);
    tcase_add_test(t, odd_alignment);
    tcase_add_test(t, names_order_and_unknown_members);
    tcase_add_test(t, all_dtypes);
    tcase_add_test(t, every_truncation_is_refused);
    suite_add_tcase(s, t);
    return s;
}
