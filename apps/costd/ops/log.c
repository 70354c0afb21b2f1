#include "log.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void log_key(struct log_line *line, const char *key)
{
    strbuf_printf(&line->text, ",\"%s\":", key);
}

void log_begin(struct log_line *line, const char *level, const char *event)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    line->text = (struct strbuf){ 0 };
    strbuf_printf(&line->text,
                  "{\"ts\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\",\"level\":\"%s\",\"event\":\"%s\"",
                  utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                  now.tv_nsec / 1000000, level, event);
}

void log_text(struct log_line *line, const char *key, const char *value)
{
    if (!value) {
        log_null(line, key);
        return;
    }
    log_key(line, key);
    strbuf_put_json(&line->text, value, strlen(value));
}

void log_u64(struct log_line *line, const char *key, uint64_t value)
{
    log_key(line, key);
    strbuf_put_u64(&line->text, value);
}

void log_seconds(struct log_line *line, const char *key, uint64_t ns)
{
    log_key(line, key);
    strbuf_printf(&line->text, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
}

void log_cost(struct log_line *line, const char *key, struct cinf_cost cost)
{
    char text[CINF_COST_TEXT_MAX];
    log_key(line, key);
    strbuf_puts(&line->text, cinf_cost_format(text, cost));
}

void log_null(struct log_line *line, const char *key)
{
    log_key(line, key);
    strbuf_puts(&line->text, "null");
}

void log_end(struct log_line *line)
{
    static const char lost[] =
        "{\"level\":\"error\",\"event\":\"log\",\"message\":\"no memory for a line\"}\n";
    strbuf_puts(&line->text, "}\n");
    const char *text = line->text.failed ? lost : line->text.text;
    size_t n = line->text.failed ? sizeof lost - 1 : line->text.len;
    /* A log that cannot be written must not stop the service. */
    ssize_t written = write(STDERR_FILENO, text, n);
    (void)written;
    strbuf_free(&line->text);
}

void log_message(const char *level, const char *event, const char *format, ...)
{
    struct strbuf message = { 0 };
    struct log_line line;
    va_list args;
    va_start(args, format);
    strbuf_vprintf(&message, format, args);
    va_end(args);
    log_begin(&line, level, event);
    log_text(&line, "message", message.failed ? "no memory for the message" : message.text);
    log_end(&line);
    strbuf_free(&message);
}
