/* backend.h - the one boundary to a device.
 *
 * A model is a short program: a list of fused operations over rows, the same for prefill, decode, mixed
 * batches and scoring.  A backend lays the weights out as it likes, binds the program to them once
 * (prepare), and then runs batches.  It may fuse further, reorder and pre-bind inside prepare; the caller
 * never knows.  Another device is one more struct backend in backends.c's list; its implementer needs
 * backend_impl.h, its users do not.
 *
 * Letters, here and beside every matrix (row-major unless the comment says otherwise):
 *   R rows of a batch    D embedding width    I inner width of the MLP    V vocabulary    P positions
 *   L layers             H heads              S slots of the KV cache
 *
 * A row is one token of one request at one position.  A slot is one request's timeline of keys and
 * values.  One thread at a time uses a device and what was made on it.  Every call can fail and says so by
 * status; after CINF_EDEVICE the device is unusable and may only be freed. */
#ifndef BACKEND_H
#define BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/status.h>
#include <costinfer/types.h>

/* ---- Weights ------------------------------------------------------------------------------ */

enum weights_type {
    WEIGHTS_F32 = 0,
    WEIGHTS_F16,
    WEIGHTS_BF16,
    WEIGHTS_INT8,
    WEIGHTS_INT4,
};

enum weight_role {
    WEIGHT_TABLE,  /* [rows, cols] looked up by row: position embeddings */
    WEIGHT_TOKENS, /* [V, D] looked up by row; a tied head multiplies by it too: logits = h * W^T */
    WEIGHT_HEAD,   /* [V, D] only multiplied by: logits = h * W^T */
    WEIGHT_MATRIX, /* [in, out]: y = x * W, as checkpoints store it, not transposed */
    WEIGHT_VECTOR, /* [1, cols]: bias, gain; always kept in float32 */
};

struct weight_spec {
    enum weight_role role;
    uint32_t rows, cols;
};

#define NO_WEIGHT UINT32_MAX /* in the place of an index, where an operation can do without that weight */

/* ---- A program ---------------------------------------------------------------------------- */

enum op_kind {
    OP_EMBED,  /* x[R,D] = tokens[token] + positions[position]: weight, weight2, which may be NO_WEIGHT */
    OP_NORM,   /* out[R,D] = layer norm of x[R,D] with gain `weight`, bias `bias`, `epsilon` */
    OP_LINEAR, /* out[R,cols] = epilogue(in[R,rows] * weight[rows,cols] + bias[cols]) */
    OP_ATTEND, /* out[R,D] = attention of q[R,D] over the row's slot of `layer`, positions 0..its own */
    OP_LOGITS, /* logits[wanted rows, V] = in[wanted rows, D] * weight[V,D]^T; the last operation */
};

enum op_epilogue {
    EPILOGUE_NONE = 0,
    EPILOGUE_ACTIVATION, /* out = activation(y) */
    EPILOGUE_ADD,        /* out = out + y, the residual */
    EPILOGUE_QKV,        /* y[R,q_cols+k_cols+v_cols]: the queries go to out; the row's key and value go to
                            its slot and position in the cache of `layer` */
};

/* Buffers of rows, each [R, width]; a backend allocates what its program names. */
enum row_buffer {
    ROWS_X, /* [R,D] the residual stream */
    ROWS_H, /* [R,D] normalised */
    ROWS_Q, /* [R,D] queries */
    ROWS_A, /* [R,D] attention output */
    ROWS_F, /* [R,I] inner layer of the MLP */
    ROWS_COUNT,
};

struct op {
    enum op_kind kind;
    enum row_buffer in, out;
    uint32_t weight, weight2, bias; /* indexes of weight_spec; bias may be NO_WEIGHT */
    uint32_t layer;
    enum op_epilogue epilogue;
    uint32_t q_cols, k_cols, v_cols; /* EPILOGUE_QKV; each is D, because caches and OP_ATTEND know no other */
    enum cinf_activation activation;
    float epsilon;
    float scale; /* OP_ATTEND: factor of q * k */
};

struct program {
    const struct op *ops;
    uint32_t n_ops;
    const struct weight_spec *specs;
    uint32_t n_specs;
    uint32_t width;     /* D */
    uint32_t inner;     /* I */
    uint32_t heads;     /* H */
    uint32_t layers;    /* L */
    uint32_t vocab;     /* V */
    uint32_t positions; /* P */
};

/* One step's rows.  Rows of one slot stand together and in ascending, consecutive positions, and every
 * position before the first of them is in the cache already (by an earlier step or a copy). */
struct batch {
    uint32_t n_rows;           /* 1 … rows_max of prepare() */
    const int32_t *tokens;     /* [R] */
    const uint32_t *positions; /* [R] */
    const uint32_t *slots;     /* [R] */
    const uint8_t
        *wants_logits; /* [R] LOGITS_NONE, LOGITS_ALL or, where prepared.has_top_k, logits_top_k() */
};

enum { TOP_K_MAX = 65 };

enum { LOGITS_NONE = 0, LOGITS_ALL = 1 };

/* Only the k best, k being 1 to TOP_K_MAX. */
static inline uint8_t logits_top_k(uint32_t k)
{
    return (uint8_t)(LOGITS_ALL + k);
}

/* The k of logits_top_k(); 0 for the others. */
static inline uint32_t top_k_of(uint8_t wants)
{
    return wants > LOGITS_ALL ? wants - (uint32_t)LOGITS_ALL : 0;
}

/* The best of a row's logits, best first, the smaller id first among equals.  Tokens that allow() excludes
 * and logits that are NaN or positive infinity are left out. */
struct top_k {
    uint32_t n; /* as many as were asked for, or all there are */
    int32_t ids[TOP_K_MAX];
    float logits[TOP_K_MAX];
    double log_sum; /* where prepared.log_sums: the logarithm of the sum of exp() of all logits, which turns a
                       logit into a log-probability */
};

/* ---- Devices ------------------------------------------------------------------------------ */

struct device_options {
    uint32_t threads;  /* workers of the backend; 0: its own choice */
    const char *which; /* for a backend with find(): a device_info's name; NULL: the best it has */
    bool kv_f16;       /* keys and values in f16; CINF_EUNSUPPORTED where info() then denies it */
    bool profile;      /* time every kernel or phase of a step, where the backend can: profile() */
};

/* What a kernel took by the device's clock; on a CPU, what a kind of phases took by the host's. */
struct profile_row {
    char name[48];
    uint64_t launches, ns;
};

struct device_info {
    char name[96];         /* "cpu-blas", "opencl:0:0" */
    char description[160]; /* hardware and library: "AMD EPYC …, OpenBLAS 0.3.21, 2 threads" */
    bool is_gpu;
    bool shows_memory;     /* in the gpu_* metrics, whether it is a GPU or not */
    bool kv_f16;           /* keys and values are kept in f16 */
    bool rows_independent; /* a row's result has the same bits whatever other rows are in its step */
    bool shares_cpu;       /* it computes on the processor that the CPU's own backends use */
    uint32_t threads;      /* 0: unknown */
    uint64_t memory_total; /* bytes of the device; RAM for a CPU */
    uint64_t memory_used;  /* bytes allocated on it by this library, all kinds */
    uint64_t memory_taken; /* by all processes, as its vendor's driver says; 0: unknown */
};

/* What a step costs, for splitting its time fairly: measured once when the engine opens. */
struct device_speed {
    uint64_t as_per_flop; /* attoseconds a floating-point operation of a big matrix product */
    uint64_t as_per_byte; /* attoseconds a byte of weights read from memory */
};

/* Each backend's own types begin with these. */
struct device {
    const struct backend *backend;
    _Atomic bool *taken; /* belongs to device_open() */
};
struct weights {
    struct device *device;
};
struct kv {
    struct device *device;
};
struct prepared {
    struct device *device;
    bool has_top_k; /* batches may ask for the best logits: allow(), top_k() */
    bool log_sums;  /* and top_k() gives log_sum */
    uint64_t
        top_k_saved_bytes; /* bytes of weights that a row need not read when it wants only the best logits */
};

struct backend {
    const char *name;

    /* Describes device `index` of this backend without opening it; NULL for a backend without devices of its
     * own.  CINF_ENOTFOUND behind the last one; the message says why when there is none. */
    enum cinf_status (*find)(uint32_t index, struct device_info *out);

    enum cinf_status (*open)(struct device **out, const struct device_options *options);
    void (*close)(struct device *device);
    void (*info)(const struct device *device, struct device_info *out);

    /* Row `index` of what kernels took since measure(), the longest first; false behind the last, and always
     * for a device that was opened without `profile`.  NULL: the backend cannot tell. */
    bool (*profile)(struct device *device, uint32_t index, struct profile_row *out);

    /* Takes a quarter of a second at most. */
    enum cinf_status (*measure)(struct device *device, struct device_speed *out);

    /* Weights of one model, undefined until written.  CINF_EUNSUPPORTED for a type that the device cannot
     * hold. */
    enum cinf_status (*weights_new)(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs,
                                    enum weights_type type);
    void (*weights_free)(struct weights *weights);

    /* Writes rows [first, first + n) of weight `index` from n * cols contiguous elements of `dtype`, at any
     * address.  A value that the weights' type cannot hold is CINF_EUNSUPPORTED, and its message names it. */
    enum cinf_status (*weights_write)(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype);

    /* Finishes the weights after the last write, in pieces of a few milliseconds.  Called until *done. */
    enum cinf_status (*weights_finish)(struct weights *weights, bool *done);

    /* Bytes read from the weights by a step that uses all of them once (the head included). */
    uint64_t (*weights_bytes)(const struct weights *weights);

    /* A cache of `slots` x `positions` x L layers x D wide keys and as many values. */
    enum cinf_status (*kv_new)(struct kv **out, struct device *device, const struct program *program,
                               uint32_t slots);
    void (*kv_free)(struct kv *kv);

    /* Bytes that one slot would take; needs no cache. */
    uint64_t (*kv_slot_bytes)(const struct device *device, const struct program *program);

    /* Slots that a cache can have with what is free on the device now, the weights being there: 1 to
     * UINT32_MAX, or CINF_ENOMEM with the numbers.  NULL: only the caller limits them. */
    enum cinf_status (*kv_slots_max)(uint32_t *out, const struct device *device,
                                     const struct program *program);

    /* Positions [0, n) of slot `to` become those of slot `from`. */
    enum cinf_status (*kv_copy)(struct kv *kv, uint32_t to, uint32_t from, uint32_t n);

    /* Binds a program; it and its arrays must outlive the result.  Batches have at most rows_max rows. */
    enum cinf_status (*prepare)(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max);
    void (*prepared_free)(struct prepared *prepared);

    /* Does what prepare() has left, in pieces as small as the driver allows: called until *done, before the
     * first run.  NULL: prepare() leaves nothing. */
    enum cinf_status (*prepare_more)(struct prepared *prepared, bool *done);

    /* Starts a step; wait() returns when its logits and cache entries are there. */
    enum cinf_status (*run)(struct prepared *prepared, const struct batch *batch);
    enum cinf_status (*wait)(struct prepared *prepared);

    /* Logits [V] of the i-th row that wanted them, in host memory, valid until the next run. */
    enum cinf_status (*logits)(struct prepared *prepared, uint32_t i, const float **out);

    /* These two are called only where prepared.has_top_k.  allow() says which tokens may be picked from now
     * on: those whose bit id % 8 of allowed[id / 8] is set; before the first call, all.  top_k() gives the
     * best logits of the i-th row that wanted logits, if it wanted only the best: it is CINF_EINVAL for other
     * rows, as logits() is for such rows. */
    enum cinf_status (*allow)(struct prepared *prepared, const uint8_t *allowed);
    enum cinf_status (*top_k)(struct prepared *prepared, uint32_t i, struct top_k *out);

    /* Lends the device's own threads to other work between two steps: calls work(argument, i, …) for each i
     * below n, concurrently and in any order, and returns when all is done.  NULL: it has none to lend. */
    void (*parallel)(struct device *device, void (*work)(const void *argument, uint32_t i, uint32_t worker),
                     const void *argument, uint32_t n);
};

/* ---- Opening (devices.c) ------------------------------------------------------------------ */

enum { DEVICE_REASON_MAX = 256 };

/* Opens the device that `name` means: "auto" (or NULL), a name of device_list(), a backend's name for the
 * best it has, or part of the name or description of a device that a backend finds, whether in capitals or
 * not. "auto" is a GPU if there is one, else the fastest CPU device; a CPU that find() lists is opened only
 * if it is named.  `reason` says in one line why it was this one.  A device belongs to one opener: CINF_EBUSY
 * while another has it.  CINF_ENOTFOUND lists the names there are. */
enum cinf_status device_open(struct device **out, const char *name, const struct device_options *options,
                             char reason[DEVICE_REASON_MAX]);
void device_close(struct device *device); /* accepts NULL */

/* Names of the devices that this build offers and this machine has, one after the other; NULL behind the
 * last. The first call that goes beyond the CPU's own names asks every find(). */
const char *device_list(uint32_t index);

#endif
