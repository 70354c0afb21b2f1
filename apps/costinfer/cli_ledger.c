/* cli_ledger.c - looking after a ledger's file. */
#include "cli_ledger.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file.h"
#include "mem.h"

/* ---- Which ledgers --------------------------------------------------------------------------- */

static bool default_path(struct strbuf *out)
{
    const char *state = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && *state)
        strbuf_printf(out, "%s/ledger.db", state);
    else if (xdg && *xdg)
        strbuf_printf(out, "%s/costd/ledger.db", xdg);
    else if (home && *home)
        strbuf_printf(out, "%s/.local/state/costd/ledger.db", home);
    return out->len > 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_database(const struct dirent *entry)
{
    return text_ends_with(entry->d_name, ".db");
}

static bool find_in_folder(struct ledger_paths *out, const char *folder)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, is_database, by_name);
    if (n < 0) {
        fail_with("%s: %s", folder, strerror(errno));
        return false;
    }
    out->paths = mem_new((size_t)n, sizeof *out->paths);
    for (int i = 0; i < n; i++) {
        if (out->paths && (out->paths[out->n] = path_join(folder, entries[i]->d_name)))
            out->n++;
        free(entries[i]);
    }
    free(entries);
    if (n == 0)
        fail_with("%s: no file in this folder ends in .db", folder);
    else if (out->n < (uint32_t)n)
        fail_with("no memory for a list of files");
    return n > 0 && out->n == (uint32_t)n;
}

bool ledger_paths_find(struct ledger_paths *out, const char *given)
{
    struct strbuf path = { 0 };
    struct ledger_paths found = { 0 };
    if (given)
        strbuf_puts(&path, given);
    else if (!default_path(&path)) {
        fail_with("neither STATE_DIRECTORY nor XDG_STATE_HOME nor HOME says where costd's ledger is: give "
                  "--ledger");
        return false;
    }
    bool good = !path.failed;
    if (good && path_is_folder(path.text)) {
        good = find_in_folder(&found, path.text);
    } else if (good) {
        found.paths = mem_new(1, sizeof *found.paths);
        good = found.paths && (found.paths[0] = mem_copy_text(path.text));
        found.n = good ? 1 : 0;
        if (!good)
            fail_with("no memory for a path");
    }
    strbuf_free(&path);
    if (good)
        *out = found;
    else
        ledger_paths_free(&found);
    return good;
}

void ledger_paths_free(struct ledger_paths *paths)
{
    for (uint32_t i = 0; i < paths->n; i++)
        mem_free(paths->paths[i]);
    mem_free(paths->paths);
}

void put_minute(struct strbuf *out, uint64_t ns)
{
    char text[32] = "";
    time_t seconds = (time_t)(ns / 1000000000u);
    struct tm utc;
    if (gmtime_r(&seconds, &utc))
        strftime(text, sizeof text, "%Y-%m-%dT%H:%MZ", &utc);
    strbuf_puts(out, text);
}

void put_duration(struct strbuf *out, uint64_t ns)
{
    uint64_t minutes = ns / UINT64_C(60000000000);
    double seconds = (double)(ns % UINT64_C(60000000000)) / 1e9;
    if (minutes >= 60)
        strbuf_printf(out, "%" PRIu64 " h %02" PRIu64 " min", minutes / 60, minutes % 60);
    else if (minutes > 0)
        strbuf_printf(out, "%" PRIu64 " min %04.1f s", minutes, seconds);
    else
        strbuf_printf(out, "%.3f s", seconds);
}

/* ---- Actions --------------------------------------------------------------------------------- */

static void print_fault(void *context, const char *fault)
{
    printf("%s: %s\n", (const char *)context, fault);
}

static int verify(const struct ledger_paths *ledgers)
{
    uint64_t all = 0;
    for (uint32_t i = 0; i < ledgers->n; i++) {
        uint64_t faults;
        if (cinf_ledger_verify(&faults, ledgers->paths[i], print_fault, ledgers->paths[i]) != CINF_OK)
            return fail_last();
        if (faults == 0)
            printf("%s: everything adds up\n", ledgers->paths[i]);
        all += faults;
    }
    return all ? 1 : 0;
}

static void put_info(struct json_writer *w, const char *path, const struct cinf_ledger_info *info)
{
    json_new_line(w);
    json_open_object(w, NULL);
    json_put_text(w, "path", path);
    json_put_u64(w, "version", info->version);
    json_put_u64(w, "boots", info->boots);
    json_put_u64(w, "crashed", info->crashed);
    json_put_u64(w, "requests", info->requests);
    json_put_u64(w, "request_rows", info->request_rows);
    json_put_u64(w, "unrecorded", info->unrecorded);
    json_put_u64(w, "device_ns", info->device_ns);
    json_put_u64(w, "serve_ns", info->serve_ns);
    json_put_u64(w, "interrupted_ns", info->interrupted_ns);
    json_put_u64(w, "unattributed_ns", info->unattributed_ns);
    json_put_u64(w, "first_ns", info->first_ns);
    json_put_u64(w, "last_ns", info->last_ns);
    json_put_u64(w, "rows_from_ns", info->rows_from_ns);
    json_put_u64(w, "file_bytes", info->file_bytes);
    json_put_text(w, "sqlite_version", info->sqlite_version);
    json_close(w);
}

static void put_info_text(struct strbuf *out, const char *path, const struct cinf_ledger_info *info)
{
    strbuf_printf(out, "%s: version %" PRIu32 ", %.1f MB, SQLite %s\n", path, info->version,
                  (double)info->file_bytes / 1e6, info->sqlite_version);
    strbuf_printf(out, "  boots         %" PRIu64 ", of which %" PRIu64 " crashed; ", info->boots,
                  info->crashed);
    put_minute(out, info->first_ns);
    strbuf_puts(out, " to ");
    put_minute(out, info->last_ns);
    strbuf_printf(out, "\n  requests      %" PRIu64 " (%" PRIu64 " rows), and %" PRIu64 " unrecorded\n",
                  info->requests, info->request_rows, info->unrecorded);
    strbuf_puts(out, "  device time   ");
    put_duration(out, info->device_ns);
    strbuf_puts(out, ", of which served ");
    put_duration(out, info->serve_ns);
    strbuf_puts(out, "\n  interrupted   ");
    put_duration(out, info->interrupted_ns);
    strbuf_puts(out, "\n  unattributed  ");
    put_duration(out, info->unattributed_ns);
    if (info->rows_from_ns) {
        strbuf_puts(out, "\n  rows          from ");
        put_minute(out, info->rows_from_ns);
    }
    strbuf_putc(out, '\n');
}

static int show_info(const struct ledger_paths *ledgers, bool json)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    int status = 0;
    if (json)
        json_open_array(&w, NULL);
    for (uint32_t i = 0; i < ledgers->n && status == 0; i++) {
        struct cinf_ledger_info info = { CINF_LEDGER_INFO };
        if (cinf_ledger_info(&info, ledgers->paths[i]) != CINF_OK)
            status = fail_last();
        else if (json)
            put_info(&w, ledgers->paths[i], &info);
        else
            put_info_text(&out, ledgers->paths[i], &info);
    }
    if (json) {
        json_new_line(&w);
        json_close(&w);
    } else if (out.len) {
        out.text[--out.len] = '\0'; /* print_document() ends the last line */
    }
    if (status == 0)
        status = print_document(&out);
    strbuf_free(&out);
    return status;
}

static int backup(const struct ledger_paths *ledgers, const char *to)
{
    if (ledgers->n > 1)
        return fail_with("a backup is of one ledger: give --ledger FILE");
    return cinf_ledger_backup(ledgers->paths[0], to) == CINF_OK ? 0 : fail_last();
}

static int prune(const struct ledger_paths *ledgers, uint32_t days)
{
    uint64_t now = (uint64_t)time(NULL), age = days * UINT64_C(86400);
    for (uint32_t i = 0; i < ledgers->n; i++) {
        uint64_t rows;
        uint64_t before = now > age ? (now - age) * UINT64_C(1000000000) : 0;
        if (cinf_ledger_prune(&rows, ledgers->paths[i], before) != CINF_OK)
            return fail_last();
        printf("%s: %" PRIu64 " rows deleted\n", ledgers->paths[i], rows);
    }
    return 0;
}

/* ---- The command ------------------------------------------------------------------------------- */

static const struct command actions[] = {
    { .name = "ledger verify",
      .summary = "prove that a ledger adds up",
      .synopsis = "[--ledger FILE|DIR]",
      .manual =
          "Compares what requests were charged with the device's minutes, rows with the sums of their\n"
          "hours, and times with costs, to the nanosecond, and has SQLite check the file.  Each thing that\n"
          "does not add up is printed; the exit status is then 1.  The ledger may be in use.\n" },
    { .name = "ledger info",
      .summary = "show what a ledger holds",
      .synopsis = "[--ledger FILE|DIR] [--json]",
      .manual =
          "Boots are lives of a server.  `interrupted` is what requests had been served that a crash ended,\n"
          "`unattributed` the time between the last commit and the last sign of life before a crash, and\n"
          "`unrecorded` are requests whose rows found no room while the disk failed; their time is "
          "booked.\n" },
    { .name = "ledger backup",
      .summary = "copy a ledger, which may be in use",
      .operand = "DEST",
      .synopsis = "[--ledger FILE] DEST",
      .manual =
          "Writes a copy that is consistent at one moment to a new file.  It is a ledger like the first:\n"
          "to restore it, stop the server and put it in the other's place, without that one's -wal file.\n" },
    { .name = "ledger prune",
      .summary = "delete old rows, and keep their sums",
      .synopsis = "[--ledger FILE|DIR] --keep-days N",
      .manual =
          "Deletes the rows of requests and minutes that are older; the sums of their hours, by model,\n"
          "payer and endpoint, stay.  Not while a server writes to the ledger.\n" },
};
enum { VERIFY, INFO, BACKUP, PRUNE, N_ACTIONS };

static int run_action(int action, int argc, char **argv)
{
    const char *ledger = NULL, *to = NULL;
    bool json = false;
    uint32_t days = 0;
    struct flag flags[2] = { LEDGER_FLAG(&ledger) };
    size_t n_flags = 1;
    if (action == INFO)
        flags[n_flags++] = (struct flag){ "json", FLAG_SWITCH, &json, 0, 0, NULL, "A JSON array." };
    if (action == PRUNE)
        flags[n_flags++] =
            (struct flag){ "keep-days", FLAG_U32, &days, 1, 100000, "N", "Rows of this many days stay." };
    int status = flags_parse(&actions[action], flags, n_flags, argc, argv, &to);
    if (status != FLAGS_GO)
        return status;
    if (action == PRUNE && days == 0)
        return usage_error(&actions[action], "--keep-days is missing");
    struct ledger_paths ledgers;
    if (!ledger_paths_find(&ledgers, ledger))
        return 1;
    status = action == VERIFY   ? verify(&ledgers)
             : action == INFO   ? show_info(&ledgers, json)
             : action == BACKUP ? backup(&ledgers, to)
                                : prune(&ledgers, days);
    ledger_paths_free(&ledgers);
    return status;
}

static int run(const struct command *self, int argc, char **argv)
{
    for (int a = 0; argc > 1 && a < N_ACTIONS; a++)
        if (strcmp(argv[1], actions[a].name + strlen("ledger ")) == 0)
            return run_action(a, argc - 1, argv + 1);
    if (argc > 1 && argv[1][0] != '-')
        return usage_error(self, "unknown action; expected verify, info, backup or prune");
    int status = flags_parse(self, NULL, 0, argc, argv, NULL);
    return status == FLAGS_GO ? usage_error(self, "an action is missing: verify, info, backup or prune")
                              : status;
}

const struct command command_ledger = {
    .name = "ledger",
    .summary = "verify, describe, copy or prune a ledger of costs",
    .synopsis = "verify|info|backup|prune ...",
    .manual =
        "  verify        proves that everything adds up, to the nanosecond; exit status 1 if it does not\n"
        "  info          what a ledger holds\n"
        "  backup DEST   copies a ledger, which may be in use\n"
        "  prune         deletes old rows and keeps the sums of their hours\n"
        "\n`costinfer ledger ACTION --help` is the manual of an action.\n",
    .run = run,
};
