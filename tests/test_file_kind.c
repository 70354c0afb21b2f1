#include "checkpoint_builder.h"
#include "file_kind.h"

static const char *kind(const void *bytes, size_t n)
{
    static char *folder;
    struct file f;
    if (!folder)
        folder = support_temp_folder();
    ck_ok(file_open(&f, support_write(folder, "f", bytes, (long)n)));
    const char *kind = file_kind(&f);
    file_close(&f);
    return kind ? kind : "";
}

#define KIND(bytes) kind(bytes, sizeof(bytes) - 1)

START_TEST(kinds)
{
    ck_assert_str_eq(KIND(""), "empty");
    ck_assert_str_eq(KIND("PK\3\4"), file_kind_torch_zip);
    ck_assert_str_eq(KIND("PK\5\6"), "an empty zip archive");
    ck_assert(support_contains(KIND("version https://git-lfs.github.com/spec/v1\noid"), "git-LFS"));
    ck_assert_str_eq(KIND("<!doctype HTML>"), "an HTML page");
    ck_assert_str_eq(KIND("\r\n\t<HTML lang=en>"), "an HTML page");
    ck_assert_str_eq(KIND("<?xml version"), "an XML document");
    ck_assert_str_eq(KIND(" {}"), "JSON text");
    ck_assert_str_eq(KIND("[1]"), "JSON text");
    ck_assert_str_eq(KIND("\x1f\x8b"), "a gzip file");
    ck_assert_str_eq(KIND("\xfd"
                          "7zXZ\0"),
                     "an xz file");
    ck_assert_str_eq(KIND("\x28\xb5\x2f\xfd"), "a zstd file");
    ck_assert_str_eq(KIND("GGUF"), "a GGUF file");
    ck_assert_str_eq(KIND("\x80\x05"), "a Python pickle");
    ck_assert_str_eq(KIND("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."),
                     file_kind_torch_legacy);
    ck_assert_str_eq(KIND("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x20."), "a Python pickle");
    ck_assert(support_contains(KIND("\x89HDF\r\n\x1a\n"), "HDF5"));
    char tar[512] = "file";
    memcpy(tar + 257, "ustar", 6);
    ck_assert_str_eq(kind(tar, sizeof tar), "a tar archive");
    ck_assert_str_eq(kind(tar, 258), "");
}
END_TEST

START_TEST(unknown)
{
    ck_assert_str_eq(KIND("x"), "");
    ck_assert_str_eq(KIND("GGU"), "");
    ck_assert_str_eq(KIND("{\0}"), "");
    ck_assert_str_eq(KIND("\0\0\0\0\0\0\0\0\0\0"), "");
}
END_TEST

START_TEST(safetensors)
{
    ck_assert_str_eq(KIND("\2\0\0\0\0\0\0\0{}"), file_kind_safetensors);
    ck_assert_str_eq(KIND("{\0\0\0\0\0\0\0{"), file_kind_safetensors);
    ck_assert_str_eq(KIND("\x1f\x8b\x08\0\0\0\0\0{"), file_kind_safetensors);
    ck_assert_str_eq(KIND("\x1f\x8b\x08\0\0\0\0\0\2\xff"), "a gzip file");
    ck_assert_str_eq(KIND("\2\0\0\0\0\0\0\1{}"), "");
    ck_assert_str_eq(KIND("\2\0\0\0\0\0\0\0"), "");
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("file_kind");
    TCase *t = tcase_create("file_kind");
    tcase_add_test(t, kinds);
    tcase_add_test(t, unknown);
    tcase_add_test(t, safetensors);
    suite_add_tcase(s, t);
    return s;
}
