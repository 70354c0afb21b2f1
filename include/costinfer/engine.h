/* engine.h - one device, the models on it, and one scheduler thread that serves them together.
 *
 * An engine owns its device and its timeline (meter.h).  Models load and unload while others serve; a
 * model that is being unloaded refuses new requests, lets the running ones end, and keeps its accounts.
 *
 * Handles are counted.  An engine, a model and a request may be released in any order; what one of them
 * still needs stays until the last of them is released.  Any thread may call any function here. */
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

/* How the device stores the keys and values of past positions. */
enum cinf_kv {
    CINF_KV_F32 = 0, /* as they are computed */
    CINF_KV_F16,     /* half the memory, and half the bytes attention reads; devices "cpu" and "opencl" */
};
CINF_API const char *cinf_kv_name(enum cinf_kv kv); /* "f32", "f16" */

/* The reverse of cinf_kv_name(): CINF_EINVAL for any other name. */
CINF_API enum cinf_status cinf_kv_parse(enum cinf_kv *out, const char *name);

/* The device, its price and the engine's limits.  Zero means the default, in every field. */
struct cinf_engine_options {
    size_t struct_size;    /* set by CINF_ENGINE_OPTIONS */
    const char *device;    /* "auto" (NULL), a name of cinf_device_list(), "opencl", or part of a name */
    uint32_t threads;      /* that compute; 0: the device's own choice */
    enum cinf_kv kv;       /* CINF_EUNSUPPORTED when the device cannot store them so */
    uint64_t kv_memory;    /* bytes for all models' caches; 0: 1/4 of RAM, or what a GPU has left */
    uint32_t queue_max;    /* requests of a model that may wait for a slot, 16 times as many over all models;
                              0: 256 */
    uint32_t prefill_rows; /* most prompt tokens in one step; 0: 128 */
    bool no_prefix_reuse;  /* compute every prompt in full */
    bool no_speculation;   /* one token of a sequence in each step, and no draft tokens */
    bool profile;          /* time every kernel, where the device can, for cinf_engine_profile(): slower */
    const char *dollars_per_hour; /* the price, as for cinf_price_parse(); NULL: unpriced */
    /* Prices by the kind of device, for "auto", whose choice is known only once it is open.  If either is
     * given, the two replace dollars_per_hour, and NULL leaves a device of that kind unpriced. */
    const char *cpu_dollars_per_hour;
    const char *gpu_dollars_per_hour; /* likewise */
    /* The remaining fields are for the engine's meter and as in cinf_meter_options.  They are repeated here
     * so that either struct can grow at its end. */
    enum cinf_basis basis;               /* which time is charged */
    const char *const *endpoints;        /* names that requests are counted by; NULL: {"api"} */
    uint32_t n_endpoints;                /* at most CINF_ENDPOINTS_MAX */
    const double *latency_buckets;       /* seconds, ascending; NULL: 0.05 0.1 0.25 0.5 1 2.5 5 10 */
    uint32_t n_latency_buckets;          /* at most 32 */
    uint64_t (*clock_ns)(void *context); /* replaces the clocks; NULL: the host's */
    void *clock_context;                 /* handed to it */

    /* Prompts of different payers that begin alike share what was computed of them.  It saves time, and lets
     * each see in cached_tokens, and in its time, what the others have asked. */
    bool share_prefixes;
};
#define CINF_ENGINE_OPTIONS .struct_size = sizeof(struct cinf_engine_options) /* begins an initializer */

struct cinf_engine; /* an open device with its models and its accounts */

/* Opens the device, measures it for at most a quarter of a second, and starts the scheduler.  CINF_EBUSY
 * while another engine has the device open.  `options` may be NULL. */
CINF_API enum cinf_status cinf_engine_open(struct cinf_engine **out,
                                           const struct cinf_engine_options *options);

/* Cancels queued and running requests, unloads the models, stops the scheduler and releases the device.
 * Accepts NULL. */
CINF_API void cinf_engine_close(struct cinf_engine *engine);

/* The engine's meter, for snapshots and exposition.  Valid until the engine is closed. */
CINF_API const struct cinf_meter *cinf_engine_meter(const struct cinf_engine *engine);

/* Counts a request that the caller refused before it reached the engine; cinf_request_submit() counts the
 * requests that it refuses. */
CINF_API void cinf_engine_count_error(struct cinf_engine *engine, uint32_t account,
                                      enum cinf_error_kind kind);

/* As cinf_meter_set_price(): takes effect at the next boundary of the timeline. */
CINF_API enum cinf_status cinf_engine_set_price(struct cinf_engine *engine, const char *dollars_per_hour);

/* The names of this build's devices, as cinf_engine_options.device takes them, by index 0, 1 …; NULL after
 * the last.  The CPU's own devices come first, the fastest of them first, then those that OpenCL finds.
 * "auto" is a GPU if OpenCL finds one, else the fastest CPU device.  Valid for the life of the process. */
CINF_API const char *cinf_device_list(uint32_t index);

/* Opens the account of a model that is about to be loaded, under the name that it will have, so that a
 * refusal is known before the load: CINF_EFULL when there is no room for another name, CINF_EINVAL for a name
 * that cannot be a label.  A name that has an account keeps it. */
CINF_API enum cinf_status cinf_engine_open_account(struct cinf_engine *engine, const char *name);

/* The device that an engine computes on. */
struct cinf_device_info {
    size_t struct_size;    /* set by CINF_DEVICE_INFO before the struct is filled */
    char name[96];         /* as cinf_device_list() has it */
    char description[160]; /* the hardware's own name for itself */
    char reason[256];      /* why this device was chosen */
    bool is_gpu;           /* the price of a GPU applies, and its memory is exported */
    uint32_t threads;      /* that compute; for OpenCL, the device's compute units */
    uint64_t memory_total; /* bytes of the device; for a CPU, RAM or the container's limit */
    uint64_t memory_used;  /* bytes used by this engine */
    uint64_t as_per_flop;  /* attoseconds a floating-point operation; steps are split by this and the next */
    uint64_t as_per_byte;  /* attoseconds a byte of weights or cache; both measured at opening */
    enum cinf_kv kv;       /* how keys and values are stored */
    bool speculation;      /* a sequence may get several tokens in a step: the same ones, sooner */
};
#define CINF_DEVICE_INFO .struct_size = sizeof(struct cinf_device_info) /* begins an initializer */

/* Fills *info, whose struct_size says how much of it the caller knows. */
CINF_API void cinf_engine_device(const struct cinf_engine *engine, struct cinf_device_info *info);

/* The time a kernel took since the engine was opened, by the device's own clock; on device "cpu", the time of
 * one kind of phase of its steps.  A diagnostic: accounts are kept by the host's clock. */
struct cinf_profile_row {
    char name[48];      /* of the kernel */
    uint64_t launches;  /* how often it ran */
    uint64_t device_ns; /* of all launches together */
};

/* Writes the rows of the kernels that took longest, at most `max`, longest first, and their number to *n.
 * CINF_EUNSUPPORTED when nothing was timed: the engine was opened without `profile`, or its device is
 * "cpu-blas" or "cpu-reference". */
CINF_API enum cinf_status cinf_engine_profile(uint32_t *n, struct cinf_engine *engine,
                                              struct cinf_profile_row *rows, uint32_t max);

/* ---- Models ------------------------------------------------------------------------------- */

/* How the device stores weights. */
enum cinf_weights {
    CINF_WEIGHTS_AUTO = 0, /* as the checkpoint stores them, as far as the device can */
    CINF_WEIGHTS_F32,      /* 4 bytes each */
    CINF_WEIGHTS_F16,      /* 2 bytes, IEEE 754 binary16 */
    CINF_WEIGHTS_BF16,     /* 2 bytes, the upper half of a binary32 */
    CINF_WEIGHTS_INT8,     /* 1 byte each, and a scale for each output */
    CINF_WEIGHTS_INT4,     /* groups of 32 with a scale each; embeddings and head in int8; device "cpu" */
};
CINF_API const char *cinf_weights_name(enum cinf_weights weights); /* "auto", "f32" … */

/* The reverse of cinf_weights_name(): CINF_EINVAL for any other name. */
CINF_API enum cinf_status cinf_weights_parse(enum cinf_weights *out, const char *name);

/* The model to load, and how.  Zero means the default, in every field. */
struct cinf_model_options {
    size_t struct_size; /* set by CINF_MODEL_OPTIONS */
    const char *name;   /* in metrics and for cinf_model_find(); NULL: the folder's last part */
    const char *folder; /* a checkpoint with its tokenizer, or without any: token ids only; or NULL, and: */
    const char *shape;  /* a published shape ("gpt2"), synthetic weights, no tokenizer: for benchmarks */
    enum cinf_weights weights; /* CINF_EUNSUPPORTED when the device cannot store them so */
    uint32_t slots;   /* most requests served concurrently; 0: 16, or fewer if memory allows no more */
    bool untied_head; /* use a lm_head.weight that differs from the embeddings although the two are tied */
    void (*progress)(void *context, uint64_t bytes_done, uint64_t bytes_total); /* on the calling thread */
    void *progress_context;                                                     /* handed to it */
    bool replace; /* take the place of the loaded model of that name, if there is one, once loaded */
};
#define CINF_MODEL_OPTIONS .struct_size = sizeof(struct cinf_model_options) /* begins an initializer */

struct cinf_model; /* a counted handle on a model of an engine */

/* Loads a model while others are served, and returns when it can serve.  CINF_EEXIST when a loaded model has
 * that name and `replace` is not set.  A model that is replaced is found no more, ends its queued and running
 * requests, and then frees its memory; until then there are two.  If the load fails, it is as if it had not
 * been tried.  CINF_ENOMEM, before anything is allocated, when memory has no room beside what is loaded, or
 * the caches none for as many slots as the replaced model has.  CINF_EIO when files change during the load.
 */
CINF_API enum cinf_status cinf_model_load(struct cinf_model **out, struct cinf_engine *engine,
                                          const struct cinf_model_options *options);

/* Finds a loaded model by name; the handle is to be released.  CINF_ENOTFOUND. */
CINF_API enum cinf_status cinf_model_find(struct cinf_model **out, struct cinf_engine *engine,
                                          const char *name);

/* Writes handles of the loaded models to models[0..max), oldest first, each to be released; returns how many
 * models there are, which may be more than max. */
CINF_API uint32_t cinf_model_list(struct cinf_engine *engine, struct cinf_model **models, uint32_t max);

/* Refuses new requests, waits for the queued and running ones, and frees weights and cache.  The handle stays
 * valid. */
CINF_API enum cinf_status cinf_model_unload(struct cinf_model *model);
CINF_API void cinf_model_release(struct cinf_model *model); /* accepts NULL */

/* A model's description. */
struct cinf_model_info {
    size_t struct_size;        /* set by CINF_MODEL_INFO before the struct is filled */
    const char *name;          /* this and the next two are valid as long as the handle */
    const char *folder;        /* "" for a synthetic model */
    const char *notes;         /* what the operator should know of the checkpoint, or "" */
    uint32_t account;          /* index in the meter's snapshot */
    struct cinf_config config; /* its shape */
    enum cinf_weights weights; /* as they are stored, never CINF_WEIGHTS_AUTO */
    uint64_t parameters;       /* numbers in its weights; tied ones count once */
    uint32_t slots;            /* most requests served concurrently */
    bool loaded;               /* false once cinf_model_unload() has begun, or it was replaced */
    int64_t loaded_at;         /* Unix time in seconds */
    uint64_t weight_bytes;     /* weights that a step of one sequence reads when it computes all logits */
    uint64_t greedy_bytes;     /* and when only the top logits are needed: the head's int8 copy may do */
    const char *fingerprint;   /* of its files, as cinf_files_identify() has it; "" for a synthetic model */
    const char *identity;      /* likewise; both are valid as long as the handle */
};
#define CINF_MODEL_INFO .struct_size = sizeof(struct cinf_model_info) /* begins an initializer */

/* Fills *info, whose struct_size says how much of it the caller knows. */
CINF_API void cinf_model_info(const struct cinf_model *model, struct cinf_model_info *info);

/* NULL for a synthetic model, and for one whose folder has no tokenizer file: they take token ids and give
 * token ids, without text.  Valid as long as the handle. */
CINF_API const struct cinf_tokenizer *cinf_model_tokenizer(const struct cinf_model *model);

#ifdef __cplusplus
}
#endif
#endif
