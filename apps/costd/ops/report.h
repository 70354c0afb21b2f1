/* report.h - a generation's report as members of a JSON object: in answers, in the log and on the page.
 *
 * The places differ in which members they show and in which order, never in a member's name or form: they
 * list the members, and the names stand in one table. */
#ifndef REPORT_H
#define REPORT_H

#include <costinfer/meter.h>

#include "json_write.h"

enum report_member {
    REPORT_END,
    REPORT_FINISH,
    REPORT_INPUT_TOKENS,
    REPORT_CACHED_TOKENS,
    REPORT_OUTPUT_TOKENS,
    REPORT_QUEUE_SECONDS,
    REPORT_PREFILL_SECONDS,
    REPORT_DECODE_SECONDS,
    REPORT_LATENCY_SECONDS,
    REPORT_DEVICE_SECONDS,
};

/* Writes the members of `list`, which ends with REPORT_END. */
void report_write(struct json_writer *w, const struct cinf_report *report, const enum report_member *list);
#define REPORT_WRITE(w, report, ...)                                                                         \
    report_write(w, report, (const enum report_member[]){ __VA_ARGS__, REPORT_END })

/* What each answer of a generating route ends with. */
#define REPORT_USE                                                                                           \
    REPORT_CACHED_TOKENS, REPORT_DEVICE_SECONDS, REPORT_QUEUE_SECONDS, REPORT_PREFILL_SECONDS,               \
        REPORT_DECODE_SECONDS

/* Dollars with twelve decimals, as a number; null if part of the time had no price. */
void report_write_cost(struct json_writer *w, const char *key, const struct cinf_report *report);

/* The same as a decimal string, which no reader rounds. */
void report_write_cost_text(struct json_writer *w, const char *key, const struct cinf_report *report);

#endif
