/* server_impl.h - what server.c and exchange.c share: the server behind an exchange, and what libmicrohttpd
 * calls for each request. */
#ifndef SERVER_IMPL_H
#define SERVER_IMPL_H

#include <microhttpd.h>

#include "connection.h"
#include "listener.h"
#include "server.h"

struct server {
    struct MHD_Daemon *daemon;
    struct server_options options;
    struct listener listener;
    struct connection_rules rules;
    struct strbuf late; /* rules.late_body */
    /* libmicrohttpd's messages in the second of the monotonic clock that is named. */
    _Atomic uint64_t n_messages, messages_second;
};

/* NULL if there was no memory for it. */
struct connection *connection_of(struct MHD_Connection *connection);

/* MHD_AccessHandlerCallback, for a struct server. */
enum MHD_Result exchange_receive(void *server, struct MHD_Connection *connection, const char *path,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_bytes, void **exchange);

/* Answers in place of libmicrohttpd, which refuses a request with this status and must then close the
 * connection. False: nothing was sent. */
bool exchange_refuse(struct MHD_Connection *connection, unsigned status);

/* libmicrohttpd's own MHD_queue_response(): refusals.c stands before it. */
enum MHD_Result refusals_queue(struct MHD_Connection *connection, unsigned status,
                               struct MHD_Response *response);

/* MHD_RequestCompletedCallback. */
void exchange_complete(void *unused, struct MHD_Connection *connection, void **exchange,
                       enum MHD_RequestTerminationCode code);

#endif
