/* The scheduler's policy: whose step is next, and who gets the slots of a paused request. */
#include "engine_fixture.h"

#include <pthread.h>
#include <time.h>

#include "engine_state.h"

/* A clock that advances only when it is read, by the same amount each time, so that the length of a step does
 * not depend on the machine.  While the gate is closed, it blocks the scheduler. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t tester;
    bool closed;
    bool blocks;       /* the scheduler waits at the gate */
    uint32_t close_at; /* it closes when the scheduler has read the clock so often; 0: it stays as it is */
    uint64_t ns;
} ticks = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static uint64_t tick(void *context)
{
    (void)context;
    pthread_mutex_lock(&ticks.lock);
    bool is_scheduler = !pthread_equal(pthread_self(), ticks.tester);
    if (is_scheduler && ticks.close_at > 0 && --ticks.close_at == 0)
        ticks.closed = true;
    while (is_scheduler && ticks.closed) {
        ticks.blocks = true;
        pthread_cond_broadcast(&ticks.changed);
        pthread_cond_wait(&ticks.changed, &ticks.lock);
    }
    uint64_t now = ticks.ns += 1000000;
    pthread_mutex_unlock(&ticks.lock);
    return now;
}

static void set_gate(bool closed)
{
    pthread_mutex_lock(&ticks.lock);
    ticks.tester = pthread_self();
    ticks.closed = closed;
    ticks.blocks = false;
    pthread_cond_broadcast(&ticks.changed);
    pthread_mutex_unlock(&ticks.lock);
}

/* Has the gate close when the scheduler has read the clock `n` times more. */
static void close_gate_after(uint32_t n)
{
    pthread_mutex_lock(&ticks.lock);
    ticks.tester = pthread_self();
    ticks.close_at = n;
    pthread_mutex_unlock(&ticks.lock);
}

static void wait_for_gate(void)
{
    pthread_mutex_lock(&ticks.lock);
    while (!ticks.blocks)
        pthread_cond_wait(&ticks.changed, &ticks.lock);
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

/* ---- Slots of paused requests ---------------------------------------------------------------- */

enum { TOKENS = 60, CHOICES = 3, TOP = 4 };

/* Everything that the events of a request have said. */
struct told {
    uint32_t n_events, n_tokens[CHOICES];
    int32_t tokens[CHOICES][TOKENS], top[CHOICES][TOKENS][TOP];
    float logprobs[CHOICES][TOKENS];
    char text[CHOICES][TOKENS * 16];
    enum cinf_finish finish[CHOICES], end;
    float prompt_logprobs[256];
    uint32_t n_prompt;
};

/* Pulls at most `max` events; true after the last. */
static bool read_events(struct told *told, struct cinf_request *r, uint32_t max)
{
    for (uint32_t n = 0; n < max; n++) {
        struct cinf_event event = { CINF_EVENT };
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
        told->n_events++;
        if (event.kind == CINF_EVENT_END) {
            told->end = event.finish;
            return true;
        }
        if (event.kind == CINF_EVENT_PROMPT) {
            told->prompt_logprobs[told->n_prompt++] = event.n_top ? event.logprob : 0;
            continue;
        }
        strcat(told->text[event.choice], event.text);
        if (event.kind == CINF_EVENT_FINISH) {
            told->finish[event.choice] = event.finish;
            continue;
        }
        uint32_t at = told->n_tokens[event.choice]++;
        told->tokens[event.choice][at] = event.token;
        for (uint32_t i = 0; i < event.n_top; i++)
            told->top[event.choice][at][i] = event.top[i].token;
        if (event.n_top > 0)
            told->logprobs[event.choice][at] = event.logprob;
    }
    return false;
}

static void load_slots(struct cinf_model **out, uint32_t slots)
{
    static char *folder;
    folder = folder ? folder : tiny_model();
    ck_ok(cinf_model_load(out, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = "tiny", .folder = folder,
                                                        .slots = slots }));
}

static bool is_parked(struct cinf_request *r)
{
    pthread_mutex_lock(&r->lock);
    bool parked = r->parked;
    pthread_mutex_unlock(&r->lock);
    return parked;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* Computes something else in all slots of the model, for which whatever is paused there must give up its own.
 */
static void fill_slots(uint32_t slots, struct cinf_report *sum)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "hgfedcbahhgg", .max_tokens = 40,
                                      .ignore_eos = true, .n = slots };
    struct cinf_result *result;
    ck_ok(cinf_generate(&result, small, &o, NULL, NULL));
    ck_assert_uint_eq(result->report.output_tokens, 40 * slots);
    sum->device_ns += result->report.device_ns;
    sum->input_tokens += result->report.input_tokens;
    cinf_result_free(result);
}

/* The prompts and samplings that a pause must not change. */
static const struct cinf_request_options paused_ones[] = {
    { CINF_REQUEST_OPTIONS, .prompt = "abcdefgh" },
    { CINF_REQUEST_OPTIONS, .prompt = "a", .temperature = 1.5f, .seed = 7 },
    { CINF_REQUEST_OPTIONS, .prompt = "abcabcabcabc", .temperature = 1, .top_p = 0.9f, .seed = 3, .n = 3 },
    { CINF_REQUEST_OPTIONS, .prompt = "abcdefghabcdefgh", .n = 2, .top_logprobs = TOP, .temperature = 2,
      .seed = 9, .repetition_penalty = 1.2f },
    { CINF_REQUEST_OPTIONS, .prompt = "abcdef", .top_logprobs = TOP, .prompt_logprobs = true },
    { CINF_REQUEST_OPTIONS, .prompt = "bcd", .stop = (const char *const[]){ "hgh", "aab", "cd" }, .n_stop = 3,
      .temperature = 3, .seed = 11 },
};

START_TEST(a_request_that_lost_its_slots_goes_on_as_if_it_had_not)
{
    struct cinf_request_options o = paused_ones[_i / 2];
    uint32_t slots = o.n ? o.n : 1;
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = getenv("CINF_TEST_DEVICE"),
                                               .dollars_per_hour = "2.50", .no_prefix_reuse = _i % 2 == 1 });
    load_slots(&small, slots);
    o.max_tokens = TOKENS;
    o.ignore_eos = true;
    static struct told alone, paused;
    alone = paused = (struct told){ 0 };
    struct cinf_request *r = submit(small, &o);
    ck_assert(read_events(&alone, r, UINT32_MAX));
    struct cinf_report whole = { CINF_REPORT }, before = whole, after = whole;
    cinf_request_report(r, &whole);
    cinf_request_free(r);

    /* It stops being read again and again, and each time another request fills the slots. */
    struct cinf_report others = whole;
    o.unread_max = 1;
    r = submit(small, &o);
    uint32_t times = 0;
    while (!read_events(&paused, r, times == 0 ? 1 : 7 * slots)) {
        if (times++ >= 4)
            continue;
        while (!is_parked(r) && !(cinf_request_report(r, &before), before.finish)) {
            fill_slots(slots, &others);
            cinf_request_report(r, &before);
        }
        /* While it is paused, nothing is charged to it. */
        cinf_request_report(r, &before);
        fill_slots(slots, &others);
        cinf_request_report(r, &after);
        ck_assert_uint_eq(after.device_ns, before.device_ns);
        ck_assert_uint_eq(after.output_tokens, before.output_tokens);
    }
    cinf_request_report(r, &after);
    cinf_request_free(r);
    ck_assert_mem_eq(&paused, &alone, sizeof alone);
    ck_assert_uint_eq(after.output_tokens, whole.output_tokens);
    ck_assert_uint_eq(after.input_tokens, whole.input_tokens);
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.serve_ns, others.device_ns + after.device_ns);
    check_identities(&s);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(a_prompt_that_lost_its_slot_is_counted_once)
{
    static float logits[2][200 * TINY_SIZE];
    static int32_t ids[200];
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt_ids = ids,
                                      .n_prompt_ids = 200,  .max_tokens = 3,
                                      .ignore_eos = true,   .prompt_logits = _i == 0 ? logits[0] : NULL };
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .prefill_rows = 4, .no_speculation = true,
                                               .dollars_per_hour = "2.50", .clock_ns = tick });
    load_slots(&small, 1);
    for (uint32_t i = 0; i < 200; i++)
        ids[i] = (int32_t)(i * 7 % 11 % 8);
    static struct told alone, paused;
    alone = paused = (struct told){ 0 };
    struct cinf_report whole = { CINF_REPORT }, before = whole, after = whole;
    struct cinf_request *r = submit(small, &o);
    ck_assert(read_events(&alone, r, UINT32_MAX));
    cinf_request_report(r, &whole);
    cinf_request_free(r);
    struct cinf_report others = whole;
    fill_slots(1, &others); /* so that nothing of the prompt is left */

    o.prompt_logits = _i == 0 ? logits[1] : NULL;
    close_gate_after(40);
    r = submit(small, &o);
    wait_for_gate();
    cinf_request_pause(r, true);
    set_gate(false);
    while (!is_parked(r))
        fill_slots(1, &others);
    cinf_request_report(r, &before);
    ck_assert_uint_gt(before.input_tokens, 0);
    ck_assert_uint_lt(before.input_tokens, 200);
    cinf_request_pause(r, false);
    ck_assert(read_events(&paused, r, UINT32_MAX));
    cinf_request_report(r, &after);
    cinf_request_free(r);
    ck_assert_mem_eq(&paused, &alone, sizeof alone);
    ck_assert_mem_eq(logits[0], logits[1], sizeof logits[0]);
    ck_assert_uint_eq(after.input_tokens, 200);
    ck_assert_uint_eq(after.cached_tokens, 0);
    ck_assert_uint_eq(after.output_tokens, 3);
    ck_assert_uint_gt(after.prefill_ns, whole.prefill_ns);
    struct cinf_snapshot s = snapshot_now();
    ck_assert_uint_eq(s.models[0].input_tokens, others.input_tokens + 200);
    ck_assert_uint_eq(s.serve_ns, others.device_ns + after.device_ns);
    check_identities(&s);
    cinf_snapshot_free(&s);
}
END_TEST

START_TEST(unread_requests_give_their_slots_to_those_that_wait)
{
    enum { UNREAD_STREAMS = 48 };
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "abcdefgh", .ignore_eos = true,
                                      .unread_max = 4 };
    struct cinf_request *streams[UNREAD_STREAMS];
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS });
    load_slots(&small, 16);
    for (uint32_t i = 0; i < UNREAD_STREAMS; i++) {
        o.seed = i + 1;
        o.temperature = 1;
        streams[i] = submit(small, &o);
    }
    struct cinf_report ignored = { CINF_REPORT };
    fill_slots(16, &ignored);
    /* All of them have had their turn. */
    for (uint32_t i = 0; i < UNREAD_STREAMS; i++) {
        struct cinf_report report = { CINF_REPORT };
        cinf_request_report(streams[i], &report);
        ck_assert_uint_gt(report.output_tokens, 0);
        ck_assert_int_eq(report.finish, CINF_FINISH_RUNNING);
    }
    /* Each can be cancelled, freed, or read to its end. */
    cinf_request_cancel(streams[0], CINF_FINISH_CLIENT_GONE);
    ck_assert_int_eq(wait_for_end(streams[0]), CINF_FINISH_CLIENT_GONE);
    for (uint32_t i = 1; i < 4; i++)
        ck_assert_int_eq(wait_for_end(streams[i]), CINF_FINISH_LENGTH);
    for (uint32_t i = 0; i < UNREAD_STREAMS; i++)
        cinf_request_free(streams[i]);
    ck_ok(cinf_model_unload(small));
}
END_TEST

START_TEST(a_short_pause_keeps_the_slot)
{
    struct cinf_request_options o = { CINF_REQUEST_OPTIONS, .prompt = "abcdefgh", .ignore_eos = true,
                                      .unread_max = 20 };
    open_engine(&(struct cinf_engine_options){ CINF_ENGINE_OPTIONS });
    load_slots(&small, 2);
    struct cinf_request *a = submit(small, &o), *b = submit(small, &o);
    struct told told = { 0 };
    ck_assert(!read_events(&told, a, 1));
    ck_assert(!read_events(&told, b, 1));
    cinf_request_pause(a, true);
    sleep_ms(100);
    /* Long pauses do as long as no request waits, and a free slot is preferred to a paused request's. */
    ck_assert(!is_parked(a));
    cinf_request_cancel(b, CINF_FINISH_CANCELLED);
    ck_assert_int_eq(wait_for_end(b), CINF_FINISH_CANCELLED);
    struct cinf_report ignored = { CINF_REPORT };
    fill_slots(1, &ignored);
    ck_assert(!is_parked(a));
    fill_slots(2, &ignored);
    ck_assert(is_parked(a));
    cinf_request_free(a);
    cinf_request_free(b);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("scheduler");
    TCase *t = case_of_engines();
    if (HAVE_DEMO_MODELS)
        tcase_add_test(t, two_busy_models_get_the_same_share);
    tcase_add_loop_test(t, a_request_that_lost_its_slots_goes_on_as_if_it_had_not, 0,
                        2 * sizeof paused_ones / sizeof *paused_ones);
    tcase_add_loop_test(t, a_prompt_that_lost_its_slot_is_counted_once, 0, 2);
    tcase_add_test(t, unread_requests_give_their_slots_to_those_that_wait);
    tcase_add_test(t, a_short_pause_keeps_the_slot);
    suite_add_tcase(s, t);
    return s;
}
