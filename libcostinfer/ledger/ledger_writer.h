/* ledger_writer.h - the ledger's thread, which alone writes the file once it runs. */
#ifndef LEDGER_WRITER_H
#define LEDGER_WRITER_H

#include "ledger_state.h"

/* Wakes the thread, from any other.  'f': what waits is due now; another letter: it may wait for more to join
 * it. */
void ledger_wake(struct cinf_ledger *l, char how);

/* Opens the file if it is not open, and again if its path shows another file. */
enum cinf_status ledger_connect(struct cinf_ledger *l);

/* The thread; its context is the ledger.  After `stop` it returns when all is committed or a few tries have
 * failed. */
void *ledger_run(void *context);

void batch_free(struct batch *b);

#endif
