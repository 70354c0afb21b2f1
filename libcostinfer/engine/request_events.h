/* request_events.h - the scheduler's side of a request's queue of events. */
#ifndef REQUEST_EVENTS_H
#define REQUEST_EVENTS_H

#include <stdbool.h>

#include <costinfer/request.h>

/* True if the request is to enter no step now: its caller has paused it, or too many of its events are
 * unread. */
bool request_is_paused(struct cinf_request *request);

/* Whether it has given its slots up. */
void request_set_parked(struct cinf_request *request, bool parked);

/* Queues events for what has become certain since the last call. */
void request_publish(struct cinf_request *request);

/* Closes the bill, queues the last events and drops the scheduler's reference. */
void request_end(struct cinf_request *request, enum cinf_finish finish);

#endif
