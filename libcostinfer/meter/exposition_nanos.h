/* exposition_nanos.h - billionths as an exact decimal: nanoseconds as seconds, nano-dollars as dollars,
 * bounds of buckets. */
#ifndef EXPOSITION_NANOS_H
#define EXPOSITION_NANOS_H

#include <stdbool.h>
#include <stdint.h>

enum { NANOS_TEXT_MAX = 24 };

/* Writes "0.05", "12.000000001" or "3"; with `point`, "3.0", which is how both formats spell `le`.
 * Returns a pointer into text. */
const char *nanos_format(char text[NANOS_TEXT_MAX], uint64_t nanos, bool point);

#endif
