#include "keys.h"

#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>

#include "fail.h"
#include "file.h"
#include "mem.h"
#include "sha256.h"

enum { FILE_BYTES_MAX = 1 << 20 };
static const char anonymous[] = "anonymous";

struct key {
    char name[KEY_NAME_BYTES_MAX + 1];
    uint8_t digest[SHA256_BYTES];
    bool admin;
    bool gone; /* it has left the file */
};

/* A name keeps its number for ever, so that each account stays with its owner; its digest may change. */
struct keys {
    char *path;
    pthread_rwlock_t lock; /* guards everything of a key except its name; held while keys are added */
    struct key keys[KEYS_MAX];
    _Atomic uint32_t n;
};

static int hex_value(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool read_digest(uint8_t digest[SHA256_BYTES], const char *text)
{
    if (strlen(text) != 2 * SHA256_BYTES)
        return false;
    for (int i = 0; i < SHA256_BYTES; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        digest[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

/* Names are written as labels and in the log. */
static bool name_is_good(const char *name)
{
    size_t n = strlen(name);
    return n <= KEY_NAME_BYTES_MAX && strcmp(name, anonymous) != 0 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@") == n;
}

static enum cinf_status add_line(struct keys *keys, char *line)
{
    char *rest, *comment = strchr(line, '#');
    if (comment)
        *comment = '\0';
    const char *name = strtok_r(line, " \t\r", &rest);
    if (!name)
        return CINF_OK;
    const char *digest = strtok_r(NULL, " \t\r", &rest), *role = strtok_r(NULL, " \t\r", &rest);
    struct key key = { .admin = role != NULL };
    if (!name_is_good(name))
        return cinf_fail(CINF_EINVAL, "expected a name of 1 to %d letters, digits and ._-@",
                         KEY_NAME_BYTES_MAX);
    if (!digest || !read_digest(key.digest, digest))
        /* The message does not quote the word: it may be the key itself. */
        return cinf_fail(CINF_EINVAL, "expected a name and a SHA-256 digest of 64 hexadecimal digits");
    if (role && (strcmp(role, "admin") != 0 || strtok_r(NULL, " \t\r", &rest)))
        return cinf_fail(CINF_EINVAL, "%s: unknown role after the digest; expected \"admin\" or nothing",
                         name);
    for (uint32_t i = 0; i < keys->n; i++)
        if (strcmp(keys->keys[i].name, name) == 0 ||
            memcmp(keys->keys[i].digest, key.digest, SHA256_BYTES) == 0)
            return cinf_fail(CINF_EINVAL, "%s: the name or the key is listed twice", name);
    if (keys->n == KEYS_MAX)
        return cinf_fail(CINF_EINVAL, "more than %d keys", KEYS_MAX);
    memcpy(key.name, name, strlen(name) + 1);
    keys->keys[keys->n++] = key;
    return CINF_OK;
}

static enum cinf_status add_lines(struct keys *keys, char *text)
{
    unsigned number = 1;
    for (char *line = text, *end; line; line = end, number++) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        enum cinf_status status = add_line(keys, line);
        if (status != CINF_OK)
            return cinf_fail_in(status, "line %u: ", number);
    }
    return keys->n ? CINF_OK : cinf_fail(CINF_EINVAL, "the file has no key");
}

static struct keys *new_keys(const char *path)
{
    struct keys *keys = mem_new(1, sizeof *keys);
    if (!keys)
        return NULL;
    pthread_rwlock_init(&keys->lock, NULL);
    keys->path = mem_copy_text(path);
    if (keys->path)
        return keys;
    keys_free(keys);
    return NULL;
}

enum cinf_status keys_load(struct keys **out, const char *path)
{
    char *text;
    size_t n;
    TRY(file_load(&text, &n, path, FILE_BYTES_MAX));
    struct keys *keys = new_keys(path);
    enum cinf_status status = keys ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for the keys");
    if (status == CINF_OK && strlen(text) != n)
        status = cinf_fail(CINF_EINVAL, "the file contains a NUL byte");
    if (status == CINF_OK)
        status = add_lines(keys, text);
    mem_free(text);
    if (status != CINF_OK) {
        keys_free(keys);
        return cinf_fail_in(status, "%s: ", path);
    }
    *out = keys;
    return CINF_OK;
}

/* The key's number, or NO_KEY. */
static uint32_t number_of(const struct keys *keys, const char *name)
{
    for (uint32_t i = 0; i < keys->n; i++)
        if (strcmp(keys->keys[i].name, name) == 0)
            return i + 1;
    return NO_KEY;
}

enum cinf_status keys_reload(struct keys *keys)
{
    struct keys *read;
    uint32_t n_new = 0;
    TRY(keys_load(&read, keys->path));
    for (uint32_t i = 0; i < read->n; i++)
        n_new += number_of(keys, read->keys[i].name) == NO_KEY;
    if (n_new > KEYS_MAX - keys->n) {
        keys_free(read);
        return cinf_fail(CINF_EINVAL, "%s: more than %d key names since the start", keys->path, KEYS_MAX);
    }
    pthread_rwlock_wrlock(&keys->lock);
    for (uint32_t i = 0; i < keys->n; i++)
        keys->keys[i].gone = true;
    for (uint32_t i = 0; i < read->n; i++) {
        uint32_t number = number_of(keys, read->keys[i].name);
        struct key *key = &keys->keys[number ? number - 1 : keys->n];
        if (!number)
            *key = read->keys[i];
        memcpy(key->digest, read->keys[i].digest, sizeof key->digest);
        key->admin = read->keys[i].admin;
        key->gone = false;
        keys->n += !number;
    }
    pthread_rwlock_unlock(&keys->lock);
    keys_free(read);
    return CINF_OK;
}

void keys_free(struct keys *keys)
{
    if (!keys)
        return;
    pthread_rwlock_destroy(&keys->lock);
    mem_free(keys->path);
    mem_free(keys);
}

uint32_t keys_find(struct keys *keys, const char *authorization)
{
    uint8_t digest[SHA256_BYTES];
    uint32_t found = NO_KEY;
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return NO_KEY;
    const char *key = authorization + 7 + strspn(authorization + 7, " ");
    sha256(digest, key, strlen(key));
    pthread_rwlock_rdlock(&keys->lock);
    for (uint32_t i = 0; i < keys->n; i++) {
        uint32_t differs = keys->keys[i].gone;
        for (int b = 0; b < SHA256_BYTES; b++)
            differs |= (uint32_t)(digest[b] ^ keys->keys[i].digest[b]);
        /* All ones where nothing differs, without a branch. */
        uint32_t same = 0u - ((differs - 1) >> 31);
        found |= same & (i + 1);
    }
    pthread_rwlock_unlock(&keys->lock);
    return found;
}

uint32_t keys_count(const struct keys *keys)
{
    return keys ? keys->n : 0;
}

const char *keys_name(const struct keys *keys, uint32_t number)
{
    return number == NO_KEY ? anonymous : keys->keys[number - 1].name;
}

bool keys_is_admin(struct keys *keys, uint32_t number)
{
    if (number == NO_KEY)
        return false;
    pthread_rwlock_rdlock(&keys->lock);
    bool admin = keys->keys[number - 1].admin && !keys->keys[number - 1].gone;
    pthread_rwlock_unlock(&keys->lock);
    return admin;
}
