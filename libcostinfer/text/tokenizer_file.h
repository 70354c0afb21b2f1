/* tokenizer_file.h - reading a vocabulary and merges from the files that Hugging Face's tools write. */
#ifndef TOKENIZER_FILE_H
#define TOKENIZER_FILE_H

#include <stddef.h>

#include "bpe.h"

/* A file's bytes, and its name for messages. */
struct file_text {
    const char *name, *text;
    size_t n;
};

/* Fill a zeroed *b from the texts of files and seal it.  On failure *b is partly filled: bpe_free() it.
 * `added` (added_tokens.json) may be NULL. */
enum cinf_status vocabulary_read(struct bpe *b, const struct file_text *vocab, const struct file_text *merges,
                                 const struct file_text *added);
enum cinf_status tokenizer_json_read(struct bpe *b, const struct file_text *file);

/* The same from a folder. */
enum cinf_status tokenizer_folder_read(struct bpe *b, const char *folder);

#endif
