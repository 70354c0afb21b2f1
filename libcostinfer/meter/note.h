/* note.h - what a caller knows of a request beside what it uses, for a ledger. */
#ifndef NOTE_H
#define NOTE_H

#include <costinfer/meter.h>

/* One block of memory, which mem_free() frees. */
struct note {
    const char *id;
    const char *user; /* or NULL */
    const char *tags; /* a JSON object, or NULL */
    char text[];
};

/* Checks and copies what a caller knows of a request. */
enum cinf_status note_new(struct note **out, const struct cinf_note *given);

/* Makes the note, or none, the bill's. */
void note_give(struct cinf_bill *bill, struct note **note);

#endif
