/* host_name.h - the names that requests may be sent to, and the web pages that they may come from.
 *
 * A web page from elsewhere can make its own name resolve to this machine (DNS rebinding) and ask as if it
 * were ours, so a listener that trusts its address must look at the Host header.  An address, or a name that
 * is resolved without a name server, cannot be rebound. */
#ifndef HOST_NAME_H
#define HOST_NAME_H

#include <stdbool.h>

#include <costinfer/status.h>

/* A list is "NAME,…": a name, "*.NAME" for every name below it, or "any". */
enum cinf_status host_list_check(const char *list);

/* Whether `host`, "HOST" or "HOST:PORT", has one of the names.  NULL: an empty list. */
bool host_is_listed(const char *list, const char *host);

/* Whether it is an IP address, localhost or a name below that. */
bool host_cannot_be_rebound(const char *host);

/* Whether a request to `host` that has the headers Origin and Sec-Fetch-Site comes from a web page of another
 * origin, whose name is not in the list either.  Each may be NULL. */
bool host_is_foreign(const char *list, const char *host, const char *origin, const char *fetch_site);

#endif
