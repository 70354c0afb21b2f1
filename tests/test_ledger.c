#define _GNU_SOURCE /* MNT_DETACH */
#include <costinfer/ledger.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"
#include "meter_world.h"

#define SECOND UINT64_C(1000000000)

static const char *folder;

static void sleep_us(unsigned us)
{
    nanosleep(&(struct timespec){ .tv_nsec = (long)us * 1000 }, NULL);
}

static const char *path_of(const char *name)
{
    static char paths[4][512];
    static int turn;
    char *path = paths[turn++ % 4];
    if (!folder)
        folder = support_temp_folder();
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static struct cinf_ledger *open_ledger(const char *path)
{
    struct cinf_ledger *ledger;
    ck_ok(cinf_ledger_open(&ledger, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = path,
                                                                   .instance = "test", .commit_ms = 5 }));
    return ledger;
}

static void print_fault(void *context, const char *fault)
{
    (void)context;
    fprintf(stderr, "fault: %s\n", fault);
}

static uint64_t faults_of(const char *path)
{
    uint64_t faults = 99;
    ck_ok(cinf_ledger_verify(&faults, path, NULL, NULL));
    return faults;
}

static void verify(const char *path)
{
    uint64_t faults;
    ck_ok(cinf_ledger_verify(&faults, path, print_fault, NULL));
    ck_assert_uint_eq(faults, 0);
}

static int64_t sql_int(const char *path, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    ck_assert_msg(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
    int64_t value = -1;
    if (sqlite3_step(s) == SQLITE_ROW)
        value = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return value;
}

static struct cinf_ledger_info info_of(const char *path)
{
    struct cinf_ledger_info info = { CINF_LEDGER_INFO };
    ck_ok(cinf_ledger_info(&info, path));
    return info;
}

static struct cinf_ledger_status status_of(const struct cinf_ledger *ledger)
{
    struct cinf_ledger_status status = { CINF_LEDGER_STATUS };
    cinf_ledger_read_status(ledger, &status);
    return status;
}

static void charge(struct cinf_meter *meter, struct cinf_bill *bill, uint64_t ns)
{
    cinf_meter_busy(meter);
    world_pass(ns);
    cinf_meter_charge(meter,
                      &(struct cinf_share){ .bill = bill,
                                            .prefill_weight = 1,
                                            .decode_weight = 2,
                                            .input_tokens = 3,
                                            .cached_tokens = 1,
                                            .output_tokens = 1 },
                      1);
}

/* One request from its submission to its end. */
static void serve(struct cinf_meter *meter, uint32_t model, const char *payer, uint64_t ns)
{
    struct cinf_bill *bill = world_bill_for(meter, model, payer);
    charge(meter, bill, ns);
    cinf_meter_idle(meter);
    world_end(bill);
}

static void flush(struct cinf_ledger *ledger)
{
    ck_ok(cinf_ledger_flush(ledger, 60 * SECOND));
}

static const struct cinf_ledger_line *line_with(const struct cinf_ledger_sum *sum, const char *kind,
                                                const char *key)
{
    for (uint32_t i = 0; i < sum->n_lines; i++)
        if (strcmp(sum->lines[i].kind, kind) == 0 &&
            (!key || (sum->lines[i].keys[0] && strcmp(sum->lines[i].keys[0], key) == 0)))
            return &sum->lines[i];
    ck_abort_msg("there is no line %s %s", kind, key ? key : "");
    return NULL;
}

static struct cinf_ledger_sum costs(const char *path, const char *by, enum cinf_ledger_idle idle)
{
    struct cinf_ledger_sum sum = { CINF_LEDGER_SUM };
    ck_ok(cinf_ledger_costs(
        &sum, &path, 1,
        &(struct cinf_ledger_query){ CINF_LEDGER_QUERY, .by = &by, .n_by = by ? 1 : 0, .idle = idle }));
    return sum;
}

/* What the meter itself says must be what the file says. */
static void same_as_meter(const char *path, const struct cinf_meter *meter)
{
    static const char *const kinds[] = { "serve", "load", "idle", "lost", "overhead" };
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, meter));
    uint64_t ns[] = { s.serve_ns, s.load_ns, s.idle_ns, s.lost_ns, s.overhead_ns };
    struct cinf_cost cost[] = { s.serve_cost, s.load_cost, s.idle_cost, s.lost_cost, s.overhead_cost },
                     all = { 0 };
    struct cinf_ledger_sum sum = costs(path, NULL, CINF_LEDGER_IDLE_NONE);
    ck_assert_uint_eq(sum.device_ns, s.as_of_ns);
    ck_assert_uint_eq(sum.unpriced_ns, s.unpriced_ns);
    ck_assert_uint_eq(sum.requests, s.ended);
    for (int k = 0; k < 5; k++) {
        if (ns[k] > 0) {
            ck_assert_uint_eq(line_with(&sum, kinds[k], NULL)->device_ns, ns[k]);
            same_cost(line_with(&sum, kinds[k], NULL)->cost, cost[k]);
        }
        all = cinf_cost_add(all, cost[k]);
    }
    same_cost(sum.cost, all);
    cinf_ledger_sum_free(&sum);
    cinf_snapshot_free(&s);
}

/* ---- Books ----------------------------------------------------------------------------------- */

START_TEST(requests_and_minutes_agree)
{
    const char *path = path_of("agree.db");
    struct cinf_meter *meter = world_meter("3.60");
    uint32_t a = world_model(meter, "a"), b = world_model(meter, "b");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    world_pass(1001);
    serve(meter, a, "alice", 700000001);
    serve(meter, a, "bob", 300000003);
    world_stall(500);
    cinf_meter_busy(meter);
    world_pass(40000007);
    cinf_meter_charge_load(meter, b);
    struct cinf_bill *running = world_bill_for(meter, b, "bob");
    charge(meter, running, 12345);
    flush(ledger);
    verify(path);
    same_as_meter(path, meter);
    ck_assert_int_eq(sql_int(path, "SELECT running_ns FROM boots"), 12345);
    ck_assert_int_eq(sql_int(path, "SELECT ended FROM boots"), 0);
    charge(meter, running, 55);
    world_end(running);
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    same_as_meter(path, meter);
    ck_assert_int_eq(sql_int(path, "SELECT ended FROM boots"), 1);
    ck_assert_int_eq(sql_int(path, "SELECT count(*) FROM requests"), 3);
    ck_assert_int_eq(sql_int(path, "SELECT prefill_ns + decode_ns FROM requests WHERE number = 3"), 12400);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_row_has_what_is_known_of_a_request)
{
    const char *path = path_of("row.db");
    struct cinf_meter *meter = world_meter(NULL);
    uint32_t a = world_model(meter, "m");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    struct cinf_bill *bill = world_bill_for(meter, a, "key");
    struct cinf_tag tags[] = { { "team", "a\"b" }, { "x.y", "2" } };
    ck_ok(cinf_bill_describe(
        bill, &(struct cinf_note){ CINF_NOTE, .id = "req-1", .user = "eve", .tags = tags, .n_tags = 2 }));
    world_pass(10);
    charge(meter, bill, 90);
    world_end(bill);
    cinf_meter_free(meter); /* first: the ledger takes what is left */
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    ck_assert_int_eq(
        sql_int(path, "SELECT count(*) FROM requests WHERE id = 'req-1' AND user = 'eve' AND"
                      " json_extract(tags, '$.team') = 'a\"b' AND queue_ns = 10 AND latency_ns = 90 AND"
                      " prefill_ns = 30 AND decode_ns = 60 AND unpriced_ns = 90 AND input_tokens = 3 AND"
                      " cached_tokens = 1 AND output_tokens = 1 AND ended_ns - created_ns = 100 AND"
                      " (SELECT name FROM names WHERE id = finish) = 'stop' AND"
                      " (SELECT name FROM names WHERE id = endpoint) = 'api' AND"
                      " (SELECT name FROM names WHERE id = payer) = 'key'"),
        1);
    struct cinf_ledger_sum sum = costs(path, "tag:x.y", CINF_LEDGER_IDLE_NONE);
    ck_assert_uint_eq(line_with(&sum, "serve", "2")->device_ns, 90);
    cinf_ledger_sum_free(&sum);
    sum = costs(path, "user", CINF_LEDGER_IDLE_NONE);
    ck_assert_uint_eq(line_with(&sum, "serve", "eve")->requests, 1);
    cinf_ledger_sum_free(&sum);
}
END_TEST

START_TEST(notes_have_bounds)
{
    struct cinf_meter *meter = world_meter(NULL);
    struct cinf_bill *bill = world_bill(meter, world_model(meter, "m"));
    char text[300];
    memset(text, 'x', sizeof text);
    text[257] = '\0';
    struct cinf_tag twice[] = { { "a", "1" }, { "a", "2" } }, bad = { "a", "\xff" };
    ck_fails(cinf_bill_describe(bill, &(struct cinf_note){ CINF_NOTE, .id = text }), CINF_EINVAL,
             "257 bytes");
    ck_fails(cinf_bill_describe(bill, &(struct cinf_note){ CINF_NOTE, .user = "\xff" }), CINF_EINVAL,
             "UTF-8");
    ck_fails(cinf_bill_describe(bill, &(struct cinf_note){ CINF_NOTE, .tags = twice, .n_tags = 2 }),
             CINF_EINVAL, "two tags");
    ck_fails(cinf_bill_describe(bill, &(struct cinf_note){ CINF_NOTE, .tags = &bad, .n_tags = 1 }),
             CINF_EINVAL, "UTF-8");
    ck_fails(cinf_bill_describe(bill, &(struct cinf_note){ CINF_NOTE, .tags = twice, .n_tags = 17 }),
             CINF_EINVAL, "at most 16");
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(every_nanosecond_has_its_price)
{
    const char *path = path_of("prices.db");
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    char price[32];
    struct cinf_bill *bill = world_bill(meter, a);
    for (int i = 0; i < 300; i++) {
        snprintf(price, sizeof price, "%d.%02d", i % 7 + 1, i % 100);
        ck_ok(cinf_meter_set_price(meter, i % 11 == 3 ? NULL : price)); /* many within one commit */
        charge(meter, bill, 1000 + (uint64_t)i);
        if (i % 5 == 0) {
            cinf_meter_idle(meter);
            world_pass(17);
            ck_ok(cinf_meter_set_price(meter, "0.5"));
            world_pass(4);
        }
        if (i % 50 == 49) {
            world_end(bill);
            bill = world_bill(meter, a);
        }
    }
    flush(ledger);
    same_as_meter(path, meter);
    verify(path);
    world_end(bill);
    ck_ok(cinf_ledger_close(ledger));
    same_as_meter(path, meter);
    verify(path);
    ck_assert_int_ge(sql_int(path, "SELECT count(*) FROM prices"), 250);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_ledger_may_come_late)
{
    const char *path = path_of("late.db");
    struct cinf_meter *meter = world_meter("2");
    uint32_t a = world_model(meter, "a");
    serve(meter, a, "early", 111);
    struct cinf_bill *carried = world_bill_for(meter, a, "early");
    charge(meter, carried, 1000);
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    ck_fails(cinf_ledger_attach(ledger, meter), CINF_EBUSY, "ledger");
    charge(meter, carried, 50);
    world_end(carried);
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    ck_assert_int_eq(sql_int(path, "SELECT carried_ns FROM boots"), 1000);
    ck_assert_int_eq(sql_int(path, "SELECT sum(ns) FROM device_hours WHERE kind = 0"), 50);
    ck_assert_int_eq(sql_int(path, "SELECT first_number FROM boots"), 1);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(one_ledger_has_many_boots)
{
    const char *path = path_of("boots.db");
    struct cinf_ledger *ledger = open_ledger(path);
    for (int i = 0; i < 3; i++) {
        struct cinf_meter *meter = world_meter("1");
        ck_ok(cinf_ledger_attach(ledger, meter));
        serve(meter, world_model(meter, "a"), "p", 5);
        cinf_meter_free(meter);
        flush(ledger);
    }
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    struct cinf_ledger_info info = info_of(path);
    ck_assert_uint_eq(info.boots, 3);
    ck_assert_uint_eq(info.requests, 3);
    ck_assert_uint_eq(info.serve_ns, 15);
    ck_assert_uint_eq(info.version, 1);
}
END_TEST

/* A meter that needs room gives an old model's sums to "other"; no minute may follow them. */
START_TEST(a_model_that_makes_room_costs_nothing_twice)
{
    const char *path = path_of("room.db");
    struct cinf_meter *meter = world_meter("1");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    char name[16];
    for (int i = 0; i < 1023; i++) {
        snprintf(name, sizeof name, "m%d", i);
        uint32_t m = world_model(meter, name);
        if (i < 4)
            serve(meter, m, i % 2 ? "p" : "q", 1000 + (uint64_t)i);
    }
    flush(ledger);
    world_pass(2 * 86400 * SECOND);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "new%d", i);
        serve(meter, world_model(meter, name), "p", 70);
    }
    flush(ledger);
    verify(path);
    same_as_meter(path, meter);
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    ck_assert_int_eq(sql_int(path, "SELECT sum(d.ns) FROM device_hours d JOIN names n ON n.id = d.model WHERE"
                                   " name = 'm1' AND kind = 0"),
                     1001);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(rows_that_find_no_room_are_counted)
{
    const char *path = path_of("narrow.db");
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger;
    ck_ok(cinf_ledger_open(&ledger, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = path,
                                                                   .records_max = 2, .commit_ms = 50 }));
    ck_ok(cinf_ledger_attach(ledger, meter));
    for (int i = 0; i < 3000; i++)
        serve(meter, a, "p", 10);
    flush(ledger);
    uint64_t unrecorded = status_of(ledger).unrecorded;
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    struct cinf_ledger_info info = info_of(path);
    ck_assert_uint_gt(info.unrecorded, 0);
    ck_assert_uint_eq(info.unrecorded, unrecorded);
    ck_assert_uint_eq(info.requests + info.unrecorded, 3000);
    ck_assert_uint_eq(info.serve_ns, 30000);
    cinf_meter_free(meter);
}
END_TEST

/* ---- Files ----------------------------------------------------------------------------------- */

START_TEST(one_writer)
{
    const char *path = path_of("lock.db");
    struct cinf_ledger *ledger = open_ledger(path), *second;
    struct cinf_ledger_options o = { CINF_LEDGER_OPTIONS, .path = path };
    ck_fails(cinf_ledger_open(&second, &o), CINF_EBUSY, "another process");
    const char *alias = path_of("alias.db");
    ck_assert_int_eq(symlink(path, alias), 0);
    o.path = alias;
    ck_fails(cinf_ledger_open(&second, &o), CINF_EBUSY, "another process");
    uint64_t rows;
    ck_fails(cinf_ledger_prune(&rows, path, 1), CINF_EBUSY, "another process");
    ck_ok(cinf_ledger_close(ledger));
    ck_ok(cinf_ledger_open(&second, &o));
    ck_ok(cinf_ledger_close(second));
}
END_TEST

static char *content_of(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    char *bytes = malloc(1 << 20);
    *n = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

START_TEST(other_files_stay_untouched)
{
    static const char *const sql[] = { "PRAGMA user_version = 2", "PRAGMA application_id = 7" };
    static const char *const words[] = { "version 2", "not a ledger" };
    static const enum cinf_status expected[] = { CINF_EUNSUPPORTED, CINF_EFORMAT };
    for (int i = 0; i < 2; i++) {
        const char *path = path_of(i ? "foreign.db" : "newer.db");
        ck_ok(cinf_ledger_close(open_ledger(path)));
        sql_int(path, sql[i]);
        ck_assert_int_eq(sql_int(path, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
        size_t n, after;
        char *before = content_of(path, &n);
        struct cinf_ledger *none;
        uint64_t faults;
        ck_fails(cinf_ledger_open(&none, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = path }),
                 expected[i], words[i]);
        ck_fails(cinf_ledger_verify(&faults, path, NULL, NULL), expected[i], words[i]);
        char *now = content_of(path, &after);
        ck_assert_uint_eq(n, after);
        ck_assert_int_eq(memcmp(before, now, n), 0);
        free(before);
        free(now);
    }
    struct cinf_ledger *none;
    struct cinf_ledger_info info = { CINF_LEDGER_INFO };
    (void)path_of("");
    const char *text =
        support_write(folder, "text", "this is not a database, however long it may be read", -1);
    ck_fails(cinf_ledger_open(&none, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = text }),
             CINF_EFORMAT, "not a database");
    ck_fails(cinf_ledger_info(&info, text), CINF_EFORMAT, "not a database");
    ck_fails(cinf_ledger_info(&info, path_of("nothing")), CINF_ENOTFOUND, "nothing");
    ck_fails(cinf_ledger_info(&info, folder), CINF_EINVAL, "folder");
    ck_fails(cinf_ledger_open(&none, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS,
                                                                    .path = path_of("no/folder.db") }),
             CINF_ENOTFOUND, "folder.db");
}
END_TEST

/* Every single column that a sum rests on, one off. */
START_TEST(verify_finds_one_nanosecond)
{
    static const char *const damage[] = {
        "UPDATE requests SET prefill_ns = prefill_ns + 1 WHERE number = 2",
        "UPDATE requests SET queue_ns = queue_ns + 1 WHERE number = 2",
        "UPDATE requests SET cost_lo = cost_lo + 1 WHERE number = 2",
        "UPDATE requests SET output_tokens = output_tokens - 1 WHERE number = 2",
        "UPDATE requests SET model = 12345 WHERE number = 1",
        "UPDATE requests SET ended_ns = ended_ns + 3600000000000 WHERE number = 1",
        "DELETE FROM requests WHERE number = 1",
        "UPDATE request_hours SET decode_ns = decode_ns - 1",
        "UPDATE request_hours SET cost_lo = cost_lo + 1",
        "UPDATE device_minutes SET ns = ns + 1 WHERE kind = 0",
        "UPDATE device_minutes SET ns = ns + 1 WHERE kind = 2",
        "UPDATE device_minutes SET price = price + 1",
        "UPDATE device_hours SET ns = ns - 1 WHERE kind = 0",
        "DELETE FROM device_hours WHERE kind = 2",
        "UPDATE boots SET as_of_ns = as_of_ns + 1",
        "UPDATE boots SET opened_ns = opened_ns + 1",
        "UPDATE boots SET running_ns = running_ns + 1",
        "UPDATE boots SET running_cost_lo = running_cost_lo + 1",
        "UPDATE boots SET last_number = last_number + 1",
        "UPDATE boots SET unrecorded = unrecorded + 1",
        "UPDATE prices SET boot = 9",
        "UPDATE prices SET nanodollars_per_hour = nanodollars_per_hour + 1",
        "DELETE FROM names WHERE name = 'p'",
    };
    const char *path = path_of("damage.db"), *copy = path_of("damaged.db");
    struct cinf_meter *meter = world_meter("1.5");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    for (int i = 0; i < 3; i++) {
        serve(meter, a, "p", 1000);
        world_pass(500);
    }
    cinf_meter_free(meter);
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        ck_ok(cinf_ledger_backup(path, copy));
        verify(copy);
        sql_int(copy, damage[i]);
        ck_assert_msg(faults_of(copy) > 0, "not found: %s", damage[i]);
        unlink(copy);
    }
}
END_TEST

START_TEST(backup_and_prune)
{
    const char *path = path_of("prune.db"), *copy = path_of("copy.db");
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    for (int i = 0; i < 20; i++)
        serve(meter, a, "p", 100);
    flush(ledger);
    ck_ok(cinf_ledger_backup(path, copy)); /* while it is written */
    ck_fails(cinf_ledger_backup(path, copy), CINF_EEXIST, "exists");
    verify(copy);
    serve(meter, a, "p", 7);
    ck_ok(cinf_ledger_close(ledger));
    ledger = open_ledger(copy); /* a backup is a ledger */
    ck_ok(cinf_ledger_close(ledger));
    verify(copy);
    ck_assert_uint_eq(info_of(copy).crashed, 1); /* its boot had no end when it was copied */

    uint64_t rows;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    ck_ok(cinf_ledger_prune(&rows, path, ((uint64_t)now.tv_sec + 7200) * SECOND));
    ck_assert_uint_gt(rows, 21);
    verify(path);
    struct cinf_ledger_info info = info_of(path);
    ck_assert_uint_eq(info.request_rows, 0);
    ck_assert_uint_eq(info.requests, 21);
    struct cinf_ledger_sum sum = costs(path, "model", CINF_LEDGER_IDLE_NONE);
    ck_assert_uint_eq(line_with(&sum, "serve", "a")->device_ns, 2007);
    ck_assert_uint_eq(line_with(&sum, "serve", "a")->requests, 21);
    cinf_ledger_sum_free(&sum);
    cinf_meter_free(meter);
}
END_TEST

/* ---- Costs ----------------------------------------------------------------------------------- */

START_TEST(idle_time_is_spread_to_the_last_unit)
{
    const char *path = path_of("idle.db");
    struct cinf_meter *meter = world_meter("0.7");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    char name[16];
    for (int i = 0; i < 7; i++) {
        snprintf(name, sizeof name, "m%d", i);
        serve(meter, world_model(meter, name), "p", 1000 + (uint64_t)i * 37);
        world_pass(999);
    }
    ck_ok(cinf_ledger_close(ledger));
    struct cinf_ledger_sum none = costs(path, "model", CINF_LEDGER_IDLE_NONE),
                           usage = costs(path, "model", CINF_LEDGER_IDLE_USAGE);
    struct cinf_cost whole = { 0 };
    for (uint32_t i = 0; i < usage.n_lines; i++)
        whole = cinf_cost_add(whole, cinf_cost_add(usage.lines[i].cost, usage.lines[i].idle_cost));
    same_cost(whole, none.cost);
    same_cost(usage.cost, none.cost);
    const struct cinf_ledger_line *m0 = line_with(&usage, "serve", "m0"),
                                  *m6 = line_with(&usage, "serve", "m6");
    ck_assert_int_lt(cinf_cost_compare(m0->idle_cost, m6->idle_cost), 0);
    same_cost(line_with(&usage, "idle", NULL)->cost, (struct cinf_cost){ 0 });
    cinf_ledger_sum_free(&none);
    cinf_ledger_sum_free(&usage);
    cinf_ledger_sum_free(&usage);

    struct cinf_ledger_sum sum = { CINF_LEDGER_SUM };
    const char *bad = "colour", *five[5] = { "model" };
    ck_fails(cinf_ledger_costs(&sum, &path, 1,
                               &(struct cinf_ledger_query){ CINF_LEDGER_QUERY, .by = &bad, .n_by = 1 }),
             CINF_EINVAL, "colour");
    ck_fails(cinf_ledger_costs(&sum, &path, 1,
                               &(struct cinf_ledger_query){ CINF_LEDGER_QUERY, .by = five, .n_by = 5 }),
             CINF_EINVAL, "at most 4");
    cinf_meter_free(meter);
}
END_TEST

START_TEST(lines_close_by_any_name)
{
    static const char *const names[] = { "model", "payer", "user", "endpoint", "tag:team" };
    const char *path = path_of("close.db");
    struct cinf_meter *meter = world_meter("0.7");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    serve(meter, a, "p", 1000);
    struct cinf_bill *running = world_bill(meter, a);
    charge(meter, running, 77);
    flush(ledger);
    struct cinf_ledger_sum whole = costs(path, NULL, CINF_LEDGER_IDLE_NONE);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cinf_ledger_sum sum = costs(path, names[i], CINF_LEDGER_IDLE_NONE);
        same_cost(sum.cost, whole.cost);
        ck_assert_uint_eq(sum.device_ns, whole.device_ns);
        if (i >= 2)
            ck_assert_uint_eq(line_with(&sum, "elsewhen", NULL)->device_ns, 77);
        cinf_ledger_sum_free(&sum);
    }
    cinf_ledger_sum_free(&whole);
    world_end(running);
    ck_ok(cinf_ledger_close(ledger));
    cinf_meter_free(meter);
}
END_TEST

/* ---- Disks that fail ---------------------------------------------------------------------------- */

static atomic_int fail_code; /* what SQLite's file operations return, or 0 */
static atomic_int fail_sync; /* only syncs */
static sqlite3_vfs shim, *real_vfs;
struct shim_file {
    sqlite3_file base;
    sqlite3_file *real;
};
#define REAL(file) (((struct shim_file *)(file))->real)

static int shim_close(sqlite3_file *f)
{
    return REAL(f)->pMethods->xClose(REAL(f));
}
static int shim_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    return REAL(f)->pMethods->xRead(REAL(f), to, n, at);
}
static int shim_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
    int code = atomic_load(&fail_code);
    return code ? code : REAL(f)->pMethods->xWrite(REAL(f), from, n, at);
}
static int shim_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    return REAL(f)->pMethods->xTruncate(REAL(f), n);
}
static int shim_sync(sqlite3_file *f, int flags)
{
    int code = REAL(f)->pMethods->xSync(REAL(f), flags);
    return atomic_load(&fail_sync) ? SQLITE_IOERR_FSYNC : code;
}
static int shim_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return REAL(f)->pMethods->xFileSize(REAL(f), n);
}
static int shim_lock(sqlite3_file *f, int how)
{
    return REAL(f)->pMethods->xLock(REAL(f), how);
}
static int shim_unlock(sqlite3_file *f, int how)
{
    return REAL(f)->pMethods->xUnlock(REAL(f), how);
}
static int shim_reserved(sqlite3_file *f, int *out)
{
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int shim_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int shim_sector(sqlite3_file *f)
{
    return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int shim_traits(sqlite3_file *f)
{
    return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
static int shim_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return REAL(f)->pMethods->xShmMap(REAL(f), page, size, extend, out);
}
static int shim_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return REAL(f)->pMethods->xShmLock(REAL(f), at, n, flags);
}
static void shim_shm_barrier(sqlite3_file *f)
{
    REAL(f)->pMethods->xShmBarrier(REAL(f));
}
static int shim_shm_unmap(sqlite3_file *f, int del)
{
    return REAL(f)->pMethods->xShmUnmap(REAL(f), del);
}
static const sqlite3_io_methods shim_methods = {
    2,           shim_close,   shim_read,     shim_write,       shim_truncate,  shim_sync,
    shim_size,   shim_lock,    shim_unlock,   shim_reserved,    shim_control,   shim_sector,
    shim_traits, shim_shm_map, shim_shm_lock, shim_shm_barrier, shim_shm_unmap, NULL,
    NULL,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    (void)vfs;
    REAL(f) = (sqlite3_file *)((struct shim_file *)f + 1);
    int code = real_vfs->xOpen(real_vfs, name, REAL(f), flags, out);
    f->pMethods = code == SQLITE_OK ? &shim_methods : NULL;
    return code;
}

static void install_shim(void)
{
    sqlite3_initialize();
    real_vfs = sqlite3_vfs_find(NULL);
    shim = *real_vfs;
    shim.zName = "shim";
    shim.szOsFile = (int)sizeof(struct shim_file) + real_vfs->szOsFile;
    shim.xOpen = shim_open;
    sqlite3_vfs_register(&shim, 1);
}

static void remove_shim(void)
{
    sqlite3_vfs_unregister(&shim);
}

static void wait_for_failure(struct cinf_ledger *ledger, uint64_t more_than)
{
    for (int i = 0; i < 6000 && status_of(ledger).failures <= more_than; i++)
        sleep_us(10000);
    ck_assert_uint_gt(status_of(ledger).failures, more_than);
}

START_TEST(a_failing_disk_loses_nothing)
{
    static const int codes[] = { SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_READONLY, 0 };
    const char *path = path_of("failing.db");
    install_shim();
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    for (int i = 0; i < 4; i++) {
        serve(meter, a, "p", 100);
        flush(ledger);
        uint64_t failures = status_of(ledger).failures;
        atomic_store(&fail_code, codes[i]);
        atomic_store(&fail_sync, codes[i] == 0);
        for (int r = 0; r < 40; r++)
            serve(meter, a, "p", 100);
        wait_for_failure(ledger, failures);
        struct cinf_ledger_status s = status_of(ledger);
        ck_assert(!s.up);
        ck_assert_uint_gt(s.waiting, 0);
        ck_assert(s.error[0]);
        ck_fails(cinf_ledger_flush(ledger, SECOND / 50), CINF_EAGAIN, "cannot be written");
        for (int r = 0; r < 40; r++)
            serve(meter, a, "p", 100);
        ck_assert_uint_eq(status_of(ledger).unrecorded, 0);
        atomic_store(&fail_code, 0);
        atomic_store(&fail_sync, 0);
        flush(ledger);
        ck_assert(status_of(ledger).up);
        ck_assert_uint_eq(status_of(ledger).waiting, 0);
        verify(path);
        ck_assert_int_eq(sql_int(path, "SELECT count(*) FROM requests"), (i + 1) * 81);
        ck_assert_int_eq(sql_int(path, "SELECT unrecorded FROM boots"), 0);
    }
    same_as_meter(path, meter);
    atomic_store(&fail_code, SQLITE_FULL);
    serve(meter, a, "p", 100);
    ck_fails(cinf_ledger_close(ledger), CINF_EIO, "1 requests could not be written");
    atomic_store(&fail_code, 0);
    ck_ok(cinf_ledger_close(open_ledger(path)));
    verify(path);
    ck_assert_uint_eq(info_of(path).crashed, 1);
    cinf_meter_free(meter);
    remove_shim();
}
END_TEST

/* A reader that keeps its snapshot keeps the log from being emptied, and nothing else waits for it. */
START_TEST(a_pinned_reader_stops_no_commit)
{
    const char *path = path_of("pinned.db");
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    serve(meter, a, "p", 100);
    flush(ledger);
    sqlite3 *db;
    ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    ck_assert_int_eq(sqlite3_exec(db, "BEGIN; SELECT * FROM boots", NULL, NULL, NULL), SQLITE_OK);
    for (int i = 0; i < 60; i++) {
        for (int r = 0; r < 20; r++)
            serve(meter, a, "p", 100);
        flush(ledger);
    }
    ck_assert_uint_eq(status_of(ledger).failures, 0);
    ck_assert_uint_eq(status_of(ledger).recorded, 1201);
    uint64_t kept = status_of(ledger).log_bytes;
    ck_assert_uint_gt(kept, 256 * 1024);
    ck_assert_int_eq(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    for (int i = 0; i < 60; i++) {
        serve(meter, a, "p", 100);
        flush(ledger);
    }
    ck_assert_uint_le(status_of(ledger).log_bytes, kept + 256 * 1024); /* it is used again */
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_deleted_file_begins_again)
{
    const char *path = path_of("deleted.db");
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(path);
    ck_ok(cinf_ledger_attach(ledger, meter));
    serve(meter, a, "p", 100);
    struct cinf_bill *running = world_bill(meter, a);
    charge(meter, running, 10);
    flush(ledger);
    unlink(path);
    char beside[600];
    snprintf(beside, sizeof beside, "%s-wal", path);
    unlink(beside);
    snprintf(beside, sizeof beside, "%s-shm", path);
    unlink(beside);
    charge(meter, running, 5);
    world_end(running);
    flush(ledger);
    verify(path);
    ck_assert_int_eq(sql_int(path, "SELECT carried_ns FROM boots"), 10);
    ck_assert_int_eq(sql_int(path, "SELECT sum(ns) FROM device_hours WHERE kind = 0"), 5);
    ck_ok(cinf_ledger_close(ledger));
    verify(path);
    cinf_meter_free(meter);
}
END_TEST

/* A real file system that is full, where this process may mount one. */
START_TEST(a_full_file_system)
{
    char point[512], name[600], ballast[600];
    (void)path_of("");
    snprintf(point, sizeof point, "%s/small", folder);
    ck_assert_int_eq(mkdir(point, 0700), 0);
    if (mount("none", point, "tmpfs", 0, "size=1m") != 0) {
        fprintf(stderr, "skipped: cannot mount a tmpfs: %s\n", strerror(errno));
        return;
    }
    snprintf(name, sizeof name, "%s/full.db", point);
    snprintf(ballast, sizeof ballast, "%s/ballast", point);
    struct cinf_meter *meter = world_meter("1");
    uint32_t a = world_model(meter, "a");
    struct cinf_ledger *ledger = open_ledger(name);
    ck_ok(cinf_ledger_attach(ledger, meter));
    serve(meter, a, "p", 100);
    flush(ledger);
    FILE *file = fopen(ballast, "wb");
    ck_assert_ptr_nonnull(file);
    while (fwrite(point, 1, sizeof point, file) == sizeof point)
        ;
    fclose(file);
    for (int r = 0; r < 2000; r++)
        serve(meter, a, "p", 100);
    wait_for_failure(ledger, 0);
    ck_assert(support_contains(status_of(ledger).error, "full"));
    unlink(ballast);
    flush(ledger);
    verify(name);
    ck_assert_int_eq(sql_int(name, "SELECT count(*) FROM requests"), 2001);
    ck_ok(cinf_ledger_close(ledger));
    verify(name);
    cinf_meter_free(meter);
    ck_assert_int_eq(umount2(point, MNT_DETACH), 0);
}
END_TEST

/* ---- Processes that are killed ------------------------------------------------------------------- */

/* Serves until it is killed, and tells what was committed. */
static void serve_for_ever(const char *path, int to)
{
    struct cinf_meter *meter;
    struct cinf_ledger *ledger;
    uint32_t models[2];
    if (cinf_meter_new(&meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .dollars_per_hour = "1" }) !=
            CINF_OK ||
        cinf_meter_add_model(meter, "a", &models[0]) != CINF_OK ||
        cinf_meter_add_model(meter, "b", &models[1]) != CINF_OK ||
        cinf_ledger_open(&ledger, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = path,
                                                                 .commit_ms = 2 }) != CINF_OK ||
        cinf_ledger_attach(ledger, meter) != CINF_OK)
        _exit(1);
    struct cinf_bill *bills[2] = { NULL, NULL };
    for (uint64_t n = 1;; n++) {
        for (int i = 0; i < 2; i++)
            if (!bills[i] && cinf_bill_open_for(&bills[i], meter, models[i], 0, n % 3 ? "p" : "q") != CINF_OK)
                _exit(1);
        cinf_meter_busy(meter);
        cinf_meter_charge(
            meter,
            (struct cinf_share[]){ { .bill = bills[0], .decode_weight = 2, .output_tokens = 1 },
                                   { .bill = bills[1], .decode_weight = 1, .output_tokens = 1 } },
            2);
        if (n % 7 == 0)
            cinf_meter_idle(meter);
        if (n % 97 == 0)
            (void)cinf_meter_set_price(meter, n % 2 ? "2" : NULL);
        cinf_bill_close(bills[n % 2], CINF_FINISH_STOP);
        cinf_bill_free(bills[n % 2]);
        bills[n % 2] = NULL;
        if (n % 50 == 0) {
            if (cinf_ledger_flush(ledger, 60 * SECOND) != CINF_OK || write(to, &n, sizeof n) != sizeof n)
                _exit(1);
        }
    }
}

static uint64_t kill_once(const char *path, unsigned wait_us)
{
    int ends[2];
    uint64_t committed = 0, n;
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        serve_for_ever(path, ends[1]);
        _exit(1);
    }
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], &n, sizeof n), sizeof n); /* it is under way */
    committed = n;
    sleep_us(wait_us);
    kill(child, SIGKILL);
    while (read(ends[0], &n, sizeof n) == sizeof n)
        committed = n;
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    ck_assert(WIFSIGNALED(status));
    return committed;
}

START_TEST(killed_processes)
{
    const char *path = path_of("killed.db"), *wanted = getenv("CINF_LEDGER_KILLS");
    int rounds = wanted ? atoi(wanted) : 10;
    srand(7);
    for (int i = 1; i <= rounds; i++) {
        uint64_t committed = kill_once(path, (unsigned)(rand() % 30000));
        char sql[160];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM requests WHERE boot = %d AND number <= %" PRIu64, i,
                 committed);
        verify(path); /* as it was left */
        ck_assert_int_eq(sql_int(path, sql), (int64_t)committed);
        ck_ok(cinf_ledger_close(open_ledger(path)));
        verify(path);
        ck_assert_int_eq(sql_int(path, sql), (int64_t)committed);
        struct cinf_ledger_info info = info_of(path);
        ck_assert_uint_eq(info.boots, (uint64_t)i);
        ck_assert_uint_eq(info.crashed, (uint64_t)i);
    }
    ck_assert_uint_gt(info_of(path).interrupted_ns, 0);
}
END_TEST

/* Without memory at any one point every nanosecond is still booked. */
START_TEST(without_memory)
{
    for (uint64_t n = 1; n < 200; n += 3) {
        char name[32];
        snprintf(name, sizeof name, "memory%" PRIu64 ".db", n);
        const char *path = path_of(name);
        struct cinf_meter *meter = world_meter("1");
        uint32_t a = world_model(meter, "a");
        struct cinf_bill *bill = world_bill(meter, a), *other = world_bill(meter, a);
        struct cinf_ledger *ledger = NULL;
        mem_fail_at(n);
        enum cinf_status status =
            cinf_ledger_open(&ledger, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = path });
        if (status == CINF_OK)
            status = cinf_ledger_attach(ledger, meter);
        charge(meter, bill, 50);
        cinf_bill_close(bill, CINF_FINISH_STOP);
        charge(meter, other, 60);
        cinf_bill_close(other, CINF_FINISH_LENGTH);
        if (status == CINF_OK)
            (void)cinf_ledger_flush(ledger, 60 * SECOND);
        mem_fail_at(0);
        ck_ok(cinf_ledger_close(ledger));
        if (status == CINF_OK) {
            verify(path);
            ck_assert_uint_eq(info_of(path).serve_ns, 110);
        } else {
            ck_assert_int_eq(status, CINF_ENOMEM);
        }
        cinf_bill_free(bill);
        cinf_bill_free(other);
        cinf_meter_free(meter);
    }
}
END_TEST

Suite *suite(void);
Suite *suite(void)
{
    Suite *s = suite_create("ledger");
    TCase *books = tcase_create("books"), *files = tcase_create("files"), *faults = tcase_create("faults"),
          *kills = tcase_create("kills");
    tcase_set_timeout(books, 120);
    tcase_set_timeout(files, 120);
    tcase_set_timeout(faults, 300);
    tcase_add_test(books, requests_and_minutes_agree);
    tcase_add_test(books, a_row_has_what_is_known_of_a_request);
    tcase_add_test(books, notes_have_bounds);
    tcase_add_test(books, every_nanosecond_has_its_price);
    tcase_add_test(books, a_ledger_may_come_late);
    tcase_add_test(books, one_ledger_has_many_boots);
    tcase_add_test(books, a_model_that_makes_room_costs_nothing_twice);
    tcase_add_test(books, rows_that_find_no_room_are_counted);
    tcase_add_test(files, one_writer);
    tcase_add_test(files, other_files_stay_untouched);
    tcase_add_test(files, verify_finds_one_nanosecond);
    tcase_add_test(files, backup_and_prune);
    tcase_add_test(files, idle_time_is_spread_to_the_last_unit);
    tcase_add_test(files, lines_close_by_any_name);
    tcase_add_test(faults, a_failing_disk_loses_nothing);
    tcase_add_test(faults, a_pinned_reader_stops_no_commit);
    tcase_add_test(faults, a_deleted_file_begins_again);
    tcase_add_test(faults, a_full_file_system);
    tcase_set_timeout(kills, 1100);
    tcase_add_test(kills, killed_processes);
    tcase_add_test(faults, without_memory);
    suite_add_tcase(s, books);
    suite_add_tcase(s, files);
    suite_add_tcase(s, faults);
    suite_add_tcase(s, kills);
    return s;
}
