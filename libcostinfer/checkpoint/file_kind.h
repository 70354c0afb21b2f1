/* file_kind.h - what a file is that should have been a checkpoint, for messages a person can act on. */
#ifndef FILE_KIND_H
#define FILE_KIND_H

#include <stddef.h>

#include "file.h"

/* "a gzip file", "an HTML page" …; NULL when the first bytes tell nothing. */
const char *file_kind(const struct file *f);

/* What file_kind() returns for these, itself. */
extern const char file_kind_safetensors[], file_kind_torch_zip[], file_kind_torch_legacy[];

#endif
