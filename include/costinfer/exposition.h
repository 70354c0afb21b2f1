/* exposition.h - metrics as text, in the two formats that Prometheus scrapes.
 *
 *     struct cinf_exposition *page;
 *     cinf_exposition_new(&page, cinf_exposition_negotiate(accept_header));
 *     cinf_exposition_meter(page, meter);
 *     cinf_exposition_family(page, "my_sheep", CINF_METRIC_GAUGE, NULL, "Sheep in the field.");
 *     cinf_exposition_number(page, "my_sheep", NULL, 0, 12);
 *     cinf_exposition_finish(page, &text, &length);
 *     ... send it as cinf_exposition_content_type(format) ...
 *     cinf_exposition_free(page);
 *
 * Formats: text 0.0.4 and OpenMetrics 1.0 (prometheus/docs: instrumenting/exposition_formats,
 * specs/om/open_metrics_spec).  Label values are escaped; bytes that are not UTF-8 become U+FFFD,
 * because one bad byte would cost the whole scrape.  An exposition belongs to one thread. */
#ifndef COSTINFER_EXPOSITION_H
#define COSTINFER_EXPOSITION_H

#include <costinfer/meter.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The two formats. */
enum cinf_exposition_format {
    CINF_EXPOSITION_TEXT = 0,    /* text/plain; version=0.0.4 */
    CINF_EXPOSITION_OPENMETRICS, /* application/openmetrics-text; version=1.0.0 */
};

/* What a family's numbers mean. */
enum cinf_metric_type {
    CINF_METRIC_COUNTER = 0, /* a count that only grows */
    CINF_METRIC_GAUGE,       /* a value that goes up and down */
    CINF_METRIC_HISTOGRAM,   /* a distribution */
};

/* One of the labels that tell a family's samples apart. */
struct cinf_label {
    const char *name;  /* [a-zA-Z_][a-zA-Z0-9_]* */
    const char *value; /* any UTF-8 */
};

/* Chooses the format that an Accept header asks for: the supported type of the highest q, the first among
 * equals; text for NULL, wildcards and every header that cannot be understood. */
CINF_API enum cinf_exposition_format cinf_exposition_negotiate(const char *accept);
/* The Content-Type header to send with a page. */
CINF_API const char *cinf_exposition_content_type(enum cinf_exposition_format format);

struct cinf_exposition; /* a page being written */

/* Starts an empty page.  cinf_exposition_finish() reports the errors made while it is filled. */
CINF_API enum cinf_status cinf_exposition_new(struct cinf_exposition **out,
                                              enum cinf_exposition_format format);
CINF_API void cinf_exposition_free(struct cinf_exposition *page); /* accepts NULL */

/* Starts a family; its samples must follow before the next family.  A counter's name ends in "_total".
 * `unit` is the suffix of the name (before "_total"), or NULL. */
CINF_API void cinf_exposition_family(struct cinf_exposition *page, const char *name,
                                     enum cinf_metric_type type, const char *unit, const char *help);

/* Writes one sample of the current family, under its full name: a number, */
CINF_API void cinf_exposition_number(struct cinf_exposition *page, const char *name,
                                     const struct cinf_label *labels, uint32_t n_labels, double value);
/* a count, exactly, */
CINF_API void cinf_exposition_integer(struct cinf_exposition *page, const char *name,
                                      const struct cinf_label *labels, uint32_t n_labels, uint64_t value);
/* nanoseconds, written as seconds without rounding, */
CINF_API void cinf_exposition_seconds(struct cinf_exposition *page, const char *name,
                                      const struct cinf_label *labels, uint32_t n_labels, uint64_t ns);
/* or an amount, written as dollars with 12 decimals. */
CINF_API void cinf_exposition_cost(struct cinf_exposition *page, const char *name,
                                   const struct cinf_label *labels, uint32_t n_labels, struct cinf_cost cost);

/* Writes all families of a meter, from one snapshot.  A page holds at most one meter. */
CINF_API enum cinf_status cinf_exposition_meter(struct cinf_exposition *page, const struct cinf_meter *meter);

/* Returns the finished text, valid until the page is freed.  CINF_ENOMEM if memory ran out while the page was
 * filled, CINF_EINVAL if a name was malformed, a sample was outside of its family, or a counter was negative.
 */
CINF_API enum cinf_status cinf_exposition_finish(struct cinf_exposition *page, const char **text,
                                                 size_t *length);

#ifdef __cplusplus
}
#endif
#endif
