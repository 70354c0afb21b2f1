/* cli_ledger.h - which ledgers a command reads, and amounts that add up in print. */
#ifndef CLI_LEDGER_H
#define CLI_LEDGER_H

#include "cli.h"

#define LEDGER_FLAG(to)                                                                                      \
    {                                                                                                        \
        "ledger", FLAG_TEXT, to, 0, 0, "FILE|DIR",                                                           \
            "The ledger, or a folder: every file in it whose name ends in .db.  Default:\n"                  \
            "$STATE_DIRECTORY/ledger.db, or costd/ledger.db in $XDG_STATE_HOME or ~/.local/state."           \
    }

struct ledger_paths {
    char **paths; /* [n] in the order of their names */
    uint32_t n;
};

/* The file or the files of the folder `given`; NULL: the default.  False after saying what went wrong. */
bool ledger_paths_find(struct ledger_paths *out, const char *given);
void ledger_paths_free(struct ledger_paths *paths);

/* "2026-10-01T00:00Z" */
void put_minute(struct strbuf *out, uint64_t ns);

/* "1 h 02 min 03.4 s" */
void put_duration(struct strbuf *out, uint64_t ns);

#endif
