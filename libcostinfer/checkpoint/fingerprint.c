/* fingerprint.c - what the files of a model are: a digest that names them, and one that notices a change.
 *
 * The question a reader will ask: why not a digest of every byte?  It would read gigabytes each time a daemon
 * asks whether anything has changed.  The ends of each file hold the header of a safetensors file, the
 * directory of a zip archive with its checksums, and all of the smaller files; a change between the ends
 * shows in the file's times or its inode, which the identity has. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <costinfer/checkpoint.h>

#include "fail.h"
#include "file.h"
#include "mem.h"
#include "sha256.h"
#include "strbuf.h"

enum { END_BYTES = 1 << 20, FILES_MAX = 4096 };

/* Other files of a folder, a log or a README, may change while a model is served from it. */
static bool is_of_the_model(const char *name)
{
    static const char *const names[] = { "config.json",
                                         "generation_config.json",
                                         "vocab.json",
                                         "merges.txt",
                                         "added_tokens.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json" };
    static const char *const ends[] = { ".safetensors", ".bin", ".safetensors.index.json",
                                        ".bin.index.json" };
    if (name[0] == '.')
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (text_ends_with(name, ends[i]))
            return true;
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mem_free(names[i]);
    mem_free(names);
}

/* The names of the model's files, ordered. */
static enum cinf_status list_names(char ***out, size_t *n_out, const char *folder)
{
    char **names = mem_new(FILES_MAX, sizeof *names);
    size_t n = 0;
    if (!names)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for the names of its files", folder);
    DIR *dir = opendir(folder);
    if (!dir) {
        int error = errno;
        mem_free(names);
        return cinf_fail(error == ENOENT || error == ENOTDIR ? CINF_ENOTFOUND
                         : error == ENOMEM                   ? CINF_ENOMEM
                                                             : CINF_EIO,
                         "%s: %s", folder, strerror(error));
    }
    enum cinf_status status = CINF_OK;
    for (const struct dirent *entry; status == CINF_OK && (entry = readdir(dir));) {
        if (!is_of_the_model(entry->d_name))
            continue;
        if (n == FILES_MAX)
            status = cinf_fail(CINF_EFORMAT, "%s: holds more than %d files of a model", folder, FILES_MAX);
        else if (!(names[n] = mem_copy_text(entry->d_name)))
            status = cinf_fail(CINF_ENOMEM, "%s: no memory for the names of its files", folder);
        else
            n++;
    }
    closedir(dir);
    if (status != CINF_OK) {
        free_names(names, n);
        return status;
    }
    qsort(names, n, sizeof *names, by_text);
    *out = names;
    *n_out = n;
    return CINF_OK;
}

struct reading {
    struct strbuf contents, states; /* a line for each file */
    char *bytes;                    /* [END_BYTES] */
};

static enum cinf_status add_end(struct reading *r, const struct file *f, uint64_t offset, size_t n)
{
    char digest[SHA256_TEXT];
    TRY(file_read(f, offset, r->bytes, n));
    sha256_text(digest, r->bytes, n);
    strbuf_printf(&r->contents, " %s", digest);
    return CINF_OK;
}

static enum cinf_status add_contents(struct reading *r, const char *path)
{
    struct file f;
    TRY(file_open(&f, path));
    size_t n = f.size < END_BYTES ? (size_t)f.size : END_BYTES;
    strbuf_printf(&r->contents, "%" PRIu64, f.size);
    enum cinf_status status = add_end(r, &f, 0, n);
    if (status == CINF_OK)
        status = add_end(r, &f, f.size - n, n);
    file_close(&f);
    return status;
}

static enum cinf_status add_file(struct reading *r, const char *folder, const char *name)
{
    struct stat st;
    enum cinf_status status = CINF_OK;
    char *path = path_join(folder, name);
    if (!path)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for the names of its files", folder);
    strbuf_printf(&r->contents, "%s\n", name);
    strbuf_printf(&r->states, "%s\n", name);
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
        strbuf_printf(&r->states, "%" PRIu64 " %" PRIu64 " %" PRId64 ".%09ld %" PRId64 ".%09ld",
                      (uint64_t)st.st_dev, (uint64_t)st.st_ino, (int64_t)st.st_mtim.tv_sec,
                      st.st_mtim.tv_nsec, (int64_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
        status = add_contents(r, path);
    } /* else: a link that leads nowhere, or a folder, tells by its name alone */
    strbuf_puts(&r->contents, "\n");
    strbuf_puts(&r->states, "\n");
    mem_free(path);
    return status;
}

static enum cinf_status add_files(struct reading *r, const char *folder, char *const *names, size_t n)
{
    r->bytes = mem_new(END_BYTES, 1);
    if (!r->bytes)
        return cinf_fail(CINF_ENOMEM, "%s: no memory to read its files", folder);
    for (size_t i = 0; i < n; i++)
        TRY(add_file(r, folder, names[i]));
    strbuf_add(&r->states, r->contents.text ? r->contents.text : "", r->contents.len);
    if (r->contents.failed || r->states.failed)
        return cinf_fail(CINF_ENOMEM, "%s: no memory to read its files", folder);
    return CINF_OK;
}

enum cinf_status cinf_files_identify(char fingerprint[CINF_DIGEST_TEXT], char identity[CINF_DIGEST_TEXT],
                                     const char *folder)
{
    struct reading r = { .bytes = NULL };
    char **names = NULL;
    size_t n = 0;
    TRY(list_names(&names, &n, folder));
    enum cinf_status status = add_files(&r, folder, names, n);
    if (status == CINF_OK) {
        sha256_text(fingerprint, r.contents.text ? r.contents.text : "", r.contents.len);
        sha256_text(identity, r.states.text ? r.states.text : "", r.states.len);
    }
    free_names(names, n);
    mem_free(r.bytes);
    strbuf_free(&r.contents);
    strbuf_free(&r.states);
    return status;
}
