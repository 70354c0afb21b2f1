/* sampler_scan_body.h - included by sampler_scan.c once for each vector width, after it has defined:
 *
 *   LANES       floats of a vector
 *   NAME(name)  a name of this version
 *   TARGET      attribute of its functions
 *   SCAN_NAME   its name, for tests and messages */

#define VF NAME(floats)
#define VI NAME(ints)
typedef float VF __attribute__((vector_size(4 * LANES)));
typedef int32_t VI __attribute__((vector_size(4 * LANES)));

TARGET INLINE VF NAME(load)(const float *p)
{
    VF x;
    memcpy(&x, p, sizeof x);
    return x;
}

TARGET INLINE VF NAME(choose)(VI mask, VF yes, VF no)
{
    return (VF)((mask & (VI)yes) | (~mask & (VI)no));
}

/* The block at x; if fewer than SCAN_BLOCK elements are left, a copy filled up with -INFINITY, which weighs
 * 0. */
TARGET INLINE const float *NAME(block)(float *room, const float *x, uint32_t n)
{
    if (n >= SCAN_BLOCK)
        return x;
    memcpy(room, x, n * sizeof *x);
    for (uint32_t i = n; i < SCAN_BLOCK; i++)
        room[i] = -INFINITY;
    return room;
}

/* Two independent chains of comparisons, so that one does not wait for the other. */
TARGET static bool NAME(maxima)(float *maxima, const float *x, uint32_t n)
{
    float room[SCAN_BLOCK];
    VI fine = { 0 };
    fine = ~fine;
    for (uint32_t i = 0; i < n; i += SCAN_BLOCK) {
        const float *block = NAME(block)(room, x + i, n - i);
        VF even = (VF){ 0 } - INFINITY, odd = even;
        for (uint32_t k = 0; k < SCAN_BLOCK; k += 2 * LANES) {
            VF y = NAME(load)(block + k), z = NAME(load)(block + k + LANES);
            fine &= (y < INFINITY) & (z < INFINITY);
            even = NAME(choose)(y > even, y, even);
            odd = NAME(choose)(z > odd, z, odd);
        }
        even = NAME(choose)(odd > even, odd, even);
        float max = even[0];
        for (uint32_t k = 1; k < LANES; k++)
            max = even[k] > max ? even[k] : max;
        maxima[i / SCAN_BLOCK] = max;
    }
    int32_t all = -1;
    for (uint32_t k = 0; k < LANES; k++)
        all &= fine[k];
    return all == -1;
}

/* exp(x), x <= 0:
 *
 *     exp(x) = 2^n * exp(r),  n = x / ln 2 rounded,  r = x - n * ln 2,  |r| <= ln(2)/2
 *
 * Adding 1.5 * 2^23 leaves n in the lowest bits of the sum.  ln 2 is subtracted in two parts, the first so
 * short that n times it is exact.  The polynomial is the one of its degree that passes through exp(0) with
 * the smallest relative error, 9.2e-8.  Below -32 the result is less than half of a weight's last digit. */
TARGET INLINE VF NAME(exp)(VF x)
{
    const VF none = { 0 };
    x = NAME(choose)(x < -32.0f, none - 32.0f, x);
    VF shifted = x * 1.44269504f + 0x1.8p23f;
    VF n = shifted - 0x1.8p23f;
    VF r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    VF y = r * 0.00829031898f + 0.0418979063f;
    y = y * r + 0.16667636f;
    y = y * r + 0.499991497f;
    y = y * r + 0.999999707f;
    y = y * r + 1.0f;
    return (VF)((VI)y + ((VI)shifted << 23));
}

/* 2^-12 + w has no digits below 2^-35: the sum rounds w to a multiple of that. */
TARGET static void NAME(weights)(float *weights, const float *x, uint32_t n, const struct weighing *weighing)
{
    float room[SCAN_BLOCK];
    const struct weighing by = *weighing;
    x = NAME(block)(room, x, n);
    for (uint32_t i = 0; i < SCAN_BLOCK; i += LANES) {
        VF y = NAME(load)(x + i), w = NAME(exp)((y - by.best) / by.temperature);
        w = (w + 0x1p-12f) - 0x1p-12f;
        w = (VF)((VI)w & ~(y < by.floor));
        memcpy(weights + i, &w, sizeof w);
    }
}

/* 64 + w has no digits below 2^-17, so a block's sum of those digits and its sum of the remaining ones are
 * each exact in the 24 bits of a float. */
TARGET static double NAME(sums)(double *sums, float *weights, const float *x, uint32_t n,
                                const struct weighing *weighing)
{
    double total = 0;
    for (uint32_t i = 0; i < n; i += SCAN_BLOCK, weights += SCAN_BLOCK) {
        NAME(weights)(weights, x + i, n - i, weighing);
        VF all = { 0 }, rest = { 0 };
        for (uint32_t k = 0; k < SCAN_BLOCK; k += LANES) {
            VF w = NAME(load)(weights + k), high = (w + 64.0f) - 64.0f;
            all += high;
            rest += w - high;
        }
        float coarse = 0, fine = 0;
        for (uint32_t k = 0; k < LANES; k++) {
            coarse += all[k];
            fine += rest[k];
        }
        sums[i / SCAN_BLOCK] = (double)coarse + (double)fine;
        total += sums[i / SCAN_BLOCK];
    }
    return total;
}

static const struct sampler_scan NAME(scan) = { SCAN_NAME, NAME(maxima), NAME(sums), NAME(weights) };

#undef VF
#undef VI
