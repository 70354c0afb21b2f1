#include "pattern.h"

#include <string.h>

#include "mem.h"
#include "strbuf.h"
#include "support.h"

/* The text with each match in [ ]. */
static void mark(struct strbuf *out, const char *expression, const char *text, size_t n)
{
    struct pattern *p;
    ck_ok(pattern_new(&p, expression, PATTERN_ONIGURUMA));
    struct pattern_search search = { .pattern = p, .text = text, .n = n };
    size_t done = 0, start, end;
    strbuf_clear(out);
    for (bool found = true;;) {
        ck_ok(pattern_next(&search, &found, &start, &end));
        if (!found)
            break;
        ck_assert_uint_ge(start, done);
        ck_assert(start <= end && end <= n);
        strbuf_add(out, text + done, start - done);
        strbuf_puts(out, "[");
        strbuf_add(out, text + start, end - start);
        strbuf_puts(out, "]");
        done = end;
    }
    strbuf_add(out, text + done, n - done);
    pattern_search_free(&search);
    pattern_free(p);
}

/* Beyond what tests/golden/tokenizers.jsonl has from Hugging Face's tokenizers. */
START_TEST(patterns_match)
{
    static const struct {
        const char *expression, *text, *marked;
    } cases[] = {
        { "a", "", "" },
        { "", "ab", "[]a[]b[]" },
        { "a|ab", "ab", "[a]b" }, /* the first alternative, not the longest */
        { "ab|a", "aba", "[ab][a]" },
        { "a{2}", "aaaaa", "[aa][aa]a" },
        { "a{2,}", "a aa aaa", "a [aa] [aaa]" },
        { "a{,2}b", "aaab", "a[aab]" },
        { "a{x}", "a{x}", "[a{x}]" }, /* no interval */
        { "a{1,3}?b", "aaab", "[aaab]" },
        { "a+?", "aa", "[a][a]" },
        { "a++a", "aaa", "aaa" },
        { "(?:ab){2,3}", "abababab", "[ababab]ab" },
        { "(?:ab)*?c", "ababc", "[ababc]" },
        { "x(?:a|b)?y", "xy xay xby xaby", "[xy] [xay] [xby] xaby" },
        { "(?:a|ab)(?:c|bcd)(?:d*)", "abcd", "[abcd]" }, /* goes back into a group */
        { "[^a]", "ab\n\xC3\xA9", "a[b][\n][\xC3\xA9]" },
        { "[a-c\\d_-]+", "b2-_x", "[b2-_]x" },
        { "[\\]\\\\^]+", "]\\^", "[]\\^]" },
        { "[[a-b][^\\w]]+", "a!b?c", "[a!b?]c" },
        { "[^[^a]]", "ab", "[a]b" },
        { "\\x41\\x{E9}\\u4e2d\\t\\.", "A\xC3\xA9\xE4\xB8\xAD\t.", "[A\xC3\xA9\xE4\xB8\xAD\t.]" },
        { "(?<![ab])c", "ac bc c cc", "ac bc [c] [c][c]" },
        { "(?=aa)a", "aaba", "[a]aba" },
        { "(?!a(?=b))[a-z]", "abaa", "a[b][a][a]" },
        { "(?i:the)s", "The THEs thes theS", "The [THEs] [thes] theS" },
        { "^a$", "a\na\nba", "[a]\n[a]\nba" },
        { "\\Aa|a\\z|b\\Z", "a\na\nb\na", "[a]\na\nb\n[a]" },
        { "b\\Z", "b\n", "[b]\n" },
        { "\\ba", "a ba a_a", "[a] ba [a]_a" },
        { "\\Ba", "a ba a_a", "a b[a] a_[a]" },
        { "\\p{Lu}\\p{ll}\\P{L}", "Ab1 ab1", "[Ab1] ab1" },
        { "\\p{Uppercase_Letter}\\p{^N}", "A1AB", "A1[AB]" },
        { ".", "\n\xE4\xB8\xAD", "\n[\xE4\xB8\xAD]" },
        { "((((a))))", "a", "[a]" },
    };
    struct strbuf out = { 0 };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mark(&out, cases[i].expression, cases[i].text, strlen(cases[i].text));
        ck_assert_msg(strcmp(out.text ? out.text : "", cases[i].marked) == 0, "/%s/ on \"%s\": \"%s\"",
                      cases[i].expression, cases[i].text, out.text);
    }
    strbuf_free(&out);
}
END_TEST

/* Each such byte is a character that negated classes alone hold. */
START_TEST(bytes_that_are_not_utf8)
{
    struct strbuf out = { 0 };
    mark(&out, "[^a]", "a\xFF\xE4\xB8", 4);
    ck_assert_str_eq(out.text, "a[\xFF][\xE4][\xB8]");
    mark(&out, "\\W+\\s", "\xE4\xB8 x", 4);
    ck_assert_str_eq(out.text, "[\xE4\xB8 ]x");
    mark(&out, "\\P{L}+b",
         "\xF0\x9F\x98\xE4\xB8\xAD\xFF"
         "b",
         8);
    ck_assert_str_eq(out.text, "\xF0\x9F\x98\xE4\xB8\xAD[\xFF"
                               "b]");
    mark(&out, "a\0b", "a\0b", 3);
    ck_assert_uint_eq(out.len, 5);
    strbuf_free(&out);
}
END_TEST

START_TEST(what_is_not_understood_is_refused)
{
    static const struct {
        const char *expression, *words;
        enum cinf_status status;
    } cases[] = {
        { "(a", "a group without its )", CINF_EFORMAT },
        { "a)", "a ) without its group", CINF_EFORMAT },
        { "[a", "a class without its ]", CINF_EFORMAT },
        { "[]", "an empty class", CINF_EFORMAT },
        { "[b-a]", "a range that is none", CINF_EFORMAT },
        { "*", "a quantifier of nothing", CINF_EFORMAT },
        { "a|+", "a quantifier of nothing", CINF_EFORMAT },
        { "\\", "a backslash", CINF_EFORMAT },
        { "\\p", "\\p without its {name}", CINF_EFORMAT },
        { "\\p{L", "\\p without its {name}", CINF_EFORMAT },
        { "\\x{110000}", "an escape that is not a character", CINF_EFORMAT },
        { "\\u12", "an escape that is not a character", CINF_EFORMAT },
        { "\\uD800", "an escape that is not a character", CINF_EFORMAT },
        { "\\xE9", "an escape for a byte", CINF_EUNSUPPORTED },
        { "(a)\\1", "an escape", CINF_EUNSUPPORTED },
        { "\\h", "an escape", CINF_EUNSUPPORTED },
        { "\\p{Han}", "a property that is not a general category", CINF_EUNSUPPORTED },
        { "[[:alpha:]]", "in a class", CINF_EUNSUPPORTED },
        { "[a&&b]", "in a class", CINF_EUNSUPPORTED },
        { "(?<name>a)", "a group of this kind", CINF_EUNSUPPORTED },
        { "a(?i)b", "a group of this kind", CINF_EUNSUPPORTED },
        { "(?<=ab)c", "looking behind by other than one character", CINF_EUNSUPPORTED },
        { "a**", "a quantifier of a quantifier", CINF_EUNSUPPORTED },
        { "a{2}?", "a quantifier of a quantifier", CINF_EUNSUPPORTED },
        { "a{1,2}+", "a quantifier of a quantifier", CINF_EUNSUPPORTED },
        { "a{1001}", "a quantifier beyond bounds", CINF_EUNSUPPORTED },
        { "a{3,2}", "a quantifier beyond bounds", CINF_EUNSUPPORTED },
        { "(a*)*", "a quantifier of what may be empty", CINF_EUNSUPPORTED },
        { "(?=a)+", "a quantifier of what may be empty", CINF_EUNSUPPORTED },
        { "(?:(?:(?:a{9}b){99}){99}){99}", "it is too long", CINF_EUNSUPPORTED },
        { "(?i)\xC3\xA9", "(?i) with characters outside of ASCII", CINF_EUNSUPPORTED },
        { "(?i:[\xC3\xA0-\xC3\xA9])", "(?i) with characters outside of ASCII", CINF_EUNSUPPORTED },
        { "(?i:pass)", "(?i) with two letters that are equal to one", CINF_EUNSUPPORTED },
        { "(?i:\\p{Lu})", "(?i) with a property of one case", CINF_EUNSUPPORTED },
        { "((((((((((((((((((((((((((((((((((a))))))))))))))))))))))))))))))))))", "nested too deeply",
          CINF_EUNSUPPORTED },
        { "(?=(?=(?=(?=(?=(?=(?=(?=(?=a)))))))))", "nested too deeply", CINF_EUNSUPPORTED },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pattern *untouched = (struct pattern *)&i, *p = untouched;
        ck_fails(pattern_new(&p, cases[i].expression, PATTERN_ONIGURUMA), cases[i].status, cases[i].words);
        ck_assert_msg(strstr(cinf_last_error(), cases[i].expression) || strlen(cases[i].expression) > 60 ||
                          (unsigned char)cases[i].expression[0] >= 128,
                      "the message \"%s\" lacks the pattern", cinf_last_error());
        ck_assert_ptr_eq(p, untouched);
    }
}
END_TEST

START_TEST(steps_are_bounded)
{
    struct pattern *p;
    size_t start, end;
    bool found;
    char *text = mem_new(100000, 1);
    memset(text, 'a', 100000);
    ck_ok(pattern_new(&p, "(?:a|aa)+b", PATTERN_ONIGURUMA));
    struct pattern_search search = { .pattern = p, .text = text, .n = 200 };
    ck_fails(pattern_next(&search, &found, &start, &end), CINF_EINVAL, "takes more than 4096 steps a byte");
    ck_fails(pattern_next(&search, &found, &start, &end), CINF_EINVAL, "the pattern \"(?:a|aa)+b\"");
    pattern_search_free(&search);
    pattern_free(p);
    /* A long run costs a step a character and one choice. */
    ck_ok(pattern_new(&p, "a+(?!a)|a", PATTERN_ONIGURUMA));
    search = (struct pattern_search){ .pattern = p, .text = text, .n = 100000 };
    ck_ok(pattern_next(&search, &found, &start, &end));
    ck_assert(found && start == 0 && end == 100000);
    ck_assert_uint_lt(search.steps, 200000);
    ck_assert_uint_lt(search.choices_cap, 64);
    pattern_search_free(&search);
    pattern_free(p);
    mem_free(text);
}
END_TEST

START_TEST(literals_and_json)
{
    static const struct {
        const char *json, *words;
    } cases[] = { { "{\"String\":\"(.\"}", NULL },
                  { "{\"Regex\":\"\\\\(\\\\.\"}", NULL },
                  { "{\"String\":7}", "\"String\" must be a string" },
                  { "{}", "a \"pattern\" is neither" },
                  { "7", "a \"pattern\" is neither" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pattern *p;
        cJSON *tree = cJSON_Parse(cases[i].json);
        size_t start, end;
        bool found;
        if (cases[i].words) {
            ck_assert_int_ne(pattern_read(&p, tree), CINF_OK);
            ck_assert_ptr_nonnull(strstr(cinf_last_error(), cases[i].words));
        } else {
            ck_ok(pattern_read(&p, tree));
            struct pattern_search search = { .pattern = p, .text = "a(.)", .n = 4 };
            ck_ok(pattern_next(&search, &found, &start, &end));
            ck_assert(found && start == 1 && end == 3 && !pattern_may_be_empty(p));
            pattern_search_free(&search);
            pattern_free(p);
        }
        cJSON_Delete(tree);
    }
    pattern_free(NULL);
}
END_TEST

START_TEST(every_failed_allocation_is_reported_and_let_go_of)
{
    for (uint64_t n = 1;; n++) {
        struct pattern *p = NULL;
        bool found = false;
        size_t start, end;
        mem_fail_at(n);
        enum cinf_status status = pattern_new(&p, "(?:x|[ab]+(?=c)|(?i:d))*+e", PATTERN_ONIGURUMA);
        struct pattern_search search = { .pattern = p, .text = "aacabcDe", .n = 8 };
        if (status == CINF_OK)
            status = pattern_next(&search, &found, &start, &end);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        pattern_search_free(&search);
        pattern_free(p);
        if (!hit) {
            ck_ok(status);
            break;
        }
        ck_assert_int_eq(status, CINF_ENOMEM);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("pattern");
    TCase *c = tcase_create("patterns");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, patterns_match);
    tcase_add_test(c, bytes_that_are_not_utf8);
    tcase_add_test(c, what_is_not_understood_is_refused);
    tcase_add_test(c, steps_are_bounded);
    tcase_add_test(c, literals_and_json);
    tcase_add_test(c, every_failed_allocation_is_reported_and_let_go_of);
    return s;
}
