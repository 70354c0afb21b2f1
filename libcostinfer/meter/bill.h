/* bill.h - what a charge does to one bill. */
#ifndef BILL_H
#define BILL_H

#include "meter_state.h"

/* Adds one request's part of the interval that has just ended, which began at `start_wall_ns`. */
void bill_settle(const struct cinf_share *share, uint64_t start_wall_ns);

#endif
