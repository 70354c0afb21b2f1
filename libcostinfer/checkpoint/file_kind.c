/* file_kind.c - first bytes and what they mean.  Downloads go wrong in few ways: the pointer instead of the
 * file, a web page instead of the file, the file of another program. */
#include "file_kind.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "bytes.h"

enum { HEAD = 512, TAR_MAGIC_AT = 257 };

const char file_kind_safetensors[] = "a safetensors file";
const char file_kind_torch_zip[] = "a zip archive (newer PyTorch checkpoints are such)";
const char file_kind_torch_legacy[] = "a legacy PyTorch checkpoint";

static const struct {
    const char *magic;
    size_t n;
    const char *kind;
} magics[] = {
    { "version https://git-lfs", 23,
      "a git-LFS pointer, not the file it stands for (\"git lfs pull\" fetches that)" },
    { "PK\3\4", 4, file_kind_torch_zip },
    { "PK\5\6", 4, "an empty zip archive" },
    { "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15, file_kind_torch_legacy },
    { "\x80\x02", 2, "a Python pickle" },
    { "\x80\x03", 2, "a Python pickle" },
    { "\x80\x04", 2, "a Python pickle" },
    { "\x80\x05", 2, "a Python pickle" },
    { "\x1f\x8b", 2, "a gzip file" },
    { "\x28\xb5\x2f\xfd", 4, "a zstd file" },
    { "\xfd"
      "7zXZ",
      5, "an xz file" },
    { "BZh", 3, "a bzip2 file" },
    { "GGUF", 4, "a GGUF file" },
    { "\x89HDF\r\n\x1a\n", 8, "an HDF5 file (a TensorFlow checkpoint?)" },
    { "\x93NUMPY", 6, "a NumPy array" },
};

static const char *kind_of_text(const char *text)
{
    text += strspn(text, " \t\r\n");
    if (strncasecmp(text, "<!doctype html", 14) == 0 || strncasecmp(text, "<html", 5) == 0)
        return "an HTML page";
    if (strncmp(text, "<?xml", 5) == 0)
        return "an XML document";
    if (*text == '{' || *text == '[')
        return "JSON text";
    return NULL;
}

const char *file_kind(const struct file *f)
{
    if (f->size == 0)
        return "empty";
    char head[HEAD + 1] = { 0 };
    size_t n = f->size < HEAD ? (size_t)f->size : HEAD;
    if (file_read(f, 0, head, n) != CINF_OK)
        return NULL;
    /* Before the magics: the length of a header may begin as one of them does.  It is below 2^27. */
    if (n > 8 && load_u64(head) <= 100000000 && (head[8] == '{' || head[8] == ' '))
        return file_kind_safetensors;
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (n >= magics[i].n && memcmp(head, magics[i].magic, magics[i].n) == 0)
            return magics[i].kind;
    if (n > TAR_MAGIC_AT + 5 && memcmp(head + TAR_MAGIC_AT, "ustar", 5) == 0)
        return "a tar archive";
    return memchr(head, '\0', n) ? NULL : kind_of_text(head);
}
