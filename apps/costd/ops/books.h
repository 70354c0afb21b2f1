/* books.h - costd's ledger: opened and closed with the engine, and a line in the log when the disk fails. */
#ifndef BOOKS_H
#define BOOKS_H

#include <stdbool.h>

#include <costinfer/engine.h>
#include <costinfer/ledger.h>

#include "timers.h"

struct books;

/* Opens the ledger at `path`, which follows the engine's meter until the engine is closed. */
enum cinf_status books_open(struct books **out, const char *path, const struct cinf_engine *engine,
                            struct timers *timers);

/* Before the timers are stopped, and before the engine is closed. */
void books_stop(struct books *books); /* accepts NULL */

/* After the engine was closed: writes what is left. */
void books_close(struct books *books); /* accepts NULL */

/* False if there is no ledger: `books` is NULL. */
bool books_status(const struct books *books, struct cinf_ledger_status *status);

#endif
