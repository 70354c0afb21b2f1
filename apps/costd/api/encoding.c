#include "encoding.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <zlib.h>

#include "mem.h"

bool encoding_accepts_gzip(struct exchange *x)
{
    const char *accept = exchange_header(x, "Accept-Encoding");
    bool star = false;
    while (accept && *accept) {
        accept += strspn(accept, " \t,");
        size_t n = strcspn(accept, ",");
        size_t name = strcspn(accept, ",; \t");
        const char *q = memchr(accept, '=', n);
        bool wanted = !q || strtod(q + 1, NULL) > 0;
        if (name == 4 && strncasecmp(accept, "gzip", 4) == 0)
            return wanted;
        if (name == 1 && *accept == '*')
            star = wanted;
        accept += n;
    }
    return star;
}

/* The fastest level: a page of metrics shrinks to a tenth with any, and the processor may be what is billed.
 */
enum { LEVEL = 1, GZIP_WINDOW_BITS = 15 + 16 };

/* NULL if memory runs out: then the answer is sent as it is. */
static unsigned char *compress_gzip(size_t *n_out, const char *body, size_t n)
{
    z_stream z = { 0 };
    if (n > UINT32_MAX / 2 ||
        deflateInit2(&z, LEVEL, Z_DEFLATED, GZIP_WINDOW_BITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return NULL;
    uLong bound = deflateBound(&z, (uLong)n);
    unsigned char *out = mem_new(bound, 1);
    z.next_in = (unsigned char *)(uintptr_t)body;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)bound;
    bool good = out && deflate(&z, Z_FINISH) == Z_STREAM_END;
    *n_out = z.total_out;
    deflateEnd(&z);
    if (good)
        return out;
    mem_free(out);
    return NULL;
}

void encoding_send(struct exchange *x, const char *content_type, const char *body, size_t n)
{
    exchange_add_header(x, "Vary", "Accept-Encoding");
    size_t n_zipped;
    unsigned char *zipped = encoding_accepts_gzip(x) ? compress_gzip(&n_zipped, body, n) : NULL;
    if (zipped) {
        exchange_add_header(x, "Content-Encoding", "gzip");
        exchange_send(x, 200, content_type, zipped, n_zipped);
        mem_free(zipped);
        return;
    }
    exchange_send(x, 200, content_type, body, n);
}
