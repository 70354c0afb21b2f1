/* cli.h - what the commands of costinfer share: opening a device and a model, reporting failures, and writing
 * results.  Each command is a file of its own, cli_<command>.c, on the public API. */
#ifndef CLI_H
#define CLI_H

#include <stdio.h>

#include <costinfer/costinfer.h>

#include "cli_flags.h"
#include "json_write.h"
#include "strbuf.h"

extern const struct command command_inspect, command_tokenize, command_run, command_logits,
    command_perplexity, command_bench, command_devices, command_costs, command_ledger;

enum { EXIT_INTERRUPTED = 130, EXIT_PIPE = 141 };

/* ---- Device and model ---------------------------------------------------------------------- */

struct common_flags {
    const char *model; /* folder */
    const char *device;
    uint32_t threads;
    enum cinf_weights weights;
    struct kv_choice kv;
    const char *price;
    bool profile;
};

/* Rows of a flag table, for an initializer. */
#define MODEL_FLAG(common)                                                                                   \
    {                                                                                                        \
        "model", FLAG_TEXT, &(common)->model, 0, 0, "DIR", "The checkpoint's folder, with its tokenizer."    \
    }
#define DEVICE_FLAGS(common)                                                                                 \
    { "device",                                                                                              \
      FLAG_TEXT,                                                                                             \
      &(common)->device,                                                                                     \
      0,                                                                                                     \
      0,                                                                                                     \
      "NAME",                                                                                                \
      "What to compute on (default auto; `costinfer devices` lists them)." },                                \
        { "threads",                                                                                         \
          FLAG_U32,                                                                                          \
          &(common)->threads,                                                                                \
          0,                                                                                                 \
          1024,                                                                                              \
          "N",                                                                                               \
          "Threads of the device (default: its choice)." },                                                  \
    {                                                                                                        \
        "kv", FLAG_KV, &(common)->kv, 0, 0, "TYPE",                                                          \
            "How keys and values of past tokens are stored: f32; f16, which halves their memory and what\n"  \
            "attention reads (devices cpu and opencl), or auto (default): f16 where --weights is int8\n"     \
            "or int4, f32 otherwise."                                                                        \
    }
#define WEIGHTS_FLAG(common)                                                                                 \
    {                                                                                                        \
        "weights", FLAG_WEIGHTS, &(common)->weights, 0, 0, "TYPE",                                           \
            "How weights are stored in memory: auto, f32, f16, bf16, int8 or int4 (default auto: as\n"       \
            "the checkpoint stores them, as far as the device can)."                                         \
    }
#define PROFILE_FLAG(common)                                                                                 \
    {                                                                                                        \
        "profile", FLAG_SWITCH, &(common)->profile, 0, 0, NULL,                                              \
            "Prints on standard error the time of each kernel of an OpenCL device, or of each kind of\n"     \
            "phase of device cpu.  Timing itself takes time."                                                \
    }
#define PRICE_FLAGS(common)                                                                                  \
    { "cost-per-hour",                                                                                       \
      FLAG_PRICE,                                                                                            \
      &(common)->price,                                                                                      \
      0,                                                                                                     \
      0,                                                                                                     \
      "DOLLARS",                                                                                             \
      "The machine's price in dollars an hour.  Without it, time is reported but no cost." },                \
    {                                                                                                        \
        "price", FLAG_PRICE, &(common)->price, 0, 0, "DOLLARS", "The same."                                  \
    }

struct session {
    struct cinf_engine *engine;
    struct cinf_model *model;
    uint64_t load_ns; /* what loading the model took */
    bool profile;
};

/* Opens the engine and loads the model, with a progress line on a terminal if that takes more than two
 * seconds. `engine` and `model`, which may be NULL, are further options.  False after a failure, which it has
 * printed. */
bool session_open(struct session *session, const struct common_flags *common,
                  const struct cinf_engine_options *engine, const struct cinf_model_options *model);
void session_close(struct session *session);

/* ---- Progress: one line on a terminal, from two seconds on ------------------------------------ */

struct progress {
    const char *what; /* "loading stories-small" */
    uint64_t start_ns, shown_ns;
};
void progress_start(struct progress *progress, const char *what);
void progress_show(struct progress *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress);

/* ---- Ctrl-C ---------------------------------------------------------------------------------- */

/* After this call the first Ctrl-C only sets a flag; a second one ends the program immediately. */
void interrupt_catch(void);
bool interrupted(void);

/* ---- Input and output ------------------------------------------------------------------------ */

/* Prints the library's last message as "costinfer: ...".  Returns 1, the exit status. */
int fail_last(void);
int fail_with(const char *format, ...) CINF_PRINTF(1, 2);

/* Reads all of a file, "-" for standard input.  False after a failure, which it has printed. */
bool read_all(struct strbuf *out, const char *path);

/* Writes text and a line feed to standard output.  Returns the exit status. */
int print_document(const struct strbuf *text);

/* Writes a report as a member that is an object, with times in nanoseconds. */
void put_report(struct json_writer *w, const char *key, const struct cinf_report *report);

/* Writes dollars, or null if the cost is unpriced. */
void put_cost(struct json_writer *w, const char *key, const struct cinf_report *report);

/* Writes "$0.000003416667", or "no price" if the cost is unpriced. */
const char *cost_text(char text[CINF_COST_TEXT_MAX + 1], const struct cinf_report *report);

/* Adds text from a file so that a terminal can show it: control characters and bytes that are not UTF-8 are
 * escaped. */
void put_printable(struct strbuf *out, const char *text);

double seconds_of(uint64_t ns);
double rate_of(uint64_t n, uint64_t ns); /* n a second; 0 for no time */

#endif
