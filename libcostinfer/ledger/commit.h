/* commit.h - one transaction: what a boot's meter did since the last one. */
#ifndef COMMIT_H
#define COMMIT_H

#include "store.h"
#include "tally.h"

#include "meter_state.h"
#include "observer.h"

/* A request that has ended. */
struct record {
    uint64_t number, ended_ns, age_ns; /* since 1970; from its submission to its end */
    const struct tally_account *account;
    const char *endpoint;
    const char *finish;
    struct bill_counters counters;
    uint64_t period; /* of the price in force when it ended */
    struct note *note;
};

/* What is the same for all commits of a boot. */
struct boot {
    int64_t id;
    const char *instance, *device, *basis;
    uint64_t started_ns;      /* since 1970 */
    struct tally_state begin; /* where its books begin */
    uint64_t commits;         /* that succeeded */
    /* Of committed records: */
    uint64_t recorded, recorded_ns;
    u128 recorded_cost;
};

/* What one transaction writes. */
struct batch {
    struct record *records;
    size_t n_records, cap;
    struct tally_minutes minutes;
    struct tally_price *prices; /* all of the boot */
    size_t n_prices;
    struct tally_state state;
    bool end; /* the boot ends cleanly */
};

struct committer {
    sqlite3 *db;
    sqlite3_stmt *statements[16];
};

/* Closes the boots of processes that ended without doing so, and returns a number for a new one. */
enum cinf_status commit_recover(sqlite3 *db, const struct store_lock *lock, int64_t *next_boot);

enum cinf_status committer_open(struct committer *c, const char *path);

/* Closes the connection.  After a failure the log stays as it is, for the next connection to read. */
void committer_close(struct committer *c, bool failed);

/* Writes a batch once, however often it is called with it.  CINF_ENOTFOUND if the file lacks the boot's
 * earlier commits: it is another file. */
enum cinf_status commit_batch(struct committer *c, struct boot *boot, const struct batch *batch);

#endif
