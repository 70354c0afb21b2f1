/* backend_impl.c - see backend_impl.h; the argument checks are in backend_check.c. */
#include "backend_impl.h"

#include "u128.h"

uint32_t row_width(const struct program *program, enum row_buffer buffer)
{
    return buffer == ROWS_F ? program->inner : program->width;
}

const char *weights_type_name(enum weights_type type)
{
    static const char *const names[] = { "f32", "f16", "bf16", "int8", "int4" };
    return names[type];
}

uint64_t attoseconds_each(uint64_t ns, uint64_t n)
{
    u128 each = (u128)ns * 1000000000 / n;
    return each == 0 ? 1 : each < UINT64_MAX ? (uint64_t)each : UINT64_MAX;
}

void weights_sum_add(struct weights_sum *sum, enum weight_role role, uint64_t bytes)
{
    switch (role) {
    case WEIGHT_TABLE: /* a row of it, which is nothing */
        break;
    case WEIGHT_TOKENS:
        sum->tokens += bytes;
        break;
    case WEIGHT_HEAD:
        sum->head += bytes;
        break;
    case WEIGHT_MATRIX:
    case WEIGHT_VECTOR:
        sum->layers += bytes;
        break;
    }
}

/* Tokens are read as a head, or a row of them. */
uint64_t weights_sum_read(const struct weights_sum *sum)
{
    return sum->layers + (sum->head ? sum->head : sum->tokens);
}
