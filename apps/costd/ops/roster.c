#include "roster.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "mem.h"

const char *roster_state_name(enum roster_state state)
{
    static const char *const names[] = {
        [ROSTER_NEW] = "new",       [ROSTER_QUEUED] = "queued", [ROSTER_LOADING] = "loading",
        [ROSTER_LOADED] = "loaded", [ROSTER_FAILED] = "failed", [ROSTER_UNLOADING] = "unloading"
    };
    return names[state];
}

static void entry_free(struct roster_entry *entry)
{
    if (entry) {
        mem_free(entry->name);
        mem_free(entry->folder);
        mem_free(entry->served_folder);
    }
    mem_free(entry);
}

void roster_free(struct roster *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        entry_free(r->entries[i]);
    r->n = 0;
}

struct roster_entry *roster_find(const struct roster *r, const char *name)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (strcmp(r->entries[i]->name, name) == 0)
            return r->entries[i];
    return NULL;
}

void roster_drop(struct roster *r, struct roster_entry *entry)
{
    uint32_t i = 0;
    while (r->entries[i] != entry)
        i++;
    r->n--;
    memmove(r->entries + i, r->entries + i + 1, (r->n - i) * sizeof *r->entries);
    entry_free(entry);
}

bool roster_is_pending(const struct roster_entry *entry)
{
    return entry->state == ROSTER_QUEUED || entry->state == ROSTER_LOADING;
}

/* Nothing depends on it: it only tells of a load that has failed. */
static bool may_be_forgotten(const struct roster_entry *entry)
{
    return !entry->wanted && !entry->serving && entry->state == ROSTER_FAILED;
}

enum cinf_status roster_put(struct roster_entry **out, struct roster *r, const char *name)
{
    *out = roster_find(r, name);
    if (*out)
        return CINF_OK;
    for (uint32_t i = 0; i < r->n && r->n == ROSTER_MAX; i++)
        if (may_be_forgotten(r->entries[i]))
            roster_drop(r, r->entries[i]);
    if (r->n == ROSTER_MAX)
        return cinf_fail(CINF_EFULL, "%d models are known already", ROSTER_MAX);
    struct roster_entry *entry = mem_new(1, sizeof *entry);
    if (entry)
        entry->name = mem_copy_text(name);
    if (!entry || !entry->name) {
        entry_free(entry);
        return cinf_fail(CINF_ENOMEM, "no memory for the name of a model");
    }
    r->entries[r->n++] = entry;
    *out = entry;
    return CINF_OK;
}

void roster_settle(struct roster_entry *entry, enum roster_state state, const char *error)
{
    entry->state = state;
    entry->since = (int64_t)time(NULL);
    snprintf(entry->error, sizeof entry->error, "%s", error);
}

enum cinf_status roster_change(struct roster_entry *entry, enum roster_state state, const char *folder)
{
    if (folder) {
        char *copy = mem_copy_text(folder);
        if (!copy)
            return cinf_fail(CINF_ENOMEM, "no memory for the folder of a model");
        mem_free(entry->folder);
        entry->folder = copy;
    }
    entry->bytes_done = entry->bytes_total = 0;
    roster_settle(entry, state, "");
    return CINF_OK;
}

uint32_t roster_count_with(const struct roster *r, const char *name)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct roster_entry *entry = r->entries[i];
        n += (entry->wanted || entry->serving || roster_is_pending(entry)) && strcmp(entry->name, name) != 0;
    }
    return n;
}
