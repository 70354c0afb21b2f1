/* file.h - files that are read at offsets.
 *
 * They are not mapped: a mapped file that is truncated while a model loads from it kills the whole
 * process with SIGBUS, and a library may not install a handler for that.  pread() returns a status
 * instead, costs one copy from the page cache, and can write straight to its destination. */
#ifndef FILE_H
#define FILE_H

#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

struct file {
    int fd;
    uint64_t size;
    char *path; /* for messages */
};

/* Opens a regular file for reading.  Fails with CINF_ENOTFOUND, CINF_EINVAL for a folder, or CINF_EIO, also
 * for a link whose file is gone. */
enum cinf_status file_open(struct file *out, const char *path);
void file_close(struct file *f); /* accepts a zeroed one */

/* Reads exactly n bytes at `offset`; CINF_EIO if the file ends before that. */
enum cinf_status file_read(const struct file *f, uint64_t offset, void *bytes, size_t n);

/* Loads the whole file, followed by a NUL that *size does not count.  A file above `max` bytes is refused
 * before anything is allocated.  mem_free() frees *out. */
enum cinf_status file_load(char **out, size_t *size, const char *path, size_t max);

/* Returns "folder/name" in new memory, or NULL. */
char *path_join(const char *folder, const char *name);

int path_is_folder(const char *path);

/* Fails with the reason why `path` could not be used, an errno: CINF_ENOTFOUND, or CINF_EIO, also when the
 * path leads through a link whose file is gone. */
enum cinf_status path_fail(const char *path, int error);

/* False only when there is certainly nothing.  A link whose file is gone exists, and so does what may not be
 * looked at: opening it says what is wrong. */
int path_exists(const char *path);

/* Puts /dev/null where a program was started without stdin, stdout or stderr.  Otherwise the next file or
 * socket that is opened gets such a number, and what is meant for a terminal or a log goes into it. */
void file_hold_standard(void);

#endif
