#include "admission.h"

#include <stdio.h>
#include <string.h>

#include "access_log.h"
#include "host_name.h"
#include "keys.h"
#include "problem.h"
#include "service.h"

/* The clients of this listener have rights that others have only with a key. */
static bool trusts_address(struct exchange *x)
{
    return exchange_is_private(x) && (!service_of(x)->keys || exchange_listener(x) == LISTENER_ADMIN);
}

/* A web page cannot know a key, so its Host matters where none is needed, and where the operator has said
 * which names there are.  Browsers do not reach Unix sockets. */
static bool host_is_ours(struct exchange *x)
{
    const char *list = service_of(x)->allow_hosts, *host = exchange_host(x);
    if (!host || exchange_is_unix(x) || !(list || trusts_address(x)))
        return true;
    return host_cannot_be_rebound(host) || host_is_listed(list, host);
}

/* Browsers let any page send requests to any server, as long as it does not look at the answers.  A proxy may
 * add an administrator's key to them, so a key does not help there. */
static bool is_of_foreign_page(struct exchange *x, enum right right)
{
    const char *method = exchange_method(x);
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0 ||
        !(right == RIGHT_ADMIN || trusts_address(x)))
        return false;
    return host_is_foreign(service_of(x)->allow_hosts, exchange_host(x), exchange_header(x, "Origin"),
                           exchange_header(x, "Sec-Fetch-Site"));
}

static bool is_admin(struct exchange *x)
{
    const struct service *service = service_of(x);
    return (exchange_listener(x) == LISTENER_ADMIN && exchange_is_private(x)) ||
           keys_is_admin(service->keys, access_of(x)->key);
}

bool sees_all_figures(struct exchange *x)
{
    return !service_of(x)->keys || is_admin(x);
}

static bool has_right(struct exchange *x, enum right right)
{
    switch (right) {
    case RIGHT_NONE:
        return true;
    case RIGHT_USE:
        return access_of(x)->key != NO_KEY || sees_all_figures(x);
    case RIGHT_ALL_FIGURES:
        return sees_all_figures(x);
    case RIGHT_ADMIN:
        return is_admin(x);
    }
    return false;
}

bool admit(struct exchange *x, enum right right)
{
    const struct service *service = service_of(x);
    struct access *access = access_of(x);
    if (!host_is_ours(x)) {
        problem_host(x, exchange_host(x));
        return false;
    }
    if (is_of_foreign_page(x, right)) {
        problem_origin(x, exchange_header(x, "Origin"));
        return false;
    }
    uint32_t key = service->keys ? keys_find(service->keys, exchange_header(x, "Authorization")) : NO_KEY;
    if (key != NO_KEY) {
        access->key = key;
        snprintf(access->key_name, sizeof access->key_name, "%s", keys_name(service->keys, key));
    }
    if (has_right(x, right))
        return true;
    if (service->keys && key == NO_KEY)
        problem_no_key(x);
    else
        problem_no_right(x);
    return false;
}
