/* engine_state.h - the structs behind the handles, which the files of engine/ share.
 *
 * Who may touch what, by the comments below:
 *   fixed         set before another thread can see the struct; read by any thread
 *   scheduler's   by the scheduler's thread alone, without a lock; so are device, runtimes and the meter's
 *                 writing side
 *   engine.lock   by any thread that holds it
 *   request.lock  by the scheduler and the reader, holding it
 * A request's lock may be taken under engine.lock, never the other way round. */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <costinfer/engine.h>
#include <costinfer/request.h>

#include "backend.h"
#include "device_threads.h"
#include "model.h"
#include "model_stream.h"
#include "sampler.h"
#include "slots.h"
#include "speculate.h"
#include "step.h"
#include "textflow.h"

/* One continuation of a request: a choice, to the caller.  The scheduler's; what the reader copies from it
 * (ids, logprobs, top, flow, ends) stays where it is until the request is freed, and is written under
 * request.lock where the reader could see it move. */
struct sequence {
    struct cinf_request *request;
    uint32_t index; /* the caller's choice */
    struct slot *slot;
    int32_t *ids; /* [n_prompt + max_new] the prompt, then what was sampled */
    uint32_t n_ids;
    uint32_t n_new;           /* sampled ones among them */
    float *logprobs;          /* [max_new] */
    struct cinf_logprob *top; /* [max_new, n_top] */
    uint32_t n_sampled;       /* in this step */
    uint32_t n_drafted;       /* draft tokens among its rows in this step */
    struct draft draft;
    struct textflow flow;
    size_t *ends;   /* [max_new] where each token's text ends in the flow */
    uint32_t n_out; /* tokens that were published */
    enum cinf_finish finish;
    bool finish_published;
};

/* An event that waits for its reader; its text and log-probabilities stay in the sequence. */
struct queued_event {
    enum cinf_event_kind kind;
    uint32_t choice; /* index of the sequence */
    uint32_t index;  /* of the token, in the prompt or among the new ones */
    size_t text_from, text_to;
    enum cinf_finish finish;
};

struct cinf_request {
    atomic_uint references; /* the caller's and the scheduler's */
    atomic_int cancel;      /* enum cinf_finish: end it before the next step; 0: go on */
    atomic_bool paused;     /* by its caller: it enters no step */

    /* Fixed: what was asked for, in owned copies. */
    struct cinf_model *model;
    struct cinf_bill *bill;
    uint64_t submitted_ns;
    uint64_t deadline_ns; /* UINT64_MAX: none */
    char *payer;
    struct note *note; /* until it is queued; or NULL */
    int32_t *prompt;
    uint32_t n_prompt;
    uint32_t max_new;
    uint32_t n_sequences;
    bool prompt_only, ignore_eos, logprobs, prompt_logprobs;
    bool wants_all; /* logits of every prompt row */
    uint32_t n_top;
    struct sampling sampling;
    struct stop_string stops[CINF_STOPS_MAX];
    uint32_t n_stops;
    uint32_t n_stop_ids; /* of sampling.end_ids, which begins with them */

    struct cinf_request *next; /* in the model's waiting list (engine.lock) or running list (scheduler's) */

    /* The scheduler's. */
    uint32_t n_computed; /* prompt tokens in the cache */
    uint32_t n_reported; /* those of them that were charged */
    uint32_t n_cached;
    uint64_t copied_bytes; /* by prefix copies since the last charge */
    uint32_t step_rows;    /* in this step */
    uint64_t paused_ns;    /* since when it has been seen paused; 0: it is not */
    struct model_work work;
    struct sequence *sequences; /* [n_sequences] */

    /* request.lock */
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct queued_event *events; /* a queue that is never full: [n_events_max] */
    uint32_t n_events_max, n_in, n_out;
    uint32_t unread_max; /* UINT32_MAX: no limit */
    bool parked;         /* the scheduler's to write: while it was paused, its slots were given to another */
    bool ended;
    enum cinf_finish finish;
    char failure[256];
    bool prompt_published;
    float *prompt_logits;            /* the caller's; NULL once cinf_request_free() was called */
    float *prompt_logprob;           /* [n_prompt], when asked for */
    struct cinf_logprob *prompt_top; /* [n_prompt, n_top] */
    uint32_t *prompt_rank;           /* [n_prompt] */
    struct textflow prompt_flow;
    size_t *prompt_ends;           /* [n_prompt] */
    void (*notify)(void *context); /* NULL once cinf_request_free() was called */
    void *notify_context;

    /* The reader's copies of what the last event it pulled points to. */
    struct strbuf event_text;
    struct cinf_logprob event_top[CINF_TOP_LOGPROBS_MAX];
};

struct cinf_model {
    atomic_uint references; /* handles, requests, and the engine's list */

    /* Fixed: set while it is being loaded. */
    struct cinf_engine *engine;
    char *name, *folder, *notes;
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT]; /* "" for a synthetic model */
    uint32_t account;
    struct cinf_config config;
    struct cinf_tokenizer *tokenizer; /* NULL: token ids only */
    uint8_t *allowed;                 /* [V/8 + 1] bit id % 8: the id may be sampled; NULL: all may */
    enum cinf_weights weights;
    uint64_t parameters, weight_bytes, greedy_bytes;
    uint32_t n_slots;
    int64_t loaded_at;

    atomic_uint n_free; /* slots that no sequence has or is about to get; less only under engine.lock */

    /* engine.lock */
    struct cinf_model *next;
    bool unloading, loaded;
    uint64_t replaced_ns;                        /* when another took its name; 0: it was not replaced */
    struct cinf_request *waiting, **waiting_end; /* a queue */
    uint32_t n_waiting;                          /* in it */

    /* The scheduler's. */
    struct model *runtime;
    struct slot *slots; /* [n_slots] */
    struct cinf_request *running;
    uint64_t served_ns; /* time of its steps, which next_model() compares */
    bool was_active;
    float row_time; /* what an additional row takes, in steps of one row; 0: no speculation */
};

struct cinf_engine {
    atomic_uint references;           /* the caller's, and one a model */
    atomic_uint_fast64_t memory_used; /* bytes of the device, by us */

    /* Fixed. */
    struct cinf_device_info device_info; /* as it was opened */
    struct cinf_meter *meter;
    struct device_threads threads; /* where CPU time is charged; the scheduler's */
    uint64_t kv_memory;
    uint32_t queue_max, queue_total, prefill_rows;
    bool prefix_reuse, share_prefixes;
    pthread_t thread; /* the scheduler's */

    /* engine.lock */
    pthread_mutex_t lock;
    pthread_cond_t work;    /* to the scheduler: there is something new */
    pthread_cond_t changed; /* from it: a call, load or unload has ended */
    bool closing, stopped;
    struct cinf_model *models;
    struct scheduler_call *calls, **calls_end; /* a queue */
    struct model_load *loads;                  /* that have begun and have not ended */
    uint32_t n_loading; /* calls of cinf_model_load that may have something on the device */
    uint32_t n_waiting; /* requests in the models' queues */
    uint64_t kv_used;

    /* The scheduler's. */
    struct device *device;
    struct step step;
    uint64_t n_steps;       /* so far */
    uint64_t charged_ns;    /* when time was last charged */
    uint64_t gauges_due_ns; /* when memory_gauges_update() is due; UINT64_MAX: with the next load */
};

#endif
