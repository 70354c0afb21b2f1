/* linear.cl - out[R,n] = epilogue(in[R,k] * w[n,k]^T) for few rows.
 *
 * Reading the weights is what takes time, so each is read once for M rows.  The file is compiled once for each
 * type of weights (weights_*.cl) and each M.  k is a multiple of 16; `in` and `out` have room for a multiple of
 * M rows, `rows` of which are real; 0: as many as the step has.  FMA is fma(), or mad() on drivers without. */

#define NUMBERED_(name, n) name##_##n
#define NUMBERED(name, n)  NUMBERED_(name, n)
#define LINEAR             NUMBERED(TYPED(linear), M) /* linear_f32_1 */

#if LANES == 1

/* Work-item (column of out, run of M rows). */
__kernel void LINEAR(__global const WEIGHT *w, __global const float *scales, __global const float *in, uint n,
                     uint k, uint rows, EPILOGUE_PARAMETERS)
{
    uint c = get_global_id(0), r = get_global_id(1) * M;
    if (c >= n)
        return;
    w += (size_t)c * k;
    in += (size_t)r * k;
    rows = rows ? rows : step[STEP_ROWS];
    float16 sums[M];
    for (uint m = 0; m < M; m++)
        sums[m] = 0;
    for (uint i = 0; i < k; i += 16) {
        float16 weights = LOAD16(0, w + i);
        for (uint m = 0; m < M; m++)
            sums[m] = FMA(weights, vload16(0, in + (size_t)m * k + i), sums[m]);
    }
    for (uint m = 0; m < M; m++) {
        if (r + m < rows)
            finish(r + m, c, SCALED(sum16(sums[m]), c), EPILOGUE_ARGUMENTS);
    }
}

#else

/* A group for each column of out: its lanes read one row of weights side by side. */
__kernel void LINEAR(__global const WEIGHT *w, __global const float *scales, __global const float *in, uint n,
                     uint k, uint rows, EPILOGUE_PARAMETERS)
{
    __local float shared[M * LANES];
    uint c = get_group_id(0), r = get_global_id(1) * M, lane = get_local_id(0);
    w += (size_t)c * k;
    in += (size_t)r * k;
    rows = rows ? rows : step[STEP_ROWS];
    float4 sums[M];
    for (uint m = 0; m < M; m++)
        sums[m] = 0;
    for (uint i = lane * 4; i < k; i += LANES * 4) {
        float4 weights = LOAD4(0, w + i);
        for (uint m = 0; m < M; m++)
            sums[m] = FMA(weights, vload4(0, in + (size_t)m * k + i), sums[m]);
    }
    for (uint m = 0; m < M; m++) {
        float2 half_sum = sums[m].lo + sums[m].hi;
        shared[m * LANES + lane] = half_sum.x + half_sum.y;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint width = LANES / 2; width > 0; width /= 2) {
        for (uint i = lane; i < M * width; i += LANES) {
            uint at = i / width * LANES + i % width;
            shared[at] += shared[at + width];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint m = lane; m < M; m += LANES) {
        if (r + m < rows)
            finish(r + m, c, SCALED(shared[m * LANES], c), EPILOGUE_ARGUMENTS);
    }
}

#endif

#undef NUMBERED_
#undef NUMBERED
#undef LINEAR
#undef M
