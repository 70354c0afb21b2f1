/* fields.h - a body's fields, each read within its bounds before anything is allocated for it. */
#ifndef FIELDS_H
#define FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/request.h>

#include "exchange.h"
#include "json.h"

enum {
    STOPS_MAX = CINF_STOPS_MAX,
    LOGIT_BIASES_MAX = 1024,
    STOP_IDS_MAX = 1024,
    CHOICES_MAX = 64, /* of one HTTP request: prompts times n */
    MAX_TOKENS_MAX = 1000000,
};

struct fields {
    const cJSON *body;
    const char *param; /* the field that is being read: a failure is its fault */
    const struct cinf_model_info *model;
    struct cinf_request_options options; /* points into the body and to the next three */
    const char *stops[STOPS_MAX];
    int32_t *stop_ids;
    struct cinf_logit_bias *biases;
    int32_t **encoded; /* [n_encoded] texts as ids, for fields_truncate() */
    size_t n_encoded, cap_encoded;
    struct cinf_note note; /* for the ledger */
    struct cinf_tag tags[CINF_TAGS_MAX];
};

void fields_init(struct fields *f, const cJSON *body, const struct cinf_model_info *model);
void fields_free(struct fields *f);

/* A field that is absent or null leaves *value unchanged. */
enum cinf_status field_int(struct fields *f, const char *key, int64_t low, int64_t high, int64_t *value);
enum cinf_status field_number(struct fields *f, const char *key, double low, double high, float *value);
enum cinf_status field_bool(struct fields *f, const char *key, bool *value);
enum cinf_status field_text(struct fields *f, const char *key, const char **value);

/* Reads temperature, top_k, top_p, min_p, typical_p, the penalties, seed, stop, stop_token_ids, min_tokens,
 * logit_bias, ignore_eos and parse_special into `options`, which holds the defaults. */
enum cinf_status fields_sampling(struct fields *f);

/* Reads truncate_prompt_tokens: how many tokens of a prompt are kept, or 0 for all of them. */
enum cinf_status fields_truncation(struct fields *f, uint32_t *keep);

/* Leaves the last `keep` tokens of the prompt of `options`.  Where something is cut off, the prompt is given
 * as ids and `prompt` becomes NULL.  keep = 0 changes nothing. */
enum cinf_status fields_truncate(struct fields *f, const struct cinf_model *model, uint32_t keep,
                                 struct cinf_request_options *options);

/* CINF_EUNSUPPORTED, with what is missing, for a model that has no tokenizer. */
enum cinf_status fields_need_text(const struct fields *f, const struct cinf_model *model);

/* Reads what the ledger is to know: user (or safety_identifier) and metadata.  They change no answer, so what
 * the ledger cannot hold is left out. */
void fields_note(struct fields *f, const char *request_id);

/* Reads a token id of the model's vocabulary. */
enum cinf_status fields_token(struct fields *f, const cJSON *value, int32_t *id);

/* Returns the body as a JSON object, which the caller frees by cJSON_Delete(); an empty body is {} where that
 * is allowed.  Otherwise answers `x` and returns NULL. */
cJSON *fields_body(struct exchange *x, bool may_be_empty);

#endif
