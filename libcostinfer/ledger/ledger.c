/* ledger.c - follows a meter and commits what it says.  This file owns a ledger's life as its caller sees it:
 * open, attach, flush, status and close.  ledger_ring.c has what waits, ledger_writer.c the thread.
 *
 *   charging thread   ledger_ended(): into the ring         ledger_price_changed(): a snapshot into the list
 *                       |                                     |
 *   ledger's thread   ledger_gather(): everything that one snapshot shows, into memory of the ledger's own
 *                       |
 *                     commit_batch(): one transaction; again until it succeeds
 *
 * The charging thread takes no lock that the ledger holds while it reads or writes a file, and wakes the
 * ledger by a byte in a pipe.  A batch that is being written does not change; what comes after it waits in
 * the next batch, then in the ring, and when that is full a request has no row: its time is `unrecorded`. */
#include <costinfer/ledger.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "accounts.h"
#include "clock.h"
#include "cond_wait.h"
#include "fail.h"
#include "ledger_ring.h"
#include "ledger_writer.h"
#include "mem.h"

enum { RECORDS_MAX = 8192, COMMIT_MS = 50 };

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
    l->observer = (struct observer){ .context = l,
                                     .ended = ledger_ended,
                                     .price_changed = ledger_price_changed,
                                     .meter_freed = ledger_leave };
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
    TRY(ledger_connect(l));
    TRY(commit_recover(l->committer.db, &l->lock, &l->next_boot));
    TRY(open_pipe(l->wake));
    l->status.up = true;
    int error = pthread_create(&l->thread, NULL, ledger_run, l);
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
    ledger_wake(l, 'f');
    return CINF_OK;
}

enum cinf_status cinf_ledger_flush(struct cinf_ledger *l, uint64_t timeout_ns)
{
    uint64_t now = clock_monotonic_ns(), until = now + timeout_ns < now ? UINT64_MAX : now + timeout_ns;
    pthread_mutex_lock(&l->status_lock);
    uint64_t wanted = ++l->flush_wanted;
    ledger_wake(l, 'f');
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
    ledger_leave(context);
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
    ledger_wake(l, 'f');
    pthread_join(l->thread, NULL);
    enum cinf_status status = CINF_OK;
    if (l->flying || l->following)
        status = cinf_fail(CINF_EIO, "%zu requests could not be written to %s: %s",
                           l->flight.n_records + l->next.n_records, l->lock.path, l->status.error);
    ledger_free(l);
    return status;
}
