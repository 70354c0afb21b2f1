#include "books.h"

#include <inttypes.h>
#include <unistd.h>

#include "fail.h"
#include "log.h"
#include "mem.h"

#define LOOK_NS UINT64_C(1000000000)

struct books {
    struct cinf_ledger *ledger;
    struct timers *timers;
    struct timer timer;
    bool was_up;             /* when it was looked at last; the timers' thread */
    uint64_t was_unrecorded; /* likewise */
};

static uint64_t look(void *context)
{
    struct books *b = context;
    struct cinf_ledger_status now = { CINF_LEDGER_STATUS };
    cinf_ledger_read_status(b->ledger, &now);
    if (b->was_up && !now.up)
        log_message("error", "ledger", "cannot be written, and %" PRIu64 " requests wait in memory: %s",
                    now.waiting, now.error);
    if (!b->was_up && now.up)
        log_message("info", "ledger", "is written again");
    if (now.unrecorded > b->was_unrecorded)
        log_message("error", "ledger",
                    "%" PRIu64 " requests have no row, because too many waited for the disk",
                    now.unrecorded - b->was_unrecorded);
    b->was_up = now.up;
    b->was_unrecorded = now.unrecorded;
    return LOOK_NS;
}

enum cinf_status books_open(struct books **out, const char *path, const struct cinf_engine *engine,
                            struct timers *timers)
{
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) != 0 || !host[0])
        host[0] = '-';
    struct books *b = mem_new(1, sizeof *b);
    if (!b)
        return cinf_fail(CINF_ENOMEM, "no memory for a ledger");
    enum cinf_status status = cinf_ledger_open(
        &b->ledger, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = path, .instance = host });
    if (status == CINF_OK)
        status = cinf_ledger_attach(b->ledger, cinf_engine_meter(engine));
    if (status != CINF_OK) {
        status = cinf_fail_in(status, "--ledger: ");
        cinf_ledger_close(b->ledger);
        mem_free(b);
        return status;
    }
    b->was_up = true;
    b->timers = timers;
    b->timer = (struct timer){ .fire = look, .context = b };
    timers_set(timers, &b->timer, LOOK_NS);
    *out = b;
    return CINF_OK;
}

void books_stop(struct books *books)
{
    if (books)
        timers_clear(books->timers, &books->timer);
}

void books_close(struct books *books)
{
    if (!books)
        return;
    if (cinf_ledger_close(books->ledger) != CINF_OK)
        log_message("error", "ledger", "%s", cinf_last_error());
    mem_free(books);
}

bool books_status(const struct books *books, struct cinf_ledger_status *status)
{
    if (books)
        cinf_ledger_read_status(books->ledger, status);
    return books != NULL;
}
