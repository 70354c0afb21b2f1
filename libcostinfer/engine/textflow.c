/* textflow.c - see textflow.h. */
#include "textflow.h"

#include <string.h>

#include "fail.h"

void textflow_free(struct textflow *flow)
{
    strbuf_free(&flow->text);
}

/* Returns where the first stop string starts, or SIZE_MAX.  A match ends in the new part, which begins at
 * `from`; others were found earlier. */
static size_t find_stop(const struct strbuf *text, size_t from, const struct stop_string *stops,
                        uint32_t n_stops)
{
    size_t first = SIZE_MAX;
    for (uint32_t i = 0; i < n_stops; i++) {
        size_t n = stops[i].n;
        for (size_t at = from >= n ? from - n + 1 : 0; at + n <= text->len && at < first; at++)
            if (memcmp(text->text + at, stops[i].text, n) == 0)
                first = at;
    }
    return first;
}

/* Returns where the longest suffix of the text starts that is a prefix of a stop string; the text's length if
 * none is. */
static size_t find_stop_prefix(const struct strbuf *text, const struct stop_string *stops, uint32_t n_stops)
{
    size_t first = text->len;
    for (uint32_t i = 0; i < n_stops; i++) {
        size_t n = stops[i].n;
        for (size_t at = text->len >= n ? text->len - n + 1 : 0; at < first; at++)
            if (memcmp(text->text + at, stops[i].text, text->len - at) == 0)
                first = at;
    }
    return first;
}

enum cinf_status textflow_push(struct textflow *flow, const struct cinf_tokenizer *tokenizer, int32_t token,
                               const struct stop_string *stops, uint32_t n_stops, bool may_stop)
{
    size_t n_token, n;
    if (!tokenizer || flow->stopped || !cinf_tokenizer_token(tokenizer, token, &n_token))
        return CINF_OK;
    size_t from = flow->text.len;
    char small[256], *out = small;
    struct strbuf large = { 0 };
    if (CINF_DECODER_TEXT_MAX(n_token) > sizeof small) {
        for (size_t i = 0; i < CINF_DECODER_TEXT_MAX(n_token); i++)
            strbuf_putc(&large, ' ');
        if (large.failed) {
            strbuf_free(&large);
            return cinf_fail(CINF_ENOMEM, "no memory for the text of a token of %zu bytes", n_token);
        }
        out = large.text;
    }
    enum cinf_status status = cinf_decoder_push(&flow->decoder, tokenizer, token, out, &n);
    if (status == CINF_OK)
        strbuf_add(&flow->text, out, n);
    strbuf_free(&large);
    TRY(status);
    if (flow->text.failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a text of %zu bytes", flow->text.len);
    if (n == 0)
        return CINF_OK;
    size_t stop = may_stop ? find_stop(&flow->text, from, stops, n_stops) : SIZE_MAX;
    flow->stopped = stop != SIZE_MAX;
    flow->certain = flow->stopped ? stop : find_stop_prefix(&flow->text, stops, n_stops);
    return CINF_OK;
}

enum cinf_status textflow_end(struct textflow *flow)
{
    if (flow->stopped)
        return CINF_OK;
    char rest[4];
    size_t n;
    cinf_decoder_flush(&flow->decoder, rest, &n);
    strbuf_add(&flow->text, rest, n);
    if (flow->text.failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a text of %zu bytes", flow->text.len);
    flow->certain = flow->text.len;
    return CINF_OK;
}
