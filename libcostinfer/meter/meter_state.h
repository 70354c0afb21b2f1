/* meter_state.h - the insides of a meter, for the files of this folder.
 *
 * Facts and what is shown of them.  The facts are plain integers that only the writing thread
 * touches.  After every change it publishes: it copies the facts that changed, word by word, into
 * two mirrors in turn, so that at any moment one of the two is whole.
 *
 *   phase     even: read mirror 0          odd: read mirror 1        even: read mirror 0
 *   writer    copies facts to mirror 1     copies facts to mirror 0  copies facts to mirror 1
 *             '-- publication p ends --'   '------ publication p+1, in two halves ---------'
 *
 * A reader notes the phase, copies that phase's mirror and looks at the phase again: the same, and
 * the copy is one consistent picture.  It goes round again only when the writer has moved on in the
 * meantime, never because the writer was stopped in the middle (a plain sequence lock would have it
 * wait for the writer to be scheduled again, on a machine that generation keeps busy).
 *
 * Words are stored with release and loaded with acquire.  That orders them against the phase without
 * fences: who has read a word of a later phase finds the later phase at the second look. */
#ifndef METER_STATE_H
#define METER_STATE_H

#include <costinfer/meter.h>

#include <stdatomic.h>

#include "histogram.h"
#include "split.h"

enum { MODELS_MAX = 1024, PRICES_MAX = 4096, LABEL_BYTES_MAX = 256 };

/* Everything named _facts consists of uint64_t words only. */
#define WORDS(type) (sizeof(type) / sizeof(uint64_t))

struct price_facts { /* the time under one price */
    uint64_t from_ns;
    uint64_t priced; /* 0 or 1 */
    uint64_t nanodollars_per_hour;
    uint64_t serve_ns, load_ns, idle_ns;
};

struct device_facts {
    uint64_t idle; /* 1: since the boundary */
    uint64_t boundary_ns;
    uint64_t serve_ns, load_ns, idle_ns;
    uint64_t unpriced_ns;
    struct cinf_cost serve_cost, load_cost, idle_cost;
    uint64_t n_prices;
    struct price_facts price; /* the one in force, number n_prices - 1 */
};

struct model_facts {
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

struct bill_facts {
    uint64_t finish;
    uint64_t input_tokens, cached_tokens, output_tokens;
    uint64_t drafted_tokens, accepted_tokens;
    uint64_t queue_ns, latency_ns, first_token_ns;
    uint64_t prefill_ns, decode_ns;
    uint64_t unpriced_ns;
    struct cinf_cost cost;
};

/* A model's account. */
struct account {
    char *name;
    struct model_facts facts;
    struct account *next_touched;
    bool touched;

    _Atomic uint64_t changed; /* number of the last publication that touched it */
    _Atomic uint64_t shown[2][WORDS(struct model_facts)];

    /* Counted by any thread, so outside of the mirrors. */
    _Atomic uint64_t opened;
    _Atomic uint64_t errors[CINF_ERROR_KINDS];
};

struct cinf_bill {
    struct cinf_meter *meter;
    struct account *account;
    uint32_t model, endpoint;
    struct bill_facts facts;
    uint64_t submitted_wall_ns;
    uint64_t start_wall_ns; /* of its first interval */
    uint64_t token_wall_ns; /* of its last token */
    uint32_t together;      /* tokens of the next charge that come along with another of their text */
    bool started;
    struct split_part part; /* scratch of a charge */
    struct cinf_bill *next_touched;
    _Atomic uint64_t shown[2][WORDS(struct bill_facts)];
};

/* A price that is no longer in force; never changed again. */
struct old_price {
    struct price_facts facts;
    uint32_t n_models;
    struct {
        uint64_t serve, load;
    } ns[]; /* [n_models] */
};

struct cinf_meter {
    char *device;
    enum cinf_basis basis;
    uint64_t (*clock_ns)(void *context); /* of the timeline */
    void *clock_context;
    bool one_clock; /* the wall clock is the timeline's */
    uint64_t opened_ns, opened_wall_ns;
    uint32_t n_endpoints;
    char *endpoints[CINF_ENDPOINTS_MAX];
    struct histogram_bounds latency_bounds;

    /* The writing thread's. */
    struct device_facts facts;
    uint64_t boundary_wall_ns;
    uint64_t split_turn;
    struct old_price *next_price; /* waits for a boundary: its facts are the new price's, its array is
                                     room for the old one's figures; or NULL */
    struct account *touched;
    struct cinf_bill *touched_bills;
    uint64_t publications;

    /* Shared. */
    struct account *models[MODELS_MAX]; /* [n_models]; an account never moves */
    _Atomic uint32_t n_models;
    struct old_price *old_prices[PRICES_MAX]; /* [n_prices - 1] */
    _Atomic uint64_t phase;
    _Atomic uint64_t idle_seen; /* see idle_until() */
    _Atomic uint64_t shown[2][WORDS(struct device_facts)];
    _Atomic uint64_t gpu_used_bytes, gpu_total_bytes, gpu_taken_bytes, split_flop_as, split_byte_as;
    atomic_bool has_gpu, has_split;
};

/* Nanoseconds since the meter was opened; from any thread. */
uint64_t timeline_now(const struct cinf_meter *meter);
uint64_t wall_now(const struct cinf_meter *meter);

/* Marks what the next publication has to copy. */
void touch_account(struct cinf_meter *meter, struct account *account);
void touch_bill(struct cinf_meter *meter, struct cinf_bill *bill);

/* Shows readers the device's facts and everything touched, as one change. */
void publish(struct cinf_meter *meter);

/* One request's part of the interval that has just ended, which began at `start_wall_ns`. */
void bill_settle(const struct cinf_share *share, uint64_t start_wall_ns);

/* The stretch of idle time that a reader sees is still growing, so the reader has to choose its end,
 * and the writer must not end it any earlier afterwards: idle time that has been shown would shrink,
 * and a counter that shrinks looks like a restart.  Both agree through one word, the latest end that
 * anybody was shown, which the writer seals with the real one. */
#define IDLE_SEALED (UINT64_C(1) << 63)
uint64_t idle_until(const struct cinf_meter *meter);
uint64_t idle_seal(struct cinf_meter *meter);

/* ---- Pictures ------------------------------------------------------------------------------ */

struct model_picture {
    uint64_t state; /* number of the publication that the copy shows */
    struct model_facts facts;
    uint64_t opened;
    uint64_t errors[CINF_ERROR_KINDS];
};

/* A consistent copy of everything but the old prices, idle time counted up to boundary_ns. */
struct picture {
    struct device_facts device;
    uint32_t n_models;
    struct model_picture *models;
};

enum cinf_status picture_take(struct picture *out, const struct cinf_meter *meter);
void picture_free(struct picture *picture);

/* Adds an interval to one of the device's three accounts at the price in force. */
void device_add(struct device_facts *d, uint64_t *ns, uint64_t *price_ns, struct cinf_cost *cost,
                uint64_t interval);

#endif
