/* Times are added up by name, the longest comes first, and rows beyond the array's size are left out. */
#include <stdio.h>
#include <string.h>

#include "profile.h"
#include "support.h"

START_TEST(rows)
{
    struct profile p = { .n = 0 };
    struct profile_row row = { .name = "untouched" };
    ck_assert(!profile_row(&p, 0, &row));
    profile_add(&p, "norm", 5);
    profile_add(&p, "attend", 7);
    profile_add(&p, "norm", 1);
    profile_add(&p, "product", 40);
    static const struct profile_row expected[] = { { "product", 1, 40 },
                                                   { "attend", 1, 7 },
                                                   { "norm", 2, 6 } };
    ck_assert(!profile_row(&p, 3, &row));
    ck_assert_str_eq(row.name, "untouched");
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert(profile_row(&p, i, &row));
        ck_assert_str_eq(row.name, expected[i].name);
        ck_assert_uint_eq(row.launches, expected[i].launches);
        ck_assert_uint_eq(row.ns, expected[i].ns);
    }
    profile_add(&p, "norm", 100);
    ck_assert(profile_row(&p, 0, &row));
    ck_assert_str_eq(row.name, "norm");
}
END_TEST

START_TEST(many_names)
{
    struct profile p = { .n = 0 };
    struct profile_row row;
    char name[100];
    for (uint32_t i = 0; i < PROFILE_ROWS_MAX + 3; i++) {
        snprintf(name, sizeof name, "%u", i);
        profile_add(&p, name, 1000 - i);
    }
    ck_assert_uint_eq(p.n, PROFILE_ROWS_MAX);
    profile_add(&p, "0", 1);
    ck_assert(profile_row(&p, 0, &row) && row.ns == 1001 && row.launches == 2);
    ck_assert(profile_row(&p, PROFILE_ROWS_MAX - 1, &row) && row.ns == 1000 - PROFILE_ROWS_MAX + 1);

    /* A truncated name is counted in the same row again. */
    p.n = 0;
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    profile_add(&p, name, 1);
    profile_add(&p, name, 1);
    ck_assert(profile_row(&p, 0, &row) && strlen(row.name) == sizeof row.name - 1);
    ck_assert_uint_eq(row.launches, 2);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("profile");
    TCase *t = tcase_create("rows");
    tcase_add_test(t, rows);
    tcase_add_test(t, many_names);
    suite_add_tcase(s, t);
    return s;
}
