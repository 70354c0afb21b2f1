/* engine_fixture.h - an engine with one or both of the bundled models, for the tests of engine/.
 *
 * CINF_TEST_DEVICE names the device of the engine that setup() opens. */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "tiny_model.h"

static struct cinf_engine *engine;
static struct cinf_model *small, *large;

/* Under TSan even the small model takes minutes: there the tests that do not look at the text use a tiny
 * model, and the others do not run. */
#if defined(__SANITIZE_THREAD__)
enum { HAVE_DEMO_MODELS = 0 };
#else
enum { HAVE_DEMO_MODELS = 1 };
#endif

static inline const char *folder_of(const char *name)
{
    static char *tiny;
    if (!HAVE_DEMO_MODELS)
        return tiny ? tiny : (tiny = tiny_model());
    static char paths[2][4096];
    char *path = paths[strcmp(name, "stories-small") == 0];
    snprintf(path, 4096, "%s/%s", support_source("examples/models"), name);
    return path;
}

static inline void load(struct cinf_model **out, const char *name)
{
    ck_ok(cinf_model_load(
        out, engine,
        &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .name = name, .folder = folder_of(name) }));
}

static inline void open_engine(const struct cinf_engine_options *options)
{
    struct cinf_engine_options o = { CINF_ENGINE_OPTIONS, .device = getenv("CINF_TEST_DEVICE"),
                                     .dollars_per_hour = "2.50" };
    ck_ok(cinf_engine_open(&engine, options ? options : &o));
}

static inline void setup(void)
{
    open_engine(NULL);
    load(&small, "stories-small");
}

static inline void teardown(void)
{
    cinf_model_release(small);
    cinf_model_release(large);
    cinf_engine_close(engine);
    small = large = NULL;
    engine = NULL;
}

static inline struct cinf_snapshot snapshot_now(void)
{
    struct cinf_snapshot s = { CINF_SNAPSHOT };
    ck_ok(cinf_meter_snapshot(&s, cinf_engine_meter(engine)));
    return s;
}

static inline uint64_t sum_of_costs(const struct cinf_snapshot *s)
{
    return cinf_cost_add(cinf_cost_add(cinf_cost_add(s->serve_cost, s->load_cost), s->idle_cost),
                         cinf_cost_add(s->lost_cost, s->overhead_cost))
        .lo;
}

/* The identities that hold within every snapshot. */
static inline void check_identities(const struct cinf_snapshot *s)
{
    uint64_t serve = 0, load_ns = 0;
    ck_assert_uint_eq(s->serve_ns + s->load_ns + s->idle_ns + s->lost_ns + s->overhead_ns, s->as_of_ns);
    for (uint32_t i = 0; i < s->n_models; i++) {
        const struct cinf_model_totals *m = &s->models[i];
        ck_assert_uint_eq(m->prefill_ns + m->decode_ns, m->serve_ns);
        serve += m->serve_ns;
        load_ns += m->load_ns;
    }
    ck_assert_uint_eq(serve, s->serve_ns);
    ck_assert_uint_eq(load_ns, s->load_ns);
    ck_assert_uint_eq(sum_of_costs(s), s->as_of_ns * 2500000000u);
}

static inline struct cinf_request *submit(struct cinf_model *model, const struct cinf_request_options *o)
{
    struct cinf_request *r;
    ck_ok(cinf_request_submit(&r, model, o));
    return r;
}

static inline enum cinf_finish wait_for_end(struct cinf_request *r)
{
    struct cinf_event event = { CINF_EVENT };
    do
        ck_ok(cinf_request_next(r, UINT64_MAX, &event));
    while (event.kind != CINF_EVENT_END);
    return event.finish;
}

/* Tests that find an engine with the small model. */
static inline TCase *case_with_engine(void)
{
    TCase *t = tcase_create("one engine");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    return t;
}

/* Tests that open engines with open_engine(). */
static inline TCase *case_of_engines(void)
{
    TCase *t = tcase_create("engines of their own");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, NULL, teardown);
    return t;
}

#endif
