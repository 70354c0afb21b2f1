/* request.h - what the engine's other files need of a request beyond <costinfer/request.h>. */
#ifndef REQUEST_H
#define REQUEST_H

#include <costinfer/request.h>

/* Ends it before the next step, unless a reason was given before; the scheduler is not woken. */
void request_cancel(struct cinf_request *request, enum cinf_finish why);

/* The scheduler sleeps while every request is paused, so what lets one go on must wake it. */
void request_wake_scheduler(struct cinf_request *request);

void request_unref(struct cinf_request *request);

#endif
