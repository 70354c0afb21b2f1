/* costs.c - who used the machine in a period.
 *
 * Whole hours come from the hours' sums, the edges of the period from minutes and rows.  Grouped by model and
 * payer the time is the device's own, so it belongs to the period in which it passed.  Any other group is a
 * request's own, and so is its time; what the device served beyond that is a line of its own, "elsewhen", and
 * the lines add up to what the machine cost in either case.  Sums of money are of 128 bits. */
#include <costinfer/ledger.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "mem.h"
#include "store.h"
#include "strbuf.h"

enum { BUCKETS = 16384 };

static const char *const kind_names[KINDS] = {
    [KIND_SERVE] = "serve", [KIND_LOAD] = "load",         [KIND_IDLE] = "idle",
    [KIND_LOST] = "lost",   [KIND_OVERHEAD] = "overhead", [KIND_UNATTRIBUTED] = "unattributed",
};
static const char ELSEWHEN[] = "elsewhen";

struct entry {
    struct entry *next;
    struct cinf_ledger_line line;
    char text[]; /* of its keys */
};

struct sums {
    const struct cinf_ledger_query *q;
    uint64_t since_ns, until_ns;
    bool exact; /* grouped by nothing but model and payer */
    struct entry **buckets;
    uint32_t n;
    /* Not exact: of the device, and of requests. */
    uint64_t device_ns, device_unpriced_ns, requests_ns, requests_unpriced_ns;
    u128 device_cost, requests_cost;
};

/* ---- Lines ----------------------------------------------------------------------------------- */

static uint32_t hash_of(const char *kind, const char *const *keys, uint32_t n)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ (uintptr_t)kind[0];
    for (uint32_t k = 0; k < n; k++)
        for (const char *at = keys[k] ? keys[k] : "\1"; *at; at++)
            hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
    return (uint32_t)((hash ^ hash >> 32) % BUCKETS);
}

static bool same_keys(const struct cinf_ledger_line *line, const char *kind, const char *const *keys,
                      uint32_t n)
{
    if (line->kind != kind)
        return false;
    for (uint32_t k = 0; k < n; k++) {
        const char *a = line->keys[k], *b = keys[k];
        if ((a == NULL) != (b == NULL) || (a && strcmp(a, b) != 0))
            return false;
    }
    return true;
}

/* NULL without memory. */
static struct cinf_ledger_line *line_of(struct sums *s, const char *kind, const char *const *keys)
{
    struct entry **head = &s->buckets[hash_of(kind, keys, s->q->n_by)];
    for (struct entry *e = *head; e; e = e->next)
        if (same_keys(&e->line, kind, keys, s->q->n_by))
            return &e->line;
    size_t bytes = 0;
    for (uint32_t k = 0; k < s->q->n_by; k++)
        bytes += keys[k] ? strlen(keys[k]) + 1 : 0;
    struct entry *e = mem_new(1, sizeof *e + bytes);
    if (!e)
        return NULL;
    char *at = e->text;
    e->line.kind = kind;
    for (uint32_t k = 0; k < s->q->n_by; k++) {
        if (!keys[k])
            continue;
        size_t n = strlen(keys[k]) + 1;
        e->line.keys[k] = memcpy(at, keys[k], n);
        at += n;
    }
    e->next = *head;
    *head = e;
    s->n++;
    return &e->line;
}

static void add_cost(struct cinf_cost *to, u128 units)
{
    *to = cinf_cost_add(*to, u128_cost(units));
}

/* ---- The device's time ------------------------------------------------------------------------ */

static bool by_device(const char *by)
{
    return strcmp(by, "model") == 0 || strcmp(by, "payer") == 0;
}

static enum cinf_status add_device(struct sums *s, sqlite3_stmt *row)
{
    const char *keys[CINF_LEDGER_BY_MAX] = { NULL };
    int kind = sqlite3_column_int(row, 0);
    const char *model = (const char *)sqlite3_column_text(row, 1),
               *payer = (const char *)sqlite3_column_text(row, 2);
    bool priced = sqlite3_column_type(row, 3) != SQLITE_NULL;
    uint64_t ns = (uint64_t)sqlite3_column_int64(row, 4);
    u128 cost = (u128)(uint64_t)sqlite3_column_int64(row, 3) * ns;
    if (kind < 0 || kind >= KINDS)
        return cinf_fail(CINF_EFORMAT, "the ledger has time of an unknown kind %d", kind);
    if (kind == KIND_SERVE && !s->exact) {
        s->device_ns += ns;
        s->device_unpriced_ns += priced ? 0 : ns;
        s->device_cost += cost;
        return CINF_OK;
    }
    for (uint32_t k = 0; k < s->q->n_by; k++)
        keys[k] = strcmp(s->q->by[k], "model") == 0   ? model
                  : strcmp(s->q->by[k], "payer") == 0 ? payer
                                                      : NULL;
    struct cinf_ledger_line *line = line_of(s, kind_names[kind], keys);
    if (!line)
        return cinf_fail(CINF_ENOMEM, "no memory for a sum of costs");
    line->device_ns += ns;
    line->unpriced_ns += priced ? 0 : ns;
    add_cost(&line->cost, cost);
    return CINF_OK;
}

/* ---- Requests --------------------------------------------------------------------------------- */

static enum cinf_status add_requests(struct sums *s, sqlite3_stmt *row)
{
    const char *keys[CINF_LEDGER_BY_MAX] = { NULL };
    for (uint32_t k = 0; k < s->q->n_by; k++)
        keys[k] = (const char *)sqlite3_column_text(row, 8 + (int)k);
    struct cinf_ledger_line *line = line_of(s, kind_names[KIND_SERVE], keys);
    if (!line)
        return cinf_fail(CINF_ENOMEM, "no memory for a sum of costs");
    uint64_t ns = (uint64_t)sqlite3_column_int64(row, 4), unpriced = (uint64_t)sqlite3_column_int64(row, 5);
    u128 cost = store_cost(row, 6);
    line->requests += (uint64_t)sqlite3_column_int64(row, 0);
    line->input_tokens += (uint64_t)sqlite3_column_int64(row, 1);
    line->cached_tokens += (uint64_t)sqlite3_column_int64(row, 2);
    line->output_tokens += (uint64_t)sqlite3_column_int64(row, 3);
    if (s->exact)
        return CINF_OK;
    line->device_ns += ns;
    line->unpriced_ns += unpriced;
    add_cost(&line->cost, cost);
    s->requests_ns += ns;
    s->requests_unpriced_ns += unpriced;
    s->requests_cost += cost;
    return CINF_OK;
}

/* ---- SQL -------------------------------------------------------------------------------------- */

static uint64_t up_to(uint64_t ns, uint64_t unit)
{
    uint64_t rest = ns % unit;
    return rest == 0 ? ns : ns + (unit - rest);
}

/* Rows of `table` in [since, until), of which those before `from` are in hours alone. */
static void put_range(struct strbuf *sql, const char *table, const char *column, uint64_t since,
                      uint64_t until)
{
    strbuf_printf(sql, " FROM %s t WHERE t.%s >= %" PRIu64 " AND t.%s < %" PRIu64, table, column, since,
                  column, until);
}

static void put_device_sql(struct strbuf *sql, const char *table, const char *column, uint64_t since,
                           uint64_t until)
{
    strbuf_puts(
        sql, "SELECT t.kind, (SELECT name FROM names WHERE id = t.model), (SELECT name FROM names WHERE id ="
             " t.payer), (SELECT nanodollars_per_hour FROM prices WHERE id = t.price), sum(t.ns)");
    put_range(sql, table, column, since, until);
    strbuf_puts(sql, " GROUP BY t.kind, t.model, t.payer, t.price");
}

static bool put_by(struct strbuf *sql, const char *by)
{
    static const char *const columns[] = { "model", "payer", "endpoint" };
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        if (strcmp(by, columns[i]) == 0) {
            strbuf_printf(sql, ", (SELECT name FROM names WHERE id = t.%s)", by);
            return true;
        }
    }
    strbuf_puts(sql, strcmp(by, "user") == 0 ? ", t.user"
                                             : ", (SELECT value FROM json_each(t.tags) WHERE key = ?)");
    return false;
}

/* True if the hours' sums know all groups. */
static bool put_requests_sql(struct strbuf *sql, const struct sums *s, const char *table, const char *column,
                             uint64_t since, uint64_t until)
{
    bool hours = true;
    strbuf_puts(sql,
                "SELECT sum(t.requests), sum(t.input_tokens), sum(t.cached_tokens), sum(t.output_tokens),"
                " sum(t.prefill_ns) + sum(t.decode_ns), sum(t.unpriced_ns), sum(t.cost_hi), sum(t.cost_lo)");
    for (uint32_t k = 0; k < s->q->n_by; k++)
        hours = put_by(sql, s->q->by[k]) && hours;
    put_range(sql, table, column, since, until);
    for (uint32_t k = 0; k < s->q->n_by; k++)
        strbuf_printf(sql, "%s %u", k == 0 ? " GROUP BY" : ",", 9 + k);
    return hours;
}

static enum cinf_status run_sql(struct sums *s, sqlite3 *db, const struct strbuf *sql,
                                enum cinf_status (*add)(struct sums *s, sqlite3_stmt *row))
{
    sqlite3_stmt *statement = NULL;
    if (sql->failed)
        return cinf_fail(CINF_ENOMEM, "no memory for a sum of costs");
    TRY(store_prepare(&statement, db, sql->text));
    int at = 1, code = SQLITE_DONE;
    for (uint32_t k = 0; k < s->q->n_by && add == add_requests; k++)
        if (strncmp(s->q->by[k], "tag:", 4) == 0)
            sqlite3_bind_text(statement, at++, s->q->by[k] + 4, -1, SQLITE_STATIC);
    enum cinf_status status = CINF_OK;
    while (status == CINF_OK && (code = sqlite3_step(statement)) == SQLITE_ROW)
        if (sqlite3_column_type(statement, add == add_requests ? 0 : 4) !=
            SQLITE_NULL) /* a sum over no rows */
            status = add(s, statement);
    if (status == CINF_OK && code != SQLITE_DONE)
        status = store_fail(db, "the ledger");
    sqlite3_finalize(statement);
    return status;
}

static enum cinf_status sum_range(struct sums *s, sqlite3 *db, uint64_t since, uint64_t until, bool hours)
{
    struct strbuf sql = { 0 };
    if (since >= until)
        return CINF_OK;
    put_device_sql(&sql, hours ? "device_hours" : "device_minutes", hours ? "hour_ns" : "minute_ns", since,
                   until);
    enum cinf_status status = run_sql(s, db, &sql, add_device);
    strbuf_clear(&sql);
    if (status == CINF_OK) {
        bool known = put_requests_sql(&sql, s, hours ? "request_hours" : "requests",
                                      hours ? "hour_ns" : "ended_ns", since, until);
        if (hours && !known) {
            strbuf_clear(&sql);
            put_requests_sql(&sql, s, "requests", "ended_ns", since, until);
        }
        status = run_sql(s, db, &sql, add_requests);
    }
    strbuf_free(&sql);
    return status;
}

static enum cinf_status sum_file(struct sums *s, const char *path)
{
    sqlite3 *db;
    int64_t rows_from = 0;
    TRY(store_open_reader(&db, path));
    enum cinf_status status = store_run(db, "BEGIN");
    if (status == CINF_OK)
        status = store_int(&rows_from, db, "SELECT rows_from_ns FROM ledger");
    /* Minutes, whole hours, minutes; before rows_from there are only hours. */
    uint64_t since = s->since_ns, until = s->until_ns, from = (uint64_t)rows_from;
    uint64_t first = since < from ? since : up_to(since, HOUR_NS);
    uint64_t last = until < from ? up_to(until, HOUR_NS) : until / HOUR_NS * HOUR_NS;
    if (status == CINF_OK && first >= last)
        status = sum_range(s, db, since, until, false);
    else if (status == CINF_OK) {
        status = sum_range(s, db, since, first, false);
        if (status == CINF_OK)
            status = sum_range(s, db, first, last, true);
        if (status == CINF_OK)
            status = sum_range(s, db, last, until, false);
    }
    sqlite3_close(db);
    return status == CINF_OK ? status : cinf_fail_in(status, "%s: ", path);
}

/* ---- Closing the sum --------------------------------------------------------------------------- */

static enum cinf_status add_elsewhen(struct sums *s)
{
    static const char *const none[CINF_LEDGER_BY_MAX];
    if (s->exact || (s->device_ns == s->requests_ns && s->device_cost == s->requests_cost))
        return CINF_OK;
    struct cinf_ledger_line *line = line_of(s, ELSEWHEN, none);
    if (!line)
        return cinf_fail(CINF_ENOMEM, "no memory for a sum of costs");
    bool less = s->device_cost < s->requests_cost ||
                (s->device_cost == s->requests_cost && s->device_ns < s->requests_ns);
    line->negative = less;
    line->device_ns = less ? s->requests_ns - s->device_ns : s->device_ns - s->requests_ns;
    line->unpriced_ns = less ? s->requests_unpriced_ns - s->device_unpriced_ns
                             : s->device_unpriced_ns - s->requests_unpriced_ns;
    line->cost = u128_cost(less ? s->requests_cost - s->device_cost : s->device_cost - s->requests_cost);
    return CINF_OK;
}

static bool is_idle(const struct cinf_ledger_line *line)
{
    return line->kind != kind_names[KIND_SERVE] && line->kind != kind_names[KIND_LOAD] &&
           line->kind != ELSEWHEN;
}

/* Spreads the cost of time without work over the lines of serve in proportion to their time; what is left of
 * the division goes to the first lines, one unit each. */
static void spread_idle(struct cinf_ledger_line *lines, uint32_t n)
{
    u128 idle = 0, given = 0;
    uint64_t served = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (is_idle(&lines[i]))
            idle += cost_u128(lines[i].cost);
        else if (lines[i].kind == kind_names[KIND_SERVE])
            served += lines[i].device_ns;
    }
    if (served == 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        if (is_idle(&lines[i])) {
            lines[i].cost = (struct cinf_cost){ 0 };
        } else if (lines[i].kind == kind_names[KIND_SERVE]) {
            u128 part = idle / served * lines[i].device_ns + idle % served * lines[i].device_ns / served;
            lines[i].idle_cost = u128_cost(part);
            given += part;
        }
    }
    for (uint32_t i = 0; i < n && given < idle; i++) {
        if (lines[i].kind == kind_names[KIND_SERVE] && lines[i].device_ns > 0) {
            add_cost(&lines[i].idle_cost, 1);
            given++;
        }
    }
}

static int compare_lines(const void *a, const void *b)
{
    const struct cinf_ledger_line *x = a, *y = b;
    if (x->negative != y->negative)
        return x->negative ? 1 : -1;
    int order = cinf_cost_compare(cinf_cost_add(y->cost, y->idle_cost), cinf_cost_add(x->cost, x->idle_cost));
    if (order == 0)
        order = (x->device_ns < y->device_ns) - (x->device_ns > y->device_ns);
    if (order == 0)
        order = strcmp(x->kind, y->kind);
    for (int k = 0; k < CINF_LEDGER_BY_MAX && order == 0; k++)
        order = strcmp(x->keys[k] ? x->keys[k] : "", y->keys[k] ? y->keys[k] : "");
    return order;
}

static void free_buckets(struct entry **buckets)
{
    for (uint32_t b = 0; buckets && b < BUCKETS; b++)
        for (struct entry *e = buckets[b], *next; e; e = next) {
            next = e->next;
            mem_free(e);
        }
    mem_free(buckets);
}

struct sum_memory {
    struct entry **buckets; /* which hold the keys */
    struct cinf_ledger_line lines[];
};

static enum cinf_status finish(struct cinf_ledger_sum *out, struct sums *s)
{
    TRY(add_elsewhen(s));
    struct sum_memory *memory = mem_new(1, sizeof *memory + s->n * sizeof memory->lines[0]);
    if (!memory)
        return cinf_fail(CINF_ENOMEM, "no memory for a sum of costs");
    uint32_t n = 0;
    for (uint32_t b = 0; b < BUCKETS; b++)
        for (struct entry *e = s->buckets[b]; e; e = e->next)
            memory->lines[n++] = e->line;
    memory->buckets = s->buckets;
    struct cinf_ledger_sum sum = {
        .struct_size = out->struct_size, .n_lines = n, .lines = memory->lines, .memory = memory
    };
    u128 cost = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct cinf_ledger_line *line = &memory->lines[i];
        sum.requests += line->requests;
        sum.device_ns += line->negative ? -line->device_ns : line->device_ns;
        sum.unpriced_ns += line->negative ? -line->unpriced_ns : line->unpriced_ns;
        cost += line->negative ? -cost_u128(line->cost) : cost_u128(line->cost);
    }
    sum.cost = u128_cost(cost);
    qsort(memory->lines, n, sizeof *memory->lines, compare_lines);
    if (s->q->idle == CINF_LEDGER_IDLE_USAGE) {
        spread_idle(memory->lines, n);
        qsort(memory->lines, n, sizeof *memory->lines, compare_lines);
    }
    s->buckets = NULL;
    memcpy(out, &sum, out->struct_size < sizeof sum ? out->struct_size : sizeof sum);
    return CINF_OK;
}

static enum cinf_status check_query(const struct cinf_ledger_query *q)
{
    if (q->n_by > CINF_LEDGER_BY_MAX)
        return cinf_fail(CINF_EINVAL, "%u names to group by; at most %d are possible", q->n_by,
                         CINF_LEDGER_BY_MAX);
    if ((unsigned)q->idle > CINF_LEDGER_IDLE_USAGE)
        return cinf_fail(CINF_EINVAL, "unknown idle policy %d", (int)q->idle);
    for (uint32_t k = 0; k < q->n_by; k++) {
        const char *by = q->by[k];
        if (!by_device(by) && strcmp(by, "user") != 0 && strcmp(by, "endpoint") != 0 &&
            (strncmp(by, "tag:", 4) != 0 || !by[4]))
            return cinf_fail(CINF_EINVAL,
                             "cannot group by \"%s\"; expected model, payer, user, endpoint or tag:NAME", by);
    }
    return CINF_OK;
}

enum cinf_status cinf_ledger_costs(struct cinf_ledger_sum *out, const char *const *paths, uint32_t n_paths,
                                   const struct cinf_ledger_query *query)
{
    struct cinf_ledger_query q = { CINF_LEDGER_QUERY };
    memcpy(&q, query, query->struct_size < sizeof q ? query->struct_size : sizeof q);
    TRY(check_query(&q));
    uint64_t never = (uint64_t)INT64_MAX / HOUR_NS * HOUR_NS;
    struct sums s = { .q = &q, .exact = true };
    s.since_ns = (q.since_ns < never ? q.since_ns : never) / MINUTE_NS * MINUTE_NS;
    s.until_ns = (q.until_ns && q.until_ns < never ? q.until_ns : never) / MINUTE_NS * MINUTE_NS;
    for (uint32_t k = 0; k < q.n_by; k++)
        s.exact = s.exact && by_device(q.by[k]);
    s.buckets = mem_new(BUCKETS, sizeof(struct entry *));
    enum cinf_status status = s.buckets ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for a sum of costs");
    for (uint32_t p = 0; p < n_paths && status == CINF_OK; p++)
        status = sum_file(&s, paths[p]);
    if (status == CINF_OK)
        status = finish(out, &s);
    free_buckets(s.buckets);
    return status;
}

void cinf_ledger_sum_free(struct cinf_ledger_sum *sum)
{
    struct sum_memory *memory = sum->memory;
    if (!memory)
        return;
    free_buckets(memory->buckets);
    mem_free(memory);
    sum->memory = NULL;
}
