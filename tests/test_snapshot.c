/* test_snapshot.c - reading while others write.  Run it under ThreadSanitizer as well (preset tsan). */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "meter_world.h"
#include "mirror.h"

enum { READERS = 2, BILLS = 4, RUN_MS = 250 };

static struct cinf_meter *meter;
static struct cinf_bill *bills[BILLS];
static atomic_bool stop;
static _Atomic uint64_t snapshots_taken, reports_read;

static bool run_over(void)
{
    static struct timespec start;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (start.tv_sec == 0)
        start = now;
    return (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 > RUN_MS;
}

/* Every snapshot is consistent, and no total is below that of an earlier snapshot. */
static void *read_snapshots(void *unused)
{
    struct cinf_snapshot last = { CINF_SNAPSHOT };
    (void)unused;
    while (!atomic_load(&stop)) {
        struct cinf_snapshot s = { CINF_SNAPSHOT };
        ck_ok(cinf_meter_snapshot(&s, meter));
        check_snapshot(&s);
        at_most(last.as_of_ns, s.as_of_ns);
        at_most(last.serve_ns, s.serve_ns);
        at_most(last.load_ns, s.load_ns);
        at_most(last.idle_ns, s.idle_ns);
        at_most(last.lost_ns, s.lost_ns);
        at_most(last.n_models, s.n_models);
        at_most(last.n_prices, s.n_prices + 1); /* two of them may have been folded into one */
        for (uint32_t m = 0; m < last.n_models; m++)
            at_most(last.models[m].errors[CINF_ERROR_QUEUE_FULL], s.models[m].errors[CINF_ERROR_QUEUE_FULL]);
        cinf_snapshot_free(&last);
        last = s;
        atomic_fetch_add(&snapshots_taken, 1);
    }
    cinf_snapshot_free(&last);
    return NULL;
}

static void *read_reports(void *unused)
{
    struct cinf_report last[BILLS] = { 0 };
    (void)unused;
    while (!atomic_load(&stop)) {
        for (int b = 0; b < BILLS; b++) {
            struct cinf_report r = world_report(bills[b]);
            same(r.device_ns, r.prefill_ns + r.decode_ns);
            same(r.input_tokens, r.cached_tokens); /* the writer adds both together */
            same(r.output_tokens, 2 * r.input_tokens);
            at_most(last[b].device_ns, r.device_ns);
            at_most(last[b].latency_ns, r.latency_ns);
            last[b] = r;
        }
        atomic_fetch_add(&reports_read, 1);
    }
    return NULL;
}

static struct cinf_bill *given[512];

/* The calls that any thread may make while the writer writes. */
static void *open_bills(void *unused)
{
    (void)unused;
    for (int i = 0; i < 512; i++) {
        char payer[8];
        snprintf(payer, sizeof payer, "%d", i % 100);
        ck_ok(cinf_bill_open_for(&given[i], meter, 0, 0, payer));
        cinf_meter_count_error(meter, 0, CINF_ERROR_QUEUE_FULL);
        cinf_meter_set_gpu_memory(meter, (uint64_t)i, 512);
        cinf_meter_set_split(meter, (uint64_t)i, 2);
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
    return NULL;
}

static void write_step(uint64_t step)
{
    struct cinf_share shares[BILLS];
    for (int b = 0; b < BILLS; b++)
        shares[b] = (struct cinf_share){ .bill = bills[b],
                                         .prefill_weight = step % 3,
                                         .decode_weight = (uint64_t)b,
                                         .input_tokens = 1,
                                         .cached_tokens = 1,
                                         .output_tokens = 2 };
    cinf_meter_busy(meter);
    cinf_meter_charge(meter, shares, 1 + (uint32_t)(step % BILLS));
    if (step % 5 == 0)
        cinf_meter_charge_load(meter, (uint32_t)(step % meter->n_models));
    if (step % 2 == 0)
        cinf_meter_idle(meter);
    if (step % 1000 == 0 && step < 30000)
        ck_ok(cinf_meter_set_price(meter, step % 3000 == 0 ? NULL : step % 2000 == 0 ? "1.5" : "2.5"));
    if (step % 500 == 0 && meter->n_models < 40) {
        char name[2] = { (char)('0' + meter->n_models), '\0' };
        cinf_meter_set_loaded(meter, world_model(meter, name), true);
    }
    char payer[8];
    snprintf(payer, sizeof payer, "%d", (int)(step % 150));
    struct cinf_bill *short_one = world_bill_for(meter, 0, payer);
    cinf_meter_charge(meter, &(struct cinf_share){ .bill = short_one }, 1);
    world_end(short_one);
}

START_TEST(readers_see_consistent_snapshots_while_the_writer_writes)
{
    pthread_t readers[READERS], reporter, opener;
    ck_ok(cinf_meter_new(&meter,
                         &(struct cinf_meter_options){ CINF_METER_OPTIONS, .dollars_per_hour = "2.5" }));
    for (int b = 0; b < BILLS; b++)
        bills[b] = world_bill(meter, world_model(meter, b % 2 ? "odd" : "even"));
    for (int i = 0; i < READERS; i++)
        ck_assert_int_eq(pthread_create(&readers[i], NULL, read_snapshots, NULL), 0);
    ck_assert_int_eq(pthread_create(&reporter, NULL, read_reports, NULL), 0);
    ck_assert_int_eq(pthread_create(&opener, NULL, open_bills, NULL), 0);
    uint64_t step = 0;
    /* Long enough to meet many readers, and until each kind of them has been scheduled. */
    while (!run_over() || step <= 10 || atomic_load(&snapshots_taken) <= 10 ||
           atomic_load(&reports_read) <= 10)
        write_step(step++);
    pthread_join(opener, NULL);
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    pthread_join(reporter, NULL);

    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, meter));
    ck_assert_uint_eq(s.models[0].waiting, 512);
    ck_assert_uint_eq(s.models[0].errors[CINF_ERROR_QUEUE_FULL], 512);
    cinf_snapshot_free(&s);
    for (int i = 0; i < 512; i++)
        world_end(given[i]);
    for (int b = 0; b < BILLS; b++)
        world_end(bills[b]);
    cinf_meter_free(meter);
}
END_TEST

/* ---- Idle time that was shown stays shown ----------------------------------------------------- */

START_TEST(idle_time_never_shrinks)
{
    meter = world_meter("1");
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    world_pass(1000);
    ck_ok(cinf_meter_snapshot(&s, meter));
    ck_assert_uint_eq(s.idle_ns, 1000);
    cinf_snapshot_free(&s);
    /* The writer's clock lags behind the one that the reader had: the boundary is where it was shown. */
    atomic_fetch_sub(&world_clock, 10);
    cinf_meter_busy(meter);
    ck_ok(cinf_meter_snapshot(&s, meter));
    ck_assert_uint_eq(s.idle_ns, 1000);
    check_snapshot(&s);
    cinf_snapshot_free(&s);
    uint32_t model = world_model(meter, "m");
    ck_assert_uint_eq(cinf_meter_charge_load(meter, model), 0);
    world_pass(15);
    ck_assert_uint_eq(cinf_meter_charge_load(meter, model), 5);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_reader_of_a_stretch_that_has_ended_gets_its_end)
{
    meter = world_meter("1");
    world_pass(100);
    ck_assert_uint_eq(idle_until(meter).ns, 100);
    world_stall(70);
    world_pass(30);
    struct moment end = idle_seal(meter);
    ck_assert_uint_eq(end.ns, 200);
    ck_assert_uint_eq(end.lost_ns, 70);
    world_stall(100);
    end = idle_until(meter);
    ck_assert_uint_eq(end.ns, 200);
    ck_assert_uint_eq(end.lost_ns, 70);
    cinf_meter_free(meter);
}
END_TEST

/* ---- Many prices ------------------------------------------------------------------------------ */

START_TEST(the_history_is_consistent_while_it_is_folded)
{
    pthread_t reader;
    ck_ok(cinf_meter_new(&meter, NULL));
    uint32_t model = world_model(meter, "m");
    for (int i = 0; i < 4090; i++)
        ck_ok(cinf_meter_set_price(meter, i % 2 ? "1" : "2"));
    atomic_store(&stop, false);
    atomic_store(&snapshots_taken, 0);
    ck_assert_int_eq(pthread_create(&reader, NULL, read_snapshots, NULL), 0);
    for (int i = 0; atomic_load(&snapshots_taken) < 5 || i < 2000; i++) {
        ck_ok(cinf_meter_set_price(meter, i % 2 ? NULL : i % 3 ? "2" : "3"));
        cinf_meter_charge_load(meter, model);
    }
    atomic_store(&stop, true);
    pthread_join(reader, NULL);
    cinf_meter_free(meter);
}
END_TEST

/* ---- Many models ------------------------------------------------------------------------------ */

static void *charge_without_pause(void *unused)
{
    (void)unused;
    for (uint32_t i = 0; !atomic_load(&stop); i++)
        cinf_meter_charge_load(meter, i % 8);
    return NULL;
}

/* The writer publishes about every microsecond, and copying a thousand models takes far longer. */
START_TEST(a_thousand_models_can_be_read_while_charged_without_pause)
{
    pthread_t writer;
    ck_ok(cinf_meter_new(&meter, NULL));
    for (uint32_t i = 0; i < 1000; i++) {
        char name[5] = { 'm', (char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10), '\0' };
        ck_assert_uint_eq(world_model(meter, name), i);
    }
    cinf_meter_busy(meter);
    ck_assert_int_eq(pthread_create(&writer, NULL, charge_without_pause, NULL), 0);
    for (int i = 0; i < 20; i++) {
        struct cinf_snapshot s = { CINF_SNAPSHOT };
        ck_ok(cinf_meter_snapshot(&s, meter));
        check_snapshot(&s);
        cinf_snapshot_free(&s);
    }
    atomic_store(&stop, true);
    pthread_join(writer, NULL);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(snapshots_that_are_refused)
{
    meter = world_meter("1");
    struct cinf_snapshot s = { .struct_size = 8, .as_of_ns = 77 };
    ck_fails(cinf_meter_snapshot(&s, meter), CINF_EINVAL, "struct_size");
    ck_assert_uint_eq(s.as_of_ns, 77);
    cinf_snapshot_free(NULL);
    cinf_meter_free(meter);
}
END_TEST

START_TEST(a_snapshot_outlives_its_meter)
{
    meter = world_meter("1");
    world_model(meter, "m");
    world_pass(5);
    ck_ok(cinf_meter_set_price(meter, "2"));
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, meter));
    cinf_meter_free(meter);
    ck_assert_str_eq(s.device, "cpu");
    ck_assert_str_eq(s.endpoints[0], "api");
    ck_assert_str_eq(s.models[0].name, "m");
    ck_assert_uint_eq(s.prices[1].model_serve_ns[0], 0);
    cinf_snapshot_free(&s);
    ck_assert_ptr_null(s.memory);
    cinf_snapshot_free(&s);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("snapshot");
    TCase *t = tcase_create("snapshot");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, readers_see_consistent_snapshots_while_the_writer_writes);
    tcase_add_test(t, idle_time_never_shrinks);
    tcase_add_test(t, a_reader_of_a_stretch_that_has_ended_gets_its_end);
    tcase_add_test(t, the_history_is_consistent_while_it_is_folded);
    tcase_add_test(t, a_thousand_models_can_be_read_while_charged_without_pause);
    tcase_add_test(t, snapshots_that_are_refused);
    tcase_add_test(t, a_snapshot_outlives_its_meter);
    suite_add_tcase(s, t);
    return s;
}
