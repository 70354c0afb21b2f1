/* test_exposition.c - the writer of both formats.  exposition_check.py reads pages back with the parsers of
 * others. */
#include <costinfer/exposition.h>

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exposition_nanos.h"
#include "mem.h"
#include "support.h"

#define OM CINF_EXPOSITION_OPENMETRICS
#define TX CINF_EXPOSITION_TEXT

static struct cinf_exposition *page;

static void begin(enum cinf_exposition_format format)
{
    ck_ok(cinf_exposition_new(&page, format));
}

static void ends_as(const char *expected)
{
    const char *text;
    size_t n;
    ck_ok(cinf_exposition_finish(page, &text, &n));
    ck_assert_str_eq(text, expected);
    ck_assert_uint_eq(n, strlen(expected));
    ck_ok(cinf_exposition_finish(page, &text, &n)); /* again: the same */
    ck_assert_str_eq(text, expected);
    cinf_exposition_free(page);
}

static void fails_with(const char *words)
{
    const char *text = "untouched";
    size_t n = 77;
    ck_fails(cinf_exposition_finish(page, &text, &n), CINF_EINVAL, words);
    ck_assert_str_eq(text, "untouched");
    ck_assert_uint_eq(n, 77);
    cinf_exposition_free(page);
}

START_TEST(empty_pages)
{
    begin(TX);
    ends_as("");
    begin(OM);
    ends_as("# EOF\n");
    cinf_exposition_free(NULL);
}
END_TEST

static void sheep(enum cinf_exposition_format format)
{
    const struct cinf_label labels[] = { { "field", "north" }, { "colour", "black" } };
    begin(format);
    cinf_exposition_family(page, "sheep_shorn_total", CINF_METRIC_COUNTER, NULL, "Sheep shorn.");
    cinf_exposition_integer(page, "sheep_shorn_total", labels, 2, UINT64_MAX);
    cinf_exposition_integer(page, "sheep_shorn_total", labels, 1, 0);
    cinf_exposition_family(page, "sheep_sleep_seconds_total", CINF_METRIC_COUNTER, "seconds", "Sleep.");
    cinf_exposition_seconds(page, "sheep_sleep_seconds_total", NULL, 0, 1500000000);
    cinf_exposition_family(page, "sheep_weight_grams", CINF_METRIC_GAUGE, "grams", "Of \"all\"\\any\nsheep.");
    cinf_exposition_number(page, "sheep_weight_grams", NULL, 0, -0.1);
    cinf_exposition_family(page, "sheep_price_dollars_total", CINF_METRIC_COUNTER, "dollars", "Paid.");
    cinf_exposition_cost(page, "sheep_price_dollars_total", NULL, 0, cinf_cost_of(3600000000000, 2500000000));
    cinf_exposition_family(page, "sheep_jump_seconds", CINF_METRIC_HISTOGRAM, "seconds", "Jumps.");
    cinf_exposition_integer(page, "sheep_jump_seconds_bucket", &(struct cinf_label){ "le", "+Inf" }, 1, 4);
    cinf_exposition_seconds(page, "sheep_jump_seconds_sum", NULL, 0, 7);
    cinf_exposition_integer(page, "sheep_jump_seconds_count", NULL, 0, 4);
}

START_TEST(text_page)
{
    sheep(TX);
    ends_as("# HELP sheep_shorn_total Sheep shorn.\n"
            "# TYPE sheep_shorn_total counter\n"
            "sheep_shorn_total{field=\"north\",colour=\"black\"} 18446744073709551615\n"
            "sheep_shorn_total{field=\"north\"} 0\n"
            "# HELP sheep_sleep_seconds_total Sleep.\n"
            "# TYPE sheep_sleep_seconds_total counter\n"
            "sheep_sleep_seconds_total 1.5\n"
            "# HELP sheep_weight_grams Of \"all\"\\\\any\\nsheep.\n"
            "# TYPE sheep_weight_grams gauge\n"
            "sheep_weight_grams -0.1\n"
            "# HELP sheep_price_dollars_total Paid.\n"
            "# TYPE sheep_price_dollars_total counter\n"
            "sheep_price_dollars_total 2.500000000000\n"
            "# HELP sheep_jump_seconds Jumps.\n"
            "# TYPE sheep_jump_seconds histogram\n"
            "sheep_jump_seconds_bucket{le=\"+Inf\"} 4\n"
            "sheep_jump_seconds_sum 0.000000007\n"
            "sheep_jump_seconds_count 4\n");
}
END_TEST

START_TEST(openmetrics_page)
{
    sheep(OM);
    ends_as("# TYPE sheep_shorn counter\n"
            "# HELP sheep_shorn Sheep shorn.\n"
            "sheep_shorn_total{field=\"north\",colour=\"black\"} 18446744073709551615\n"
            "sheep_shorn_total{field=\"north\"} 0\n"
            "# TYPE sheep_sleep_seconds counter\n"
            "# UNIT sheep_sleep_seconds seconds\n"
            "# HELP sheep_sleep_seconds Sleep.\n"
            "sheep_sleep_seconds_total 1.5\n"
            "# TYPE sheep_weight_grams gauge\n"
            "# UNIT sheep_weight_grams grams\n"
            "# HELP sheep_weight_grams Of \\\"all\\\"\\\\any\\nsheep.\n"
            "sheep_weight_grams -0.1\n"
            "# TYPE sheep_price_dollars counter\n"
            "# UNIT sheep_price_dollars dollars\n"
            "# HELP sheep_price_dollars Paid.\n"
            "sheep_price_dollars_total 2.500000000000\n"
            "# TYPE sheep_jump_seconds histogram\n"
            "# UNIT sheep_jump_seconds seconds\n"
            "# HELP sheep_jump_seconds Jumps.\n"
            "sheep_jump_seconds_bucket{le=\"+Inf\"} 4\n"
            "sheep_jump_seconds_sum 0.000000007\n"
            "sheep_jump_seconds_count 4\n"
            "# EOF\n");
}
END_TEST

START_TEST(label_values)
{
    static const struct {
        const char *value, *shown;
    } cases[] = {
        { "", "" },
        { "a\\b\"c\nd", "a\\\\b\\\"c\\nd" },
        { "\\n", "\\\\n" },
        { "caf\xC3\xA9 \xF0\x9F\x90\x91", "caf\xC3\xA9 \xF0\x9F\x90\x91" },
        { "caf\xE9!", "caf\xEF\xBF\xBD!" },
        { "\xF0\x9F\x90", "\xEF\xBF\xBD" },                         /* cut: one mark */
        { "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" }, /* a surrogate: three */
        { "\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD" },
        { "{},= #\t\r\x7F", "{},= #\t\r\x7F" },
    };
    for (int format = TX; format <= OM; format++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            char expected[200];
            begin((enum cinf_exposition_format)format);
            cinf_exposition_family(page, "g", CINF_METRIC_GAUGE, NULL, cases[i].value);
            cinf_exposition_integer(page, "g", &(struct cinf_label){ "l", cases[i].value }, 1, 1);
            const char *text;
            size_t n;
            ck_ok(cinf_exposition_finish(page, &text, &n));
            snprintf(expected, sizeof expected, "\ng{l=\"%s\"} 1\n", cases[i].shown);
            ck_assert_msg(strstr(text, expected) != NULL, "%s lacks %s", text, expected);
            cinf_exposition_free(page);
        }
    }
}
END_TEST

START_TEST(numbers)
{
    static const struct {
        double value;
        const char *shown;
    } cases[] = {
        { 0, "0" },
        { 1, "1" },
        { 0.1, "0.1" },
        { 1e300, "1e+300" },
        { 1.25e-13, "1.25e-13" },
        { NAN, "NaN" },
        { INFINITY, "+Inf" },
        { -INFINITY, "-Inf" },
        { 2.0 / 3, "0.6666666666666666" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[100];
        begin(TX);
        cinf_exposition_family(page, "g", CINF_METRIC_GAUGE, NULL, "h");
        cinf_exposition_number(page, "g", NULL, 0, cases[i].value);
        snprintf(expected, sizeof expected, "# HELP g h\n# TYPE g gauge\ng %s\n", cases[i].shown);
        ends_as(expected);
    }
}
END_TEST

START_TEST(billionths)
{
    static const struct {
        uint64_t nanos;
        const char *plain, *point;
    } cases[] = {
        { 0, "0", "0.0" },
        { 1, "0.000000001", "0.000000001" },
        { 50000000, "0.05", "0.05" },
        { 100000000, "0.1", "0.1" },
        { 999999999, "0.999999999", "0.999999999" },
        { 1000000000, "1", "1.0" },
        { 1000000001, "1.000000001", "1.000000001" },
        { 2500000000, "2.5", "2.5" },
        { 2560000000000, "2560", "2560.0" },
        { UINT64_MAX, "18446744073.709551615", "18446744073.709551615" },
        { 18446744073000000000u, "18446744073", "18446744073.0" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[NANOS_TEXT_MAX];
        ck_assert_str_eq(nanos_format(text, cases[i].nanos, false), cases[i].plain);
        ck_assert_str_eq(nanos_format(text, cases[i].nanos, true), cases[i].point);
    }
}
END_TEST

START_TEST(mistakes_are_told_at_the_end)
{
    begin(TX);
    cinf_exposition_integer(page, "early", NULL, 0, 1);
    fails_with("outside of its family: early");

    begin(OM);
    cinf_exposition_family(page, "sheep", CINF_METRIC_COUNTER, NULL, "No suffix.");
    fails_with("sheep");
    begin(TX);
    cinf_exposition_family(page, "_total", CINF_METRIC_COUNTER, NULL, "Only a suffix.");
    fails_with("_total");
    static const char *const bad[] = { "", "1a", "a-b", "a b", "a{", "caf\xC3\xA9", "a\n" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        begin(TX);
        cinf_exposition_family(page, bad[i], CINF_METRIC_GAUGE, NULL, "");
        cinf_exposition_integer(page, bad[i], NULL, 0, 1);
        fails_with("invalid name");
        begin(TX);
        cinf_exposition_family(page, "g:h", CINF_METRIC_GAUGE, NULL, "");
        cinf_exposition_integer(page, "g:h", &(struct cinf_label){ bad[i], "v" }, 1, 1);
        fails_with("label");
    }
    begin(TX);
    cinf_exposition_family(page, "g", CINF_METRIC_GAUGE, NULL, "");
    cinf_exposition_integer(page, "g", &(struct cinf_label){ "a:b", "v" }, 1, 1);
    fails_with("label");

    begin(TX);
    cinf_exposition_family(page, "g", CINF_METRIC_GAUGE, NULL, "");
    cinf_exposition_integer(page, "g_bucket", NULL, 0, 1);
    fails_with("g_bucket");
    begin(TX);
    cinf_exposition_family(page, "h", CINF_METRIC_HISTOGRAM, NULL, "");
    cinf_exposition_integer(page, "h", NULL, 0, 1);
    fails_with("outside");
    begin(TX);
    cinf_exposition_family(page, "h", CINF_METRIC_HISTOGRAM, NULL, "");
    cinf_exposition_integer(page, "h_total", NULL, 0, 1);
    fails_with("outside");

    static const char *const units[] = { "bytes", "conds", "a_seconds", "" };
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        begin(TX);
        cinf_exposition_family(page, "a_seconds_total", CINF_METRIC_COUNTER, units[i], "");
        fails_with("unit");
    }
    const double wrong[] = { -1, NAN, -INFINITY };
    for (int i = 0; i < 3; i++) {
        begin(OM);
        cinf_exposition_family(page, "c_total", CINF_METRIC_COUNTER, NULL, "");
        cinf_exposition_number(page, "c_total", NULL, 0, wrong[i]);
        fails_with("negative");
    }
}
END_TEST

START_TEST(the_locale_changes_nothing)
{
    if (!setlocale(LC_ALL, "de_DE.UTF-8")) {
        printf("skipped: the locale de_DE.UTF-8 is absent (exposition_check.py makes one)\n");
        return;
    }
    begin(TX);
    cinf_exposition_family(page, "g", CINF_METRIC_GAUGE, NULL, "h");
    cinf_exposition_number(page, "g", NULL, 0, 1234567.5);
    ends_as("# HELP g h\n# TYPE g gauge\ng 1234567.5\n");
}
END_TEST

START_TEST(memory_may_run_out_anywhere)
{
    uint64_t n = 0;
    for (bool done = false; !done;) {
        const char *text = NULL;
        size_t length = 77;
        mem_fail_at(++n);
        enum cinf_status status = cinf_exposition_new(&page, OM);
        if (status == CINF_OK) {
            char name[] = "metric_number_00";
            for (int i = 0; i < 100; i++) {
                name[14] = (char)('0' + i / 10);
                name[15] = (char)('0' + i % 10);
                cinf_exposition_family(page, name, CINF_METRIC_GAUGE, NULL,
                                       "Help that is long enough to grow.");
                cinf_exposition_number(page, name, &(struct cinf_label){ "label", "value" }, 1, 0.5);
            }
            if (n % 2)
                cinf_exposition_number(page, "elsewhere", NULL, 0, 1); /* a mistake takes memory as well */
            status = cinf_exposition_finish(page, &text, &length);
            done = !mem_fail_hit();
            cinf_exposition_free(page);
        }
        if (!done) {
            ck_assert_int_eq(status, CINF_ENOMEM);
            ck_assert_ptr_null(text);
            ck_assert_uint_eq(length, 77);
        }
        mem_fail_at(0);
    }
    ck_assert_uint_gt(n, 5);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("exposition");
    TCase *t = tcase_create("exposition");
    tcase_add_test(t, empty_pages);
    tcase_add_test(t, text_page);
    tcase_add_test(t, openmetrics_page);
    tcase_add_test(t, label_values);
    tcase_add_test(t, numbers);
    tcase_add_test(t, billionths);
    tcase_add_test(t, mistakes_are_told_at_the_end);
    tcase_add_test(t, the_locale_changes_nothing);
    tcase_add_test(t, memory_may_run_out_anywhere);
    suite_add_tcase(s, t);
    return s;
}
