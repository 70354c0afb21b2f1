/* json.h - reading JSON: cJSON behind a gate.
 *
 * cJSON builds the tree; what it accepts and we must not is refused before and after: text that is
 * not UTF-8, a NUL or \u0000 (cJSON would cut the string there), lone surrogates, numbers outside a
 * double (1e999) or spelt against RFC 8259 (01, 1.), raw control characters, a BOM, trailing text,
 * duplicate keys, and nesting beyond the caller's limit.
 *
 * The tree is cJSON's own and read with cJSON's functions, by two rules: only the CaseSensitive
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
    size_t members_max; /* keys in one object; 0: no limit but the text's length */
    size_t values_max;  /* values in all, about 100 bytes of tree each; 0: likewise */
};

/* Parses text[0..n).  CINF_EFORMAT says what is wrong and at which byte.  `limits` may be NULL.
 * The tree is freed by cJSON_Delete(). */
enum cinf_status json_parse(cJSON **out, const char *text, size_t n, const struct json_limits *limits);

/* Only the gate: whether text[0..n) is one well-formed JSON value within the limits (duplicate keys
 * are found by json_parse alone).  For tests and fuzzing. */
enum cinf_status json_check(const char *text, size_t n, const struct json_limits *limits);

/* The member of an object, or NULL when it is absent or null. */
const cJSON *json_member(const cJSON *object, const char *key);

/* Typed reads of an optional member.  Absent or null leaves *value alone.  A wrong type, or a
 * number that is not an integer within [low, high], is CINF_EINVAL naming the key and the range. */
enum cinf_status json_read_int(int64_t *value, const cJSON *object, const char *key, int64_t low,
                               int64_t high);
enum cinf_status json_read_double(double *value, const cJSON *object, const char *key, double low,
                                  double high);
enum cinf_status json_read_bool(bool *value, const cJSON *object, const char *key);
enum cinf_status json_read_text(const char **value, const cJSON *object, const char *key);

#endif
