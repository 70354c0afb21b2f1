/* checkpoint.h - a model's files as a table of named tensors, and its configuration.
 *
 * This header reads a Hugging Face folder (model.safetensors, sharded safetensors with an index,
 * pytorch_model.bin of either kind, sharded too) or any single .safetensors or .bin file.  Everything in
 * these files is hostile until checked: a malformed one gives CINF_EFORMAT with one line that names the file,
 * the tensor and the fault.  Nothing in them is ever executed, and nothing larger than the file justifies is
 * allocated.
 *
 * A checkpoint is immutable once open; many threads may read its tensors concurrently. */
#ifndef COSTINFER_CHECKPOINT_H
#define COSTINFER_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>
#include <costinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CINF_DIMS_MAX = 8 }; /* the most dimensions of a tensor */

/* A named array of numbers in the checkpoint's files. */
struct cinf_tensor {
    const char *name;             /* UTF-8; valid while the checkpoint is open */
    const char *file;             /* the file that holds it; as long valid */
    enum cinf_dtype dtype;        /* of its elements */
    const char *dtype_name;       /* as safetensors spells it: "F32", "BF16", "U8" … */
    uint32_t n_dims;              /* 0: a scalar */
    uint64_t dims[CINF_DIMS_MAX]; /* [n_dims], the slowest first */
    uint64_t n_elements;          /* product of dims; 1 for a scalar */
    uint64_t n_bytes;             /* as stored */
};

struct cinf_checkpoint; /* an open checkpoint; immutable, for any number of threads */

/* `path` is a folder, an index of shards, or a single file.  In a folder, safetensors are preferred to
 * pickles and one file to shards.  A file named .safetensors or .bin must be of that format; the first bytes
 * decide for any other name. Fails with CINF_ENOTFOUND, CINF_EFORMAT, CINF_EIO, or CINF_EUNSUPPORTED for a
 * file that is well-formed but unusual: expanded views, big-endian elements, more than 65,536 tensors. A
 * pytorch_model.bin that is a zip archive is read once as a whole and compared with its checksums; a
 * difference is CINF_EFORMAT. */
CINF_API enum cinf_status cinf_checkpoint_open(struct cinf_checkpoint **out, const char *path);
CINF_API void cinf_checkpoint_free(struct cinf_checkpoint *checkpoint); /* accepts NULL */

/* "safetensors", "safetensors, 3 shards", "pytorch zip", "pytorch legacy" … */
CINF_API const char *cinf_checkpoint_format(const struct cinf_checkpoint *checkpoint);

/* The number of tensors. */
CINF_API uint32_t cinf_checkpoint_count(const struct cinf_checkpoint *checkpoint);

/* Tensor `index` in the order of names, valid while the checkpoint is open; NULL if `index` is the count or
 * more. */
CINF_API const struct cinf_tensor *cinf_checkpoint_tensor(const struct cinf_checkpoint *checkpoint,
                                                          uint32_t index);

/* The tensor of that exact name, or NULL. */
CINF_API const struct cinf_tensor *cinf_checkpoint_find(const struct cinf_checkpoint *checkpoint,
                                                        const char *name);

/* Reads elements [first, first + n) in row-major order, as stored (little-endian, dtype's width), whatever
 * the strides in the file.  Fails with CINF_EINVAL for elements that the tensor does not have,
 * CINF_EUNSUPPORTED for CINF_DTYPE_OTHER, or CINF_EIO. */
CINF_API enum cinf_status cinf_checkpoint_read(const struct cinf_checkpoint *checkpoint,
                                               const struct cinf_tensor *tensor, uint64_t first, uint64_t n,
                                               void *elements);

/* ---- What the files are ------------------------------------------------------------------- */

enum { CINF_DIGEST_TEXT = 65 }; /* a SHA-256 digest in lowercase hexadecimal, and a NUL */

/* Writes two digests of a model's files: those that are read for a model, and all of the folder's weights.
 * `fingerprint` is of their names, sizes and contents (of each file the first and the last MiB), so that a
 * copy has the same.  `identity` is of that and of each file's device, inode, and times of modification and
 * of change (to the nanosecond): it differs after every change of the files, and when a link on the way to
 * them leads elsewhere.  Both are untouched on failure: CINF_ENOTFOUND, CINF_EIO. */
CINF_API enum cinf_status cinf_files_identify(char fingerprint[CINF_DIGEST_TEXT],
                                              char identity[CINF_DIGEST_TEXT], const char *folder);

/* ---- config.json and generation_config.json ----------------------------------------------- */

enum { CINF_EOS_MAX = 16 }; /* the most tokens that end a text */

/* The settings that change a model's results, with GPT-2's defaults for absent keys.  The struct has no size
 * field and is part of cinf_model_info, so it changes only with the soname. */
struct cinf_config {
    uint32_t vocab_size;                  /* V */
    uint32_t n_positions;                 /* P, the context */
    uint32_t n_embd;                      /* D */
    uint32_t n_layer;                     /* L */
    uint32_t n_head;                      /* H; divides D */
    uint32_t n_inner;                     /* I; 4D if null or absent */
    enum cinf_activation activation;      /* of the feed-forward layer */
    float layer_norm_epsilon;             /* added to the variance */
    bool scale_attn_weights;              /* attention scores are divided by sqrt(D / H) */
    bool scale_attn_by_inverse_layer_idx; /* and by the layer's number, from 1 */
    bool tie_word_embeddings;             /* the embeddings are also the output layer */
    uint32_t n_eos;            /* tokens that end a text; generation_config.json overrides config.json */
    int32_t eos[CINF_EOS_MAX]; /* [n_eos] */
    int32_t bos;               /* the token that begins a text; -1: none */
};

/* Reads folder/config.json, and folder/generation_config.json if it exists.  Fails with CINF_ENOTFOUND,
 * CINF_EFORMAT for an impossible value, or CINF_EUNSUPPORTED for a model that this library does not run.
 * Tokens that the vocabulary lacks are left out: eos may be empty, bos -1. */
CINF_API enum cinf_status cinf_config_read(struct cinf_config *out, const char *folder);

enum { CINF_CONFIG_NOTES_MAX = 2048 }; /* bytes of notes, at most */

/* The same, and what an operator should know about the files, a line each, terminated; "" when there is
 * nothing. A generation_config.json that is not JSON is such: it is ignored, as transformers ignores it. */
CINF_API enum cinf_status cinf_config_read_with_notes(struct cinf_config *out,
                                                      char notes[CINF_CONFIG_NOTES_MAX], const char *folder);

/* Fills *out with a published shape: "distilgpt2", "gpt2", "gpt2-medium", "gpt2-large" or "gpt2-xl".
 * CINF_ENOTFOUND for any other name. */
CINF_API enum cinf_status cinf_config_named(struct cinf_config *out, const char *name);

/* "gelu_new", "gelu" … */
CINF_API const char *cinf_activation_name(enum cinf_activation activation);

#ifdef __cplusplus
}
#endif
#endif
