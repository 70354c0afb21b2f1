#include "log.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "line_writer.h"

enum {
    QUEUE_BYTES = 1 << 20,
    /* At the end: how long a reader may take nothing, and how long it may take for everything. */
    STUCK_MS = 1000,
    FLUSH_MS = 5000,
};

static struct line_writer *writer;

static void put_dropped(struct strbuf *out, uint64_t n)
{
    struct log_line line;
    log_begin(&line, "warn", "log");
    log_u64(&line, "dropped_lines", n);
    log_text(&line, "message",
             "lines are missing here: stderr was not read fast enough, or could not be written to");
    json_close(&line.json);
    strbuf_putc(&line.text, '\n');
    *out = line.text;
}

enum cinf_status log_open(void)
{
    return line_writer_start(&writer, STDERR_FILENO, QUEUE_BYTES, put_dropped);
}

void log_flush(void)
{
    (void)line_writer_flush(writer, STUCK_MS, FLUSH_MS);
}

void log_close(void)
{
    line_writer_stop(writer, STUCK_MS, FLUSH_MS);
    writer = NULL;
}

uint64_t log_dropped(void)
{
    return line_writer_dropped(writer);
}

void log_begin(struct log_line *line, const char *level, const char *event)
{
    struct timespec now;
    struct tm utc;
    char time[80];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    snprintf(time, sizeof time, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", utc.tm_year + 1900, utc.tm_mon + 1,
             utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000);
    line->text = (struct strbuf){ 0 };
    line->json = json_write_to(&line->text);
    json_open_object(&line->json, NULL);
    log_text(line, "ts", time);
    log_text(line, "level", level);
    log_text(line, "event", event);
}

void log_text(struct log_line *line, const char *key, const char *value)
{
    json_put_text(&line->json, key, value);
}

void log_u64(struct log_line *line, const char *key, uint64_t value)
{
    json_put_u64(&line->json, key, value);
}

void log_seconds(struct log_line *line, const char *key, uint64_t ns)
{
    json_put_seconds(&line->json, key, ns);
}

void log_end(struct log_line *line)
{
    static const char lost[] =
        "{\"level\":\"error\",\"event\":\"log\",\"message\":\"no memory for a line\"}\n";
    json_close(&line->json);
    strbuf_putc(&line->text, '\n');
    const char *text = line->text.failed ? lost : line->text.text;
    size_t n = line->text.failed ? sizeof lost - 1 : line->text.len;
    line_writer_put(writer, text, n);
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
