/* cost_page.c - GET / and the files it needs.  The program contains them, so the page is never missing, never
 * of another version, and loads nothing from elsewhere. */
#include "cost_page.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "handlers.h"
#include "problem.h"

/* The page may be kept and asked for again by its ETag, and it may load nothing from elsewhere. */
static void add_headers(struct exchange *x, const char *etag, bool gzip)
{
    exchange_add_header(x, "Cache-Control", "no-cache");
    exchange_add_header(x, "ETag", etag);
    exchange_add_header(x, "Vary", "Accept-Encoding");
    exchange_add_header(x, "Content-Security-Policy",
                        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                        "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'");
    exchange_add_header(x, "X-Content-Type-Options", "nosniff");
    exchange_add_header(x, "Referrer-Policy", "no-referrer");
    if (gzip)
        exchange_add_header(x, "Content-Encoding", "gzip");
}

void get_page(struct exchange *x, const char *unused)
{
    const char *path = exchange_path(x);
    const char *known = exchange_header(x, "If-None-Match");
    size_t i = 0;
    char etag[40];
    (void)unused;
    while (i < page_n_files && strcmp(page_files[i].path, path) != 0)
        i++;
    if (i == page_n_files) {
        problem_no_route(x, "unknown path; /openapi.json lists the routes");
        return;
    }
    const struct page_file *file = &page_files[i];
    bool gzip = encoding_accepts_gzip(x);
    snprintf(etag, sizeof etag, "\"%s%s\"", file->hash, gzip ? "-gz" : "");
    add_headers(x, etag, gzip);
    if (known && strstr(known, etag))
        exchange_send(x, 304, file->content_type, "", 0);
    else
        exchange_send(x, 200, file->content_type, gzip ? file->gzip : file->plain,
                      gzip ? file->n_gzip : file->n_plain);
}
