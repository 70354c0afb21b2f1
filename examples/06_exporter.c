/* 06_exporter.c - your own Prometheus exporter in 40 lines.
 *
 * Every few seconds Prometheus requests a page of numbers over HTTP.  exposition.h writes that page: all
 * metrics of the meter, and your own.  Costs are counters that only grow, so "dollars an hour over the last
 * five minutes" is a query, not a number that the program has to keep:
 *
 *     rate(model_estimated_cost_dollars_total[5m]) * 3600
 *
 * This program answers a given number of scrapes with the least HTTP that works, then exits:
 *
 *     ./exporter MODEL_FOLDER 9101 2 &     # folder, port (0: any free one, printed), scrapes
 *     curl -s localhost:9101/metrics */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <costinfer/costinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "%s: %s\n", cinf_status_name(status), cinf_last_error());
        exit(1);
    }
}

static void answer(int client, const struct cinf_meter *meter)
{
    char request[4096];
    const char *text;
    size_t n;
    struct cinf_exposition *page;
    /* Every request gets the same page, so its contents do not matter. */
    if (read(client, request, sizeof request) <= 0)
        return;
    check(cinf_exposition_new(&page, CINF_EXPOSITION_TEXT));
    check(cinf_exposition_meter(page, meter));
    cinf_exposition_family(page, "example_sheep", CINF_METRIC_GAUGE, NULL, "Sheep in the field.");
    cinf_exposition_number(page, "example_sheep", NULL, 0, 12);
    check(cinf_exposition_finish(page, &text, &n));
    dprintf(client, "HTTP/1.0 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
            cinf_exposition_content_type(CINF_EXPOSITION_TEXT), n, text);
    cinf_exposition_free(page);
}

int main(int argc, char *argv[])
{
    const char *folder = argc > 1 ? argv[1] : "examples/models/stories-small";
    struct cinf_engine *engine;
    struct cinf_model *model;
    check(cinf_engine_open(&engine,
                           &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .dollars_per_hour = "2.50" }));
    check(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));

    struct cinf_result *result;
    check(cinf_generate(&result, model,
                        &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = "Once upon a time",
                                                        .max_tokens = 10 },
                        NULL, NULL));
    cinf_result_free(result);

    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)(argc > 2 ? atoi(argv[2]) : 9101)) };
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
    if (bind(server, (struct sockaddr *)&address, size) != 0 || listen(server, 8) != 0 ||
        getsockname(server, (struct sockaddr *)&address, &size) != 0) {
        perror("exporter");
        return 1;
    }
    printf("http://localhost:%d/metrics\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int left = argc > 3 ? atoi(argv[3]) : 1; left > 0; left--) {
        int client = accept(server, NULL, NULL);
        answer(client, cinf_engine_meter(engine));
        close(client);
    }
    close(server);
    cinf_model_release(model);
    cinf_engine_close(engine);
}
