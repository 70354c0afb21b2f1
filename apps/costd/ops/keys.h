/* keys.h - API keys: which clients may ask, and under which name their requests are accounted.
 *
 * The file has one key a line, "NAME SHA256 [admin]": the digest of the key in hexadecimal, as
 * `printf %s "$KEY" | sha256sum` writes it; '#' begins a comment.  The keys themselves are never stored or
 * logged. */
#ifndef KEYS_H
#define KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/status.h>

enum { KEYS_MAX = 1000, KEY_NAME_BYTES_MAX = 64, NO_KEY = 0 };

struct keys;

enum cinf_status keys_load(struct keys **out, const char *path);
void keys_free(struct keys *keys); /* accepts NULL */

/* Reads the file again, from any thread; if it cannot be read, nothing changes.  Names keep their numbers,
 * even those that left the file, because their accounts stay. */
enum cinf_status keys_reload(struct keys *keys);

/* The number, from 1 on, of the key that an Authorization header carries ("Bearer KEY"), or NO_KEY.  The
 * time this takes does not depend on the key. */
uint32_t keys_find(struct keys *keys, const char *authorization);

uint32_t keys_count(const struct keys *keys);                    /* names so far; 0 for NULL */
const char *keys_name(const struct keys *keys, uint32_t number); /* "anonymous" for NO_KEY */
bool keys_is_admin(struct keys *keys, uint32_t number);

#endif
