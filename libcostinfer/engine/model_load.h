/* model_load.h - the scheduler's side of loads, and the freeing of a runtime. */
#ifndef MODEL_LOAD_H
#define MODEL_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <costinfer/status.h>

struct cinf_engine;
struct cinf_model;
struct model_stream;

/* A model that is being loaded; on the stack of cinf_model_load(). */
struct model_load {
    struct model_load *next; /* in engine.loads */
    struct cinf_model *model;
    struct model_stream *stream; /* NULL while its caller's thread still reads configuration and tokenizer */
    bool replace;                /* the options say so */
    uint64_t kv_bytes;           /* what its cache would get if the replaced model were gone */
    uint64_t replaced_kv;        /* bytes of the replaced model's cache; 0: it replaces none */
    uint32_t replaced_slots;     /* likewise */
    bool planned;                /* memory has room for it */
    bool done;                   /* its runtime is complete, or it has failed */
    enum cinf_status status;
    char message[512];
    atomic_uint_fast64_t bytes_done;
    uint32_t n_timed;   /* steps that were run to measure what an additional row takes, */
    uint64_t min_ns[2]; /* and the shortest of them: of one row, and of TIMED_ROWS more */
};

/* The first load whose files are open and whose runtime is not complete, or NULL.  Caller holds engine.lock.
 */
struct model_load *model_load_ready(struct cinf_engine *e);

/* One piece of such a load. */
void model_load_run(struct cinf_engine *e, struct model_load *load);

/* Fails all loads with CINF_ECLOSED.  Caller holds engine.lock, which is released in between. */
void model_loads_abort(struct cinf_engine *e);

/* Frees weights, cache and slots. */
void model_drop_runtime(struct cinf_engine *e, struct cinf_model *model);

#endif
