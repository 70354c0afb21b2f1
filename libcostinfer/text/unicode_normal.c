/* unicode_normal.c - decompose, order the marks, compose: section 3.11 of the Unicode Standard.
 *
 * Why not a library: the tables must be of the Unicode version that the patterns' classes are of, bytes that
 * are not UTF-8 must pass, and a run of a million marks must not take a million times a million steps.  What
 * is left beside the tables is this page. */
#include "unicode_normal.h"

#include <stdlib.h>

#include "mem.h"
#include "unicode_class.h"
#include "unicode_normal_table.h"
#include "utf8.h"

/* A character on its way: combining class (8 bits), place among its neighbours (35), code point (21).  So
 * numbers sort in canonical order, and equal classes keep theirs.  Beyond Unicode are bytes as they were. */
#define CODE(character) ((uint32_t)((character)&0x1FFFFF))
#define RANK(character) ((unsigned)((character) >> 56))
#define RAW_BYTE        0x110000u

#define HANGUL_FIRST 0xAC00u
#define LEADING      0x1100u
#define VOWEL        0x1161u
#define TRAILING     0x11A7u /* one before the first */
enum { LEADINGS = 19, VOWELS = 21, TRAILINGS = 28, SYLLABLES = LEADINGS * VOWELS * TRAILINGS };

#define COUNT(array) (sizeof(array) / sizeof *(array))

void unicode_scratch_free(struct unicode_scratch *scratch)
{
    mem_free(scratch->characters);
    *scratch = (struct unicode_scratch){ 0 };
}

static void put(struct strbuf *out, uint32_t c)
{
    char bytes[4];
    if (c >= RAW_BYTE)
        strbuf_putc(out, (char)(c - RAW_BYTE));
    else
        strbuf_add(out, bytes, utf8_write(bytes, c));
}

static unsigned combining_class(uint32_t c)
{
    size_t low = 0, high = COUNT(unicode_combining);
    if (c < 0x300 || c >= RAW_BYTE)
        return 0;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (unicode_combining[middle] >> 8 <= c)
            low = middle;
        else
            high = middle;
    }
    return unicode_combining[low] & 0xFF;
}

/* Returns the index of the key of `c`, or n. */
static size_t find_key(const uint32_t *keys, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (keys[middle] >> 5 < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && keys[low] >> 5 == c ? low : n;
}

/* ---- Decomposing --------------------------------------------------------------------------- */

struct characters {
    struct unicode_scratch *scratch;
    size_t n;
    bool failed;
};

static void add(struct characters *c, uint32_t code)
{
    if (c->failed || !mem_reserve(&c->scratch->characters, &c->scratch->cap, c->n + 1, sizeof(uint64_t))) {
        c->failed = true;
        return;
    }
    c->scratch->characters[c->n] = (uint64_t)combining_class(code) << 56 | (uint64_t)c->n << 21 | code;
    c->n++;
}

static void decompose(struct characters *to, uint32_t c, bool compatible)
{
    size_t i, length, n;
    const uint16_t *places;
    if (c >= HANGUL_FIRST && c < HANGUL_FIRST + SYLLABLES) {
        uint32_t s = c - HANGUL_FIRST;
        add(to, LEADING + s / (VOWELS * TRAILINGS));
        add(to, VOWEL + s % (VOWELS * TRAILINGS) / TRAILINGS);
        if (s % TRAILINGS)
            add(to, TRAILING + s % TRAILINGS);
        return;
    }
    n = COUNT(unicode_compatible_keys);
    i = compatible ? find_key(unicode_compatible_keys, n, c) : n;
    if (i < n) {
        length = unicode_compatible_keys[i] & 31;
        places = unicode_compatible_places;
    } else {
        n = COUNT(unicode_canonical_keys);
        i = find_key(unicode_canonical_keys, n, c);
        if (i == n) {
            add(to, c);
            return;
        }
        length = unicode_canonical_keys[i] & 31;
        places = unicode_canonical_places;
    }
    for (size_t k = 0; k < length; k++)
        add(to, unicode_pool[places[i] + k]);
}

static int by_number(const void *left, const void *right)
{
    const uint64_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

/* Sorts each run of marks. */
static void order(uint64_t *characters, size_t n)
{
    for (size_t start = 0, end; start < n; start = end) {
        bool sorted = true;
        end = start + 1;
        if (RANK(characters[start]) == 0)
            continue;
        for (; end < n && RANK(characters[end]) != 0; end++)
            sorted = sorted && RANK(characters[end - 1]) <= RANK(characters[end]);
        if (!sorted)
            qsort(characters + start, end - start, sizeof *characters, by_number);
    }
}

/* ---- Composing ----------------------------------------------------------------------------- */

/* Returns what the two compose to, or 0. */
static uint32_t compose_pair(uint32_t a, uint32_t b)
{
    if (a - LEADING < LEADINGS && b - VOWEL < VOWELS)
        return HANGUL_FIRST + ((a - LEADING) * VOWELS + (b - VOWEL)) * TRAILINGS;
    if (a - HANGUL_FIRST < SYLLABLES && (a - HANGUL_FIRST) % TRAILINGS == 0 && b > TRAILING &&
        b < TRAILING + TRAILINGS)
        return a + (b - TRAILING);
    size_t low = 0, high = COUNT(unicode_composed) / 3;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const uint32_t *pair = unicode_composed + 3 * middle;
        if (pair[0] == a && pair[1] == b)
            return pair[2];
        if (pair[0] < a || (pair[0] == a && pair[1] < b))
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* Composes in place and returns how many characters are left. */
static size_t compose(uint64_t *characters, size_t n)
{
    size_t kept = 0, starter = SIZE_MAX;
    unsigned last_rank = 0; /* of the character kept last, behind the starter */
    for (size_t i = 0; i < n; i++) {
        unsigned rank = RANK(characters[i]);
        /* A mark of the same or a higher class between the two blocks, and so does a starter. */
        bool adjacent = starter != SIZE_MAX && (kept == starter + 1 || (last_rank != 0 && last_rank < rank));
        uint32_t whole = adjacent ? compose_pair(CODE(characters[starter]), CODE(characters[i])) : 0;
        if (whole) {
            characters[starter] = whole;
            continue;
        }
        if (rank == 0)
            starter = kept;
        last_rank = rank;
        characters[kept++] = characters[i];
    }
    return kept;
}

/* ---- Whole texts --------------------------------------------------------------------------- */

/* Takes the next character of text[*at..n), or a byte that is not UTF-8 as a number beyond Unicode. */
static uint32_t take(const char *text, size_t n, size_t *at)
{
    size_t used;
    uint32_t c = utf8_read(text + *at, n - *at, &used);
    if (c == UTF8_BAD) {
        used = 1;
        c = RAW_BYTE + (unsigned char)text[*at];
    }
    *at += used;
    return c;
}

static size_t ascii_length(const char *text, size_t n)
{
    size_t at = 0;
    while (at < n && (unsigned char)text[at] < 128)
        at++;
    return at;
}

void unicode_normalize(struct strbuf *out, const char *text, size_t n, enum unicode_form form,
                       struct unicode_scratch *scratch)
{
    struct characters characters = { .scratch = scratch };
    bool compatible = form == UNICODE_NFKC || form == UNICODE_NFKD;
    size_t at = ascii_length(text, n);
    at -= at > 0 && at < n; /* a mark may follow the last one */
    strbuf_add(out, text, at);
    while (at < n)
        decompose(&characters, take(text, n, &at), compatible);
    if (characters.failed) {
        out->failed = true;
        return;
    }
    order(scratch->characters, characters.n);
    if (form == UNICODE_NFC || form == UNICODE_NFKC)
        characters.n = compose(scratch->characters, characters.n);
    for (size_t i = 0; i < characters.n; i++)
        put(out, CODE(scratch->characters[i]));
}

static uint32_t lower_of(uint32_t c)
{
    size_t low = 0, high = COUNT(unicode_lower) / 2;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (unicode_lower[2 * middle] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(unicode_lower) / 2 && unicode_lower[2 * low] == c ? unicode_lower[2 * low + 1] : c;
}

void unicode_lowercase(struct strbuf *out, const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint32_t c = take(text, n, &at);
        if (c < 128)
            strbuf_putc(out, (char)(c >= 'A' && c <= 'Z' ? c | 32 : c));
        else
            put(out, c == 0x130 ? 'i' : lower_of(c));
        if (c == 0x130)
            put(out, 0x307);
    }
}

void unicode_strip_marks(struct strbuf *out, const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint32_t c = take(text, n, &at);
        enum unicode_category category = c < RAW_BYTE ? unicode_category(c) : CATEGORY_CN;
        if (category != CATEGORY_MN && category != CATEGORY_MC && category != CATEGORY_ME)
            put(out, c);
    }
}
