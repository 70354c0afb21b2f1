#include "admission.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "access_log.h"
#include "keys.h"
#include "problem.h"
#include "service.h"

/* An address, or a name that is resolved without a name server: nothing outside this machine can point it to
 * us. */
static bool cannot_be_rebound(const char *host, size_t n)
{
    static const char local[] = "localhost", below[] = ".localhost";
    if (host[0] == '[' || strspn(host, "0123456789.") == n)
        return true;
    return (n == strlen(local) && strncasecmp(host, local, n) == 0) ||
           (n > strlen(below) && strncasecmp(host + n - strlen(below), below, strlen(below)) == 0);
}

static bool is_listed(const char *names, const char *host, size_t n)
{
    for (const char *name = names; name && *name;) {
        size_t length = strcspn(name, ",");
        if (length == n && strncasecmp(name, host, n) == 0)
            return true;
        name += length + (name[length] == ',');
    }
    return false;
}

/* A web page from elsewhere can make its own host name resolve to us (DNS rebinding) and then ask as if it
 * were ours.  It cannot know a key, so this matters where no key is required. */
static bool host_is_ours(struct exchange *x)
{
    const struct service *service = service_of(x);
    const char *host = exchange_host(x);
    bool open = exchange_is_private(x) && !service->keys;
    if (!host || exchange_is_unix(x) || !(service->allow_hosts || open))
        return true;
    size_t n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    return cannot_be_rebound(host, n) || is_listed(service->allow_hosts, host, n);
}

bool admit(struct exchange *x, enum right right)
{
    const struct service *service = service_of(x);
    struct access *access = access_of(x);
    if (!host_is_ours(x)) {
        problem_host(x);
        return false;
    }
    uint32_t key = service->keys ? keys_find(service->keys, exchange_header(x, "Authorization")) : NO_KEY;
    if (key != NO_KEY) {
        access->key = key;
        snprintf(access->key_name, sizeof access->key_name, "%s", keys_name(service->keys, key));
    }
    if (right == RIGHT_NONE || (exchange_listener(x) == LISTENER_ADMIN && exchange_is_private(x)) ||
        (right == RIGHT_USE && (key != NO_KEY || !service->keys)) ||
        (right == RIGHT_ADMIN && keys_is_admin(service->keys, key)))
        return true;
    if (service->keys && key == NO_KEY)
        problem_no_key(x);
    else
        problem_no_right(x);
    return false;
}
