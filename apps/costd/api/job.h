/* job.h - one generation: a connection on one side, one or more requests to the engine on the other.
 *
 * The engine announces events from its own thread; the job resumes its connection, and the connection's
 * thread pulls them and lets the API's format turn them into bytes.  A job belongs to its exchange until that
 * is over; if its requests then still run, they are cancelled and the watcher pulls the rest, so that every
 * request's final report reaches the log. */
#ifndef JOB_H
#define JOB_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/request.h>

#include "exchange.h"
#include "service.h"
#include "strbuf.h"

struct job;

/* How an API writes what happens.  Calls come one at a time. */
struct job_format {
    /* An event of request `index`, but not its end.  A stream appends what is to be sent. */
    void (*event)(void *api, const struct job *job, uint32_t index, const struct cinf_event *event,
                  struct strbuf *out);
    /* All requests have ended with stop or length: the whole answer, or the end of the stream. */
    void (*end)(void *api, const struct job *job, struct strbuf *out);
    void (*free)(void *api);
};

/* Submits one request for each of the `n` options, whose notify fields it fills in, and answers `x` with what
 * comes of them, a refusal included.  Takes `api` over in every case. */
void job_start(struct exchange *x, struct cinf_model *model, struct cinf_request_options *options, uint32_t n,
               bool stream, const struct job_format *format, void *api);

const struct cinf_request *job_request(const struct job *job, uint32_t index);

/* Sums of tokens, device time and cost; the longest of waiting times and latencies. */
void job_report(const struct job *job, struct cinf_report *total);

/* ---- Draining ----------------------------------------------------------------------------- */

enum cinf_status jobs_init(struct job_list *jobs, uint32_t n_keys);
void jobs_free(struct job_list *jobs);
void jobs_close(struct job_list *jobs); /* no new ones */
void jobs_end(struct job_list *jobs);   /* cancels all */
bool jobs_closed(struct job_list *jobs);
uint32_t jobs_count(struct job_list *jobs);

/* What each key has used, running requests included: uses[0 … n_keys], the first for those without one. */
void jobs_uses(struct job_list *jobs, struct key_use *uses);

#endif
