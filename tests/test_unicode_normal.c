#include "unicode_normal.h"

#include <string.h>

#include "support.h"
#include "utf8.h"

static void expect(const char *text, enum unicode_form form, const char *expected)
{
    struct strbuf out = { 0 };
    struct unicode_scratch scratch = { 0 };
    unicode_normalize(&out, text, strlen(text), form, &scratch);
    ck_assert_msg(!out.failed && strcmp(out.text ? out.text : "", expected) == 0, "\"%s\" in form %d: \"%s\"",
                  text, (int)form, out.text);
    unicode_scratch_free(&scratch);
    strbuf_free(&out);
}

/* Every character was compared with Hugging Face's tokenizers (tests/peers/tokenizers_agreement.py). */
START_TEST(forms)
{
    static const struct {
        const char *text, *forms[4]; /* NFC, NFD, NFKC, NFKD */
    } cases[] = {
        { "", { "", "", "", "" } },
        { "plain", { "plain", "plain", "plain", "plain" } },
        { "caf\u00e9", { "caf\u00e9", "cafe\u0301", "caf\u00e9", "cafe\u0301" } },
        { "e\u0301", { "\u00e9", "e\u0301", "\u00e9", "e\u0301" } },
        { "\u212b", { "\u00c5", "A\u030a", "\u00c5", "A\u030a" } },
        { "\ufb01\u00b2", { "\ufb01\u00b2", "\ufb01\u00b2", "fi2", "fi2" } },
        /* marks in order of their classes, and what blocks a mark */
        { "a\u0301\u0323", { "\u1ea1\u0301", "a\u0323\u0301", "\u1ea1\u0301", "a\u0323\u0301" } },
        { "a\u0300\u0301", { "\u00e0\u0301", "a\u0300\u0301", "\u00e0\u0301", "a\u0300\u0301" } },
        { "a\u0305\u0300", { "a\u0305\u0300", "a\u0305\u0300", "a\u0305\u0300", "a\u0305\u0300" } },
        { "\u0301a", { "\u0301a", "\u0301a", "\u0301a", "\u0301a" } },
        { "\u0344", { "\u0308\u0301", "\u0308\u0301", "\u0308\u0301", "\u0308\u0301" } }, /* never composed */
        { "\u0958", { "\u0915\u093c", "\u0915\u093c", "\u0915\u093c", "\u0915\u093c" } },
        /* Hangul */
        { "\uac01", { "\uac01", "\u1100\u1161\u11a8", "\uac01", "\u1100\u1161\u11a8" } },
        { "\u1100\u1161\u11a8", { "\uac01", "\u1100\u1161\u11a8", "\uac01", "\u1100\u1161\u11a8" } },
        { "\u1100\u1161\u11a7",
          { "\uac00\u11a7", "\u1100\u1161\u11a7", "\uac00\u11a7", "\u1100\u1161\u11a7" } },
        { "\uac01\u11a8",
          { "\uac01\u11a8", "\u1100\u1161\u11a8\u11a8", "\uac01\u11a8", "\u1100\u1161\u11a8\u11a8" } },
        /* bytes that are not UTF-8: nothing goes over them */
        { "e\xFF\u0301\xE4\xB8",
          { "e\xFF\u0301\xE4\xB8", "e\xFF\u0301\xE4\xB8", "e\xFF\u0301\xE4\xB8", "e\xFF\u0301\xE4\xB8" } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int form = 0; form < 4; form++)
            expect(cases[i].text, (enum unicode_form)form, cases[i].forms[form]);
}
END_TEST

START_TEST(forms_are_stable)
{
    struct strbuf once = { 0 }, twice = { 0 };
    struct unicode_scratch scratch = { 0 };
    for (int form = 0; form < 4; form++)
        for (uint32_t c = 1; c < 0x30000; c++) {
            char text[16] = "a";
            size_t n = 1;
            if (c >= 0xD800 && c <= 0xDFFF)
                continue;
            n += utf8_write(text + n, c);
            n += utf8_write(text + n, 0x323);
            strbuf_clear(&once);
            strbuf_clear(&twice);
            unicode_normalize(&once, text, n, (enum unicode_form)form, &scratch);
            unicode_normalize(&twice, once.text, once.len, (enum unicode_form)form, &scratch);
            ck_assert_msg(once.len == twice.len && memcmp(once.text, twice.text, once.len) == 0, "U+%04X",
                          (unsigned)c);
        }
    strbuf_free(&once);
    strbuf_free(&twice);
    unicode_scratch_free(&scratch);
}
END_TEST

/* A run of marks is sorted, not put in order one by one: else this takes an hour. */
START_TEST(a_million_marks)
{
    struct strbuf text = { 0 }, out = { 0 };
    struct unicode_scratch scratch = { 0 };
    strbuf_puts(&text, "a");
    for (int i = 0; i < 500000; i++)
        strbuf_puts(&text, "\u0301\u0323");
    unicode_normalize(&out, text.text, text.len, UNICODE_NFC, &scratch);
    ck_assert_uint_eq(out.len, 3 + 2 * 499999 + 2 * 500000);
    ck_assert_mem_eq(out.text, "\u1ea1\u0323", 5);
    ck_assert_mem_eq(out.text + out.len - 2, "\u0301", 2);
    strbuf_free(&text);
    strbuf_free(&out);
    unicode_scratch_free(&scratch);
}
END_TEST

START_TEST(lower_case_and_marks)
{
    static const struct {
        const char *text, *lower, *stripped;
    } cases[] = {
        { "", "", "" },
        { "AbZ[@", "abz[@", "AbZ[@" },
        { "\u00c9\u0130\u03a3\u01c5", "\u00e9i\u0307\u03c3\u01c6", "\u00c9\u0130\u03a3\u01c5" },
        { "e\u0301\u093e\u20dd!", "e\u0301\u093e\u20dd!", "e!" },
        { "A\xFF\xE4\xB8Z", "a\xFF\xE4\xB8z", "A\xFF\xE4\xB8Z" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strbuf out = { 0 };
        strbuf_puts(&out, "");
        unicode_lowercase(&out, cases[i].text, strlen(cases[i].text));
        ck_assert_str_eq(out.text, cases[i].lower);
        strbuf_clear(&out);
        unicode_strip_marks(&out, cases[i].text, strlen(cases[i].text));
        ck_assert_str_eq(out.text, cases[i].stripped);
        strbuf_free(&out);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("unicode_normal");
    TCase *c = tcase_create("texts");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, forms);
    tcase_add_test(c, forms_are_stable);
    tcase_add_test(c, a_million_marks);
    tcase_add_test(c, lower_case_and_marks);
    return s;
}
