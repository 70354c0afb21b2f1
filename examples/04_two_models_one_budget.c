/* 04_two_models_one_budget.c - which model used how much of the budget?
 *
 * Two models on one device serve requests concurrently.  The usual way to bill is latency x rate for each
 * request.  But eight requests that overlap for a second have eight seconds of latency in one second of the
 * machine's time, so the sum of the bills is eight times the rent.
 *
 * The library measures every step of the device and splits it over the requests in it, in proportion to the
 * time that each request's rows would have taken alone.  So, in whole nanoseconds,
 *
 *     sum of all requests' device_ns  =  serve
 *     serve + load + idle + lost      =  the time the engine was open
 *
 * and the bills add up to the rent.  Idle time belongs to no request: it is the price of being ready, and has
 * an account of its own. */
#include <costinfer/costinfer.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { REQUESTS = 8 };

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "%s: %s\n", cinf_status_name(status), cinf_last_error());
        exit(1);
    }
}

int main(int argc, char *argv[])
{
    const char *folders[2] = { argc > 1 ? argv[1] : "examples/models/stories-small",
                               argc > 2 ? argv[2] : "examples/models/stories-large" };
    struct cinf_engine *engine;
    struct cinf_model *models[2];
    struct cinf_request *requests[REQUESTS];
    check(cinf_engine_open(&engine,
                           &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .dollars_per_hour = "2.50" }));
    for (int m = 0; m < 2; m++)
        check(cinf_model_load(&models[m], engine,
                              &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folders[m] }));

    for (int i = 0; i < REQUESTS; i++)
        check(cinf_request_submit(&requests[i], models[i % 2],
                                  &(struct cinf_request_options){ CINF_REQUEST_OPTIONS,
                                                                  .prompt = "Once upon a time",
                                                                  .max_tokens = 40, .ignore_eos = true }));

    uint64_t device_ns = 0, latency_ns = 0;
    for (int i = 0; i < REQUESTS; i++) {
        struct cinf_event event = { CINF_EVENT };
        struct cinf_report report = { CINF_REPORT };
        do
            check(cinf_request_next(requests[i], UINT64_MAX, &event));
        while (event.kind != CINF_EVENT_END);
        cinf_request_report(requests[i], &report);
        device_ns += report.device_ns;
        latency_ns += report.latency_ns;
        cinf_request_free(requests[i]);
    }

    char cost[CINF_COST_TEXT_MAX];
    struct cinf_snapshot books = { CINF_SNAPSHOT };
    check(cinf_meter_snapshot(&books, cinf_engine_meter(engine)));
    for (uint32_t m = 0; m < books.n_models; m++)
        printf("%-14s %5.1f %% of serving, $%s\n", books.models[m].name,
               100.0 * (double)books.models[m].serve_ns / (double)books.serve_ns,
               cinf_cost_format(cost, books.models[m].serve_cost));
    printf("serve %" PRIu64 " + load %" PRIu64 " + idle %" PRIu64 " + lost %" PRIu64 " = %" PRIu64 " ns\n",
           books.serve_ns, books.load_ns, books.idle_ns, books.lost_ns, books.as_of_ns);
    printf("the requests' device_ns add up to %" PRIu64 " ns\n", device_ns);
    printf("latency x rate would have billed %.1f times as much\n", (double)latency_ns / (double)device_ns);
    cinf_snapshot_free(&books);

    cinf_model_release(models[0]);
    cinf_model_release(models[1]);
    cinf_engine_close(engine);
}
