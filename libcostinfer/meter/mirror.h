/* mirror.h - publishing counters and reading what was published.
 *
 * A reader's attempt is: phase = mirror_phase(), load_mirror() from mirror [phase & 1] of everything it
 * wants, and again while mirror_moved(). */
#ifndef MIRROR_H
#define MIRROR_H

#include "meter_state.h"

/* The writing thread: marks what the next publication has to copy. */
void mark_account_dirty(struct cinf_meter *meter, struct account *account);
void mark_payer_dirty(struct cinf_meter *meter, struct payer_account *payer);
void mark_bill_dirty(struct cinf_meter *meter, struct cinf_bill *bill);

/* The writing thread: shows readers the device's counters and everything dirty, as one change. */
void publish(struct cinf_meter *meter);

/* Any thread.  A publication's number is half of its phase. */
uint64_t mirror_phase(const struct cinf_meter *meter);
void load_mirror(void *counters, const _Atomic uint64_t *mirror, size_t words);
bool mirror_moved(const struct cinf_meter *meter, uint64_t phase);

/* The stretch of idle time that a reader sees is still growing, so the reader has to choose its end, and
 * the writer must not end it any earlier afterwards: idle time that has been shown would shrink, and a
 * counter that shrinks looks like a restart.  Both agree through one word, the latest end that a reader
 * was shown, which the writer seals with the real end.  idle_open() begins a stretch at the boundary;
 * idle_seal() returns its end to the writer, idle_until() to a reader. */
#define IDLE_SEALED (UINT64_C(1) << 63)
void idle_open(struct cinf_meter *meter);
struct moment idle_seal(struct cinf_meter *meter);
struct moment idle_until(const struct cinf_meter *meter);

#endif
