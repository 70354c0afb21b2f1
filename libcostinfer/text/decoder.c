/* decoder.c - ids to text, token by token.  Decoding a whole text means decoding it token by token into one
 * buffer, so the two cannot differ. */
#include <costinfer/tokenizer.h>

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "strbuf.h"
#include "utf8.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

static size_t put(char *out, const char *text, size_t n)
{
    memcpy(out, text, n);
    return n;
}

/* Continues the pending beginning with bytes[0..n).  Returns how many of them belonged to it, and adds what
 * they completed to out[*n_out...). */
static size_t finish_pending(struct cinf_decoder *d, const char *bytes, size_t n, char *out, size_t *n_out)
{
    for (size_t i = 0; i < n; i++) {
        size_t used;
        d->pending[d->n_pending] = bytes[i];
        if (utf8_incomplete(d->pending, d->n_pending + 1u)) {
            d->n_pending++;
            continue;
        }
        bool good = utf8_read(d->pending, d->n_pending + 1u, &used) != UTF8_BAD;
        d->n_pending = 0;
        *n_out += good ? put(out + *n_out, d->pending, used) : put(out + *n_out, replacement, 3);
        return good ? i + 1 : i; /* a byte that does not continue it begins something new */
    }
    return n;
}

enum cinf_status cinf_decoder_push(struct cinf_decoder *decoder, const struct cinf_tokenizer *tokenizer,
                                   int32_t id, char *out, size_t *n)
{
    size_t n_bytes, used, n_out = 0, at = 0;
    const char *bytes = cinf_tokenizer_token(tokenizer, id, &n_bytes);
    if (!bytes)
        return cinf_fail(CINF_EINVAL, "token id %d is not in the vocabulary", id);
    if (decoder->n_pending > 0)
        at = finish_pending(decoder, bytes, n_bytes, out, &n_out);
    for (; at < n_bytes; at += used) {
        if (utf8_read(bytes + at, n_bytes - at, &used) != UTF8_BAD) {
            n_out += put(out + n_out, bytes + at, used);
        } else if (utf8_incomplete(bytes + at, n_bytes - at)) {
            decoder->n_pending = (uint8_t)put(decoder->pending, bytes + at, n_bytes - at);
            break;
        } else {
            n_out += put(out + n_out, replacement, 3);
        }
    }
    *n = n_out;
    return CINF_OK;
}

void cinf_decoder_flush(struct cinf_decoder *decoder, char out[4], size_t *n)
{
    *n = decoder->n_pending > 0 ? put(out, replacement, 3) : 0;
    decoder->n_pending = 0;
}

enum cinf_status cinf_tokenizer_decode(const struct cinf_tokenizer *tokenizer, const int32_t *ids,
                                       size_t n_ids, char **text, size_t *n)
{
    struct strbuf whole = { 0 };
    struct cinf_decoder decoder = { 0 };
    enum cinf_status status = CINF_OK;
    size_t n_token, n_new;
    for (size_t i = 0; i < n_ids && status == CINF_OK; i++) {
        if (!cinf_tokenizer_token(tokenizer, ids[i], &n_token))
            n_token = 0; /* the push says what is wrong with it */
        char *out = strbuf_reserve(&whole, CINF_DECODER_TEXT_MAX(n_token));
        if (!out)
            break;
        status = cinf_decoder_push(&decoder, tokenizer, ids[i], out, &n_new);
        if (status == CINF_OK)
            strbuf_extend(&whole, n_new);
    }
    if (status == CINF_OK) {
        char last[4];
        cinf_decoder_flush(&decoder, last, &n_new);
        strbuf_add(&whole, last, n_new);
        if (whole.failed)
            status = cinf_fail(CINF_ENOMEM, "no memory for the text of %zu tokens", n_ids);
    }
    if (status != CINF_OK) {
        strbuf_free(&whole);
        return status;
    }
    *text = whole.text;
    *n = whole.len;
    return CINF_OK;
}

void cinf_text_free(char *text)
{
    mem_free(text);
}
