#include "report.h"

#include <stddef.h>

static const struct {
    const char *name;
    enum { FINISH, TOKENS, SECONDS } kind;
    size_t offset; /* in struct cinf_report */
} members[] = {
    [REPORT_FINISH] = { "finish", FINISH, offsetof(struct cinf_report, finish) },
    [REPORT_INPUT_TOKENS] = { "input_tokens", TOKENS, offsetof(struct cinf_report, input_tokens) },
    [REPORT_CACHED_TOKENS] = { "cached_tokens", TOKENS, offsetof(struct cinf_report, cached_tokens) },
    [REPORT_OUTPUT_TOKENS] = { "output_tokens", TOKENS, offsetof(struct cinf_report, output_tokens) },
    [REPORT_QUEUE_SECONDS] = { "queue_seconds", SECONDS, offsetof(struct cinf_report, queue_ns) },
    [REPORT_PREFILL_SECONDS] = { "prefill_seconds", SECONDS, offsetof(struct cinf_report, prefill_ns) },
    [REPORT_DECODE_SECONDS] = { "decode_seconds", SECONDS, offsetof(struct cinf_report, decode_ns) },
    [REPORT_LATENCY_SECONDS] = { "latency_seconds", SECONDS, offsetof(struct cinf_report, latency_ns) },
    [REPORT_DEVICE_SECONDS] = { "device_seconds", SECONDS, offsetof(struct cinf_report, device_ns) },
};

void report_write(struct json_writer *w, const struct cinf_report *report, const enum report_member *list)
{
    for (; *list != REPORT_END; list++) {
        const void *at = (const char *)report + members[*list].offset;
        const char *name = members[*list].name;
        switch (members[*list].kind) {
        case FINISH:
            json_put_text(w, name, cinf_finish_name(*(const enum cinf_finish *)at));
            break;
        case TOKENS:
            json_put_u64(w, name, *(const uint32_t *)at);
            break;
        case SECONDS:
            json_put_seconds(w, name, *(const uint64_t *)at);
            break;
        }
    }
}

void report_write_cost(struct json_writer *w, const char *key, const struct cinf_report *report)
{
    char text[CINF_COST_TEXT_MAX];
    if (report->unpriced_ns)
        json_put_null(w, key);
    else
        json_put_format(w, key, "%s", cinf_cost_format(text, report->cost));
}

void report_write_cost_text(struct json_writer *w, const char *key, const struct cinf_report *report)
{
    char text[CINF_COST_TEXT_MAX];
    json_put_text(w, key, report->unpriced_ns ? NULL : cinf_cost_format(text, report->cost));
}
