/* step.cl - all of a step but products, attention and picking; and the packing of weights.
 *
 * LANES work-items share a row.  A CPU gets one lane and so no barrier, which would cost more than the row. */

#if LANES == 1
float lanes_sum(float x, __local float *shared)
{
    return x;
}
#else
float lanes_sum(float x, __local float *shared)
{
    uint lane = get_local_id(0);
    shared[lane] = x;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint n = LANES / 2; n > 0; n /= 2) {
        if (lane < n)
            shared[lane] += shared[lane + n];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float sum = shared[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return sum;
}
#endif

/* out[R,D] = tokens[token] + positions[position].  Work-item (column, row).  Positions are never int8; without
 * them any buffer stands in their place. */
#define EMBED(NAME, TOKEN, LOAD_TOKEN, POSITION, LOAD)                                                       \
    __kernel void NAME(__global const TOKEN *tokens, __global const float *scales,                           \
                       __global const POSITION *positions, uint has_positions, __global float *out,          \
                       __global const uint *step, uint rows_max, uint d, uint stride)                        \
    {                                                                                                        \
        uint c = get_global_id(0), r = get_global_id(1);                                                     \
        if (c >= d || r >= step[STEP_ROWS])                                                                  \
            return;                                                                                          \
        size_t token = STEP_ARRAY(step, STEP_TOKENS, rows_max)[r];                                           \
        size_t position = STEP_ARRAY(step, STEP_POSITIONS, rows_max)[r];                                     \
        out[(size_t)r * stride + c] =                                                                        \
            has_positions ? LOAD_TOKEN(token * stride + c, tokens) + LOAD(position * stride + c, positions)  \
                          : LOAD_TOKEN(token * stride + c, tokens);                                          \
    }
#define LOAD_FLOAT(at, from)  (from)[at]
#define LOAD_SCALED(at, from) ((from)[at] * scales[token])
EMBED(embed_f32, float, LOAD_FLOAT, float, LOAD_FLOAT)
EMBED(embed_f16, half, vload_half, half, vload_half)
EMBED(embed_int8, char, LOAD_SCALED, float, LOAD_FLOAT)

/* out[R,D] = (in - mean) / sqrt(variance + epsilon) * gain + bias.  Group (row). */
__kernel void norm(__global const float *in, __global float *out, __global const float *gain,
                   __global const float *bias, uint d, uint stride, float epsilon)
{
    __local float shared[LANES];
    uint lane = get_local_id(0);
    in += get_group_id(0) * (size_t)stride;
    out += get_group_id(0) * (size_t)stride;
    float sum = 0;
    for (uint c = lane; c < d; c += LANES)
        sum += in[c];
    float mean = lanes_sum(sum, shared) / d;
    sum = 0;
    for (uint c = lane; c < d; c += LANES)
        sum += (in[c] - mean) * (in[c] - mean);
    float scale = 1 / sqrt(lanes_sum(sum, shared) / d + epsilon);
    for (uint c = lane; c < d; c += LANES)
        out[c] = (in[c] - mean) * scale * gain[c] + bias[c];
}

/* to[i, stride] = row first + i of those that want logits.  Work-item (column, i). */
__kernel void gather(__global const float *from, __global float *to, __global const uint *step, uint rows_max,
                     uint stride, uint first)
{
    uint c = get_global_id(0), i = get_global_id(1);
    if (c < stride)
        to[(size_t)i * stride + c] =
            from[(size_t)STEP_ARRAY(step, STEP_WANTED, rows_max)[first + i] * stride + c];
}

/* Copies positions [0, n) of every head from slot `from` to slot `to`, keys and values.  The cache is
 * [2, slots, H, P, wide].  Work-item (element of n * wide, head, keys or values). */
__kernel void copy_slot(__global CACHE_BITS *cache, uint heads, uint positions, uint wide, ulong values_at,
                        uint to, uint from, uint n)
{
    size_t i = get_global_id(0), head = (size_t)positions * wide;
    if (i >= (size_t)n * wide)
        return;
    __global CACHE_BITS *half_of = cache + get_global_id(2) * values_at;
    half_of[((size_t)to * heads + get_global_id(1)) * head + i] =
        half_of[((size_t)from * heads + get_global_id(1)) * head + i];
}

/* Weights arrive as staged[n, cols], rows first to first + n - 1 of what the checkpoint stores.
 *
 * A matrix [in, out] is kept as [out, stride]: each of its columns is contiguous.  Work-item (column, run of 16
 * rows): neighbours read neighbouring columns, and each writes 16 consecutive elements. */
#define PACK_COLUMNS(NAME, WEIGHT, STORE)                                                                    \
    __kernel void NAME(__global const float *staged, __global WEIGHT *to, uint first, uint n, uint cols,     \
                       uint stride)                                                                          \
    {                                                                                                        \
        uint c = get_global_id(0), begin = get_global_id(1) * 16, end = min(begin + 16, n);                  \
        if (c >= cols)                                                                                       \
            return;                                                                                          \
        for (uint r = begin; r < end; r++)                                                                   \
            STORE(staged[(size_t)r * cols + c], (size_t)c * stride + first + r, to);                         \
    }
/* Tables [rows, cols] keep their order and only get the stride.  Work-item (column, row). */
#define PACK_ROWS(NAME, WEIGHT, STORE)                                                                       \
    __kernel void NAME(__global const float *staged, __global WEIGHT *to, uint first, uint n, uint cols,     \
                       uint stride)                                                                          \
    {                                                                                                        \
        uint c = get_global_id(0), r = get_global_id(1);                                                     \
        if (c < cols && r < n)                                                                               \
            STORE(staged[(size_t)r * cols + c], (size_t)(first + r) * stride + c, to);                       \
    }
#define STORE_FLOAT(value, at, to) (to)[at] = (value)
PACK_COLUMNS(pack_columns_f32, float, STORE_FLOAT)
PACK_COLUMNS(pack_columns_f16, half, vstore_half_rte)
PACK_ROWS(pack_rows_f32, float, STORE_FLOAT)
PACK_ROWS(pack_rows_f16, half, vstore_half_rte)

/* Rounds source[i] to row first + i of int8 weights.  factors[factors_at + 2i] scales its elements to
 * -127 to 127; the factor after it scales them back.  Work-item (column, i). */
__kernel void quantise(__global const float *source, __global const float *factors, uint factors_at,
                       __global char *to, __global float *scales, uint first, uint n, uint cols,
                       uint source_stride, uint stride)
{
    uint c = get_global_id(0), i = get_global_id(1);
    if (c >= cols || i >= n)
        return;
    factors += factors_at + 2 * (size_t)i;
    to[(size_t)(first + i) * stride + c] =
        convert_char(rint(source[(size_t)i * source_stride + c] * factors[0]));
    if (c == 0)
        scales[first + i] = factors[1];
}

/* Widens elements of from[n] to float, for CLBlast; rows are `stride` long.  `to` begins with the elements of
 * the first work-item.  Work-item: 16 elements. */
#define WIDEN(NAME, WEIGHT, LOAD16)                                                                          \
    __kernel void NAME(__global const WEIGHT *from, __global const float *scales, __global float *to,        \
                       ulong n, uint stride)                                                                 \
    {                                                                                                        \
        size_t i = get_global_id(0) * (size_t)16, first = get_global_offset(0) * (size_t)16;                 \
        if (i < n)                                                                                           \
            vstore16(LOAD16(from + i), 0, to + (i - first));                                                 \
    }
#define LOAD16_HALF(at)   vloada_half16(0, at)
#define LOAD16_SCALED(at) (convert_float16(vload16(0, at)) * scales[i / stride])
WIDEN(widen_f16, half, LOAD16_HALF)
WIDEN(widen_int8, char, LOAD16_SCALED)
