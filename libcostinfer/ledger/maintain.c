/* maintain.c - what a file holds, copies of it, and making it smaller. */
#include <costinfer/ledger.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "file.h"
#include "mem.h"
#include "store.h"
#include "strbuf.h"

static enum cinf_status read_info(struct cinf_ledger_info *info, sqlite3 *db)
{
    static const struct {
        size_t at;
        const char *sql;
    } fields[] = {
#define FIELD(name) offsetof(struct cinf_ledger_info, name)
        { FIELD(boots), "SELECT count(*) FROM boots" },
        { FIELD(crashed), "SELECT count(*) FROM boots WHERE ended = 2" },
        { FIELD(requests), "SELECT sum(requests) FROM request_hours" },
        { FIELD(request_rows), "SELECT count(*) FROM requests" },
        { FIELD(unrecorded), "SELECT sum(unrecorded) FROM boots" },
        { FIELD(device_ns), "SELECT sum(ns) FROM device_hours" },
        { FIELD(serve_ns), "SELECT sum(ns) FROM device_hours WHERE kind = 0" },
        { FIELD(interrupted_ns), "SELECT sum(interrupted_ns) FROM boots" },
        { FIELD(unattributed_ns), "SELECT sum(ns) FROM device_hours WHERE kind = 5" },
        { FIELD(first_ns), "SELECT min(started_ns) FROM boots" },
        { FIELD(last_ns), "SELECT max(committed_ns) FROM boots" },
        { FIELD(rows_from_ns), "SELECT rows_from_ns FROM ledger" },
#undef FIELD
    };
    int64_t value;
    TRY(store_int(&value, db, "PRAGMA user_version"));
    info->version = (uint32_t)value;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        TRY(store_int(&value, db, fields[i].sql));
        memcpy((char *)info + fields[i].at, &value, sizeof value);
    }
    return CINF_OK;
}

enum cinf_status cinf_ledger_info(struct cinf_ledger_info *out, const char *path)
{
    struct cinf_ledger_info info = { .struct_size = out->struct_size };
    struct stat file;
    sqlite3 *db;
    TRY(store_open_reader(&db, path));
    enum cinf_status status = store_run(db, "BEGIN");
    if (status == CINF_OK)
        status = read_info(&info, db);
    sqlite3_close(db);
    if (status != CINF_OK)
        return cinf_fail_in(status, "%s: ", path);
    info.file_bytes = stat(path, &file) == 0 ? (uint64_t)file.st_size : 0;
    snprintf(info.sqlite_version, sizeof info.sqlite_version, "%s", sqlite3_libversion());
    memcpy(out, &info, out->struct_size < sizeof info ? out->struct_size : sizeof info);
    return CINF_OK;
}

/* ---- Backup ---------------------------------------------------------------------------------- */

static enum cinf_status sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0)
        close(fd);
    return synced ? CINF_OK : path_fail(path, error);
}

static enum cinf_status copy_to(sqlite3 *db, const char *to)
{
    sqlite3_stmt *s = NULL;
    TRY(store_prepare(&s, db, "VACUUM INTO ?"));
    sqlite3_bind_text(s, 1, to, -1, SQLITE_STATIC);
    enum cinf_status status = store_step(s);
    sqlite3_finalize(s);
    return status;
}

enum cinf_status cinf_ledger_backup(const char *path, const char *to)
{
    if (path_exists(to))
        return cinf_fail(CINF_EEXIST, "%s exists already", to);
    struct strbuf part = { 0 };
    strbuf_printf(&part, "%s.part", to);
    if (part.failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a backup");
    sqlite3 *db;
    enum cinf_status status = store_open_reader(&db, path);
    if (status == CINF_OK) {
        (void)unlink(part.text); /* of a backup that was interrupted */
        /* The names in it are its owner's business.  SQLite fills an empty file. */
        int fd = open(part.text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        status =
            fd < 0 || close(fd) != 0 ? path_fail(part.text, errno) : store_run(db, "PRAGMA query_only = 0");
        if (status == CINF_OK)
            status = copy_to(db, part.text);
        sqlite3_close(db);
        if (status == CINF_OK)
            status = sync_file(part.text);
        /* link() refuses a target that has appeared since. */
        if (status == CINF_OK && link(part.text, to) != 0)
            status = path_fail(to, errno);
        (void)unlink(part.text);
    }
    strbuf_free(&part);
    return status;
}

/* ---- Pruning --------------------------------------------------------------------------------- */

static enum cinf_status prune_rows(uint64_t *rows, sqlite3 *db, int64_t hour)
{
    char sql[256];
    int64_t from;
    TRY(store_int(&from, db, "SELECT rows_from_ns FROM ledger"));
    if (hour < from)
        hour = from;
    snprintf(sql, sizeof sql, "DELETE FROM requests WHERE ended_ns < %" PRId64, hour);
    TRY(store_run(db, sql));
    *rows = (uint64_t)sqlite3_changes64(db);
    snprintf(sql, sizeof sql, "DELETE FROM device_minutes WHERE minute_ns < %" PRId64, hour);
    TRY(store_run(db, sql));
    *rows += (uint64_t)sqlite3_changes64(db);
    snprintf(sql, sizeof sql, "UPDATE ledger SET rows_from_ns = %" PRId64, hour);
    return store_run(db, sql);
}

enum cinf_status cinf_ledger_prune(uint64_t *rows, const char *path, uint64_t before_ns)
{
    struct store_lock lock;
    sqlite3 *db;
    uint64_t deleted = 0;
    TRY(store_open_reader(&db, path)); /* a file that is not a ledger is not locked either */
    sqlite3_close(db);
    TRY(store_lock(&lock, path, false));
    enum cinf_status status = store_open(&db, lock.path);
    if (status == CINF_OK) {
        status = store_run(db, "BEGIN IMMEDIATE");
        if (status == CINF_OK)
            status = prune_rows(&deleted, db, (int64_t)(before_ns / HOUR_NS * HOUR_NS));
        if (status == CINF_OK)
            status = store_run(db, "COMMIT");
        if (!sqlite3_get_autocommit(db))
            sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        if (status == CINF_OK)
            status = store_run(db, "PRAGMA incremental_vacuum");
        sqlite3_close(db);
    }
    store_unlock(&lock);
    if (status == CINF_OK)
        *rows = deleted;
    return status;
}
