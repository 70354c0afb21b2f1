/* admission.h - which client may ask for what: API keys, the two listeners, accepted host names, and web
 * pages. */
#ifndef ADMISSION_H
#define ADMISSION_H

#include <stdbool.h>

#include "exchange.h"

enum right {
    RIGHT_NONE,        /* any client */
    RIGHT_USE,         /* with --keys: clients that have a key; otherwise any client */
    RIGHT_ALL_FIGURES, /* with --keys: as RIGHT_ADMIN, for what others have asked and paid; otherwise any
                          client */
    RIGHT_ADMIN,       /* the private metrics listener, or an admin key */
};

/* False: `x` is answered with 401, 403 or 421.  Otherwise the key's name is in its struct access. */
bool admit(struct exchange *x, enum right right);

/* Whether an admitted client has RIGHT_ALL_FIGURES; one that has not sees those of its own key. */
bool sees_all_figures(struct exchange *x);

#endif
