/* cost_page.h - the built-in page's files, as embed.cmake makes them of page/. */
#ifndef COST_PAGE_H
#define COST_PAGE_H

#include <stddef.h>

struct page_file {
    const char *path;
    const char *content_type;
    const char *hash; /* of the plain bytes */
    const unsigned char *plain;
    size_t n_plain;
    const unsigned char *gzip;
    size_t n_gzip;
};

extern const struct page_file page_files[];
extern const size_t page_n_files;

#endif
