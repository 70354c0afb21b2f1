/* engine_state.h - what engine.c, request.c and scheduler.c share.
 *
 * Who may touch what:
 *   scheduler   everything of a running request, slots, runtimes, the meter's writing side: no locks
 *   engine.lock the model list, the waiting lists and counts, jobs, loads, `closing`
 *   request.lock the events on their way to the reader
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
#include "model.h"
#include "model_stream.h"
#include "sampler.h"
#include "speculate.h"
#include "textflow.h"

/* One place in a model's KV cache. */
struct slot {
    struct sequence *user; /* who runs in it; NULL: free, but its content is still there */
    int32_t *tokens;       /* [P] the tokens whose keys and values it holds */
    uint32_t n_tokens;
    uint64_t last_used; /* step number, for choosing which to overwrite; 0: never */
};

/* One continuation of a request. */
struct sequence {
    struct cinf_request *request;
    uint32_t index;
    struct slot *slot;
    int32_t *ids; /* [n_prompt + max_new] the prompt, then what was sampled */
    uint32_t n_ids;
    uint32_t n_new;           /* sampled ones among them */
    float *logprobs;          /* [max_new] */
    struct cinf_logprob *top; /* [max_new, n_top] */
    uint32_t n_sampled;       /* in this step */
    uint32_t n_drafted;       /* guesses among its rows in this step */
    struct draft draft;
    struct textflow flow;
    size_t *ends;   /* [max_new] where each token's text ends in the flow */
    uint32_t n_out; /* tokens that were handed to the reader */
    enum cinf_finish finish;
    bool finish_published;
};

/* An event that waits for its reader; text and log-probabilities stand in the choice. */
struct queued_event {
    enum cinf_event_kind kind;
    uint32_t choice;
    uint32_t index; /* of the token, in the prompt or among the new ones */
    size_t text_from, text_to;
    enum cinf_finish finish;
};

struct cinf_request {
    atomic_uint references; /* the caller's and the scheduler's */
    struct cinf_model *model;
    struct cinf_bill *bill;
    atomic_int cancel;  /* enum cinf_finish: end it before the next step; 0: go on */
    atomic_bool paused; /* it keeps its slots and enters no step */
    uint64_t submitted_ns;
    uint64_t deadline_ns; /* UINT64_MAX: none */

    /* What was asked for; owned copies. */
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

    /* The scheduler's. */
    struct cinf_request *next; /* in the model's waiting or running list */
    uint32_t n_computed;       /* prompt tokens in the cache */
    uint32_t n_reported;       /* of them, how many the bill knows */
    uint32_t n_cached;
    uint64_t copied_bytes; /* by prefix copies since the last charge */
    uint32_t step_rows;    /* in this step */
    bool skipped;          /* this step, as it was built */
    struct cinf_share share;
    struct model_work work;
    struct sequence *sequences; /* [n_sequences] */

    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct queued_event *events; /* a queue that is never full: [n_events_max] */
    uint32_t n_events_max, n_in, n_out;
    uint32_t unread_max; /* UINT32_MAX: no limit */
    bool ended;
    enum cinf_finish finish;
    char failure[256];
    bool prompt_published;
    float *prompt_logits;            /* the caller's, NULL once it let go of the request */
    float *prompt_logprob;           /* [n_prompt], when asked for */
    struct cinf_logprob *prompt_top; /* [n_prompt, n_top] */
    struct textflow prompt_flow;
    size_t *prompt_ends; /* [n_prompt] */
    void (*notify)(void *context);
    void *notify_context;

    /* The reader's copies of what an event points to. */
    struct strbuf event_text;
    struct cinf_logprob event_top[CINF_TOP_LOGPROBS_MAX];
};

struct cinf_model {
    atomic_uint references; /* handles, requests, and the engine's list */
    struct cinf_engine *engine;
    struct cinf_model *next;
    char *name, *folder, *notes;
    uint32_t account;
    struct cinf_config config;
    struct cinf_tokenizer *tokenizer; /* NULL for a made-up model */
    uint8_t *allowed;                 /* bit per id: can be sampled; NULL: all */
    enum cinf_weights weights;
    uint64_t parameters, weight_bytes, greedy_bytes;
    uint32_t n_slots;
    int64_t loaded_at;

    /* Under engine.lock. */
    bool listed, unloading, loaded;
    struct cinf_request *waiting, **waiting_end;

    /* The scheduler's. */
    struct model *runtime;
    struct slot *slots; /* [n_slots] */
    struct cinf_request *running;
    uint64_t served_ns; /* for fairness: the model that got least goes first */
    bool was_active;
    float row_time; /* what one row more takes, in steps of one row; 0: no speculation */
};

/* What was chosen of a row's logits before its turn. */
struct early_pick {
    const float *logits; /* NULL: nothing */
    int32_t token;
};

enum { SAMPLERS_MAX = 16 };

/* A model on its way in. */
struct model_load {
    struct model_load *next;
    struct cinf_model *model;
    struct model_stream *loader; /* NULL while the caller's thread still reads configuration and tokenizer */
    bool done;
    enum cinf_status status;
    char message[512];
    atomic_uint_fast64_t bytes_done, bytes_total;
    uint32_t n_timed;     /* steps that were run to see what a row more takes, */
    uint64_t least_ns[2]; /* and the shortest of them, of one row and of TIMED_ROWS more */
};

/* Something the scheduler does for another thread between two steps. */
struct scheduler_call {
    struct scheduler_call *next;
    enum cinf_status (*run)(struct cinf_engine *engine, void *context);
    void *context;
    bool done;
    enum cinf_status status;
    char message[512];
};

struct cinf_engine {
    atomic_uint references; /* the caller's, and one a model */
    struct device *device;
    struct cinf_device_info device_info; /* as it was opened */
    atomic_uint_fast64_t memory_used;    /* by us, now */
    bool memory_changes;                 /* the device's driver tells what everybody uses */
    uint64_t memory_shown_ns;            /* when it was asked last */
    struct cinf_meter *meter;
    uint64_t kv_memory, kv_used;
    uint32_t queue_max, prefill_rows;
    bool prefix_reuse;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;    /* to the scheduler: there is something new */
    pthread_cond_t changed; /* from it: a job, load or unload has ended */
    bool closing, stopped;
    struct cinf_model *models;
    struct scheduler_call *jobs, **jobs_end;
    struct model_load *loads; /* that the scheduler has to work on */
    uint32_t n_loading;       /* calls of cinf_model_load that may have something on the device */
    uint32_t n_waiting;

    /* The scheduler's scratch: one step at a time. */
    uint64_t step;
    uint64_t charged_ns; /* when time was last charged */
    uint32_t rows_cap;
    int32_t *row_tokens;
    uint32_t *row_positions, *row_slots;
    uint8_t *row_wants;
    struct sequence **row_sequences;
    uint32_t shares_cap;
    struct cinf_share *shares;
    struct early_pick *row_picks;
    struct sampler samplers[SAMPLERS_MAX];
    uint32_t n_samplers; /* as many as threads may sample at once */
};

/* engine.c */
void engine_unref(struct cinf_engine *engine);
void model_unref(struct cinf_model *model);
enum cinf_status engine_reserve_rows(struct cinf_engine *engine, uint32_t rows);
enum cinf_weights engine_weights_of(enum weights_type type);

/* request.c: the scheduler's side of a request.  request_is_paused: it enters no step now, being paused or
 * not read.  request_publish hands over what has become certain; request_end closes the bill and queues the
 * last event, then drops the scheduler's reference. */
bool request_is_paused(struct cinf_request *request);
void request_publish(struct cinf_request *request);
void request_end(struct cinf_request *request, enum cinf_finish finish);
void request_cancel(struct cinf_request *request, enum cinf_finish why);
void request_unref(struct cinf_request *request);

/* scheduler.c */
void *scheduler_main(void *engine);

/* The gauges of the device's memory: by the scheduler, or before there is one. */
void engine_show_memory(struct cinf_engine *e);

#endif
