/* negotiate.c - choosing the format that an Accept header asks for (RFC 9110, section 12.5.1).
 *
 * Each member of the list stands by itself: a member that is malformed, of another type, of another
 * version, or refused by q=0 is skipped, and the best of the rest wins, the earlier one among equals.
 * Unknown parameters (Prometheus 3 sends escaping=) are read and ignored.  A header of any length is
 * read once, from left to right. */
#include <costinfer/exposition.h>

#include <stdbool.h>
#include <string.h>

struct span {
    const char *at;
    size_t n;
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is(struct span s, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; s.n == n && i < n; i++)
        if (lower(s.at[i]) != text[i])
            return false;
    return s.n == n;
}

static bool is_token(char c)
{
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static void skip_blanks(const char **at)
{
    while (**at == ' ' || **at == '\t')
        (*at)++;
}

static bool skip(const char **at, char c)
{
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

/* Reads a token; n = 0 if there is none. */
static struct span read_token(const char **at)
{
    struct span s = { *at, 0 };
    while (is_token(**at)) {
        (*at)++;
        s.n++;
    }
    return s;
}

/* Reads a token or a quoted string, the latter without its quotes and with its escapes as they are. */
static bool read_value(const char **at, struct span *value)
{
    if (!skip(at, '"')) {
        *value = read_token(at);
        return value->n > 0;
    }
    value->at = *at;
    while (**at && **at != '"')
        *at += **at == '\\' && (*at)[1] ? 2 : 1;
    value->n = (size_t)(*at - value->at);
    return skip(at, '"');
}

/* "0.75" in thousandths; -1 unless it is a digit 0 or 1 with at most three decimals, at most 1. */
static int read_weight(struct span s)
{
    if (s.n < 1 || s.n > 5 || s.at[0] < '0' || s.at[0] > '1' || (s.n > 1 && s.at[1] != '.'))
        return -1;
    int value = (s.at[0] - '0') * 1000, unit = 100;
    for (size_t i = 2; i < s.n; i++, unit /= 10) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return -1;
        value += (s.at[i] - '0') * unit;
    }
    return value <= 1000 ? value : -1;
}

/* Reads one member and returns its weight for *format, 0 if it offers neither format.  The caller skips
 * what a malformed member leaves unread. */
static int read_member(const char **at, enum cinf_exposition_format *format)
{
    struct span type = read_token(at), subtype = { 0 }, version = { 0 };
    bool good = type.n > 0 && skip(at, '/') && (subtype = read_token(at)).n > 0;
    int weight = 1000;
    while (good) {
        skip_blanks(at);
        if (!skip(at, ';'))
            break;
        skip_blanks(at);
        struct span name = read_token(at), value;
        if (name.n == 0) /* an empty parameter */
            continue;
        good = skip(at, '=') && read_value(at, &value);
        if (good && is(name, "q"))
            good = (weight = read_weight(value)) >= 0;
        else if (good && is(name, "version"))
            version = value;
    }
    if (!good || (**at && **at != ','))
        return 0;
    bool any = is(subtype, "*");
    if (is(type, "application") && is(subtype, "openmetrics-text") &&
        (version.n == 0 || is(version, "1.0.0")))
        *format = CINF_EXPOSITION_OPENMETRICS;
    else if ((is(type, "*") && any) ||
             (is(type, "text") && (any || is(subtype, "plain")) && (version.n == 0 || is(version, "0.0.4"))))
        *format = CINF_EXPOSITION_TEXT;
    else
        return 0;
    return weight;
}

enum cinf_exposition_format cinf_exposition_negotiate(const char *accept)
{
    enum cinf_exposition_format best = CINF_EXPOSITION_TEXT, format = best;
    int best_weight = 0;
    for (const char *at = accept ? accept : ""; *at;) {
        skip_blanks(&at);
        int weight = read_member(&at, &format);
        if (weight > best_weight) {
            best_weight = weight;
            best = format;
        }
        /* Skip to the comma that ends the member; a comma inside quotes does not end it. */
        for (bool quoted = false; *at && (quoted || *at != ','); at++) {
            if (quoted && *at == '\\' && at[1])
                at++;
            else if (*at == '"')
                quoted = !quoted;
        }
        skip(&at, ',');
    }
    return best;
}

const char *cinf_exposition_content_type(enum cinf_exposition_format format)
{
    return format == CINF_EXPOSITION_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}
