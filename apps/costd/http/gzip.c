#include "gzip.h"

#include <zlib.h>

#include "fail.h"

enum { WINDOW_BITS = 16 + MAX_WBITS /* 16: gzip's header and trailer, and no others */, BLOCK_BYTES = 16384 };

static enum cinf_status inflate_members(z_stream *z, struct strbuf *out, size_t max)
{
    unsigned char block[BLOCK_BYTES];
    for (;;) {
        z->next_out = block;
        z->avail_out = sizeof block;
        int result = inflate(z, Z_NO_FLUSH);
        size_t n = sizeof block - z->avail_out;
        if (n > max - out->len)
            return cinf_fail(CINF_EFULL, "more than %zu bytes", max);
        strbuf_add(out, (const char *)block, n);
        if (result == Z_MEM_ERROR || out->failed)
            return cinf_fail(CINF_ENOMEM, "no memory for the body");
        if (result == Z_STREAM_END && z->avail_in == 0)
            return CINF_OK;
        if (result == Z_STREAM_END)
            result = inflateReset(z);
        /* Without an error but also without input: the end is missing. */
        if (result != Z_OK || (z->avail_in == 0 && z->avail_out > 0))
            return cinf_fail(CINF_EFORMAT, "malformed gzip");
    }
}

enum cinf_status gzip_inflate(struct strbuf *out, const char *bytes, size_t n, size_t max)
{
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)bytes, .avail_in = (uInt)n };
    if (inflateInit2(&z, WINDOW_BITS) != Z_OK)
        return cinf_fail(CINF_ENOMEM, "no memory for the body");
    enum cinf_status status = inflate_members(&z, out, max);
    inflateEnd(&z);
    return status;
}
