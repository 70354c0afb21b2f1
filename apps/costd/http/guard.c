#include "guard.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

struct head {
    const char *fault;
    unsigned n_host, n_length, n_encoding;
    const char *host, *length, *encoding;
};

static bool is_token(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && (text[i] == '\0' || !strchr("!#$%&'*+-.^_`|~", text[i])))
            return false;
    return n > 0;
}

static bool is_digits(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

static bool is_value(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\t') || c == 0x7F)
            return false;
    }
    return true;
}

bool guard_host(const char *text)
{
    size_t n;
    if (*text == '[') {
        n = 1 + strspn(text + 1, "0123456789abcdefABCDEF:.");
        if (text[n] != ']')
            return false;
        n++;
    } else {
        n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~");
        if (n == 0)
            return false;
    }
    return text[n] == '\0' || (text[n] == ':' && (text[n + 1] == '\0' || is_digits(text + n + 1)));
}

static enum MHD_Result look(void *context, enum MHD_ValueKind kind, const char *name, size_t name_bytes,
                            const char *value, size_t value_bytes)
{
    struct head *head = context;
    (void)kind;
    if (!is_token(name, name_bytes))
        head->fault = "a header's name is malformed";
    else if (value && !is_value(value, value_bytes))
        head->fault = "a header's value has control characters";
    if (head->fault)
        return MHD_NO;
    if (strcasecmp(name, "Host") == 0) {
        head->n_host++;
        head->host = value;
    } else if (strcasecmp(name, "Content-Length") == 0) {
        head->n_length++;
        head->length = value;
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        head->n_encoding++;
        head->encoding = value;
    }
    return MHD_YES;
}

bool guard_target(const char *target)
{
    return *target && is_value(target, strlen(target)) && !strpbrk(target, " \t");
}

const char *guard_check(struct MHD_Connection *connection, const char *method, const char *version)
{
    struct head head = { 0 };
    bool old = strcmp(version, "HTTP/1.0") == 0;
    if (!old && strcmp(version, "HTTP/1.1") != 0)
        return "the version is neither HTTP/1.0 nor HTTP/1.1";
    if (!is_token(method, strlen(method)))
        return "the method is malformed";
    MHD_get_connection_values_n(connection, MHD_HEADER_KIND, look, &head);
    if (head.fault)
        return head.fault;
    if (head.n_host > 1 || (head.n_host == 0 && !old))
        return "there must be exactly one Host header";
    if (head.n_host == 1 && (!head.host || !guard_host(head.host)))
        return "the Host header is malformed";
    if (head.n_length > 1)
        return "there is more than one Content-Length header";
    if (head.n_length == 1 && (!head.length || !is_digits(head.length) || strlen(head.length) > 18))
        return "the Content-Length header is not a number";
    if (head.n_encoding > 1 ||
        (head.n_encoding == 1 && (!head.encoding || old || strcasecmp(head.encoding, "chunked") != 0)))
        return "the only transfer encoding is \"chunked\", once and in HTTP/1.1";
    if (head.n_encoding && head.n_length)
        return "there are both Content-Length and Transfer-Encoding";
    return NULL;
}

static enum MHD_Result look_at_coding(void *context, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    enum coding *coding = context;
    (void)kind;
    if (strcasecmp(name, "Content-Encoding") != 0 || !value || strcasecmp(value, "identity") == 0)
        return MHD_YES;
    bool gzip = strcasecmp(value, "gzip") == 0 || strcasecmp(value, "x-gzip") == 0;
    *coding = gzip && *coding == CODING_NONE ? CODING_GZIP : CODING_UNKNOWN;
    return MHD_YES;
}

enum coding guard_coding(struct MHD_Connection *connection)
{
    enum coding coding = CODING_NONE;
    MHD_get_connection_values(connection, MHD_HEADER_KIND, look_at_coding, &coding);
    return coding;
}
