/* hub_cache.c - the layout that Hugging Face's tools give to what they download:
 *
 *     models--OWNER--NAME/refs/main            the name of the current snapshot
 *     models--OWNER--NAME/snapshots/SNAPSHOT/  the model, as links into blobs/
 *
 * Many people name the first folder, which has none of the model's files in it. */
#include "hub_cache.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "file.h"
#include "mem.h"

/* The message is cut before the hint is. */
static void add_hint(const char *message, const char *where, const char *name, const char *below)
{
    cinf_fail(CINF_ENOTFOUND, "%.400s; it is a cache of downloads, and a model is in %.300s/%.255s%s",
              message, where, name, below);
}

/* The first entry of a folder whose name begins so, into name[0..size); false when there is none. */
static bool find_entry(char *name, size_t size, const char *folder, const char *beginning)
{
    bool found = false;
    DIR *entries = opendir(folder);
    if (!entries)
        return false;
    for (struct dirent *e; !found && (e = readdir(entries));) {
        found = e->d_name[0] != '.' && strncmp(e->d_name, beginning, strlen(beginning)) == 0 &&
                strlen(e->d_name) < size;
        if (found)
            memcpy(name, e->d_name, strlen(e->d_name) + 1);
    }
    closedir(entries);
    return found;
}

/* The snapshot that refs/main names, or else any. */
static bool find_snapshot(char *name, size_t size, const char *folder, const char *snapshots)
{
    char *text = NULL, *path = path_join(folder, "refs/main");
    size_t n;
    bool found = false;
    if (path && path_exists(path) && file_load(&text, &n, path, size - 1) == CINF_OK) {
        n = strcspn(text, " \r\n");
        memcpy(name, text, n);
        name[n] = '\0';
        char *snapshot = path_join(snapshots, name);
        found = n > 0 && snapshot && path_is_folder(snapshot);
        mem_free(snapshot);
    }
    mem_free(text);
    mem_free(path);
    return found || find_entry(name, size, snapshots, "");
}

void hub_cache_hint(const char *folder)
{
    char name[256], message[1024];
    snprintf(message, sizeof message, "%s", cinf_last_error());
    char *snapshots = path_join(folder, "snapshots");
    if (snapshots && path_is_folder(snapshots)) {
        bool found = find_snapshot(name, sizeof name, folder, snapshots);
        cinf_fail_again(CINF_ENOTFOUND, message); /* what finding it may have failed with is of no interest */
        if (found)
            add_hint(message, snapshots, name, "");
    } else if (find_entry(name, sizeof name, folder, "models--")) {
        add_hint(message, folder, name, "/snapshots");
    }
    mem_free(snapshots);
}
