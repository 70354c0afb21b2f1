/* fleet_check.c - what is checked of a model before anything is changed, and how a failure is noted.
 *
 * A failed check is noted like a failed load, so that the log, the counts and the roster tell of a model that
 * was refused, whichever of the two refused it. */
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "fleet_impl.h"
#include "log.h"

void fleet_count_load(struct fleet *f, enum load_outcome outcome)
{
    pthread_mutex_lock(&f->lock);
    f->counts.loads[outcome]++;
    pthread_mutex_unlock(&f->lock);
}

void fleet_note_failure(struct fleet *f, const char *name, const char *folder, unsigned keep)
{
    struct roster_entry *entry;
    char why[512];
    snprintf(why, sizeof why, "%s", cinf_last_error());
    pthread_mutex_lock(&f->lock);
    const struct roster_entry *served = roster_find(&f->roster, name);
    bool serving = served && served->serving;
    pthread_mutex_unlock(&f->lock);
    log_message("error", "model_failed", "model %s: %s%s", name, why,
                serving ? "; the version that was loaded before goes on" : "");
    pthread_mutex_lock(&f->lock);
    if (roster_put(&entry, &f->roster, name) == CINF_OK) {
        if (!(keep & 1u << entry->state)) {
            enum cinf_status ignored = roster_change(entry, ROSTER_FAILED, folder);
            (void)ignored; /* without memory for the folder it still tells of the failure */
            roster_settle(entry, ROSTER_FAILED, why);
        }
    }
    f->counts.loads[LOAD_FAILED]++;
    pthread_mutex_unlock(&f->lock);
}

bool fleet_is_served(const struct fleet *f, const struct roster_entry *entry, const char *identity)
{
    return entry && entry->serving && strcmp(entry->identity, identity) == 0 &&
           entry->weights == f->weights && entry->slots == f->slots;
}

/* Whether requests with text are served under that name. */
static bool serves_text(const struct fleet *f, const char *name)
{
    struct cinf_model *model;
    if (cinf_model_find(&model, f->engine, name) != CINF_OK)
        return false;
    bool has = cinf_model_tokenizer(model) != NULL;
    cinf_model_release(model);
    return has;
}

enum cinf_status fleet_check_successor(const struct fleet *f, const char *name, const char *folder)
{
    bool has_tokenizer;
    TRY(settings_check_folder(folder, &has_tokenizer));
    if (!has_tokenizer && serves_text(f, name))
        return cinf_fail(
            CINF_ENOTFOUND,
            "%s: there is no tokenizer file, and the model that it would replace has a tokenizer", folder);
    return CINF_OK;
}

bool fleet_check_model(struct fleet *f, const struct model_setting *m)
{
    char fingerprint[CINF_DIGEST_TEXT], identity[CINF_DIGEST_TEXT];
    enum cinf_status status = cinf_files_identify(fingerprint, identity, m->folder);
    if (status == CINF_OK) {
        pthread_mutex_lock(&f->lock);
        bool served = fleet_is_served(f, roster_find(&f->roster, m->name), identity);
        pthread_mutex_unlock(&f->lock);
        if (!served)
            status = fleet_check_successor(f, m->name, m->folder);
    }
    if (status != CINF_OK)
        fleet_note_failure(f, m->name, m->folder, KEEP_NONE);
    return status == CINF_OK;
}
