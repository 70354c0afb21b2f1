/* epilogue.cl - what happens to y, element (row, column) of a product, before it is stored. */

#define EPILOGUE_PARAMETERS                                                                                  \
    __global const float *bias, __global float *out, __global CACHE *cache, __global const uint *step,       \
        uint rows_max, uint out_stride, uint epilogue, uint activation, uint q_cols, uint k_cols,            \
        uint head_width, uint wide, uint positions, ulong values_at
#define EPILOGUE_ARGUMENTS                                                                                   \
    bias, out, cache, step, rows_max, out_stride, epilogue, activation, q_cols, k_cols, head_width, wide,    \
        positions, values_at

/* Kept apart from finish(), so that no compiler computes two activations to choose one. */
float activate(uint activation, float x)
{
    if (activation == ACTIVATION_GELU_NEW) /* 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), exact far from 0 too */
        return x / (1 + exp(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    if (activation == ACTIVATION_GELU)
        return 0.5f * x * (1 + erf(x * 0.70710678118654752f));
    if (activation == ACTIVATION_GELU_10)
        return clamp(0.5f * x * (1 + erf(x * 0.70710678118654752f)), -10.0f, 10.0f);
    if (activation == ACTIVATION_QUICK_GELU)
        return x / (1 + exp(-1.702f * x));
    if (activation == ACTIVATION_MISH) { /* x tanh(log(1 + exp(x))) with e = exp(-|x|), which cannot overflow */
        float e = exp(-fabs(x)), above = x < 0 ? e * (e + 2) : 1 + 2 * e;
        return x * above / (above + (x < 0 ? 2 : 2 * e * e));
    }
    if (activation == ACTIVATION_RELU2)
        return x < 0 ? 0 : x * x;
    if (activation == ACTIVATION_RELU6)
        return x < 0 ? 0 : x > 6 ? 6 : x;
    if (activation == ACTIVATION_SIGMOID)
        return 1 / (1 + exp(-x));
    if (activation == ACTIVATION_LEAKY_RELU)
        return x < 0 ? 0.01f * x : x;
    if (activation == ACTIVATION_LINEAR)
        return x;
    if (activation == ACTIVATION_LAPLACE)
        return 0.5f * (1 + erf((x - 0.707107f) / 0.39894257f));
    if (activation == ACTIVATION_RELU)
        return x < 0 ? 0 : x;
    if (activation == ACTIVATION_SILU)
        return x / (1 + exp(-x));
    return tanh(x);
}

void finish(uint r, uint c, float y, EPILOGUE_PARAMETERS)
{
    size_t at = (size_t)r * out_stride + c;
    if (epilogue == EPILOGUE_HEAD) { /* the only one without a bias */
        out[at] = y;
        return;
    }
    y += bias[c];
    if (epilogue == EPILOGUE_ACTIVATION) {
        out[at] = activate(activation, y);
    } else if (epilogue == EPILOGUE_ADD) {
        out[at] += y;
    } else if (epilogue == EPILOGUE_QKV && c >= q_cols) {
        /* The cache is [2, slots, H, P, wide]: `column` of keys and of values belongs to head
         * column / head_width. */
        uint slot = STEP_ARRAY(step, STEP_SLOTS, rows_max)[r];
        uint position = STEP_ARRAY(step, STEP_POSITIONS, rows_max)[r];
        bool is_key = c - q_cols < k_cols;
        uint column = is_key ? c - q_cols : c - q_cols - k_cols, heads = k_cols / head_width;
        size_t place = (is_key ? 0 : values_at) +
                       (((size_t)slot * heads + column / head_width) * positions + position) * wide +
                       column % head_width;
        CACHE_STORE(y, place, cache);
    } else {
        out[at] = y;
    }
}

/* The epilogue of a product[R, n] that CLBlast computed.  Work-item (column, row). */
__kernel void finish_product(__global const float *product, uint n, EPILOGUE_PARAMETERS)
{
    uint c = get_global_id(0), r = get_global_id(1);
    if (c < n && r < step[STEP_ROWS])
        finish(r, c, product[(size_t)r * n + c], EPILOGUE_ARGUMENTS);
}

float sum16(float16 x)
{
    float8 a = x.lo + x.hi;
    float4 b = a.lo + a.hi;
    float2 c = b.lo + b.hi;
    return c.x + c.y;
}
