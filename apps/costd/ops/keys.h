/* keys.h - API keys: which clients may ask, and under which name their requests are accounted.
 *
 * The file has one key a line, "NAME SHA256 [admin]": the digest of the key in hexadecimal, as
 * `printf %s "$KEY" | sha256sum` writes it; '#' begins a comment.  A name may have two lines, so that a new
 * key is valid before the old one is withdrawn.  The keys themselves are never stored or logged.
 *
 * At the start every line must be good.  When the file is read again, a line that is not is refused alone: a
 * key that has left the file is shut out whatever else is wrong in it. */
#ifndef KEYS_H
#define KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/status.h>

enum { KEYS_MAX = 1000, KEY_NAME_BYTES_MAX = 64, KEY_DIGESTS_MAX = 2, NO_KEY = 0 };

struct keys;

enum cinf_status keys_load(struct keys **out, const char *path);
void keys_free(struct keys *keys); /* accepts NULL */

/* Reads the file again, from any thread, and logs each line that is refused.  It fails, and nothing changes,
 * only if the file cannot be read.  Names keep their numbers, even those that left the file, because their
 * accounts stay. */
enum cinf_status keys_reload(struct keys *keys);
uint32_t keys_refused(const struct keys *keys); /* lines, when it was last read; 0 for NULL */

/* The number, from 1 on, of the name whose key an Authorization header carries ("Bearer KEY"), or NO_KEY. The
 * time this takes does not depend on the key. */
uint32_t keys_find(struct keys *keys, const char *authorization);

uint32_t keys_count(const struct keys *keys);                    /* names so far; 0 for NULL */
const char *keys_name(const struct keys *keys, uint32_t number); /* "anonymous" for NO_KEY */
bool keys_is_admin(struct keys *keys, uint32_t number);          /* each line of the name says "admin" */

#endif
