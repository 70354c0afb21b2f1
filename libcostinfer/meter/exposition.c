/* exposition.c - the two text formats.
 *
 * They differ in four things only: OpenMetrics names a counter's family without "_total", has UNIT lines,
 * orders the metadata differently, and ends in "# EOF".  Numbers are never left to printf alone, whose
 * decimal point follows the locale.
 *
 * The writers return nothing.  They remember that memory ran out, or that the caller made a mistake (a
 * malformed name, a sample outside of its family), and cinf_exposition_finish() reports it once. */
#include <costinfer/exposition.h>

#include <math.h>
#include <string.h>

#include "exposition_nanos.h"
#include "fail.h"
#include "mem.h"
#include "strbuf.h"
#include "utf8.h"

struct cinf_exposition {
    enum cinf_exposition_format format;
    enum cinf_metric_type type;
    struct strbuf family; /* full name of the current family */
    struct strbuf text;
    struct strbuf mistake; /* the first one */
    bool finished;
};

enum cinf_status cinf_exposition_new(struct cinf_exposition **out, enum cinf_exposition_format format)
{
    struct cinf_exposition *page = mem_new(1, sizeof *page);
    if (!page)
        return cinf_fail(CINF_ENOMEM, "no memory for a page of metrics");
    page->format = format;
    *out = page;
    return CINF_OK;
}

void cinf_exposition_free(struct cinf_exposition *page)
{
    if (!page)
        return;
    strbuf_free(&page->family);
    strbuf_free(&page->text);
    strbuf_free(&page->mistake);
    mem_free(page);
}

/* ---- Names --------------------------------------------------------------------------------- */

static void mistake(struct cinf_exposition *page, const char *what, const char *name)
{
    if (page->mistake.len == 0)
        strbuf_printf(&page->mistake, "%s: %s", what, name);
}

/* [a-zA-Z_][a-zA-Z0-9_]*; a metric's name may have colons too. */
static bool name_valid(const char *name, bool colons)
{
    for (size_t i = 0; name[i]; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c == ':' && colons);
        if (!letter && !(i > 0 && c >= '0' && c <= '9'))
            return false;
    }
    return name[0] != '\0';
}

static bool ends_in(const char *name, size_t n, const char *end)
{
    size_t n_end = strlen(end);
    return n > n_end && memcmp(name + n - n_end, end, n_end) == 0;
}

/* True if a sample of this name belongs to the current family. */
static bool in_family(const struct cinf_exposition *page, const char *name)
{
    size_t n = page->family.len;
    if (n == 0 || strncmp(name, page->family.text, n) != 0)
        return false;
    const char *rest = name + n;
    if (page->type != CINF_METRIC_HISTOGRAM)
        return *rest == '\0';
    return strcmp(rest, "_bucket") == 0 || strcmp(rest, "_sum") == 0 || strcmp(rest, "_count") == 0;
}

/* ---- Text ---------------------------------------------------------------------------------- */

/* Writes `text` with backslash, line feed and, if `quotes`, the double quote escaped. */
static void put_escaped(struct strbuf *b, const char *text, bool quotes)
{
    size_t n = strlen(text);
    for (size_t i = 0, used; i < n; i += used) {
        if (utf8_read(text + i, n - i, &used) == UTF8_BAD)
            strbuf_puts(b, "\xEF\xBF\xBD");
        else if (text[i] == '\n')
            strbuf_puts(b, "\\n");
        else if (text[i] == '\\' || (text[i] == '"' && quotes))
            strbuf_printf(b, "\\%c", text[i]);
        else
            strbuf_add(b, text + i, used);
    }
}

/* Writes the line "# KEYWORD family value". */
static void put_metadata(struct cinf_exposition *page, const char *keyword, size_t n_family,
                         const char *value)
{
    strbuf_printf(&page->text, "# %s ", keyword);
    strbuf_add(&page->text, page->family.text, n_family);
    strbuf_putc(&page->text, ' ');
    put_escaped(&page->text, value, page->format == CINF_EXPOSITION_OPENMETRICS);
    strbuf_putc(&page->text, '\n');
}

void cinf_exposition_family(struct cinf_exposition *page, const char *name, enum cinf_metric_type type,
                            const char *unit, const char *help)
{
    static const char *const types[] = { "counter", "gauge", "histogram" };
    size_t n = strlen(name), n_family = n;
    page->type = type;
    strbuf_clear(&page->family);
    if (!name_valid(name, true) || (type == CINF_METRIC_COUNTER && !ends_in(name, n, "_total"))) {
        mistake(page, "invalid name for a family of this type", name);
        return;
    }
    strbuf_puts(&page->family, name);
    if (page->family.failed) {
        page->text.failed = true;
        return;
    }
    if (type == CINF_METRIC_COUNTER)
        n_family -= strlen("_total");
    if (unit && (!ends_in(name, n_family, unit) || name[n_family - strlen(unit) - 1] != '_'))
        mistake(page, "the name of a family does not end in its unit", name);
    if (page->format == CINF_EXPOSITION_OPENMETRICS) {
        put_metadata(page, "TYPE", n_family, types[type]);
        if (unit)
            put_metadata(page, "UNIT", n_family, unit);
        put_metadata(page, "HELP", n_family, help);
    } else {
        put_metadata(page, "HELP", n, help);
        put_metadata(page, "TYPE", n, types[type]);
    }
}

/* Writes a sample up to its value. */
static void put_series(struct cinf_exposition *page, const char *name, const struct cinf_label *labels,
                       uint32_t n_labels)
{
    if (!in_family(page, name))
        mistake(page, "sample outside of its family", name);
    strbuf_puts(&page->text, name);
    for (uint32_t i = 0; i < n_labels; i++) {
        if (!name_valid(labels[i].name, false))
            mistake(page, "invalid label name", labels[i].name);
        strbuf_puts(&page->text, i == 0 ? "{" : ",");
        strbuf_puts(&page->text, labels[i].name);
        strbuf_puts(&page->text, "=\"");
        put_escaped(&page->text, labels[i].value, true);
        strbuf_putc(&page->text, '"');
    }
    strbuf_puts(&page->text, n_labels > 0 ? "} " : " ");
}

void cinf_exposition_number(struct cinf_exposition *page, const char *name, const struct cinf_label *labels,
                            uint32_t n_labels, double value)
{
    if (page->type == CINF_METRIC_COUNTER && !(value >= 0))
        mistake(page, "negative counter", name);
    put_series(page, name, labels, n_labels);
    strbuf_put_double(&page->text, value);
    strbuf_putc(&page->text, '\n');
}

void cinf_exposition_integer(struct cinf_exposition *page, const char *name, const struct cinf_label *labels,
                             uint32_t n_labels, uint64_t value)
{
    put_series(page, name, labels, n_labels);
    strbuf_put_u64(&page->text, value);
    strbuf_putc(&page->text, '\n');
}

const char *nanos_format(char text[NANOS_TEXT_MAX], uint64_t nanos, bool point)
{
    char *at = text + NANOS_TEXT_MAX;
    *--at = '\0';
    uint64_t fraction = nanos % 1000000000, whole = nanos / 1000000000;
    bool digits = false; /* true after the first digit: zeros at the end are left out */
    for (int i = 0; i < 9; i++, fraction /= 10) {
        if (fraction % 10 || digits || (i == 8 && point)) {
            *--at = (char)('0' + fraction % 10);
            digits = true;
        }
    }
    if (digits)
        *--at = '.';
    do
        *--at = (char)('0' + whole % 10);
    while (whole /= 10);
    return at;
}

void cinf_exposition_seconds(struct cinf_exposition *page, const char *name, const struct cinf_label *labels,
                             uint32_t n_labels, uint64_t ns)
{
    char text[NANOS_TEXT_MAX];
    put_series(page, name, labels, n_labels);
    strbuf_puts(&page->text, nanos_format(text, ns, false));
    strbuf_putc(&page->text, '\n');
}

void cinf_exposition_cost(struct cinf_exposition *page, const char *name, const struct cinf_label *labels,
                          uint32_t n_labels, struct cinf_cost cost)
{
    char text[CINF_COST_TEXT_MAX];
    put_series(page, name, labels, n_labels);
    strbuf_puts(&page->text, cinf_cost_format(text, cost));
    strbuf_putc(&page->text, '\n');
}

enum cinf_status cinf_exposition_finish(struct cinf_exposition *page, const char **text, size_t *length)
{
    if (!page->finished && page->format == CINF_EXPOSITION_OPENMETRICS)
        strbuf_puts(&page->text, "# EOF\n");
    page->finished = true;
    if (page->text.failed || page->mistake.failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a page of metrics");
    if (page->mistake.len > 0)
        return cinf_fail(CINF_EINVAL, "%s", page->mistake.text);
    *text = page->text.text ? page->text.text : "";
    *length = page->text.len;
    return CINF_OK;
}
