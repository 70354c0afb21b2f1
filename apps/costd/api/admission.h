/* admission.h - who may ask for what: API keys, the two listeners, and names that we answer to. */
#ifndef ADMISSION_H
#define ADMISSION_H

#include <stdbool.h>

#include "exchange.h"

enum right {
    RIGHT_NONE,  /* everybody */
    RIGHT_USE,   /* with --keys: whoever has one; without: everybody */
    RIGHT_ADMIN, /* the private metrics listener, or an admin key */
};

/* False: `x` is answered with 401, 403 or 421.  Otherwise the key's name is in its struct access. */
bool admit(struct exchange *x, enum right right);

#endif
