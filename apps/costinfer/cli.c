#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "utf8.h"

/* ---- Device and model ---------------------------------------------------------------------- */

static void show_load(void *context, uint64_t done, uint64_t total)
{
    progress_show(context, done, total);
}

bool session_open(struct session *session, const struct common_flags *common,
                  const struct cinf_engine_options *engine, const struct cinf_model_options *model)
{
    struct cinf_engine_options e = { CINF_ENGINE_OPTIONS };
    struct cinf_model_options m = { CINF_MODEL_OPTIONS };
    if (engine)
        e = *engine;
    if (model)
        m = *model;
    m.weights = common->weights;
    e.device = common->device;
    e.threads = common->threads;
    bool small = m.weights == CINF_WEIGHTS_INT8 || m.weights == CINF_WEIGHTS_INT4;
    e.kv = common->kv.given ? common->kv.kv : small ? CINF_KV_F16 : CINF_KV_F32;
    e.profile = common->profile;
    e.dollars_per_hour = common->price;
    if (!m.shape)
        m.folder = common->model;

    char what[128];
    snprintf(what, sizeof what, "loading %s", m.shape ? m.shape : m.folder);
    struct progress progress;
    progress_start(&progress, what);
    m.progress = show_load;
    m.progress_context = &progress;

    *session = (struct session){ .profile = common->profile };
    enum cinf_status status = cinf_engine_open(&session->engine, &e);
    if (status == CINF_EUNSUPPORTED && !common->kv.given && e.kv == CINF_KV_F16) {
        e.kv = CINF_KV_F32;
        status = cinf_engine_open(&session->engine, &e);
    }
    uint64_t start = clock_monotonic_ns();
    if (status == CINF_OK)
        status = cinf_model_load(&session->model, session->engine, &m);
    session->load_ns = clock_monotonic_ns() - start;
    progress_end(&progress);
    if (status == CINF_OK)
        return true;
    fail_last();
    session_close(session);
    return false;
}

static void print_profile(struct cinf_engine *engine)
{
    struct cinf_profile_row rows[64];
    uint32_t n = 0;
    uint64_t total = 0;
    if (cinf_engine_profile(&n, engine, rows, sizeof rows / sizeof *rows) != CINF_OK) {
        fail_last();
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        total += rows[i].device_ns;
    fprintf(stderr, "%-24s %10s %12s %10s %7s\n", "kernel", "launches", "seconds", "us each", "share");
    for (uint32_t i = 0; i < n; i++)
        fprintf(stderr, "%-24s %10" PRIu64 " %12.6f %10.1f %6.1f%%\n", rows[i].name, rows[i].launches,
                seconds_of(rows[i].device_ns), (double)rows[i].device_ns / 1e3 / (double)rows[i].launches,
                total ? 100.0 * (double)rows[i].device_ns / (double)total : 0.0);
}

void session_close(struct session *session)
{
    if (session->profile && session->model)
        print_profile(session->engine);
    cinf_model_release(session->model);
    cinf_engine_close(session->engine);
    *session = (struct session){ 0 };
}

/* ---- Progress ------------------------------------------------------------------------------ */

void progress_start(struct progress *progress, const char *what)
{
    *progress = (struct progress){ .what = what, .start_ns = clock_monotonic_ns() };
}

void progress_show(struct progress *progress, uint64_t done, uint64_t total)
{
    uint64_t now = clock_monotonic_ns();
    if (now - progress->start_ns < 2000000000 || now - progress->shown_ns < 200000000 ||
        !isatty(STDERR_FILENO))
        return;
    progress->shown_ns = now;
    fprintf(stderr, "\r%s: %3.0f %%", progress->what, total ? 100.0 * (double)done / (double)total : 100.0);
}

void progress_end(struct progress *progress)
{
    if (progress->shown_ns)
        fprintf(stderr, "\r%*s\r", (int)strlen(progress->what) + 8, "");
}

/* ---- Ctrl-C -------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupt_seen;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupt_seen = 1;
}

void interrupt_catch(void)
{
    struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };
    sigaction(SIGINT, &action, NULL);
}

bool interrupted(void)
{
    return interrupt_seen != 0;
}

/* ---- Input and output ---------------------------------------------------------------------- */

int fail_last(void)
{
    return fail_with("%s", cinf_last_error());
}

int fail_with(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "costinfer: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    return 1;
}

bool read_all(struct strbuf *out, const char *path)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *from = standard ? stdin : fopen(path, "rb");
    if (!from) {
        fail_with("%s: %s", path, strerror(errno));
        return false;
    }
    char bytes[65536];
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, from)) > 0)
        strbuf_add(out, bytes, n);
    bool failed = ferror(from);
    if (failed)
        fail_with("%s: %s", standard ? "standard input" : path, strerror(errno));
    else if (out->failed)
        fail_with("%s: no memory for its contents", standard ? "standard input" : path);
    if (!standard)
        fclose(from);
    return !failed && !out->failed;
}

int print_document(const struct strbuf *text)
{
    if (text->failed)
        return fail_with("no memory for the output");
    fwrite(text->text, 1, text->len, stdout);
    putchar('\n');
    return 0;
}

void put_cost(struct json_writer *w, const char *key, const struct cinf_report *report)
{
    char text[CINF_COST_TEXT_MAX];
    if (report->unpriced_ns)
        json_put_null(w, key);
    else
        json_put_format(w, key, "%s", cinf_cost_format(text, report->cost));
}

void put_report(struct json_writer *w, const char *key, const struct cinf_report *r)
{
    json_open_object(w, key);
    json_put_text(w, "finish_reason", cinf_finish_name(r->finish));
    json_put_u64(w, "input_tokens", r->input_tokens);
    json_put_u64(w, "cached_tokens", r->cached_tokens);
    json_put_u64(w, "output_tokens", r->output_tokens);
    json_put_u64(w, "queue_ns", r->queue_ns);
    json_put_u64(w, "latency_ns", r->latency_ns);
    json_put_u64(w, "first_token_ns", r->first_token_ns);
    json_put_u64(w, "device_ns", r->device_ns);
    json_put_u64(w, "prefill_ns", r->prefill_ns);
    json_put_u64(w, "decode_ns", r->decode_ns);
    json_put_u64(w, "unpriced_ns", r->unpriced_ns);
    put_cost(w, "cost_usd", r);
    json_close(w);
}

const char *cost_text(char text[CINF_COST_TEXT_MAX + 1], const struct cinf_report *report)
{
    if (report->unpriced_ns)
        return "no price";
    text[0] = '$';
    cinf_cost_format(text + 1, report->cost);
    return text;
}

void put_printable(struct strbuf *out, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0, used; i < n; i += used) {
        uint32_t c = utf8_read(text + i, n - i, &used);
        bool bad = c == UTF8_BAD || c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x2028 && c <= 0x202E) ||
                   (c >= 0x2066 && c <= 0x2069);
        for (size_t k = 0; bad && k < used; k++)
            strbuf_printf(out, "\\x%02x", (unsigned char)text[i + k]);
        if (!bad)
            strbuf_add(out, text + i, used);
    }
}

double seconds_of(uint64_t ns)
{
    return (double)ns / 1e9;
}

double rate_of(uint64_t n, uint64_t ns)
{
    return ns ? (double)n * 1e9 / (double)ns : 0;
}
