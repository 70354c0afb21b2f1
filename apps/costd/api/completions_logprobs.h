/* completions_logprobs.h - the log-probabilities of a completion: collected from events, written as JSON. */
#ifndef COMPLETIONS_LOGPROBS_H
#define COMPLETIONS_LOGPROBS_H

#include "completion.h"
#include "json_write.h"

uint64_t count_characters(const char *text, size_t n);

/* false without memory. */
bool add_prompt_logprob(struct prompt *p, const struct cinf_event *event);

/* Without memory the choice's text has failed. */
void add_logprob(struct choice *c, const struct cinf_tokenizer *tokenizer, const struct cinf_event *event);

void put_logprobs(struct json_writer *w, const struct completion *c, const struct choice *choice);

/* In vLLM's shape: null for the first token, then each token and the most likely ones at its place. */
void put_prompt_logprobs(struct json_writer *w, const struct completion *c, const struct prompt *p);

#endif
