/* backend_check.c - rejects programs, batches and requests for weights that break the rules of backend.h. */
#include <inttypes.h>

#include "backend_impl.h"
#include "fail.h"

enum { ROWS_MAX = 1 << 20 }; /* of a step */

static bool has_spec(const struct program *p, uint32_t index, enum weight_role role, uint32_t rows,
                     uint64_t cols)
{
    return index < p->n_specs && p->specs[index].role == role && p->specs[index].rows == rows &&
           p->specs[index].cols == cols;
}

static bool has_bias(const struct program *p, const struct op *op, uint64_t cols)
{
    return op->bias == NO_WEIGHT || has_spec(p, op->bias, WEIGHT_VECTOR, 1, cols);
}

static const char *linear_fault(const struct program *p, const struct op *op)
{
    bool qkv = op->epilogue == EPILOGUE_QKV;
    uint64_t cols = qkv ? (uint64_t)op->q_cols + op->k_cols + op->v_cols : row_width(p, op->out);
    if (op->in == op->out)
        return "a product cannot overwrite its input";
    if (qkv && op->q_cols != p->width)
        return "attention takes D columns of queries";
    if (qkv && (op->k_cols != op->q_cols || op->v_cols != op->q_cols))
        return "keys and values must be as wide as the queries";
    if (!has_spec(p, op->weight, WEIGHT_MATRIX, row_width(p, op->in), cols))
        return "the matrix does not fit its input and output";
    if (!has_bias(p, op, cols))
        return "the bias does not fit the output";
    if (qkv && (op->layer >= p->layers || op->out == ROWS_F))
        return "queries, keys and values have no place to go";
    return NULL;
}

/* What is wrong with an operation; NULL: nothing. */
static const char *op_fault(const struct program *p, const struct op *op, bool last)
{
    uint32_t d = p->width, in;
    if (op->kind == OP_LOGITS) {
        if (!last)
            return "logits are not the last operation";
        if (op->in >= ROWS_COUNT)
            return "unknown row buffer";
        in = row_width(p, op->in);
        if (!has_spec(p, op->weight, WEIGHT_HEAD, p->vocab, in) &&
            !has_spec(p, op->weight, WEIGHT_TOKENS, p->vocab, in))
            return "the head is not [V, D]";
        return NULL;
    }
    if (op->out >= ROWS_COUNT || (op->kind != OP_EMBED && op->in >= ROWS_COUNT))
        return "unknown row buffer";
    switch (op->kind) {
    case OP_EMBED:
        if (!has_spec(p, op->weight, WEIGHT_TOKENS, p->vocab, d))
            return "the token embeddings are not [V, D]";
        if (op->weight2 != NO_WEIGHT && !has_spec(p, op->weight2, WEIGHT_TABLE, p->positions, d))
            return "the position embeddings are not [P, D]";
        return op->out == ROWS_F ? "embeddings go to a buffer of width D" : NULL;
    case OP_NORM:
        if (op->in == ROWS_F || op->out == ROWS_F)
            return "norm works on buffers of width D";
        if (!has_spec(p, op->weight, WEIGHT_VECTOR, 1, d) || !has_bias(p, op, d))
            return "gain and bias are not [D]";
        return NULL;
    case OP_LINEAR:
        return linear_fault(p, op);
    case OP_ATTEND:
        if (op->in == op->out || op->in == ROWS_F || op->out == ROWS_F)
            return "attention goes from one buffer of width D to another";
        return op->layer >= p->layers ? "unknown layer" : NULL;
    default:
        return "unknown operation";
    }
}

enum cinf_status program_check(const struct program *p)
{
    /* Three times a width, and every count, must fit BLAS's int. */
    const uint32_t max = INT32_MAX / 4;
    if (p->width == 0 || p->width > max || p->inner == 0 || p->inner > max || p->vocab == 0 ||
        p->vocab > max || p->positions == 0 || p->positions > max || p->layers == 0)
        return cinf_fail(CINF_EINVAL,
                         "a program of width %u, inner width %u, vocabulary %u, %u positions, %u layers",
                         p->width, p->inner, p->vocab, p->positions, p->layers);
    if (p->heads == 0 || p->width % p->heads != 0)
        return cinf_fail(CINF_EINVAL, "width %u does not divide into %u heads", p->width, p->heads);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const char *fault = op_fault(p, &p->ops[i], i + 1 == p->n_ops);
        if (fault)
            return cinf_fail(CINF_EINVAL, "operation %u of the program: %s", i, fault);
    }
    return CINF_OK;
}

enum cinf_status batch_check(const struct batch *b, const struct program *p, uint32_t rows_max,
                             uint32_t slots)
{
    if (b->n_rows == 0 || b->n_rows > rows_max)
        return cinf_fail(CINF_EINVAL, "a step of %u rows, 1 to %u are possible", b->n_rows, rows_max);
    for (uint32_t r = 0; r < b->n_rows; r++) {
        if (b->tokens[r] < 0 || (uint32_t)b->tokens[r] >= p->vocab)
            return cinf_fail(CINF_EINVAL, "row %u: token %d of a vocabulary of %u", r, b->tokens[r],
                             p->vocab);
        if (b->positions[r] >= p->positions)
            return cinf_fail(CINF_EINVAL, "row %u: position %u of %u", r, b->positions[r], p->positions);
        if (b->slots[r] >= slots)
            return cinf_fail(CINF_EINVAL, "row %u: slot %u of %u", r, b->slots[r], slots);
        if (top_k_of(b->wants_logits[r]) > TOP_K_MAX)
            return cinf_fail(CINF_EINVAL, "row %u: the %u best logits, of at most %u", r,
                             top_k_of(b->wants_logits[r]), TOP_K_MAX);
        if (r > 0 && b->slots[r] == b->slots[r - 1] && b->positions[r] != b->positions[r - 1] + 1)
            return cinf_fail(CINF_EINVAL, "row %u: position %u follows %u in slot %u", r, b->positions[r],
                             b->positions[r - 1], b->slots[r]);
    }
    return CINF_OK;
}

enum cinf_status specs_check(const struct weight_spec *specs, uint32_t n_specs)
{
    for (uint32_t i = 0; i < n_specs; i++) {
        if (specs[i].rows == 0 || specs[i].cols == 0 ||
            (specs[i].role == WEIGHT_VECTOR && specs[i].rows != 1))
            return cinf_fail(CINF_EINVAL, "weight %u is %u x %u", i, specs[i].rows, specs[i].cols);
    }
    return CINF_OK;
}

enum cinf_status write_check(const struct weight_spec *specs, uint32_t n_specs, uint32_t index,
                             uint32_t first, uint32_t n, enum cinf_dtype dtype)
{
    if (index >= n_specs)
        return cinf_fail(CINF_EINVAL, "weight %u of %u", index, n_specs);
    if (first > specs[index].rows || n > specs[index].rows - first)
        return cinf_fail(CINF_EINVAL, "weight %u: rows %u to %" PRIu64 " of %u", index, first,
                         (uint64_t)first + n, specs[index].rows);
    if (dtype >= CINF_DTYPE_OTHER)
        return cinf_fail(CINF_EUNSUPPORTED, "weight %u: elements are not of a floating-point type", index);
    return CINF_OK;
}

enum cinf_status prepare_check(const struct program *program, const struct weight_spec *specs,
                               uint32_t n_specs, uint32_t rows_max)
{
    TRY(program_check(program));
    if (rows_max == 0 || rows_max > ROWS_MAX)
        return cinf_fail(CINF_EINVAL, "steps of at most %u rows; 1 to %d are possible", rows_max, ROWS_MAX);
    bool fits = n_specs == program->n_specs;
    for (uint32_t i = 0; i < n_specs && fits; i++) {
        const struct weight_spec *a = &specs[i], *b = &program->specs[i];
        fits = a->role == b->role && a->rows == b->rows && a->cols == b->cols;
    }
    return fits ? CINF_OK : cinf_fail(CINF_EINVAL, "the program is made for other weights");
}

enum cinf_status copy_check(uint32_t slots, uint32_t positions, uint32_t to, uint32_t from, uint32_t n)
{
    if (to >= slots || from >= slots || n > positions)
        return cinf_fail(CINF_EINVAL,
                         "copy of %u positions from slot %u to slot %u of %u slots x %u positions", n, from,
                         to, slots, positions);
    return CINF_OK;
}
