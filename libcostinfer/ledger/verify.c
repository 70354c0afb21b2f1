/* verify.c - proves that a ledger adds up.
 *
 * Two kinds of rows are written from two sources: device minutes from snapshots of the meter, requests from
 * their bills.  Each check compares sums of one with sums of the other, or rows with the hours that repeat
 * them, within one read transaction. */
#include <costinfer/ledger.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "store.h"

struct verifier {
    sqlite3 *db;
    uint64_t faults;
    cinf_ledger_fault_fn *on_fault;
    void *context;
};

static void fault(struct verifier *v, const char *format, ...) CINF_PRINTF(2, 3);
static void fault(struct verifier *v, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    v->faults++;
    if (v->on_fault)
        v->on_fault(v->context, text);
}

/* Every row that a query returns is a fault, named by its first column. */
static enum cinf_status check_none(struct verifier *v, const char *what, const char *sql)
{
    sqlite3_stmt *s = NULL;
    TRY(store_prepare(&s, v->db, sql));
    int code;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        fault(v, "%s: %s", what, (const char *)sqlite3_column_text(s, 0));
    enum cinf_status status = code == SQLITE_DONE ? CINF_OK : store_fail(v->db, what);
    sqlite3_finalize(s);
    return status;
}

static enum cinf_status check_file(struct verifier *v)
{
    return check_none(v, "SQLite",
                      "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'");
}

/* ---- Rows and hours -------------------------------------------------------------------------- */

#define HOUR(column) "(" column ") / 3600000000000 * 3600000000000"
#define KEPT         " >= (SELECT rows_from_ns FROM ledger)"

#define MINUTES                                                                                              \
    "SELECT boot, " HOUR("minute_ns") " AS h, kind, model, payer, price, sum(ns) FROM device_minutes"        \
                                      " GROUP BY boot, h, kind, model, payer, price"
#define HOURS "SELECT boot, hour_ns AS h, kind, model, payer, price, ns FROM device_hours WHERE hour_ns" KEPT

#define ROWS                                                                                                 \
    "SELECT boot, " HOUR("ended_ns") " AS h, model, payer, endpoint, finish, count(*), sum(input_tokens),"   \
                                     " sum(cached_tokens), sum(output_tokens), sum(queue_ns), "              \
                                     "sum(latency_ns), sum(prefill_ns),"                                     \
                                     " sum(decode_ns), sum(lost_ns), sum(unpriced_ns), sum(cost_hi) + "      \
                                     "sum(cost_lo) / 1000000000000,"                                         \
                                     " sum(cost_lo) % 1000000000000 FROM requests GROUP BY boot, h, model, " \
                                     "payer, endpoint, finish"
#define ROW_HOURS                                                                                            \
    "SELECT boot, hour_ns AS h, model, payer, endpoint, finish, requests, input_tokens, cached_tokens,"      \
    " output_tokens, queue_ns, latency_ns, prefill_ns, decode_ns, lost_ns, unpriced_ns, cost_hi, cost_lo"    \
    " FROM request_hours WHERE hour_ns" KEPT

#define WHERE_ROW "'boot ' || boot || ', hour ' || strftime('%Y-%m-%dT%H:00Z', h / 1000000000, 'unixepoch')"

static enum cinf_status check_hours(struct verifier *v)
{
    TRY(check_none(v, "the device minutes of an hour are not its sum",
                   "SELECT " WHERE_ROW " FROM (" MINUTES " EXCEPT " HOURS ")"));
    TRY(check_none(v, "an hour of the device is not the sum of its minutes",
                   "SELECT " WHERE_ROW " FROM (" HOURS " EXCEPT " MINUTES ")"));
    TRY(check_none(v, "the requests of an hour are not its sum",
                   "SELECT " WHERE_ROW " FROM (" ROWS " EXCEPT " ROW_HOURS ")"));
    return check_none(v, "an hour of requests is not the sum of its rows",
                      "SELECT " WHERE_ROW " FROM (" ROW_HOURS " EXCEPT " ROWS ")");
}

static enum cinf_status check_references(struct verifier *v)
{
    TRY(check_none(v, "a row has a price of another boot",
                   "SELECT 'boot ' || boot FROM device_hours d WHERE NOT EXISTS"
                   " (SELECT 1 FROM prices p WHERE p.id = d.price AND p.boot = d.boot)"
                   " UNION SELECT 'boot ' || boot FROM requests r WHERE NOT EXISTS"
                   " (SELECT 1 FROM prices p WHERE p.id = r.price AND p.boot = r.boot)"));
    TRY(check_none(
        v, "a row has a name that is unknown",
        "SELECT 'number ' || id FROM (SELECT model AS id FROM device_hours UNION SELECT payer FROM"
        " device_hours UNION SELECT model FROM request_hours UNION SELECT payer FROM request_hours UNION"
        " SELECT endpoint FROM request_hours UNION SELECT finish FROM request_hours UNION SELECT device FROM"
        " boots UNION SELECT instance FROM boots) WHERE id <> 0 AND id NOT IN (SELECT id FROM names)"));
    TRY(check_none(v, "a row belongs to no boot",
                   "SELECT 'boot ' || boot FROM (SELECT boot FROM device_hours UNION SELECT boot FROM "
                   "request_hours UNION"
                   " SELECT boot FROM prices) WHERE boot NOT IN (SELECT id FROM boots)"));
    TRY(check_none(
        v, "a request's number is outside its boot",
        "SELECT 'boot ' || r.boot || ', request ' || number FROM requests r JOIN boots b ON b.id = r.boot"
        " WHERE number <= first_number OR number > last_number"));
    TRY(check_none(
        v, "a time is below 0",
        "SELECT 'boot ' || boot FROM device_hours WHERE ns < 0 UNION SELECT 'boot ' || boot FROM requests"
        " WHERE min(queue_ns, latency_ns, prefill_ns, decode_ns, lost_ns, unpriced_ns) < 0"
        " OR unpriced_ns > prefill_ns + decode_ns"));
    return check_none(
        v, "more than the last boot is running",
        "SELECT 'boot ' || id FROM boots WHERE ended = 0 AND id <> (SELECT max(id) FROM boots)");
}

/* ---- Boots ---------------------------------------------------------------------------------- */

static void check_equal(struct verifier *v, int64_t boot, const char *what, int64_t is, int64_t should)
{
    if (is != should)
        fault(v, "boot %" PRId64 ": %s: %" PRId64 " instead of %" PRId64 ", a difference of %" PRId64, boot,
              what, is, should, is - should);
}

/* What the boot's serve time costs at its prices. */
static enum cinf_status serve_cost(u128 *out, sqlite3_stmt *s, int64_t boot)
{
    u128 sum = 0;
    sqlite3_bind_int64(s, 1, boot);
    int code;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        sum += (u128)(uint64_t)sqlite3_column_int64(s, 0) * (uint64_t)sqlite3_column_int64(s, 1);
    enum cinf_status status = code == SQLITE_DONE ? CINF_OK : store_fail(sqlite3_db_handle(s), "the ledger");
    sqlite3_reset(s);
    *out = sum;
    return status;
}

static enum cinf_status check_boots(struct verifier *v, sqlite3_stmt *boots, sqlite3_stmt *serve)
{
    int code;
    while ((code = sqlite3_step(boots)) == SQLITE_ROW) {
        int64_t column[16];
        for (int i = 0; i < 13; i++)
            column[i] = sqlite3_column_int64(boots, i);
        int64_t boot = column[0];
        check_equal(v, boot, "nanoseconds of all device minutes, against as_of - opened", column[2],
                    column[1]);
        check_equal(v, boot, "nanoseconds of serve, against the requests' and what was running", column[3],
                    column[4]);
        check_equal(v, boot, "requests that ended, against rows and unrecorded ones", column[6], column[5]);
        u128 minutes, requests = store_cost(boots, 7) + store_cost(boots, 9) + store_cost(boots, 11);
        requests -= store_cost(boots, 13);
        TRY(serve_cost(&minutes, serve, boot));
        if (minutes != requests) {
            char a[CINF_COST_TEXT_MAX], b[CINF_COST_TEXT_MAX];
            fault(v, "boot %" PRId64 ": the cost of serve is $%s by the minute and $%s by the request", boot,
                  cinf_cost_format(a, u128_cost(minutes)), cinf_cost_format(b, u128_cost(requests)));
        }
    }
    return code == SQLITE_DONE ? CINF_OK : store_fail(v->db, "the ledger");
}

static const char boots_sql[] =
    "SELECT b.id, as_of_ns - opened_ns, ifnull(d.ns, 0), ifnull(d.serve, 0) + carried_ns,"
    " ifnull(r.ns, 0) + running_ns + interrupted_ns + unrecorded_ns,"
    " last_number - first_number, ifnull(r.n, 0) + unrecorded,"
    " ifnull(r.hi, 0) + ifnull(r.lo, 0) / 1000000000000, ifnull(r.lo, 0) % 1000000000000,"
    " running_cost_hi, running_cost_lo, unrecorded_cost_hi, unrecorded_cost_lo, carried_cost_hi, "
    "carried_cost_lo"
    " FROM boots b"
    " LEFT JOIN (SELECT boot, sum(ns) AS ns, sum(CASE kind WHEN 0 THEN ns ELSE 0 END) AS serve FROM "
    "device_hours"
    "   GROUP BY boot) d ON d.boot = b.id"
    " LEFT JOIN (SELECT boot, sum(requests) AS n, sum(prefill_ns) + sum(decode_ns) AS ns, sum(cost_hi) AS hi,"
    "   sum(cost_lo) AS lo FROM request_hours GROUP BY boot) r ON r.boot = b.id ORDER BY b.id";

static enum cinf_status verify_boots(struct verifier *v)
{
    sqlite3_stmt *boots = NULL, *serve = NULL;
    enum cinf_status status = store_prepare(&boots, v->db, boots_sql);
    if (status == CINF_OK)
        status =
            store_prepare(&serve, v->db,
                          "SELECT sum(d.ns), ifnull(p.nanodollars_per_hour, 0) FROM device_hours d"
                          " JOIN prices p ON p.id = d.price WHERE d.boot = ? AND kind = 0 GROUP BY d.price");
    if (status == CINF_OK)
        status = check_boots(v, boots, serve);
    sqlite3_finalize(boots);
    sqlite3_finalize(serve);
    return status;
}

enum cinf_status cinf_ledger_verify(uint64_t *faults, const char *path, cinf_ledger_fault_fn *on_fault,
                                    void *context)
{
    struct verifier v = { .on_fault = on_fault, .context = context };
    TRY(store_open_reader(&v.db, path));
    enum cinf_status status = store_run(v.db, "BEGIN");
    if (status == CINF_OK)
        status = check_file(&v);
    if (status == CINF_OK)
        status = check_references(&v);
    if (status == CINF_OK)
        status = check_hours(&v);
    if (status == CINF_OK)
        status = verify_boots(&v);
    sqlite3_close(v.db);
    if (status != CINF_OK)
        return cinf_fail_in(status, "%s: ", path);
    *faults = v.faults;
    return CINF_OK;
}
