/* bill.h - what a charge does to one bill. */
#ifndef BILL_H
#define BILL_H

#include "meter_state.h"

/* Adds one request's part of the interval that has just ended, which began at `start_wall_ns` and of which
 * `lost_ns` were charged to no request. */
void bill_settle(const struct cinf_share *share, uint64_t start_wall_ns, uint64_t lost_ns);

#endif
