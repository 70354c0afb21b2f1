/* opencl_device.h - what the files of the OpenCL backend share: the device, its buffers, and how a failed
 * call becomes a status.
 *
 * One in-order queue a device.  Everything is enqueued without waiting, in the order in which it must
 * happen; the host waits for a step's result, for room to stage weights in, and for nothing else. */
#ifndef OPENCL_DEVICE_H
#define OPENCL_DEVICE_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdatomic.h>

#include "backend.h"
#include "opencl_layout.h"
#include "opencl_profile.h"
#include "opencl_vendor_memory.h"

enum {
    OPENCL_DEVICES_MAX = 32, /* that are listed, over all platforms */
    LINEAR_ROWS_MAX = 16,    /* more rows than this are a matrix product */
    ROWS_MULTIPLE = 16, /* row buffers have room for a multiple, so that kernels may read beyond the rows */
    OPENCL_EPILOGUE_HEAD = 100, /* besides enum op_epilogue: logits, no bias */
    LOGITS_ROWS = 64,           /* rows of logits that are on the device at a time */
};

/* How kernels are built and products computed; chosen by the device's type, or by a test. */
struct opencl_tuning {
    uint32_t lanes;     /* work-items that share a row; 1 for CPUs, where nothing costs more than a barrier */
    uint32_t tile_rows; /* rows of one slot that attend together */
    uint32_t split_length; /* a single row's past is attended to in pieces of about so many positions */
    bool clblast;          /* products of many rows by CLBlast */
    bool cache;            /* keep built programs in files */
    bool check; /* compare the kernels with the CPU's at opening, and do without those that are wrong */
    const char *options; /* of the kernels' compiler, besides ours; or NULL */
};

struct opencl_device {
    struct device base;
    char name[96]; /* "opencl:0:0" */
    char description[160];
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    cl_program program;
    cl_program attend; /* attend.cl for heads of `attend_width`: the latest that was asked for, or NULL */
    uint32_t attend_width;
    struct opencl_tuning tuning;
    bool half_cache;     /* keys and values in f16 */
    bool has_blas;       /* opencl_blas_begin()'s */
    bool is_gpu, sleeps; /* sleeps: waiting for an event costs no processor time */
    uint32_t units;
    uint64_t memory_total, alloc_max;
    struct vendor_memory *vendor;   /* NULL: only our own count */
    struct opencl_profile *profile; /* NULL: kernels are not timed */
    _Atomic uint64_t memory_used;   /* atomic: gauges are read from other threads */
};

struct opencl_buffer {
    cl_mem mem;
    uint64_t bytes;
};

/* One matrix, table or vector: [rows, stride] of float, half or char, rows beyond `rows` and columns beyond
 * `cols` zero.  What the checkpoint stores as [in, out] has its columns as rows here. */
struct opencl_weight {
    struct opencl_buffer buffer;
    struct opencl_buffer scales; /* [rows] of float: a factor for each row of int8 */
    uint32_t rows, cols, stride;

    /* An int8 matrix [in, out] until all of its rows are written: an output's scale depends on all. */
    struct opencl_buffer wide; /* as `buffer`, of float */
    float *largest;            /* [rows] of each output so far */
    uint32_t n_written;
};

struct opencl_stage {
    struct opencl_buffer pinned, buffer; /* the host's side and the device's */
    void *host;                          /* pinned, mapped */
    cl_event free;                       /* done when the pinned side may be written again; or NULL */
};

struct opencl_weights {
    struct weights base;
    enum weights_type type;
    struct weight_spec *specs;
    struct opencl_weight *parts; /* [n_specs] */
    uint32_t n_specs;
    struct opencl_stage stages[2]; /* by turns: one is filled while the other travels */
    uint32_t stage;
    size_t stage_elements;
    cl_kernel pack_rows, pack_columns, quantise;
};

/* [2, slots, H, P, wide] of float or half a layer: keys, then values; wide is D/H up to a multiple of VECTOR.
 */
struct opencl_kv {
    struct kv base;
    uint32_t slots, layers, heads, positions, head_width, wide;
    cl_ulong values_at;           /* the element of a layer at which values begin */
    struct opencl_buffer *caches; /* [layers] */
    cl_kernel copy;
};

/* "while <doing>: CL_OUT_OF_RESOURCES": CINF_ENOMEM for memory that could not be had, else CINF_EDEVICE. */
enum cinf_status opencl_fail(const struct opencl_device *device, cl_int error, const char *doing);

/* The same for what may have gone well: CINF_OK for CL_SUCCESS. */
enum cinf_status opencl_status(const struct opencl_device *device, cl_int error, const char *doing);

/* Device memory, counted.  `flags` besides CL_MEM_READ_WRITE.  More than the device has, or gives at once, is
 * CINF_ENOMEM even where the driver would promise it.  Zeroed on demand: on the queue, without waiting. */
enum cinf_status opencl_buffer_new(struct opencl_buffer *out, struct opencl_device *device, uint64_t bytes,
                                   cl_mem_flags flags, bool zero, const char *what);
void opencl_buffer_free(struct opencl_device *device, struct opencl_buffer *buffer);

/* A program of the named sources (kernel_sources.h) with the device's options and `options`. */
enum cinf_status opencl_program_new(cl_program *out, struct opencl_device *device, const char *options,
                                    const char *const *sources, uint32_t n_sources);
/* attend.cl for heads of that width: the device's, until another width is asked for; kernels outlive it. */
enum cinf_status opencl_attend_program(cl_program *out, struct opencl_device *device, uint32_t head_width);
enum cinf_status opencl_kernel_new(cl_kernel *out, struct opencl_device *device, cl_program program,
                                   const char *name);

/* Sets all arguments of a kernel: `arguments` ends with a zeroed one. */
struct opencl_argument {
    const void *value;
    size_t size;
};
enum cinf_status opencl_arguments(const struct opencl_device *device, cl_kernel kernel,
                                  const struct opencl_argument *arguments);
#define ARGUMENT(x)                                                                                          \
    {                                                                                                        \
        &(x), sizeof(x)                                                                                      \
    }

/* Enqueues work-items x, y, z in groups of `local` (x and y rounded up to it). */
enum cinf_status opencl_launch(const struct opencl_device *device, cl_kernel kernel, const size_t global[3],
                               const size_t local[3]);

/* The same for x items from `first` on. */
enum cinf_status opencl_launch_from(const struct opencl_device *device, cl_kernel kernel, size_t first,
                                    size_t x, size_t local);

/* Waits for an event and releases it. */
enum cinf_status opencl_wait_event(const struct opencl_device *device, cl_event event);

/* Whether the device's kernels compute what they should: CINF_EDEVICE if not.  Some milliseconds, and what
 * compiling takes. */
enum cinf_status opencl_check(struct opencl_device *device);

/* Where the device is on its bus, by the extension of all vendors or by one vendor's own query. */
bool opencl_address(struct pci_address *out, cl_device_id id);

/* For tests: how a device is opened as if it were of another kind.  NULL: by its type, as always. */
enum cinf_status opencl_open_tuned(struct device **out, const struct device_options *options,
                                   const struct opencl_tuning *tuning);

/* ---- Entries of struct backend, each in its file -------------------------------------------- */

enum cinf_status opencl_measure(struct device *device, struct device_speed *out);

enum cinf_status opencl_weights_new(struct weights **out, struct device *device,
                                    const struct weight_spec *specs, uint32_t n_specs,
                                    enum weights_type type);
void opencl_weights_free(struct weights *weights);
enum cinf_status opencl_weights_write(struct weights *weights, uint32_t index, uint32_t first, uint32_t n,
                                      const void *elements, enum cinf_dtype dtype);
enum cinf_status opencl_weights_finish(struct weights *weights, bool *done);
uint64_t opencl_weights_bytes(const struct weights *weights);

enum cinf_status opencl_kv_new(struct kv **out, struct device *device, const struct program *program,
                               uint32_t slots);
void opencl_kv_free(struct kv *kv);
uint64_t opencl_kv_slot_bytes(const struct device *device, const struct program *program);
enum cinf_status opencl_kv_slots_max(uint32_t *out, const struct device *device,
                                     const struct program *program);
enum cinf_status opencl_kv_copy(struct kv *kv, uint32_t to, uint32_t from, uint32_t n);

enum cinf_status opencl_prepare(struct prepared **out, struct weights *weights, struct kv *kv,
                                const struct program *program, uint32_t rows_max);
void opencl_prepared_free(struct prepared *prepared);
enum cinf_status opencl_prepare_more(struct prepared *prepared, bool *done);
enum cinf_status opencl_run(struct prepared *prepared, const struct batch *batch);
enum cinf_status opencl_wait(struct prepared *prepared);
enum cinf_status opencl_logits(struct prepared *prepared, uint32_t i, const float **out);
enum cinf_status opencl_allow(struct prepared *prepared, const uint8_t *allowed);
enum cinf_status opencl_picked(struct prepared *prepared, uint32_t i, struct picked *out);

static inline uint64_t round_up(uint64_t n, uint64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

#endif
