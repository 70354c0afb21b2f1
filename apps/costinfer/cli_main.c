/* cli_main.c - costinfer, the command line: chooses the command. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "cli.h"
#include "file.h"

static const struct command *const commands[] = {
    &command_inspect, &command_tokenize, &command_run,   &command_logits, &command_perplexity,
    &command_bench,   &command_devices,  &command_costs, &command_ledger,
};

static void print_help(FILE *to)
{
    fprintf(to, "costinfer %s - GPT-2 inference that knows what it costs\n\nUsage: costinfer COMMAND ...\n\n",
            cinf_version());
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-11s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(to, "\n`costinfer COMMAND --help` prints the manual of a command.\n");
}

/* Output that could not be written is a failure.  If its reader has closed it, no message is printed. */
static int flush_output(int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    if (errno == EPIPE || errno == 0)
        return EXIT_PIPE;
    return fail_with("standard output: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    /* A closed pipe becomes a failed write, so a command can still print what its work has cost. */
    signal(SIGPIPE, SIG_IGN);
    file_hold_standard();
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return flush_output(0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("costinfer %s\n", cinf_version());
        return flush_output(0);
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i]->name) == 0)
            return flush_output(commands[i]->run(commands[i], argc - 1, argv + 1));
    fprintf(stderr, "costinfer: unknown command \"%s\" (see costinfer --help)\n", argv[1]);
    return 2;
}
