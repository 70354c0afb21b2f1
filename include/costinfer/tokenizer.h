/* tokenizer.h - byte-level BPE: text to token ids and back, lossless for any bytes with GPT-2's own
 * tokenizer. (Some models' added tokens consume spaces, and some models normalize texts.)
 *
 * Encoding.  The library obeys what a model's files say, so a text has the ids that Hugging Face's tokenizers
 * and transformers' tokenizer(text) give it; otherwise the tokenizer does not open, and the message names the
 * setting.  Supported are the normalizers Lowercase, NFC, NFD, NFKC, NFKD, StripAccents, Strip, Prepend and
 * Replace; the pre-tokenizers ByteLevel (exactly one), Split, Digits, Punctuation, Whitespace,
 * WhitespaceSplit, CharDelimiterSplit and BertPreTokenizer; the post-processors TemplateProcessing,
 * RobertaProcessing, BertProcessing and ByteLevel; sequences of each; ignore_merges, unk_token and fuse_unk;
 * and tokenizer_class, add_prefix_space and add_bos_token of tokenizer_config.json, as transformers obeys
 * them.
 *
 * Added tokens.  Fine-tuned models have tokens beyond the vocabulary ("<|user|>", "[PAD]", words).  They are
 * found in a text before the rest of it is encoded, in the way of Hugging Face's tokenizers: the leftmost,
 * then the longest, as their flags lstrip, rstrip, single_word and normalized say.  A token that is flagged
 * special (<|endoftext|> is, unless a file says otherwise) is found only with CINF_TOKENIZE_SPECIAL.  Without
 * that flag its text is ordinary text: never encode untrusted text with it.  Added tokens that are not
 * flagged special are words like any other of the vocabulary, and are found with and without the flag.
 *
 * A tokenizer is immutable once open, and many threads may use it concurrently. */
#ifndef COSTINFER_TOKENIZER_H
#define COSTINFER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cinf_tokenizer; /* a vocabulary and its merges */

/* Opens tokenizer.json in `folder`, or vocab.json + merges.txt if there is no such file.  Added tokens and
 * their flags come from tokenizer.json, tokenizer_config.json, special_tokens_map.json and added_tokens.json,
 * as far as these files exist; the first file that has a token decides.  CINF_EFORMAT names the file and its
 * fault, CINF_EUNSUPPORTED a setting that is not supported, CINF_EIO also a link whose file is gone.
 * CINF_ENOTFOUND means that the folder has no tokenizer file at all. */
CINF_API enum cinf_status cinf_tokenizer_open(struct cinf_tokenizer **out, const char *folder);
CINF_API void cinf_tokenizer_free(struct cinf_tokenizer *tokenizer); /* accepts NULL */

/* What an operator should know about the files, a line each; "" when there is nothing.  Valid while the
 * tokenizer is. */
CINF_API const char *cinf_tokenizer_notes(const struct cinf_tokenizer *tokenizer);

/* One more than the largest id. */
CINF_API uint32_t cinf_tokenizer_size(const struct cinf_tokenizer *tokenizer);

/* The id of <|endoftext|>, or -1 if the vocabulary has no such token. */
CINF_API int32_t cinf_tokenizer_end_of_text(const struct cinf_tokenizer *tokenizer);

enum {
    CINF_TOKENIZE_SPECIAL = 1, /* "<|endoftext|>" and other special tokens in the text are tokens */
    CINF_TOKENIZE_BARE = 2,    /* without the tokens that the model's tokenizer puts around every text */
};

/* Encodes text[0..n), any bytes, n at most INT32_MAX.  *ids (freed by cinf_ids_free) has *n_ids tokens,
 * including those that the model's files put before and after every text (GPT-2's own put none); an empty
 * text has no others.  Bytes that are not UTF-8 count as neither letter, digit nor space, and decode to
 * themselves. CINF_EINVAL names a byte that the vocabulary has no token for (GPT-2's has all 256), or a
 * pattern of tokenizer.json that takes thousands of steps a byte of this text.  With GPT-2's settings, time
 * is linear in n, with a factor log m for a run of m letters, or of m other characters of one kind, and with
 * the length of added tokens as a factor where a text has many of their beginnings. */
CINF_API enum cinf_status cinf_tokenizer_encode(const struct cinf_tokenizer *tokenizer, const char *text,
                                                size_t n, unsigned flags, int32_t **ids, size_t *n_ids);
CINF_API void cinf_ids_free(int32_t *ids); /* accepts NULL */

/* The bytes of one token, not terminated and perhaps not UTF-8; valid while the tokenizer is.  NULL for an
 * unknown id. */
CINF_API const char *cinf_tokenizer_token(const struct cinf_tokenizer *tokenizer, int32_t id, size_t *n);

/* The id of the token with exactly these bytes, or -1. */
CINF_API int32_t cinf_tokenizer_find(const struct cinf_tokenizer *tokenizer, const char *bytes, size_t n);

/* Decodes to UTF-8 with U+FFFD for each maximal ill-formed part, NUL-terminated (the NUL is not in *n).
 * CINF_EINVAL names an id that is not in the vocabulary.  Freed by cinf_text_free(). */
CINF_API enum cinf_status cinf_tokenizer_decode(const struct cinf_tokenizer *tokenizer, const int32_t *ids,
                                                size_t n_ids, char **text, size_t *n);
CINF_API void cinf_text_free(char *text); /* accepts NULL */

/* Decodes tokens as they arrive; the caller owns it and zeroes it first.  The joined texts of all pushes and
 * the flush equal the one-shot decoding, and each of them is whole UTF-8. */
struct cinf_decoder {
    char pending[4];   /* the beginning of an incomplete character */
    uint8_t n_pending; /* bytes of it so far */
};

/* The most bytes of text that a token of `token_bytes` bytes can complete. */
#define CINF_DECODER_TEXT_MAX(token_bytes) (3 * ((token_bytes) + 3))

/* Writes the text that token `id` completes to out[0..*n): perhaps nothing, at most
 * CINF_DECODER_TEXT_MAX(bytes of the token) bytes, not terminated.  CINF_EINVAL for an id that is not in the
 * vocabulary. */
CINF_API enum cinf_status cinf_decoder_push(struct cinf_decoder *decoder,
                                            const struct cinf_tokenizer *tokenizer, int32_t id, char *out,
                                            size_t *n);

/* Ends the text: a pending beginning becomes U+FFFD.  Writes at most 3 bytes (one U+FFFD). */
CINF_API void cinf_decoder_flush(struct cinf_decoder *decoder, char out[4], size_t *n);

#ifdef __cplusplus
}
#endif
#endif
