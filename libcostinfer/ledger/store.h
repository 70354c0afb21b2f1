/* store.h - the file of a ledger: connections, the writer's lock, and SQLite's ways to fail.
 *
 * SQLite 3.40.1 of Debian 12 can lose a commit when one connection checkpoints while another commits.  So one
 * connection, used by one thread, does every write and every checkpoint; readers do neither, and an exclusive
 * lock on a file beside the database keeps a second writer out. */
#ifndef STORE_H
#define STORE_H

#include <costinfer/meter.h>

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "tables.h"
#include "u128.h"

/* ---- The writer's lock ---------------------------------------------------------------------- */

struct store_lock {
    int fd;     /* -1: none */
    char *path; /* of the database, without links */
};

/* Locks the ledger at `path`, creating an empty file if there is none.  CINF_EBUSY if another writer has it.
 */
enum cinf_status store_lock(struct store_lock *out, const char *path, bool create);
void store_unlock(struct store_lock *lock);

/* A sign of life in the lock file: how far a boot's time has come.  It survives the process, not a power
 * failure. */
void store_beat(const struct store_lock *lock, int64_t boot, uint64_t as_of_ns);
bool store_last_beat(const struct store_lock *lock, int64_t *boot, uint64_t *as_of_ns);

/* ---- Connections ---------------------------------------------------------------------------- */

/* The writer's.  The caller holds the lock.  Creates the tables or brings them to this version, in one
 * transaction. */
enum cinf_status store_open(sqlite3 **out, const char *path);

/* A reader's: it never writes, checkpoints or repairs. */
enum cinf_status store_open_reader(sqlite3 **out, const char *path);

/* Fails with SQLite's reason. */
enum cinf_status store_fail(sqlite3 *db, const char *doing);

/* Runs SQL that returns no rows. */
enum cinf_status store_run(sqlite3 *db, const char *sql);

/* Prepares; the caller finalizes. */
enum cinf_status store_prepare(sqlite3_stmt **out, sqlite3 *db, const char *sql);

/* Runs a prepared statement that returns no rows, and resets it. */
enum cinf_status store_step(sqlite3_stmt *statement);

/* One integer: the first column of the first row; 0 when it is NULL.  CINF_EIO if there is no row. */
enum cinf_status store_int(int64_t *out, sqlite3 *db, const char *sql);

/* The text of the first column; mem_free() frees it. */
enum cinf_status store_text(char **out, sqlite3 *db, const char *sql);

/* ---- Costs ---------------------------------------------------------------------------------- */

static inline u128 cost_u128(struct cinf_cost cost)
{
    return (u128)cost.hi << 64 | cost.lo;
}

static inline struct cinf_cost u128_cost(u128 units)
{
    return (struct cinf_cost){ .hi = (uint64_t)(units >> 64), .lo = (uint64_t)units };
}

/* Binds two columns. */
void store_bind_cost(sqlite3_stmt *statement, int at, u128 units);
u128 store_cost(sqlite3_stmt *statement, int at);

#endif
