/* tokenizer_file.h - reading a tokenizer from the files that Hugging Face's tools write. */
#ifndef TOKENIZER_FILE_H
#define TOKENIZER_FILE_H

#include <stddef.h>

#include "added_token.h"
#include "bpe.h"
#include "normalizer.h"
#include "splitter.h"
#include "template.h"

/* All that the files say about encoding. */
struct vocabulary {
    struct bpe bpe;
    struct added_tokens added;
    struct normalizer normalizer;
    struct splitter splitter;
    struct template template;
    struct strbuf notes; /* what an operator should know, a line each */
};

/* A file's bytes, and its name for messages. */
struct file_text {
    const char *name, *text;
    size_t n;
};

enum tokenizer_file {
    FILE_VOCAB,   /* vocab.json */
    FILE_MERGES,  /* merges.txt */
    FILE_ADDED,   /* added_tokens.json */
    FILE_SINGLE,  /* tokenizer.json */
    FILE_CONFIG,  /* tokenizer_config.json */
    FILE_SPECIAL, /* special_tokens_map.json */
    TOKENIZER_FILES,
};

/* Fills a zeroed *v from the texts of files and seals it.  An absent file has a NULL text. There must be
 * FILE_SINGLE, which then wins, or FILE_VOCAB with FILE_MERGES. After a failure *v is partly filled and needs
 * vocabulary_free(). */
enum cinf_status vocabulary_read(struct vocabulary *v, const struct file_text files[TOKENIZER_FILES]);

/* Does the same for a folder. CINF_ENOTFOUND when it has no tokenizer file at all. */
enum cinf_status vocabulary_folder_read(struct vocabulary *v, const char *folder);

void vocabulary_free(struct vocabulary *v); /* leaves *v zeroed */

#endif
