/* fuzz_http_target.c - a request's target, taken apart and percent-decoded.
 *
 * The pairs of a query are compared with those that a plain reading of the sent text finds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "percent.h"
#include "mem.h"
#include "target.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

/* The pairs are those between '&', without the empty ones. */
static void check_query(const struct target *t, const char *sent)
{
    const char *pair = t->query;
    const char *in = strchr(sent, '?');
    while (in && *in) {
        in++; /* over '?' or '&' */
        size_t n = strcspn(in, "&");
        if (n > 0) {
            must(strlen(pair) == n && memcmp(pair, in, n) == 0);
            pair += n + 1;
        }
        in += n;
    }
    must(*pair == '\0');
    for (pair = t->query; *pair; pair += strlen(pair) + 1) {
        char name[8] = "";
        const char *equals = strchr(pair, '=');
        if (!equals || (size_t)(equals - pair) >= sizeof name)
            continue;
        memcpy(name, pair, (size_t)(equals - pair));
        const char *value = target_query(t, name); /* of the first pair of that name, whatever its case */
        must(value != NULL && value[-1] == '=' && value <= equals + 1);
        must(strncasecmp(value - 1 - strlen(name), name, strlen(name)) == 0);
    }
}

static void check_decoding(const char *text, bool plus)
{
    char *decoded, *again;
    if (percent_decode(&decoded, text, plus) != CINF_OK)
        return;
    size_t n = strlen(decoded);
    must(n <= strlen(text) && utf8_valid(decoded, n));
    /* With every byte encoded it is the same text. */
    char *encoded = malloc(3 * n + 1);
    must(encoded != NULL);
    for (size_t i = 0; i < n; i++) {
        encoded[3 * i] = '%';
        encoded[3 * i + 1] = "0123456789abcdef"[(uint8_t)decoded[i] >> 4];
        encoded[3 * i + 2] = "0123456789ABCDEF"[decoded[i] & 15];
    }
    encoded[3 * n] = '\0';
    must(percent_decode(&again, encoded, plus) == CINF_OK && strcmp(again, decoded) == 0);
    free(encoded);
    mem_free(again);
    mem_free(decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct target t;
    char *sent = malloc(size + 1);
    must(sent != NULL);
    memcpy(sent, data, size);
    sent[size] = '\0';
    if (target_read(&t, sent)) {
        must(strchr(t.path, '?') == NULL);
        must(!t.authority || (strchr(t.authority, '/') == NULL && t.path[0] == '/'));
        check_query(&t, sent);
        check_decoding(t.path, false);
        for (const char *pair = t.query; *pair; pair += strlen(pair) + 1)
            check_decoding(pair, true);
        target_free(&t);
    }
    free(sent);
    return 0;
}
