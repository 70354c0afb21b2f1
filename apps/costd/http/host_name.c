#include "host_name.h"

#include <string.h>
#include <strings.h>

#include "fail.h"

#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

struct name {
    const char *text;
    size_t n;
};

static bool name_is(struct name name, const char *text)
{
    return name.n == strlen(text) && strncasecmp(name.text, text, name.n) == 0;
}

/* Without the port and the dot that ends an absolute name. */
static struct name name_of(const char *host)
{
    struct name name = { host, host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":") };
    if (name.n > 1 && host[name.n - 1] == '.')
        name.n--;
    return name;
}

static bool is_below(struct name name, struct name parent)
{
    return name.n > parent.n + 1 && name.text[name.n - parent.n - 1] == '.' &&
           strncasecmp(name.text + name.n - parent.n, parent.text, parent.n) == 0;
}

static bool next_name(const char **list, struct name *out)
{
    if (!*list || !**list)
        return false;
    *out = (struct name){ *list, strcspn(*list, ",") };
    *list += out->n + ((*list)[out->n] == ',');
    return true;
}

static bool is_pattern(struct name name)
{
    return name.n > 2 && name.text[0] == '*' && name.text[1] == '.';
}

enum cinf_status host_list_check(const char *list)
{
    struct name name;
    size_t n = strlen(list);
    if (n == 0 || list[n - 1] == ',')
        return cinf_fail(CINF_EINVAL, "\"%.200s\" does not end in a host name", list);
    while (next_name(&list, &name)) {
        struct name plain = is_pattern(name) ? (struct name){ name.text + 2, name.n - 2 } : name;
        if (plain.n == 0 || plain.n != strspn(plain.text, NAME_CHARACTERS) || plain.text[0] == '.')
            return cinf_fail(CINF_EINVAL, "\"%.*s\" is not NAME (without a port), *.NAME or any",
                             (int)(name.n < 200 ? name.n : 200), name.text);
    }
    return CINF_OK;
}

bool host_is_listed(const char *list, const char *host)
{
    struct name asked = name_of(host), name;
    while (next_name(&list, &name))
        if (name_is(name, "any") ||
            (is_pattern(name) ? is_below(asked, (struct name){ name.text + 2, name.n - 2 })
                              : name.n == asked.n && strncasecmp(name.text, asked.text, name.n) == 0))
            return true;
    return false;
}

bool host_cannot_be_rebound(const char *host)
{
    struct name name = name_of(host), local = { "localhost", strlen("localhost") };
    return host[0] == '[' || strspn(host, "0123456789.") >= name.n || name_is(name, local.text) ||
           is_below(name, local);
}

/* The host of "SCHEME://HOST[:PORT]", and the port that its scheme implies; NULL: the origin is "null". */
static const char *host_of_origin(const char *origin, const char **port)
{
    const char *host = strstr(origin, "://");
    *port = strncasecmp(origin, "https:", 6) == 0 ? "443" : "80";
    return host ? host + 3 : NULL;
}

static const char *port_of(const char *host, const char *otherwise)
{
    const char *colon = strchr(host[0] == '[' ? host + strcspn(host, "]") : host, ':');
    return colon && colon[1] ? colon + 1 : otherwise;
}

bool host_is_foreign(const char *list, const char *host, const char *origin, const char *fetch_site)
{
    const char *port = NULL, *from = origin ? host_of_origin(origin, &port) : NULL;
    if (from && host_is_listed(list, from))
        return false;
    /* A page cannot set it.  It is right also behind a proxy that changes Host. */
    if (fetch_site)
        return strcasecmp(fetch_site, "same-origin") != 0 && strcasecmp(fetch_site, "none") != 0;
    if (!origin)
        return false;
    if (!from || !host)
        return true;
    struct name a = name_of(from), b = name_of(host);
    return a.n != b.n || strncasecmp(a.text, b.text, a.n) != 0 ||
           strcmp(port_of(from, port), port_of(host, port)) != 0;
}
