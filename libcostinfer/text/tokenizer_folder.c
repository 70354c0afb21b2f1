/* tokenizer_folder.c - a tokenizer's files in a folder, and what is said when they are not there.
 *
 * A folder without any tokenizer file is a model without a tokenizer: CINF_ENOTFOUND, which a caller may
 * accept. A folder that has some of the files, but not enough, is broken. */
#include "tokenizer_file.h"

#include <errno.h>
#include <sys/stat.h>

#include "fail.h"
#include "file.h"
#include "hub_cache.h"
#include "mem.h"

enum { FILE_SIZE_MAX = 64 << 20 };

static const char *const names[TOKENIZER_FILES] = {
    [FILE_VOCAB] = "vocab.json",
    [FILE_MERGES] = "merges.txt",
    [FILE_ADDED] = "added_tokens.json",
    [FILE_SINGLE] = "tokenizer.json",
    [FILE_CONFIG] = "tokenizer_config.json",
    [FILE_SPECIAL] = "special_tokens_map.json",
};

/* Tokenizers of other kinds. */
static const struct {
    const char *name, *what;
} others[] = {
    { "tokenizer.model", "a SentencePiece tokenizer, which is not supported" },
    { "spiece.model", "a SentencePiece tokenizer, which is not supported" },
    { "sentencepiece.bpe.model", "a SentencePiece tokenizer, which is not supported" },
    { "vocab.txt", "a WordPiece tokenizer, which is not supported" },
    { "vocab.bpe", "merges by OpenAI's name: rename encoder.json to vocab.json and vocab.bpe to merges.txt" },
};

/* Reads folder/name when there is one. */
static enum cinf_status load(struct file_text *file, bool *found, const char *folder, const char *name)
{
    char *text, *path = path_join(folder, name);
    file->name = path;
    if (!path)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for the names of its files", folder);
    *found = path_exists(path);
    if (!*found)
        return CINF_OK;
    TRY(file_load(&text, &file->n, path, FILE_SIZE_MAX));
    file->text = text;
    return CINF_OK;
}

static enum cinf_status load_all(struct file_text *files, const char *folder)
{
    bool single, found;
    TRY(load(&files[FILE_SINGLE], &single, folder, names[FILE_SINGLE]));
    for (int i = 0; i < TOKENIZER_FILES; i++)
        if (i != FILE_SINGLE && !(single && (i == FILE_VOCAB || i == FILE_MERGES)))
            TRY(load(&files[i], &found, folder, names[i]));
    return CINF_OK;
}

/* Fails for a folder that has neither tokenizer.json nor the pair. */
static enum cinf_status incomplete(const struct file_text *files, const char *folder)
{
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = path_join(folder, others[i].name);
        bool found = path && path_exists(path);
        mem_free(path);
        if (found)
            return cinf_fail(CINF_EUNSUPPORTED, "%s: has %s: %s", folder, others[i].name, others[i].what);
    }
    if (files[FILE_VOCAB].text || files[FILE_MERGES].text)
        return cinf_fail(CINF_EFORMAT, "%s: has %s without %s, and no tokenizer.json", folder,
                         names[files[FILE_VOCAB].text ? FILE_VOCAB : FILE_MERGES],
                         names[files[FILE_VOCAB].text ? FILE_MERGES : FILE_VOCAB]);
    for (int i = 0; i < TOKENIZER_FILES; i++)
        if (files[i].text)
            return cinf_fail(CINF_EFORMAT,
                             "%s: has %s, but neither tokenizer.json nor vocab.json with merges.txt", folder,
                             names[i]);
    cinf_fail(CINF_ENOTFOUND, "%s: has neither vocab.json with merges.txt nor tokenizer.json", folder);
    hub_cache_hint(folder);
    return CINF_ENOTFOUND;
}

enum cinf_status vocabulary_folder_read(struct vocabulary *v, const char *folder)
{
    struct file_text files[TOKENIZER_FILES] = { 0 };
    struct stat st;
    if (stat(folder, &st) != 0)
        return path_fail(folder, errno);
    if (!S_ISDIR(st.st_mode))
        return cinf_fail(CINF_EINVAL, "%s: is not a folder", folder);
    enum cinf_status status = load_all(files, folder);
    if (status == CINF_OK && !(files[FILE_VOCAB].text && files[FILE_MERGES].text) && !files[FILE_SINGLE].text)
        status = incomplete(files, folder);
    if (status == CINF_OK)
        status = vocabulary_read(v, files);
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        mem_free((char *)files[i].name);
        mem_free((char *)files[i].text);
    }
    return status;
}
