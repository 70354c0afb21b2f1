/* split.h - an interval divided among those who used it. */
#ifndef SPLIT_H
#define SPLIT_H

#include <stdint.h>

/* One part of an interval.  A list instead of an array, because each part lies in its bill: charging
 * then needs no memory and cannot fail. */
struct split_part {
    struct split_part *next;
    uint64_t weight;
    uint64_t ns; /* the result */
    uint64_t remainder;
};

/* Divides `ns` over the list in proportion to the weights, whose sum fits 64 bits; equally when all
 * are 0.  Largest remainder: every part is its exact quota rounded down or up, the nanoseconds left
 * over by rounding down go to the largest remainders, and the parts add to `ns`.  Among equal
 * remainders they go round: *turn is the place in the list after the last one that got one. */
void split_interval(struct split_part *parts, uint64_t ns, uint64_t *turn);

#endif
