/* tally.h - from snapshots of a meter to device minutes.
 *
 * A tally remembers the last snapshot's sums.  The next snapshot's differences are the time since then, by
 * account, model, payer and price; they are added to the minutes in which they passed.  A difference over
 * several minutes, when the ledger's thread was held up, is spread over them in proportion; its sum is exact
 * in any case.
 *
 * Within one difference a meter's price must be one price.  So a snapshot is taken at every change of price
 * too, and a snapshot that shows a change which was not taken yet is early: it is left out. */
#ifndef TALLY_H
#define TALLY_H

#include <costinfer/meter.h>

#include <stddef.h>

#include "tables.h"

/* A model, or a payer with a model (payer: not NULL). */
struct tally_account {
    struct tally_account *next; /* of the same hash */
    const char *model, *payer;
    uint64_t serve_ns, load_ns; /* as in the last snapshot */
    uint64_t seen;              /* number of the last snapshot that had it */
};

struct tally_price {
    uint64_t period;
    uint64_t from_ns; /* since 1970 */
    bool priced;
    uint64_t nanodollars_per_hour;
};

struct tally_minute {
    uint64_t minute_ns;
    enum kind kind;
    const struct tally_account *account; /* NULL: the device's alone */
    uint64_t period;                     /* of its price */
    uint64_t ns;
};

struct tally_minutes {
    struct tally_minute *items;
    size_t n, cap;
};

/* What a snapshot says of the meter as a whole. */
struct tally_state {
    uint64_t as_of_ns;
    uint64_t wall_ns; /* since 1970 */
    uint64_t ended, ended_ns;
    struct cinf_cost ended_cost;
    uint64_t running_ns; /* serve of requests that have not ended */
    struct cinf_cost running_cost;
};

enum { TALLY_HASHES = 1024 };

struct tally {
    struct tally_account *accounts[TALLY_HASHES];
    struct tally_state state;
    uint64_t period;                        /* number of the price in force, counted from the meter's first */
    uint64_t idle_ns, lost_ns, overhead_ns; /* within that period */
    uint64_t snapshots;
    struct tally_price *prices;
    size_t n_prices, prices_cap;
    struct tally_minutes minutes; /* that were not taken yet */
};

/* Begins at a snapshot; or, if no request has ended in it, at the meter's opening. */
enum cinf_status tally_begin(struct tally *tally, const struct cinf_snapshot *snapshot, uint64_t wall_ns);

/* Adds the differences to a snapshot.  `change` says that it was taken at a change of price.  CINF_EAGAIN if
 * it is early; without memory nothing is changed, and the next snapshot has all. */
enum cinf_status tally_add(struct tally *tally, const struct cinf_snapshot *snapshot, uint64_t wall_ns,
                           bool change);

/* The account of a payer with a model; NULL without memory. */
struct tally_account *tally_account(struct tally *tally, const char *model, const char *payer);

void tally_free(struct tally *tally);

#endif
