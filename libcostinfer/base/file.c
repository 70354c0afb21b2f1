/* file.c - opening, reading and naming files. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "mem.h"

/* Whether path[0..n) is a link whose file is gone; then *n_target bytes of its target are in target[0..size).
 */
static bool is_dangling(const char *path, size_t n, char *target, size_t size, size_t *n_target)
{
    struct stat st;
    char *link = mem_new(n + 1, 1);
    if (!link)
        return false;
    memcpy(link, path, n);
    ssize_t length = readlink(link, target, size);
    bool dangling = length >= 0 && stat(link, &st) != 0;
    mem_free(link);
    *n_target = dangling ? (size_t)length : 0;
    return dangling;
}

/* Names a link on the path whose file is gone; false, and no message, when there is none. */
static bool name_dangling(const char *path)
{
    char target[256];
    size_t n_target = 0, n = strlen(path);
    while (n > 0 &&
           !((path[n] == '\0' || path[n] == '/') && is_dangling(path, n, target, sizeof target, &n_target)))
        n--;
    if (n > 0)
        cinf_fail(CINF_EIO, "%s: %.*s%sis a link to %.*s, which does not exist", path, path[n] ? (int)n : 0,
                  path, path[n] ? " " : "", (int)n_target, target);
    return n > 0;
}

enum cinf_status path_fail(const char *path, int error)
{
    if (error == ENOENT && name_dangling(path))
        return CINF_EIO;
    return cinf_fail(error == ENOENT || error == ENOTDIR ? CINF_ENOTFOUND : CINF_EIO, "%s: %s", path,
                     strerror(error));
}

enum cinf_status file_open(struct file *out, const char *path)
{
    /* O_NONBLOCK: opening a named pipe without a writer must not hang; regular files ignore the flag. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return path_fail(path, errno);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int error = errno;
        close(fd);
        return cinf_fail(CINF_EIO, "%s: %s", path, strerror(error));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return cinf_fail(CINF_EINVAL, "%s: is %s, not a file", path,
                         S_ISDIR(st.st_mode) ? "a folder" : "a device, pipe or socket");
    }
    char *copy = mem_copy_text(path);
    if (!copy) {
        close(fd);
        return cinf_fail(CINF_ENOMEM, "%s: no memory for its name", path);
    }
    *out = (struct file){ .fd = fd, .size = (uint64_t)st.st_size, .path = copy };
    return CINF_OK;
}

void file_close(struct file *f)
{
    if (f->path) {
        close(f->fd);
        mem_free(f->path);
    }
    *f = (struct file){ 0 };
}

enum cinf_status file_read(const struct file *f, uint64_t offset, void *bytes, size_t n)
{
    char *to = bytes;
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(f->fd, to + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return cinf_fail(CINF_EIO, "%s: reading at offset %" PRIu64 ": %s", f->path, offset + done,
                             strerror(errno));
        if (got == 0)
            return cinf_fail(CINF_EIO, "%s: ends at offset %" PRIu64 ", where %zu more bytes were expected",
                             f->path, offset + done, n - done);
        done += (size_t)got;
    }
    return CINF_OK;
}

enum cinf_status file_load(char **out, size_t *size, const char *path, size_t max)
{
    struct file f;
    TRY(file_open(&f, path));
    if (f.size > max) {
        uint64_t is = f.size;
        file_close(&f);
        return cinf_fail(CINF_EFORMAT, "%s: has %" PRIu64 " bytes, more than the %zu allowed", path, is, max);
    }
    size_t n = (size_t)f.size;
    char *text = mem_new(n + 1, 1);
    if (!text) {
        file_close(&f);
        return cinf_fail(CINF_ENOMEM, "%s: no memory for its %zu bytes", path, n);
    }
    enum cinf_status status = file_read(&f, 0, text, n);
    file_close(&f);
    if (status != CINF_OK) {
        mem_free(text);
        return status;
    }
    *out = text;
    *size = n;
    return CINF_OK;
}

char *path_join(const char *folder, const char *name)
{
    size_t a = strlen(folder), b = strlen(name);
    int slash = a > 0 && folder[a - 1] != '/';
    char *path = mem_new(a + (size_t)slash + b + 1, 1);
    if (!path)
        return NULL;
    memcpy(path, folder, a);
    if (slash)
        path[a] = '/';
    memcpy(path + a + (size_t)slash, name, b);
    return path;
}

int path_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

void file_hold_standard(void)
{
    /* For reading alone, so that writing to them still fails. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            return;
}
