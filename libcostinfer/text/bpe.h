/* bpe.h - byte-level BPE on byte strings: tokens, merges, and the encoding of one piece.
 *
 * Built in this order: every token, bpe_index(), every merge, bpe_seal(); from then on it is read only.
 * Tokens are known by their bytes here; how files spell them is tokenizer_file.c's. */
#ifndef BPE_H
#define BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

/* Ids and ranks are below this, so that two ids and a rank fit into 64 bits. */
enum { BPE_IDS_MAX = 1 << 20 };

struct bpe_token {
    uint32_t at, n; /* bytes[at..at + n); n == 0: no token has this id */
    bool added;     /* written in text or made by the model, but never made by merging */
};

struct bpe_slot {
    uint32_t hash;
    uint32_t id_and_flags;
};

struct bpe {
    struct bpe_token *tokens; /* by id */
    size_t n_ids, tokens_cap;
    char *bytes; /* of all tokens */
    size_t n_bytes, bytes_cap;

    struct bpe_slot *slots; /* open addressing: bytes -> id */
    size_t slots_mask;
    int32_t byte_ids[256]; /* the tokens of one byte; -1 where there is none */

    uint64_t *pairs; /* open addressing: left id, right id, rank */
    size_t pairs_mask;
    uint32_t *merged; /* by rank: the id that the merge makes */
    size_t n_merges, merges_max;

    bool ignore_merges; /* a piece that is an ordinary token is that token, whatever merging makes of it */
    bool has_unknown;   /* bytes without a token become this one: */
    bool fuse_unknown;  /* one for each run of them */
    int32_t unknown;
};

/* Adds token `id` < BPE_IDS_MAX, n >= 1 bytes.  CINF_EFORMAT when another token has the id; adding a token
 * again is no fault. */
enum cinf_status bpe_add_token(struct bpe *b, uint32_t id, const char *bytes, size_t n, bool added);

/* Ends the tokens and makes room for merges. */
enum cinf_status bpe_index(struct bpe *b, size_t merges_max);

/* Adds the merge of bytes[0..left) with bytes[left..n), of lower priority than those before.  CINF_EFORMAT
 * when one of the two or the whole is not a token, or the pair was added before. */
enum cinf_status bpe_add_merge(struct bpe *b, const char *bytes, size_t left, size_t n);

enum cinf_status bpe_seal(struct bpe *b);
void bpe_free(struct bpe *b); /* leaves *b zeroed */

/* The id whose bytes are exactly these, or -1. */
int32_t bpe_find(const struct bpe *b, const char *bytes, size_t n);

/* Memory for long pieces, kept from one to the next.  Zeroed to begin with. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    uint64_t *heap;
    size_t symbols_cap, heap_cap;
};
void bpe_scratch_free(struct bpe_scratch *scratch);

/* Encodes one piece of n >= 1 bytes (at most INT32_MAX) into ids[0..n), and their number into *n_ids.
 * CINF_EINVAL for a byte that no token stands for.  Time n log n. */
enum cinf_status bpe_encode(const struct bpe *b, const char *bytes, size_t n, int32_t *ids, size_t *n_ids,
                            struct bpe_scratch *scratch);

#endif
