/* routes.h - the table of routes: from a method and a path to the handler, to /openapi.json and to --help.
 *
 * The document and the manual are printed from this table, so a route that is missing in them cannot be
 * added; one that is not meant for the public says so, with the reason, in `audience`. */
#ifndef ROUTES_H
#define ROUTES_H

#include <stdbool.h>
#include <stddef.h>

#include "admission.h"
#include "exchange.h"
#include "schema.h"

struct route {
    const char *method; /* GET takes HEAD too; NULL: any */
    const char *path;   /* "{model}", at its end, takes the rest, decoded, as the handler's argument */
    void (*handle)(struct exchange *x, const char *argument);
    enum right right;
    unsigned listener; /* which has it, if there are two */
    bool quiet;        /* machines ask it every few seconds: logged only when it fails */
    enum {
        AUDIENCE_ALL,
        AUDIENCE_PAGE, /* a part of the built-in page, which comes with this very program */
        AUDIENCE_LOST, /* what other servers have there; answers what there is instead */
    } audience;
    const char *summary; /* for AUDIENCE_ALL: a sentence */
    enum body body;
    unsigned success; /* status */
};

extern const struct route routes[];
extern const size_t n_routes;

enum { ENDPOINT_NAME_BYTES = 64 };

/* The name that calls are counted by under this number; false: none. */
bool route_endpoint(unsigned number, char name[ENDPOINT_NAME_BYTES]);

/* Answers by the route that the method and the path name. */
void route(struct exchange *x);

#endif
