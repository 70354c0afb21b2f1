/* backend_impl.h - what implementers of backend.h share: the list of backends, argument checks, small sums.
 */
#ifndef BACKEND_IMPL_H
#define BACKEND_IMPL_H

#include "backend.h"

/* ---- The list (backends.c) ---------------------------------------------------------------- */

enum { BACKENDS_MAX = 8 };

/* A backend with find() has devices of its own, which describe themselves.  One without it is a way to
 * compute on the CPU. */
struct backend_entry {
    const struct backend *backend;
    const char *what; /* one without find(): what it is, in a few words */
};

/* Backends of this build; NULL behind the last.  "auto" takes the first one without find() where there is no
 * GPU, so the fastest stands first. */
extern const struct backend_entry backends[BACKENDS_MAX];

/* The reference that every other backend is compared with: naive C, written to be read. */
extern const struct backend backend_cpu_reference;
extern const struct backend backend_cpu_blas; /* in builds with OpenBLAS */
extern const struct backend backend_cpu_packed;
extern const struct backend backend_opencl; /* in builds with OpenCL */

/* ---- Argument checks (backend_check.c) ---------------------------------------------------- */

/* All of these return CINF_OK, or CINF_EINVAL unless something else is said. */

/* Every backend calls the first from prepare(), directly or by prepare_check(): do the program's operations
 * fit its weights and shape?  And the second from run(): do the batch's rows lie within the program's shape
 * and the cache? */
enum cinf_status program_check(const struct program *program);
enum cinf_status batch_check(const struct batch *batch, const struct program *program, uint32_t rows_max,
                             uint32_t slots);

/* The same for weights_new(), weights_write(), prepare() and kv_copy().  Elements that do not represent
 * numbers are CINF_EUNSUPPORTED. */
enum cinf_status specs_check(const struct weight_spec *specs, uint32_t n_specs);
enum cinf_status write_check(const struct weight_spec *specs, uint32_t n_specs, uint32_t index,
                             uint32_t first, uint32_t n, enum cinf_dtype dtype);
enum cinf_status prepare_check(const struct program *program, const struct weight_spec *specs,
                               uint32_t n_specs, uint32_t rows_max);
enum cinf_status copy_check(uint32_t slots, uint32_t positions, uint32_t to, uint32_t from, uint32_t n);

/* ---- Small sums (backend_impl.c) ---------------------------------------------------------- */

/* Columns of a row buffer: D, or I for ROWS_F. */
uint32_t row_width(const struct program *program, enum row_buffer buffer);

/* "f32", "int8" … */
const char *weights_type_name(enum weights_type type);

/* measure() needs it: what each of n takes in attoseconds when all of them take `ns`; at least 1. */
uint64_t attoseconds_each(uint64_t ns, uint64_t n);

/* weights_bytes() needs it: bytes of weights, by how a step uses them. */
struct weights_sum {
    uint64_t layers, head, tokens;
};
void weights_sum_add(struct weights_sum *sum, enum weight_role role, uint64_t bytes);

/* Bytes that a step reads that uses all of them once. */
uint64_t weights_sum_read(const struct weights_sum *sum);

#endif
