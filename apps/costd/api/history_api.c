/* history_api.c - GET /api/history and /api/recent: what the built-in page draws.
 *
 * The totals of a range are a snapshot of this moment minus the sample at the range's beginning, so they are
 * what /metrics shows now; the points end with the last sample.  Seconds and costs are exact decimals. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <costinfer/costinfer.h>

#include "fail.h"
#include "fields.h"
#include "fleet.h"
#include "handlers.h"
#include "mem.h"
#include "problem.h"
#include "recorder.h"
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

static void key(struct strbuf *out, const char *name)
{
    strbuf_printf(out, ",\"%s\":", name);
}

static void seconds(struct strbuf *out, const char *name, uint64_t ns)
{
    strbuf_putc(out, ',');
    put_seconds(out, name, ns);
}

static void integer(struct strbuf *out, const char *name, uint64_t value)
{
    strbuf_putc(out, ',');
    put_count(out, name, value);
}

/* A decimal string, so that no reader rounds it. */
static void dollars(struct strbuf *out, const char *name, struct cinf_cost cost)
{
    char text[CINF_COST_TEXT_MAX];
    strbuf_printf(out, ",\"%s\":\"%s\"", name, cinf_cost_format(text, cost));
}

static void nanodollars(struct strbuf *out, const char *name, bool present, uint64_t value)
{
    if (present)
        dollars(out, name, cinf_cost_of(UINT64_C(3600000000000), value));
    else
        strbuf_printf(out, ",\"%s\":null", name);
}

static double unix_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- One answer --------------------------------------------------------------------------- */

struct answer {
    struct strbuf *out;
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
    a.unpriced_ns -= b->unpriced_ns;
    a.serve_cost = history_cost_minus(a.serve_cost, b->serve_cost);
    a.load_cost = history_cost_minus(a.load_cost, b->load_cost);
    a.idle_cost = history_cost_minus(a.idle_cost, b->idle_cost);
    return a;
}

static struct history_model model_minus(struct history_model a, const struct history_model *b)
{
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
    return cinf_cost_add(cinf_cost_add(d->serve_cost, d->load_cost), d->idle_cost);
}

/* The device's accounts; the first member follows an opening brace. */
static void put_device(struct strbuf *out, const char *name, const struct history_device *d)
{
    key(out, name);
    strbuf_putc(out, '{');
    put_seconds(out, "serve_seconds", d->serve_ns);
    seconds(out, "load_seconds", d->load_ns);
    seconds(out, "idle_seconds", d->idle_ns);
    seconds(out, "unpriced_seconds", d->unpriced_ns);
    dollars(out, "serve_cost", d->serve_cost);
    dollars(out, "load_cost", d->load_cost);
    dollars(out, "idle_cost", d->idle_cost);
    dollars(out, "cost", bill(d));
    strbuf_putc(out, '}');
}

static void put_quantiles(struct strbuf *out, const char *name, const struct history_quantiles *q)
{
    key(out, name);
    if (!q->n) {
        strbuf_puts(out, "null");
        return;
    }
    strbuf_putc(out, '{');
    put_count(out, "n", q->n);
    seconds(out, "p50", q->p50_ns);
    seconds(out, "p95", q->p95_ns);
    strbuf_putc(out, '}');
}

static void put_model_sums(struct strbuf *out, const char *name, const struct history_model *m)
{
    key(out, name);
    strbuf_putc(out, '{');
    put_seconds(out, "serve_seconds", m->prefill_ns + m->decode_ns);
    seconds(out, "prefill_seconds", m->prefill_ns);
    seconds(out, "decode_seconds", m->decode_ns);
    seconds(out, "load_seconds", m->load_ns);
    seconds(out, "unpriced_seconds", m->unpriced_ns);
    dollars(out, "serve_cost", m->serve_cost);
    dollars(out, "load_cost", m->load_cost);
    integer(out, "input_tokens", m->input_tokens);
    integer(out, "cached_tokens", m->cached_tokens);
    integer(out, "output_tokens", m->output_tokens);
    integer(out, "requests", m->requests);
    integer(out, "errors", m->errors);
    strbuf_putc(out, '}');
}

/* ---- Points ------------------------------------------------------------------------------- */

enum device_point {
    SERVE_S,
    LOAD_S,
    IDLE_S,
    IDLE_COST,
    LOAD_COST,
    DEVICE_BYTES,
    PROCESS_BYTES,
    DEVICE_POINTS
};
static const char *const device_point_names[] = { "serve_seconds", "load_seconds", "idle_seconds",
                                                  "idle_cost",     "load_cost",    "device_bytes",
                                                  "process_bytes" };

static void put_ns(struct strbuf *out, uint64_t ns)
{
    strbuf_printf(out, "%" PRIu64 ".%06" PRIu64, ns / 1000000000, ns % 1000000000 / 1000);
}

static void put_amount(struct strbuf *out, struct cinf_cost cost)
{
    char text[CINF_COST_TEXT_MAX];
    strbuf_puts(out, cinf_cost_format(text, cost));
}

static void put_device_point(struct strbuf *out, enum device_point what, const struct history_device *d)
{
    switch (what) {
    case SERVE_S:
        put_ns(out, d->serve_ns);
        break;
    case LOAD_S:
        put_ns(out, d->load_ns);
        break;
    case IDLE_S:
        put_ns(out, d->idle_ns);
        break;
    case IDLE_COST:
        put_amount(out, d->idle_cost);
        break;
    case LOAD_COST:
        put_amount(out, d->load_cost);
        break;
    case DEVICE_BYTES:
        strbuf_put_u64(out, d->device_bytes);
        break;
    default:
        strbuf_put_u64(out, d->process_bytes);
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
    strbuf_putc(a->out, '[');
    for (uint32_t i = 0; i < a->window.n_points; i++) {
        strbuf_puts(a->out, i ? "," : "");
        if (history_device_at(a->history, point_tick(a, i), &from) &&
            history_device_at(a->history, point_tick(a, i + 1), &to)) {
            to = device_minus(to, &from);
            put_device_point(a->out, what, &to);
        } else {
            strbuf_puts(a->out, "null");
        }
    }
    strbuf_putc(a->out, ']');
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

static void put_quantile(struct strbuf *out, const struct history_quantiles *q, uint64_t ns)
{
    if (q->n)
        put_ns(out, ns);
    else
        strbuf_puts(out, "null");
}

static void put_model_point(struct strbuf *out, enum model_point what, const struct history_model *m,
                            const struct history_latency *l)
{
    switch (what) {
    case M_SERVE_S:
        put_ns(out, m->prefill_ns + m->decode_ns);
        break;
    case M_COST:
        put_amount(out, m->serve_cost);
        break;
    case M_INPUT:
        strbuf_put_u64(out, m->input_tokens);
        break;
    case M_OUTPUT:
        strbuf_put_u64(out, m->output_tokens);
        break;
    case M_REQUESTS:
        strbuf_put_u64(out, m->requests);
        break;
    case M_ERRORS:
        strbuf_put_u64(out, m->errors);
        break;
    case M_WAITING:
        strbuf_put_u64(out, m->waiting);
        break;
    case M_P50:
        put_quantile(out, &l->latency, l->latency.p50_ns);
        break;
    case M_P95:
        put_quantile(out, &l->latency, l->latency.p95_ns);
        break;
    case M_FIRST_P50:
        put_quantile(out, &l->first_token, l->first_token.p50_ns);
        break;
    default:
        put_quantile(out, &l->first_token, l->first_token.p95_ns);
        break;
    }
}

static void put_model_points(const struct answer *a, uint32_t series, enum model_point what)
{
    struct history_model from, to;
    strbuf_putc(a->out, '[');
    for (uint32_t i = 0; i < a->window.n_points; i++) {
        uint64_t begin = point_tick(a, i), end = point_tick(a, i + 1);
        strbuf_puts(a->out, i ? "," : "");
        if (history_model_at(a->history, series, begin, &from) &&
            history_model_at(a->history, series, end, &to)) {
            struct history_latency latency = { 0 };
            if (what >= M_P50)
                latency = history_latency(a->history, series, begin, (int64_t)end);
            to = model_minus(to, &from);
            put_model_point(a->out, what, &to, &latency);
        } else {
            strbuf_puts(a->out, "null");
        }
    }
    strbuf_putc(a->out, ']');
}

static void put_times(const struct answer *a, double now)
{
    strbuf_putc(a->out, '[');
    for (uint32_t i = 0; i < a->window.n_points; i++) {
        int64_t ago_ns = (int64_t)a->now_ns - (int64_t)(point_tick(a, i + 1) * HISTORY_TICK_NS);
        strbuf_printf(a->out, "%s%" PRId64, i ? "," : "", (int64_t)(now - (double)ago_ns / 1e9 + 0.5));
    }
    strbuf_putc(a->out, ']');
}

/* ---- Parts -------------------------------------------------------------------------------- */

static void put_model(const struct answer *a, uint32_t series)
{
    const char *name = series == HISTORY_OTHERS ? "other models" : a->now->models[series].name;
    struct history_model all = history_model_of(a->now, series), before = { 0 };
    struct history_latency latency = history_latency(a->history, series, a->window.base, HISTORY_NOW);
    strbuf_puts(a->out, series ? ",{" : "{");
    put_text(a->out, "name", name, strlen(name));
    key(a->out, "loaded");
    strbuf_puts(a->out, series == HISTORY_OTHERS || a->now->models[series].loaded ? "true" : "false");
    integer(a->out, "running", all.running);
    integer(a->out, "waiting", all.waiting);
    put_model_sums(a->out, "since_start", &all);
    history_model_at(a->history, series, a->window.base, &before);
    all = model_minus(all, &before);
    put_model_sums(a->out, "range", &all);
    put_quantiles(a->out, "latency", &latency.latency);
    put_quantiles(a->out, "first_token", &latency.first_token);
    key(a->out, "points");
    for (uint32_t what = 0; what < MODEL_POINTS; what++) {
        strbuf_printf(a->out, "%s\"%s\":", what ? "," : "{", model_point_names[what]);
        put_model_points(a, series, (enum model_point)what);
    }
    strbuf_puts(a->out, "}}");
}

static void put_daemon(const struct answer *a)
{
    struct strbuf *out = a->out;
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    const struct cinf_price_period *price = &a->now->prices[a->now->n_prices - 1];
    uint64_t budget = fleet_daily_budget(a->service->fleet);
    cinf_engine_device(a->service->engine, &device);
    strbuf_printf(out, "\"run\":\"%016" PRIx64 "\",\"version\":\"%s\"", recorder_run(a->service->recorder),
                  cinf_version());
    key(out, "device");
    strbuf_putc(out, '{');
    put_text(out, "name", device.name, strlen(device.name));
    strbuf_putc(out, ',');
    put_text(out, "description", device.description, strlen(device.description));
    strbuf_printf(out, ",\"gpu\":%s", device.is_gpu ? "true" : "false");
    integer(out, "memory_total_bytes", device.memory_total);
    integer(out, "memory_used_bytes", device.memory_used);
    integer(out, "process_bytes", recorder_process_bytes());
    strbuf_putc(out, '}');
    strbuf_printf(out, ",\"basis\":\"%s\"", a->now->basis == CINF_BASIS_CPU ? "cpu" : "wall");
    nanodollars(out, "dollars_per_hour", price->priced, price->nanodollars_per_hour);
    nanodollars(out, "daily_budget", budget != 0, budget);
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
    put_device(a->out, "since_start", &all);
    put_device(a->out, "range_total", &range);
    put_device(a->out, "day_total", &day);
}

static void put_history(const struct answer *a, const struct range *range)
{
    double now = unix_now();
    struct strbuf *out = a->out;
    uint64_t base_ns = a->window.base * HISTORY_TICK_NS;
    uint64_t covered = a->now_ns > base_ns ? a->now_ns - base_ns : 0;
    strbuf_putc(out, '{');
    put_daemon(a);
    strbuf_printf(out, ",\"now\":%.3f,\"range\":\"%s\"", now, range->name);
    integer(out, "range_seconds", range->ns / 1000000000);
    seconds(out, "uptime_seconds", a->now_ns);
    seconds(out, "covered_seconds", covered);
    integer(out, "step_seconds", a->window.step * (HISTORY_TICK_NS / 1000000000));
    put_bills(a);
    key(out, "times");
    put_times(a, now);
    key(out, "points");
    for (uint32_t what = 0; what < DEVICE_POINTS; what++) {
        strbuf_printf(out, "%s\"%s\":", what ? "," : "{", device_point_names[what]);
        put_device_points(a, (enum device_point)what);
    }
    strbuf_puts(out, "},\"models\":[");
    uint32_t n = history_n_series(a->now);
    for (uint32_t i = 0; i < n; i++)
        put_model(a, i);
    strbuf_puts(out, "]}\n");
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
    /* While the history is held, so that no sample is newer than the snapshot. */
    const struct history *history = recorder_hold(service->recorder);
    enum cinf_status status = cinf_meter_snapshot(&now, cinf_engine_meter(service->engine));
    if (status == CINF_OK) {
        struct answer a = { .out = &out, .service = service, .history = history, .now = &now };
        a.now_ns = recorder_now(service->recorder);
        a.window = history_window(history, a.now_ns, range->ns);
        put_history(&a, range);
    }
    recorder_release(service->recorder);
    if (status == CINF_OK)
        answer_json(x, &out);
    else
        problem_answer(x, status, NULL, NO_ACCOUNT);
    cinf_snapshot_free(&now);
}

/* ---- The last requests -------------------------------------------------------------------- */

static void put_recent(struct strbuf *out, const struct recent *r, const struct cinf_snapshot *now)
{
    const struct cinf_report *report = &r->report;
    const char *model = report->model < now->n_models ? now->models[report->model].name : "";
    strbuf_printf(out, "{\"ended\":%" PRId64 ".%03d", r->ended_unix_ms / 1000,
                  (int)(r->ended_unix_ms % 1000));
    strbuf_printf(out, ",\"id\":\"%s\",\"status\":%u,\"endpoint\":\"%s\",\"stream\":%s,", r->id, r->status,
                  r->endpoint, r->stream ? "true" : "false");
    put_text(out, "model", model, strlen(model));
    strbuf_printf(out, ",\"finish\":\"%s\"", cinf_finish_name(report->finish));
    integer(out, "input_tokens", report->input_tokens);
    integer(out, "cached_tokens", report->cached_tokens);
    integer(out, "output_tokens", report->output_tokens);
    seconds(out, "queue_seconds", report->queue_ns);
    seconds(out, "prefill_seconds", report->prefill_ns);
    seconds(out, "decode_seconds", report->decode_ns);
    seconds(out, "latency_seconds", report->latency_ns);
    seconds(out, "device_seconds", report->device_ns);
    if (report->unpriced_ns)
        strbuf_puts(out, ",\"cost\":null}");
    else {
        dollars(out, "cost", report->cost);
        strbuf_putc(out, '}');
    }
}

void get_recent(struct exchange *x, const char *unused)
{
    struct service *service = service_of(x);
    struct cinf_snapshot now = { CINF_SNAPSHOT };
    struct strbuf out = { 0 };
    struct recent *list = mem_new(RECENT_MAX, sizeof *list);
    (void)unused;
    enum cinf_status status =
        list ? CINF_OK : cinf_fail(CINF_ENOMEM, "no memory for the last %d requests", RECENT_MAX);
    uint32_t n = list ? recorder_recent(service->recorder, list) : 0;
    if (status == CINF_OK)
        status = cinf_meter_snapshot(&now, cinf_engine_meter(service->engine));
    if (status == CINF_OK) {
        strbuf_printf(&out, "{\"run\":\"%016" PRIx64 "\",\"requests\":[", recorder_run(service->recorder));
        for (uint32_t i = 0; i < n; i++) {
            strbuf_puts(&out, i ? "," : "");
            put_recent(&out, &list[i], &now);
        }
        strbuf_puts(&out, "]}\n");
        answer_json(x, &out);
        cinf_snapshot_free(&now);
    } else {
        problem_answer(x, status, NULL, NO_ACCOUNT);
    }
    mem_free(list);
}
