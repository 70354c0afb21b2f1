/* fuzz_negotiate.c - an Accept header, and the same bytes as a price and as the name of a model on a page. */
#include <costinfer/exposition.h>

#include <stdlib.h>
#include <string.h>

#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever the bytes are, a page is valid UTF-8 and its sample is one line. */
static void label(const char *value)
{
    struct cinf_exposition *page;
    const char *text;
    size_t n;
    if (cinf_exposition_new(&page, CINF_EXPOSITION_OPENMETRICS) != CINF_OK)
        return;
    cinf_exposition_family(page, "g", CINF_METRIC_GAUGE, NULL, value);
    cinf_exposition_integer(page, "g", &(struct cinf_label){ "l", value }, 1, 1);
    if (cinf_exposition_finish(page, &text, &n) != CINF_OK || !utf8_valid(text, n))
        abort();
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    if (lines != 4)
        abort();
    cinf_exposition_free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(size + 1, 1);
    uint64_t price = 0;
    if (!text)
        return 0;
    memcpy(text, data, size);
    cinf_exposition_negotiate(text);
    if (cinf_price_parse(&price, text) == CINF_OK && price > UINT64_C(1000000000000000))
        abort();
    label(text);
    free(text);
    return 0;
}
