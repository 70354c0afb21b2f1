/* cli_logits.c - a model's raw output, for comparing with other implementations. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "mem.h"

/* Whether `path` is a file in `folder`, by whatever name or link: a checkpoint is not where logits go. */
static bool is_inside(const char *path, const char *folder)
{
    struct stat out, file;
    DIR *listing = stat(path, &out) == 0 && S_ISREG(out.st_mode) ? opendir(folder) : NULL;
    bool found = false;
    for (struct dirent *entry; listing && !found && (entry = readdir(listing));)
        found = fstatat(dirfd(listing), entry->d_name, &file, 0) == 0 && file.st_dev == out.st_dev &&
                file.st_ino == out.st_ino;
    if (listing)
        closedir(listing);
    return found;
}

static int write_logits(const char *path, const float *logits, size_t n)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *to = standard ? stdout : fopen(path, "wb");
    if (!to)
        return fail_with("%s: %s", path, strerror(errno));
    bool failed = fwrite(logits, sizeof *logits, n, to) != n;
    if (standard)
        return 0;
    failed = fclose(to) != 0 || failed;
    return failed ? fail_with("%s: %s", path, strerror(errno)) : 0;
}

static int compute(struct cinf_model *model, const struct ids *ids, const char *path)
{
    struct cinf_model_info info = { CINF_MODEL_INFO };
    struct cinf_report report = { CINF_REPORT };
    cinf_model_info(model, &info);
    /* Checked before the logits are allocated, which could be many gigabytes. */
    if (ids->n > info.config.n_positions)
        return fail_with("%u tokens do not fit the context of %u", ids->n, info.config.n_positions);
    size_t n = (size_t)ids->n * info.config.vocab_size;
    float *logits = mem_new(n, sizeof *logits);
    if (!logits)
        return fail_with("no memory for %u x %u logits", ids->n, info.config.vocab_size);
    int status;
    if (cinf_logits(model, ids->ids, ids->n, logits, &report) != CINF_OK) {
        status = fail_last();
    } else {
        status = write_logits(path, logits, n);
        char cost[CINF_COST_TEXT_MAX + 1];
        if (status == 0)
            fprintf(stderr, "float32 [%u, %u] little-endian, %.3f s, %s\n", ids->n, info.config.vocab_size,
                    seconds_of(report.latency_ns), cost_text(cost, &report));
    }
    mem_free(logits);
    return status;
}

static int run(const struct command *self, int argc, char **argv)
{
    struct common_flags common = { 0 };
    struct ids ids = { 0 };
    const char *path = NULL;
    const struct flag flags[] = {
        MODEL_FLAG(&common),
        { "tokens", FLAG_IDS, &ids, 0, 0, "1,2,3",
          "The text's token ids, at most as many as the model's context." },
        { "out", FLAG_TEXT, &path, 0, 0, "FILE", "The file to write; - is standard output." },
        DEVICE_FLAGS(&common),
        WEIGHTS_FLAG(&common),
        PRICE_FLAGS(&common),
    };
    struct session session;
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, NULL);
    const char *missing = !common.model ? "--model is missing"
                          : ids.n == 0  ? "--tokens is missing or empty"
                          : !path       ? "--out is missing"
                                        : NULL;
    if (status == FLAGS_GO && missing) {
        status = usage_error(self, missing);
    } else if (status == FLAGS_GO) {
        status = 1;
        if (is_inside(path, common.model))
            fail_with("%s: is a file of the model", path);
        else if (session_open(&session, &common, NULL, NULL)) {
            status = compute(session.model, &ids, path);
            session_close(&session);
        }
    }
    mem_free(ids.ids);
    return status;
}

const struct command command_logits = {
    .name = "logits",
    .summary = "write the logits of every position to a file",
    .synopsis = "--model DIR --tokens 1,2,3 --out FILE [--weights f32]",
    .manual =
        "Writes [tokens, vocabulary] as raw little-endian float32, row by row: row i has the logits of\n"
        "the token that follows tokens 0 to i.  With numpy:\n\n"
        "  numpy.fromfile('FILE', '<f4').reshape(tokens, -1)\n",
    .run = run,
};
