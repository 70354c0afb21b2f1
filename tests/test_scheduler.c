/* The scheduler's policy: whose step is next. */
#include "engine_fixture.h"

#include <pthread.h>

/* A clock that advances only when it is read, by the same amount each time, so that the length of a step does
 * not depend on the machine.  While the gate is closed, it blocks the scheduler. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    pthread_t tester;
    bool closed;
    uint64_t ns;
} ticks = { .lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER };

static uint64_t tick(void *context)
{
    (void)context;
    pthread_mutex_lock(&ticks.lock);
    while (ticks.closed && !pthread_equal(pthread_self(), ticks.tester))
        pthread_cond_wait(&ticks.opened, &ticks.lock);
    uint64_t now = ticks.ns += 1000000;
    pthread_mutex_unlock(&ticks.lock);
    return now;
}

static void set_gate(bool closed)
{
    pthread_mutex_lock(&ticks.lock);
    ticks.tester = pthread_self();
    ticks.closed = closed;
    pthread_cond_broadcast(&ticks.opened);
    pthread_mutex_unlock(&ticks.lock);
}

static void open_ticking_engine(void)
{
    open_engine(
        &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .no_speculation = true, .clock_ns = tick });
    load(&small, "stories-small");
}

START_TEST(two_busy_models_get_the_same_share)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .ignore_eos = true, .max_tokens = 100 };
    struct cinf_request *r[8];
    struct cinf_report report[8];
    open_ticking_engine();
    load(&large, "stories-large");
    set_gate(true);
    for (int i = 0; i < 8; i++)
        r[i] = submit(i % 2 ? small : large, &o);
    set_gate(false);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(wait_for_end(r[i]), CINF_FINISH_LENGTH);
        report[i] = (struct cinf_report){ CINF_REPORT };
        cinf_request_report(r[i], &report[i]);
        cinf_request_free(r[i]);
    }
    /* Both have equally many steps of equal length, so they alternate to the end.  Served one after the
     * other, the first would have ended in half the time. */
    for (int i = 1; i < 8; i++) {
        uint64_t a = report[0].latency_ns, b = report[i].latency_ns;
        ck_assert_msg((a > b ? a - b : b - a) < a / 20, "%llu against %llu ns", (unsigned long long)a,
                      (unsigned long long)b);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("scheduler");
    TCase *t = case_of_engines();
    if (HAVE_DEMO_MODELS)
        tcase_add_test(t, two_busy_models_get_the_same_share);
    suite_add_tcase(s, t);
    return s;
}
