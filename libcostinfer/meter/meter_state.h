/* meter_state.h - the insides of a meter, for the files of this folder.
 *
 * A meter keeps counters and mirrors of them.  The counters are plain integers that only the writing
 * thread touches.  After every change it publishes: it copies the counters that changed, word by word,
 * into two mirrors in turn, so that at any moment one of the two is whole.
 *
 *   phase     even: read mirror 0              odd: read mirror 1            even: read mirror 0
 *   writer    copies counters to mirror 1      copies counters to mirror 0   copies counters to mirror 1
 *             '-- publication p ends --'       '------ publication p+1, in two halves -----------'
 *
 * A reader notes the phase, copies that phase's mirror and looks at the phase again: if it is the same,
 * the copy is one consistent snapshot.  The reader tries again only when the writer has moved on in the
 * meantime, never because the writer was stopped in the middle (a plain sequence lock would make the
 * reader wait for the writer to be scheduled again, on a machine that generation keeps busy).
 *
 * Words are stored with release and loaded with acquire.  That orders them against the phase without
 * fences: a reader that has read a word of a later phase finds the later phase at its second look. */
#ifndef METER_STATE_H
#define METER_STATE_H

#include <costinfer/meter.h>

#include <stdatomic.h>

#include "histogram.h"
#include "pulse.h"
#include "split.h"

enum { ACCOUNTS_MAX = 1024, PRICES_MAX = 4096, PAYERS_MAX = 16384, LABEL_BYTES_MAX = 256 };

/* Where a device's time goes.  The first two belong to models, the others to the device alone. */
enum account_kind {
    ACCOUNT_SERVE,
    ACCOUNT_LOAD,
    ACCOUNT_IDLE,
    ACCOUNT_LOST,
    ACCOUNT_OVERHEAD,
    ACCOUNT_KINDS
};

/* Every struct named _counters consists of uint64_t words only. */
#define WORDS(type) (sizeof(type) / sizeof(uint64_t))

struct price_counters { /* the time under one price */
    uint64_t from_ns;
    uint64_t priced; /* 0 or 1 */
    uint64_t nanodollars_per_hour;
    uint64_t ns[ACCOUNT_KINDS];
};

struct price_sums { /* what the periods that were folded into one add up to */
    uint64_t n_periods;
    uint64_t unpriced_ns;
    struct cinf_cost cost[ACCOUNT_KINDS];
};

struct device_counters {
    uint64_t idle; /* 1: since the boundary */
    uint64_t boundary_ns;
    uint64_t boundary_lost_ns; /* as the pulse had it at the boundary */
    uint64_t ns[ACCOUNT_KINDS];
    uint64_t unpriced_ns;
    struct cinf_cost cost[ACCOUNT_KINDS];
    uint64_t n_ended, ended_ns; /* requests, and their part of serve */
    struct cinf_cost ended_cost;
    uint64_t n_prices, n_folds;
    struct price_counters price; /* the one in force, number n_prices - 1 */
};

struct model_counters {
    uint64_t name;   /* a const char *, so that a name is never seen with another model's sums */
    uint64_t loaded; /* 0 or 1 */
    uint64_t prefill_ns, decode_ns, load_ns;
    uint64_t unpriced_ns;
    struct cinf_cost serve_cost, load_cost;
    uint64_t price_serve_ns, price_load_ns; /* under the price in force */
    uint64_t input_tokens, cached_tokens, output_tokens;
    uint64_t drafted_tokens, accepted_tokens;
    uint64_t requests[CINF_ENDPOINTS_MAX];
    uint64_t finished[CINF_FINISH_COUNT];
    uint64_t finished_ns[CINF_FINISH_COUNT];
    uint64_t running;
    uint64_t dequeued; /* requests that have left the queue, into service or by ending */
    struct histogram latency, first_token, inter_token, queue;
};

struct payer_counters {
    uint64_t prefill_ns, decode_ns;
    uint64_t unpriced_ns;
    struct cinf_cost cost;
    uint64_t input_tokens, cached_tokens, output_tokens;
    uint64_t requests; /* that have ended */
};

struct bill_counters {
    uint64_t finish;
    uint64_t input_tokens, cached_tokens, output_tokens;
    uint64_t drafted_tokens, accepted_tokens;
    uint64_t queue_ns, latency_ns, first_token_ns;
    uint64_t lost_ns, start_ns;
    uint64_t prefill_ns, decode_ns;
    uint64_t unpriced_ns;
    struct cinf_cost cost;
};

/* A payer's account with one model.  It changes only in publications in which the model's changes, too. */
struct payer_account {
    char *name;
    struct payer_counters counters;
    struct payer_account *next_dirty;
    bool dirty;
    _Atomic(struct payer_account *) next; /* of the same model */
    _Atomic uint64_t changed;
    _Atomic uint64_t mirror[2][WORDS(struct payer_counters)];
};

/* A name that an account has had; readers may still look at it. */
struct account_name {
    struct account_name *earlier;
    char text[];
};

/* A model's account. */
struct account {
    struct account_name *name;
    uint64_t used_wall_ns; /* when it was charged, loaded or added last; the writing thread's */
    struct model_counters counters;
    struct account *next_dirty;
    bool dirty;
    _Atomic(struct payer_account *) payers; /* a list that grows at its end */

    _Atomic uint64_t changed; /* number of the last publication that copied it */
    _Atomic uint64_t mirror[2][WORDS(struct model_counters)];

    /* Any thread counts these, so they are not mirrored. */
    _Atomic uint64_t opened;
    _Atomic uint64_t errors[CINF_ERROR_KINDS];
};

struct cinf_bill {
    struct cinf_meter *meter;
    struct account *account;
    struct payer_account *payer;
    uint32_t model, endpoint;
    struct bill_counters counters;
    uint64_t submitted_wall_ns;
    uint64_t start_wall_ns; /* of its first interval */
    uint64_t token_wall_ns; /* of its last token */
    uint32_t together; /* accepted draft tokens of the next charge: each arrives with the one before it */
    bool started;
    struct split_part part; /* scratch of a charge */
    struct note *note;      /* see observer.h; or NULL */
    struct cinf_bill *next_dirty;
    _Atomic uint64_t mirror[2][WORDS(struct bill_counters)];
};

/* A price that is no longer in force.  It changes only under history_lock. */
struct old_price {
    struct price_counters counters;
    struct price_sums sums;
    uint32_t n_models;
    struct {
        uint64_t serve, load;
    } ns[]; /* [n_models] */
};

struct cinf_meter {
    char *device;
    enum cinf_basis basis;
    struct pulse pulse; /* the timeline's clock */
    struct pulse wall;  /* not opened if the timeline's clock is the wall clock */
    bool one_clock;
    /* CPU time of the device's own threads; NULL: all of the timeline is theirs. */
    uint64_t (*device_cpu_ns)(void *context);
    void *device_cpu_context;
    uint64_t device_cpu_charged_ns; /* the writing thread's: how much of it the boundary is past */
    uint32_t n_endpoints;
    char *endpoints[CINF_ENDPOINTS_MAX];
    struct histogram_bounds latency_bounds;

    /* Only the writing thread touches these. */
    struct device_counters counters;
    uint64_t boundary_wall_ns;
    uint64_t split_turn;
    struct old_price *next_price; /* waits for a boundary: its counters are the new price's, its array is
                                     room for the old one's figures; or NULL */
    struct account *dirty;
    struct payer_account *dirty_payers;
    struct cinf_bill *dirty_bills;
    uint64_t publications;

    /* All threads read these. */
    struct account *models[ACCOUNTS_MAX]; /* [n_models]; an account never moves, but may change its name */
    _Atomic uint32_t n_models;
    pthread_mutex_t payers_lock;              /* for adding one */
    _Atomic uint32_t n_payers;                /* of all models */
    pthread_mutex_t history_lock;             /* for changing what is in old_prices, and for copying it */
    struct old_price *old_prices[PRICES_MAX]; /* [n_prices - 1] */
    _Atomic uint64_t phase;
    _Atomic uint64_t idle_seen; /* see mirror.h */
    _Atomic uint64_t idle_seen_lost_ns;
    _Atomic uint64_t mirror[2][WORDS(struct device_counters)];
    _Atomic uint64_t gpu_used_bytes, gpu_total_bytes, gpu_taken_bytes, split_flop_as, split_byte_as;
    atomic_bool has_gpu, has_split;

    pthread_mutex_t observer_lock; /* see observer.h */
    const struct observer *observer;
};

#endif
