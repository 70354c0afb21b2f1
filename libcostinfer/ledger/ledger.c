/* ledger.c - follows a meter and commits what it says.
 *
 *   charging thread   ended(): into the ring                price_changed(): a snapshot into the list
 *                       |                                     |
 *   ledger's thread   gather(): everything that one snapshot shows, into memory of the ledger's own
 *                       |
 *                     commit_batch(): one transaction; again until it succeeds
 *
 * The charging thread takes no lock that the ledger holds while it reads or writes a file, and wakes the
 * ledger by a byte in a pipe.  A batch that is being written does not change; what comes after it waits in
 * the next batch, then in the ring, and when that is full a request has no row: its time is `unrecorded`. */
#include <costinfer/ledger.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accounts.h"
#include "clock.h"
#include "commit.h"
#include "cond_wait.h"
#include "fail.h"
#include "mem.h"
#include "observer.h"

#define SECOND_NS UINT64_C(1000000000)
#define MS_NS     UINT64_C(1000000)

enum {
    RECORDS_MAX = 8192,
    COMMIT_MS = 50,
    COMMIT_RECORDS = 256, /* so many do not wait any longer */
    RETRY_MS = 100,       /* after a failure; doubles up to: */
    RETRY_MS_MAX = 5000,
    CLOSE_TRIES = 4,
    LOG_IDLE = 256 * 1024,      /* a log of this size is moved into the database when nothing waits */
    LOG_MAX = 16 * 1024 * 1024, /* and this one in any case */
};

/* An ended request as the charging thread has it: the names are the meter's. */
struct told {
    uint64_t number, ended_ns, age_ns, period;
    const char *model, *payer, *endpoint;
    struct bill_counters counters;
    struct note *note;
};

struct sample {
    struct sample *next;
    struct cinf_snapshot snapshot;
    uint64_t wall_ns;
};

struct cinf_ledger {
    char *instance;
    uint32_t records_max;
    uint64_t commit_ns;
    struct store_lock lock;
    int wake[2];
    pthread_t thread;
    atomic_bool stop;
    struct observer observer;

    /* Written by the charging thread, read by gather(). */
    struct told *ring; /* [records_max] */
    _Atomic uint64_t head, tail;
    atomic_bool woken;
    _Atomic uint64_t dropped; /* requests that found no room */
    _Atomic uint64_t taken;   /* from the ring, and not committed yet */
    uint64_t period;          /* of the price in force */
    pthread_mutex_t samples_lock;
    struct sample *samples, **samples_end;
    bool missed; /* a sample, for want of memory */

    /* Under gather_lock, which is never held during input or output. */
    pthread_mutex_t gather_lock;
    const struct cinf_meter *meter; /* NULL: none, or it has left */
    bool following;                 /* a boot that has not been committed to its end */
    bool left;
    struct tally tally;
    struct batch next;
    struct boot boot;
    char *device;
    char *endpoints[CINF_ENDPOINTS_MAX];

    /* The ledger's thread. */
    struct committer committer;
    ino_t file;
    int64_t next_boot;
    struct batch flight; /* what is being written */
    bool flying;
    struct tally_state committed;
    uint64_t retry_at_ns, retry_ms, committed_at_ns;

    pthread_mutex_t status_lock;
    pthread_cond_t changed;
    struct cinf_ledger_status status;
    uint64_t flush_wanted, flush_done;
};

static uint64_t real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void wake(struct cinf_ledger *l, char how)
{
    ssize_t ignored = write(l->wake[1], &how, 1); /* a full pipe wakes as well */
    (void)ignored;
}

/* ---- The charging thread --------------------------------------------------------------------- */

static void on_ended(void *context, const struct ending *ending)
{
    struct cinf_ledger *l = context;
    const struct cinf_bill *bill = ending->bill;
    uint64_t head = atomic_load_explicit(&l->head, memory_order_relaxed);
    uint64_t waiting = head - atomic_load_explicit(&l->tail, memory_order_acquire);
    if (waiting == l->records_max) {
        atomic_fetch_add(&l->dropped, 1);
        mem_free(ending->note);
        return;
    }
    l->ring[head % l->records_max] = (struct told){ .number = ending->number,
                                                    .ended_ns = real_ns(),
                                                    .age_ns = ending->age_ns,
                                                    .period = l->period,
                                                    .model = account_name(&bill->account->counters),
                                                    .payer = bill->payer->name,
                                                    .endpoint = bill->meter->endpoints[bill->endpoint],
                                                    .counters = bill->counters,
                                                    .note = ending->note };
    atomic_store_explicit(&l->head, head + 1, memory_order_release);
    if (!atomic_exchange(&l->woken, true))
        wake(l, 'r');
    else if (waiting + 1 == COMMIT_RECORDS)
        wake(l, 'f');
}

static struct sample *sample_new(const struct cinf_meter *meter)
{
    struct sample *s = mem_new(1, sizeof *s);
    if (!s)
        return NULL;
    s->snapshot.struct_size = sizeof s->snapshot;
    if (cinf_meter_snapshot(&s->snapshot, meter) != CINF_OK) {
        mem_free(s);
        return NULL;
    }
    s->wall_ns = real_ns();
    return s;
}

static void sample_free(struct sample *s)
{
    cinf_snapshot_free(&s->snapshot);
    mem_free(s);
}

static void on_price(void *context)
{
    struct cinf_ledger *l = context;
    struct sample *s = sample_new(l->meter);
    l->period++;
    pthread_mutex_lock(&l->samples_lock);
    if (s) {
        *l->samples_end = s;
        l->samples_end = &s->next;
    } else {
        l->missed = true;
    }
    pthread_mutex_unlock(&l->samples_lock);
}

/* ---- Gathering ------------------------------------------------------------------------------- */

static enum cinf_status gather_samples(struct cinf_ledger *l)
{
    enum cinf_status status = CINF_OK;
    pthread_mutex_lock(&l->samples_lock);
    struct sample *s = l->samples, *next;
    l->samples = NULL;
    l->samples_end = &l->samples;
    pthread_mutex_unlock(&l->samples_lock);
    for (; s && status == CINF_OK; s = next) {
        next = s->next;
        status = tally_add(&l->tally, &s->snapshot, s->wall_ns, true);
        if (status != CINF_OK)
            break;
        sample_free(s);
    }
    if (!s)
        return CINF_OK;
    /* No memory: these come first the next time. */
    pthread_mutex_lock(&l->samples_lock);
    struct sample *last = s;
    while (last->next)
        last = last->next;
    last->next = l->samples;
    if (!l->samples)
        l->samples_end = &last->next;
    l->samples = s;
    pthread_mutex_unlock(&l->samples_lock);
    return status;
}

static enum cinf_status gather_now(struct cinf_ledger *l)
{
    struct sample *s = sample_new(l->meter);
    if (!s)
        return CINF_ENOMEM;
    pthread_mutex_lock(&l->samples_lock);
    bool missed = l->missed;
    l->missed = false;
    pthread_mutex_unlock(&l->samples_lock);
    enum cinf_status status = tally_add(&l->tally, &s->snapshot, s->wall_ns, missed);
    sample_free(s);
    return status;
}

static bool take_told(struct cinf_ledger *l, struct told *t)
{
    struct batch *next = &l->next;
    struct tally_account *account = tally_account(&l->tally, t->model, t->payer);
    if (!account || !mem_reserve(&next->records, &next->cap, next->n_records + 1, sizeof *next->records))
        return false;
    const char *endpoint = NULL;
    for (int e = 0; e < CINF_ENDPOINTS_MAX && l->endpoints[e]; e++)
        if (strcmp(l->endpoints[e], t->endpoint) == 0)
            endpoint = l->endpoints[e];
    next->records[next->n_records++] =
        (struct record){ .number = t->number,
                         .ended_ns = t->ended_ns,
                         .age_ns = t->age_ns,
                         .account = account,
                         .endpoint = endpoint,
                         .finish = cinf_finish_name((enum cinf_finish)t->counters.finish),
                         .counters = t->counters,
                         .period = t->period,
                         .note = t->note };
    return true;
}

/* Caller holds gather_lock.  `last`: the meter leaves, and everything of it is taken. */
static void gather(struct cinf_ledger *l, bool last)
{
    if (!l->meter)
        return;
    /* A request's price was told before the request, so it is among the samples. */
    uint64_t head = atomic_load_explicit(&l->head, memory_order_acquire);
    atomic_store(&l->woken, false);
    if (gather_samples(l) != CINF_OK)
        return;
    (void)gather_now(l); /* an early one is taken the next time */
    uint64_t tail = atomic_load_explicit(&l->tail, memory_order_relaxed);
    for (; tail < head && (last || l->next.n_records < l->records_max); tail++) {
        struct told *t = &l->ring[tail % l->records_max];
        if (t->number > l->tally.state.ended || !take_told(l, t))
            break;
        atomic_fetch_add(&l->taken, 1);
        atomic_store_explicit(&l->tail, tail + 1, memory_order_release);
    }
}

/* The meter leaves; its pointers are not used after this. */
static void leave(void *context)
{
    struct cinf_ledger *l = context;
    pthread_mutex_lock(&l->gather_lock);
    gather(l, true);
    for (uint64_t at = atomic_load(&l->tail); at < atomic_load(&l->head); at++) { /* without memory */
        atomic_fetch_add(&l->dropped, 1);
        mem_free(l->ring[at % l->records_max].note);
    }
    atomic_store(&l->tail, atomic_load(&l->head));
    l->meter = NULL;
    l->left = true;
    pthread_mutex_unlock(&l->gather_lock);
    wake(l, 'f');
}

/* ---- Committing ------------------------------------------------------------------------------ */

static void batch_free(struct batch *b)
{
    for (size_t i = 0; i < b->n_records; i++)
        mem_free(b->records[i].note);
    mem_free(b->records);
    mem_free(b->minutes.items);
    mem_free(b->prices);
    *b = (struct batch){ 0 };
}

static bool has_work(const struct tally_minutes *minutes)
{
    for (size_t i = 0; i < minutes->n; i++)
        if (minutes->items[i].kind == KIND_SERVE || minutes->items[i].kind == KIND_LOAD)
            return true;
    return false;
}

/* Makes everything gathered the batch that is written next.  Caller holds gather_lock. */
static void take_off(struct cinf_ledger *l)
{
    struct tally_price *prices = mem_copy(l->tally.prices, l->tally.n_prices * sizeof *prices);
    if (!prices)
        return;
    l->flight = l->next;
    l->flight.minutes = l->tally.minutes;
    l->flight.prices = prices;
    l->flight.n_prices = l->tally.n_prices;
    l->flight.state = l->tally.state;
    l->flight.end = l->left;
    l->next = (struct batch){ 0 };
    l->tally.minutes = (struct tally_minutes){ 0 };
    l->flying = true;
}

static enum cinf_status connect_file(struct cinf_ledger *l)
{
    struct stat file;
    if (l->committer.db && (stat(l->lock.path, &file) != 0 || file.st_ino != l->file)) {
        committer_close(&l->committer, true);
        cinf_fail(CINF_EIO, "%s was deleted or replaced", l->lock.path);
    }
    if (l->committer.db)
        return CINF_OK;
    TRY(committer_open(&l->committer, l->lock.path));
    if (stat(l->lock.path, &file) != 0)
        return cinf_fail(CINF_EIO, "%s: %s", l->lock.path, strerror(errno));
    l->file = file.st_ino;
    return CINF_OK;
}

/* The file lacks the boot's past: its books begin again where they were committed last. */
static enum cinf_status begin_again(struct cinf_ledger *l)
{
    int64_t next;
    TRY(commit_recover(l->committer.db, &l->lock, &next));
    l->boot.id = next;
    l->boot.begin = l->committed;
    l->boot.started_ns = l->committed.wall_ns;
    l->boot.commits = l->boot.recorded = l->boot.recorded_ns = 0;
    l->boot.recorded_cost = 0;
    return commit_batch(&l->committer, &l->boot, &l->flight);
}

static enum cinf_status write_flight(struct cinf_ledger *l)
{
    TRY(connect_file(l));
    enum cinf_status status = commit_batch(&l->committer, &l->boot, &l->flight);
    return status == CINF_ENOTFOUND ? begin_again(l) : status;
}

static uint64_t size_of(const char *path, const char *end)
{
    char name[4096];
    struct stat file;
    int n = snprintf(name, sizeof name, "%s%s", path, end);
    return n > 0 && n < (int)sizeof name && stat(name, &file) == 0 ? (uint64_t)file.st_size : 0;
}

/* Moves the log into the database, never waiting for a reader that keeps it. */
static void checkpoint(struct cinf_ledger *l, uint64_t log_bytes)
{
    bool large = log_bytes > LOG_MAX;
    if (!l->committer.db || log_bytes < LOG_IDLE ||
        (!large && atomic_load(&l->head) != atomic_load(&l->tail)))
        return;
    sqlite3_busy_timeout(l->committer.db, 0);
    sqlite3_wal_checkpoint_v2(l->committer.db, NULL,
                              large ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    sqlite3_busy_timeout(l->committer.db, 5000);
}

static void tell_failure(struct cinf_ledger *l)
{
    pthread_mutex_lock(&l->status_lock);
    l->status.up = false;
    l->status.failures++;
    snprintf(l->status.error, sizeof l->status.error, "%s", cinf_last_error());
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->status_lock);
}

static void tell_success(struct cinf_ledger *l, uint64_t took_ns, uint64_t records)
{
    uint64_t file = size_of(l->lock.path, ""), log = size_of(l->lock.path, "-wal");
    pthread_mutex_lock(&l->status_lock);
    struct cinf_ledger_status *s = &l->status;
    s->up = true;
    s->error[0] = '\0';
    s->commits++;
    s->recorded += records;
    atomic_fetch_sub(&l->taken, records);
    s->file_bytes = file;
    s->log_bytes = log;
    if (took_ns > s->commit_ns_max)
        s->commit_ns_max = took_ns;
    pthread_mutex_unlock(&l->status_lock);
    checkpoint(l, log);
}

static void commit_flight(struct cinf_ledger *l)
{
    uint64_t start = clock_monotonic_ns();
    if (write_flight(l) != CINF_OK) {
        tell_failure(l);
        committer_close(&l->committer, true);
        l->retry_ms = l->retry_ms ? l->retry_ms * 2 : RETRY_MS;
        if (l->retry_ms > RETRY_MS_MAX)
            l->retry_ms = RETRY_MS_MAX;
        l->retry_at_ns = clock_monotonic_ns() + l->retry_ms * MS_NS;
        return;
    }
    uint64_t now = clock_monotonic_ns(), records = l->flight.n_records;
    bool end = l->flight.end;
    l->committed = l->flight.state;
    l->committed_at_ns = now;
    l->retry_ms = l->retry_at_ns = 0;
    l->flying = false;
    batch_free(&l->flight);
    tell_success(l, now - start, records);
    if (end) {
        pthread_mutex_lock(&l->gather_lock);
        tally_free(&l->tally);
        l->following = l->left = false;
        l->next_boot = l->boot.id + 1;
        pthread_mutex_unlock(&l->gather_lock);
    }
}

/* Gathers, and commits what is due.  Returns true if nothing is left to commit. */
static bool work(struct cinf_ledger *l, bool all)
{
    uint64_t now = clock_monotonic_ns();
    pthread_mutex_lock(&l->gather_lock);
    gather(l, false);
    bool fresh =
        l->following && (l->tally.minutes.n > 0 || l->next.n_records > 0 || l->left || l->boot.commits == 0);
    bool due = fresh && (all || l->left || l->next.n_records > 0 || l->boot.commits == 0 ||
                         (has_work(&l->tally.minutes) && now - l->committed_at_ns >= SECOND_NS) ||
                         l->tally.state.wall_ns / MINUTE_NS != l->committed.wall_ns / MINUTE_NS);
    bool follows = l->following;
    uint64_t as_of = l->tally.state.as_of_ns;
    if (due && !l->flying)
        take_off(l);
    bool rest = due && l->next.n_records > 0;
    pthread_mutex_unlock(&l->gather_lock);
    if (follows)
        store_beat(&l->lock, l->boot.id, as_of);
    if (l->flying && now >= l->retry_at_ns)
        commit_flight(l);
    return !l->flying && !rest;
}

static int milliseconds_to_wait(const struct cinf_ledger *l)
{
    uint64_t wait = SECOND_NS, minute = MINUTE_NS - real_ns() % MINUTE_NS, now = clock_monotonic_ns();
    if (minute < wait)
        wait = minute;
    if (l->flying && l->retry_at_ns < now + wait)
        wait = l->retry_at_ns > now ? l->retry_at_ns - now : 0;
    return (int)(wait / MS_NS) + 1;
}

/* Returns when something is to be done. */
static void wait_for_work(struct cinf_ledger *l)
{
    struct pollfd fd = { .fd = l->wake[0], .events = POLLIN };
    char how[64];
    bool soon = false;
    int ms = milliseconds_to_wait(l);
    /* After the first request of a group, others have this long to join it. */
    while (poll(&fd, 1, ms) > 0) {
        ssize_t n = read(l->wake[0], how, sizeof how);
        if (soon || l->flying || (n > 0 && memchr(how, 'f', (size_t)n)))
            return;
        soon = true;
        ms = (int)(l->commit_ns / MS_NS);
    }
}

static void *run(void *context)
{
    struct cinf_ledger *l = context;
    int tries = 0;
    for (;;) {
        pthread_mutex_lock(&l->status_lock);
        uint64_t wanted = l->flush_wanted;
        pthread_mutex_unlock(&l->status_lock);
        bool stop = atomic_load(&l->stop);
        bool before = l->flying; /* then this commit is not of what was gathered now */
        bool done = work(l, stop || wanted > l->flush_done);
        if (before && !l->flying)
            done = work(l, stop || wanted > l->flush_done);
        if (done) {
            pthread_mutex_lock(&l->status_lock);
            l->flush_done = wanted;
            pthread_cond_broadcast(&l->changed);
            pthread_mutex_unlock(&l->status_lock);
        }
        if (stop && (done || ++tries == CLOSE_TRIES))
            return NULL;
        wait_for_work(l);
    }
}

/* ---- The caller's side ------------------------------------------------------------------------ */

static void ledger_free(struct cinf_ledger *l)
{
    committer_close(&l->committer, l->flying);
    store_unlock(&l->lock);
    for (int end = 0; end < 2; end++)
        if (l->wake[end] >= 0)
            close(l->wake[end]);
    batch_free(&l->flight);
    batch_free(&l->next);
    tally_free(&l->tally);
    for (int e = 0; e < CINF_ENDPOINTS_MAX; e++)
        mem_free(l->endpoints[e]);
    mem_free(l->device);
    mem_free(l->instance);
    mem_free(l->ring);
    pthread_mutex_destroy(&l->samples_lock);
    pthread_mutex_destroy(&l->gather_lock);
    pthread_mutex_destroy(&l->status_lock);
    pthread_cond_destroy(&l->changed);
    mem_free(l);
}

static struct cinf_ledger *ledger_new(const struct cinf_ledger_options *o)
{
    struct cinf_ledger *l = mem_new(1, sizeof *l);
    if (!l)
        return NULL;
    l->lock.fd = l->wake[0] = l->wake[1] = -1;
    l->records_max = o->records_max ? o->records_max : RECORDS_MAX;
    l->commit_ns = (o->commit_ms ? o->commit_ms : COMMIT_MS) * MS_NS;
    l->samples_end = &l->samples;
    l->observer =
        (struct observer){ .context = l, .ended = on_ended, .price_changed = on_price, .meter_freed = leave };
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&l->samples_lock, NULL);
    pthread_mutex_init(&l->gather_lock, NULL);
    pthread_mutex_init(&l->status_lock, NULL);
    l->instance = mem_copy_text(o->instance ? o->instance : "costinfer");
    l->ring = mem_new(l->records_max, sizeof *l->ring);
    if (l->instance && l->ring)
        return l;
    ledger_free(l);
    return NULL;
}

static enum cinf_status open_pipe(int ends[2])
{
    if (pipe(ends) != 0)
        return cinf_fail(CINF_EIO, "cannot make a pipe: %s", strerror(errno));
    for (int end = 0; end < 2; end++)
        if (fcntl(ends[end], F_SETFL, O_NONBLOCK) != 0 || fcntl(ends[end], F_SETFD, FD_CLOEXEC) != 0)
            return cinf_fail(CINF_EIO, "cannot set up a pipe: %s", strerror(errno));
    return CINF_OK;
}

static enum cinf_status start(struct cinf_ledger *l, const char *path)
{
    TRY(store_lock(&l->lock, path, true));
    TRY(connect_file(l));
    TRY(commit_recover(l->committer.db, &l->lock, &l->next_boot));
    TRY(open_pipe(l->wake));
    l->status.up = true;
    int error = pthread_create(&l->thread, NULL, run, l);
    return error ? cinf_fail(CINF_ENOMEM, "cannot start a thread: %s", strerror(error)) : CINF_OK;
}

enum cinf_status cinf_ledger_open(struct cinf_ledger **out, const struct cinf_ledger_options *options)
{
    struct cinf_ledger_options o = { CINF_LEDGER_OPTIONS };
    if (options->struct_size < sizeof options->struct_size)
        return cinf_fail(CINF_EINVAL, "struct_size of the options is 0: CINF_LEDGER_OPTIONS sets it");
    memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
    if (!o.path)
        return cinf_fail(CINF_EINVAL, "a ledger needs the path of a file");
    if (o.instance)
        TRY(label_check("ledger's instance", o.instance));
    struct cinf_ledger *l = ledger_new(&o);
    if (!l)
        return cinf_fail(CINF_ENOMEM, "no memory for a ledger");
    enum cinf_status status = start(l, o.path);
    if (status != CINF_OK) {
        ledger_free(l);
        return status;
    }
    *out = l;
    return CINF_OK;
}

/* Caller holds gather_lock and the meter's observer_lock. */
static enum cinf_status begin_boot(struct cinf_ledger *l, const struct cinf_meter *meter, struct sample *s)
{
    const struct cinf_snapshot *now = &s->snapshot;
    mem_free(l->device);
    if (!(l->device = mem_copy_text(now->device)))
        return cinf_fail(CINF_ENOMEM, "no memory for a ledger");
    for (uint32_t e = 0; e < CINF_ENDPOINTS_MAX; e++) {
        mem_free(l->endpoints[e]);
        l->endpoints[e] = e < now->n_endpoints ? mem_copy_text(now->endpoints[e]) : NULL;
        if (e < now->n_endpoints && !l->endpoints[e])
            return cinf_fail(CINF_ENOMEM, "no memory for a ledger");
    }
    TRY(tally_begin(&l->tally, now, s->wall_ns));
    l->boot = (struct boot){ .id = l->next_boot,
                             .instance = l->instance,
                             .device = l->device,
                             .basis = now->basis == CINF_BASIS_CPU ? "cpu" : "wall",
                             .started_ns = l->tally.state.wall_ns,
                             .begin = l->tally.state };
    l->committed = l->tally.state;
    l->period = l->tally.period;
    l->meter = meter;
    l->following = true;
    return CINF_OK;
}

struct joining {
    struct cinf_ledger *ledger;
    const struct cinf_meter *meter;
};

static enum cinf_status join(void *context)
{
    const struct joining *joining = context;
    struct cinf_ledger *l = joining->ledger;
    struct sample *s = sample_new(joining->meter);
    if (!s)
        return cinf_fail(CINF_ENOMEM, "no memory for a snapshot");
    pthread_mutex_lock(&l->gather_lock);
    enum cinf_status status = l->following ? cinf_fail(CINF_EBUSY, "the ledger follows another meter")
                                           : begin_boot(l, joining->meter, s);
    if (status != CINF_OK && !l->following)
        tally_free(&l->tally);
    pthread_mutex_unlock(&l->gather_lock);
    sample_free(s);
    return status;
}

enum cinf_status cinf_ledger_attach(struct cinf_ledger *l, const struct cinf_meter *meter)
{
    struct joining joining = { l, meter };
    TRY(meter_observe(meter, &l->observer, join, &joining));
    wake(l, 'f');
    return CINF_OK;
}

enum cinf_status cinf_ledger_flush(struct cinf_ledger *l, uint64_t timeout_ns)
{
    uint64_t now = clock_monotonic_ns(), until = now + timeout_ns < now ? UINT64_MAX : now + timeout_ns;
    pthread_mutex_lock(&l->status_lock);
    uint64_t wanted = ++l->flush_wanted;
    wake(l, 'f');
    while (l->flush_done < wanted && clock_monotonic_ns() < until)
        cond_wait_until(&l->changed, &l->status_lock, until);
    enum cinf_status status = CINF_OK;
    if (l->flush_done < wanted)
        status = l->status.up ? cinf_fail(CINF_EAGAIN, "the ledger has not been committed yet")
                              : cinf_fail(CINF_EAGAIN, "the ledger cannot be written: %s", l->status.error);
    pthread_mutex_unlock(&l->status_lock);
    return status;
}

void cinf_ledger_read_status(const struct cinf_ledger *ledger, struct cinf_ledger_status *out)
{
    struct cinf_ledger *l = (struct cinf_ledger *)ledger; /* for its lock */
    pthread_mutex_lock(&l->status_lock);
    struct cinf_ledger_status s = l->status;
    pthread_mutex_unlock(&l->status_lock);
    s.waiting = atomic_load(&l->head) - atomic_load(&l->tail) + atomic_load(&l->taken);
    s.unrecorded = atomic_load(&l->dropped);
    s.struct_size = out->struct_size;
    memcpy(out, &s, out->struct_size < sizeof s ? out->struct_size : sizeof s);
}

static enum cinf_status part(void *context)
{
    leave(context);
    return CINF_OK;
}

enum cinf_status cinf_ledger_close(struct cinf_ledger *l)
{
    if (!l)
        return CINF_OK;
    pthread_mutex_lock(&l->gather_lock);
    const struct cinf_meter *meter = l->meter;
    pthread_mutex_unlock(&l->gather_lock);
    if (meter)
        (void)meter_observe(meter, NULL, part, l);
    atomic_store(&l->stop, true);
    wake(l, 'f');
    pthread_join(l->thread, NULL);
    enum cinf_status status = CINF_OK;
    if (l->flying || l->following)
        status = cinf_fail(CINF_EIO, "%zu requests could not be written to %s: %s",
                           l->flight.n_records + l->next.n_records, l->lock.path, l->status.error);
    ledger_free(l);
    return status;
}
