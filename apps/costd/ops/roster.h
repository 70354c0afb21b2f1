/* roster.h - the models by name: what is to be served, what is served, and what came of the last change.
 *
 * Two things are kept apart for each name: `state` is the outcome of the last change, `serving` is whether
 * requests are answered.  A model whose reload has failed is ROSTER_FAILED and goes on serving.
 *
 * There is no lock here: the fleet holds its own. */
#ifndef ROSTER_H
#define ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include <costinfer/engine.h>

#include "settings.h"

/* Failed loads of models that are not to be served are remembered too, the latest of them. */
enum { ROSTER_MAX = 2 * SERVED_MODELS_MAX };

enum roster_state {
    ROSTER_NEW, /* nothing was asked for yet */
    ROSTER_QUEUED,
    ROSTER_LOADING,
    ROSTER_LOADED,
    ROSTER_FAILED,
    ROSTER_UNLOADING,
};
const char *roster_state_name(enum roster_state state); /* "queued", "loading" … */

struct roster_entry {
    char *name;
    char *folder;            /* that the last change named */
    enum roster_state state; /* of the last change */
    int64_t since;           /* when that state began, in Unix time */
    char error[512];         /* why the last change failed; "": it did not */
    uint64_t bytes_done, bytes_total;
    bool wanted; /* the settings, or an operator since, want it served */

    bool serving; /* the fields below describe what is served */
    char *served_folder;
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT]; /* of its files */
    int64_t loaded_at;
    enum cinf_weights weights; /* as they were asked for */
    uint32_t slots;            /* likewise */
};

struct roster {
    struct roster_entry *entries[ROSTER_MAX]; /* in the order in which they came */
    uint32_t n;
};

void roster_free(struct roster *roster);

/* The entry of that name, or NULL. */
struct roster_entry *roster_find(const struct roster *roster, const char *name);

/* The entry of that name, added if it is new. */
enum cinf_status roster_put(struct roster_entry **out, struct roster *roster, const char *name);
void roster_drop(struct roster *roster, struct roster_entry *entry);

/* Begins a change: its state, the folder (NULL: as before), and no error yet. */
enum cinf_status roster_change(struct roster_entry *entry, enum roster_state state, const char *folder);
void roster_settle(struct roster_entry *entry, enum roster_state state, const char *error);

bool roster_is_pending(const struct roster_entry *entry); /* a load of it is queued or under way */

/* How many names there would be to serve with this one. */
uint32_t roster_count_with(const struct roster *roster, const char *name);

#endif
