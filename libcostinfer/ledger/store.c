#define _DEFAULT_SOURCE /* flock() */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "fail.h"
#include "file.h"
#include "mem.h"
#include "strbuf.h"

enum { BUSY_MS = 5000 };

/* ---- The writer's lock ---------------------------------------------------------------------- */

enum cinf_status store_lock(struct store_lock *out, const char *path, bool create)
{
    /* Two ways to the same file must meet at the same lock. */
    int file = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (file < 0)
        return path_fail(path, errno);
    close(file);
    struct store_lock lock = { .fd = -1, .path = realpath(path, NULL) };
    if (!lock.path)
        return path_fail(path, errno);
    struct strbuf name = { 0 };
    strbuf_printf(&name, "%s.lock", lock.path);
    enum cinf_status status = CINF_OK;
    if (name.failed)
        status = cinf_fail(CINF_ENOMEM, "no memory for a ledger");
    else if ((lock.fd = open(name.text, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        status = path_fail(name.text, errno);
    else if (flock(lock.fd, LOCK_EX | LOCK_NB) != 0)
        status = errno == EWOULDBLOCK ? cinf_fail(CINF_EBUSY, "another process writes to the ledger %s", path)
                                      : path_fail(name.text, errno);
    strbuf_free(&name);
    if (status == CINF_OK)
        *out = lock;
    else
        store_unlock(&lock);
    return status;
}

void store_unlock(struct store_lock *lock)
{
    if (lock->fd >= 0)
        close(lock->fd);
    free(lock->path);
    *lock = (struct store_lock){ .fd = -1 };
}

void store_beat(const struct store_lock *lock, int64_t boot, uint64_t as_of_ns)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%020" PRId64 " %020" PRIu64 "\n", boot, as_of_ns);
    ssize_t ignored =
        pwrite(lock->fd, text, (size_t)n, 0); /* a lost sign only makes a crash's last time unknown */
    (void)ignored;
}

bool store_last_beat(const struct store_lock *lock, int64_t *boot, uint64_t *as_of_ns)
{
    char text[64] = "";
    ssize_t n = pread(lock->fd, text, sizeof text - 1, 0);
    return n == 42 && sscanf(text, "%" SCNd64 " %" SCNu64, boot, as_of_ns) == 2;
}

/* ---- Statements ------------------------------------------------------------------------------ */

enum cinf_status store_fail(sqlite3 *db, const char *doing)
{
    int code = sqlite3_extended_errcode(db);
    enum cinf_status status = CINF_EIO;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        status = CINF_ENOMEM;
        break;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        status = CINF_EFORMAT;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        status = CINF_EBUSY;
        break;
    case SQLITE_FULL:
        status = CINF_EFULL;
        break;
    default:
        break;
    }
    return cinf_fail(status, "%s: %s (SQLite code %d)", doing, sqlite3_errmsg(db), code);
}

enum cinf_status store_run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? CINF_OK : store_fail(db, "the ledger");
}

enum cinf_status store_prepare(sqlite3_stmt **out, sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK)
        return store_fail(db, "the ledger");
    *out = statement;
    return CINF_OK;
}

enum cinf_status store_step(sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    enum cinf_status status = code == SQLITE_DONE || code == SQLITE_ROW
                                  ? CINF_OK
                                  : store_fail(sqlite3_db_handle(statement), "the ledger");
    sqlite3_reset(statement);
    return status;
}

enum cinf_status store_int(int64_t *out, sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    TRY(store_prepare(&statement, db, sql));
    int code = sqlite3_step(statement);
    enum cinf_status status = code == SQLITE_ROW ? CINF_OK : store_fail(db, "the ledger");
    if (status == CINF_OK)
        *out = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return status;
}

enum cinf_status store_text(char **out, sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    TRY(store_prepare(&statement, db, sql));
    int code = sqlite3_step(statement);
    enum cinf_status status = code == SQLITE_ROW ? CINF_OK : store_fail(db, "the ledger");
    if (status == CINF_OK) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        if (!(*out = mem_copy_text(text ? text : "")))
            status = cinf_fail(CINF_ENOMEM, "no memory for a ledger's text");
    }
    sqlite3_finalize(statement);
    return status;
}

/* ---- Connections ---------------------------------------------------------------------------- */

static enum cinf_status check_version(int64_t *version, sqlite3 *db, const char *path)
{
    int64_t application = 0, tables = 0;
    TRY(store_int(&application, db, "PRAGMA application_id"));
    TRY(store_int(version, db, "PRAGMA user_version"));
    TRY(store_int(&tables, db, "SELECT count(*) FROM sqlite_schema"));
    if (application != SCHEMA_APPLICATION && (tables > 0 || application != 0))
        return cinf_fail(CINF_EFORMAT, "%s is a database, but not a ledger", path);
    if (*version > SCHEMA_VERSION)
        return cinf_fail(CINF_EUNSUPPORTED,
                         "%s is a ledger of version %" PRId64 "; this library knows versions up to %d", path,
                         *version, SCHEMA_VERSION);
    return CINF_OK;
}

static enum cinf_status migrate(sqlite3 *db, int64_t version)
{
    char sql[128];
    for (int64_t v = version; v < SCHEMA_VERSION; v++)
        TRY(store_run(db, schema_steps[v]));
    if (version == 0)
        TRY(store_run(db,
                      "INSERT INTO ledger VALUES(CAST(strftime('%s', 'now') AS INTEGER) * 1000000000, 0)"));
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d", SCHEMA_APPLICATION,
             SCHEMA_VERSION);
    return store_run(db, sql);
}

static enum cinf_status set_up(sqlite3 *db, const char *path)
{
    int64_t version;
    char *mode = NULL;
    TRY(check_version(&version, db, path)); /* before anything is written */
    if (version == 0)
        TRY(store_run(db, "PRAGMA auto_vacuum = INCREMENTAL"));
    TRY(store_text(&mode, db, "PRAGMA journal_mode = WAL"));
    bool wal = strcmp(mode, "wal") == 0;
    mem_free(mode);
    if (!wal)
        return cinf_fail(CINF_EIO, "%s cannot have a write-ahead log; is it on a local disk?", path);
    TRY(store_run(db, "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;"
                      "PRAGMA journal_size_limit = 4194304; PRAGMA foreign_keys = OFF"));
    if (version == SCHEMA_VERSION)
        return CINF_OK;
    TRY(store_run(db, "BEGIN IMMEDIATE"));
    enum cinf_status status = migrate(db, version);
    if (status == CINF_OK)
        status = store_run(db, "COMMIT");
    if (status != CINF_OK && !sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

static enum cinf_status open_connection(sqlite3 **out, const char *path, int flags)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, NULL) !=
        SQLITE_OK) {
        enum cinf_status status =
            db ? store_fail(db, path) : cinf_fail(CINF_ENOMEM, "no memory for a ledger");
        sqlite3_close(db);
        return status;
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, BUSY_MS);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    *out = db;
    return CINF_OK;
}

enum cinf_status store_open(sqlite3 **out, const char *path)
{
    sqlite3 *db;
    TRY(open_connection(&db, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
    /* A file that is refused stays as it is, its log included. */
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    enum cinf_status status = set_up(db, path);
    if (status != CINF_OK) {
        sqlite3_close(db);
        return status;
    }
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    *out = db;
    return CINF_OK;
}

enum cinf_status store_open_reader(sqlite3 **out, const char *path)
{
    sqlite3 *db;
    int64_t version;
    if (!path_exists(path))
        return path_fail(path, ENOENT);
    if (path_is_folder(path))
        return cinf_fail(CINF_EINVAL, "%s is a folder", path);
    TRY(open_connection(&db, path, SQLITE_OPEN_READONLY));
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    enum cinf_status status = store_run(db, "PRAGMA wal_autocheckpoint = 0; PRAGMA query_only = 1");
    if (status == CINF_OK)
        status = check_version(&version, db, path);
    if (status == CINF_OK && version == 0)
        status = cinf_fail(CINF_EFORMAT, "%s is not a ledger", path);
    if (status != CINF_OK) {
        sqlite3_close(db);
        return status;
    }
    *out = db;
    return CINF_OK;
}

/* ---- Costs ---------------------------------------------------------------------------------- */

void store_bind_cost(sqlite3_stmt *statement, int at, u128 units)
{
    sqlite3_bind_int64(statement, at, (int64_t)(units / COST_BASE));
    sqlite3_bind_int64(statement, at + 1, (int64_t)(units % COST_BASE));
}

u128 store_cost(sqlite3_stmt *statement, int at)
{
    return (u128)(uint64_t)sqlite3_column_int64(statement, at) * COST_BASE +
           (uint64_t)sqlite3_column_int64(statement, at + 1);
}
