#include "cli_flags.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "mem.h"

int usage_error(const struct command *command, const char *message)
{
    fprintf(stderr, "costinfer %s: %s (see costinfer %s --help)\n", command->name, message, command->name);
    return 2;
}

static int flag_error(const struct command *command, const char *flag, const char *what, const char *given)
{
    fprintf(stderr, "costinfer %s: --%s %s", command->name, flag, what);
    if (given)
        fprintf(stderr, ", not \"%s\"", given);
    fprintf(stderr, " (see costinfer %s --help)\n", command->name);
    return 2;
}

bool ids_parse(struct ids *out, const char *text, size_t n)
{
    struct ids list = { .given = true };
    size_t cap = 0;
    bool expect = true, comma = false; /* an id may follow; the last separator was a comma */
    const char *end = text + n;
    while (text < end && strchr(" \t\r\n[", *text) && *text)
        text++;
    while (end > text && strchr(" \t\r\n]", end[-1]) && end[-1])
        end--;
    while (text < end) {
        if (*text >= '0' && *text <= '9' && expect) {
            int64_t value = 0;
            for (; text < end && *text >= '0' && *text <= '9'; text++) {
                value = value * 10 + (*text - '0');
                if (value > INT32_MAX)
                    goto bad;
            }
            if (list.n == UINT32_MAX || !mem_reserve(&list.ids, &cap, (size_t)list.n + 1, sizeof *list.ids))
                goto bad;
            list.ids[list.n++] = (int32_t)value;
            expect = comma = false;
        } else if (*text == ',' && !comma && list.n > 0) {
            comma = expect = true;
            text++;
        } else if (*text && strchr(" \t\r\n", *text)) {
            expect = true;
            text++;
        } else {
            goto bad;
        }
    }
    if (comma)
        goto bad;
    *out = list;
    return true;
bad:
    mem_free(list.ids);
    return false;
}

static bool parse_u64(uint64_t *out, const char *text, double low, double high)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || (double)value < low ||
        (high > 0 && (double)value > high))
        return false;
    *out = value;
    return true;
}

static int flag_set(const struct command *command, const struct flag *f, const char *value)
{
    char what[96];
    uint64_t number;
    switch (f->kind) {
    case FLAG_SWITCH:
        *(bool *)f->to = true;
        return FLAGS_GO;
    case FLAG_TEXT:
        *(const char **)f->to = value;
        return FLAGS_GO;
    case FLAG_TEXTS: {
        struct texts *texts = f->to;
        if (texts->n == TEXTS_MAX)
            return flag_error(command, f->name, "was given more than 16 times", NULL);
        texts->items[texts->n++] = value;
        return FLAGS_GO;
    }
    case FLAG_U32:
        if (!parse_u64(&number, value, f->low, f->high)) {
            snprintf(what, sizeof what, "must be an integer from %.0f to %.0f", f->low, f->high);
            return flag_error(command, f->name, what, value);
        }
        *(uint32_t *)f->to = (uint32_t)number;
        return FLAGS_GO;
    case FLAG_U64:
        if (!parse_u64(&number, value, f->low, 0)) {
            snprintf(what, sizeof what, "must be an integer from %.0f to %" PRIu64, f->low, UINT64_MAX);
            return flag_error(command, f->name, what, value);
        }
        *(uint64_t *)f->to = number;
        return FLAGS_GO;
    case FLAG_FLOAT: {
        char *end;
        double real = strtod(value, &end);
        if (end == value || *end || !(real >= f->low && real <= f->high)) {
            snprintf(what, sizeof what, "must be a number from %g to %g", f->low, f->high);
            return flag_error(command, f->name, what, value);
        }
        *(float *)f->to = (float)real;
        return FLAGS_GO;
    }
    case FLAG_IDS: {
        struct ids *ids = f->to;
        mem_free(ids->ids);
        *ids = (struct ids){ 0 };
        if (!ids_parse(ids, value, strlen(value)))
            return flag_error(command, f->name, "must be ids such as 1,2,3", value);
        return FLAGS_GO;
    }
    case FLAG_PRICE: {
        uint64_t nanodollars;
        if (cinf_price_parse(&nanodollars, value) != CINF_OK)
            return flag_error(command, f->name, "must be dollars such as 2.50 (at most nine decimals)",
                              value);
        *(const char **)f->to = value;
        return FLAGS_GO;
    }
    case FLAG_WEIGHTS:
        if (cinf_weights_parse(f->to, value) != CINF_OK)
            return flag_error(command, f->name, "must be auto, f32, f16, bf16, int8 or int4", value);
        return FLAGS_GO;
    case FLAG_KV: {
        struct kv_choice *choice = f->to;
        choice->given = strcmp(value, "auto") != 0;
        if (choice->given && cinf_kv_parse(&choice->kv, value) != CINF_OK)
            return flag_error(command, f->name, "must be auto, f32 or f16", value);
        return FLAGS_GO;
    }
    }
    return FLAGS_GO;
}

static void print_indented(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        printf("      %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void print_manual(const struct command *command, const struct flag *flags, size_t n_flags)
{
    printf("costinfer %s - %s\n\nUsage: costinfer %s %s\n\n%s", command->name, command->summary,
           command->name, command->synopsis, command->manual);
    if (n_flags)
        printf("\nFlags:\n");
    for (size_t i = 0; i < n_flags; i++) {
        printf("  --%s%s%s\n", flags[i].name, flags[i].value ? " " : "",
               flags[i].value ? flags[i].value : "");
        print_indented(flags[i].help);
    }
    printf("\nExit status: 0 done, 1 failed (one line on standard error says why), 2 a mistake in the\n"
           "command line, 130 interrupted, 141 the output was closed by its reader.\n");
}

static const struct flag *flag_find(const struct flag *flags, size_t n, const char *name, size_t length)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(flags[i].name) == length && memcmp(flags[i].name, name, length) == 0)
            return &flags[i];
    return NULL;
}

int flags_parse(const struct command *command, const struct flag *flags, size_t n_flags, int argc,
                char **argv, const char **operand)
{
    bool ended = false;
    const char *given = NULL;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (!ended && strcmp(arg, "--") == 0) {
            ended = true;
            continue;
        }
        if (!ended && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            print_manual(command, flags, n_flags);
            return 0;
        }
        if (ended || arg[0] != '-' || arg[1] == '\0') {
            if (!command->operand || given) {
                fprintf(stderr, "costinfer %s: unexpected argument \"%s\" (see costinfer %s --help)\n",
                        command->name, arg, command->name);
                return 2;
            }
            given = arg;
            continue;
        }
        const char *name = arg + (arg[1] == '-' ? 2 : 1), *equals = strchr(name, '=');
        size_t length = equals ? (size_t)(equals - name) : strlen(name);
        const struct flag *f = arg[1] == '-' ? flag_find(flags, n_flags, name, length) : NULL;
        if (!f) {
            fprintf(stderr, "costinfer %s: unknown flag %.*s (see costinfer %s --help)\n", command->name,
                    (int)(length + (size_t)(name - arg)), arg, command->name);
            return 2;
        }
        if (f->kind == FLAG_SWITCH && equals)
            return flag_error(command, f->name, "takes no value", NULL);
        const char *value = f->kind == FLAG_SWITCH ? "" : equals ? equals + 1 : argv[++i];
        if (!value)
            return flag_error(command, f->name, "needs a value", NULL);
        int status = flag_set(command, f, value);
        if (status != FLAGS_GO)
            return status;
    }
    if (command->operand && !given) {
        char message[64];
        snprintf(message, sizeof message, "%s is missing", command->operand);
        return usage_error(command, message);
    }
    if (operand)
        *operand = given;
    return FLAGS_GO;
}
