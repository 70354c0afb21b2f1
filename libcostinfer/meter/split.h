/* split.h - an interval divided among the requests that used it. */
#ifndef SPLIT_H
#define SPLIT_H

#include <stdint.h>

/* One part of an interval.  The parts are a list, not an array, because each of them lies in its bill:
 * charging then needs no memory and cannot fail. */
struct split_part {
    struct split_part *next;
    uint64_t weight;
    uint64_t ns; /* the result */
    uint64_t remainder;
};

/* Divides `ns` over the list in proportion to the weights, whose sum fits 64 bits; equally when all
 * are 0.  The method is that of the largest remainder: every part is its exact quota rounded down or up,
 * the nanoseconds left over by rounding down go to the largest remainders, and the parts add up to `ns`.
 * Equal remainders take turns: *turn is the place in the list after the last part that got one. */
void split_interval(struct split_part *parts, uint64_t ns, uint64_t *turn);

#endif
