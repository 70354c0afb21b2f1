/* _GNU_SOURCE declares RTLD_NEXT.
 *
 * libmicrohttpd answers by itself what it cannot parse or has no room for, with a page of HTML, and has no
 * option to change that.  It calls its own MHD_queue_response() through the dynamic linker, so the function
 * of that name here takes the call, has the application answer on the socket, and fails, whereupon the
 * library closes the connection.  (Where it goes on instead, after a malformed Content-Length or Cookie, it
 * would send the head of its answer twice.)  A library that is linked otherwise sends its own pages. */
#define _GNU_SOURCE

#include "server_impl.h"

#include <dlfcn.h>

typedef enum MHD_Result queue_function(struct MHD_Connection *connection, unsigned int status,
                                       struct MHD_Response *response);

enum MHD_Result refusals_queue(struct MHD_Connection *connection, unsigned status,
                               struct MHD_Response *response)
{
    static _Atomic(queue_function *) found;
    queue_function *queue = found;
    if (!queue) {
        /* A function's address as POSIX hands it over: in an object pointer. */
        *(void **)&queue = dlsym(RTLD_NEXT, "MHD_queue_response");
        found = queue;
    }
    return queue ? queue(connection, status, response) : MHD_NO;
}

__attribute__((visibility("default"))) enum MHD_Result
MHD_queue_response(struct MHD_Connection *connection, unsigned int status, struct MHD_Response *response)
{
    return exchange_refuse(connection, status) ? MHD_NO : refusals_queue(connection, status, response);
}
