/* zip_directory.h - the entries of a zip archive of stored (not compressed) files. */
#ifndef ZIP_DIRECTORY_H
#define ZIP_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crc32.h"
#include "file.h"

struct zip_entry {
    const char *name; /* n_name bytes, no NUL; valid while the directory is */
    uint32_t n_name;
    uint32_t crc;          /* as the directory has it; 0 may mean that the writer computed none */
    bool intact;           /* zip_entry_check() has seen it */
    uint64_t offset, size; /* of its bytes in the file */
};

struct zip_directory {
    struct zip_entry *entries; /* ordered by name */
    size_t n;
    char *bytes;
};

/* Refuses what a reader could be misled by: more than one disk, compression, encryption, entries that overlap
 * each other or the directory, local headers that say otherwise, a name that occurs twice. */
enum cinf_status zip_directory_read(struct zip_directory *out, const struct file *file);
void zip_directory_free(struct zip_directory *zip);

/* Returns the entry of that name, or NULL. */
struct zip_entry *zip_directory_find(const struct zip_directory *zip, const char *name, size_t n_name);

/* The working memory for checking entries. */
struct zip_checker {
    struct crc32 crc; /* set up by crc32_init() */
    char bytes[1 << 15];
};

/* Reads the entry, unless that was done before, and says in entry->intact whether its bytes have its
 * checksum. Torch can be told to write none (torch.serialization.set_crc32_options): an entry with a checksum
 * of 0 is not read and counts as intact. */
enum cinf_status zip_entry_check(struct zip_entry *entry, const struct file *file,
                                 struct zip_checker *checker);

#endif
