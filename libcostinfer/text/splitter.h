/* splitter.h - where a text is cut before merging: the pre-tokenizers of tokenizer.json.
 *
 * Exactly one stage is ByteLevel, because tokens are byte strings here. The stages before it see the text;
 * the stages after it see one character a byte, as vocabularies spell it.  Built from JSON, then read only.
 */
#ifndef SPLITTER_H
#define SPLITTER_H

#include "json.h"
#include "strbuf.h"

struct splitter {
    struct splitter_stage *stages;
    size_t n_stages, cap;
    bool plain; /* GPT-2's pattern and nothing else: ask piece_length() */
};

/* Fills a zeroed *s with GPT-2's own splitter. */
enum cinf_status splitter_default(struct splitter *s, bool prefix_space);

/* Reads a "pre_tokenizer" into a zeroed *s. CINF_EUNSUPPORTED names what is not supported, such as a sequence
 * without ByteLevel. *s needs splitter_free() after a failure too. */
enum cinf_status splitter_read(struct splitter *s, const cJSON *settings);

/* Sets whether ByteLevel puts a space before a piece that lacks one, and tells whether that is a change. */
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
