#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "support.h"

/* The bytes a, b and c as 0 to 2, then the given tokens, then the merges, each "left right". */
static void build(struct bpe *b, const char *const *tokens, const char *const *merges)
{
    size_t n_merges = 0;
    *b = (struct bpe){ 0 };
    for (uint32_t id = 0; id < 3; id++)
        ck_ok(bpe_add_token(b, id, &"abc"[id], 1, false));
    for (uint32_t i = 0; tokens[i]; i++)
        ck_ok(bpe_add_token(b, 3 + i, tokens[i], strlen(tokens[i]), false));
    while (merges[n_merges])
        n_merges++;
    ck_ok(bpe_index(b, n_merges));
    for (size_t i = 0; i < n_merges; i++) {
        char joined[64];
        const char *space = strchr(merges[i], ' ');
        size_t left = (size_t)(space - merges[i]);
        memcpy(joined, merges[i], left);
        strcpy(joined + left, space + 1);
        ck_ok(bpe_add_merge(b, joined, left, strlen(joined)));
    }
    ck_ok(bpe_seal(b));
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void expect(const struct bpe *b, const char *text, const char *joined)
{
    struct bpe_scratch scratch = { 0 };
    int32_t ids[256];
    size_t n_ids, n = 0;
    char got[512];
    ck_ok(bpe_encode(b, text, strlen(text), ids, &n_ids, &scratch));
    for (size_t i = 0; i < n_ids; i++) {
        const struct bpe_token *token = &b->tokens[ids[i]];
        if (i)
            got[n++] = ' ';
        memcpy(got + n, b->bytes + token->at, token->n);
        n += token->n;
    }
    got[n] = '\0';
    ck_assert_str_eq(got, joined);
    bpe_scratch_free(&scratch);
}

START_TEST(lowest_rank_first_then_leftmost)
{
    struct bpe b;
    build(&b, LIST("bc", "ab", "aa", "aaaa"), LIST("b c", "a b", "a a", "aa aa"));
    expect(&b, "a", "a");
    expect(&b, "abc", "a bc");
    expect(&b, "ababc", "ab a bc");
    expect(&b, "aaa", "aa a");
    expect(&b, "aaaaa", "aaaa a");
    expect(&b, "aab", "a ab");
    expect(&b, "ccc", "c c c");
    bpe_free(&b);
    bpe_free(&b);
}
END_TEST

/* A token that no merge makes is never used, though the vocabulary has it: not for a whole piece either. */
START_TEST(only_what_merging_makes_is_used)
{
    struct bpe b;
    build(&b, LIST("abc", "ab", "bc", "aabb"), LIST("b c", "a b", "ab c"));
    expect(&b, "abc", "a bc");
    expect(&b, "aabb", "a ab b");
    ck_assert_int_eq(bpe_find(&b, "aabb", 4), 6);
    bpe_free(&b);
}
END_TEST

START_TEST(a_merge_may_make_way_for_one_of_lower_rank)
{
    struct bpe b;
    build(&b, LIST("ab", "abc", "bc"), LIST("ab c", "a b", "b c"));
    expect(&b, "abcabc", "abc abc");
    bpe_free(&b);
}
END_TEST

START_TEST(added_tokens_are_found_but_never_made)
{
    struct bpe b = { 0 };
    ck_ok(bpe_add_token(&b, 0, "a", 1, false));
    ck_ok(bpe_add_token(&b, 5, "aa", 2, true));
    ck_ok(bpe_add_token(&b, 3, "a", 1, true)); /* the ordinary one of the same bytes wins over it */
    ck_ok(bpe_index(&b, 1));
    ck_assert_int_eq(bpe_find(&b, "a", 1), 0);
    ck_assert_int_eq(bpe_find(&b, "aa", 2), 5);
    ck_fails(bpe_add_merge(&b, "aa", 1, 2), CINF_EFORMAT, "its result is not in the vocabulary");
    ck_ok(bpe_seal(&b));
    ck_assert_uint_eq(b.n_ids, 6);
    ck_assert_uint_eq(b.tokens[4].n, 0);
    expect(&b, "aa", "a a");
    bpe_free(&b);
}
END_TEST

START_TEST(a_byte_without_a_token_fails_when_it_is_met)
{
    struct bpe b = { 0 };
    struct bpe_scratch scratch = { 0 };
    int32_t ids[160];
    size_t n_ids = 77;
    ck_ok(bpe_add_token(&b, 0, "a", 1, false));
    ck_ok(bpe_add_token(&b, 1, "a\xFE", 2, false)); /* and such a token is of no use */
    ck_ok(bpe_index(&b, 0));
    ck_ok(bpe_seal(&b));
    ck_fails(bpe_encode(&b, "a\xFE", 2, ids, &n_ids, &scratch), CINF_EINVAL, "byte 0xFE has no token");
    char text[160];
    memset(text, 'a', sizeof text);
    text[159] = 'b';
    ck_fails(bpe_encode(&b, text, 160, ids, &n_ids, &scratch), CINF_EINVAL, "byte 0x62 has no token");
    ck_assert_uint_eq(n_ids, 77);
    ck_ok(bpe_encode(&b, text, 159, ids, &n_ids, &scratch));
    ck_assert_uint_eq(n_ids, 159);
    bpe_scratch_free(&scratch);
    bpe_free(&b);
}
END_TEST

START_TEST(faults_are_refused)
{
    struct bpe b = { 0 };
    ck_ok(bpe_add_token(&b, 1, "a", 1, false));
    ck_ok(bpe_add_token(&b, 1, "a", 1, false));
    ck_fails(bpe_add_token(&b, 1, "b", 1, false), CINF_EFORMAT, "id 1 is another token's");
    ck_ok(bpe_add_token(&b, 2, "b", 1, false));
    ck_ok(bpe_add_token(&b, BPE_IDS_MAX - 1, "ab", 2, false));
    ck_fails(bpe_index(&b, (size_t)BPE_IDS_MAX + 1), CINF_EFORMAT, "1048577 merges");
    ck_ok(bpe_index(&b, 9));
    ck_fails(bpe_add_merge(&b, "cb", 1, 2), CINF_EFORMAT, "left side");
    ck_fails(bpe_add_merge(&b, "bc", 1, 2), CINF_EFORMAT, "right side");
    ck_fails(bpe_add_merge(&b, "ba", 1, 2), CINF_EFORMAT, "result");
    ck_assert_uint_eq(b.n_merges, 0);
    ck_ok(bpe_add_merge(&b, "ab", 1, 2));
    ck_fails(bpe_add_merge(&b, "ab", 1, 2), CINF_EFORMAT, "the same as merge 1");
    ck_ok(bpe_seal(&b));
    expect(&b, "bab", "b ab");
    bpe_free(&b);
}
END_TEST

/* ---- against merging as the definition reads, on vocabularies as odd as they may be ---- */

enum { TOKENS = 40 };

struct odd {
    char text[TOKENS][64];
    int n_tokens;
    int left[TOKENS * 2], right[TOKENS * 2], result[TOKENS * 2]; /* by rank */
    int n_merges;
    int32_t id[TOKENS];
};

static int odd_find(const struct odd *o, const char *text)
{
    for (int i = 0; i < o->n_tokens; i++)
        if (strcmp(o->text[i], text) == 0)
            return i;
    return -1;
}

/* Joins random tokens; the same result may come from several merges; ranks and ids are shuffled, so that
 * merges may rank below those that make their parts. */
static void odd_make(struct odd *o)
{
    *o = (struct odd){ .n_tokens = 3 };
    for (int i = 0; i < 3; i++)
        o->text[i][0] = "abc"[i];
    for (int tries = 0; tries < 60; tries++) {
        char joined[128];
        int left = rand() % o->n_tokens, right = rand() % o->n_tokens, known = 0;
        strcpy(joined, o->text[left]);
        strcat(joined, o->text[right]);
        for (int m = 0; m < o->n_merges; m++)
            known |= o->left[m] == left && o->right[m] == right;
        int result = odd_find(o, joined);
        if (known || strlen(joined) > 12 || (result < 0 && o->n_tokens == TOKENS))
            continue;
        if (result < 0) {
            result = o->n_tokens++;
            strcpy(o->text[result], joined);
        }
        int at = rand() % (o->n_merges + 1), last = o->n_merges++;
        o->left[last] = o->left[at], o->right[last] = o->right[at], o->result[last] = o->result[at];
        o->left[at] = left, o->right[at] = right, o->result[at] = result;
    }
    for (int i = 0; i < o->n_tokens; i++) {
        int at = rand() % (i + 1);
        o->id[i] = o->id[at];
        o->id[at] = i * 3;
    }
}

static void odd_build(struct bpe *b, const struct odd *o)
{
    *b = (struct bpe){ 0 };
    for (int i = 0; i < o->n_tokens; i++)
        ck_ok(bpe_add_token(b, (uint32_t)o->id[i], o->text[i], strlen(o->text[i]), false));
    ck_ok(bpe_index(b, (size_t)o->n_merges));
    for (int i = 0; i < o->n_merges; i++)
        ck_ok(bpe_add_merge(b, o->text[o->result[i]], strlen(o->text[o->left[i]]),
                            strlen(o->text[o->result[i]])));
    ck_ok(bpe_seal(b));
}

/* The first place of the first merge that applies, or count. */
static size_t odd_next(const struct odd *o, const int *tokens, size_t count, int *result)
{
    for (int rank = 0; rank < o->n_merges; rank++) {
        *result = o->result[rank];
        for (size_t at = 0; at + 1 < count; at++)
            if (tokens[at] == o->left[rank] && tokens[at + 1] == o->right[rank])
                return at;
    }
    return count;
}

static size_t odd_encode(const struct odd *o, const char *text, size_t n, int32_t *ids)
{
    int tokens[200], result;
    size_t count = n, at;
    for (size_t i = 0; i < n; i++)
        tokens[i] = text[i] - 'a';
    while ((at = odd_next(o, tokens, count, &result)) < count) {
        tokens[at] = result;
        memmove(tokens + at + 1, tokens + at + 2, (count - at - 2) * sizeof *tokens);
        count--;
    }
    for (size_t i = 0; i < count; i++)
        ids[i] = o->id[tokens[i]];
    return count;
}

START_TEST(short_and_long_pieces_merge_as_defined)
{
    static struct odd odd;
    struct bpe_scratch scratch = { 0 };
    srand(3);
    for (int round = 0; round < 300; round++) {
        struct bpe b;
        odd_make(&odd);
        odd_build(&b, &odd);
        for (int i = 0; i < 20; i++) {
            char text[200];
            int32_t expected[200], ids[200];
            /* 128 bytes are the most that are short. */
            size_t n = i < 10   ? 1 + (size_t)rand() % 20
                       : i < 15 ? 124 + (size_t)rand() % 8
                                : (size_t)rand() % 199 + 1;
            for (size_t k = 0; k < n; k++)
                text[k] = (char)('a' + rand() % (1 + i % 3));
            size_t n_expected = odd_encode(&odd, text, n, expected), n_ids;
            ck_ok(bpe_encode(&b, text, n, ids, &n_ids, &scratch));
            ck_assert_uint_eq(n_ids, n_expected);
            ck_assert_mem_eq(ids, expected, n_ids * sizeof *ids);
        }
        bpe_free(&b);
    }
    bpe_scratch_free(&scratch);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("bpe");
    TCase *c = tcase_create("merging");
    suite_add_tcase(s, c);
    tcase_set_timeout(c, 30);
    tcase_add_test(c, lowest_rank_first_then_leftmost);
    tcase_add_test(c, only_what_merging_makes_is_used);
    tcase_add_test(c, a_merge_may_make_way_for_one_of_lower_rank);
    tcase_add_test(c, added_tokens_are_found_but_never_made);
    tcase_add_test(c, a_byte_without_a_token_fails_when_it_is_met);
    tcase_add_test(c, faults_are_refused);
    tcase_add_test(c, short_and_long_pieces_merge_as_defined);
    return s;
}
