#include "commit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "mem.h"

enum statement {
    GET_NAME,
    ADD_NAME,
    GET_PRICE,
    ADD_PRICE,
    ADD_MINUTE,
    ADD_HOUR,
    ADD_REQUEST,
    ADD_REQUEST_HOUR,
    GET_BOOT,
    ADD_BOOT,
    SET_BOOT,
    BEGIN,
    COMMIT,
    ROLLBACK,
    STATEMENTS
};

static const char *const sql_of[STATEMENTS] = {
    [GET_NAME] = "SELECT id FROM names WHERE name = ?",
    [ADD_NAME] = "INSERT INTO names(name) VALUES(?)",
    [GET_PRICE] = "SELECT id FROM prices WHERE boot = ? AND period = ?",
    [ADD_PRICE] = "INSERT INTO prices(boot, period, from_ns, nanodollars_per_hour) VALUES(?, ?, ?, ?)",
    [ADD_MINUTE] = "INSERT INTO device_minutes(boot, minute_ns, kind, model, payer, price, ns) VALUES(?, ?, "
                   "?, ?, ?, ?, ?)"
                   " ON CONFLICT DO UPDATE SET ns = ns + excluded.ns",
    [ADD_HOUR] =
        "INSERT INTO device_hours(boot, hour_ns, kind, model, payer, price, ns) VALUES(?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET ns = ns + excluded.ns",
    [ADD_REQUEST] =
        "INSERT INTO requests(boot, number, id, model, payer, endpoint, user, tags, finish, created_ns,"
        " ended_ns, requests, input_tokens, cached_tokens, output_tokens, drafted_tokens, accepted_tokens,"
        " first_token_ns, queue_ns, latency_ns, prefill_ns, decode_ns, lost_ns, unpriced_ns, cost_hi,"
        " cost_lo, price) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 1, ?12, ?13, ?14, ?15, ?16,"
        " ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26) ON CONFLICT DO NOTHING",
    [ADD_REQUEST_HOUR] =
        "INSERT INTO request_hours(boot, hour_ns, model, payer, endpoint, finish, requests, input_tokens,"
        " cached_tokens, output_tokens, queue_ns, latency_ns, prefill_ns, decode_ns, lost_ns, unpriced_ns, "
        "cost_hi,"
        " cost_lo) VALUES(?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
        " ON CONFLICT DO UPDATE SET requests = requests + 1, input_tokens = input_tokens + "
        "excluded.input_tokens,"
        " cached_tokens = cached_tokens + excluded.cached_tokens,"
        " output_tokens = output_tokens + excluded.output_tokens, queue_ns = queue_ns + excluded.queue_ns,"
        " latency_ns = latency_ns + excluded.latency_ns, prefill_ns = prefill_ns + excluded.prefill_ns,"
        " decode_ns = decode_ns + excluded.decode_ns, lost_ns = lost_ns + excluded.lost_ns,"
        " unpriced_ns = unpriced_ns + excluded.unpriced_ns,"
        " cost_hi = cost_hi + excluded.cost_hi + (cost_lo + excluded.cost_lo) / 1000000000000,"
        " cost_lo = (cost_lo + excluded.cost_lo) % 1000000000000",
    [GET_BOOT] = "SELECT commits FROM boots WHERE id = ?",
    [ADD_BOOT] =
        "INSERT INTO boots(id, instance, device, basis, version, started_ns, opened_ns, first_number,"
        " carried_ns, carried_cost_hi, carried_cost_lo, committed_ns, as_of_ns, last_number, commits, ended,"
        " running_ns, running_cost_hi, running_cost_lo, interrupted_ns, unrecorded, unrecorded_ns,"
        " unrecorded_cost_hi, unrecorded_cost_lo) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,"
        " ?6, ?7, ?8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    [SET_BOOT] =
        "UPDATE boots SET committed_ns = ?2, as_of_ns = ?3, last_number = ?4, commits = ?5, ended = ?6,"
        " running_ns = ?7, running_cost_hi = ?8, running_cost_lo = ?9, unrecorded = ?10, unrecorded_ns = ?11,"
        " unrecorded_cost_hi = ?12, unrecorded_cost_lo = ?13 WHERE id = ?1",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
};
_Static_assert(STATEMENTS <= sizeof((struct committer *)0)->statements / sizeof(sqlite3_stmt *), "room");

/* ---- A connection --------------------------------------------------------------------------- */

enum cinf_status committer_open(struct committer *c, const char *path)
{
    struct committer opened = { 0 };
    TRY(store_open(&opened.db, path));
    for (int i = 0; i < STATEMENTS; i++) {
        enum cinf_status status = store_prepare(&opened.statements[i], opened.db, sql_of[i]);
        if (status != CINF_OK) {
            committer_close(&opened, true);
            return status;
        }
    }
    *c = opened;
    return CINF_OK;
}

void committer_close(struct committer *c, bool failed)
{
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(c->statements[i]);
    if (c->db && failed)
        sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(c->db);
    *c = (struct committer){ 0 };
}

static sqlite3_stmt *bind(struct committer *c, enum statement which, int n, const int64_t *values)
{
    sqlite3_stmt *s = c->statements[which];
    for (int i = 0; i < n; i++)
        sqlite3_bind_int64(s, i + 1, values[i]);
    return s;
}
#define BIND(c, which, ...)                                                                                  \
    bind(c, which, sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t), (int64_t[]){ __VA_ARGS__ })

/* One integer of one row; -1: there is none. */
static enum cinf_status get(int64_t *out, sqlite3_stmt *s)
{
    int code = sqlite3_step(s);
    enum cinf_status status = CINF_OK;
    if (code == SQLITE_ROW)
        *out = sqlite3_column_int64(s, 0);
    else if (code == SQLITE_DONE)
        *out = -1;
    else
        status = store_fail(sqlite3_db_handle(s), "the ledger");
    sqlite3_reset(s);
    return status;
}

/* ---- Names and prices ------------------------------------------------------------------------ */

static enum cinf_status name_id(int64_t *id, struct committer *c, const char *name)
{
    if (!name) {
        *id = 0;
        return CINF_OK;
    }
    sqlite3_bind_text(c->statements[GET_NAME], 1, name, -1, SQLITE_STATIC);
    TRY(get(id, c->statements[GET_NAME]));
    if (*id >= 0)
        return CINF_OK;
    sqlite3_bind_text(c->statements[ADD_NAME], 1, name, -1, SQLITE_STATIC);
    TRY(store_step(c->statements[ADD_NAME]));
    *id = sqlite3_last_insert_rowid(c->db);
    return CINF_OK;
}

static enum cinf_status price_id(int64_t *id, struct committer *c, const struct boot *boot,
                                 const struct batch *batch, uint64_t period)
{
    TRY(get(id, BIND(c, GET_PRICE, boot->id, (int64_t)period)));
    if (*id >= 0)
        return CINF_OK;
    const struct tally_price *price = &batch->prices[0];
    for (size_t i = 0; i < batch->n_prices; i++)
        if (batch->prices[i].period <= period)
            price = &batch->prices[i];
    sqlite3_stmt *s = BIND(c, ADD_PRICE, boot->id, (int64_t)period, (int64_t)price->from_ns,
                           (int64_t)price->nanodollars_per_hour);
    if (!price->priced)
        sqlite3_bind_null(s, 4);
    TRY(store_step(s));
    *id = sqlite3_last_insert_rowid(c->db);
    return CINF_OK;
}

/* ---- Rows ----------------------------------------------------------------------------------- */

static enum cinf_status write_minute(struct committer *c, const struct boot *boot, const struct batch *batch,
                                     const struct tally_minute *m)
{
    int64_t model, payer, price, hour = (int64_t)(m->minute_ns / HOUR_NS * HOUR_NS);
    TRY(name_id(&model, c, m->account ? m->account->model : NULL));
    TRY(name_id(&payer, c, m->account ? m->account->payer : NULL));
    TRY(price_id(&price, c, boot, batch, m->period));
    TRY(store_step(
        BIND(c, ADD_MINUTE, boot->id, (int64_t)m->minute_ns, m->kind, model, payer, price, (int64_t)m->ns)));
    return store_step(BIND(c, ADD_HOUR, boot->id, hour, m->kind, model, payer, price, (int64_t)m->ns));
}

static void bind_text(sqlite3_stmt *s, int at, const char *text)
{
    if (text)
        sqlite3_bind_text(s, at, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(s, at);
}

static enum cinf_status write_record(struct committer *c, const struct boot *boot, const struct batch *batch,
                                     const struct record *r)
{
    const struct bill_counters *b = &r->counters;
    int64_t model, payer, endpoint, finish, price, ended = (int64_t)r->ended_ns;
    TRY(name_id(&model, c, r->account->model));
    TRY(name_id(&payer, c, r->account->payer));
    TRY(name_id(&endpoint, c, r->endpoint));
    TRY(name_id(&finish, c, r->finish));
    TRY(price_id(&price, c, boot, batch, r->period));
    u128 cost = cost_u128(b->cost);
    sqlite3_stmt *s =
        BIND(c, ADD_REQUEST, boot->id, (int64_t)r->number, 0, model, payer, endpoint, 0, 0, finish,
             ended - (int64_t)r->age_ns, ended, (int64_t)b->input_tokens, (int64_t)b->cached_tokens,
             (int64_t)b->output_tokens, (int64_t)b->drafted_tokens, (int64_t)b->accepted_tokens,
             (int64_t)b->first_token_ns, (int64_t)b->queue_ns, (int64_t)b->latency_ns, (int64_t)b->prefill_ns,
             (int64_t)b->decode_ns, (int64_t)b->lost_ns, (int64_t)b->unpriced_ns, (int64_t)(cost / COST_BASE),
             (int64_t)(cost % COST_BASE), price);
    bind_text(s, 3, r->note && r->note->id[0] ? r->note->id : NULL);
    bind_text(s, 7, r->note ? r->note->user : NULL);
    bind_text(s, 8, r->note ? r->note->tags : NULL);
    TRY(store_step(s));
    if (sqlite3_changes(c->db) == 0)
        return CINF_OK;
    return store_step(BIND(c, ADD_REQUEST_HOUR, boot->id, (int64_t)(r->ended_ns / HOUR_NS * HOUR_NS), model,
                           payer, endpoint, finish, (int64_t)b->input_tokens, (int64_t)b->cached_tokens,
                           (int64_t)b->output_tokens, (int64_t)b->queue_ns, (int64_t)b->latency_ns,
                           (int64_t)b->prefill_ns, (int64_t)b->decode_ns, (int64_t)b->lost_ns,
                           (int64_t)b->unpriced_ns, (int64_t)(cost / COST_BASE),
                           (int64_t)(cost % COST_BASE)));
}

/* ---- Boots ---------------------------------------------------------------------------------- */

static enum cinf_status add_boot(struct committer *c, const struct boot *boot)
{
    int64_t instance, device;
    TRY(name_id(&instance, c, boot->instance));
    TRY(name_id(&device, c, boot->device));
    u128 carried = cost_u128(boot->begin.running_cost);
    sqlite3_stmt *s =
        BIND(c, ADD_BOOT, boot->id, instance, device, 0, 0, (int64_t)boot->started_ns,
             (int64_t)boot->begin.as_of_ns, (int64_t)boot->begin.ended, (int64_t)boot->begin.running_ns,
             (int64_t)(carried / COST_BASE), (int64_t)(carried % COST_BASE));
    bind_text(s, 4, boot->basis);
    bind_text(s, 5, CINF_LEDGER_WRITER);
    return store_step(s);
}

struct recorded {
    uint64_t n, ns;
    u128 cost;
};

static struct recorded recorded_with(const struct boot *boot, const struct batch *batch)
{
    struct recorded r = { boot->recorded + batch->n_records, boot->recorded_ns, boot->recorded_cost };
    for (size_t i = 0; i < batch->n_records; i++) {
        r.ns += batch->records[i].counters.prefill_ns + batch->records[i].counters.decode_ns;
        r.cost += cost_u128(batch->records[i].counters.cost);
    }
    return r;
}

static enum cinf_status set_boot(struct committer *c, const struct boot *boot, const struct batch *batch)
{
    const struct tally_state *now = &batch->state, *begin = &boot->begin;
    struct recorded have = recorded_with(boot, batch);
    u128 running = cost_u128(now->running_cost);
    u128 unrecorded = cost_u128(now->ended_cost) - cost_u128(begin->ended_cost) - have.cost;
    return store_step(BIND(
        c, SET_BOOT, boot->id, (int64_t)now->wall_ns, (int64_t)now->as_of_ns, (int64_t)now->ended,
        (int64_t)boot->commits + 1, batch->end ? BOOT_CLEAN : BOOT_RUNNING, (int64_t)now->running_ns,
        (int64_t)(running / COST_BASE), (int64_t)(running % COST_BASE),
        (int64_t)(now->ended - begin->ended - have.n), (int64_t)(now->ended_ns - begin->ended_ns - have.ns),
        (int64_t)(unrecorded / COST_BASE), (int64_t)(unrecorded % COST_BASE)));
}

static enum cinf_status write_all(struct committer *c, const struct boot *boot, const struct batch *batch,
                                  bool *done)
{
    int64_t commits;
    TRY(get(&commits, BIND(c, GET_BOOT, boot->id)));
    *done = commits == (int64_t)boot->commits + 1; /* a commit that was said to have failed had not */
    if (*done)
        return CINF_OK;
    if (commits == -1 && boot->commits == 0)
        TRY(add_boot(c, boot));
    else if (commits != (int64_t)boot->commits)
        return cinf_fail(CINF_ENOTFOUND, "the ledger's file was replaced by another one");
    for (size_t i = 0; i < batch->minutes.n; i++)
        TRY(write_minute(c, boot, batch, &batch->minutes.items[i]));
    for (size_t i = 0; i < batch->n_records; i++)
        TRY(write_record(c, boot, batch, &batch->records[i]));
    return set_boot(c, boot, batch);
}

enum cinf_status commit_batch(struct committer *c, struct boot *boot, const struct batch *batch)
{
    bool done = false;
    TRY(store_step(c->statements[BEGIN]));
    enum cinf_status status = write_all(c, boot, batch, &done);
    if (status == CINF_OK && !done)
        status = store_step(c->statements[COMMIT]);
    /* Some failures have rolled back already; rolling back again would hide their reason. */
    if (!sqlite3_get_autocommit(c->db))
        (void)sqlite3_step(c->statements[ROLLBACK]), sqlite3_reset(c->statements[ROLLBACK]);
    if (status == CINF_OK) {
        struct recorded have = recorded_with(boot, batch);
        boot->commits++;
        boot->recorded = have.n;
        boot->recorded_ns = have.ns;
        boot->recorded_cost = have.cost;
    }
    return status;
}

/* ---- After a crash ---------------------------------------------------------------------------- */

static enum cinf_status close_boot(sqlite3 *db, int64_t boot, int64_t unattributed_ns)
{
    char sql[1024];
    if (unattributed_ns > 0) {
        for (int hours = 0; hours < 2; hours++) {
            snprintf(sql, sizeof sql,
                     "INSERT INTO %s SELECT b.id, b.committed_ns / %" PRIu64 " * %" PRIu64 ", %d, 0, 0,"
                     " (SELECT id FROM prices WHERE boot = b.id ORDER BY period DESC LIMIT 1), %" PRId64
                     " FROM boots b WHERE b.id = %" PRId64,
                     hours ? "device_hours" : "device_minutes", hours ? HOUR_NS : MINUTE_NS,
                     hours ? HOUR_NS : MINUTE_NS, KIND_UNATTRIBUTED, unattributed_ns, boot);
            TRY(store_run(db, sql));
        }
    }
    snprintf(sql, sizeof sql,
             "UPDATE boots SET ended = %d, interrupted_ns = running_ns, running_ns = 0, as_of_ns = as_of_ns "
             "+ %" PRId64 " WHERE id = %" PRId64,
             BOOT_CRASHED, unattributed_ns, boot);
    return store_run(db, sql);
}

static enum cinf_status close_boots(sqlite3 *db, const struct store_lock *lock)
{
    int64_t beat_boot = -1, boot = 0, as_of = 0, priced = 0;
    uint64_t beat_ns = 0;
    bool beats = store_last_beat(lock, &beat_boot, &beat_ns);
    for (;;) {
        char sql[160];
        TRY(store_int(&boot, db, "SELECT ifnull(max(id), 0) FROM boots WHERE ended = 0"));
        if (boot == 0)
            return CINF_OK;
        snprintf(sql, sizeof sql, "SELECT as_of_ns FROM boots WHERE id = %" PRId64, boot);
        TRY(store_int(&as_of, db, sql));
        snprintf(sql, sizeof sql, "SELECT count(*) FROM prices WHERE boot = %" PRId64, boot);
        TRY(store_int(&priced, db, sql));
        bool known = beats && beat_boot == boot && priced > 0 && (int64_t)beat_ns > as_of;
        TRY(close_boot(db, boot, known ? (int64_t)beat_ns - as_of : 0));
    }
}

enum cinf_status commit_recover(sqlite3 *db, const struct store_lock *lock, int64_t *next_boot)
{
    TRY(store_run(db, "BEGIN IMMEDIATE"));
    enum cinf_status status = close_boots(db, lock);
    if (status == CINF_OK)
        status = store_run(db, "COMMIT");
    if (!sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    TRY(status);
    int64_t last;
    TRY(store_int(&last, db, "SELECT ifnull(max(id), 0) FROM boots"));
    *next_boot = last + 1;
    return CINF_OK;
}
