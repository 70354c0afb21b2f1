/* exposition_meter.c - every family of a meter, from one snapshot of it.
 *
 * Names, labels and help are a contract with dashboards and alerts.  A family lists every model from the
 * moment it was added: if a counter appeared only with its first event, no query would see that event as
 * an increase. */
#include <costinfer/exposition.h>

#include <stdio.h>

#include "accounts.h"
#include "exposition_nanos.h"
#include "fail.h"
#include "snapshot.h"

struct view {
    struct cinf_exposition *page;
    const struct cinf_meter *meter;
    struct snapshot snapshot;
};

/* The labels of one model's sample. */
struct model_labels {
    struct cinf_label of[2];
    uint32_t n;
};

static struct model_labels labels_of(const struct view *v, uint32_t m, const char *name, const char *value)
{
    return (struct model_labels){
        { { "model_name", account_name(&v->snapshot.models[m].counters) }, { name, value } }, name ? 2 : 1
    };
}

static void put_count(struct view *v, const char *family, uint32_t m, const char *label, const char *value,
                      uint64_t count)
{
    struct model_labels l = labels_of(v, m, label, value);
    cinf_exposition_integer(v->page, family, l.of, l.n, count);
}

static void put_seconds(struct view *v, const char *family, uint32_t m, const char *label, const char *value,
                        uint64_t ns)
{
    struct model_labels l = labels_of(v, m, label, value);
    cinf_exposition_seconds(v->page, family, l.of, l.n, ns);
}

static void model_counts(struct view *v)
{
    struct cinf_exposition *page = v->page;
    uint32_t n = v->snapshot.n_models;
    const struct model_snapshot *models = v->snapshot.models;

    cinf_exposition_family(
        page, "model_request_total", CINF_METRIC_COUNTER, NULL,
        "Requests that were admitted or queued and have ended, for any reason.  Each prompt of a "
        "call is one, whatever its n.");
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t e = 0; e < v->meter->n_endpoints; e++)
            put_count(v, "model_request_total", m, "endpoint", v->meter->endpoints[e],
                      models[m].counters.requests[e]);

    cinf_exposition_family(page, "model_tokens_total", CINF_METRIC_COUNTER, NULL,
                           "Prompt tokens processed (input) and tokens sampled (output).");
    for (uint32_t m = 0; m < n; m++) {
        put_count(v, "model_tokens_total", m, "direction", "input", models[m].counters.input_tokens);
        put_count(v, "model_tokens_total", m, "direction", "output", models[m].counters.output_tokens);
    }

    cinf_exposition_family(page, "model_cached_tokens_total", CINF_METRIC_COUNTER, NULL,
                           "Prompt tokens that were copied from an earlier request instead of computed.");
    for (uint32_t m = 0; m < n; m++)
        put_count(v, "model_cached_tokens_total", m, NULL, NULL, models[m].counters.cached_tokens);

    cinf_exposition_family(page, "model_draft_tokens_total", CINF_METRIC_COUNTER, NULL,
                           "Draft tokens that speculation computed: those that became output (accepted) and "
                           "those that did not (rejected).");
    for (uint32_t m = 0; m < n; m++) {
        const struct model_counters *c = &models[m].counters;
        put_count(v, "model_draft_tokens_total", m, "outcome", "accepted", c->accepted_tokens);
        put_count(v, "model_draft_tokens_total", m, "outcome", "rejected",
                  c->drafted_tokens - c->accepted_tokens);
    }

    cinf_exposition_family(page, "model_requests_finished_total", CINF_METRIC_COUNTER, NULL,
                           "Requests that have ended, by reason.");
    for (uint32_t m = 0; m < n; m++)
        for (enum cinf_finish f = CINF_FINISH_STOP; f < CINF_FINISH_COUNT; f++)
            put_count(v, "model_requests_finished_total", m, "finish_reason", cinf_finish_name(f),
                      models[m].counters.finished[f]);

    cinf_exposition_family(page, "model_request_errors_total", CINF_METRIC_COUNTER, NULL,
                           "Requests refused or failed, by kind of error.");
    for (uint32_t m = 0; m < n; m++)
        for (enum cinf_error_kind k = 0; k < CINF_ERROR_KINDS; k++)
            put_count(v, "model_request_errors_total", m, "code", cinf_error_kind_name(k),
                      models[m].errors[k]);

    cinf_exposition_family(page, "model_requests_running", CINF_METRIC_GAUGE, NULL,
                           "Requests that are being served.");
    for (uint32_t m = 0; m < n; m++)
        put_count(v, "model_requests_running", m, NULL, NULL, models[m].counters.running);

    cinf_exposition_family(page, "model_requests_waiting", CINF_METRIC_GAUGE, NULL,
                           "Requests that wait to be served.");
    for (uint32_t m = 0; m < n; m++)
        put_count(v, "model_requests_waiting", m, NULL, NULL, models[m].opened - models[m].counters.dequeued);

    cinf_exposition_family(page, "model_loaded", CINF_METRIC_GAUGE, NULL,
                           "1 while the model is loaded, else 0.");
    for (uint32_t m = 0; m < n; m++)
        put_count(v, "model_loaded", m, NULL, NULL, models[m].counters.loaded);
}

static void model_time(struct view *v)
{
    struct cinf_exposition *page = v->page;
    uint32_t n = v->snapshot.n_models;
    const struct model_snapshot *models = v->snapshot.models;

    cinf_exposition_family(page, "model_device_seconds_total", CINF_METRIC_COUNTER, "seconds",
                           "Device time charged to the model: prefill and decode add to serve.");
    for (uint32_t m = 0; m < n; m++) {
        const struct model_counters *c = &models[m].counters;
        put_seconds(v, "model_device_seconds_total", m, "phase", "prefill", c->prefill_ns);
        put_seconds(v, "model_device_seconds_total", m, "phase", "decode", c->decode_ns);
        put_seconds(v, "model_device_seconds_total", m, "phase", "load", c->load_ns);
    }

    cinf_exposition_family(page, "model_finished_device_seconds_total", CINF_METRIC_COUNTER, "seconds",
                           "Device time of requests that have ended, by reason.");
    for (uint32_t m = 0; m < n; m++)
        for (enum cinf_finish f = CINF_FINISH_STOP; f < CINF_FINISH_COUNT; f++)
            put_seconds(v, "model_finished_device_seconds_total", m, "finish_reason", cinf_finish_name(f),
                        models[m].counters.finished_ns[f]);

    cinf_exposition_family(
        page, "model_estimated_cost_dollars_total", CINF_METRIC_COUNTER, "dollars",
        "Device time that served the model's requests, at the price of that time. Unpriced "
        "time costs nothing here: see costinfer_unpriced_seconds_total.");
    for (uint32_t m = 0; m < n; m++) {
        struct model_labels l = labels_of(v, m, NULL, NULL);
        cinf_exposition_cost(page, "model_estimated_cost_dollars_total", l.of, l.n,
                             models[m].counters.serve_cost);
    }
}

static void payer_families(struct view *v)
{
    struct cinf_exposition *page = v->page;
    const struct payer_snapshot *payers = v->snapshot.payers;
    uint32_t n = v->snapshot.n_payers;
    struct cinf_label labels[3] = { { "model_name", NULL }, { "payer", NULL }, { "direction", NULL } };
    cinf_exposition_family(
        page, "model_payer_device_seconds_total", CINF_METRIC_COUNTER, "seconds",
        "Device time that served the payer's requests to the model: over all payers it adds "
        "up to the model's prefill and decode.");
    for (uint32_t i = 0; i < n; i++) {
        labels[0].value = account_name(&v->snapshot.models[payers[i].model].counters);
        labels[1].value = payers[i].account->name;
        cinf_exposition_seconds(page, "model_payer_device_seconds_total", labels, 2,
                                payers[i].counters.prefill_ns + payers[i].counters.decode_ns);
    }
    cinf_exposition_family(
        page, "model_payer_cost_dollars_total", CINF_METRIC_COUNTER, "dollars",
        "The priced part of that time, at the price of that time: over all payers it adds up "
        "to model_estimated_cost_dollars_total.");
    for (uint32_t i = 0; i < n; i++) {
        labels[0].value = account_name(&v->snapshot.models[payers[i].model].counters);
        labels[1].value = payers[i].account->name;
        cinf_exposition_cost(page, "model_payer_cost_dollars_total", labels, 2, payers[i].counters.cost);
    }
    cinf_exposition_family(page, "model_payer_tokens_total", CINF_METRIC_COUNTER, NULL,
                           "The payer's prompt tokens processed (input) and tokens sampled (output).");
    for (uint32_t i = 0; i < n; i++) {
        labels[0].value = account_name(&v->snapshot.models[payers[i].model].counters);
        labels[1].value = payers[i].account->name;
        labels[2].value = "input";
        cinf_exposition_integer(page, "model_payer_tokens_total", labels, 3, payers[i].counters.input_tokens);
        labels[2].value = "output";
        cinf_exposition_integer(page, "model_payer_tokens_total", labels, 3,
                                payers[i].counters.output_tokens);
    }
}

/* The histogram that lies at `offset` in each model's counters. */
static void histogram(struct view *v, const char *family, const char *help,
                      const struct histogram_bounds *bounds, size_t offset)
{
    char bucket[64], sum[64], total[64];
    snprintf(bucket, sizeof bucket, "%s_bucket", family);
    snprintf(sum, sizeof sum, "%s_sum", family);
    snprintf(total, sizeof total, "%s_count", family);
    cinf_exposition_family(v->page, family, CINF_METRIC_HISTOGRAM, "seconds", help);
    for (uint32_t m = 0; m < v->snapshot.n_models; m++) {
        const char *counters = (const char *)&v->snapshot.models[m].counters;
        const struct histogram *h = (const struct histogram *)(counters + offset);
        uint64_t count = 0;
        for (uint32_t i = 0; i <= bounds->n; i++) {
            char text[NANOS_TEXT_MAX];
            const char *le = i < bounds->n ? nanos_format(text, bounds->ns[i], true) : "+Inf";
            count += h->counts[i];
            put_count(v, bucket, m, "le", le, count);
        }
        put_seconds(v, sum, m, NULL, NULL, h->sum_ns);
        put_count(v, total, m, NULL, NULL, count);
    }
}

static void model_histograms(struct view *v)
{
    histogram(v, "model_request_duration_seconds",
              "From the start of a request's first interval on the device to the end of its last.",
              &v->meter->latency_bounds, offsetof(struct model_counters, latency));
    histogram(v, "model_time_to_first_token_seconds", "From a request's submission to its first token.",
              &histogram_first_token_bounds, offsetof(struct model_counters, first_token));
    histogram(v, "model_inter_token_seconds", "Between a request's tokens.", &histogram_inter_token_bounds,
              offsetof(struct model_counters, inter_token));
    histogram(v, "model_queue_seconds",
              "From a request's submission to the start of its first interval, or to its end without one.",
              &histogram_queue_bounds, offsetof(struct model_counters, queue));
}

static void device_families(struct view *v)
{
    struct cinf_exposition *page = v->page;
    const struct device_counters *d = &v->snapshot.device;
    struct cinf_label labels[2] = { { "device", v->meter->device }, { "account", NULL } };
    static const char *const accounts[ACCOUNT_KINDS] = {
        [ACCOUNT_SERVE] = "serve", [ACCOUNT_LOAD] = "load",         [ACCOUNT_IDLE] = "idle",
        [ACCOUNT_LOST] = "lost",   [ACCOUNT_OVERHEAD] = "overhead",
    };

    cinf_exposition_family(
        page, "costinfer_device_seconds_total", CINF_METRIC_COUNTER, "seconds",
        "All time of the device since it was opened; the accounts add up to it exactly. In lost time the "
        "process could not run. Overhead is CPU time of threads that are not the device's.");
    for (int i = 0; i < ACCOUNT_KINDS; i++) {
        labels[1].value = accounts[i];
        cinf_exposition_seconds(page, "costinfer_device_seconds_total", labels, 2, d->ns[i]);
    }
    cinf_exposition_family(page, "costinfer_device_uptime_seconds", CINF_METRIC_GAUGE, "seconds",
                           "Time since the device was opened, up to the moment that the accounts are settled "
                           "to: wall time, or CPU time of the process.");
    cinf_exposition_seconds(page, "costinfer_device_uptime_seconds", labels, 1, d->boundary_ns);
    cinf_exposition_family(page, "costinfer_device_cost_dollars_total", CINF_METRIC_COUNTER, "dollars",
                           "The priced part of that time, at the price of that time.");
    for (int i = 0; i < ACCOUNT_KINDS; i++) {
        labels[1].value = accounts[i];
        cinf_exposition_cost(page, "costinfer_device_cost_dollars_total", labels, 2, d->cost[i]);
    }
    cinf_exposition_family(page, "costinfer_unpriced_seconds_total", CINF_METRIC_COUNTER, "seconds",
                           "The part of that time during which no price was known.");
    cinf_exposition_seconds(page, "costinfer_unpriced_seconds_total", labels, 1, d->unpriced_ns);

    cinf_exposition_family(page, "costinfer_stalls_total", CINF_METRIC_COUNTER, NULL,
                           "Stretches of more than 0.25 seconds in which the process could not run, because "
                           "it was stopped or its machine was paused.");
    cinf_exposition_integer(page, "costinfer_stalls_total", labels, 1,
                            atomic_load(&v->meter->pulse.n_stalls));
    cinf_exposition_family(page, "costinfer_clock_steps_total", CINF_METRIC_COUNTER, NULL,
                           "How often the monotonic clock went back; time goes on from where it was.");
    cinf_exposition_integer(page, "costinfer_clock_steps_total", labels, 1,
                            atomic_load(&v->meter->pulse.n_steps));

    if (d->price.priced) {
        cinf_exposition_family(page, "costinfer_price_dollars_per_hour", CINF_METRIC_GAUGE, NULL,
                               "The price in force; absent when there is none.");
        /* Nano-dollars are to dollars what nanoseconds are to seconds. */
        cinf_exposition_seconds(page, "costinfer_price_dollars_per_hour", labels, 1,
                                d->price.nanodollars_per_hour);
    }
    labels[1] = (struct cinf_label){ "basis", v->meter->basis == CINF_BASIS_CPU ? "cpu" : "wall" };
    cinf_exposition_family(page, "costinfer_basis_info", CINF_METRIC_GAUGE, NULL,
                           "What is charged: wall time, or CPU time of the process.");
    cinf_exposition_integer(page, "costinfer_basis_info", labels, 2, 1);

    if (atomic_load(&v->meter->has_split)) {
        cinf_exposition_family(
            page, "costinfer_split_seconds", CINF_METRIC_GAUGE, "seconds",
            "Weight of a floating-point operation and of a byte of memory when an interval "
            "is split among its requests.");
        labels[1] = (struct cinf_label){ "per", "flop" };
        cinf_exposition_number(page, "costinfer_split_seconds", labels, 2,
                               (double)atomic_load(&v->meter->split_flop_as) / 1e18);
        labels[1].value = "byte";
        cinf_exposition_number(page, "costinfer_split_seconds", labels, 2,
                               (double)atomic_load(&v->meter->split_byte_as) / 1e18);
    }
}

static void gpu_families(struct view *v)
{
    struct cinf_exposition *page = v->page;
    struct cinf_label gpu = { "gpu", v->meter->device };
    if (!atomic_load(&v->meter->has_gpu))
        return;
    uint64_t used = atomic_load(&v->meter->gpu_used_bytes), total = atomic_load(&v->meter->gpu_total_bytes);
    if (total > 0) {
        cinf_exposition_family(page, "gpu_utilization_percent", CINF_METRIC_GAUGE, "percent",
                               "Share of the GPU's memory that is allocated by this process, 0 to 100.");
        cinf_exposition_number(page, "gpu_utilization_percent", &gpu, 1,
                               100.0 * (double)used / (double)total);
    }
    cinf_exposition_family(page, "gpu_memory_used_bytes", CINF_METRIC_GAUGE, "bytes",
                           "GPU memory allocated by this process.");
    cinf_exposition_integer(page, "gpu_memory_used_bytes", &gpu, 1, used);
    cinf_exposition_family(page, "gpu_memory_total_bytes", CINF_METRIC_GAUGE, "bytes",
                           "GPU memory in total.");
    cinf_exposition_integer(page, "gpu_memory_total_bytes", &gpu, 1, total);
    uint64_t taken = atomic_load(&v->meter->gpu_taken_bytes);
    if (taken > 0) {
        cinf_exposition_family(
            page, "gpu_memory_device_used_bytes", CINF_METRIC_GAUGE, "bytes",
            "GPU memory in use by all processes, as its driver reports (or by this process alone, if the "
            "driver reports no more).");
        cinf_exposition_integer(page, "gpu_memory_device_used_bytes", &gpu, 1, taken);
    }
}

enum cinf_status cinf_exposition_meter(struct cinf_exposition *page, const struct cinf_meter *meter)
{
    struct view v = { .page = page, .meter = meter };
    TRY(snapshot_take(&v.snapshot, meter));
    model_counts(&v);
    model_time(&v);
    payer_families(&v);
    model_histograms(&v);
    device_families(&v);
    gpu_families(&v);
    snapshot_free(&v.snapshot);
    return CINF_OK;
}
