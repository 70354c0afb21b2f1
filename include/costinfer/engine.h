/* engine.h - one device, the models on it, and one scheduler thread that serves them together.
 *
 * An engine owns its device and its timeline (meter.h).  Models load and unload while others serve; a
 * model that is unloaded refuses new requests, lets the running ones end, and keeps its accounts.
 *
 * Handles are counted.  An engine, a model and a request may be released in any order; what one of them
 * still needs stays until the last of them is gone.  Every function here may be called from any thread. */
#ifndef COSTINFER_ENGINE_H
#define COSTINFER_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/checkpoint.h>
#include <costinfer/meter.h>
#include <costinfer/status.h>
#include <costinfer/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How keys and values of past positions are kept on the device. */
enum cinf_kv {
    CINF_KV_F32 = 0, /* as they are computed */
    CINF_KV_F16,     /* half the memory and half of what attention reads; devices "cpu" and "opencl" */
};
CINF_API const char *cinf_kv_name(enum cinf_kv kv); /* "f32", "f16" */

/* The reverse: CINF_EINVAL for any other name. */
CINF_API enum cinf_status cinf_kv_parse(enum cinf_kv *out, const char *name);

/* What to compute on and within which bounds.  Zero means the default, in every field. */
struct cinf_engine_options {
    size_t struct_size;           /* set by CINF_ENGINE_OPTIONS */
    const char *device;           /* "auto" (NULL), of cinf_device_list(), "opencl", part of a name */
    uint32_t threads;             /* of the device; 0: its own choice */
    enum cinf_kv kv;              /* CINF_EUNSUPPORTED when the device does not keep them so */
    uint64_t kv_memory;           /* bytes for all models' caches; 0: 1/4 of memory, what a GPU has left */
    uint32_t queue_max;           /* requests that may wait, over all models; 0: 256 */
    uint32_t prefill_rows;        /* prompt tokens in one step at most; 0: 128 */
    bool no_prefix_reuse;         /* compute every prompt in full */
    bool no_speculation;          /* one token of a text in a step, never guesses at the next ones */
    bool profile;                 /* time every kernel of a device that can: slower, cinf_engine_profile() */
    const char *dollars_per_hour; /* the price, as for cinf_price_parse(); NULL: unpriced */
    /* Prices by the device's kind, which "auto" shows only when it is open: where either is given, they stand
     * for dollars_per_hour.  NULL: a device of that kind is unpriced. */
    const char *cpu_dollars_per_hour;
    const char *gpu_dollars_per_hour; /* likewise */
    /* The rest is for the engine's meter, and as in cinf_meter_options.  It is not a cinf_meter_options, so
     * that either struct can grow at its end. */
    enum cinf_basis basis;               /* which time is charged */
    const char *const *endpoints;        /* names that requests are counted by; NULL: {"api"} */
    uint32_t n_endpoints;                /* at most CINF_ENDPOINTS_MAX */
    const double *latency_buckets;       /* seconds, ascending; NULL: 0.05 0.1 0.25 0.5 1 2.5 5 10 */
    uint32_t n_latency_buckets;          /* at most 32 */
    uint64_t (*clock_ns)(void *context); /* replaces the clocks; NULL: the host's */
    void *clock_context;                 /* handed to it */
};
#define CINF_ENGINE_OPTIONS .struct_size = sizeof(struct cinf_engine_options) /* begins an initializer */

struct cinf_engine; /* an open device with its models and its books */

/* Opens the device, measures it (a quarter of a second at most) and starts the scheduler.  CINF_EBUSY while
 * another engine has the device.  `options` may be NULL. */
CINF_API enum cinf_status cinf_engine_open(struct cinf_engine **out,
                                           const struct cinf_engine_options *options);

/* Cancels what is queued or running, unloads the models, stops the scheduler and gives the device back.
 * Accepts NULL. */
CINF_API void cinf_engine_close(struct cinf_engine *engine);

/* For reading: snapshots and exposition.  Valid until the engine is closed. */
CINF_API const struct cinf_meter *cinf_engine_meter(const struct cinf_engine *engine);

/* Counts a request that was refused before it reached the engine; cinf_request_submit() counts its own. */
CINF_API void cinf_engine_count_error(struct cinf_engine *engine, uint32_t account,
                                      enum cinf_error_kind kind);

/* As cinf_meter_set_price(), taking effect at the next boundary. */
CINF_API enum cinf_status cinf_engine_set_price(struct cinf_engine *engine, const char *dollars_per_hour);

/* The devices of this build, the CPU's own first (fastest first), then those that OpenCL finds, by the names
 * that `device` above takes: index 0, 1 …; NULL after the last.  "auto" is a GPU if OpenCL finds one, else
 * the fastest of the CPU.  Valid for the life of the process. */
CINF_API const char *cinf_device_list(uint32_t index);

/* What an engine computes on. */
struct cinf_device_info {
    size_t struct_size;    /* set by CINF_DEVICE_INFO before the struct is filled */
    char name[96];         /* as cinf_device_list() has it */
    char description[160]; /* of the hardware, as it calls itself */
    char reason[256];      /* why this device */
    bool is_gpu;           /* the price of a GPU applies, and its memory is exported */
    uint32_t threads;      /* that compute; compute units of an OpenCL device */
    uint64_t memory_total; /* bytes of the device; RAM for a CPU, or the limit of its container */
    uint64_t memory_used;  /* bytes used by this engine */
    uint64_t as_per_flop; /* attoseconds a floating-point operation: with the next, what steps are split by */
    uint64_t as_per_byte; /* attoseconds a byte of weights or cache; both measured at opening */
    enum cinf_kv kv;      /* how it keeps keys and values */
    bool speculation;     /* texts may get several tokens in a step: the same ones, sooner */
};
#define CINF_DEVICE_INFO .struct_size = sizeof(struct cinf_device_info) /* begins an initializer */

/* Fills *info, whose struct_size says how much of it the caller knows. */
CINF_API void cinf_engine_device(const struct cinf_engine *engine, struct cinf_device_info *info);

/* What a kernel took since the engine was opened, by the device's own clock; on device "cpu" what a kind of
 * phases of its steps took.  A diagnostic: accounts are by the host's clock. */
struct cinf_profile_row {
    char name[48];      /* of the kernel */
    uint64_t launches;  /* how often it ran */
    uint64_t device_ns; /* how long in all */
};

/* The first *n rows, at most `max`, of all kernels, the longest first.  CINF_EUNSUPPORTED when nothing was
 * timed: the engine was opened without `profile`, or its device is "cpu-blas" or "cpu-reference". */
CINF_API enum cinf_status cinf_engine_profile(uint32_t *n, struct cinf_engine *engine,
                                              struct cinf_profile_row *rows, uint32_t max);

/* ---- Models ------------------------------------------------------------------------------- */

/* How weights are kept on the device. */
enum cinf_weights {
    CINF_WEIGHTS_AUTO = 0, /* what the checkpoint stores, as far as the device can hold it */
    CINF_WEIGHTS_F32,      /* 4 bytes each */
    CINF_WEIGHTS_F16,      /* 2 bytes, IEEE 754 binary16 */
    CINF_WEIGHTS_BF16,     /* 2 bytes, the upper half of a binary32 */
    CINF_WEIGHTS_INT8,     /* a scale an output */
    CINF_WEIGHTS_INT4,     /* groups of 32 with a scale; embeddings and head in int8; device "cpu" */
};
CINF_API const char *cinf_weights_name(enum cinf_weights weights); /* "auto", "f32" … */

/* The reverse: CINF_EINVAL for any other name. */
CINF_API enum cinf_status cinf_weights_parse(enum cinf_weights *out, const char *name);

/* What to load, and how.  Zero means the default, in every field. */
struct cinf_model_options {
    size_t struct_size; /* set by CINF_MODEL_OPTIONS */
    const char *name;   /* label and handle; NULL: the folder's last part */
    const char *folder; /* a checkpoint with its tokenizer; or NULL, and: */
    const char *shape;  /* a published shape ("gpt2") with made-up weights and no tokenizer, for benchmarks */
    enum cinf_weights weights; /* CINF_EUNSUPPORTED when the device does not keep them so */
    uint32_t slots;            /* requests served at once at most; 0: 16, or what the cache's memory allows */
    bool untied_head; /* use a lm_head.weight that differs from the embeddings although they are tied */
    void (*progress)(void *context, uint64_t bytes_done, uint64_t bytes_total); /* on the calling thread */
    void *progress_context;                                                     /* handed to it */
};
#define CINF_MODEL_OPTIONS .struct_size = sizeof(struct cinf_model_options) /* begins an initializer */

struct cinf_model; /* a counted handle on a model of an engine */

/* Loads a model beside whatever is being served and returns when it can serve.  CINF_EEXIST when a loaded
 * model has that name. */
CINF_API enum cinf_status cinf_model_load(struct cinf_model **out, struct cinf_engine *engine,
                                          const struct cinf_model_options *options);

/* A loaded model by name, as a handle to be released: CINF_ENOTFOUND. */
CINF_API enum cinf_status cinf_model_find(struct cinf_model **out, struct cinf_engine *engine,
                                          const char *name);

/* Handles of the loaded models into models[0..max), oldest first, each to be released; returns how
 * many there are, which may be more than max. */
CINF_API uint32_t cinf_model_list(struct cinf_engine *engine, struct cinf_model **models, uint32_t max);

/* Refuses new requests, waits for the running ones, frees weights and cache.  The handle stays valid. */
CINF_API enum cinf_status cinf_model_unload(struct cinf_model *model);
CINF_API void cinf_model_release(struct cinf_model *model); /* accepts NULL */

/* What is known of a model. */
struct cinf_model_info {
    size_t struct_size;        /* set by CINF_MODEL_INFO before the struct is filled */
    const char *name;          /* this and the next two are valid while the handle is */
    const char *folder;        /* "" for a made-up one */
    const char *notes;         /* what the operator should know about the checkpoint, or "" */
    uint32_t account;          /* index in the meter's snapshot */
    struct cinf_config config; /* its shape */
    enum cinf_weights weights; /* as they are kept, never CINF_WEIGHTS_AUTO */
    uint64_t parameters;       /* numbers in its weights, tied ones once */
    uint32_t slots;            /* requests served at once at most */
    bool loaded;               /* false once cinf_model_unload() has begun */
    int64_t loaded_at;         /* Unix time in seconds */
    uint64_t weight_bytes;     /* weights that a step reads in which one text gets all its logits */
    uint64_t greedy_bytes;     /* and in which it gets the best: the head's copy in int8 may do for those */
};
#define CINF_MODEL_INFO .struct_size = sizeof(struct cinf_model_info) /* begins an initializer */

/* Fills *info, whose struct_size says how much of it the caller knows. */
CINF_API void cinf_model_info(const struct cinf_model *model, struct cinf_model_info *info);

/* NULL for a made-up model.  Valid while the handle is. */
CINF_API const struct cinf_tokenizer *cinf_model_tokenizer(const struct cinf_model *model);

#ifdef __cplusplus
}
#endif
#endif
