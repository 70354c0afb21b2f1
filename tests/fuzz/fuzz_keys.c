/* fuzz_keys.c - the file of API keys, and what it becomes when it is read again.
 *
 * A byte 0xFF ends the first file and begins the second. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_file.h"
#include "keys.h"
#include "log.h"

/* Lines of the log go nowhere; their arguments are read, as the log would. */
void log_message(const char *level, const char *event, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    (void)level, (void)event;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

static void check_names(struct keys *keys, uint32_t n)
{
    for (uint32_t i = 1; i <= n; i++) {
        const char *name = keys_name(keys, i);
        size_t length = strlen(name);
        must(length > 0 && length <= KEY_NAME_BYTES_MAX && strcmp(name, keys_name(keys, NO_KEY)) != 0);
        for (size_t b = 0; b < length; b++)
            must(name[b] > ' ' && name[b] <= '~' && name[b] != '"' && name[b] != '\\');
        for (uint32_t k = 1; k < i; k++)
            must(strcmp(keys_name(keys, k), name) != 0);
        (void)keys_is_admin(keys, i);
    }
    must(!keys_is_admin(keys, NO_KEY));
}

/* The keys of the corpus are "k" and the empty one; a name that has one is found by it and by nothing else.
 */
static void check_found(struct keys *keys, uint32_t n)
{
    static const char *const headers[] = { "Bearer k", "bearer  k", "Bearer ", "Bearer x",
                                           "Basic k",  "",          "Bearer" };
    must(keys_find(keys, NULL) == NO_KEY);
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        must(keys_find(keys, headers[i]) <= n);
    must(keys_find(keys, "Bearer k") == keys_find(keys, "bearer  k"));
    must(keys_find(keys, "Basic k") == NO_KEY && keys_find(keys, "Bearer") == NO_KEY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[32], last[KEY_NAME_BYTES_MAX + 1] = "";
    struct keys *keys;
    const uint8_t *end = memchr(data, 0xFF, size);
    size_t n_first = end ? (size_t)(end - data) : size;
    struct file file = memory_file("", 0, data, n_first);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file.fd);
    if (keys_load(&keys, path) != CINF_OK)
        return 0;
    uint32_t n = keys_count(keys);
    must(n >= 1 && n <= KEYS_MAX);
    check_names(keys, n);
    check_found(keys, n);
    snprintf(last, sizeof last, "%s", keys_name(keys, n));
    /* The same file again changes nothing. */
    must(keys_reload(keys) == CINF_OK && keys_count(keys) == n);
    if (end) {
        (void)memory_file("", 0, end + 1, size - n_first - 1);
        uint32_t found = keys_find(keys, "Bearer k");
        bool read = keys_reload(keys) == CINF_OK;
        must(read || (keys_count(keys) == n && keys_find(keys, "Bearer k") == found));
        must(keys_count(keys) >= n && strcmp(keys_name(keys, n), last) == 0);
        check_names(keys, keys_count(keys));
        check_found(keys, keys_count(keys));
    }
    keys_free(keys);
    return 0;
}
