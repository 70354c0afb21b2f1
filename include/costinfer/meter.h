/* meter.h - one device's timeline and the accounts that its time is charged to.
 *
 * A meter works without this library's engine.  A program with its own inference bills with this header
 * alone:
 *
 *     struct cinf_meter *meter;
 *     cinf_meter_new(&meter, &(struct cinf_meter_options){
 *         CINF_METER_OPTIONS, .device = "cpu", .dollars_per_hour = "0.10" });
 *     uint32_t model;
 *     cinf_meter_add_model(meter, "translator", &model);
 *
 *     struct cinf_bill *a, *b;                          two requests that run in one batch
 *     cinf_bill_open(&a, meter, model, 0);
 *     cinf_bill_open(&b, meter, model, 0);
 *     cinf_meter_busy(meter);                           the device leaves idle
 *     run_batch(...);
 *     cinf_meter_charge(meter, (struct cinf_share[]){   the time since then, split 3 : 1
 *         { .bill = a, .prefill_weight = 3, .input_tokens = 30 },
 *         { .bill = b, .prefill_weight = 1, .input_tokens = 10 } }, 2);
 *     cinf_meter_idle(meter);
 *     cinf_bill_close(a, CINF_FINISH_STOP);
 *     cinf_bill_read(a, &report);                      report.device_ns, report.cost
 *
 * What always holds, as integers (the invariants):
 *
 *   serve + load + idle + lost + overhead = as_of     no nanosecond is missed or counted twice
 *   sum of all reports' device_ns = serve             finished and running ones
 *   sum over a model's payers = the model's serve     time, cost and tokens
 *   alone on the device:
 *     device_ns + lost_ns = latency_ns                so cost = latency x hourly rate / 3600, if none was
 * lost
 *
 * Lost time is time in which no thread of the process could run for more than 0.25 s at a stretch: the
 * process was stopped (SIGSTOP, a debugger), its virtual machine was paused, or no processor was given to it.
 * No request and no model pays for it.  A shorter stretch cannot be told apart from ordinary waiting for a
 * processor and stays in the step that it delays.  Waiting for a device or a disk is not lost.
 *
 * Overhead exists only where CPU time is charged (CINF_BASIS_CPU) and the device's threads are known
 * (device_cpu_ns): it is the CPU time of all other threads.  As_of is then the CPU time that the process has
 * used since the meter was opened.
 *
 * Time enters an account in one way only: a charge takes everything since the last boundary and
 * moves the boundary to now.  Counters are integers (nanoseconds, tokens, requests); money is derived
 * from them when it is read.
 *
 * Threads.  Only one thread at a time (the scheduler) may call the functions that move time:
 * cinf_meter_busy, _idle, _charge, _charge_load, _set_price, _add_model, _set_loaded,
 * cinf_bill_count_drafts and cinf_bill_close.  Any thread may call everything else at any time; reading
 * never waits for the writer and never changes a counter. */
#ifndef COSTINFER_METER_H
#define COSTINFER_METER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Money -------------------------------------------------------------------------------- */

/* An exact amount: a 128-bit count (hi * 2^64 + lo) of nanoseconds x nano-dollars an hour, which are
 * units of 1/3.6e21 dollars.  Amounts add without rounding, even across a change of price. */
struct cinf_cost {
    uint64_t hi; /* the upper 64 bits */
    uint64_t lo; /* the lower 64 bits */
};

enum { CINF_COST_TEXT_MAX = 40 }; /* bytes of the longest amount as text, with its NUL */

/* The cost of a time at a price: the product, never rounded. */
CINF_API struct cinf_cost cinf_cost_of(uint64_t ns, uint64_t nanodollars_per_hour);
CINF_API struct cinf_cost cinf_cost_add(struct cinf_cost a, struct cinf_cost b); /* a + b, exactly */
CINF_API int cinf_cost_compare(struct cinf_cost a, struct cinf_cost b);          /* <0, 0, >0 */

/* Writes dollars with 12 decimals, rounded half up ("0.000555555556"), in every locale.  Returns text. */
CINF_API const char *cinf_cost_format(char text[CINF_COST_TEXT_MAX], struct cinf_cost cost);
CINF_API double cinf_cost_dollars(struct cinf_cost cost); /* for plots and ratios */

/* Reads "2.50" dollars as 2500000000 nano-dollars.  A price is digits, optionally with a point and one to
 * nine decimals, and at most 1000000; it is never rounded.  Anything else is CINF_EINVAL. */
CINF_API enum cinf_status cinf_price_parse(uint64_t *nanodollars_per_hour, const char *dollars);

/* ---- A meter ------------------------------------------------------------------------------ */

/* Which time is charged. */
enum cinf_basis {
    CINF_BASIS_WALL = 0, /* the machine is rented by the hour: monotonic wall time */
    CINF_BASIS_CPU,      /* a shared machine: CPU time of this process, the rate is per core-hour */
};

/* How to open a meter.  Zero means the default, in every field. */
struct cinf_meter_options {
    size_t struct_size;            /* set by CINF_METER_OPTIONS */
    const char *device;            /* label of the device; NULL: "cpu" */
    enum cinf_basis basis;         /* which time is charged */
    const char *dollars_per_hour;  /* as for cinf_price_parse(); NULL: unpriced */
    const char *const *endpoints;  /* names that requests are counted by; NULL: {"api"} */
    uint32_t n_endpoints;          /* at most CINF_ENDPOINTS_MAX */
    const double *latency_buckets; /* seconds, ascending; NULL: 0.05 0.1 0.25 0.5 1 2.5 5 10 */
    uint32_t n_latency_buckets;    /* at most 32 */
    /* Replaces the clocks, for tests and simulations.  It returns nanoseconds, and every thread that calls
     * the meter calls it.  A clock that goes back counts as a step; time goes on from where it was.  NULL:
     * the host's clocks. */
    uint64_t (*clock_ns)(void *context);
    void *clock_context; /* passed to clock_ns and stalled_ns */
    /* Returns how many nanoseconds of the clock were lost so far, and never goes back; any thread may call
     * it. NULL: a thread of the meter's own watches the host's wall clock; with clock_ns or CINF_BASIS_CPU
     * nothing is lost. */
    uint64_t (*stalled_ns)(void *context);
    /* With CINF_BASIS_CPU: returns the CPU time that the device's threads have used so far, in nanoseconds;
     * the thread that moves time calls it.  What the other threads of the process use is then overhead. NULL:
     * all CPU time of the process is the device's. */
    uint64_t (*device_cpu_ns)(void *context);
    void *device_cpu_context; /* passed to device_cpu_ns */
};
#define CINF_METER_OPTIONS .struct_size = sizeof(struct cinf_meter_options) /* begins an initializer */

struct cinf_meter; /* a timeline and its accounts */

/* Starts a timeline now, in idle.  `options` may be NULL.  Free the meter after all of its bills.  The child
 * of a fork() must not use its parent's meter. */
CINF_API enum cinf_status cinf_meter_new(struct cinf_meter **out, const struct cinf_meter_options *options);
CINF_API void cinf_meter_free(struct cinf_meter *meter); /* accepts NULL */

/* Finds the account of that name, or creates it with all its series at 0: a model that is unloaded keeps
 * its series, and continues them when it is loaded again.  `name` is UTF-8 of 1 to 256 bytes.
 *
 * A meter keeps 1024 models apart, one of them named "other".  When all are taken, the model that was
 * unloaded and unused for longest, if for a day at least, makes room: its sums are added to those of "other",
 * and its number is the new model's.  CINF_EFULL when no model was unused for that long. */
CINF_API enum cinf_status cinf_meter_add_model(struct cinf_meter *meter, const char *name, uint32_t *model);

/* Sets the metric model_loaded and nothing else.  Here and below, calls for an unknown model do nothing. */
CINF_API void cinf_meter_set_loaded(struct cinf_meter *meter, uint32_t model, bool loaded);

/* Sets a new price from now on.  Time that was measured keeps its price, and the current interval is
 * settled at the old one: a busy device changes price at its next boundary.  NULL: unpriced from then on.
 * Setting the price that is in force changes nothing.  Any number of changes is possible; see
 * struct cinf_price_sums. */
CINF_API enum cinf_status cinf_meter_set_price(struct cinf_meter *meter, const char *dollars_per_hour);

/* ---- Moving time -------------------------------------------------------------------------- */

/* The device leaves idle: the time since the last boundary was idle.  Does nothing if it is busy. */
CINF_API void cinf_meter_busy(struct cinf_meter *meter);

/* The device has no work left; the time from the last boundary on is idle. */
CINF_API void cinf_meter_idle(struct cinf_meter *meter);

/* One request's part in an interval.  The weights are the time that its work would have taken alone, in
 * any unit; the sum over all shares of the interval must stay below 2^64. */
struct cinf_share {
    struct cinf_bill *bill;  /* the request's bill */
    uint64_t prefill_weight; /* of prompt tokens: this part is added to the report's prefill_ns */
    uint64_t decode_weight;  /* of generated tokens: added to decode_ns */
    uint32_t input_tokens;   /* prompt tokens processed, cached ones included */
    uint32_t cached_tokens;  /* of these, copied instead of computed */
    uint32_t output_tokens;  /* tokens sampled */
};

/* Charges the time since the last boundary, without what was lost of it, to the requests that used it, and
 * returns that time.  A bill may stand in at most one share.  The split is by largest remainder, ties
 * rotating from interval to interval: the parts add up to the whole exactly, parts of equal weights differ by
 * at most 1 ns, and a weight of 0 gets nothing (unless all weights are 0: then the parts are equal).  n = 0
 * does nothing.  If the device is idle, the call first does what cinf_meter_busy() does. */
CINF_API uint64_t cinf_meter_charge(struct cinf_meter *meter, const struct cinf_share *shares, uint32_t n);

/* Charges the time since the last boundary, without what was lost of it, to loading `model`, and returns it.
 */
CINF_API uint64_t cinf_meter_charge_load(struct cinf_meter *meter, uint32_t model);

/* ---- Bills: one request each -------------------------------------------------------------- */

/* How a request ended. */
enum cinf_finish {
    CINF_FINISH_RUNNING = 0, /* not finished */
    CINF_FINISH_STOP,        /* end-of-text token or stop string */
    CINF_FINISH_LENGTH,      /* token limit or context full */
    CINF_FINISH_CANCELLED,   /* cancelled by the caller */
    CINF_FINISH_CLIENT_GONE, /* its client disconnected */
    CINF_FINISH_TIMEOUT,     /* a deadline passed, or the output was not read */
    CINF_FINISH_FAILED,      /* the device or memory failed */
    CINF_FINISH_COUNT,       /* how many there are */
};

/* Returns "stop", "length", "cancelled", "client_gone", "timeout", "failed", or "running" for 0. */
CINF_API const char *cinf_finish_name(enum cinf_finish finish);

/* What a request has used so far, or in total once it has ended. */
struct cinf_report {
    size_t struct_size;      /* set by CINF_REPORT before the struct is filled */
    enum cinf_finish finish; /* CINF_FINISH_RUNNING until it has ended */
    uint32_t model;          /* its account */
    uint32_t input_tokens;   /* prompt tokens, computed or cached; counted once a request */
    uint32_t cached_tokens;  /* of these, copied from an earlier request */
    uint32_t output_tokens;  /* tokens sampled */
    uint64_t queue_ns; /* from submission to the start of its first interval, or to its end if it had none */
    /* From the start of its first interval, or from its submission if that was later, to the end of its last,
     * by the wall clock: what its client waited, lost time included. */
    uint64_t latency_ns;
    uint64_t first_token_ns;  /* from submission to its first token; 0: none yet */
    uint64_t device_ns;       /* its part of the device's time; the sum of the next two */
    uint64_t prefill_ns;      /* for its prompt */
    uint64_t decode_ns;       /* for what it generated */
    uint64_t unpriced_ns;     /* part of device_ns during which no price was known */
    struct cinf_cost cost;    /* of the priced part */
    uint32_t drafted_tokens;  /* draft tokens that speculation computed; their time is in decode_ns */
    uint32_t accepted_tokens; /* of these, accepted: output tokens that took no step of their own */
    uint64_t lost_ns; /* part of latency_ns in which the process could not run; charged to no request */
    /* When latency_ns begins, since the meter was opened and by the wall clock: several reports together take
     * from their first start to their last end. */
    uint64_t start_ns;
};
#define CINF_REPORT .struct_size = sizeof(struct cinf_report) /* begins an initializer */

struct cinf_bill; /* one request's side of a meter */

enum { CINF_PAYER_BYTES_MAX = 256 }; /* bytes of a payer's name, without its NUL */

/* Opens the bill of a request that waits to be served; its time in the queue starts.  `endpoint` indexes
 * the options' list.  Any thread may call it. */
CINF_API enum cinf_status cinf_bill_open(struct cinf_bill **out, struct cinf_meter *meter, uint32_t model,
                                         uint32_t endpoint);

/* The same for a payer: a name known before the request, such as that of an API key; UTF-8 of 1 to 256 bytes,
 * NULL: "anonymous".  Each payer has an account with each model it asks, and they add up to the model's.  A
 * meter keeps at most 16384 of these accounts apart; further payers share their model's account of the payer
 * "other". */
CINF_API enum cinf_status cinf_bill_open_for(struct cinf_bill **out, struct cinf_meter *meter, uint32_t model,
                                             uint32_t endpoint, const char *payer);

/* One of a request's tags. */
struct cinf_tag {
    const char *name;  /* at most CINF_TAG_NAME_MAX bytes of UTF-8 */
    const char *value; /* at most CINF_TAG_VALUE_MAX */
};

enum {
    CINF_NOTE_TEXT_MAX = 256, /* bytes of a request's id, and of its user */
    CINF_TAGS_MAX = 16,       /* tags of a request */
    CINF_TAG_NAME_MAX = 64,   /* bytes of a tag's name */
    CINF_TAG_VALUE_MAX = 512, /* and of its value */
};

/* What is known of a request beside what it uses.  No metric shows it; a ledger (ledger.h) keeps it. */
struct cinf_note {
    size_t struct_size;          /* set by CINF_NOTE */
    const char *id;              /* what its client knows it as; NULL: none */
    const char *user;            /* the end user it is for; NULL: unknown */
    const struct cinf_tag *tags; /* with names that differ */
    uint32_t n_tags;             /* how many */
};
#define CINF_NOTE .struct_size = sizeof(struct cinf_note) /* begins an initializer */

/* Copies a note to a bill that has not been charged yet; a second one replaces the first. */
CINF_API enum cinf_status cinf_bill_describe(struct cinf_bill *bill, const struct cinf_note *note);

/* Counts draft tokens; the charging thread calls it before the charge.  The charged work computed `drafted`
 * draft tokens, and `accepted` of them are among its output tokens, each in one step with the token before
 * it. */
CINF_API void cinf_bill_count_drafts(struct cinf_bill *bill, uint32_t drafted, uint32_t accepted);

/* Closes the bill of a request that has ended: counts it by reason (not RUNNING) and in the histograms.  The
 * bill stays readable until it is freed, and can neither be charged nor closed again. */
CINF_API void cinf_bill_close(struct cinf_bill *bill, enum cinf_finish finish);

/* Copies the report consistently, running or final.  Any thread may call it. */
CINF_API void cinf_bill_read(const struct cinf_bill *bill, struct cinf_report *report);

/* Frees a bill, which must have been closed.  Accepts NULL. */
CINF_API void cinf_bill_free(struct cinf_bill *bill);

/* ---- Refusals and gauges, from any thread ------------------------------------------------- */

/* Why a request was refused or failed. */
enum cinf_error_kind {
    CINF_ERROR_INVALID_REQUEST = 0, /* the client made a mistake */
    CINF_ERROR_CONTEXT_LENGTH,      /* more tokens than the model's context holds */
    CINF_ERROR_QUEUE_FULL,          /* too many requests are waiting */
    CINF_ERROR_UNAVAILABLE,         /* loading, draining or unloaded */
    CINF_ERROR_TIMEOUT,             /* a deadline passed */
    CINF_ERROR_DEVICE,              /* the device failed */
    CINF_ERROR_INTERNAL,            /* anything else, such as exhausted memory */
    CINF_ERROR_KINDS,               /* how many there are */
};
CINF_API const char *cinf_error_kind_name(enum cinf_error_kind kind); /* "invalid_request" … */

/* Counts a refusal or a failure of a model's request.  It opens no bill and charges nothing. */
CINF_API void cinf_meter_count_error(struct cinf_meter *meter, uint32_t model, enum cinf_error_kind kind);

/* Sets a GPU's memory as allocated by this process, and in total.  The metrics are absent until this is
 * called. */
CINF_API void cinf_meter_set_gpu_memory(struct cinf_meter *meter, uint64_t used_bytes, uint64_t total_bytes);

/* Sets the used memory as the GPU's driver counts it, other processes' memory included.  0: unknown, and
 * the metric is absent. */
CINF_API void cinf_meter_set_gpu_taken(struct cinf_meter *meter, uint64_t bytes);

/* Sets the constants behind the weights of shares, in attoseconds per floating-point operation and per byte.
 * They are exported so that a split can be checked. */
CINF_API void cinf_meter_set_split(struct cinf_meter *meter, uint64_t as_per_flop, uint64_t as_per_byte);

/* ---- Reading ------------------------------------------------------------------------------ */

enum { CINF_ENDPOINTS_MAX = 16 }; /* most names that requests can be counted by */

/* The totals of one model's account. */
struct cinf_model_totals {
    const char *name;                        /* as it was added */
    bool loaded;                             /* as cinf_meter_set_loaded() said */
    uint64_t serve_ns;                       /* = prefill_ns + decode_ns */
    uint64_t prefill_ns;                     /* for prompts */
    uint64_t decode_ns;                      /* for generated tokens */
    uint64_t load_ns;                        /* for loading its weights; charged to no request */
    uint64_t unpriced_ns;                    /* of serve_ns, without a price */
    struct cinf_cost serve_cost;             /* of the priced part */
    struct cinf_cost load_cost;              /* likewise */
    uint64_t input_tokens;                   /* of prompts, computed or cached */
    uint64_t cached_tokens;                  /* of these, copied instead of computed */
    uint64_t output_tokens;                  /* sampled */
    uint64_t requests[CINF_ENDPOINTS_MAX];   /* requests that have ended, by endpoint */
    uint64_t finished[CINF_FINISH_COUNT];    /* requests that have ended, by reason */
    uint64_t finished_ns[CINF_FINISH_COUNT]; /* device_ns of those */
    uint64_t errors[CINF_ERROR_KINDS];       /* refusals and failures, by kind */
    uint64_t running;                        /* requests that are being served now */
    uint64_t waiting;                        /* requests that wait for their first interval */
};

/* The totals of one payer with one model. */
struct cinf_payer_totals {
    uint32_t model;         /* an index into the snapshot's models */
    const char *payer;      /* its name */
    uint64_t serve_ns;      /* = prefill_ns + decode_ns */
    uint64_t prefill_ns;    /* for prompts */
    uint64_t decode_ns;     /* for generated tokens */
    uint64_t unpriced_ns;   /* of serve_ns, without a price */
    struct cinf_cost cost;  /* of the priced part */
    uint64_t input_tokens;  /* of prompts, computed or cached */
    uint64_t cached_tokens; /* of these, copied instead of computed */
    uint64_t output_tokens; /* sampled */
    uint64_t requests;      /* that have ended */
};

/* The time under one price, so that any other price can be applied to it later. */
struct cinf_price_period {
    uint64_t from_ns;               /* when it took effect, since the meter was opened */
    bool priced;                    /* false: no price was known at any time in it */
    uint64_t nanodollars_per_hour;  /* 0 when not priced, and when periods of different prices were folded */
    uint64_t serve_ns;              /* each account's time in this period */
    uint64_t load_ns;               /* likewise */
    uint64_t idle_ns;               /* likewise */
    const uint64_t *model_serve_ns; /* [n_models] */
    const uint64_t *model_load_ns;  /* [n_models] */
};

/* More about the time under one price.  A meter keeps 4096 periods apart; with every further change of price
 * it folds the two oldest into one.  Its amounts are the sums of both, exactly, and if they had different
 * prices its nanodollars_per_hour is 0. */
struct cinf_price_sums {
    uint64_t n_periods;             /* periods in this one: 1, unless it is the oldest */
    uint64_t lost_ns;               /* in which the process could not run */
    uint64_t overhead_ns;           /* CPU time of threads that are not the device's */
    uint64_t unpriced_ns;           /* of all accounts, without a price */
    struct cinf_cost serve_cost;    /* of each account's priced part */
    struct cinf_cost load_cost;     /* likewise */
    struct cinf_cost idle_cost;     /* likewise */
    struct cinf_cost lost_cost;     /* likewise */
    struct cinf_cost overhead_cost; /* likewise */
};

/* A device's accounts at one moment; its pointers are valid until cinf_snapshot_free(). */
struct cinf_snapshot {
    size_t struct_size;           /* set by CINF_SNAPSHOT before the struct is filled */
    const char *device;           /* its label */
    enum cinf_basis basis;        /* which time is charged */
    uint64_t as_of_ns;            /* since the meter was opened: now while idle, else the last boundary */
    uint64_t serve_ns;            /* charged to requests; all five accounts add up to as_of_ns */
    uint64_t load_ns;             /* charged to models that were being loaded */
    uint64_t idle_ns;             /* without work */
    uint64_t unpriced_ns;         /* of all accounts, without a price */
    struct cinf_cost serve_cost;  /* of the priced part of serve_ns */
    struct cinf_cost load_cost;   /* likewise */
    struct cinf_cost idle_cost;   /* likewise */
    uint32_t n_endpoints;         /* how many */
    const char *const *endpoints; /* [n_endpoints] names that requests are counted by */
    uint32_t n_models;            /* how many */
    const struct cinf_model_totals *models; /* [n_models], in the order they were added */
    uint32_t n_prices;                      /* how many */
    const struct cinf_price_period *prices; /* oldest first; the last one is in force */
    void *memory;                           /* what the pointers point into */
    uint64_t lost_ns;                       /* in which the process could not run */
    uint64_t overhead_ns;                   /* CPU time of threads that are not the device's */
    struct cinf_cost lost_cost;             /* of its priced part */
    struct cinf_cost overhead_cost;         /* likewise */
    uint64_t stalls;                        /* stretches of lost time that this meter has noticed itself */
    uint64_t clock_steps; /* how often the clock went back; time goes on from where it was */
    const struct cinf_price_sums *price_sums; /* [n_prices] more about each period */
    uint32_t n_payers;                        /* how many */
    const struct cinf_payer_totals *payers;   /* [n_payers]; those of a model stand together */
    uint64_t ended;                           /* requests that have ended, of all models */
    uint64_t ended_ns;           /* their device_ns: the rest of serve_ns is of running requests */
    struct cinf_cost ended_cost; /* their cost: likewise of serve_cost */
};
#define CINF_SNAPSHOT .struct_size = sizeof(struct cinf_snapshot) /* begins an initializer */

/* Takes one consistent snapshot: all identities hold within it.  It changes nothing and never waits. */
CINF_API enum cinf_status cinf_meter_snapshot(struct cinf_snapshot *out, const struct cinf_meter *meter);

/* Frees what a snapshot points to, not the struct itself.  A snapshot that was never filled is accepted. */
CINF_API void cinf_snapshot_free(struct cinf_snapshot *snapshot);

#ifdef __cplusplus
}
#endif
#endif
