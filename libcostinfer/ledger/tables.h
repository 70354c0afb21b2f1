/* tables.h - the tables of a ledger.
 *
 * Only facts, and only integers beside names.  A name stands once, in `names`; 0 stands for none.  A cost is
 * two integers, cost_hi * 10^12 + cost_lo, because SQLite has no integer of 128 bits and sum() refuses to
 * overflow one of
 * 64.  The hours repeat what the rows say, so that rows can be pruned and months be summed. */
#ifndef TABLES_H
#define TABLES_H

#include <stdint.h>

enum { SCHEMA_VERSION = 1, SCHEMA_APPLICATION = 0x43494e46 /* "CINF" */ };

#define MINUTE_NS UINT64_C(60000000000)
#define HOUR_NS   UINT64_C(3600000000000)
#define COST_BASE UINT64_C(1000000000000) /* of cost_hi */

/* Accounts of a device, as numbers of the column `kind`. */
enum kind {
    KIND_SERVE,
    KIND_LOAD,
    KIND_IDLE,
    KIND_LOST,
    KIND_OVERHEAD,
    KIND_UNATTRIBUTED,
    KINDS,
};

/* The column `ended` of a boot. */
enum boot_end { BOOT_RUNNING, BOOT_CLEAN, BOOT_CRASHED };

#define SCHEMA_TOKENS                                                                                        \
    "requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, "             \
    "output_tokens INTEGER NOT NULL, "
#define SCHEMA_TIMES                                                                                         \
    "queue_ns INTEGER NOT NULL, latency_ns INTEGER NOT NULL, prefill_ns INTEGER NOT NULL, "                  \
    "decode_ns INTEGER NOT NULL, lost_ns INTEGER NOT NULL, unpriced_ns INTEGER NOT NULL, "                   \
    "cost_hi INTEGER NOT NULL, cost_lo INTEGER NOT NULL, "

/* SQL from version i to version i + 1. */
static const char *const schema_steps[SCHEMA_VERSION] = {
    "CREATE TABLE ledger(created_ns INTEGER NOT NULL, rows_from_ns INTEGER NOT NULL) STRICT;"
    "CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;"
    "CREATE TABLE boots(id INTEGER PRIMARY KEY, instance INTEGER NOT NULL, device INTEGER NOT NULL,"
    "  basis TEXT NOT NULL, version TEXT NOT NULL,"
    "  started_ns INTEGER NOT NULL, committed_ns INTEGER NOT NULL,"  /* since 1970 */
    "  opened_ns INTEGER NOT NULL, as_of_ns INTEGER NOT NULL,"       /* of the meter's time */
    "  first_number INTEGER NOT NULL, last_number INTEGER NOT NULL," /* of its requests, (first, last] */
    "  commits INTEGER NOT NULL, ended INTEGER NOT NULL,"
    "  carried_ns INTEGER NOT NULL, carried_cost_hi INTEGER NOT NULL, carried_cost_lo INTEGER NOT NULL,"
    "  running_ns INTEGER NOT NULL, running_cost_hi INTEGER NOT NULL, running_cost_lo INTEGER NOT NULL,"
    "  interrupted_ns INTEGER NOT NULL,"
    "  unrecorded INTEGER NOT NULL, unrecorded_ns INTEGER NOT NULL,"
    "  unrecorded_cost_hi INTEGER NOT NULL, unrecorded_cost_lo INTEGER NOT NULL) STRICT;"
    "CREATE TABLE prices(id INTEGER PRIMARY KEY, boot INTEGER NOT NULL, period INTEGER NOT NULL,"
    "  from_ns INTEGER NOT NULL, nanodollars_per_hour INTEGER, UNIQUE(boot, period)) STRICT;"
    "CREATE TABLE requests(boot INTEGER NOT NULL, number INTEGER NOT NULL, id TEXT, model INTEGER NOT NULL,"
    "  payer INTEGER NOT NULL, endpoint INTEGER NOT NULL, user TEXT, tags TEXT, finish INTEGER NOT NULL,"
    "  created_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL, " SCHEMA_TOKENS
    "  drafted_tokens INTEGER NOT NULL, accepted_tokens INTEGER NOT NULL, first_token_ns INTEGER NOT "
    "NULL, " SCHEMA_TIMES "price INTEGER NOT NULL, PRIMARY KEY(boot, number)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX requests_by_end ON requests(ended_ns);"
    "CREATE TABLE device_minutes(boot INTEGER NOT NULL, minute_ns INTEGER NOT NULL, kind INTEGER NOT NULL,"
    "  model INTEGER NOT NULL, payer INTEGER NOT NULL, price INTEGER NOT NULL, ns INTEGER NOT NULL,"
    "  PRIMARY KEY(minute_ns, boot, kind, model, payer, price)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE request_hours(boot INTEGER NOT NULL, hour_ns INTEGER NOT NULL, model INTEGER NOT NULL,"
    "  payer INTEGER NOT NULL, endpoint INTEGER NOT NULL, finish INTEGER NOT NULL, " SCHEMA_TOKENS
        SCHEMA_TIMES "  PRIMARY KEY(hour_ns, boot, model, payer, endpoint, finish)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE device_hours(boot INTEGER NOT NULL, hour_ns INTEGER NOT NULL, kind INTEGER NOT NULL,"
    "  model INTEGER NOT NULL, payer INTEGER NOT NULL, price INTEGER NOT NULL, ns INTEGER NOT NULL,"
    "  PRIMARY KEY(hour_ns, boot, kind, model, payer, price)) STRICT, WITHOUT ROWID;",
};

#endif
