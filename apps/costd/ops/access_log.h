/* access_log.h - the log's line for one request. */
#ifndef ACCESS_LOG_H
#define ACCESS_LOG_H

#include <stdbool.h>

#include <costinfer/meter.h>

#include "server.h"

/* What a request generated, summed over its prompts. */
struct generation {
    const char *endpoint;
    bool stream;
    struct cinf_report report;
};

/* `generation` is NULL for requests that generate nothing. */
void access_log(const struct access *access, const struct generation *generation);

#endif
