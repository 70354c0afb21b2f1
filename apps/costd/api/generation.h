/* generation.h - one generation: a connection on one side, one or more requests to the engine on the other.
 *
 * The engine announces events from its own thread; the generation resumes its connection, and the
 * connection's thread pulls them and lets the API's format turn them into bytes.  A generation belongs to its
 * exchange until that is over; if its requests then still run, they are cancelled and the watcher pulls the
 * rest, so that every request's final report reaches the log. */
#ifndef GENERATION_H
#define GENERATION_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/request.h>

#include "exchange.h"
#include "service.h"
#include "strbuf.h"

struct generation;

/* How an API writes what happens.  Calls come one at a time. */
struct generation_format {
    /* An event of request `index`, but not its end.  A stream appends what is to be sent. */
    void (*event)(void *api, const struct generation *generation, uint32_t index,
                  const struct cinf_event *event, struct strbuf *out);
    /* All requests have ended with stop or length: the whole answer, or the end of the stream. */
    void (*end)(void *api, const struct generation *generation, struct strbuf *out);
    void (*free)(void *api);
};

/* Submits one request for each of the `n` options, whose notify fields it fills in, and answers `x` with what
 * comes of them, a refusal included.  Takes `api` over in every case. */
void generation_start(struct exchange *x, struct cinf_model *model, struct cinf_request_options *options,
                      uint32_t n, bool stream, const struct generation_format *format, void *api);

const struct cinf_request *generation_request(const struct generation *generation, uint32_t index);

/* Sums of tokens, device time and cost; the longest of waiting times and latencies. */
void generation_report(const struct generation *generation, struct cinf_report *total);

/* ---- Draining ----------------------------------------------------------------------------- */

void generations_init(struct generation_list *generations);
void generations_free(struct generation_list *generations);
void generations_close(struct generation_list *generations); /* no new ones */
void generations_end(struct generation_list *generations);   /* cancels all */
bool generations_closed(struct generation_list *generations);
uint32_t generations_count(struct generation_list *generations);

#endif
