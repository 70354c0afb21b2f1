/* completion.h - one body of POST /v1/completions while it is answered: what it asks for, its prompts and
 * choices.
 *
 * completions_api.c creates and frees it.  Only completions_logprobs.c looks into a scored token. */
#ifndef COMPLETION_H
#define COMPLETION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/costinfer.h>

#include "strbuf.h"

struct scored_token;

/* A prompt, with its tokens where prompt_logprobs asks for them. */
struct prompt {
    bool is_seen;
    struct scored_token *scored; /* [n_scored] */
    size_t n_scored, cap_scored;
};

struct choice {
    struct strbuf text;
    struct scored_token *scored; /* [n_scored] */
    size_t n_scored, cap_scored;
    int32_t *ids; /* [n_ids] where the model has no tokenizer */
    size_t n_ids, cap_ids;
    struct cinf_decoder decoder; /* for offsets: decodes the tokens so far */
    uint64_t n_characters;       /* from the beginning of the prompt */
    double logprob_sum;          /* of its n_tokens tokens, for best_of */
    uint32_t n_tokens;
    bool chosen;
    enum cinf_finish finish;
    bool said_finish;
};

struct completion {
    struct cinf_model *model;
    enum cinf_kv kv;
    char id[48];
    int64_t created;
    bool stream, include_usage, echo, logprobs, prompt_logprobs;
    uint32_t n_top, n_prompt_top; /* of the most likely tokens, for logprobs and prompt_logprobs */
    uint32_t keep;                /* of a prompt's tokens, the last; 0: all */
    uint32_t n;                   /* choices of a prompt (best_of) */
    uint32_t n_answered;          /* the best of these */
    uint32_t n_choices;           /* of all */
    struct prompt *prompts;       /* [n_choices / n] */
    struct choice *choices;       /* [n_choices] */
};

#endif
