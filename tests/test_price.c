/* test_price.c - the expected texts were computed with Python's decimal module: ns * nanodollars /
 * 3.6e21, ROUND_HALF_UP to 12 decimals. */
#include <costinfer/meter.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

START_TEST(cost_is_rounded_half_up_to_twelve_decimals)
{
    static const struct {
        uint64_t ns, nanodollars;
        const char *text;
    } cases[] = {
        { 0, 0, "0.000000000000" },
        { 1, 1, "0.000000000000" },
        { 3600000000000, 2500000000, "2.500000000000" },
        { 20000000000, 100000000, "0.000555555556" },
        { 1, 1799999999, "0.000000000000" }, /* just below half a pico-dollar */
        { 1, 1800000000, "0.000000000001" }, /* half of one */
        { 2, 1800000000, "0.000000000001" },
        { 3, 1800000000, "0.000000000002" }, /* half up, not half to even */
        { 5, 1800000000, "0.000000000003" },
        { 1000000000, 1000000000, "0.000277777778" },
        { 86400000000000, 2500000000, "60.000000000000" },
        { UINT64_MAX, 1000000000000000, "5124095576030.431004166667" },
        { UINT64_MAX, UINT64_MAX, "94522879700260684.285133644246" },
        { 621430, 140040411, "0.000000024174" },
        { 81056776, 83982758, "0.000001890937" },
        { 76134610055285, 67042505171160, "1417848.607871026318" },
        { 686194187, 32638103374918, "6.221132447382" },
        { 9203796381109, 254121, "0.000649688317" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[CINF_COST_TEXT_MAX];
        struct cinf_cost cost = cinf_cost_of(cases[i].ns, cases[i].nanodollars);
        const char *returned = cinf_cost_format(text, cost);
        ck_assert_ptr_eq(returned, text);
        ck_assert_str_eq(text, cases[i].text);
        double expected = strtod(cases[i].text, NULL);
        ck_assert(fabs(cinf_cost_dollars(cost) - expected) <= 1e-12 + 1e-15 * expected);
    }
    char text[CINF_COST_TEXT_MAX];
    ck_assert_str_eq(cinf_cost_format(text, (struct cinf_cost){ UINT64_MAX, UINT64_MAX }),
                     "94522879700260684.295381835398");
}
END_TEST

START_TEST(costs_add_exactly_and_compare)
{
    /* A million intervals of 1 ns cost as much as one interval of a million. */
    struct cinf_cost sum = { 0 };
    for (int i = 0; i < 1000000; i++)
        sum = cinf_cost_add(sum, cinf_cost_of(1, 1234567891));
    ck_assert_int_eq(cinf_cost_compare(sum, cinf_cost_of(1000000, 1234567891)), 0);

    struct cinf_cost low = { 0, UINT64_MAX }, one = { 0, 1 };
    struct cinf_cost carried = cinf_cost_add(low, one);
    ck_assert_uint_eq(carried.hi, 1);
    ck_assert_uint_eq(carried.lo, 0);
    ck_assert_int_lt(cinf_cost_compare(low, carried), 0);
    ck_assert_int_gt(cinf_cost_compare(carried, low), 0);

    struct cinf_cost all = { UINT64_MAX, UINT64_MAX };
    ck_assert_int_eq(cinf_cost_compare(cinf_cost_add(all, one), all), 0);
}
END_TEST

START_TEST(prices_that_are_read)
{
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {
        { "0", 0 },
        { "0.0", 0 },
        { "2.50", 2500000000 },
        { "2.5", 2500000000 },
        { "0.10", 100000000 },
        { "0.000000001", 1 },
        { "1.000000001", 1000000001 },
        { "007", 7000000000 },
        { "999999.999999999", 999999999999999 },
        { "1000000", 1000000000000000 },
        { "1000000.000000000", 1000000000000000 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t value = 1;
        ck_ok(cinf_price_parse(&value, cases[i].text));
        ck_assert_uint_eq(value, cases[i].value);
    }
}
END_TEST

START_TEST(prices_that_are_refused)
{
    static const char *const cases[] = {
        "",
        " ",
        "-1",
        "-0",
        "+1",
        ".5",
        "5.",
        ".",
        "1.2.3",
        "1e3",
        "1E3",
        "0x10",
        "1,50",
        "1 ",
        " 1",
        "1\n",
        "NaN",
        "inf",
        "$2",
        "2$",
        "1_000",
        "1.5e0",
        "1..5",
        "1.-5",
        "\xD9\xA1",
        "1000000.000000001",
        "1000001",
        "9999999",
        "10000000",
        "0.0000000001",
        "1.0000000000",
        "18446744073709551616",
        "18446744073709551617.5",
        "99999999999999999999999999999999999999999",
        "999999999999999999999999999x",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t value = 77;
        enum cinf_status status = cinf_price_parse(&value, cases[i]);
        ck_assert_msg(status == CINF_EINVAL, "\"%s\" was accepted", cases[i]);
        ck_assert_uint_eq(value, 77);
        ck_assert(!strchr(cinf_last_error(), '\n'));
    }
    uint64_t value;
    ck_fails(cinf_price_parse(&value, "2.5x"), CINF_EINVAL, "byte 3");
    ck_fails(cinf_price_parse(&value, "1000000.1"), CINF_EINVAL, "at most 1000000");
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("price");
    TCase *t = tcase_create("price");
    tcase_add_test(t, cost_is_rounded_half_up_to_twelve_decimals);
    tcase_add_test(t, costs_add_exactly_and_compare);
    tcase_add_test(t, prices_that_are_read);
    tcase_add_test(t, prices_that_are_refused);
    suite_add_tcase(s, t);
    return s;
}
