/* ledger_writer.c - the ledger's thread: it waits, gathers, and commits a batch.
 *
 * A batch whose commit failed stays in flight unchanged, whatever has come since: the failed transaction may
 * have reached the file after all, and commit_batch() recognises it by its number alone. */
#include "ledger_writer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "ledger_ring.h"
#include "mem.h"

enum {
    RETRY_MS = 100, /* after a failure; doubles up to: */
    RETRY_MS_MAX = 5000,
    CLOSE_TRIES = 4,
    LOG_IDLE = 256 * 1024,      /* a log of this size is moved into the database when nothing waits */
    LOG_MAX = 16 * 1024 * 1024, /* and this one in any case */
};

void ledger_wake(struct cinf_ledger *l, char how)
{
    ssize_t ignored = write(l->wake[1], &how, 1); /* a full pipe wakes as well */
    (void)ignored;
}

void batch_free(struct batch *b)
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

enum cinf_status ledger_connect(struct cinf_ledger *l)
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
    TRY(ledger_connect(l));
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
    ledger_gather(l, false);
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

void *ledger_run(void *context)
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
