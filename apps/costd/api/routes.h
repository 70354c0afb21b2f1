/* routes.h - from a method and a path to the handler. */
#ifndef ROUTES_H
#define ROUTES_H

#include "exchange.h"

void route(struct exchange *x);

#endif
