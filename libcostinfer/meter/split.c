/* split.c - the method of the largest remainder, on a list and without memory of its own. */
#include "split.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#include "u128.h"

/* Counts the remainders that are at least `low`. */
static uint64_t count_from(const struct split_part *parts, uint64_t low)
{
    uint64_t n = 0;
    for (const struct split_part *p = parts; p; p = p->next)
        n += p->remainder >= low;
    return n;
}

/* The largest value that at least `n` remainders reach, bit by bit: no sorting, so no memory. */
static uint64_t nth_largest(const struct split_part *parts, uint64_t n)
{
    uint64_t value = 0;
    for (uint64_t bit = UINT64_C(1) << 63; bit; bit >>= 1)
        if (count_from(parts, value | bit) >= n)
            value |= bit;
    return value;
}

void split_interval(struct split_part *parts, uint64_t ns, uint64_t *turn)
{
    u128 total = 0;
    uint64_t n = 0;
    for (struct split_part *p = parts; p; p = p->next, n++)
        total += p->weight;
    assert(n > 0 && total <= UINT64_MAX);

    bool equal = total == 0;
    if (equal)
        total = n;
    uint64_t left = ns;
    for (struct split_part *p = parts; p; p = p->next) {
        u128 share = (u128)ns * (equal ? 1 : p->weight);
        p->ns = (uint64_t)(share / total);
        p->remainder = (uint64_t)(share % total);
        left -= p->ns;
    }
    if (left == 0)
        return;

    /* The remainders add up to left * total and each is below total, so more than `left` of them are not
     * 0: a weight of 0 can never get a nanosecond. */
    uint64_t last = nth_largest(parts, left);
    for (struct split_part *p = parts; p; p = p->next) {
        if (p->remainder > last) {
            p->ns++;
            left--;
        }
    }
    uint64_t first = *turn % n;
    for (int sweep = 0; sweep < 2; sweep++) {
        uint64_t i = 0;
        for (struct split_part *p = parts; p && left > 0; p = p->next, i++) {
            if (p->remainder == last && (i >= first) == (sweep == 0)) {
                p->ns++;
                left--;
                *turn = i + 1;
            }
        }
    }
}
