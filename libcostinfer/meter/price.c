/* price.c - money: prices as text, amounts as 128-bit integers.
 *
 * An amount is nanoseconds x nano-dollars an hour and is never divided before it is shown.  A price of
 * at most 1e15 nano-dollars (2^50) leaves room for 2^78 ns, so no sum of charges overflows, and a dollar
 * is 3600 s x 1e9 ns x 1e9 = 3.6e21 units at every price. */
#include <costinfer/meter.h>

#include <string.h>

#include "fail.h"
#include "u128.h"

enum { COST_DECIMALS = 12, DOLLARS_MAX = 1000000 };

#define NANOS_PER_DOLLAR     UINT64_C(1000000000)
#define UNITS_PER_PICODOLLAR UINT64_C(3600000000)
#define UNITS_PER_DOLLAR     3.6e21

static u128 u128_of(struct cinf_cost c)
{
    return (u128)c.hi << 64 | c.lo;
}

static struct cinf_cost cost_of_u128(u128 w)
{
    return (struct cinf_cost){ .hi = (uint64_t)(w >> 64), .lo = (uint64_t)w };
}

struct cinf_cost cinf_cost_of(uint64_t ns, uint64_t nanodollars_per_hour)
{
    return cost_of_u128((u128)ns * nanodollars_per_hour);
}

struct cinf_cost cinf_cost_add(struct cinf_cost a, struct cinf_cost b)
{
    u128 sum;
    if (__builtin_add_overflow(u128_of(a), u128_of(b), &sum))
        sum = ~(u128)0;
    return cost_of_u128(sum);
}

int cinf_cost_compare(struct cinf_cost a, struct cinf_cost b)
{
    return (u128_of(a) > u128_of(b)) - (u128_of(a) < u128_of(b));
}

const char *cinf_cost_format(char text[CINF_COST_TEXT_MAX], struct cinf_cost cost)
{
    u128 units = u128_of(cost);
    u128 pico = units / UNITS_PER_PICODOLLAR + (units % UNITS_PER_PICODOLLAR >= UNITS_PER_PICODOLLAR / 2);
    /* Written from the right: at most 17 + 1 + 12 characters, because 2^128 units are 9.5e16 dollars. */
    char digits[CINF_COST_TEXT_MAX];
    char *at = digits + sizeof digits;
    *--at = '\0';
    for (int i = 0; pico > 0 || i <= COST_DECIMALS; i++, pico /= 10) {
        if (i == COST_DECIMALS)
            *--at = '.';
        *--at = (char)('0' + (int)(pico % 10));
    }
    return strcpy(text, at);
}

double cinf_cost_dollars(struct cinf_cost cost)
{
    return (double)u128_of(cost) / UNITS_PER_DOLLAR;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

enum cinf_status cinf_price_parse(uint64_t *nanodollars_per_hour, const char *dollars)
{
    uint64_t whole = 0, nanos = 0, unit = NANOS_PER_DOLLAR;
    const char *at = dollars;
    for (; is_digit(*at) && whole <= DOLLARS_MAX; at++)
        whole = whole * 10 + (uint64_t)(*at - '0');
    if (at > dollars && at[0] == '.' && is_digit(at[1])) {
        for (at++; is_digit(*at) && unit > 1; at++) {
            unit /= 10;
            nanos += (uint64_t)(*at - '0') * unit;
        }
    }
    if (whole > DOLLARS_MAX || (whole == DOLLARS_MAX && nanos > 0))
        return cinf_fail(CINF_EINVAL, "a price is at most %d dollars an hour", DOLLARS_MAX);
    if (at == dollars || *at)
        return cinf_fail(
            CINF_EINVAL,
            "a price is digits with at most nine decimals, such as 2.50: unexpected text at byte %zu",
            (size_t)(at - dollars));
    *nanodollars_per_hour = whole * NANOS_PER_DOLLAR + nanos;
    return CINF_OK;
}
