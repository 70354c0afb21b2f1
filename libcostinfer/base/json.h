/* json.h - reading JSON: cJSON behind a gate.
 *
 * cJSON builds the tree.  It accepts more than we may, so the gate refuses, before and after: text that
 * is not UTF-8, a NUL or \u0000 (cJSON would cut the string there), lone surrogates, numbers outside a
 * double (1e999) or spelt against RFC 8259 (01, 1.), raw control characters, a byte order mark, trailing
 * text, duplicate keys, and nesting beyond the caller's limit.  A model's files are read with `python` set:
 * they may begin with a byte order mark, and Python writes numbers that JSON does not have.
 *
 * A number of more than 15 characters keeps its spelling in valuestring, as its double may be rounded.
 *
 * The tree is cJSON's own and is read with cJSON's functions, by two rules: use only the CaseSensitive
 * lookup, and cJSON_ArrayForEach for arrays (cJSON_GetArrayItem walks a list each time). */
#ifndef JSON_H
#define JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

struct json_limits {
    uint32_t depth_max; /* nesting of arrays and objects; 0: 32 */
    size_t members_max; /* keys in one object; 0: limited by the text's length alone */
    size_t values_max;  /* values in all, each about 100 bytes of tree; 0: likewise */
    bool python;        /* a byte order mark is skipped; Infinity is a number, NaN has no type */
};

/* Parses text[0..n).  CINF_EFORMAT says what is wrong and at which byte.  `limits` may be NULL.
 * The tree is freed by cJSON_Delete(). */
enum cinf_status json_parse(cJSON **out, const char *text, size_t n, const struct json_limits *limits);

/* The gate alone: CINF_OK if text[0..n) is one well-formed JSON value within the limits.  Only
 * json_parse() finds duplicate keys.  For tests and fuzzing. */
enum cinf_status json_check(const char *text, size_t n, const struct json_limits *limits);

/* Returns a member of an object, or NULL if it is absent or null. */
const cJSON *json_member(const cJSON *object, const char *key);

/* Typed reads of an optional member.  If it is absent or null, *value stays as it is.  A wrong type, or a
 * number outside [low, high] or not an integer where one is expected, is CINF_EINVAL; the message names
 * the key and the range.  Integers of 64 bits are exact; one of more than 15 characters must be written in
 * digits alone. */
enum cinf_status json_read_int(int64_t *value, const cJSON *object, const char *key, int64_t low,
                               int64_t high);
enum cinf_status json_read_double(double *value, const cJSON *object, const char *key, double low,
                                  double high);
enum cinf_status json_read_bool(bool *value, const cJSON *object, const char *key);
enum cinf_status json_read_text(const char **value, const cJSON *object, const char *key);

#endif
