/* file.h - files that are read at offsets.
 *
 * Read, not mapped: a mapped file that is truncated while a model loads from it kills the whole
 * process with SIGBUS, and a library may not install a handler for that.  pread() gives a status
 * instead, costs one copy from the page cache, and can go straight into its destination. */
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

/* Opens a regular file for reading.  CINF_ENOTFOUND, CINF_EIO, or CINF_EINVAL for a folder. */
enum cinf_status file_open(struct file *out, const char *path);
void file_close(struct file *f); /* accepts a zeroed one */

/* Reads exactly n bytes at `offset`; fewer is CINF_EIO ("the file shrank"). */
enum cinf_status file_read(const struct file *f, uint64_t offset, void *bytes, size_t n);

/* The whole file, followed by a NUL that *size does not count.  A file above `max` is refused
 * before anything is allocated.  Freed by mem_free(). */
enum cinf_status file_load(char **out, size_t *size, const char *path, size_t max);

/* "folder/name" in new memory, or NULL. */
char *path_join(const char *folder, const char *name);

int path_is_folder(const char *path);
int path_exists(const char *path);

#endif
