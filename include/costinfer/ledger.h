/* ledger.h - a meter's books, kept in a file: they outlive the process and say who used the machine in any
 * period.
 *
 *     struct cinf_ledger *ledger;
 *     cinf_ledger_open(&ledger, &(struct cinf_ledger_options){ CINF_LEDGER_OPTIONS, .path = "ledger.db" });
 *     cinf_ledger_attach(ledger, cinf_engine_meter(engine));     or any program's own meter
 *     ...
 *     cinf_engine_close(engine);
 *     cinf_ledger_close(ledger);
 *
 * The file is an SQLite database of facts, all of them integers: a row for each request that has ended, and
 * the device's time by minute, account, model, payer and price.  Amounts of money follow from them when they
 * are asked for.  What always holds, also after a crash, and cinf_ledger_verify() proves of any file:
 *
 *   for each life of a meter (a boot)
 *     sum of its device minutes          = as_of - opened
 *     sum of its minutes of serve        = sum of its requests' device time + what was running at the last
 * commit each hour's sums                     = the sums of the rows of that hour
 *
 * A boot that did not end cleanly is closed by the next open: what was running becomes `interrupted`, and the
 * time between the last commit and the last sign of life becomes a row of its own, `unattributed`.  No bill
 * gets a guess.
 *
 * One thread of the ledger's own writes.  It commits 50 ms after a request has ended, many requests together,
 * in WAL mode with synchronous=FULL: a committed row survives the end of the process and, as far as the disk
 * keeps its promises, a power failure.  No other thread ever waits for the disk.  When the disk is full or
 * fails, records wait in memory and are written later; when that memory is full as well, requests are counted
 * as unrecorded, with their time.  One process writes to a ledger; any number read it.  The file must be on a
 * local disk. */
#ifndef COSTINFER_LEDGER_H
#define COSTINFER_LEDGER_H

#include <costinfer/meter.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Writing ------------------------------------------------------------------------------ */

/* How to open a ledger.  Zero means the default, in every field but path. */
struct cinf_ledger_options {
    size_t struct_size; /* set by CINF_LEDGER_OPTIONS */
    const char *path;   /* of the file, which is created if there is none */
    const char
        *instance; /* names this machine or service among others, in 1 to 256 bytes; NULL: "costinfer" */
    uint32_t records_max; /* ended requests that may wait for the disk; 0: 8192 */
    uint32_t commit_ms;   /* a request is committed this long after its end; 0: 50 */
};
#define CINF_LEDGER_OPTIONS .struct_size = sizeof(struct cinf_ledger_options) /* begins an initializer */

struct cinf_ledger; /* a file that is being written */

/* Opens a ledger for writing, and closes the boots that did not end cleanly.  CINF_EBUSY if another process
 * writes to it, CINF_EFORMAT if the file is not a ledger, CINF_EUNSUPPORTED if a later version of the library
 * wrote it or this one was built without ledgers: such a file is left untouched. */
CINF_API enum cinf_status cinf_ledger_open(struct cinf_ledger **out,
                                           const struct cinf_ledger_options *options);

/* Begins a boot: from now on the ledger follows this meter, until the meter is freed or the ledger is closed.
 * If none of the meter's requests has ended yet, its whole past belongs to the boot.  A ledger follows one
 * meter at a time, and a meter has one ledger: otherwise CINF_EBUSY.  Any thread may call it. */
CINF_API enum cinf_status cinf_ledger_attach(struct cinf_ledger *ledger, const struct cinf_meter *meter);

/* Waits until everything that had ended before the call is committed.  CINF_EAGAIN if that takes longer. */
CINF_API enum cinf_status cinf_ledger_flush(struct cinf_ledger *ledger, uint64_t timeout_ns);

/* How a ledger does. */
struct cinf_ledger_status {
    size_t struct_size;     /* set by CINF_LEDGER_STATUS before the struct is filled */
    bool up;                /* the last commit succeeded */
    uint64_t commits;       /* that succeeded */
    uint64_t failures;      /* commits that failed and were or will be repeated */
    uint64_t recorded;      /* requests that are committed */
    uint64_t waiting;       /* requests that wait for a commit */
    uint64_t unrecorded;    /* requests whose row is missing, because too many waited; their time is booked */
    uint64_t commit_ns_max; /* the longest commit */
    uint64_t file_bytes;    /* of the database */
    uint64_t log_bytes;     /* of the write-ahead log beside it */
    char error[256];        /* of the last failure, while not up */
};
#define CINF_LEDGER_STATUS .struct_size = sizeof(struct cinf_ledger_status) /* begins an initializer */

/* Reads how a ledger does, from any thread.  It waits for nothing. */
CINF_API void cinf_ledger_read_status(const struct cinf_ledger *ledger, struct cinf_ledger_status *status);

/* Ends the boot cleanly, writes everything and closes the file.  CINF_EIO if that was not possible: the next
 * open then finds a boot without a clean end.  The ledger is freed in either case.  The meter must not be
 * freed concurrently; before or after is both right.  Accepts NULL. */
CINF_API enum cinf_status cinf_ledger_close(struct cinf_ledger *ledger);

/* ---- Reading any ledger, also while it is written ------------------------------------------- */

/* What a file holds. */
struct cinf_ledger_info {
    size_t struct_size;       /* set by CINF_LEDGER_INFO before the struct is filled */
    uint32_t version;         /* of the schema */
    uint64_t boots;           /* lives of meters */
    uint64_t crashed;         /* of these, without a clean end */
    uint64_t requests;        /* in rows or, where those were pruned, in hours' sums */
    uint64_t request_rows;    /* in rows */
    uint64_t unrecorded;      /* requests without a row, because too many waited for the disk */
    uint64_t device_ns;       /* time of all accounts */
    uint64_t serve_ns;        /* of it, charged to requests */
    uint64_t interrupted_ns;  /* of that, to requests that a crash ended */
    uint64_t unattributed_ns; /* between the last commit and a crash */
    uint64_t first_ns;        /* when the first boot began, in nanoseconds since 1970 */
    uint64_t last_ns;         /* the last commit */
    uint64_t file_bytes;      /* of the database, without its log */
    uint64_t rows_from_ns;    /* rows before this were pruned; 0: none were */
    char sqlite_version[16];  /* of the library that reads */
};
#define CINF_LEDGER_INFO .struct_size = sizeof(struct cinf_ledger_info) /* begins an initializer */

/* Reads what a file holds, at one moment. */
CINF_API enum cinf_status cinf_ledger_info(struct cinf_ledger_info *out, const char *path);

/* Is told each thing that does not add up, in one line. */
typedef void cinf_ledger_fault_fn(void *context, const char *fault);

/* Proves that a ledger adds up, to the nanosecond and to the last unit of cost, and that SQLite finds the
 * file whole. *faults is the number of things that do not.  The call fails only if the file cannot be read.
 */
CINF_API enum cinf_status cinf_ledger_verify(uint64_t *faults, const char *path,
                                             cinf_ledger_fault_fn *on_fault, void *context);

/* Copies a ledger, consistent at one moment, to a file that must not exist.  The writer may go on. */
CINF_API enum cinf_status cinf_ledger_backup(const char *path, const char *to);

/* Deletes the rows of whole hours before a time (nanoseconds since 1970); the hours' sums stay.  *rows is how
 * many. CINF_EBUSY if a process is writing to the ledger. */
CINF_API enum cinf_status cinf_ledger_prune(uint64_t *rows, const char *path, uint64_t before_ns);

/* ---- Who used the machine ------------------------------------------------------------------- */

enum { CINF_LEDGER_BY_MAX = 4 }; /* most names to group by */

/* What to do with time that no request and no load was charged for. */
enum cinf_ledger_idle {
    CINF_LEDGER_IDLE_NONE = 0, /* it stands for itself */
    CINF_LEDGER_IDLE_USAGE,    /* it is spread over what requests were charged, in proportion */
};

/* What to ask.  A request belongs to the moment at which it ended; device time belongs to its minute, or to
 * its hour where minutes were pruned. */
struct cinf_ledger_query {
    size_t struct_size;         /* set by CINF_LEDGER_QUERY */
    uint64_t since_ns;          /* nanoseconds since 1970, rounded down to a minute */
    uint64_t until_ns;          /* exclusive, rounded down to a minute; 0: no limit */
    const char *const *by;      /* model, payer, user, endpoint, tag:NAME */
    uint32_t n_by;              /* at most CINF_LEDGER_BY_MAX; 0: one line for all requests */
    enum cinf_ledger_idle idle; /* the policy */
};
#define CINF_LEDGER_QUERY .struct_size = sizeof(struct cinf_ledger_query) /* begins an initializer */

/* One line of a sum. */
struct cinf_ledger_line {
    /* "serve": charged to requests.  "load", "idle", "lost", "overhead": the device's other accounts, as in
     * meter.h. "unattributed": before a crash.  "elsewhen": with `by` other than model and payer, what was
     * served in the period to requests that did not end in it, less what its requests were served before it;
     * it can be below 0. */
    const char *kind;
    const char *keys[CINF_LEDGER_BY_MAX]; /* [n_by] the group; NULL: unknown, or not for this kind */
    uint64_t requests;                    /* that ended in the period */
    uint64_t input_tokens;                /* of these */
    uint64_t cached_tokens;               /* likewise */
    uint64_t output_tokens;               /* likewise */
    uint64_t device_ns;                   /* time */
    uint64_t unpriced_ns;                 /* of it, without a price */
    struct cinf_cost cost;                /* of the priced part */
    struct cinf_cost idle_cost; /* its part of the idle time, which CINF_LEDGER_IDLE_USAGE adds to it */
    bool negative;              /* device_ns, unpriced_ns and cost are to be subtracted */
};

/* An answer: lines of falling cost whose costs add up to the whole, exactly. */
struct cinf_ledger_sum {
    size_t struct_size;                   /* set by CINF_LEDGER_SUM before the struct is filled */
    uint32_t n_lines;                     /* how many */
    const struct cinf_ledger_line *lines; /* [n_lines], valid until cinf_ledger_sum_free() */
    uint64_t requests;                    /* in all lines */
    uint64_t device_ns;                   /* time of the device in the period */
    uint64_t unpriced_ns;                 /* of it, without a price */
    struct cinf_cost cost;                /* the whole: what the machine cost in the period */
    void *memory;                         /* what the pointers point into */
};
#define CINF_LEDGER_SUM .struct_size = sizeof(struct cinf_ledger_sum) /* begins an initializer */

/* Sums one or more ledgers. */
CINF_API enum cinf_status cinf_ledger_costs(struct cinf_ledger_sum *out, const char *const *paths,
                                            uint32_t n_paths, const struct cinf_ledger_query *query);
CINF_API void cinf_ledger_sum_free(struct cinf_ledger_sum *sum); /* accepts one that was never filled */

#ifdef __cplusplus
}
#endif
#endif
