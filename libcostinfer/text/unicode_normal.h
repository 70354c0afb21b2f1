/* unicode_normal.h - Unicode's normalization forms, lower case and marks, on texts of any bytes.
 *
 * Bytes that are not UTF-8 stay as they are, and nothing composes with them. */
#ifndef UNICODE_NORMAL_H
#define UNICODE_NORMAL_H

#include "strbuf.h"

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* Memory for a text's characters, kept from one to the next.  Zeroed to begin with. */
struct unicode_scratch {
    uint64_t *characters;
    size_t cap;
};
void unicode_scratch_free(struct unicode_scratch *scratch);

/* Each function appends what becomes of text[0..n) to *out, which remembers that memory ran out.  Time is
 * linear in n, but for a factor log m where m marks follow one another. */
void unicode_normalize(struct strbuf *out, const char *text, size_t n, enum unicode_form form,
                       struct unicode_scratch *scratch);

/* Lowers each character as Rust's char::to_lowercase does, without a rule for the end of a word. */
void unicode_lowercase(struct strbuf *out, const char *text, size_t n);

/* Leaves out the characters of the general categories M*. */
void unicode_strip_marks(struct strbuf *out, const char *text, size_t n);

#endif
