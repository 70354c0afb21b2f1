#include <unistd.h>

#include "checkpoint_builder.h"
#include "zip_directory.h"

static struct blob b;
static struct zip_places z;
static struct file f;
static struct zip_directory zip;
static char *folder;

static void setup(void)
{
    folder = support_temp_folder();
}

static void teardown(void)
{
    zip_directory_free(&zip);
    file_close(&f);
}

static void build(bool zip64)
{
    zip_begin(&z, &b);
    zip_add(&z, &b, "m/data.pkl", "pickle", 6);
    zip_add(&z, &b, "m/data/10", "0123456789", 10);
    zip_add(&z, &b, "m/data/0", "", 0);
    zip_finish(&z, &b, zip64);
}

static enum cinf_status read_it(void)
{
    zip_directory_free(&zip);
    file_close(&f);
    ck_ok(file_open(&f, support_write(folder, "z.bin", b.bytes, (long)b.n)));
    return zip_directory_read(&zip, &f);
}

#define REFUSED(words)                                                                                       \
    do {                                                                                                     \
        ck_fails(read_it(), CINF_EFORMAT, words);                                                            \
        ck_assert_ptr_null(zip.entries);                                                                     \
    } while (0)

/* A field of entry i in the directory. */
static void lie(unsigned i, size_t field, uint64_t value, size_t width)
{
    build(false);
    set_number(&b, z.at_directory + z.entries[i] + field, value, width);
}

static void lie_at_end(size_t field, uint64_t value, size_t width)
{
    build(false);
    set_number(&b, z.at_end + field, value, width);
}

static void lie_at_end64(size_t field, uint64_t value, size_t width)
{
    build(true);
    set_number(&b, z.at_end64 + field, value, width);
}

START_TEST(entries)
{
    for (int zip64 = 0; zip64 < 2; zip64++) {
        char bytes[10];
        build(zip64);
        ck_ok(read_it());
        ck_assert_uint_eq(zip.n, 3);
        const struct zip_entry *e = zip_directory_find(&zip, "m/data/10", 9);
        ck_assert_uint_eq(e->size, 10);
        ck_ok(file_read(&f, e->offset, bytes, 10));
        ck_assert_mem_eq(bytes, "0123456789", 10);
        ck_assert_uint_eq(zip_directory_find(&zip, "m/data/0", 8)->size, 0);
        ck_assert_ptr_null(zip_directory_find(&zip, "m/data/1", 8));
        ck_assert_ptr_null(zip_directory_find(&zip, "", 0));
        ck_assert_ptr_null(zip_directory_find(&zip, "z", 1));
    }
}
END_TEST

START_TEST(empty_archive_and_comment)
{
    zip_begin(&z, &b);
    zip_finish(&z, &b, false);
    ck_ok(read_it());
    ck_assert_uint_eq(zip.n, 0);
    ck_assert_ptr_null(zip_directory_find(&zip, "m", 1));

    build(false);
    set_number(&b, z.at_end + 20, 300, 2);
    for (int i = 0; i < 300; i++)
        put_text(&b, i % 50 ? "c" : "P");
    ck_ok(read_it());
    ck_assert_uint_eq(zip.n, 3);
}
END_TEST

START_TEST(end_record)
{
    build(false);
    b.n--;
    REFUSED("no end record");
    build(false);
    put_text(&b, "x");
    REFUSED("no end record");
    b.n = 0;
    put_text(&b, "PK\3\4");
    REFUSED("no end record");
    lie_at_end(4, 1, 2);
    REFUSED("several disks");
    lie_at_end(6, 1, 2);
    REFUSED("several disks");
    lie_at_end(8, 2, 2);
    REFUSED("several disks");
    lie_at_end(10, 4, 2);
    set_number(&b, z.at_end + 8, 4, 2);
    REFUSED("4 entries in a directory of 165 bytes");
    lie_at_end(10, 2, 2);
    set_number(&b, z.at_end + 8, 2, 2);
    REFUSED("bytes beyond its entries");
    lie_at_end(10, 60000, 2);
    set_number(&b, z.at_end + 8, 60000, 2);
    REFUSED("60000 entries in a directory of");
    lie_at_end(12, z.directory.n - 1, 4);
    REFUSED("says that its directory has");
    lie_at_end(12, 0xFFFFFFFE, 4);
    REFUSED("says that its directory has 4294967294 bytes");
    lie_at_end(16, z.at_directory + 1, 4);
    REFUSED("says that its directory has");
    lie_at_end(16, 0xFFFFFFFF, 4);
    REFUSED("at offset 4294967295");
}
END_TEST

START_TEST(zip64_records)
{
    /* The 32-bit values may defer to the zip64 ones. */
    build(true);
    set_number(&b, z.at_end + 8, 0xFFFFFFFF, 4);
    set_number(&b, z.at_end + 12, 0xFFFFFFFF, 4);
    set_number(&b, z.at_end + 16, 0xFFFFFFFF, 4);
    ck_ok(read_it());
    ck_assert_uint_eq(zip.n, 3);

    lie_at_end64(0, 0, 4);
    REFUSED("locator points at something else");
    lie_at_end64(4, 45, 8);
    REFUSED("locator points at something else");
    lie_at_end64(4, UINT64_MAX, 8);
    REFUSED("locator points at something else");
    lie_at_end64(32, 2, 8);
    REFUSED("disagree");
    lie_at_end64(40, UINT64_MAX, 8);
    REFUSED("disagree");
    lie_at_end64(48, 0, 8);
    REFUSED("disagree");
    lie_at_end64(16, 1, 4);
    REFUSED("several disks");
    lie_at_end64(24, 1, 8);
    REFUSED("several disks");
    lie_at_end64(56 + 8, z.at_end64 + 1, 8);
    REFUSED("locator points outside the file");
    lie_at_end64(56 + 8, UINT64_MAX, 8);
    REFUSED("locator points outside the file");
    lie_at_end64(56 + 8, UINT64_MAX - 55, 8);
    REFUSED("locator points outside the file");
    lie_at_end64(56 + 8, 0, 8);
    REFUSED("locator points at something else");

    /* Deferred values that lie. */
    lie_at_end64(32, UINT64_MAX, 8);
    set_number(&b, z.at_end64 + 24, UINT64_MAX, 8);
    set_number(&b, z.at_end + 8, 0xFFFFFFFF, 4);
    REFUSED("18446744073709551615 entries");
    lie_at_end64(48, UINT64_MAX - 1, 8);
    set_number(&b, z.at_end + 16, 0xFFFFFFFF, 4);
    REFUSED("says that its directory has");
}
END_TEST

START_TEST(directory_entries)
{
    lie(0, 0, 0, 4);
    REFUSED("directory is malformed");
    lie(1, 8, 1, 2);
    REFUSED("zip entry \"m/data/10\": is encrypted");
    lie(1, 10, 8, 2);
    REFUSED("zip entry \"m/data/10\": is compressed");
    lie(1, 20, 9, 4);
    REFUSED("two sizes differ");
    lie(1, 34, 1, 2);
    REFUSED("another disk");
    lie(2, 28, 60000, 2);
    REFUSED("directory is malformed");
    lie(2, 30, 1, 2);
    REFUSED("directory is malformed");
    lie(1, 42, z.at_directory, 4);
    REFUSED("its local header lies outside the file");
    lie(1, 42, 0xFFFFFFFE, 4);
    REFUSED("its local header lies outside the file");
    lie(1, 42, z.locals[1] + 1, 4);
    REFUSED("its local header is something else");
    lie(1, 42, z.locals[0], 4);
    REFUSED("its local header is something else");
    lie(1, 42, 0xFFFFFFFF, 4);
    REFUSED("zip64 sizes are missing");
    /* Both sizes alike, beyond the directory; and into the next entry. */
    lie(1, 20, 5000, 4);
    set_number(&b, z.at_directory + z.entries[1] + 24, 5000, 4);
    REFUSED("its bytes lie outside the file");
    lie(1, 20, 0xFFFFFFFE, 4);
    set_number(&b, z.at_directory + z.entries[1] + 24, 0xFFFFFFFE, 4);
    REFUSED("its bytes lie outside the file");
    lie(0, 20, 60, 4);
    set_number(&b, z.at_directory + z.entries[0] + 24, 60, 4);
    REFUSED("overlaps another entry");
}
END_TEST

START_TEST(local_headers)
{
    build(false);
    set_number(&b, z.locals[1], 0, 4);
    REFUSED("its local header is something else");
    build(false);
    set_number(&b, z.locals[1] + 26, 8, 2);
    REFUSED("its local header is something else");
    build(false);
    set_number(&b, z.locals[1] + 28, 65535, 2);
    REFUSED("its bytes lie outside the file");
    build(false);
    b.bytes[z.locals[1] + 30] = 'x';
    REFUSED("another name");
}
END_TEST

START_TEST(names_twice)
{
    zip_begin(&z, &b);
    zip_add(&z, &b, "a/x", "1", 1);
    zip_add(&z, &b, "a/x", "2", 1);
    zip_finish(&z, &b, false);
    REFUSED("zip entry \"a/x\": occurs twice");
    zip_begin(&z, &b);
    zip_add(&z, &b, "a/\x1b\n\xff", "1", 1);
    zip_add(&z, &b, "a/\x1b\n\xff", "2", 1);
    zip_finish(&z, &b, false);
    REFUSED("zip entry \"a/\?\?\?\": occurs twice");
}
END_TEST

/* Sizes and offset moved into a zip64 extra field, which lists only the values that are all ones. */
static void build_extra(uint64_t size, uint64_t packed, uint64_t offset, unsigned n_values)
{
    zip_begin(&z, &b);
    zip_add(&z, &b, "a", "0123456789", 10);
    set_number(&z.directory, 20, 0xFFFFFFFF, 4);
    set_number(&z.directory, 24, 0xFFFFFFFF, 4);
    set_number(&z.directory, 42, 0xFFFFFFFF, 4);
    set_number(&z.directory, 30, 8 + 4 + 8 * n_values, 2);
    put(&z.directory, "\x99\x99\4\0abcd", 8);
    put_number(&z.directory, 1, 2);
    put_number(&z.directory, 8 * n_values, 2);
    put_number(&z.directory, size, 8);
    put_number(&z.directory, packed, 8);
    if (n_values == 3)
        put_number(&z.directory, offset, 8);
    zip_finish(&z, &b, false);
}

START_TEST(zip64_extra_field)
{
    build_extra(10, 10, 0, 3);
    ck_ok(read_it());
    ck_assert_uint_eq(zip.entries[0].size, 10);
    build_extra(10, 10, 0, 2);
    REFUSED("zip64 sizes are missing");
    build_extra(UINT64_MAX, UINT64_MAX, 0, 3);
    REFUSED("its bytes lie outside the file");
    build_extra(10, 10, UINT64_MAX, 3);
    REFUSED("its local header lies outside the file");
    build_extra(10, 10, UINT64_MAX - 20, 3);
    REFUSED("its local header lies outside the file");
    build_extra(10, 9, 0, 3);
    REFUSED("two sizes differ");
    build_extra(10, 10, 0, 3);
    set_number(&b, z.at_directory + 46 + 1 + 2, 60000, 2); /* the length of the field before */
    REFUSED("zip64 sizes are missing");
}
END_TEST

START_TEST(checksums)
{
    static struct zip_checker checker;
    crc32_init(&checker.crc);
    for (int wrong = 0; wrong < 2; wrong++) {
        build(true);
        set_number(&b, z.at_directory + z.entries[1] + 16, wrong ? 0xA684C7C7 : 0xA684C7C6, 4);
        ck_ok(read_it());
        struct zip_entry *e = zip_directory_find(&zip, "m/data/10", 9);
        ck_assert(!e->intact);
        ck_ok(zip_entry_check(e, &f, &checker));
        ck_assert_int_eq(e->intact, !wrong);
        /* Without a checksum nothing is checked. */
        e = zip_directory_find(&zip, "m/data.pkl", 10);
        ck_assert_uint_eq(e->crc, 0);
        ck_ok(zip_entry_check(e, &f, &checker));
        ck_assert(e->intact);
    }
    /* One that is longer than the buffer, and a file that shrinks. */
    static char bytes[3 * sizeof checker.bytes / 2];
    uint32_t sum = crc32_add(&checker.crc, 0, bytes, sizeof bytes);
    zip_begin(&z, &b);
    zip_add(&z, &b, "long", bytes, sizeof bytes);
    zip_finish(&z, &b, false);
    set_number(&b, z.at_directory + 16, sum, 4);
    ck_ok(read_it());
    ck_ok(zip_entry_check(&zip.entries[0], &f, &checker));
    ck_assert(zip.entries[0].intact);
    zip.entries[0].intact = false;
    ck_assert_int_eq(truncate(f.path, 40000), 0);
    ck_assert_int_eq(zip_entry_check(&zip.entries[0], &f, &checker), CINF_EIO);
    ck_assert(!zip.entries[0].intact);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("zip_directory");
    TCase *t = tcase_create("zip_directory");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, entries);
    tcase_add_test(t, empty_archive_and_comment);
    tcase_add_test(t, end_record);
    tcase_add_test(t, zip64_records);
    tcase_add_test(t, directory_entries);
    tcase_add_test(t, local_headers);
    tcase_add_test(t, names_twice);
    tcase_add_test(t, zip64_extra_field);
    tcase_add_test(t, checksums);
    suite_add_tcase(s, t);
    return s;
}
