/* meter.h - who used the machine: one device's timeline and the accounts it is charged to.
 *
 * A meter needs no model of ours.  A program with its own inference bills with this header alone:
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
 *   serve + load + idle = as_of - opened              no nanosecond is lost or counted twice
 *   sum of all reports' device_ns = serve             finished and running ones
 *   alone on the device: device_ns = latency_ns       so cost = latency x hourly rate / 3600
 *
 * Time enters an account in one way only: a charge takes everything since the last boundary and
 * moves the boundary to now.  Facts are integers (nanoseconds, tokens, requests); money is derived
 * from them when it is read.
 *
 * Threads.  One thread at a time (the scheduler) may call what moves time: cinf_meter_busy, _idle,
 * _charge, _charge_load, _set_price, _add_model, _set_loaded, cinf_bill_count_drafts and
 * cinf_bill_close.  Everything else may be called from any thread at any time; reading never waits for
 * the writer and never changes a figure. */
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

/* An exact amount: a 128-bit count (hi * 2^64 + lo) of nanoseconds x nano-dollars an hour, that is
 * of 1/3.6e21 dollars.  Amounts add without rounding, also across a change of price. */
struct cinf_cost {
    uint64_t hi; /* the upper 64 bits */
    uint64_t lo; /* the lower 64 bits */
};

enum { CINF_COST_TEXT_MAX = 40 }; /* bytes of the longest amount as text, with its NUL */

/* What a time costs at a price: the product, which is never rounded. */
CINF_API struct cinf_cost cinf_cost_of(uint64_t ns, uint64_t nanodollars_per_hour);
CINF_API struct cinf_cost cinf_cost_add(struct cinf_cost a, struct cinf_cost b); /* a + b, exactly */
CINF_API int cinf_cost_compare(struct cinf_cost a, struct cinf_cost b);          /* <0, 0, >0 */

/* Dollars with 12 decimals, rounded half up ("0.000555555556"), in every locale.  Returns text. */
CINF_API const char *cinf_cost_format(char text[CINF_COST_TEXT_MAX], struct cinf_cost cost);
CINF_API double cinf_cost_dollars(struct cinf_cost cost); /* for plots and ratios */

/* "2.50" dollars to 2500000000 nano-dollars: digits, with or without a point and one to
 * nine decimals, at most 1000000.  CINF_EINVAL otherwise; never a rounded price. */
CINF_API enum cinf_status cinf_price_parse(uint64_t *nanodollars_per_hour, const char *dollars);

/* ---- A meter ------------------------------------------------------------------------------ */

/* Which time is charged. */
enum cinf_basis {
    CINF_BASIS_WALL = 0, /* the machine is rented by the hour: monotonic wall time */
    CINF_BASIS_CPU,      /* a shared box: CPU time of this process, the rate is per core-hour */
};

/* What a meter is told once.  Zero means the default, in every field. */
struct cinf_meter_options {
    size_t struct_size;            /* set by CINF_METER_OPTIONS */
    const char *device;            /* label of the device; NULL: "cpu" */
    enum cinf_basis basis;         /* which time is charged */
    const char *dollars_per_hour;  /* as for cinf_price_parse(); NULL: unpriced */
    const char *const *endpoints;  /* names that requests are counted by; NULL: {"api"} */
    uint32_t n_endpoints;          /* at most CINF_ENDPOINTS_MAX */
    const double *latency_buckets; /* seconds, ascending; NULL: 0.05 0.1 0.25 0.5 1 2.5 5 10 */
    uint32_t n_latency_buckets;    /* at most 32 */
    /* Replaces the clocks, for tests and simulations: returns nanoseconds, never going back, and is
     * called from every thread that calls the meter.  NULL: the host's. */
    uint64_t (*clock_ns)(void *context);
    void *clock_context; /* handed to it */
};
#define CINF_METER_OPTIONS .struct_size = sizeof(struct cinf_meter_options) /* begins an initializer */

struct cinf_meter; /* a timeline and its accounts */

/* The timeline starts now, in idle.  `options` may be NULL.  Free it after every bill. */
CINF_API enum cinf_status cinf_meter_new(struct cinf_meter **out, const struct cinf_meter_options *options);
CINF_API void cinf_meter_free(struct cinf_meter *meter); /* accepts NULL */

/* The account of a model, created with all its series at 0, or the existing one of that name: a model
 * that is unloaded keeps its series, and goes on with them when it comes back.  `name` is UTF-8 of 1
 * to 256 bytes.  At most 1024 models: CINF_EFULL. */
CINF_API enum cinf_status cinf_meter_add_model(struct cinf_meter *meter, const char *name, uint32_t *model);

/* Shown as model_loaded, nothing else.  Here and below, a model that was not added is passed over. */
CINF_API void cinf_meter_set_loaded(struct cinf_meter *meter, uint32_t model, bool loaded);

/* A new price from now on.  What has been measured keeps the price it was measured under, and an
 * interval under way is settled at the old one: a device that is busy changes price at its next
 * boundary.  NULL: unpriced from then on.  The price that is in force already changes nothing.  4095 changes
 * are kept: CINF_EFULL. */
CINF_API enum cinf_status cinf_meter_set_price(struct cinf_meter *meter, const char *dollars_per_hour);

/* ---- Moving time -------------------------------------------------------------------------- */

/* The device leaves idle: the time since the last boundary was idle.  Nothing when it is busy. */
CINF_API void cinf_meter_busy(struct cinf_meter *meter);

/* The device has nothing left to do; the time from the last boundary on is idle. */
CINF_API void cinf_meter_idle(struct cinf_meter *meter);

/* One request's part in an interval.  The weights are what its work would have taken alone, in any
 * unit; together with all other shares of the interval they must stay below 2^64. */
struct cinf_share {
    struct cinf_bill *bill;  /* whose it is */
    uint64_t prefill_weight; /* of reading prompts: its part goes to the report's prefill_ns */
    uint64_t decode_weight;  /* of making tokens: to decode_ns */
    uint32_t input_tokens;   /* prompt tokens dealt with, cached ones included */
    uint32_t cached_tokens;  /* those of them that were copied instead of computed */
    uint32_t output_tokens;  /* tokens sampled */
};

/* Charges the time since the last boundary to the requests that used it, and returns it.  A bill stands
 * in at most one share.  The split is by largest remainder, ties rotating from interval to interval:
 * the parts add to the whole exactly, equal weights differ by at most 1 ns, and no weight gets nothing
 * (unless all are 0: then equal parts).  n = 0 does nothing.  On an idle device it is charged as if
 * cinf_meter_busy() had just been called. */
CINF_API uint64_t cinf_meter_charge(struct cinf_meter *meter, const struct cinf_share *shares, uint32_t n);

/* Charges the time since the last boundary to loading `model`, and returns it. */
CINF_API uint64_t cinf_meter_charge_load(struct cinf_meter *meter, uint32_t model);

/* ---- Bills: one request each -------------------------------------------------------------- */

/* How a request ended. */
enum cinf_finish {
    CINF_FINISH_RUNNING = 0, /* not finished */
    CINF_FINISH_STOP,        /* end-of-text token or stop string */
    CINF_FINISH_LENGTH,      /* token limit or context full */
    CINF_FINISH_CANCELLED,   /* by the caller */
    CINF_FINISH_CLIENT_GONE, /* its client disconnected */
    CINF_FINISH_TIMEOUT,     /* a deadline passed, or nobody read the output */
    CINF_FINISH_FAILED,      /* the device or memory failed */
    CINF_FINISH_COUNT,       /* how many there are */
};

/* "stop", "length", "cancelled", "client_gone", "timeout", "failed"; "running" for 0. */
CINF_API const char *cinf_finish_name(enum cinf_finish finish);

/* What a request used so far, or in all. */
struct cinf_report {
    size_t struct_size;      /* set by CINF_REPORT before the struct is filled */
    enum cinf_finish finish; /* CINF_FINISH_RUNNING until it has ended */
    uint32_t model;          /* its account */
    uint32_t input_tokens;   /* prompt tokens dealt with: computed or cached; once a request */
    uint32_t cached_tokens;  /* of these, copied from an earlier request */
    uint32_t output_tokens;  /* every token sampled */
    uint64_t queue_ns;       /* from submission to the start of its first interval (to its end, if none) */
    /* From the start of its first interval, or from its submission during that, to the end of its last. */
    uint64_t latency_ns;
    uint64_t first_token_ns;  /* from submission to its first token; 0: none yet */
    uint64_t device_ns;       /* its part of the device's time; the sum of the next two */
    uint64_t prefill_ns;      /* for its prompt */
    uint64_t decode_ns;       /* for what it generated */
    uint64_t unpriced_ns;     /* part of device_ns during which no price was known */
    struct cinf_cost cost;    /* of the priced part */
    uint32_t drafted_tokens;  /* guessed by speculation and computed along; their time is in decode_ns */
    uint32_t accepted_tokens; /* of these, the ones that came true: output tokens that took no step */
};
#define CINF_REPORT .struct_size = sizeof(struct cinf_report) /* begins an initializer */

struct cinf_bill; /* one request's side of a meter */

/* A request that waits to be served; its clock of queueing starts.  `endpoint` indexes the options'
 * list.  From any thread. */
CINF_API enum cinf_status cinf_bill_open(struct cinf_bill **out, struct cinf_meter *meter, uint32_t model,
                                         uint32_t endpoint);

/* Before a charge, by the thread that makes it: of the work it stands for, `drafted` tokens were guessed, and
 * `accepted` of these are among its output tokens, each in one step with the token before it. */
CINF_API void cinf_bill_count_drafts(struct cinf_bill *bill, uint32_t drafted, uint32_t accepted);

/* The request has ended: counts it, by reason (not RUNNING), and its histograms.  The bill stays readable
 * until freed, and can neither be charged nor closed again. */
CINF_API void cinf_bill_close(struct cinf_bill *bill, enum cinf_finish finish);

/* A consistent copy of the report, running or final.  From any thread. */
CINF_API void cinf_bill_read(const struct cinf_bill *bill, struct cinf_report *report);

/* Accepts NULL.  A bill that is still open must be closed first. */
CINF_API void cinf_bill_free(struct cinf_bill *bill);

/* ---- Refusals and gauges, from any thread ------------------------------------------------- */

/* Why a request was refused or failed. */
enum cinf_error_kind {
    CINF_ERROR_INVALID_REQUEST = 0, /* a mistake of the client's */
    CINF_ERROR_CONTEXT_LENGTH,      /* more tokens than the model's context has room for */
    CINF_ERROR_QUEUE_FULL,          /* too many requests wait already */
    CINF_ERROR_UNAVAILABLE,         /* loading, draining or unloaded */
    CINF_ERROR_TIMEOUT,             /* a deadline passed */
    CINF_ERROR_DEVICE,              /* the device failed */
    CINF_ERROR_INTERNAL,            /* anything else, memory among it */
    CINF_ERROR_KINDS,               /* how many there are */
};
CINF_API const char *cinf_error_kind_name(enum cinf_error_kind kind); /* "invalid_request" … */

/* Counts a refusal or a failure under a model.  Opens no bill and charges nothing. */
CINF_API void cinf_meter_count_error(struct cinf_meter *meter, uint32_t model, enum cinf_error_kind kind);

/* A GPU's memory as allocated by us, and in all; the rows are absent until this is called. */
CINF_API void cinf_meter_set_gpu_memory(struct cinf_meter *meter, uint64_t used_bytes, uint64_t total_bytes);

/* The same as the GPU's driver counts it, others' memory included; 0: nobody knows, and there is no row. */
CINF_API void cinf_meter_set_gpu_taken(struct cinf_meter *meter, uint64_t bytes);

/* The constants behind the weights of shares, exported so that a split can be checked: attoseconds a
 * floating-point operation and a byte. */
CINF_API void cinf_meter_set_split(struct cinf_meter *meter, uint64_t as_per_flop, uint64_t as_per_byte);

/* ---- Reading ------------------------------------------------------------------------------ */

enum { CINF_ENDPOINTS_MAX = 16 }; /* names that requests are counted by, at most */

/* One model's account, in all. */
struct cinf_model_totals {
    const char *name;                        /* as it was added */
    bool loaded;                             /* as cinf_meter_set_loaded() said */
    uint64_t serve_ns;                       /* = prefill_ns + decode_ns */
    uint64_t prefill_ns;                     /* for prompts */
    uint64_t decode_ns;                      /* for generated tokens */
    uint64_t load_ns;                        /* for reading its weights; no request's */
    uint64_t unpriced_ns;                    /* of serve_ns */
    struct cinf_cost serve_cost;             /* of the priced part */
    struct cinf_cost load_cost;              /* likewise */
    uint64_t input_tokens;                   /* of prompts, computed or cached */
    uint64_t cached_tokens;                  /* of these, copied instead of computed */
    uint64_t output_tokens;                  /* sampled */
    uint64_t requests[CINF_ENDPOINTS_MAX];   /* ended, by endpoint */
    uint64_t finished[CINF_FINISH_COUNT];    /* ended, by reason */
    uint64_t finished_ns[CINF_FINISH_COUNT]; /* device_ns of those */
    uint64_t errors[CINF_ERROR_KINDS];       /* refusals and failures, by kind */
    uint64_t running;                        /* requests that are being served now */
    uint64_t waiting;                        /* requests whose first interval is to come */
};

/* Time under one price: facts that any other price can be put on later. */
struct cinf_price_period {
    uint64_t from_ns;               /* when it took effect, since the meter was opened */
    bool priced;                    /* false: no price was known */
    uint64_t nanodollars_per_hour;  /* 0 when not priced */
    uint64_t serve_ns;              /* each account's time in this period */
    uint64_t load_ns;               /* likewise */
    uint64_t idle_ns;               /* likewise */
    const uint64_t *model_serve_ns; /* [n_models] */
    const uint64_t *model_load_ns;  /* [n_models] */
};

/* A device's books at one moment; its pointers are valid until cinf_snapshot_free(). */
struct cinf_snapshot {
    size_t struct_size;                     /* set by CINF_SNAPSHOT before the struct is filled */
    const char *device;                     /* its label */
    enum cinf_basis basis;                  /* which time is charged */
    uint64_t as_of_ns;                      /* since opened: now while idle, else the last boundary */
    uint64_t serve_ns;                      /* the requests'; with the next two it adds to as_of_ns */
    uint64_t load_ns;                       /* the models' while they were loaded */
    uint64_t idle_ns;                       /* nobody's */
    uint64_t unpriced_ns;                   /* of these, without a price */
    struct cinf_cost serve_cost;            /* of the priced part of serve_ns */
    struct cinf_cost load_cost;             /* likewise */
    struct cinf_cost idle_cost;             /* likewise */
    uint32_t n_endpoints;                   /* how many */
    const char *const *endpoints;           /* [n_endpoints] names that requests are counted by */
    uint32_t n_models;                      /* how many */
    const struct cinf_model_totals *models; /* [n_models], in the order they were added */
    uint32_t n_prices;                      /* how many */
    const struct cinf_price_period *prices; /* oldest first; the last one is in force */
    void *memory;                           /* what the pointers above point into */
};
#define CINF_SNAPSHOT .struct_size = sizeof(struct cinf_snapshot) /* begins an initializer */

/* One consistent picture: all identities hold within it.  Changes nothing and waits for nobody. */
CINF_API enum cinf_status cinf_meter_snapshot(struct cinf_snapshot *out, const struct cinf_meter *meter);

/* Frees what a snapshot points to, not the struct itself.  Nothing for one that was never filled. */
CINF_API void cinf_snapshot_free(struct cinf_snapshot *snapshot);

#ifdef __cplusplus
}
#endif
#endif
