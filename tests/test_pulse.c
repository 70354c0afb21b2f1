/* test_pulse.c - what is told apart from work: stops of the whole process, and a clock that goes back. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "meter_world.h"
#include "pulse.h"

#define MS UINT64_C(1000000)

static void sleep_ms(uint64_t ms)
{
    nanosleep(&(struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * MS) }, NULL);
}

/* ---- A process that is stopped -------------------------------------------------------------- */

enum work { WORK_STEPS, WORK_ONE_STEP, WORK_LOAD, WORK_IDLE, WORK_WAIT };

/* What parent and child tell each other. */
struct both {
    _Atomic uint64_t alive_ns; /* the last moment at which the child ran */
    atomic_bool over;          /* to the child: do not begin another step */
    struct cinf_snapshot accounts;
    struct cinf_report report;
};

static struct both *both;

/* Computes until the parent says so, or for a while. */
static void compute(uint64_t ns)
{
    uint64_t now = clock_monotonic_ns(), end = ns == UINT64_MAX ? ns : now + ns;
    for (; now < end && (ns < UINT64_MAX || !atomic_load(&both->over)); now = clock_monotonic_ns())
        atomic_store(&both->alive_ns, now);
}

static void wait_for_the_end(void)
{
    while (!atomic_load(&both->over)) {
        atomic_store(&both->alive_ns, clock_monotonic_ns());
        sleep_ms(1);
    }
}

static void child_works(enum work work)
{
    struct cinf_meter *meter;
    ck_ok(
        cinf_meter_new(&meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .dollars_per_hour = "1" }));
    uint32_t model = world_model(meter, "m");
    struct cinf_bill *bill = world_bill(meter, model);
    struct cinf_share share = { .bill = bill, .decode_weight = 1 };
    if (work == WORK_IDLE)
        wait_for_the_end();
    cinf_meter_busy(meter);
    switch (work) {
    case WORK_STEPS:
        while (!atomic_load(&both->over)) {
            compute(5 * MS);
            cinf_meter_charge(meter, &share, 1);
        }
        break;
    case WORK_ONE_STEP:
        compute(UINT64_MAX);
        break;
    case WORK_LOAD:
        compute(UINT64_MAX);
        cinf_meter_charge_load(meter, model);
        break;
    case WORK_WAIT: /* as for a GPU */
        wait_for_the_end();
        break;
    case WORK_IDLE:
        break;
    }
    cinf_meter_charge(meter, &share, 1);
    cinf_meter_idle(meter);
    cinf_bill_close(bill, CINF_FINISH_STOP);
    both->report = world_report(bill);
    cinf_bill_free(bill);
    both->accounts.struct_size = sizeof both->accounts;
    ck_ok(cinf_meter_snapshot(&both->accounts, meter));
    check_snapshot(&both->accounts);
    cinf_snapshot_free(&both->accounts);
    cinf_meter_free(meter);
    fflush(NULL);
    _exit(0);
}

static void wait_until_alive(uint64_t since_ns)
{
    while (atomic_load(&both->alive_ns) <= since_ns)
        sleep_ms(1);
}

/* Returns the least and the most that can have been lost by all stops. */
static void stop_child(enum work work, int n_stops, uint64_t stop_ms, uint64_t *least, uint64_t *most)
{
    both = mmap(NULL, sizeof *both, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(both, MAP_FAILED);
    pid_t child = fork();
    if (child == 0)
        child_works(work);
    ck_assert_int_gt(child, 0);
    *least = *most = 0;
    for (int i = 0; i < n_stops; i++) {
        wait_until_alive(clock_monotonic_ns());
        sleep_ms(100);
        uint64_t before = clock_monotonic_ns();
        kill(child, SIGSTOP);
        ck_assert_int_eq(waitpid(child, NULL, WUNTRACED), child);
        uint64_t stopped = clock_monotonic_ns();
        sleep_ms(stop_ms);
        uint64_t going = clock_monotonic_ns();
        kill(child, SIGCONT);
        wait_until_alive(going);
        *least += going - stopped;
        *most += clock_monotonic_ns() - before;
    }
    sleep_ms(400);
    atomic_store(&both->over, true);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}

START_TEST(time_of_a_stopped_process_is_lost)
{
    static const enum work works[] = { WORK_STEPS, WORK_ONE_STEP, WORK_LOAD, WORK_IDLE, WORK_WAIT };
    int n_stops = _i < 5 ? 1 : 3;
    uint64_t least, most;
    stop_child(works[_i % 5], n_stops, 1000, &least, &most);
    uint64_t slack = (uint64_t)n_stops * BEAT_NS; /* the stop began up to a beat before it was noticed */
    const struct cinf_snapshot *a = &both->accounts;
    at_most(least, a->lost_ns + slack);
    /* On a crowded machine the heartbeat may run a while after the work does. */
    at_most(a->lost_ns, most + slack + (uint64_t)n_stops * 200 * MS);
    ck_assert_uint_eq(a->stalls, n_stops);
    ck_assert_uint_eq(a->serve_ns, both->report.device_ns);
    at_most(a->serve_ns + a->load_ns + a->idle_ns + least, a->as_of_ns + slack);
    if (works[_i % 5] != WORK_IDLE && works[_i % 5] != WORK_LOAD) {
        ck_assert_uint_eq(both->report.lost_ns, a->lost_ns);
        ck_assert_uint_eq(both->report.device_ns + both->report.lost_ns, both->report.latency_ns);
    }
    munmap(both, sizeof *both);
}
END_TEST

START_TEST(a_stop_below_the_limit_stays_where_it_was)
{
    uint64_t least, most;
    stop_child(WORK_STEPS, 1, 50, &least, &most);
    if (most < (uint64_t)STALL_NS)
        ck_assert_uint_eq(both->accounts.lost_ns, 0);
    munmap(both, sizeof *both);
}
END_TEST

/* ---- What is not lost ------------------------------------------------------------------------ */

START_TEST(a_crowded_machine_loses_nothing)
{
    pid_t others[6];
    for (int i = 0; i < 6; i++) {
        others[i] = fork();
        if (others[i] == 0)
            for (;;)
                (void)clock_monotonic_ns();
    }
    both = calloc(1, sizeof *both);
    struct cinf_meter *meter;
    ck_ok(cinf_meter_new(&meter, NULL));
    struct cinf_bill *bill = world_bill(meter, world_model(meter, "m"));
    cinf_meter_busy(meter);
    compute(1500 * MS);
    uint64_t computed = cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill }, 1);
    sleep_ms(600); /* a step on another device */
    uint64_t waited = cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill }, 1);
    cinf_meter_idle(meter);
    for (int i = 0; i < 6; i++) {
        kill(others[i], SIGKILL);
        waitpid(others[i], NULL, 0);
    }
    struct cinf_report r = world_report(bill);
    ck_assert_uint_eq(r.lost_ns, 0);
    ck_assert_uint_ge(computed, 1500 * MS);
    ck_assert_uint_ge(waited, 600 * MS);
    world_end(bill);
    cinf_meter_free(meter);
    free(both);
}
END_TEST

/* ---- The clock ------------------------------------------------------------------------------- */

START_TEST(time_goes_on_where_a_clock_goes_back)
{
    struct pulse p = { 0 };
    atomic_store(&world_clock, 5000 * MS);
    ck_ok(pulse_open(&p, world_now, NULL, NULL, false));
    world_pass(70);
    ck_assert_uint_eq(pulse_now(&p).ns, 70);
    atomic_fetch_sub(&world_clock, 20); /* another processor's clock */
    ck_assert_uint_eq(pulse_now(&p).ns, 70);
    ck_assert_uint_eq(p.n_steps, 0);
    world_pass(20);
    ck_assert_uint_eq(pulse_now(&p).ns, 70);
    atomic_store(&world_clock, 17); /* before the start, too */
    ck_assert_uint_eq(pulse_now(&p).ns, 70);
    ck_assert_uint_eq(p.n_steps, 1);
    world_pass(5);
    ck_assert_uint_eq(pulse_now(&p).ns, 75);
    world_pass(UINT64_C(1000000) * MS); /* a leap, which nothing shows to be one */
    ck_assert_uint_eq(pulse_now(&p).ns, UINT64_C(1000000) * MS + 75);
    ck_assert_uint_eq(p.n_steps, 1);
    pulse_close(&p);
}
END_TEST

START_TEST(bills_go_on_where_a_clock_goes_back)
{
    struct cinf_meter *meter = world_meter("1");
    struct cinf_bill *bill = world_bill(meter, world_model(meter, "m"));
    world_pass(100);
    cinf_meter_busy(meter);
    world_pass(1000);
    cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .output_tokens = 1 }, 1);
    atomic_store(&world_clock, 1);
    ck_assert_uint_eq(cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .output_tokens = 1 }, 1),
                      0);
    world_pass(500);
    ck_assert_uint_eq(cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .output_tokens = 1 }, 1),
                      500);
    struct cinf_report r = world_report(bill);
    ck_assert_uint_eq(r.latency_ns, 1500);
    ck_assert_uint_eq(r.device_ns, 1500);
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, meter));
    check_snapshot(&s);
    ck_assert_uint_eq(s.clock_steps, 1);
    ck_assert_uint_eq(s.stalls, 0);
    cinf_snapshot_free(&s);
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

/* ---- What a reading costs -------------------------------------------------------------------- */

START_TEST(a_charge_stays_cheap)
{
    struct cinf_meter *meter;
    ck_ok(cinf_meter_new(&meter, NULL));
    struct cinf_bill *bill = world_bill(meter, world_model(meter, "m"));
    uint64_t least = UINT64_MAX;
    for (int round = 0; round < 20; round++) {
        uint64_t before = clock_monotonic_ns();
        for (int i = 0; i < 1000; i++)
            cinf_meter_charge(meter, &(struct cinf_share){ .bill = bill, .decode_weight = 1 }, 1);
        uint64_t took = (clock_monotonic_ns() - before) / 1000;
        least = took < least ? took : least;
    }
    printf("a charge: %d ns\n", (int)least);
    ck_assert_uint_lt(least, 100000); /* with sanitizers, too; 0.2 us without */
    world_end(bill);
    cinf_meter_free(meter);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("pulse");
    TCase *t = tcase_create("pulse");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, time_of_a_stopped_process_is_lost, 0, 7);
    tcase_add_test(t, a_stop_below_the_limit_stays_where_it_was);
    tcase_add_test(t, a_crowded_machine_loses_nothing);
    tcase_add_test(t, time_goes_on_where_a_clock_goes_back);
    tcase_add_test(t, bills_go_on_where_a_clock_goes_back);
    tcase_add_test(t, a_charge_stays_cheap);
    suite_add_tcase(s, t);
    return s;
}
