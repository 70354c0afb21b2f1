/* cli_flags.h - the flags of a command as one table: parsing, bounds, and its manual. */
#ifndef CLI_FLAGS_H
#define CLI_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <costinfer/engine.h>

struct command {
    const char *name;
    const char *summary;  /* one line, for the list of commands */
    const char *operand;  /* "FILE", which is then required; NULL: the command takes none */
    const char *synopsis; /* what follows "costinfer NAME " */
    const char *manual;   /* paragraphs, ending in a line feed */
    int (*run)(const struct command *self, int argc, char **argv); /* argv[0] is the name */
};

enum flag_kind {
    FLAG_SWITCH,  /* bool: no value */
    FLAG_TEXT,    /* const char * */
    FLAG_TEXTS,   /* struct texts: may be given several times */
    FLAG_U32,     /* uint32_t in [low, high] */
    FLAG_U64,     /* uint64_t in [low, UINT64_MAX] */
    FLAG_FLOAT,   /* float in [low, high] */
    FLAG_IDS,     /* struct ids: 1,2,3 */
    FLAG_PRICE,   /* const char *, checked as a price */
    FLAG_WEIGHTS, /* enum cinf_weights */
    FLAG_KV,      /* struct kv_choice */
};

struct kv_choice {
    bool given; /* with a type other than "auto" */
    enum cinf_kv kv;
};

enum { TEXTS_MAX = 16 };
struct texts {
    const char *items[TEXTS_MAX];
    uint32_t n;
};

struct ids {
    int32_t *ids; /* freed by mem_free() */
    uint32_t n;
    bool given; /* the flag was given; its list may be empty */
};

struct flag {
    const char *name; /* without its dashes */
    enum flag_kind kind;
    void *to; /* of the kind's type; untouched if the flag is absent */
    double low, high;
    const char *value; /* what the manual calls the value */
    const char *help;  /* lines without indentation */
};

#define N_FLAGS(flags) (sizeof(flags) / sizeof *(flags))

/* Reads decimal ids separated by commas or white space, optionally in [ ]; false for anything else. */
bool ids_parse(struct ids *out, const char *text, size_t n);

enum { FLAGS_GO = -1 };

/* Reads `--name value`, `--name=value` and the operand; "--" ends the flags.  Returns FLAGS_GO, or the exit
 * status: 0 after --help, which prints the manual; 2 after a mistake, which it has described on standard
 * error. */
int flags_parse(const struct command *command, const struct flag *flags, size_t n_flags, int argc,
                char **argv, const char **operand);

/* Prints a mistake in the combination of flags; returns 2. */
int usage_error(const struct command *command, const char *message);

#endif
