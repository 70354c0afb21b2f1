#include "target.h"

#include <string.h>
#include <strings.h>

#include "mem.h"

/* Returns what follows "SCHEME://", or NULL for a target of another form. */
static char *after_scheme(char *text)
{
    size_t n = strcspn(text, ":/?");
    return n > 0 && strncmp(text + n, "://", 3) == 0 ? text + n + 3 : NULL;
}

static bool is_http(const char *text)
{
    return strncasecmp(text, "http://", 7) == 0 || strncasecmp(text, "https://", 8) == 0;
}

/* Ends the pairs, and removes the empty ones, because an empty pair ends the list. */
static void split_query(char *query)
{
    char *out = query;
    for (const char *in = query; *in;) {
        size_t n = strcspn(in, "&");
        bool last = !in[n];
        memmove(out, in, n);
        if (n > 0) {
            out[n] = '\0';
            out += n + 1;
        }
        if (last)
            break;
        in += n + 1;
    }
    *out = '\0';
}

bool target_read(struct target *out, const char *sent)
{
    static const char slash[] = "/";
    size_t n = strlen(sent);
    char *text = mem_new(n + 3, 1); /* the last pair's end, the list's, and the end of an authority */
    if (!text)
        return false;
    memcpy(text, sent, n);
    struct target t = { .text = text, .path = text, .query = text + n };
    char *query = strchr(text, '?'), *authority = after_scheme(text);
    if (query) {
        *query++ = '\0';
        split_query(query);
        t.query = query;
    }
    if (authority) {
        size_t length = strcspn(authority, "/");
        t.path = authority[length] ? authority + length : slash;
        t.authority = "";
        /* The authority moves over the slashes before it, so that it can have an end of its own. */
        if (is_http(text)) {
            memmove(authority - 1, authority, length);
            t.authority = --authority;
            authority[length] = '\0';
        }
    }
    *out = t;
    return true;
}

void target_free(struct target *t)
{
    mem_free(t->text);
    *t = (struct target){ 0 };
}

const char *target_query(const struct target *t, const char *name)
{
    size_t n = strlen(name);
    for (const char *pair = t->query; *pair; pair += strlen(pair) + 1)
        if (strncasecmp(pair, name, n) == 0 && pair[n] == '=')
            return pair + n + 1;
    return NULL;
}
