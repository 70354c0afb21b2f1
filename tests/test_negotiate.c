#include <costinfer/exposition.h>

#include <stdlib.h>
#include <string.h>

#include "support.h"

#define OM CINF_EXPOSITION_OPENMETRICS
#define TX CINF_EXPOSITION_TEXT

static const struct {
    const char *accept;
    enum cinf_exposition_format format;
} cases[] = {
    { NULL, TX },
    { "", TX },
    { "   ", TX },
    { "*/*", TX },
    { "text/*", TX },
    { "text/plain", TX },
    { "text/plain;version=0.0.4", TX },
    { "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TX }, /* a browser */
    { "application/openmetrics-text", OM },
    { "application/openmetrics-text; version=1.0.0; charset=utf-8", OM },
    { "application/openmetrics-text;version=\"1.0.0\"", OM },
    { "APPLICATION/OpenMetrics-Text ; VERSION=1.0.0 ; Q=0.5", OM },
    /* Prometheus 2.42 */
    { "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
      "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
      OM },
    /* Prometheus 2.42 told to scrape text only; Prometheus 2.0 */
    { "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", TX },
    { "text/plain;version=0.0.4;q=1,*/*;q=0.1", TX },
    /* Prometheus 3 */
    { "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
      "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
      "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
      OM },
    /* Prometheus 3 that prefers protobuf */
    { "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
      "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
      OM },
    /* An unsupported version */
    { "application/openmetrics-text;version=0.0.1", TX },
    { "application/openmetrics-text;version=2.0.0,*/*;q=0.1", TX },
    { "application/openmetrics-text;version=2.0.0;q=0.9,application/openmetrics-text;version=1.0.0;q=0.1",
      OM },
    /* Weights */
    { "application/openmetrics-text;q=0", TX },
    { "application/openmetrics-text;q=0.000", TX },
    { "application/openmetrics-text;q=0.001", OM },
    { "application/openmetrics-text;q=0.4,text/plain;q=0.5", TX },
    { "application/openmetrics-text;q=0.51,text/plain;q=0.5", OM },
    { "text/plain;q=0.5,application/openmetrics-text;q=0.501", OM },
    { "text/plain;q=0,application/openmetrics-text", OM },
    { "*/*;q=0.8,application/openmetrics-text;q=0.5", TX },
    { "application/openmetrics-text,text/plain", OM }, /* equals: the first */
    { "text/plain,application/openmetrics-text", TX },
    { "application/openmetrics-text;q=1.", OM },
    { "application/openmetrics-text;q=1.000,text/plain;q=0.999", OM },
    /* Malformed members are skipped, and the others count. */
    { "application/openmetrics-text;q=1.001", TX },
    { "application/openmetrics-text;q=2", TX },
    { "application/openmetrics-text;q=-1", TX },
    { "application/openmetrics-text;q=0.5000", TX },
    { "application/openmetrics-text;q=", TX },
    { "application/openmetrics-text;q", TX },
    { "application/openmetrics-text;q=high", TX },
    { "application/openmetrics-text;q=0,5", TX },
    { "application/openmetrics-text x", TX },
    { "application/", TX },
    { "/openmetrics-text", TX },
    { "application openmetrics-text", TX },
    { "openmetrics-text", TX },
    { ",,,;;;===\"\"\"", TX },
    { "application/openmetrics-text;version=\"1.0.0", TX },
    { "application/openmetrics-text;a=\"b\\", TX },
    { "\x01\xFF\xFE,application/openmetrics-text", OM },
    { "garbage;;=;,application/openmetrics-text;q=0.1", OM },
    { "text/plain;x=\"a,application/openmetrics-text;q=1,b\";q=0.3", TX }, /* a comma inside quotes */
    { "text/plain;x=\"\\\",application/openmetrics-text,\";q=0.3", TX },
    { "x/y;z=\"a,b\",application/openmetrics-text;;q=0.3;", OM },
    { "application/openmetrics-text-plus", TX },
    { "application/openmetrics", TX },
    { "\tapplication/openmetrics-text\t;\tq=0.3\t,", OM },
};

START_TEST(headers)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(cinf_exposition_negotiate(cases[i].accept) == cases[i].format, "\"%s\"",
                      cases[i].accept);
}
END_TEST

START_TEST(long_headers)
{
    static const char *const fillers[] = { "a", ",", ";", "\"", "text/html,", "x/y;q=0.9,", " ", ";a=\"b\\" };
    for (size_t f = 0; f < sizeof fillers / sizeof *fillers; f++) {
        char *text = calloc(1, 8300);
        for (size_t n = 0; n < 8192; n += strlen(fillers[f]))
            memcpy(text + n, fillers[f], strlen(fillers[f]));
        ck_assert_int_eq(cinf_exposition_negotiate(text), TX);
        free(text);
    }
    char *text = calloc(1, 8300);
    for (size_t n = 0; n < 8190; n += 10)
        memcpy(text + n, "x/y;q=0.9,", 10);
    strcat(text, "application/openmetrics-text;q=0.2");
    ck_assert_int_eq(cinf_exposition_negotiate(text), OM);
    free(text);
}
END_TEST

START_TEST(content_types)
{
    ck_assert_str_eq(cinf_exposition_content_type(TX), "text/plain; version=0.0.4; charset=utf-8");
    ck_assert_str_eq(cinf_exposition_content_type(OM),
                     "application/openmetrics-text; version=1.0.0; charset=utf-8");
    /* The content types that the library writes are accepted, too. */
    ck_assert_int_eq(cinf_exposition_negotiate(cinf_exposition_content_type(OM)), OM);
    ck_assert_int_eq(cinf_exposition_negotiate(cinf_exposition_content_type(TX)), TX);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("negotiate");
    TCase *t = tcase_create("negotiate");
    tcase_add_test(t, headers);
    tcase_add_test(t, long_headers);
    tcase_add_test(t, content_types);
    suite_add_tcase(s, t);
    return s;
}
