/* access_log.h - the log's line for one call, as HTTP has them, and the counters of calls.
 *
 * A call of an endpoint that generates is one or more requests to the engine, one for each of its prompts.
 * The meter counts requests. */
#ifndef ACCESS_LOG_H
#define ACCESS_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/meter.h>

#include "exchange.h"

enum { IGNORED_BYTES = 256, ENDPOINTS_MAX = 64, OTHER_ENDPOINT = 0 };

/* Classes of statuses; a client that left before its answer is logged as 499 and counted so. */
enum { CALLS_2XX, CALLS_4XX, CALLS_5XX, CALL_CLASSES };

/* What the log says about a request, apart from its generation.  It lies in the exchange's user memory. */
struct access {
    char id[REQUEST_ID_BYTES]; /* our own; never used twice */
    char method[16];
    char path[192];    /* cut at that length; the log escapes it */
    unsigned endpoint; /* what it is counted as, below ENDPOINTS_MAX */
    bool counted;
    char model[257];
    uint32_t key; /* number of the API key, 0: none */
    char key_name[65];
    /* Names of fields that were ignored, for the answer's header and for the log; "": none. */
    char ignored[IGNORED_BYTES], ignored_log[IGNORED_BYTES];
    char request_id[129]; /* x-request-id of the client; "": none */
    char traceparent[129];
    unsigned status;  /* 0: nothing was sent */
    const char *code; /* of the error object, or NULL */
    bool quiet;       /* not logged when it went well */
    uint64_t received_ns;
};

static inline struct access *access_of(struct exchange *x)
{
    return exchange_user(x);
}

/* The code of the 408 that http/ sends by itself. */
#define CODE_LATE "request_timeout"

/* Fills in what is known of a request when its head has come, and when it has ended. */
void access_begin(struct exchange *x);
void access_answered(struct exchange *x); /* counts it, so that its client finds it in the counters */
const struct access *access_end(struct exchange *x);

/* What a request generated, summed over its prompts. */
struct outcome {
    const char *endpoint;
    uint32_t n_requests; /* to the engine: one for each prompt */
    uint32_t n_choices;  /* of all prompts together */
    bool stream;
    struct cinf_report report;
};

/* `outcome` is NULL for requests that generate nothing. */
void access_log(const struct access *access, const struct outcome *outcome);

/* The line of a request that has ended and generated nothing. */
void access_log_ended(struct exchange *x);

/* Calls so far of an endpoint. */
uint64_t access_calls(unsigned endpoint, unsigned class);

#endif
