/* settings.h - what costd was told: the defaults, overridden by the file, overridden by the flags.
 *
 * One table of options serves all three and writes --help, so they cannot differ. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/engine.h>

enum { LATENCY_BUCKETS_MAX = 32, SERVED_MODELS_MAX = 64, MODEL_NAME_BYTES_MAX = 256 };

struct model_setting {
    char *name, *folder;
};

struct settings {
    char *config; /* path, or NULL */
    struct model_setting models[SERVED_MODELS_MAX];
    uint32_t n_models;

    char *listen;         /* "HOST:PORT" or "unix:PATH" */
    char *metrics_listen; /* the same, or NULL: `listen` serves everything */
    char *keys;           /* path, or NULL */
    char *allow_host;     /* see host_name.h; NULL: none */
    char *device;         /* NULL: the engine's choice */
    enum cinf_weights weights;
    struct {
        bool given; /* and not "auto" */
        enum cinf_kv kv;
    } kv;
    uint32_t threads, slots, queue;
    uint64_t kv_memory; /* bytes */

    char *cpu_price, *gpu_price; /* dollars an hour, checked; NULL: unpriced */
    char *ledger;                /* path, or NULL: none */
    char *daily_budget;          /* dollars, checked; NULL: none */
    enum cinf_basis basis;
    bool share_prefixes;
    double latency_buckets[LATENCY_BUCKETS_MAX];
    uint32_t n_latency_buckets; /* 0: the meter's own */

    uint32_t delay_seconds, drain_seconds;
    uint32_t head_seconds, body_seconds, idle_seconds, stall_seconds, ping_seconds;
    uint32_t connections, connections_per_address;
    uint64_t body_bytes;
    bool unload_first; /* a model that is loaded again is unloaded before it is loaded */
    bool no_speculation, strict, insecure, check_config, version, help;
};

/* Reads the command line and the file it names.  CINF_EINVAL, with one line that names the flag or the key.
 */
enum cinf_status settings_read(struct settings *out, int argc, char *const argv[]);
void settings_free(struct settings *settings);

/* CINF_EINVAL unless it could be a model in the settings. */
enum cinf_status model_setting_check(const char *name, const char *folder);

/* Calls `tell` with the flag of every setting that differs and that is not applied when the settings are read
 * again. */
void settings_differences(const struct settings *a, const struct settings *b,
                          void (*tell)(void *context, const char *flag), void *context);

/* Prints the manual's sections on flags and the file. */
void settings_help(void);

/* Opens the configuration, the tokenizer (if there is any of its files) and the tensor table of a model's
 * folder; loads nothing. */
enum cinf_status settings_check_folder(const char *folder, bool *has_tokenizer);
enum cinf_status settings_check_models(const struct settings *settings); /* --check-config: of every model */

#endif
