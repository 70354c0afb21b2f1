/* test_base.c - libcostinfer/base, one test case for each source file. */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "file.h"
#include "json.h"
#include "mem.h"
#include "strbuf.h"
#include "support.h"
#include "utf8.h"

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

/* ---- fail ---- */

START_TEST(a_failure_is_a_code_and_a_line)
{
    ck_assert_int_eq(cinf_fail(CINF_EINVAL, "%d of %s", 3, "four"), CINF_EINVAL);
    ck_assert_str_eq(cinf_last_error(), "3 of four");
    ck_assert_int_eq(cinf_fail_in(CINF_EIO, "%s: ", "path"), CINF_EIO);
    ck_assert_str_eq(cinf_last_error(), "path: 3 of four");
    ck_assert_int_eq(cinf_fail(CINF_EIO, "again: %s", cinf_last_error()), CINF_EIO);
    ck_assert_str_eq(cinf_last_error(), "again: path: 3 of four");
    ck_assert_int_eq(cinf_fail_again(CINF_EBUSY, "kept %s"), CINF_EBUSY);
    ck_assert_str_eq(cinf_last_error(), "kept %s");
    ck_assert_int_eq(cinf_fail_again(CINF_EBUSY, cinf_last_error()), CINF_EBUSY);
    ck_assert_str_eq(cinf_last_error(), "kept %s");
}
END_TEST

START_TEST(a_message_is_one_line_of_utf8)
{
    cinf_fail(CINF_EIO, "%s", "a\nb\tc\x7F \x1B[1m d\xC3\xA9 \xFF \xE2\x82 \xE2\x80\xAE.");
    ck_assert_str_eq(cinf_last_error(), "a?b?c? ?[1m d\xC3\xA9 ? ?? ???.");
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    cinf_fail(CINF_EIO, "%s", text);
    size_t most = strlen(cinf_last_error());
    ck_assert_uint_ge(most, 500);
    ck_assert_uint_lt(most, 3000);
    cinf_fail_in(CINF_EIO, "%s", text);
    ck_assert_uint_eq(strlen(cinf_last_error()), most);
    /* cut in the middle of a character */
    for (size_t i = 0; i + 3 < sizeof text; i += 3)
        memcpy(text + i, "\xE2\x82\xAC", 3);
    text[sizeof text - 3] = '\0';
    for (int lead = 0; lead < 3; lead++) {
        cinf_fail(CINF_EIO, "%.*s%s", lead, "...", text);
        ck_assert(utf8_valid(cinf_last_error(), strlen(cinf_last_error())));
    }
}
END_TEST

static void *fail_elsewhere(void *arg)
{
    cinf_fail(CINF_EIO, "elsewhere");
    return arg;
}

START_TEST(a_message_belongs_to_its_thread)
{
    pthread_t thread;
    cinf_fail(CINF_EIO, "here");
    ck_assert_int_eq(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_str_eq(cinf_last_error(), "here");
}
END_TEST

START_TEST(every_code_has_its_name)
{
    for (int i = CINF_OK; i <= CINF_EAGAIN; i++) {
        ck_assert_int_eq(strncmp(cinf_status_name((enum cinf_status)i), "CINF_", 5), 0);
        for (int k = CINF_OK; k < i; k++)
            ck_assert_str_ne(cinf_status_name((enum cinf_status)i), cinf_status_name((enum cinf_status)k));
    }
    ck_assert_str_eq(cinf_status_name((enum cinf_status)9999), "unknown status");
}
END_TEST

static enum cinf_status tries(enum cinf_status status, int *went_on)
{
    TRY(status);
    *went_on = 1;
    return CINF_OK;
}

START_TEST(try_hands_a_failure_up)
{
    int went_on = 0;
    ck_assert_int_eq(tries(CINF_EFULL, &went_on), CINF_EFULL);
    ck_assert_int_eq(went_on, 0);
    ck_assert_int_eq(tries(CINF_OK, &went_on), CINF_OK);
    ck_assert_int_eq(went_on, 1);
}
END_TEST

/* ---- mem ---- */

START_TEST(new_memory_is_zeroed_and_never_null_for_nothing)
{
    static const size_t sizes[][2] = { { 0, 0 }, { 0, 8 }, { 8, 0 }, { 3, 5 } };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        unsigned char *block = mem_new(sizes[i][0], sizes[i][1]);
        ck_assert_ptr_nonnull(block);
        for (size_t k = 0; k < sizes[i][0] * sizes[i][1]; k++)
            ck_assert_uint_eq(block[k], 0);
        mem_free(block);
        block = mem_new_aligned(64, sizes[i][0], sizes[i][1]);
        ck_assert_ptr_nonnull(block);
        ck_assert_uint_eq((uintptr_t)block % 64, 0);
        mem_free(block);
    }
    mem_free(NULL);
}
END_TEST

START_TEST(products_that_overflow_are_refused)
{
    size_t size = 7;
    uint64_t wide = 7;
    ck_assert_ptr_null(mem_new(SIZE_MAX / 2 + 1, 2));
    ck_assert_ptr_null(mem_new(SIZE_MAX, SIZE_MAX));
    ck_assert_ptr_null(mem_new_aligned(64, SIZE_MAX / 4 + 1, 4));
    char *block = mem_new(4, 1);
    strcpy(block, "abc");
    ck_assert_ptr_null(mem_resize(block, SIZE_MAX / 8 + 1, 8));
    ck_assert_str_eq(block, "abc");
    mem_free(block);
    ck_assert(!mul_size(&size, SIZE_MAX, 2) && size == 7);
    ck_assert(mul_size(&size, SIZE_MAX, 1) && size == SIZE_MAX);
    ck_assert(!mul_u64(&wide, UINT64_MAX / 2 + 1, 2) && wide == 7);
    ck_assert(mul_u64(&wide, UINT64_MAX / 2, 2) && wide == UINT64_MAX - 1);
    wide = 7;
    ck_assert(!add_u64(&wide, UINT64_MAX, 1) && wide == 7);
    ck_assert(add_u64(&wide, UINT64_MAX - 1, 1) && wide == UINT64_MAX);
}
END_TEST

START_TEST(copies_and_growth_keep_what_was_there)
{
    char *text = mem_copy_text("text"), *bytes = mem_copy("a\0b", 3), *nothing = mem_copy(NULL, 0);
    ck_assert_str_eq(text, "text");
    ck_assert_mem_eq(bytes, "a\0b", 3);
    ck_assert_ptr_nonnull(nothing);
    mem_free(text);
    mem_free(bytes);
    mem_free(nothing);

    uint32_t *list = NULL;
    size_t cap = 0, grown = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        size_t before = cap;
        ck_assert(mem_reserve(&list, &cap, i + 1, sizeof *list));
        ck_assert_uint_gt(cap, i);
        if (cap != before) {
            ck_assert_uint_ge(cap, 2 * before);
            grown++;
        }
        list[i] = i;
    }
    ck_assert_uint_lt(grown, 12);
    for (uint32_t i = 0; i < 1000; i++)
        ck_assert_uint_eq(list[i], i);
    uint32_t *before = list;
    size_t cap_before = cap;
    ck_assert(mem_reserve(&list, &cap, 5, sizeof *list));
    ck_assert(!mem_reserve(&list, &cap, SIZE_MAX / 2, sizeof *list));
    ck_assert(!mem_reserve(&list, &cap, SIZE_MAX, sizeof *list));
    ck_assert_ptr_eq(list, before);
    ck_assert_uint_eq(cap, cap_before);
    mem_free(list);
}
END_TEST

START_TEST(the_nth_allocation_fails_once)
{
    mem_fail_at(3);
    void *first = mem_new(1, 1), *second = mem_new_aligned(16, 1, 1);
    ck_assert(first && second && !mem_fail_hit());
    ck_assert_ptr_null(mem_resize(first, 2, 1));
    ck_assert(mem_fail_hit());
    first = mem_resize(first, 2, 1);
    ck_assert_ptr_nonnull(first);
    mem_fail_at(1);
    ck_assert(!mem_fail_hit());
    ck_assert_ptr_null(mem_copy("a", 1));
    mem_fail_at(1);
    ck_assert_ptr_null(mem_new_aligned(16, 1, 1));
    mem_fail_at(1);
    mem_fail_at(0);
    void *third = mem_new(1, 1);
    ck_assert_ptr_nonnull(third);
    ck_assert(!mem_fail_hit());
    mem_free(first);
    mem_free(second);
    mem_free(third);
}
END_TEST

/* ---- strbuf ---- */

START_TEST(text_grows)
{
    struct strbuf b = { 0 };
    strbuf_add(&b, "", 0);
    ck_assert_str_eq(b.text, "");
    for (int i = 0; i < 100; i++) {
        strbuf_puts(&b, "ab");
        strbuf_putc(&b, 'c');
        strbuf_printf(&b, "%d,", i);
    }
    ck_assert_uint_eq(b.len, 300 + 10 * 2 + 90 * 3);
    ck_assert_uint_eq(strlen(b.text), b.len);
    ck_assert_int_eq(strncmp(b.text, "abc0,abc1,", 10), 0);
    strbuf_clear(&b);
    ck_assert_str_eq(b.text, "");
    strbuf_add(&b, "a\0b", 3);
    ck_assert_uint_eq(b.len, 3);
    ck_assert_mem_eq(b.text, "a\0b", 4);
    char *room = strbuf_reserve(&b, 1000);
    memcpy(room, "xyz", 3);
    strbuf_extend(&b, 2);
    ck_assert_mem_eq(b.text, "a\0bxy", 6);
    strbuf_extend(&b, 0);
    ck_assert_uint_eq(b.len, 5);
    strbuf_clear(&b);
    strbuf_put_u64(&b, 0);
    strbuf_put_u64(&b, UINT64_MAX);
    ck_assert_str_eq(b.text, "018446744073709551615");
    strbuf_free(&b);
    ck_assert_ptr_null(b.text);
    strbuf_free(&b);
}
END_TEST

START_TEST(texts_end)
{
    ck_assert(text_ends_with("model.bin", ".bin") && text_ends_with(".bin", ".bin") &&
              text_ends_with("a", ""));
    ck_assert(text_ends_with("", "") && text_ends_with("bb", "b"));
    ck_assert(!text_ends_with("bin", ".bin") && !text_ends_with("a.bin.", ".bin") &&
              !text_ends_with("", "a"));
}
END_TEST

START_TEST(text_remembers_that_memory_ran_out)
{
    struct strbuf b = { 0 };
    strbuf_puts(&b, "kept");
    mem_fail_at(1);
    strbuf_printf(&b, "%1000d", 1);
    mem_fail_at(0);
    ck_assert(b.failed);
    ck_assert_str_eq(b.text, "kept");
    strbuf_puts(&b, "more");
    strbuf_put_u64(&b, 5);
    ck_assert_ptr_null(strbuf_reserve(&b, 1));
    ck_assert_str_eq(b.text, "kept");
    strbuf_clear(&b);
    ck_assert(!b.failed);
    strbuf_puts(&b, "new");
    ck_assert_str_eq(b.text, "new");
    ck_assert_ptr_null(strbuf_reserve(&b, SIZE_MAX));
    ck_assert(b.failed);
    strbuf_free(&b);
}
END_TEST

static const char *shortest(double value)
{
    static struct strbuf b;
    strbuf_clear(&b);
    strbuf_put_double(&b, value);
    return b.text;
}

static void check_doubles(void)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        { 0, "0" },
        { -0.0, "-0" },
        { 1, "1" },
        { -1.5, "-1.5" },
        { 0.1, "0.1" },
        { 0.1 + 0.2, "0.30000000000000004" },
        { 1.0 / 3, "0.3333333333333333" },
        { 1e21, "1e+21" },
        { 1e-7, "1e-07" },
        { 123456789, "123456789" },
        { 9007199254740993.0, "9007199254740992" },
        { 5e-324, "5e-324" },
        { DBL_MAX, "1.7976931348623157e+308" },
        { DBL_MIN, "2.2250738585072014e-308" },
        { INFINITY, "+Inf" },
        { -INFINITY, "-Inf" },
        { NAN, "NaN" },
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        ck_assert_str_eq(shortest(cases[i].value), cases[i].text);
}

START_TEST(doubles_are_shortest_and_read_back)
{
    check_doubles();
    uint64_t state = 12345;
    for (int i = 0; i < 20000; i++) {
        double value;
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(&value, &state, sizeof value);
        if (!isfinite(value))
            continue;
        const char *text = shortest(value);
        if (strtod(text, NULL) != value)
            ck_abort_msg("%a became %s", value, text);
    }
}
END_TEST

/* Debian's minimal images have no locale with a decimal comma, so the test compiles one if localedef and its
 * sources are installed. */
static bool set_comma_locale(void)
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8" };
    for (size_t i = 0; i < COUNT(names); i++)
        if (setlocale(LC_ALL, names[i]) && strcmp(localeconv()->decimal_point, ",") == 0)
            return true;
    char *folder = support_temp_folder(), command[256];
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", folder);
    if (system(command) == 0 && setenv("LOCPATH", folder, 1) == 0 && setlocale(LC_ALL, "de_DE.UTF-8") &&
        strcmp(localeconv()->decimal_point, ",") == 0)
        return true;
    printf("skipped: no locale with a decimal comma\n");
    return false;
}

START_TEST(numbers_do_not_depend_on_the_locale)
{
    if (!set_comma_locale())
        return;
    char probe[8];
    snprintf(probe, sizeof probe, "%.1f", 0.5);
    ck_assert_str_eq(probe, "0,5");
    check_doubles();
    cJSON *tree;
    double value = 0;
    ck_ok(json_parse(&tree, "{\"x\":-12.75e-1}", 15, NULL));
    ck_ok(json_read_double(&value, tree, "x", -10, 10));
    ck_assert_double_eq(value, -1.275);
    cJSON_Delete(tree);
    ck_fails(json_check("1.5e999", 7, NULL), CINF_EFORMAT, "number too large");
    ck_ok(json_check("0.0001e312", 10, NULL));
}
END_TEST

START_TEST(json_strings_are_escaped)
{
    static const struct {
        const char *text;
        size_t n;
        const char *json;
    } cases[] = {
        { "", 0, "\"\"" },
        { "plain /'", 8, "\"plain /'\"" },
        { "\"\\", 2, "\"\\\"\\\\\"" },
        { "\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\"" },
        { "\0\x01\x1F\x7F", 4, "\"\\u0000\\u0001\\u001f\x7F\"" },
        { "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 9, "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"" },
        { "a\xFF\xE2\x82z\xED\xA0\x80", 8,
          "\"a\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct strbuf b = { 0 };
        strbuf_put_json(&b, cases[i].text, cases[i].n);
        ck_assert_str_eq(b.text, cases[i].json);
        strbuf_free(&b);
    }
}
END_TEST

/* ---- utf8 ---- */

START_TEST(utf8_is_read_by_maximal_parts)
{
    static const struct {
        const char *text;
        uint32_t c;
        size_t used;
    } cases[] = {
        { "a", 'a', 1 },
        { "\x7F", 0x7F, 1 },
        { "\xC2\x80", 0x80, 2 },
        { "\xDF\xBF", 0x7FF, 2 },
        { "\xE0\xA0\x80", 0x800, 3 },
        { "\xED\x9F\xBF", 0xD7FF, 3 },
        { "\xEE\x80\x80", 0xE000, 3 },
        { "\xEF\xBF\xBF", 0xFFFF, 3 },
        { "\xF0\x90\x80\x80", 0x10000, 4 },
        { "\xF4\x8F\xBF\xBF", 0x10FFFF, 4 },
        /* ill-formed: the part that one U+FFFD replaces */
        { "\x80", UTF8_BAD, 1 },
        { "\xBF\xBF", UTF8_BAD, 1 },
        { "\xC0\x80", UTF8_BAD, 1 },
        { "\xC1\xBF", UTF8_BAD, 1 },
        { "\xC2", UTF8_BAD, 1 },
        { "\xC2"
          "a",
          UTF8_BAD, 1 },
        { "\xE0\x9F\xBF", UTF8_BAD, 1 },
        { "\xE0\xA0", UTF8_BAD, 2 },
        { "\xE2\x82"
          "a",
          UTF8_BAD, 2 },
        { "\xE2\xE2\x82", UTF8_BAD, 1 },
        { "\xED\xA0\x80", UTF8_BAD, 1 },
        { "\xF0\x8F\xBF\xBF", UTF8_BAD, 1 },
        { "\xF0\x90", UTF8_BAD, 2 },
        { "\xF0\x90\x80", UTF8_BAD, 3 },
        { "\xF1\x80\x80"
          "a",
          UTF8_BAD, 3 },
        { "\xF4\x90\x80\x80", UTF8_BAD, 1 },
        { "\xF5\x80\x80\x80", UTF8_BAD, 1 },
        { "\xFF", UTF8_BAD, 1 },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        /* in a block of exactly that size, so that a sanitizer detects a read past it */
        size_t n = strlen(cases[i].text), used = 0;
        char *exact = mem_copy(cases[i].text, n);
        ck_assert_msg(utf8_read(exact, n, &used) == cases[i].c && used == cases[i].used, "case %zu: %zu used",
                      i, used);
        ck_assert_int_eq(utf8_valid(exact, n), cases[i].c != UTF8_BAD);
        mem_free(exact);
    }
    ck_assert(utf8_valid("", 0));
    ck_assert(utf8_valid("a\0b", 3));
    ck_assert(!utf8_valid("abc\xC3", 4));
    size_t used;
    ck_assert_uint_eq(utf8_read("\0", 1, &used), 0);
}
END_TEST

START_TEST(every_character_is_written_and_read)
{
    size_t wrong = 0;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char text[4];
        size_t used = 0, n;
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        n = utf8_write(text, c);
        wrong += utf8_read(text, n, &used) != c || used != n;
        for (size_t k = 0; k < n; k++)
            wrong += utf8_incomplete(text, k) != (k > 0);
        wrong += n < 4 && utf8_incomplete(text, n);
    }
    ck_assert_uint_eq(wrong, 0);
    static const char *const never[] = { "a",
                                         "\x80",
                                         "\xC0",
                                         "\xE0\x80",
                                         "\xED\xA0",
                                         "\xF4\x90",
                                         "\xF5",
                                         "\xE2"
                                         "a",
                                         "\xF1\x80"
                                         "a" };
    for (size_t i = 0; i < COUNT(never); i++)
        ck_assert(!utf8_incomplete(never[i], strlen(never[i])));
}
END_TEST

/* ---- file ---- */

START_TEST(files_are_read_at_offsets)
{
    char *folder = support_temp_folder(), bytes[8] = "";
    const char *path = support_write(folder, "f", "0123456789", -1);
    struct file f;
    ck_ok(file_open(&f, path));
    ck_assert_uint_eq(f.size, 10);
    ck_assert_str_eq(f.path, path);
    ck_ok(file_read(&f, 3, bytes, 4));
    ck_assert_mem_eq(bytes, "3456", 4);
    ck_ok(file_read(&f, 10, bytes, 0));
    ck_ok(file_read(&f, 9, bytes, 1));
    ck_assert_int_eq(bytes[0], '9');
    ck_fails(file_read(&f, 8, bytes, 4), CINF_EIO, "ends at offset 10, where 2 more bytes");
    ck_fails(file_read(&f, 8, bytes, 4), CINF_EIO, path);
    ck_fails(file_read(&f, 100, bytes, 1), CINF_EIO, "ends at offset 100");
    ck_fails(file_read(&f, UINT64_MAX, bytes, 1), CINF_EIO, path);
    /* the file is shorter than when it was opened */
    ck_assert_int_eq(truncate(path, 4), 0);
    ck_fails(file_read(&f, 3, bytes, 4), CINF_EIO, "ends at offset 4");
    file_close(&f);
    file_close(&f);
}
END_TEST

START_TEST(only_regular_files_are_opened)
{
    char *folder = support_temp_folder(), path[256];
    struct file f = { .fd = 12345 };
    snprintf(path, sizeof path, "%s/pipe", folder);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_fails(file_open(&f, path), CINF_EINVAL, "is a device, pipe or socket, not a file");
    ck_fails(file_open(&f, folder), CINF_EINVAL, "is a folder, not a file");
    ck_fails(file_open(&f, "/dev/null"), CINF_EINVAL, "/dev/null: is a device");
    snprintf(path, sizeof path, "%s/absent", folder);
    ck_fails(file_open(&f, path), CINF_ENOTFOUND, "/absent: ");
    const char *plain = support_write(folder, "plain", "", -1);
    snprintf(path, sizeof path, "%s/below", plain);
    ck_fails(file_open(&f, path), CINF_ENOTFOUND, "/below: ");
    mem_fail_at(1);
    ck_fails(file_open(&f, plain), CINF_ENOMEM, "no memory");
    mem_fail_at(0);
    ck_assert_int_eq(f.fd, 12345);
}
END_TEST

START_TEST(a_link_without_its_file_is_broken)
{
    char *folder = support_temp_folder(), path[256];
    struct file f = { .fd = 12345 };
    snprintf(path, sizeof path, "%s/link", folder);
    ck_assert_int_eq(symlink("../blobs/0123", path), 0);
    ck_assert(path_exists(path) && !path_is_folder(path));
    ck_fails(file_open(&f, path), CINF_EIO, "/link: is a link to ../blobs/0123, which does not exist");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert(!path_exists(path));
    /* A folder on the way. */
    char below[300];
    ck_assert_int_eq(symlink("/nonexistent/model", path), 0);
    snprintf(below, sizeof below, "%s/a/config.json", path);
    ck_fails(file_open(&f, below), CINF_EIO, "/link/a/config.json: ");
    ck_fails(file_open(&f, below), CINF_EIO, "/link is a link to /nonexistent/model, which does not exist");
    ck_assert_int_eq(unlink(path), 0);
    ck_fails(file_open(&f, below), CINF_ENOTFOUND, "/link/a/config.json: No such file");
    ck_assert_int_eq(symlink("link", path), 0); /* to itself */
    ck_assert(path_exists(path));
    ck_fails(file_open(&f, path), CINF_EIO, "/link: ");
    ck_assert_int_eq(f.fd, 12345);
}
END_TEST

START_TEST(whole_files_are_loaded_up_to_a_limit)
{
    char *folder = support_temp_folder(), *text = folder;
    size_t n = 99;
    const char *path = support_write(folder, "f", "ab\0cd", 5);
    ck_fails(file_load(&text, &n, path, 4), CINF_EFORMAT, "has 5 bytes, more than the 4 allowed");
    for (uint64_t i = 1; i <= 2; i++) {
        mem_fail_at(i);
        ck_fails(file_load(&text, &n, path, 5), CINF_ENOMEM, path);
        mem_fail_at(0);
    }
    ck_fails(file_load(&text, &n, folder, 5), CINF_EINVAL, "folder");
    ck_assert(text == folder && n == 99);
    ck_ok(file_load(&text, &n, path, 5));
    ck_assert_uint_eq(n, 5);
    ck_assert_mem_eq(text, "ab\0cd", 6);
    mem_free(text);
    ck_ok(file_load(&text, &n, support_write(folder, "empty", "", 0), 0));
    ck_assert_uint_eq(n, 0);
    ck_assert_str_eq(text, "");
    mem_free(text);
}
END_TEST

START_TEST(paths)
{
    static const char *const cases[][3] = {
        { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "/", "b", "/b" }, { "", "b", "b" }, { "a", "", "a/" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *joined = path_join(cases[i][0], cases[i][1]);
        ck_assert_str_eq(joined, cases[i][2]);
        mem_free(joined);
    }
    char *folder = support_temp_folder();
    const char *path = support_write(folder, "f", "", 0);
    ck_assert(path_is_folder(folder) && path_exists(folder));
    ck_assert(!path_is_folder(path) && path_exists(path));
    ck_assert(!path_is_folder("/nonexistent") && !path_exists("/nonexistent"));
}
END_TEST

/* ---- json ---- */

START_TEST(json_that_is_accepted)
{
    static const char *const cases[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "10",
        "1.5",
        "0.0",
        "1e5",
        "1E+5",
        "1e-5",
        "-1.25e+10",
        "1e308",
        "1e-999",
        "0e999999999999",
        "0.0000000001e317",
        "179769313486231570e291",
        "\"\"",
        "\"a\"",
        "[]",
        "{}",
        "[1]",
        "[1,2,[3]]",
        "{\"a\":1}",
        "{\"a\":{\"a\":1},\"b\":[]}",
        " \t\r\n[ \n1 , 2 ] \n",
        "{ \"a\" : 1 , \"b\" : 2 }",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0041\\u00e9\\u20AC\"",
        "\"\\ud83d\\ude00\"",
        "\"\\uD800\\uDC00\\uDBFF\\uDFFF\"",
        "\"\\u0001\"",
        "\"\xC3\xA9\xE2\x82\xAC\"",
        "\"\x7F\"",
        "{\"\":1}",
        "{\"a\":1,\"A\":2}",
        "[\"\",\"\"]",
        "\"/\"",
        "0.1234567890123456789012345678901234567890123456789012345678901", /* 63 characters */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t n = strlen(cases[i]);
        char *exact = mem_copy(cases[i], n);
        cJSON *tree = NULL;
        ck_ok(json_check(exact, n, NULL));
        ck_ok(json_parse(&tree, exact, n, NULL));
        ck_assert_ptr_nonnull(tree);
        cJSON_Delete(tree);
        mem_free(exact);
    }
}
END_TEST

START_TEST(json_that_is_refused)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "", "unexpected end at byte 0" },
        { "  ", "unexpected end at byte 2" },
        { "nul", "unexpected character" },
        { "True", "unexpected character" },
        { "nullx", "text after the value" },
        { "1 2", "text after the value at byte 2" },
        { "{} {}", "text after the value" },
        { "\xEF\xBB\xBF{}", "unexpected character at byte 0" },
        { "//c\n1", "unexpected character" },
        { "/**/1", "unexpected character" },
        { "'a'", "unexpected character" },
        { "\v1", "unexpected character" },
        { "1\f", "text after" },
        { "\xC2\xA0"
          "1",
          "unexpected character" },
        /* numbers */
        { "01", "leading zero" },
        { "-01", "leading zero" },
        { "00", "leading zero" },
        { "+1", "unexpected character" },
        { "-", "unexpected character" },
        { "--1", "unexpected character" },
        { ".5", "unexpected character" },
        { "1.", "without digits after its point" },
        { "1.e5", "without digits after its point" },
        { "1e", "without digits in its exponent" },
        { "1e+", "without digits in its exponent" },
        { "1E5.5", "text after" },
        { "0x10", "text after" },
        { "1_000", "text after" },
        { "NaN", "unexpected character" },
        { "Infinity", "unexpected character" },
        { "-Infinity", "unexpected character" },
        { "1e309", "number too large" },
        { "-1e309", "number too large" },
        { "1e999999999999999999999", "number too large" },
        { "1.5e999", "number too large" },
        { "0.01e311", "number too large" },
        { "0.12345678901234567890123456789012345678901234567890123456789012", "more than 63 characters" },
        /* strings */
        { "\"", "unterminated string" },
        { "\"a", "unterminated string" },
        { "\"a\\\"", "unterminated string" },
        { "\"\\", "unknown escape" },
        { "\"\n\"", "control character" },
        { "\"\t\"", "control character" },
        { "\"\x01\"", "control character" },
        { "\"\x1F\"", "control character" },
        { "\"\\x41\"", "unknown escape" },
        { "\"\\'\"", "unknown escape" },
        { "\"\\U0041\"", "unknown escape" },
        { "\"\\u\"", "four hexadecimal digits" },
        { "\"\\u12\"", "four hexadecimal digits" },
        { "\"\\u12G4\"", "four hexadecimal digits" },
        { "\"\\u 123\"", "four hexadecimal digits" },
        { "\"\\u-123\"", "four hexadecimal digits" },
        { "\"\\u0000\"", "\\u0000 in a string" },
        { "{\"a\\u0000b\":1}", "\\u0000 in a string" },
        { "\"\\ud800\"", "lone surrogate" },
        { "\"\\ud800x\"", "lone surrogate" },
        { "\"\\ud800\\n\"", "lone surrogate" },
        { "\"\\ud800\\u0041\"", "lone surrogate" },
        { "\"\\ud800\\ud800\"", "lone surrogate" },
        { "\"\\udc00\"", "lone surrogate" },
        { "\"\\udc00\\ud800\"", "lone surrogate" },
        { "\"\x80\"", "not UTF-8 at byte 1" },
        { "\"\xC3\"", "not UTF-8" },
        { "\"\xC0\x80\"", "not UTF-8" },
        { "\"\xED\xA0\x80\"", "not UTF-8" },
        { "\"\xF4\x90\x80\x80\"", "not UTF-8" },
        { "\"\xE2\x82", "not UTF-8" },
        /* brackets */
        { "[", "unexpected end" },
        { "]", "unexpected character" },
        { "[1", "unexpected end" },
        { "[1,", "unexpected end" },
        { "[1,]", "unexpected character" },
        { "[,1]", "unexpected character" },
        { "[,]", "unexpected character" },
        { "[1 2]", "expected ',' or a closing bracket" },
        { "[1}", "expected ',' or a closing bracket" },
        { "{\"a\":1]", "expected ',' or a closing bracket" },
        { "{", "expected a key" },
        { "{1:2}", "expected a key" },
        { "{a:1}", "expected a key" },
        { "{\"a\"}", "expected ':'" },
        { "{\"a\" 1}", "expected ':'" },
        { "{\"a\":}", "unexpected character" },
        { "{\"a\":1,}", "expected a key" },
        { "{,}", "expected a key" },
        { "{\"a\":1 \"b\":2}", "expected ','" },
        { "{\"a\":1,\"a\":2}", "duplicate key \"a\"" },
        { "{\"a\":1,\"b\":2,\"\\u0061\":3}", "duplicate key \"a\"" },
        { "[{\"x\":{\"a\":1,\"a\":1}}]", "duplicate key \"a\"" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t n = strlen(cases[i].text);
        char *exact = mem_copy(cases[i].text, n);
        cJSON *untouched = (cJSON *)exact, *tree = untouched;
        ck_fails(json_parse(&tree, exact, n, NULL), CINF_EFORMAT, cases[i].words);
        ck_assert_ptr_eq(tree, untouched);
        mem_free(exact);
    }
    ck_fails(json_check("\"a\0b\"", 5, NULL), CINF_EFORMAT, "control character in a string at byte 2");
    ck_fails(json_check("1\0", 2, NULL), CINF_EFORMAT, "text after the value at byte 1");
    ck_fails(json_check("[\0]", 3, NULL), CINF_EFORMAT, "unexpected character at byte 1");
    ck_fails(json_check("\"\\\0\"", 4, NULL), CINF_EFORMAT, "unknown escape");
}
END_TEST

START_TEST(json_limits)
{
    char deep[2048];
    for (size_t depth = 1; depth <= 600; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        struct json_limits most = { .depth_max = 100000 }, three = { .depth_max = 3 };
        ck_assert_int_eq(json_check(deep, 2 * depth, NULL), depth <= 32 ? CINF_OK : CINF_EFORMAT);
        ck_assert_int_eq(json_check(deep, 2 * depth, &three), depth <= 3 ? CINF_OK : CINF_EFORMAT);
        ck_assert_int_eq(json_check(deep, 2 * depth, &most), depth <= 512 ? CINF_OK : CINF_EFORMAT);
        if (depth == 512) {
            cJSON *tree;
            ck_ok(json_parse(&tree, deep, 2 * depth, &most));
            cJSON_Delete(tree);
        }
    }
    static const char mixed[] = "{\"a\":[{\"b\":1}]}", two[] = "{\"a\":1,\"b\":{\"c\":1,\"d\":2}}";
    ck_ok(json_check(mixed, strlen(mixed), &(struct json_limits){ .depth_max = 3 }));
    ck_fails(json_check(mixed, strlen(mixed), &(struct json_limits){ .depth_max = 2 }), CINF_EFORMAT,
             "nested too deeply at byte 6");
    ck_ok(json_check(two, strlen(two), &(struct json_limits){ .members_max = 2 }));
    ck_fails(json_check(two, strlen(two), &(struct json_limits){ .members_max = 1 }), CINF_EFORMAT,
             "too many keys");
    ck_ok(json_check("[1,2,[]]", 8, &(struct json_limits){ .values_max = 4 }));
    ck_fails(json_check("[1,2,[]]", 8, &(struct json_limits){ .values_max = 3 }), CINF_EFORMAT,
             "too many values at byte 5");
    /* Siblings add no depth, and the members of a closed object do not count for the next one. */
    static const char flat[] = "[{\"a\":1},{\"a\":1},{\"a\":1}]";
    ck_ok(json_check(flat, strlen(flat), &(struct json_limits){ .depth_max = 2, .members_max = 1 }));
}
END_TEST

/* What Python's json writes and reads, where a caller wants that. */
START_TEST(json_of_python)
{
    static const char *const cases[] = {
        "Infinity",
        "-Infinity",
        "NaN",
        "\xEF\xBB\xBF{}",
        "[Infinity,-Infinity , NaN]",
        "{\"a\":NaN,\"b\":{\"c\":-Infinity}}",
    };
    const struct json_limits limits = { .python = true };
    cJSON *tree;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t n = strlen(cases[i]);
        ck_ok(json_check(cases[i], n, &limits));
        ck_ok(json_parse(&tree, cases[i], n, &limits));
        cJSON_Delete(tree);
        ck_assert_int_eq(json_check(cases[i], n, NULL), CINF_EFORMAT);
        ck_assert_int_eq(json_parse(&tree, cases[i], n, NULL), CINF_EFORMAT);
    }
    static const char *const bad[] = {
        "Inf", "-NaN", "nan", "+Infinity", "Infinityx", "\xEF\xBB\xBF", "\xEF\xBB\xBF\xEF\xBB\xBF{}"
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        ck_fails(json_check(bad[i], strlen(bad[i]), &limits), CINF_EFORMAT, "JSON: ");
    /* Words within strings are text, and a number that is none is refused where one is wanted. */
    static const char text[] = "\xEF\xBB\xBF{\"NaN\":\"-Infinity\\\"NaN\",\"x\":-Infinity,\"y\":NaN}";
    double value = 7;
    ck_ok(json_parse(&tree, text, strlen(text), &limits));
    ck_assert_str_eq(json_member(tree, "NaN")->valuestring, "-Infinity\"NaN");
    ck_assert(json_member(tree, "x")->valuedouble < -1e308);
    ck_fails(json_read_double(&value, tree, "x", 0, 1e300), CINF_EINVAL, "\"x\" must be a number");
    ck_fails(json_read_double(&value, tree, "y", 0, 1e300), CINF_EINVAL, "\"y\" must be a number");
    ck_assert(value == 7);
    cJSON_Delete(tree);
    mem_fail_at(1);
    ck_fails(json_parse(&tree, text, strlen(text), &limits), CINF_ENOMEM, "no memory for a copy");
    mem_fail_at(0);
}
END_TEST

START_TEST(json_memory_failures)
{
    cJSON *tree = NULL;
    mem_fail_at(1);
    ck_fails(json_parse(&tree, "{\"a\":1,\"b\":2}", 13, NULL), CINF_ENOMEM, "2 keys");
    mem_fail_at(0);
    ck_assert_ptr_null(tree);
}
END_TEST

START_TEST(json_members_are_read_by_type)
{
    static const char text[] =
        "{\"i\":-7,\"big\":9007199254740992,\"huge\":1e300,\"d\":0.5,\"t\":true,\"f\":false,"
        "\"s\":\"text\",\"n\":null,\"o\":{},\"I\":8,\"edge\":9223372036854775808}";
    cJSON *tree;
    int64_t i = 1;
    double d = 1;
    bool b = true;
    const char *s = "kept";
    ck_ok(json_parse(&tree, text, strlen(text), NULL));
    ck_assert_ptr_nonnull(json_member(tree, "i"));
    ck_assert_ptr_null(json_member(tree, "n"));
    ck_assert_ptr_null(json_member(tree, "absent"));
    ck_assert_ptr_null(json_member(NULL, "i"));
    ck_assert_ptr_ne(json_member(tree, "i"), json_member(tree, "I"));

    ck_ok(json_read_int(&i, tree, "absent", 0, 9));
    ck_ok(json_read_int(&i, tree, "n", 0, 9));
    ck_ok(json_read_double(&d, tree, "n", 0, 9));
    ck_ok(json_read_bool(&b, tree, "n"));
    ck_ok(json_read_text(&s, tree, "n"));
    ck_assert(i == 1 && d == 1 && b);
    ck_assert_str_eq(s, "kept");

    ck_fails(json_read_int(&i, tree, "i", -6, 9), CINF_EINVAL, "\"i\" must be an integer from -6 to 9");
    ck_fails(json_read_int(&i, tree, "i", -9, -8), CINF_EINVAL, "\"i\"");
    ck_fails(json_read_int(&i, tree, "d", 0, 9), CINF_EINVAL, "\"d\"");
    ck_fails(json_read_int(&i, tree, "s", 0, 9), CINF_EINVAL, "\"s\"");
    ck_fails(json_read_int(&i, tree, "t", 0, 9), CINF_EINVAL, "\"t\"");
    ck_fails(json_read_int(&i, tree, "huge", INT64_MIN, INT64_MAX), CINF_EINVAL, "\"huge\"");
    ck_fails(json_read_int(&i, tree, "edge", INT64_MIN, INT64_MAX), CINF_EINVAL, "\"edge\"");
    ck_fails(json_read_double(&d, tree, "d", 0.6, 1), CINF_EINVAL, "\"d\" must be a number from 0.6 to 1");
    ck_fails(json_read_double(&d, tree, "s", 0, 1), CINF_EINVAL, "\"s\"");
    ck_fails(json_read_bool(&b, tree, "i"), CINF_EINVAL, "\"i\" must be true or false");
    ck_fails(json_read_text(&s, tree, "i"), CINF_EINVAL, "\"i\" must be a string");
    ck_assert(i == 1 && d == 1 && b);
    ck_assert_str_eq(s, "kept");

    ck_ok(json_read_int(&i, tree, "i", -7, -7));
    ck_assert_int_eq(i, -7);
    ck_ok(json_read_int(&i, tree, "big", INT64_MIN, INT64_MAX));
    ck_assert_int_eq(i, 9007199254740992);
    ck_ok(json_read_double(&d, tree, "d", 0.5, 0.5));
    ck_assert_double_eq(d, 0.5);
    ck_ok(json_read_bool(&b, tree, "f"));
    ck_assert(!b);
    ck_ok(json_read_bool(&b, tree, "t"));
    ck_assert(b);
    ck_ok(json_read_text(&s, tree, "s"));
    ck_assert_str_eq(s, "text");
    cJSON_Delete(tree);
}
END_TEST

/* ---- clock ---- */

/* Beyond 2^53 two integers may be one double. */
START_TEST(json_integers_are_exact)
{
    static const struct {
        const char *text;
        int64_t value; /* 0: refused */
    } cases[] = {
        { "9007199254740993", INT64_C(9007199254740993) },
        { "-9007199254740993", -INT64_C(9007199254740993) },
        { "9223372036854775807", INT64_MAX },
        { "-9223372036854775808", INT64_MIN },
        { "9223372036854775808", 0 },
        { "-9223372036854775809", 0 },
        { "123456789012345", INT64_C(123456789012345) },
        { "1.0", 1 },
        { "1e3", 1000 },
        { "-2.5e1", -25 },
        { "1e18", 0 },
        { "9007199254740993.0", 0 },
        { "1.0000000000000000000001", 0 },
        { "1e300", 0 },
        { "0.5", 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[200];
        cJSON *tree;
        int64_t value = 77, first = 0, last = 0;
        snprintf(text, sizeof text,
                 "{\"a\":12345678901234567,\"\\\\\\\"1\":[[],\"9\\\"8\",{\"b\":1}],\"x\":%s "
                 ",\"z\":-1234567890123456}",
                 cases[i].text);
        ck_ok(json_parse(&tree, text, strlen(text), NULL));
        enum cinf_status status = json_read_int(&value, tree, "x", INT64_MIN, INT64_MAX);
        ck_assert_msg(status == (cases[i].value ? CINF_OK : CINF_EINVAL), "%s", cases[i].text);
        ck_assert_int_eq(value, cases[i].value ? cases[i].value : 77);
        ck_ok(json_read_int(&first, tree, "a", 0, INT64_MAX));
        ck_ok(json_read_int(&last, tree, "z", INT64_MIN, 0));
        ck_assert_int_eq(first, INT64_C(12345678901234567));
        ck_assert_int_eq(last, -INT64_C(1234567890123456));
        cJSON_Delete(tree);
    }
}
END_TEST

START_TEST(clocks_go_forward_in_nanoseconds)
{
    uint64_t wall = clock_monotonic_ns(), cpu = clock_process_cpu_ns();
    struct timespec pause = { .tv_nsec = 20000000 };
    while (nanosleep(&pause, &pause) != 0) {
    }
    uint64_t slept = clock_monotonic_ns() - wall, used = clock_process_cpu_ns() - cpu;
    ck_assert_uint_ge(slept, 20000000);
    ck_assert_uint_lt(slept, 20000000000u);
    ck_assert_uint_lt(used, slept);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("base");
    TCase *c = tcase_create("fail");
    suite_add_tcase(s, c);
    tcase_add_test(c, a_failure_is_a_code_and_a_line);
    tcase_add_test(c, a_message_is_one_line_of_utf8);
    tcase_add_test(c, a_message_belongs_to_its_thread);
    tcase_add_test(c, every_code_has_its_name);
    tcase_add_test(c, try_hands_a_failure_up);
    c = tcase_create("mem");
    suite_add_tcase(s, c);
    tcase_add_test(c, new_memory_is_zeroed_and_never_null_for_nothing);
    tcase_add_test(c, products_that_overflow_are_refused);
    tcase_add_test(c, copies_and_growth_keep_what_was_there);
    tcase_add_test(c, the_nth_allocation_fails_once);
    c = tcase_create("strbuf");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 30);
    tcase_add_test(c, text_grows);
    tcase_add_test(c, texts_end);
    tcase_add_test(c, text_remembers_that_memory_ran_out);
    tcase_add_test(c, doubles_are_shortest_and_read_back);
    tcase_add_test(c, numbers_do_not_depend_on_the_locale);
    tcase_add_test(c, json_strings_are_escaped);
    c = tcase_create("utf8");
    suite_add_tcase(s, c);
    tcase_add_test(c, utf8_is_read_by_maximal_parts);
    tcase_add_test(c, every_character_is_written_and_read);
    c = tcase_create("file");
    suite_add_tcase(s, c);
    tcase_add_test(c, files_are_read_at_offsets);
    tcase_add_test(c, only_regular_files_are_opened);
    tcase_add_test(c, a_link_without_its_file_is_broken);
    tcase_add_test(c, whole_files_are_loaded_up_to_a_limit);
    tcase_add_test(c, paths);
    c = tcase_create("json");
    suite_add_tcase(s, c);
    tcase_add_test(c, json_that_is_accepted);
    tcase_add_test(c, json_that_is_refused);
    tcase_add_test(c, json_limits);
    tcase_add_test(c, json_of_python);
    tcase_add_test(c, json_memory_failures);
    tcase_add_test(c, json_members_are_read_by_type);
    tcase_add_test(c, json_integers_are_exact);
    c = tcase_create("clock");
    suite_add_tcase(s, c);
    tcase_add_test(c, clocks_go_forward_in_nanoseconds);
    return s;
}
