/* bpe.c - merging: while some adjacent pair has a merge, join the pair of lowest rank, leftmost first.
 *
 * Three ways give that one answer.  Most pieces of a text are a token as they stand: one look-up, for the
 * tokens that bpe_seal() has found to be what merging makes of their own bytes.  A short piece is merged in
 * an array, searched anew for each merge.  A long one is a linked list with a heap of its pairs, so that a
 * million equal letters do not take a million times a million steps. */
#include "bpe.h"

#include <assert.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

enum { SHORT_MAX = 128 }; /* bytes; the heap is as fast as the array about here */

/* id_and_flags: the id, and these.  A slot in use holds a non-empty token, so all ones is free for EMPTY. */
#define SLOT_EMPTY UINT32_MAX
#define SLOT_WHOLE 0x80000000u /* merging the token's bytes gives the token */
#define SLOT_ID    (BPE_IDS_MAX - 1u)

/* A pair: left id (20 bits), right id (20), rank (24). */
#define PAIR_EMPTY UINT64_MAX
#define NO_RANK    UINT32_MAX

/* A constant with no pattern in its bits: 2^64 divided by the golden ratio. */
#define SCATTER 0x9E3779B97F4A7C15u

static uint32_t hash_bytes(const char *bytes, size_t n)
{
    uint64_t h = n, word;
    for (; n > 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        h = (h ^ word) * SCATTER;
        h ^= h >> 32;
    }
    if (n >= 4) {
        /* Two overlapping halves read 4 to 8 bytes without a loop; likewise three bytes read 1 to 3. */
        uint32_t front, back;
        memcpy(&front, bytes, 4);
        memcpy(&back, bytes + n - 4, 4);
        word = (uint64_t)back << 32 | front;
    } else {
        word = (uint64_t)(unsigned char)bytes[0] << 16 | (uint64_t)(unsigned char)bytes[n / 2] << 8 |
               (unsigned char)bytes[n - 1];
    }
    h = (h ^ word) * SCATTER;
    h = (h ^ h >> 32) * SCATTER;
    return (uint32_t)(h >> 32);
}

/* The slot of these bytes, or the empty one where they would go. */
static struct bpe_slot *slot_of(const struct bpe *b, const char *bytes, size_t n)
{
    uint32_t hash = hash_bytes(bytes, n);
    for (size_t i = hash & b->slots_mask;; i = (i + 1) & b->slots_mask) {
        struct bpe_slot *slot = &b->slots[i];
        if (slot->id_and_flags == SLOT_EMPTY)
            return slot;
        if (slot->hash != hash)
            continue;
        const struct bpe_token *token = &b->tokens[slot->id_and_flags & SLOT_ID];
        if (token->n == n && memcmp(b->bytes + token->at, bytes, n) == 0)
            return slot;
    }
}

static uint64_t pair_key(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 20 | right;
}

/* The entry of a pair, or the empty one where it would go. */
static uint64_t *pair_of(const struct bpe *b, uint64_t key)
{
    uint64_t hash = key * SCATTER;
    for (size_t i = (hash ^ hash >> 32) & b->pairs_mask;; i = (i + 1) & b->pairs_mask)
        if (b->pairs[i] == PAIR_EMPTY || b->pairs[i] >> 24 == key)
            return &b->pairs[i];
}

static uint32_t rank_of(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint64_t pair = *pair_of(b, pair_key(left, right));
    return pair == PAIR_EMPTY ? NO_RANK : (uint32_t)(pair & 0xFFFFFF);
}

/* A power of two that leaves at least half of the table empty. */
static size_t table_size(size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

enum cinf_status bpe_add_token(struct bpe *b, uint32_t id, const char *bytes, size_t n, bool added)
{
    assert(id < BPE_IDS_MAX && n >= 1);
    if (id < b->n_ids && b->tokens[id].n > 0) {
        const struct bpe_token *token = &b->tokens[id];
        if (token->n == n && memcmp(b->bytes + token->at, bytes, n) == 0)
            return CINF_OK;
        return cinf_fail(CINF_EFORMAT, "id %u is another token's already", id);
    }
    if (n > UINT32_MAX - b->n_bytes)
        return cinf_fail(CINF_EFORMAT, "the tokens have more than %u bytes together", UINT32_MAX);
    if (!mem_reserve(&b->tokens, &b->tokens_cap, (size_t)id + 1, sizeof *b->tokens) ||
        !mem_reserve(&b->bytes, &b->bytes_cap, b->n_bytes + n, 1))
        return cinf_fail(CINF_ENOMEM, "no memory for token %u", id);
    for (; b->n_ids <= id; b->n_ids++)
        b->tokens[b->n_ids] = (struct bpe_token){ 0 };
    b->tokens[id] = (struct bpe_token){ (uint32_t)b->n_bytes, (uint32_t)n, added };
    memcpy(b->bytes + b->n_bytes, bytes, n);
    b->n_bytes += n;
    return CINF_OK;
}

enum cinf_status bpe_index(struct bpe *b, size_t merges_max)
{
    if (merges_max > BPE_IDS_MAX)
        return cinf_fail(CINF_EFORMAT, "%zu merges, more than the %d allowed", merges_max, BPE_IDS_MAX);
    size_t n_slots = table_size(b->n_ids), n_pairs = table_size(merges_max);
    b->slots = mem_new(n_slots, sizeof *b->slots);
    b->pairs = mem_new(n_pairs, sizeof *b->pairs);
    b->merged = mem_new(merges_max, sizeof *b->merged);
    if (!b->slots || !b->pairs || !b->merged)
        return cinf_fail(CINF_ENOMEM, "no memory for the tables of %zu tokens and %zu merges", b->n_ids,
                         merges_max);
    b->slots_mask = n_slots - 1;
    b->pairs_mask = n_pairs - 1;
    b->merges_max = merges_max;
    memset(b->slots, 0xFF, n_slots * sizeof *b->slots);
    memset(b->pairs, 0xFF, n_pairs * sizeof *b->pairs);
    memset(b->byte_ids, 0xFF, sizeof b->byte_ids);

    /* Added tokens last, so that an ordinary token of the same bytes is the one that is found. */
    for (int added = 0; added < 2; added++) {
        for (size_t id = 0; id < b->n_ids; id++) {
            const struct bpe_token *token = &b->tokens[id];
            if (token->n == 0 || token->added != added)
                continue;
            const char *bytes = b->bytes + token->at;
            struct bpe_slot *slot = slot_of(b, bytes, token->n);
            if (slot->id_and_flags != SLOT_EMPTY)
                continue;
            *slot = (struct bpe_slot){ hash_bytes(bytes, token->n), (uint32_t)id };
            if (token->n == 1 && !added)
                b->byte_ids[(unsigned char)bytes[0]] = (int32_t)id;
        }
    }
    return CINF_OK;
}

/* The ordinary token of these bytes, or -1. */
static int32_t find_ordinary(const struct bpe *b, const char *bytes, size_t n)
{
    int32_t id = bpe_find(b, bytes, n);
    return id >= 0 && b->tokens[id].added ? -1 : id;
}

enum cinf_status bpe_add_merge(struct bpe *b, const char *bytes, size_t left, size_t n)
{
    assert(left >= 1 && left < n && b->n_merges < b->merges_max);
    int32_t left_id = find_ordinary(b, bytes, left);
    int32_t right_id = find_ordinary(b, bytes + left, n - left);
    int32_t whole_id = find_ordinary(b, bytes, n);
    if (left_id < 0 || right_id < 0 || whole_id < 0)
        return cinf_fail(CINF_EFORMAT, "its %s is not in the vocabulary",
                         left_id < 0    ? "left side"
                         : right_id < 0 ? "right side"
                                        : "result");
    uint64_t key = pair_key((uint32_t)left_id, (uint32_t)right_id);
    uint64_t *pair = pair_of(b, key);
    if (*pair != PAIR_EMPTY)
        return cinf_fail(CINF_EFORMAT, "is the same as merge %u", (unsigned)(*pair & 0xFFFFFF) + 1);
    *pair = key << 24 | b->n_merges;
    b->merged[b->n_merges++] = (uint32_t)whole_id;
    return CINF_OK;
}

enum cinf_status bpe_seal(struct bpe *b)
{
    struct bpe_scratch scratch = { 0 };
    int32_t *ids = NULL;
    size_t cap = 0, n_ids;
    enum cinf_status status = CINF_OK;
    for (size_t id = 0; id < b->n_ids && status == CINF_OK; id++) {
        const struct bpe_token *token = &b->tokens[id];
        if (token->n == 0 || token->added)
            continue;
        const char *bytes = b->bytes + token->at;
        if (!mem_reserve(&ids, &cap, token->n, sizeof *ids)) {
            status = cinf_fail(CINF_ENOMEM, "no memory to encode a token of %u bytes", token->n);
            break;
        }
        status = bpe_encode(b, bytes, token->n, ids, &n_ids, &scratch);
        struct bpe_slot *slot = slot_of(b, bytes, token->n);
        bool merged = status == CINF_OK && n_ids == 1 && ids[0] == (int32_t)(slot->id_and_flags & SLOT_ID);
        if (merged || b->ignore_merges)
            slot->id_and_flags |= SLOT_WHOLE;
        if (status == CINF_EINVAL) /* one of its bytes has no token: it cannot be made by merging */
            status = CINF_OK;
    }
    mem_free(ids);
    bpe_scratch_free(&scratch);
    return status;
}

void bpe_free(struct bpe *b)
{
    mem_free(b->tokens);
    mem_free(b->bytes);
    mem_free(b->slots);
    mem_free(b->pairs);
    mem_free(b->merged);
    *b = (struct bpe){ 0 };
}

int32_t bpe_find(const struct bpe *b, const char *bytes, size_t n)
{
    if (n == 0)
        return -1;
    uint32_t found = slot_of(b, bytes, n)->id_and_flags;
    return found == SLOT_EMPTY ? -1 : (int32_t)(found & SLOT_ID);
}

/* Merges ids[0..n), n <= SHORT_MAX, in place and returns how many are left. */
static size_t merge_short(const struct bpe *b, int32_t *ids, size_t n)
{
    uint32_t ranks[SHORT_MAX]; /* of the pair that begins at each id */
    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = rank_of(b, (uint32_t)ids[i], (uint32_t)ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == NO_RANK)
            break;
        ids[best] = (int32_t)b->merged[ranks[best]];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, (n - best - 1) * sizeof *ranks);
        if (best > 0)
            ranks[best - 1] = rank_of(b, (uint32_t)ids[best - 1], (uint32_t)ids[best]);
        if (best + 1 < n)
            ranks[best] = rank_of(b, (uint32_t)ids[best], (uint32_t)ids[best + 1]);
    }
    return n;
}

/* A long piece's symbols stay where they began; a merge takes the right one out of the list. */
struct bpe_symbol {
    uint32_t id;
    uint32_t previous, next; /* indices; NOWHERE at the ends */
    uint32_t rank;           /* of the pair with the next one; NO_RANK also once taken out */
};
#define NOWHERE UINT32_MAX

/* The heap holds rank << 32 | index of the left symbol, so its least is the leftmost pair of lowest rank.
 * An entry whose symbol has another rank by now is stale and skipped. */
static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > key; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t least = heap[0], key = heap[--*n];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < *n) {
        if (child + 1 < *n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= key)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = key;
    return least;
}

/* Finds the rank of the pair that begins at `i`, and queues it when there is a merge. */
static void rank_pair(const struct bpe *b, struct bpe_scratch *scratch, size_t *n_heap, uint32_t i)
{
    struct bpe_symbol *symbol = &scratch->symbols[i];
    symbol->rank =
        symbol->next == NOWHERE ? NO_RANK : rank_of(b, symbol->id, scratch->symbols[symbol->next].id);
    if (symbol->rank != NO_RANK)
        heap_push(scratch->heap, n_heap, (uint64_t)symbol->rank << 32 | i);
}

/* As merge_short(), for any n <= INT32_MAX. */
static enum cinf_status merge_long(const struct bpe *b, int32_t *ids, size_t *n, struct bpe_scratch *scratch)
{
    /* A merge takes one entry out and puts at most two in, so there are never as many as 2n. */
    if (!mem_reserve(&scratch->symbols, &scratch->symbols_cap, *n, sizeof *scratch->symbols) ||
        !mem_reserve(&scratch->heap, &scratch->heap_cap, 2 * *n, sizeof *scratch->heap))
        return cinf_fail(CINF_ENOMEM, "no memory to merge a piece of %zu bytes", *n);
    struct bpe_symbol *symbols = scratch->symbols;
    uint32_t count = (uint32_t)*n;
    size_t n_heap = 0;
    for (uint32_t i = 0; i < count; i++)
        symbols[i] = (struct bpe_symbol){ (uint32_t)ids[i], i ? i - 1 : NOWHERE, i + 1, NO_RANK };
    symbols[count - 1].next = NOWHERE;
    for (uint32_t i = 0; i < count; i++)
        rank_pair(b, scratch, &n_heap, i);

    while (n_heap > 0) {
        uint64_t key = heap_pop(scratch->heap, &n_heap);
        uint32_t i = (uint32_t)key;
        struct bpe_symbol *left = &symbols[i];
        if (left->rank != key >> 32)
            continue;
        struct bpe_symbol *right = &symbols[left->next];
        left->id = b->merged[left->rank];
        left->next = right->next;
        right->rank = NO_RANK;
        if (left->next != NOWHERE)
            symbols[left->next].previous = i;
        rank_pair(b, scratch, &n_heap, i);
        if (left->previous != NOWHERE)
            rank_pair(b, scratch, &n_heap, left->previous);
    }

    *n = 0;
    for (uint32_t i = 0; i != NOWHERE; i = symbols[i].next)
        ids[(*n)++] = (int32_t)symbols[i].id;
    return CINF_OK;
}

/* Puts the unknown token, where there is one, in place of the bytes without a token. */
static enum cinf_status replace_missing(const struct bpe *b, const char *bytes, int32_t *ids, size_t *n)
{
    size_t left = 0;
    bool fused = false;
    for (size_t i = 0; i < *n; i++) {
        bool known = ids[i] >= 0;
        if (!known && !b->has_unknown)
            return cinf_fail(CINF_EINVAL, "byte 0x%02X has no token in the vocabulary",
                             (unsigned char)bytes[i]);
        if (known || !fused)
            ids[left++] = known ? ids[i] : b->unknown;
        fused = !known && b->fuse_unknown;
    }
    *n = left;
    return CINF_OK;
}

enum cinf_status bpe_encode(const struct bpe *b, const char *bytes, size_t n, int32_t *ids, size_t *n_ids,
                            struct bpe_scratch *scratch)
{
    assert(n >= 1 && n <= INT32_MAX);
    uint32_t found = slot_of(b, bytes, n)->id_and_flags;
    if (found != SLOT_EMPTY && found & SLOT_WHOLE) {
        ids[0] = (int32_t)(found & SLOT_ID);
        *n_ids = 1;
        return CINF_OK;
    }
    int32_t missing = 0; /* negative when a byte has no token */
    for (size_t i = 0; i < n; i++)
        missing |= ids[i] = b->byte_ids[(unsigned char)bytes[i]];
    size_t left = n;
    if (missing < 0)
        TRY(replace_missing(b, bytes, ids, &left));
    if (left <= SHORT_MAX) {
        *n_ids = merge_short(b, ids, left);
        return CINF_OK;
    }
    TRY(merge_long(b, ids, &left, scratch));
    *n_ids = left;
    return CINF_OK;
}

void bpe_scratch_free(struct bpe_scratch *scratch)
{
    mem_free(scratch->symbols);
    mem_free(scratch->heap);
    *scratch = (struct bpe_scratch){ 0 };
}
