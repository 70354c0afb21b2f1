/* tokenizer_settings.h - what a tokenizer's files say about encoding, beyond vocabulary, merges and tokens.
 */
#ifndef TOKENIZER_SETTINGS_H
#define TOKENIZER_SETTINGS_H

#include "json.h"
#include "tokenizer_file.h"

/* Whether tokenizer.json's "model" is byte-level BPE. */
enum cinf_status settings_check_model(const cJSON *model);

/* Reads tokenizer.json's settings. The vocabulary must be indexed. */
enum cinf_status settings_of_single(struct vocabulary *v, const cJSON *root);

/* Applies what transformers makes of tokenizer_config.json (NULL: absent) beside a tokenizer.json. */
enum cinf_status settings_of_class(struct vocabulary *v, const cJSON *root, const cJSON *config);

/* Reads the settings in tokenizer_config.json and special_tokens_map.json beside vocab.json and merges.txt;
 * each may be NULL. */
enum cinf_status settings_of_pair(struct vocabulary *v, const cJSON *config, const cJSON *special);

#endif
