/* manual.c - --help: the flags from the settings' table, the routes from the routes' table, and what no table
 * says.  packaging/man is written from it. */
#include "manual.h"

#include <stdio.h>

#include "columns.h"
#include "fields.h"
#include "routes.h"
#include "settings.h"

static void print_routes(void)
{
    printf("\nROUTES\n");
    for (size_t i = 0; i < n_routes; i++) {
        char left[80];
        if (routes[i].audience != AUDIENCE_ALL)
            continue;
        snprintf(left, sizeof left, "%s %s", routes[i].method, routes[i].path);
        columns_print(left, routes[i].summary);
    }
    printf("\n"
           "  /admin needs a private --metrics-listen or an admin key.  GET / shows the costs in a browser.\n"
           "  Errors are {\"error\": {\"message\", \"type\", \"param\", \"code\"}}.\n");
}

static void print_limits(void)
{
    printf(
        "\nLIMITS\n"
        "  A body has at most --body-bytes.  A request has at most %d choices (prompts times n), %d stop\n"
        "  strings of %d bytes and %d logit biases.  A client that hangs up, or only shuts down its sending\n"
        "  side, ends its request; what was computed until then is billed.\n",
        CHOICES_MAX, STOPS_MAX, CINF_STOP_BYTES_MAX, LOGIT_BIASES_MAX);
}

void manual_print(void)
{
    printf("costd - serves GPT-2 models over HTTP and accounts for what every request costs\n"
           "\n"
           "  costd --model NAME=DIR [--model NAME=DIR …] [flags]\n"
           "\n");
    settings_help();
    print_routes();
    print_limits();
    printf("\nSIGNALS\n");
    columns_print(
        "SIGTERM, SIGINT",
        "answer 503 at /ready and keep serving for --shutdown-delay, then stop taking requests, let "
        "running ones end for --drain-seconds, exit 0; a second signal ends the delay, or the "
        "requests");
    columns_print(
        "SIGHUP",
        "read the keys and the file again while requests go on: prices and the daily budget change, models "
        "that are new or whose files have changed load, missing ones unload; a model that cannot be loaded "
        "leaves the one that serves as it is, and the log says what was applied, refused, or needs a "
        "restart");
    printf(
        "\n"
        "LOG\n"
        "  stderr has one JSON object a line.  Each request gets a line, except for successful GETs of\n"
        "  /metrics, /health, /ready and the page: its id, model, status, tokens, seconds and cost.  No\n"
        "  line contains a prompt or generated text.  Up to 2 MiB of lines wait while stderr is not read;\n"
        "  more are dropped and counted in costd_log_dropped_lines_total, and a line with their number\n"
        "  (dropped_lines) stands in their place.\n"
        "\n"
        "EXIT STATUS\n"
        "  0 after SIGTERM or SIGINT; 1 if the device, the address or a model could not be had; 2 for\n"
        "  mistakes in the flags or the file.\n");
}
