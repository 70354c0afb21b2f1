#include "keys.h"

#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "fail.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "sha256.h"

enum { LINE_BYTES = 1024, CHUNK_BYTES = 1 << 14, REFUSALS_LOGGED = 20 };
static const char anonymous[] = "anonymous";

struct key {
    char name[KEY_NAME_BYTES_MAX + 1];
    uint8_t digests[KEY_DIGESTS_MAX][SHA256_BYTES];
    uint32_t n_digests; /* 0: the name has left the file */
    bool admin;         /* all of its lines say so */
    unsigned line;      /* the first of the name, in the file as it was last read */
};

/* A name keeps its number for ever, so that each account stays with its owner; its digests may change. */
struct keys {
    char *path;
    pthread_mutex_t reading; /* one thread reads the file at a time */
    mode_t open_mode;        /* that was warned of; 0: none */
    pthread_rwlock_t lock;   /* guards everything of a key except its name; held while keys are added */
    struct key keys[KEYS_MAX];
    _Atomic uint32_t n, n_refused;
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

/* ---- The file ------------------------------------------------------------------------------ */

/* One pass over the file. */
struct reading {
    const char *path;
    bool strict; /* the first line that is not good ends it */
    char line[LINE_BYTES];
    size_t n_line;
    bool is_long, has_nul, in_comment;
    unsigned number; /* of the line, from 1 on */
    uint32_t n, n_refused;
    struct key keys[KEYS_MAX];
};

/* Takes the thread's last failure as what is wrong with a line. */
static enum cinf_status refuse(struct reading *r, unsigned line, enum cinf_status status)
{
    if (r->strict)
        return cinf_fail_in(status, "line %u: ", line);
    if (r->n_refused++ < REFUSALS_LOGGED)
        log_message("error", "key_file", "%s: line %u is refused: %s", r->path, line, cinf_last_error());
    return CINF_OK;
}

static bool is_listed(const struct reading *r, const uint8_t digest[SHA256_BYTES])
{
    for (uint32_t i = 0; i < r->n; i++)
        for (uint32_t d = 0; d < r->keys[i].n_digests; d++)
            if (memcmp(r->keys[i].digests[d], digest, SHA256_BYTES) == 0)
                return true;
    return false;
}

static enum cinf_status add_key(struct reading *r, const char *name, const uint8_t digest[SHA256_BYTES],
                                bool admin)
{
    uint8_t empty[SHA256_BYTES];
    uint32_t i = 0;
    sha256(empty, "", 0);
    if (memcmp(digest, empty, sizeof empty) == 0)
        return cinf_fail(CINF_EINVAL, "%s: this is the digest of an empty key", name);
    if (is_listed(r, digest))
        return cinf_fail(CINF_EINVAL, "%s: the key is listed twice", name);
    while (i < r->n && strcmp(r->keys[i].name, name) != 0)
        i++;
    struct key *key = &r->keys[i];
    if (i == KEYS_MAX)
        return cinf_fail(CINF_EINVAL, "%s: there are %d names already", name, KEYS_MAX);
    if (i == r->n) {
        memcpy(key->name, name, strlen(name) + 1);
        key->line = r->number;
        key->admin = true;
        r->n++;
    } else if (key->n_digests == KEY_DIGESTS_MAX) {
        return cinf_fail(CINF_EINVAL, "%s: the name has %d keys already", name, KEY_DIGESTS_MAX);
    }
    memcpy(key->digests[key->n_digests++], digest, SHA256_BYTES);
    key->admin &= admin;
    return CINF_OK;
}

static enum cinf_status read_line(struct reading *r)
{
    uint8_t bytes[SHA256_BYTES];
    char *rest;
    if (r->is_long)
        return cinf_fail(CINF_EINVAL, "it is longer than %d bytes", LINE_BYTES - 1);
    if (r->has_nul)
        return cinf_fail(CINF_EINVAL, "it contains a NUL byte");
    r->line[r->n_line] = '\0';
    const char *name = strtok_r(r->line, " \t\r", &rest);
    if (!name)
        return CINF_OK;
    const char *digest = strtok_r(NULL, " \t\r", &rest), *role = strtok_r(NULL, " \t\r", &rest);
    if (!name_is_good(name))
        return cinf_fail(CINF_EINVAL, "expected a name of 1 to %d letters, digits and ._-@",
                         KEY_NAME_BYTES_MAX);
    if (!digest || !read_digest(bytes, digest))
        /* The message does not quote the word: it may be the key itself. */
        return cinf_fail(CINF_EINVAL, "expected a name and a SHA-256 digest of 64 hexadecimal digits");
    if (role && (strcmp(role, "admin") != 0 || strtok_r(NULL, " \t\r", &rest)))
        return cinf_fail(CINF_EINVAL, "%s: unknown role after the digest; expected \"admin\" or nothing",
                         name);
    return add_key(r, name, bytes, role != NULL);
}

static enum cinf_status end_line(struct reading *r)
{
    r->number++;
    enum cinf_status status = read_line(r);
    r->n_line = 0;
    r->is_long = r->has_nul = r->in_comment = false;
    return status == CINF_OK ? CINF_OK : refuse(r, r->number, status);
}

static void add_byte(struct reading *r, char c)
{
    r->in_comment |= c == '#';
    if (r->in_comment)
        return;
    r->has_nul |= c == '\0';
    r->is_long |= r->n_line == LINE_BYTES - 1;
    if (!r->is_long)
        r->line[r->n_line++] = c;
}

/* Of any size: a file that has grown beyond all sense must still be able to shut keys out. */
static enum cinf_status read_lines(struct reading *r, const struct file *f)
{
    char chunk[CHUNK_BYTES];
    for (uint64_t at = 0; at < f->size;) {
        size_t n = f->size - at < sizeof chunk ? (size_t)(f->size - at) : sizeof chunk;
        TRY(file_read(f, at, chunk, n));
        for (size_t i = 0; i < n; i++) {
            if (chunk[i] == '\n')
                TRY(end_line(r));
            else
                add_byte(r, chunk[i]);
        }
        at += n;
    }
    return end_line(r);
}

/* A digest that others can read can be guessed at leisure; a user who can write the file needs no key. */
static void warn_of_mode(struct keys *keys, const struct file *f)
{
    struct stat st;
    mode_t open_mode = fstat(f->fd, &st) == 0 ? st.st_mode & (S_IRWXG | S_IRWXO) : 0;
    if (open_mode && open_mode != keys->open_mode)
        log_message("warn", "key_file",
                    "%s: others than its owner may %s it (mode %04o); chmod 600 ends that", keys->path,
                    open_mode & (S_IWGRP | S_IWOTH) ? "change" : "read", (unsigned)(st.st_mode & 07777));
    keys->open_mode = open_mode;
}

/* Adds up what the file says; *r is zero but for path and strict. */
static enum cinf_status read_file(struct keys *keys, struct reading *r)
{
    struct file f;
    TRY(file_open(&f, keys->path));
    enum cinf_status status = read_lines(r, &f);
    if (status == CINF_OK && r->strict && r->n == 0)
        status = cinf_fail(CINF_EINVAL, "the file has no key");
    if (status == CINF_OK)
        warn_of_mode(keys, &f);
    file_close(&f);
    return status == CINF_OK || !r->strict ? status : cinf_fail_in(status, "%s: ", keys->path);
}

/* ---- Names and their numbers ---------------------------------------------------------------- */

/* The key's number, or NO_KEY. */
static uint32_t number_of(const struct keys *keys, const char *name)
{
    for (uint32_t i = 0; i < keys->n; i++)
        if (strcmp(keys->keys[i].name, name) == 0)
            return i + 1;
    return NO_KEY;
}

/* False if there is no number left for a new name.  Caller holds keys.lock for writing. */
static bool take_key(struct keys *keys, const struct key *read)
{
    uint32_t number = number_of(keys, read->name);
    if (!number && keys->n == KEYS_MAX)
        return false;
    /* A name that has a number is read without the lock. */
    struct key *key = &keys->keys[number ? number - 1 : keys->n];
    if (!number)
        memcpy(key->name, read->name, sizeof key->name);
    memcpy(key->digests, read->digests, sizeof key->digests);
    key->n_digests = read->n_digests;
    key->admin = read->admin;
    keys->n += !number;
    return true;
}

static void log_gone(const struct keys *keys, const bool *was_valid, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (was_valid[i] && keys->keys[i].n_digests == 0)
            log_message("info", "key_gone", "%s has no valid key any more", keys->keys[i].name);
}

/* What the file does not have is shut out first. */
static enum cinf_status take_keys(struct keys *keys, struct reading *r)
{
    bool was_valid[KEYS_MAX] = { false }, is_taken[KEYS_MAX] = { false };
    enum cinf_status status = CINF_OK;
    uint32_t n_before = keys->n;
    pthread_rwlock_wrlock(&keys->lock);
    for (uint32_t i = 0; i < n_before; i++) {
        was_valid[i] = keys->keys[i].n_digests > 0;
        keys->keys[i].n_digests = 0;
    }
    for (uint32_t i = 0; i < r->n; i++)
        is_taken[i] = take_key(keys, &r->keys[i]);
    pthread_rwlock_unlock(&keys->lock);
    for (uint32_t i = 0; i < r->n && status == CINF_OK; i++)
        if (!is_taken[i])
            status = refuse(r, r->keys[i].line,
                            cinf_fail(CINF_EINVAL,
                                      "%s: there have been %d names since the start, which keep their "
                                      "accounts; a restart makes room",
                                      r->keys[i].name, KEYS_MAX));
    keys->n_refused = r->n_refused;
    log_gone(keys, was_valid, n_before);
    if (r->n_refused > REFUSALS_LOGGED)
        log_message("error", "key_file", "%s: %u lines are refused", keys->path, r->n_refused);
    return status;
}

static enum cinf_status read_keys(struct keys *keys, bool strict)
{
    struct reading *r = mem_new(1, sizeof *r);
    if (!r)
        return cinf_fail(CINF_ENOMEM, "no memory for the keys");
    r->path = keys->path;
    r->strict = strict;
    pthread_mutex_lock(&keys->reading);
    enum cinf_status status = read_file(keys, r);
    if (status == CINF_OK)
        status = take_keys(keys, r);
    pthread_mutex_unlock(&keys->reading);
    mem_free(r);
    return status;
}

static struct keys *new_keys(const char *path)
{
    struct keys *keys = mem_new(1, sizeof *keys);
    if (!keys)
        return NULL;
    pthread_rwlock_init(&keys->lock, NULL);
    pthread_mutex_init(&keys->reading, NULL);
    keys->path = mem_copy_text(path);
    if (keys->path)
        return keys;
    keys_free(keys);
    return NULL;
}

enum cinf_status keys_load(struct keys **out, const char *path)
{
    struct keys *keys = new_keys(path);
    if (!keys)
        return cinf_fail(CINF_ENOMEM, "no memory for the keys");
    enum cinf_status status = read_keys(keys, true);
    if (status != CINF_OK) {
        keys_free(keys);
        return status;
    }
    *out = keys;
    return CINF_OK;
}

enum cinf_status keys_reload(struct keys *keys)
{
    return read_keys(keys, false);
}

void keys_free(struct keys *keys)
{
    if (!keys)
        return;
    pthread_mutex_destroy(&keys->reading);
    pthread_rwlock_destroy(&keys->lock);
    mem_free(keys->path);
    mem_free(keys);
}

/* ---- Asking --------------------------------------------------------------------------------- */

/* All ones if they are the same, otherwise 0, without a branch. */
static uint32_t is_same(const uint8_t a[SHA256_BYTES], const uint8_t b[SHA256_BYTES])
{
    uint32_t differs = 0;
    for (int i = 0; i < SHA256_BYTES; i++)
        differs |= (uint32_t)(a[i] ^ b[i]);
    return 0u - ((differs - 1) >> 31);
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
        for (uint32_t d = 0; d < KEY_DIGESTS_MAX; d++) {
            uint32_t valid = 0u - (uint32_t)(d < keys->keys[i].n_digests);
            found |= valid & is_same(digest, keys->keys[i].digests[d]) & (i + 1);
        }
    }
    pthread_rwlock_unlock(&keys->lock);
    return found;
}

uint32_t keys_refused(const struct keys *keys)
{
    return keys ? keys->n_refused : 0;
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
    const struct key *key = &keys->keys[number - 1];
    bool admin = key->admin && key->n_digests > 0;
    pthread_rwlock_unlock(&keys->lock);
    return admin;
}
