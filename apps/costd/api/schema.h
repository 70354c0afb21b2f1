/* schema.h - the fields that bodies may have: one table, which /openapi.json shows and by which a field is
 * known or unknown.  A field that is read and missing here is told to be ignored, which a test notices. */
#ifndef SCHEMA_H
#define SCHEMA_H

#include <stdbool.h>

#include "json_write.h"

/* What a request's body holds.  Bits, as a field may belong to several. */
enum body {
    BODY_NONE = 0,
    BODY_GENERATE = 1,
    BODY_COMPLETIONS = 2,
    BODY_TOKENIZE = 4,
    BODY_DETOKENIZE = 8,
    BODY_LOAD = 16,
    BODY_PRICE = 32,
};

bool schema_has(enum body body, const char *name);

/* The first field that is_like(name, field); NULL: none. */
const char *schema_find(enum body body, const char *name, bool (*is_like)(const char *a, const char *b));

/* "requestBody": … */
void schema_put_body(struct json_writer *w, enum body body);

/* "type": one of JSON's types, or several with spaces between. */
void schema_put_types(struct json_writer *w, const char *types);

/* An object of one type, and a reference to a schema. */
void schema_put_type(struct json_writer *w, const char *key, const char *types);
void schema_put_reference(struct json_writer *w, const char *key, const char *to);

#endif
