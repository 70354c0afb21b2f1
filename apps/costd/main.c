/* main.c - costd: puts the parts together, and takes signals.
 *
 * A signal is a byte in a pipe that the main thread reads.  Blocking signals and calling sigwait() would not
 * do: OpenBLAS starts threads before main() runs, the signals stay unblocked in those threads, and there they
 * would kill the process. */
#include <errno.h>
#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <costinfer/costinfer.h>

#include "access_log.h"
#include "books.h"
#include "clock.h"
#include "fail.h"
#include "file.h"
#include "fleet.h"
#include "generation.h"
#include "keys.h"
#include "listener.h"
#include "log.h"
#include "manual.h"
#include "mem.h"
#include "problem.h"
#include "recorder.h"
#include "routes.h"
#include "server.h"
#include "service.h"
#include "settings.h"
#include "timers.h"
#include "watcher.h"

enum {
    EXIT_SETUP = 1,
    EXIT_USAGE = 2,
    LARGE_BLOCK_BYTES = 1 << 20, /* larger than what a request takes */
    POLL_MS = 20,
    QUEUE_DEFAULT = 256,
    /* Time after the drain's deadline for running steps to end and error events to be sent. */
    CANCEL_SECONDS = 5,
    FIRST_INHERITED = 3,
    ADMIN_CONNECTIONS = 64,
};

const char *const service_endpoints[ENDPOINT_COUNT] = { "/v1/generate", "/v1/completions" };

static atomic_bool load_failed;

/* Signals that have come and were not taken yet.  A second SIGTERM means something (see drain()); a second
 * SIGHUP before the first is taken does not. */
static atomic_uint ends_wanted;
static atomic_bool reload_wanted;
static int signal_pipe[2];

static void on_signal(int number)
{
    int saved = errno;
    unsigned char byte = 0;
    if (number == SIGHUP)
        atomic_store(&reload_wanted, true);
    else
        atomic_fetch_add(&ends_wanted, 1);
    /* A full pipe wakes as well. */
    ssize_t ignored = write(signal_pipe[1], &byte, 1);
    (void)ignored;
    errno = saved;
}

static bool take_signals(void)
{
    static const int taken[] = { SIGTERM, SIGINT, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        if (sigaction(taken[i], &action, NULL) != 0)
            return false;
    /* A peer that has gone, and a log file at its size limit, are failing writes. */
    return signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGXFSZ, SIG_IGN) != SIG_ERR;
}

static bool catch_signals(void)
{
    if (pipe(signal_pipe) != 0)
        return false;
    for (int end = 0; end < 2; end++)
        if (fcntl(signal_pipe[end], F_SETFL, O_NONBLOCK) != 0 ||
            fcntl(signal_pipe[end], F_SETFD, FD_CLOEXEC) != 0)
            return false;
    return take_signals();
}

/* Waits at most so long for a signal (-1: without a limit).  Returns SIGTERM, also for SIGINT; SIGHUP; or 0
 * for none.  SIGTERM is looked at first, and any number of SIGHUPs is one. */
static int next_signal(int timeout_ms)
{
    struct pollfd fd = { .fd = signal_pipe[0], .events = POLLIN };
    char bytes[256];
    for (;;) {
        while (read(signal_pipe[0], bytes, sizeof bytes) == (ssize_t)sizeof bytes)
            ;
        if (atomic_load(&ends_wanted) > 0) {
            atomic_fetch_sub(&ends_wanted, 1);
            return SIGTERM;
        }
        if (atomic_exchange(&reload_wanted, false))
            return SIGHUP;
        if (poll(&fd, 1, timeout_ms) == 0)
            return 0;
    }
}

static void on_load_failed(void)
{
    load_failed = true;
    on_signal(SIGTERM);
}

static enum cinf_status open_engine(struct cinf_engine **out, const struct settings *s, uint32_t queue_max)
{
    struct cinf_engine_options options = { CINF_ENGINE_OPTIONS };
    options.device = s->device;
    options.threads = s->threads;
    bool small = s->weights == CINF_WEIGHTS_INT8 || s->weights == CINF_WEIGHTS_INT4;
    options.kv = s->kv.given ? s->kv.kv : small ? CINF_KV_F16 : CINF_KV_F32;
    options.no_speculation = s->no_speculation;
    options.kv_memory = s->kv_memory;
    options.queue_max = queue_max;
    options.cpu_dollars_per_hour = s->cpu_price;
    options.gpu_dollars_per_hour = s->gpu_price;
    options.basis = s->basis;
    options.share_prefixes = s->share_prefixes;
    options.endpoints = service_endpoints;
    options.n_endpoints = ENDPOINT_COUNT;
    options.latency_buckets = s->n_latency_buckets ? s->latency_buckets : NULL;
    options.n_latency_buckets = s->n_latency_buckets;
    enum cinf_status status = cinf_engine_open(out, &options);
    if (status == CINF_EUNSUPPORTED && !s->kv.given && options.kv == CINF_KV_F16) {
        options.kv = CINF_KV_F32;
        status = cinf_engine_open(out, &options);
    }
    return status;
}

static void log_start(const struct service *service, const struct settings *s, const struct server *server,
                      const struct server *admin)
{
    char host[256] = "", port[6];
    if (!server_listener(server)->is_unix)
        listener_split(s->listen, host, port);
    struct log_line line;
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    cinf_engine_device(service->engine, &device);
    log_begin(&line, "info", "listening");
    log_text(&line, "version", cinf_version());
    log_text(&line, "host", *host ? host : s->listen);
    log_u64(&line, "port", server_listener(server)->port);
    if (admin)
        log_u64(&line, "metrics_port", server_listener(admin)->port);
    log_text(&line, "device", device.name);
    log_text(&line, "description", device.description);
    log_text(&line, "reason", device.reason);
    log_u64(&line, "threads", device.threads);
    log_text(&line, "basis", s->basis == CINF_BASIS_CPU ? "cpu" : "wall");
    log_text(&line, "dollars_per_hour", fleet_price(s, device.is_gpu));
    log_text(&line, "ledger", s->ledger);
    log_end(&line);
}

/* ---- Ending ------------------------------------------------------------------------------- */

/* Waits until all generations have ended.  Returns false when time is up or, if `interruptible`, when a
 * second signal comes. */
static bool wait_for_generations(struct service *service, uint32_t seconds, bool interruptible)
{
    uint64_t until = clock_monotonic_ns() + UINT64_C(1000000000) * seconds;
    while (generations_count(&service->generations) > 0) {
        if (clock_monotonic_ns() >= until)
            return false;
        if (next_signal(POLL_MS) == SIGTERM && interruptible)
            return false;
    }
    return true;
}

/* Refuses new generations, which /ready tells from now on, and lets the running ones end. */
static void drain(struct service *service, uint32_t seconds)
{
    generations_close(&service->generations);
    log_message("info", "draining", "%u generations are under way", generations_count(&service->generations));
    if (wait_for_generations(service, seconds, true))
        return;
    log_message("warn", "draining", "%u generations are cancelled", generations_count(&service->generations));
    generations_end(&service->generations);
    if (!wait_for_generations(service, CANCEL_SECONDS, false)) {
        log_message("error", "draining", "%u generations do not end",
                    generations_count(&service->generations));
        log_flush();
        _exit(0); /* their threads cannot be joined, so what they use cannot be freed */
    }
}

static void reload(struct service *service)
{
    if (service->keys && keys_reload(service->keys) != CINF_OK)
        log_message("error", "keys", "the keys stay as they were: %s", cinf_last_error());
    else if (service->keys && keys_refused(service->keys) > 0)
        log_message("error", "keys", "the keys were read again, but %u lines were refused",
                    keys_refused(service->keys));
    else if (service->keys)
        log_message("info", "keys", "the keys were read again");
    fleet_reload(service->fleet);
}

/* Lets balancers see /ready turn before connections are refused.  A second signal ends the wait. */
static void linger(struct service *service, uint32_t seconds)
{
    uint64_t until = clock_monotonic_ns() + UINT64_C(1000000000) * seconds, now;
    atomic_store(&service->leaving, true);
    if (seconds > 0)
        log_message("info", "leaving", "not ready any more; requests are served for %u seconds", seconds);
    while ((now = clock_monotonic_ns()) < until) {
        int got = next_signal((int)((until - now) / 1000000 + 1));
        if (got == SIGTERM)
            return;
        if (got == SIGHUP)
            reload(service);
    }
}

static void run(struct service *service, uint32_t delay_seconds, uint32_t drain_seconds)
{
    while (next_signal(-1) == SIGHUP)
        reload(service);
    if (load_failed)
        return;
    linger(service, delay_seconds);
    drain(service, drain_seconds);
}

/* ---- Serving ------------------------------------------------------------------------------ */

static enum cinf_status read_keys(struct service *service, const struct settings *s)
{
    if (s->allow_host && !(service->allow_hosts = mem_copy_text(s->allow_host)))
        return cinf_fail(CINF_ENOMEM, "no memory for the settings");
    return s->keys ? keys_load(&service->keys, s->keys) : CINF_OK;
}

/* How many listening sockets systemd has opened for us, beginning at descriptor 3 (sd_listen_fds(3)). */
static int count_inherited(void)
{
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
    if (!pid || !n || strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    long count = strtol(n, NULL, 10);
    for (int fd = FIRST_INHERITED; fd < FIRST_INHERITED + count && fd < FIRST_INHERITED + 2; fd++) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    }
    return count < 0 ? 0 : count > 2 ? 2 : (int)count;
}

static void log_warning(const char *event, const char *message)
{
    log_message("warn", event, "%s", message);
}

/* Opens what `address` names, or takes the inherited descriptor (-1: none), unless the address is open to
 * others who have not shown a key. */
static enum cinf_status open_listener(struct listener *out, const char *address, int inherited,
                                      bool may_be_public)
{
    struct listener listener;
    if (inherited >= 0)
        TRY(listener_inherit(&listener, inherited));
    else
        TRY(listener_open(&listener, address));
    if (!listener.is_private && !may_be_public) {
        listener_close(&listener);
        return cinf_fail(CINF_EINVAL,
                         "%s is not a loopback address: others could use the models without a key; "
                         "give --keys FILE, or --insecure if something else keeps them out",
                         inherited >= 0 ? "the inherited socket" : address);
    }
    *out = listener;
    return CINF_OK;
}

static enum cinf_status start_servers(struct server **server, struct server **admin, struct service *service,
                                      const struct settings *s)
{
    int n_inherited = count_inherited();
    bool may_be_public = s->keys || s->insecure;
    struct listener listener;
    service->has_admin_listener = s->metrics_listen || n_inherited > 1;
    struct server_options o = { .listener = LISTENER_MAIN,
                                .head_seconds = s->head_seconds,
                                .body_seconds = s->body_seconds,
                                .idle_seconds = s->idle_seconds,
                                .silent_seconds =
                                    s->idle_seconds + s->body_seconds + s->stall_seconds + SEND_SECONDS,
                                .connections = s->connections,
                                .n_open = &service->n_connections,
                                .per_address = s->connections_per_address,
                                .body_bytes = s->body_bytes,
                                .others = service->has_admin_listener ? ADMIN_CONNECTIONS : 0,
                                .timers = service->timers,
                                .watcher = service->watcher,
                                .context = service,
                                .user_bytes = sizeof(struct access),
                                .begun = access_begin,
                                .handle = route,
                                .refuse = problem_http,
                                .write_refusal = problem_write_http,
                                .answered = access_answered,
                                .ended = access_log_ended,
                                .warn = log_warning };
    TRY(open_listener(&listener, s->listen, n_inherited > 0 ? FIRST_INHERITED : -1, may_be_public));
    TRY(server_start(server, &listener, &o));
    if (!service->has_admin_listener)
        return CINF_OK;
    o.listener = LISTENER_ADMIN;
    o.connections = ADMIN_CONNECTIONS;
    o.n_open = NULL;
    o.per_address = 0;
    o.others = 0;
    TRY(open_listener(&listener, s->metrics_listen, n_inherited > 1 ? FIRST_INHERITED + 1 : -1,
                      may_be_public));
    return server_start(admin, &listener, &o);
}

/* A model that is unloaded gives its memory back.  glibc would raise the threshold to the size of the first
 * weights that are freed, up to 32 MiB, and put the next ones between small blocks that stay. */
static void return_large_blocks(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
#endif
}

/* Takes ownership of `s`. */
static enum cinf_status serve(struct settings *s, int argc, char *argv[])
{
    struct service service = { .queue_max = s->queue ? s->queue : QUEUE_DEFAULT,
                               .stall_ns = UINT64_C(1000000000) * s->stall_seconds,
                               .ping_ns = UINT64_C(1000000000) * s->ping_seconds,
                               .body_bytes = s->body_bytes,
                               .strict = s->strict };
    struct server *server = NULL, *admin = NULL;
    uint32_t delay_seconds = s->delay_seconds, drain_seconds = s->drain_seconds;
    enum cinf_status status = read_keys(&service, s);
    generations_init(&service.generations);
    if (status == CINF_OK)
        status = open_engine(&service.engine, s, service.queue_max);
    /* A device's driver may have taken the signals.  LLVM does, in PoCL, and with its handlers a second
     * signal that follows quickly kills the process. */
    if (status == CINF_OK && !take_signals())
        status = cinf_fail(CINF_EIO, "cannot catch signals: %s", strerror(errno));
    if (status == CINF_OK)
        status = watcher_start(&service.watcher);
    if (status == CINF_OK)
        status = timers_start(&service.timers);
    if (status == CINF_OK && s->ledger && strcmp(s->ledger, "none") != 0)
        status = books_open(&service.books, s->ledger, service.engine, service.timers);
    if (status == CINF_OK)
        status = recorder_start(&service.recorder, service.engine);
    if (status == CINF_OK)
        status = fleet_new(&service.fleet, service.engine, s, argc, argv, on_load_failed);
    if (status != CINF_OK)
        settings_free(s);
    if (status == CINF_OK)
        status = start_servers(&server, &admin, &service, s);
    if (status == CINF_OK) {
        log_start(&service, s, server, admin);
        status = fleet_begin(service.fleet);
    }
    if (status != CINF_OK)
        log_message("error", "start", "%s", cinf_last_error());
    else
        run(&service, delay_seconds, drain_seconds);

    if (!fleet_stop(service.fleet)) {
        log_message("warn", "stopping", "a model is still being loaded");
        log_flush();
        _exit(0);
    }
    server_stop(server);
    server_stop(admin);
    watcher_stop(service.watcher);
    books_stop(service.books);
    timers_stop(service.timers);
    recorder_stop(service.recorder);
    fleet_free(service.fleet);
    cinf_engine_close(service.engine);
    books_close(service.books);
    generations_free(&service.generations);
    keys_free(service.keys);
    mem_free(service.allow_hosts);
    log_message("info", "stopped", "good bye");
    return status;
}

int main(int argc, char *argv[])
{
    struct settings s;
    file_hold_standard();
    return_large_blocks();
    if (settings_read(&s, argc, argv) != CINF_OK) {
        fprintf(stderr, "costd: %s\n", cinf_last_error());
        return EXIT_USAGE;
    }
    if (s.help || s.version || s.check_config) {
        int code = EXIT_SUCCESS;
        if (s.help) {
            manual_print();
        } else if (s.version) {
            printf("costd %s\n", cinf_version());
        } else if (settings_check_models(&s) == CINF_OK) {
            printf("costd: the settings are good: %u models, to be served on %s\n", s.n_models, s.listen);
        } else {
            fprintf(stderr, "costd: %s\n", cinf_last_error());
            code = EXIT_USAGE;
        }
        settings_free(&s);
        return code;
    }
    if (!catch_signals()) {
        fprintf(stderr, "costd: cannot catch signals: %s\n", strerror(errno));
        settings_free(&s);
        return EXIT_SETUP;
    }
    if (log_open() != CINF_OK) {
        fprintf(stderr, "costd: %s\n", cinf_last_error());
        settings_free(&s);
        return EXIT_SETUP;
    }
    enum cinf_status status = serve(&s, argc, argv);
    log_close();
    return status == CINF_OK && !load_failed ? EXIT_SUCCESS : EXIT_SETUP;
}
