/* matrix.cl - the product of linear.cl for many rows, compiled once for each type of weights. */

#if LANES == 1

/* Work-item (run of 4 columns, run of 4 rows): 16 sums stay in registers while 4 + 4 vectors are read.  `w`
 * and `in` have room for a multiple of 4 rows each. */
__kernel void TYPED(matrix)(__global const WEIGHT *w, __global const float *scales, __global const float *in,
                            uint n, uint k, uint rows, EPILOGUE_PARAMETERS)
{
    uint c = get_global_id(0) * 4, r = get_global_id(1) * 4;
    if (c >= n)
        return;
    w += (size_t)c * k;
    in += (size_t)r * k;
    rows = rows ? rows : step[STEP_ROWS];
    float16 sums[4][4];
    for (uint i = 0; i < 4; i++)
        for (uint j = 0; j < 4; j++)
            sums[i][j] = 0;
    for (uint x = 0; x < k; x += 16) {
        float16 weights[4];
        for (uint j = 0; j < 4; j++)
            weights[j] = LOAD16(0, w + (size_t)j * k + x);
        for (uint i = 0; i < 4; i++) {
            float16 value = vload16(0, in + (size_t)i * k + x);
            for (uint j = 0; j < 4; j++)
                sums[i][j] = FMA(weights[j], value, sums[i][j]);
        }
    }
    for (uint i = 0; i < 4; i++)
        for (uint j = 0; j < 4; j++)
            if (r + i < rows && c + j < n)
                finish(r + i, c + j, SCALED(sum16(sums[i][j]), c + j), EPILOGUE_ARGUMENTS);
}

#else

/* A group of 8 x 8 work-items computes a tile of 64 rows x 64 columns, 8 x 8 sums each, and reads 16 of k at a
 * time through local memory.  Work-item (x, y) has columns x + 8j and rows y + 8i, so that neighbours read
 * neighbouring words. */
#define TILE  64
#define DEPTH 16
__kernel __attribute__((reqd_work_group_size(8, 8, 1))) void
TYPED(matrix)(__global const WEIGHT *w, __global const float *scales, __global const float *in, uint n,
              uint k, uint rows, EPILOGUE_PARAMETERS)
{
    __local float a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];
    uint x = get_local_id(0), y = get_local_id(1), lane = y * 8 + x;
    uint c0 = get_group_id(0) * TILE, r0 = get_group_id(1) * TILE;
    rows = rows ? rows : step[STEP_ROWS];
    float sums[8][8];
    for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < 8; j++)
            sums[i][j] = 0;
    for (uint k0 = 0; k0 < k; k0 += DEPTH) {
        for (uint e = lane; e < DEPTH * TILE; e += 64) {
            uint row = e / DEPTH, depth = e % DEPTH;
            a[depth][row] = r0 + row < rows ? in[(size_t)(r0 + row) * k + k0 + depth] : 0;
            b[depth][row] = c0 + row < n ? LOAD1((size_t)(c0 + row) * k + k0 + depth, w) : 0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint depth = 0; depth < DEPTH; depth++) {
            float left[8], right[8];
            for (uint i = 0; i < 8; i++) {
                left[i] = a[depth][y + 8 * i];
                right[i] = b[depth][x + 8 * i];
            }
            for (uint i = 0; i < 8; i++)
                for (uint j = 0; j < 8; j++)
                    sums[i][j] = FMA(left[i], right[j], sums[i][j]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint i = 0; i < 8; i++) {
        for (uint j = 0; j < 8; j++) {
            uint r = r0 + y + 8 * i, c = c0 + x + 8 * j;
            if (r < rows && c < n)
                finish(r, c, SCALED(sums[i][j], c), EPILOGUE_ARGUMENTS);
        }
    }
}
#undef TILE
#undef DEPTH

#endif
