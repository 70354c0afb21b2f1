#include "percent.h"

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "utf8.h"

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c | 32 : c) : NULL;
    return at ? (int)(at - digits) : -1;
}

enum cinf_status percent_decode(char **out, const char *text, bool plus)
{
    char *decoded = mem_new(strlen(text) + 1, 1);
    size_t n = 0;
    if (!decoded)
        return cinf_fail(CINF_ENOMEM, "no memory for a text of %zu bytes", strlen(text));
    for (const char *c = text; *c; c++) {
        int high, low;
        if (*c != '%') {
            decoded[n++] = plus && *c == '+' ? ' ' : *c;
        } else if ((high = hex_digit(c[1])) >= 0 && (low = hex_digit(c[2])) >= 0 && high + low > 0) {
            decoded[n++] = (char)(high << 4 | low);
            c += 2;
        } else {
            mem_free(decoded);
            return cinf_fail(CINF_EINVAL, "malformed percent-encoding");
        }
    }
    if (!utf8_valid(decoded, n)) {
        mem_free(decoded);
        return cinf_fail(CINF_EINVAL, "the percent-encoded text is not UTF-8");
    }
    *out = decoded;
    return CINF_OK;
}
