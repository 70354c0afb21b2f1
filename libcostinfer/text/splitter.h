/* splitter.h - where a text is cut before merging: the pre-tokenizers of tokenizer.json.
 *
 * One of them is ByteLevel, because tokens are byte strings here.  What stands before it sees the text; what
 * stands behind it sees the text with one character a byte, as vocabularies spell it.  Built from JSON, then
 * read only. */
#ifndef SPLITTER_H
#define SPLITTER_H

#include <cjson/cJSON.h>

#include "strbuf.h"

struct splitter {
    struct splitter_stage *stages;
    size_t n_stages, cap;
    bool plain; /* GPT-2's pattern and nothing else: ask piece_length() */
};

/* GPT-2's own, in a zeroed *s. */
enum cinf_status splitter_default(struct splitter *s, bool prefix_space);

/* The stages of a "pre_tokenizer" into a zeroed *s; CINF_EUNSUPPORTED names what is not known here, and a
 * sequence without ByteLevel.  splitter_free() also after a failure. */
enum cinf_status splitter_read(struct splitter *s, const cJSON *settings);

/* Sets whether ByteLevel puts a space before a piece without; true when that is a change. */
bool splitter_set_prefix(struct splitter *s, bool prefix_space);
void splitter_free(struct splitter *s);

/* A piece of the scratch's text. */
struct piece {
    size_t at, n;
};

/* Zeroed to begin with. */
struct splitter_scratch {
    const char *text; /* what the pieces are in */
    struct piece *pieces;
    size_t n_pieces;
    struct strbuf texts[2];
    struct piece *lists[2];
    size_t caps[2];
};
void splitter_scratch_free(struct splitter_scratch *scratch);

/* Cuts text[0..n) into scratch->pieces: bytes to merge, none of them empty. */
enum cinf_status splitter_apply(const struct splitter *s, const char *text, size_t n,
                                struct splitter_scratch *scratch);

#endif
