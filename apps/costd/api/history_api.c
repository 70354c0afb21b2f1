/* history_api.c - GET /api/history and /api/recent: what the built-in page draws.
 *
 * The totals of a range are a snapshot of this moment minus the sample at the range's beginning, so they
 * agree with /metrics; the points end with the last sample.  Seconds and costs are exact decimals. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <costinfer/costinfer.h>

#include "access_log.h"
#include "admission.h"
#include "answer.h"
#include "encoding.h"
#include "fail.h"
#include "fleet.h"
#include "handlers.h"
#include "json_write.h"
#include "mem.h"
#include "problem.h"
#include "recorder.h"
#include "report.h"
#include "service.h"

#define DAY_NS UINT64_C(86400000000000)

static const struct range {
    const char *name;
    uint64_t ns;
} ranges[] = {
    { "15m", UINT64_C(900000000000) },
    { "1h", UINT64_C(3600000000000) },
    { "6h", UINT64_C(21600000000000) },
    { "24h", DAY_NS },
};

static const struct range *find_range(const char *name)
{
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (strcmp(ranges[i].name, name) == 0)
            return &ranges[i];
    return NULL;
}

/* ---- Writing ------------------------------------------------------------------------------ */

/* A decimal string, so that no reader rounds it. */
static void put_dollars(struct json_writer *w, const char *key, struct cinf_cost cost)
{
    char text[CINF_COST_TEXT_MAX];
    json_put_text(w, key, cinf_cost_format(text, cost));
}

static void put_nanodollars(struct json_writer *w, const char *key, bool present, uint64_t value)
{
    if (present)
        put_dollars(w, key, cinf_cost_of(UINT64_C(3600000000000), value));
    else
        json_put_null(w, key);
}

static double unix_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- One answer --------------------------------------------------------------------------- */

struct answer {
    struct json_writer *w;
    struct service *service;
    const struct history *history;
    const struct cinf_snapshot *now;
    uint64_t now_ns;
    struct history_window window;
};

static struct history_device device_minus(struct history_device a, const struct history_device *b)
{
    a.serve_ns -= b->serve_ns;
    a.load_ns -= b->load_ns;
    a.idle_ns -= b->idle_ns;
    a.lost_ns -= b->lost_ns;
    a.overhead_ns -= b->overhead_ns;
    a.unpriced_ns -= b->unpriced_ns;
    a.serve_cost = history_cost_minus(a.serve_cost, b->serve_cost);
    a.load_cost = history_cost_minus(a.load_cost, b->load_cost);
    a.idle_cost = history_cost_minus(a.idle_cost, b->idle_cost);
    a.lost_cost = history_cost_minus(a.lost_cost, b->lost_cost);
    a.overhead_cost = history_cost_minus(a.overhead_cost, b->overhead_cost);
    return a;
}

static struct history_model model_minus(struct history_model a, const struct history_model *b)
{
    /* The account was given to another model's name since, and began again. */
    if (a.requests < b->requests || a.load_ns < b->load_ns || a.prefill_ns < b->prefill_ns ||
        a.decode_ns < b->decode_ns)
        return a;
    a.prefill_ns -= b->prefill_ns;
    a.decode_ns -= b->decode_ns;
    a.load_ns -= b->load_ns;
    a.unpriced_ns -= b->unpriced_ns;
    a.serve_cost = history_cost_minus(a.serve_cost, b->serve_cost);
    a.load_cost = history_cost_minus(a.load_cost, b->load_cost);
    a.input_tokens -= b->input_tokens;
    a.cached_tokens -= b->cached_tokens;
    a.output_tokens -= b->output_tokens;
    a.requests -= b->requests;
    a.errors -= b->errors;
    return a;
}

static struct cinf_cost bill(const struct history_device *d)
{
    struct cinf_cost sum = cinf_cost_add(cinf_cost_add(d->serve_cost, d->load_cost), d->idle_cost);
    return cinf_cost_add(sum, cinf_cost_add(d->lost_cost, d->overhead_cost));
}

static void put_device(struct json_writer *w, const char *key, const struct history_device *d)
{
    json_open_object(w, key);
    json_put_seconds(w, "serve_seconds", d->serve_ns);
    json_put_seconds(w, "load_seconds", d->load_ns);
    json_put_seconds(w, "idle_seconds", d->idle_ns);
    json_put_seconds(w, "lost_seconds", d->lost_ns);
    json_put_seconds(w, "overhead_seconds", d->overhead_ns);
    json_put_seconds(w, "unpriced_seconds", d->unpriced_ns);
    put_dollars(w, "serve_cost", d->serve_cost);
    put_dollars(w, "load_cost", d->load_cost);
    put_dollars(w, "idle_cost", d->idle_cost);
    put_dollars(w, "lost_cost", d->lost_cost);
    put_dollars(w, "overhead_cost", d->overhead_cost);
    put_dollars(w, "cost", bill(d));
    json_close(w);
}

static void put_quantiles(struct json_writer *w, const char *key, const struct history_quantiles *q)
{
    if (!q->n) {
        json_put_null(w, key);
        return;
    }
    json_open_object(w, key);
    json_put_u64(w, "n", q->n);
    json_put_seconds(w, "p50", q->p50_ns);
    json_put_seconds(w, "p95", q->p95_ns);
    json_close(w);
}

static void put_model_sums(struct json_writer *w, const char *key, const struct history_model *m)
{
    json_open_object(w, key);
    json_put_seconds(w, "serve_seconds", m->prefill_ns + m->decode_ns);
    json_put_seconds(w, "prefill_seconds", m->prefill_ns);
    json_put_seconds(w, "decode_seconds", m->decode_ns);
    json_put_seconds(w, "load_seconds", m->load_ns);
    json_put_seconds(w, "unpriced_seconds", m->unpriced_ns);
    put_dollars(w, "serve_cost", m->serve_cost);
    put_dollars(w, "load_cost", m->load_cost);
    json_put_u64(w, "input_tokens", m->input_tokens);
    json_put_u64(w, "cached_tokens", m->cached_tokens);
    json_put_u64(w, "output_tokens", m->output_tokens);
    json_put_u64(w, "requests", m->requests);
    json_put_u64(w, "errors", m->errors);
    json_close(w);
}

/* ---- Points ------------------------------------------------------------------------------- */

enum device_point {
    SERVE_S,
    LOAD_S,
    IDLE_S,
    LOST_S,
    OVERHEAD_S,
    LOAD_COST,
    IDLE_COST,
    LOST_COST,
    OVERHEAD_COST,
    DEVICE_BYTES,
    PROCESS_BYTES,
    DEVICE_POINTS
};
static const char *const device_point_names[] = {
    "serve_seconds", "load_seconds", "idle_seconds",  "lost_seconds", "overhead_seconds", "load_cost",
    "idle_cost",     "lost_cost",    "overhead_cost", "device_bytes", "process_bytes",
};

/* One point: seconds to the microsecond, which is finer than a pixel. */
static void put_ns(struct json_writer *w, uint64_t ns)
{
    json_put_format(w, NULL, "%" PRIu64 ".%06" PRIu64, ns / 1000000000, ns % 1000000000 / 1000);
}

static void put_amount(struct json_writer *w, struct cinf_cost cost)
{
    char text[CINF_COST_TEXT_MAX];
    json_put_format(w, NULL, "%s", cinf_cost_format(text, cost));
}

static void put_device_point(struct json_writer *w, enum device_point what, const struct history_device *d)
{
    switch (what) {
    case SERVE_S:
        put_ns(w, d->serve_ns);
        break;
    case LOAD_S:
        put_ns(w, d->load_ns);
        break;
    case IDLE_S:
        put_ns(w, d->idle_ns);
        break;
    case LOST_S:
        put_ns(w, d->lost_ns);
        break;
    case OVERHEAD_S:
        put_ns(w, d->overhead_ns);
        break;
    case LOAD_COST:
        put_amount(w, d->load_cost);
        break;
    case IDLE_COST:
        put_amount(w, d->idle_cost);
        break;
    case LOST_COST:
        put_amount(w, d->lost_cost);
        break;
    case OVERHEAD_COST:
        put_amount(w, d->overhead_cost);
        break;
    case DEVICE_BYTES:
        json_put_u64(w, NULL, d->device_bytes);
        break;
    default:
        json_put_u64(w, NULL, d->process_bytes);
        break;
    }
}

static uint64_t point_tick(const struct answer *a, uint32_t i)
{
    return a->window.first + (uint64_t)i * a->window.step;
}

static void put_device_points(const struct answer *a, enum device_point what)
{
    struct history_device from, to;
    json_open_array(a->w, device_point_names[what]);
    for (uint32_t i = 0; i < a->window.n_points; i++) {
        if (history_device_at(a->history, point_tick(a, i), &from) &&
            history_device_at(a->history, point_tick(a, i + 1), &to)) {
            to = device_minus(to, &from);
            put_device_point(a->w, what, &to);
        } else {
            json_put_null(a->w, NULL);
        }
    }
    json_close(a->w);
}

enum model_point {
    M_SERVE_S,
    M_COST,
    M_INPUT,
    M_OUTPUT,
    M_REQUESTS,
    M_ERRORS,
    M_WAITING,
    M_P50,
    M_P95,
    M_FIRST_P50,
    M_FIRST_P95,
    MODEL_POINTS
};
static const char *const model_point_names[] = {
    "serve_seconds", "serve_cost",  "input_tokens", "output_tokens",   "requests",        "errors",
    "waiting",       "latency_p50", "latency_p95",  "first_token_p50", "first_token_p95",
};

static void put_quantile(struct json_writer *w, const struct history_quantiles *q, uint64_t ns)
{
    if (q->n)
        put_ns(w, ns);
    else
        json_put_null(w, NULL);
}

static void put_model_point(struct json_writer *w, enum model_point what, const struct history_model *m,
                            const struct history_latency *l)
{
    switch (what) {
    case M_SERVE_S:
        put_ns(w, m->prefill_ns + m->decode_ns);
        break;
    case M_COST:
        put_amount(w, m->serve_cost);
        break;
    case M_INPUT:
        json_put_u64(w, NULL, m->input_tokens);
        break;
    case M_OUTPUT:
        json_put_u64(w, NULL, m->output_tokens);
        break;
    case M_REQUESTS:
        json_put_u64(w, NULL, m->requests);
        break;
    case M_ERRORS:
        json_put_u64(w, NULL, m->errors);
        break;
    case M_WAITING:
        json_put_u64(w, NULL, m->waiting);
        break;
    case M_P50:
        put_quantile(w, &l->latency, l->latency.p50_ns);
        break;
    case M_P95:
        put_quantile(w, &l->latency, l->latency.p95_ns);
        break;
    case M_FIRST_P50:
        put_quantile(w, &l->first_token, l->first_token.p50_ns);
        break;
    default:
        put_quantile(w, &l->first_token, l->first_token.p95_ns);
        break;
    }
}

static void put_model_points(const struct answer *a, uint32_t series, enum model_point what)
{
    struct history_model from, to;
    json_open_array(a->w, model_point_names[what]);
    for (uint32_t i = 0; i < a->window.n_points; i++) {
        uint64_t begin = point_tick(a, i), end = point_tick(a, i + 1);
        if (history_model_at(a->history, series, begin, &from) &&
            history_model_at(a->history, series, end, &to)) {
            struct history_latency latency = { 0 };
            if (what >= M_P50)
                latency = history_latency(a->history, series, begin, (int64_t)end);
            to = model_minus(to, &from);
            put_model_point(a->w, what, &to, &latency);
        } else {
            json_put_null(a->w, NULL);
        }
    }
    json_close(a->w);
}

static void put_times(const struct answer *a, double now)
{
    json_open_array(a->w, "times");
    for (uint32_t i = 0; i < a->window.n_points; i++) {
        int64_t ago_ns = (int64_t)a->now_ns - (int64_t)(point_tick(a, i + 1) * HISTORY_TICK_NS);
        json_put_i64(a->w, NULL, (int64_t)(now - (double)ago_ns / 1e9 + 0.5));
    }
    json_close(a->w);
}

/* ---- Parts -------------------------------------------------------------------------------- */

static void put_model(const struct answer *a, uint32_t series)
{
    struct json_writer *w = a->w;
    bool others = series == HISTORY_OTHERS;
    struct history_model all = history_model_of(a->now, series), before = { 0 };
    struct history_latency latency = history_latency(a->history, series, a->window.base, HISTORY_NOW);
    json_open_object(w, NULL);
    json_put_text(w, "name", others ? "other models" : a->now->models[series].name);
    json_put_bool(w, "loaded", others || a->now->models[series].loaded);
    json_put_u64(w, "running", all.running);
    json_put_u64(w, "waiting", all.waiting);
    put_model_sums(w, "since_start", &all);
    history_model_at(a->history, series, a->window.base, &before);
    all = model_minus(all, &before);
    put_model_sums(w, "range", &all);
    put_quantiles(w, "latency", &latency.latency);
    put_quantiles(w, "first_token", &latency.first_token);
    json_open_object(w, "points");
    for (uint32_t what = 0; what < MODEL_POINTS; what++)
        put_model_points(a, series, (enum model_point)what);
    json_close(w);
    json_close(w);
}

/* Differs after each restart, so that a reader notices that totals began anew. */
static void put_run(struct json_writer *w, const struct service *service)
{
    char run[20];
    snprintf(run, sizeof run, "%016" PRIx64, recorder_run(service->recorder));
    json_put_text(w, "run", run);
}

static void put_daemon(const struct answer *a)
{
    struct json_writer *w = a->w;
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    const struct cinf_price_period *price = &a->now->prices[a->now->n_prices - 1];
    uint64_t budget = fleet_daily_budget(a->service->fleet);
    cinf_engine_device(a->service->engine, &device);
    put_run(w, a->service);
    json_put_text(w, "version", cinf_version());
    json_open_object(w, "device");
    json_put_text(w, "name", device.name);
    json_put_text(w, "description", device.description);
    json_put_bool(w, "gpu", device.is_gpu);
    json_put_u64(w, "memory_total_bytes", device.memory_total);
    json_put_u64(w, "memory_used_bytes", device.memory_used);
    json_put_u64(w, "process_bytes", recorder_process_bytes());
    json_close(w);
    json_put_text(w, "basis", a->now->basis == CINF_BASIS_CPU ? "cpu" : "wall");
    put_nanodollars(w, "dollars_per_hour", price->priced, price->nanodollars_per_hour);
    put_nanodollars(w, "daily_budget", budget != 0, budget);
}

static void put_bills(const struct answer *a)
{
    struct history_device all = history_device_of(a->now), before = { 0 }, range, day;
    struct history_window w = history_window(a->history, a->now_ns, DAY_NS);
    history_device_at(a->history, a->window.base, &before);
    range = device_minus(all, &before);
    before = (struct history_device){ 0 };
    history_device_at(a->history, w.base, &before);
    day = device_minus(all, &before);
    put_device(a->w, "since_start", &all);
    put_device(a->w, "range_total", &range);
    put_device(a->w, "day_total", &day);
}

static void put_history(const struct answer *a, const struct range *range)
{
    double now = unix_now();
    struct json_writer *w = a->w;
    uint64_t base_ns = a->window.base * HISTORY_TICK_NS;
    uint64_t covered = a->now_ns > base_ns ? a->now_ns - base_ns : 0;
    json_open_object(w, NULL);
    put_daemon(a);
    json_put_format(w, "now", "%.3f", now);
    json_put_text(w, "range", range->name);
    json_put_u64(w, "range_seconds", range->ns / 1000000000);
    json_put_seconds(w, "uptime_seconds", a->now_ns);
    json_put_seconds(w, "covered_seconds", covered);
    json_put_u64(w, "step_seconds", a->window.step * (HISTORY_TICK_NS / 1000000000));
    put_bills(a);
    put_times(a, now);
    json_open_object(w, "points");
    for (uint32_t what = 0; what < DEVICE_POINTS; what++)
        put_device_points(a, (enum device_point)what);
    json_close(w);
    json_open_array(w, "models");
    uint32_t n = history_n_series(a->now);
    for (uint32_t i = 0; i < n; i++)
        put_model(a, i);
    json_close(w);
    json_close(w);
    strbuf_putc(w->out, '\n');
}

void get_history(struct exchange *x, const char *unused)
{
    struct service *service = service_of(x);
    const char *name = exchange_query(x, "range");
    const struct range *range = find_range(name ? name : "1h");
    struct cinf_snapshot now = { CINF_SNAPSHOT };
    struct strbuf out = { 0 };
    (void)unused;
    if (!range) {
        problem_answer(x, cinf_fail(CINF_EINVAL, "\"range\" must be 15m, 1h, 6h or 24h"), "range",
                       NO_ACCOUNT);
        return;
    }
    /* Taken while the history is held, so that no sample is newer than the snapshot. */
    const struct history *history = recorder_hold(service->recorder);
    enum cinf_status status = cinf_meter_snapshot(&now, cinf_engine_meter(service->engine));
    if (status == CINF_OK) {
        struct json_writer w = json_write_to(&out);
        struct answer a = { .w = &w, .service = service, .history = history, .now = &now };
        a.now_ns = recorder_now(service->recorder);
        a.window = history_window(history, a.now_ns, range->ns);
        put_history(&a, range);
    }
    recorder_release(service->recorder);
    if (status == CINF_OK && out.failed)
        status = cinf_fail(CINF_ENOMEM, "no memory for the answer");
    if (status == CINF_OK)
        encoding_send(x, "application/json", out.text, out.len);
    else
        problem_answer(x, status, NULL, NO_ACCOUNT);
    strbuf_free(&out);
    cinf_snapshot_free(&now);
}

/* ---- The last requests -------------------------------------------------------------------- */

static void put_recent(struct json_writer *w, const struct recent *r, const struct cinf_snapshot *now)
{
    const struct cinf_report *report = &r->report;
    json_open_object(w, NULL);
    json_put_format(w, "ended", "%" PRId64 ".%03d", r->ended_unix_ms / 1000, (int)(r->ended_unix_ms % 1000));
    json_put_text(w, "id", r->id);
    json_put_u64(w, "status", r->status);
    json_put_text(w, "endpoint", r->endpoint);
    json_put_bool(w, "stream", r->stream);
    json_put_text(w, "model", report->model < now->n_models ? now->models[report->model].name : "");
    REPORT_WRITE(w, report, REPORT_FINISH, REPORT_INPUT_TOKENS, REPORT_CACHED_TOKENS, REPORT_OUTPUT_TOKENS,
                 REPORT_QUEUE_SECONDS, REPORT_PREFILL_SECONDS, REPORT_DECODE_SECONDS, REPORT_LATENCY_SECONDS,
                 REPORT_DEVICE_SECONDS);
    report_write_cost_text(w, "cost", report);
    json_close(w);
}

void get_recent(struct exchange *x, const char *unused)
{
    struct service *service = service_of(x);
    struct cinf_snapshot now = { CINF_SNAPSHOT };
    struct strbuf out = { 0 };
    struct recent *list = mem_new(RECENT_MAX, sizeof *list);
    bool all = sees_all_figures(x);
    uint32_t key = access_of(x)->key;
    (void)unused;
    enum cinf_status status =
        list ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for the last %d requests", RECENT_MAX);
    uint32_t n = list ? recorder_recent(service->recorder, list) : 0;
    if (status == CINF_OK)
        status = cinf_meter_snapshot(&now, cinf_engine_meter(service->engine));
    if (status == CINF_OK) {
        struct json_writer w = json_write_to(&out);
        json_open_object(&w, NULL);
        put_run(&w, service);
        json_open_array(&w, "requests");
        for (uint32_t i = 0; i < n; i++)
            if (all || list[i].key == key)
                put_recent(&w, &list[i], &now);
        json_close(&w);
        json_close(&w);
        strbuf_putc(&out, '\n');
        answer_json(x, 200, &out);
        cinf_snapshot_free(&now);
    } else {
        problem_answer(x, status, NULL, NO_ACCOUNT);
    }
    mem_free(list);
}
