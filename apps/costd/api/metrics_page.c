/* metrics_page.c - GET /metrics: the meter's families and the process's own. */
#include <costinfer/costinfer.h>
#include <costinfer/exposition.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "access_log.h"
#include "admission.h"
#include "books.h"
#include "encoding.h"
#include "fail.h"
#include "fleet.h"
#include "handlers.h"
#include "generation.h"
#include "keys.h"
#include "log.h"
#include "mem.h"
#include "problem.h"
#include "routes.h"
#include "service.h"

#define ALL_KEYS UINT32_MAX

/* Fields 22 to 24 of /proc/self/stat: start (clock ticks since boot), virtual bytes, resident pages. */
struct process {
    unsigned long long start, virtual_bytes;
    long resident_pages, cpu_ticks;
};

static bool read_process(struct process *p)
{
    char text[1024];
    unsigned long user, system;
    FILE *f = fopen("/proc/self/stat", "re");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    /* The name, in parentheses, may hold anything; after the last parenthesis there are only numbers. */
    const char *rest = strrchr(text, ')');
    if (!rest ||
        sscanf(rest + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu %llu %ld",
               &user, &system, &p->start, &p->virtual_bytes, &p->resident_pages) != 5)
        return false;
    p->cpu_ticks = (long)(user + system);
    return true;
}

static double boot_time;

/* Once: time passes between the two readings and the wall clock is set, and changes() of Prometheus would
 * count each different last digit as a restart. */
static void read_boot_time(void)
{
    struct timespec now, since;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &since);
    boot_time = (double)(now.tv_sec - since.tv_sec) + (double)(now.tv_nsec - since.tv_nsec) / 1e9;
}

static uint64_t count_descriptors(void)
{
    uint64_t n = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return 0;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the folder's own */
}

static void number(struct cinf_exposition *page, const char *name, enum cinf_metric_type type,
                   const char *unit, const char *help, double value)
{
    cinf_exposition_family(page, name, type, unit, help);
    cinf_exposition_number(page, name, NULL, 0, value);
}

static void integer(struct cinf_exposition *page, const char *name, const char *unit, const char *help,
                    uint64_t value)
{
    cinf_exposition_family(page, name, CINF_METRIC_GAUGE, unit, help);
    cinf_exposition_integer(page, name, NULL, 0, value);
}

static void add_process(struct cinf_exposition *page)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct process p;
    struct rlimit limit;
    double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    pthread_once(&once, read_boot_time);
    if (read_process(&p)) {
        number(page, "process_cpu_seconds_total", CINF_METRIC_COUNTER, "seconds",
               "User and system CPU time of this process.", (double)p.cpu_ticks * tick);
        number(page, "process_start_time_seconds", CINF_METRIC_GAUGE, "seconds",
               "When this process started, in Unix time.", boot_time + (double)p.start * tick);
        integer(page, "process_virtual_memory_bytes", "bytes", "Virtual memory of this process.",
                p.virtual_bytes);
        integer(page, "process_resident_memory_bytes", "bytes", "Resident memory of this process.",
                (uint64_t)p.resident_pages * (uint64_t)sysconf(_SC_PAGESIZE));
    }
    integer(page, "process_open_fds", NULL, "Open file descriptors.", count_descriptors());
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        integer(page, "process_max_fds", NULL, "How many file descriptors may be open.", limit.rlim_cur);
}

static void add_build(struct cinf_exposition *page, struct service *service)
{
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    cinf_engine_device(service->engine, &device);
    const struct cinf_label labels[] = { { "version", cinf_version() }, { "device", device.name } };
    cinf_exposition_family(page, "costd_build_info", CINF_METRIC_GAUGE, NULL,
                           "The program and the device it serves with; always 1.");
    cinf_exposition_integer(page, "costd_build_info", labels, 2, 1);
}

static void add_daemon(struct cinf_exposition *page, struct service *service)
{
    uint64_t budget = fleet_daily_budget(service->fleet);
    add_build(page, service);
    integer(page, "costd_queue_limit", NULL, "How many requests of one model may wait for a slot (--queue).",
            service->queue_max);
    integer(page, "costd_connections", NULL,
            "Open connections of --listen, at most --connections.  A connection is also open while it waits "
            "for a next request.",
            atomic_load(&service->n_connections));
    cinf_exposition_family(
        page, "costd_log_dropped_lines_total", CINF_METRIC_COUNTER, NULL,
        "Lines of the log that were not written, because stderr was read too slowly or not at "
        "all, or because writing to it failed.");
    cinf_exposition_integer(page, "costd_log_dropped_lines_total", NULL, 0, log_dropped());
    integer(page, "costd_key_lines_refused", NULL,
            "Lines of the key file that were refused when it was last read; 0 without a file.",
            keys_refused(service->keys));
    if (!budget)
        return;
    cinf_exposition_family(page, "costd_daily_budget_dollars", CINF_METRIC_GAUGE, "dollars",
                           "What the operator means to spend a day (--daily-budget).");
    /* An hour at that many dollars an hour: the exact amount, written as costs are. */
    cinf_exposition_cost(page, "costd_daily_budget_dollars", NULL, 0,
                         cinf_cost_of(UINT64_C(3600000000000), budget));
}

static void counter(struct cinf_exposition *page, const char *name, const char *help, uint64_t value)
{
    cinf_exposition_family(page, name, CINF_METRIC_COUNTER, NULL, help);
    cinf_exposition_integer(page, name, NULL, 0, value);
}

static void add_ledger(struct cinf_exposition *page, const struct service *service)
{
    struct cinf_ledger_status s = { CINF_LEDGER_STATUS };
    if (!books_status(service->books, &s))
        return;
    integer(page, "costd_ledger_up", NULL, "1 if the last commit to the ledger succeeded, else 0.", s.up);
    integer(page, "costd_ledger_waiting_requests", NULL, "Requests that have ended and wait for a commit.",
            s.waiting);
    integer(page, "costd_ledger_file_bytes", "bytes", "Size of the ledger's file.", s.file_bytes);
    integer(page, "costd_ledger_log_bytes", "bytes", "Size of the write-ahead log beside it.", s.log_bytes);
    counter(page, "costd_ledger_commits_total", "Commits to the ledger that succeeded.", s.commits);
    counter(page, "costd_ledger_failures_total", "Commits that failed; each is repeated until it succeeds.",
            s.failures);
    counter(page, "costd_ledger_recorded_requests_total", "Requests whose rows are committed.", s.recorded);
    counter(page, "costd_ledger_unrecorded_requests_total",
            "Requests without a row, because too many waited for the disk; their time is booked.",
            s.unrecorded);
}

static void add_outcomes(struct cinf_exposition *page, const char *name, const char *help,
                         const char *const names[], const uint64_t counts[], int n)
{
    cinf_exposition_family(page, name, CINF_METRIC_COUNTER, NULL, help);
    for (int i = 0; i < n; i++) {
        const struct cinf_label label = { "outcome", names[i] };
        cinf_exposition_integer(page, name, &label, 1, counts[i]);
    }
}

static void add_fleet(struct cinf_exposition *page, struct service *service)
{
    static const char *const reloads[RELOAD_OUTCOMES] = { "applied", "partial", "refused" };
    static const char *const loads[LOAD_OUTCOMES] = { "loaded", "unchanged", "failed" };
    struct fleet_counts counts;
    fleet_count(service->fleet, &counts);
    add_outcomes(page, "costd_reloads_total",
                 "Readings of the settings after SIGHUP: applied, applied in part, or refused as a whole.",
                 reloads, counts.reloads, RELOAD_OUTCOMES);
    integer(
        page, "costd_last_reload_successful", NULL,
        "1 if the last reading of the settings was applied as a whole, or there was none since the start.",
        counts.last_reload_good);
    add_outcomes(
        page, "costd_model_loads_total",
        "Loads of models, at the start, after SIGHUP and by POST /admin/models; unchanged: the files "
        "were those that are served.",
        loads, counts.loads, LOAD_OUTCOMES);
    integer(page, "costd_models_missing", NULL, "Models that should be served and are not.", counts.missing);
}

static void add_calls(struct cinf_exposition *page)
{
    static const char *const classes[CALL_CLASSES] = { "2xx", "4xx", "5xx" };
    char name[ENDPOINT_NAME_BYTES];
    cinf_exposition_family(
        page, "costd_http_calls_total", CINF_METRIC_COUNTER, NULL,
        "HTTP calls by endpoint and class of the status: the lines of the log.  A call of an "
        "endpoint that generates is one request of model_request_total for each of its prompts.  "
        "A client that left before its answer counts as 4xx.");
    for (unsigned e = 0; e < ENDPOINTS_MAX; e++)
        for (unsigned c = 0; c < CALL_CLASSES && route_endpoint(e, name); c++) {
            const struct cinf_label labels[] = { { "endpoint", name }, { "status", classes[c] } };
            cinf_exposition_integer(page, "costd_http_calls_total", labels, 2, access_calls(e, c));
        }
}

/* What the requests of one API key have used. */
struct key_use {
    uint64_t device_ns;
    struct cinf_cost cost;
};

/* A payer's name is its key's. */
static struct key_use use_of(const struct cinf_snapshot *now, const char *key)
{
    struct key_use use = { 0 };
    for (uint32_t i = 0; i < now->n_payers; i++) {
        if (strcmp(now->payers[i].payer, key) == 0) {
            use.device_ns += now->payers[i].serve_ns;
            use.cost = cinf_cost_add(use.cost, now->payers[i].cost);
        }
    }
    return use;
}

/* Of all keys, or of `only` one.  Sums over models, so all keys add up to what the device has served. */
static enum cinf_status add_keys(struct cinf_exposition *page, struct service *service, uint32_t only)
{
    uint32_t first = only == ALL_KEYS ? 0 : only;
    uint32_t end = only == ALL_KEYS ? 1 + keys_count(service->keys) : only + 1;
    struct cinf_snapshot now = { CINF_SNAPSHOT };
    TRY(cinf_meter_snapshot(&now, cinf_engine_meter(service->engine)));
    cinf_exposition_family(page, "costd_key_device_seconds_total", CINF_METRIC_COUNTER, "seconds",
                           "Device time that the requests of each API key have used, over all models.");
    for (uint32_t i = first; i < end; i++) {
        const struct cinf_label label = { "key", keys_name(service->keys, i) };
        cinf_exposition_seconds(page, "costd_key_device_seconds_total", &label, 1,
                                use_of(&now, label.value).device_ns);
    }
    cinf_exposition_family(page, "costd_key_cost_dollars_total", CINF_METRIC_COUNTER, "dollars",
                           "What that time has cost; time without a price is not in it.");
    for (uint32_t i = first; i < end; i++) {
        const struct cinf_label label = { "key", keys_name(service->keys, i) };
        cinf_exposition_cost(page, "costd_key_cost_dollars_total", &label, 1, use_of(&now, label.value).cost);
    }
    cinf_snapshot_free(&now);
    return CINF_OK;
}

void get_metrics(struct exchange *x, const char *unused)
{
    struct service *service = service_of(x);
    struct cinf_exposition *page = NULL;
    const char *text;
    size_t n;
    (void)unused;
    enum cinf_exposition_format format = cinf_exposition_negotiate(exchange_header(x, "Accept"));
    enum cinf_status status = cinf_exposition_new(&page, format);
    if (status == CINF_OK && sees_all_figures(x)) {
        status = cinf_exposition_meter(page, cinf_engine_meter(service->engine));
        add_daemon(page, service);
        add_calls(page);
        add_fleet(page, service);
        add_ledger(page, service);
        add_process(page);
        if (status == CINF_OK)
            status = add_keys(page, service, ALL_KEYS);
    } else if (status == CINF_OK) {
        /* Sums over all keys would tell what the others have used: any of them minus one's own. */
        add_build(page, service);
        status = add_keys(page, service, access_of(x)->key);
    }
    if (status == CINF_OK)
        status = cinf_exposition_finish(page, &text, &n);
    if (status == CINF_OK)
        encoding_send(x, cinf_exposition_content_type(format), text, n);
    else
        problem_answer(x, status, NULL, NO_ACCOUNT);
    cinf_exposition_free(page);
}
