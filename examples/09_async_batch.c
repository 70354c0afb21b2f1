/* 09_async_batch.c - many requests, one thread, no waiting.
 *
 * The engine accepts new requests at any time and computes all active ones together, step by step (continuous
 * batching). A step reads every weight once, however many requests take part; so while memory is the limit,
 * eight concurrent requests take little longer than one:
 *
 *     time of a step  ~  max(bytes of weights / memory speed, rows x 2 x parameters / FLOP/s)
 *
 * An event loop should not wait for one request while another has text.  The notify hook reports that a
 * request has something to pull.  The scheduler calls it, so it must not block and must not call the library.
 * Here it posts a semaphore; in a server it would write to an eventfd. */
#define _POSIX_C_SOURCE 200809L
#include <costinfer/costinfer.h>
#include <inttypes.h>
#include <semaphore.h>
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

static void wake(void *context)
{
    sem_post(context);
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

    static const char *const names[REQUESTS] = { "Lily",  "Rosa", "Ruby", "Clara",
                                                 "Hazel", "Lily", "Rosa", "Ruby" };
    struct cinf_request *requests[REQUESTS];
    struct cinf_report reports[REQUESTS];
    sem_t ready;
    sem_init(&ready, 0, 0);
    for (int i = 0; i < REQUESTS; i++)
        check(cinf_request_submit(
            &requests[i], model,
            &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = names[i], .max_tokens = 30,
                                            .ignore_eos = true, .notify = wake, .notify_context = &ready }));

    uint64_t paid_ns = 0, latency_ns = 0;
    for (int running = REQUESTS; running > 0;) {
        while (sem_wait(&ready) != 0)
            continue; /* a signal came */
        for (int i = 0; i < REQUESTS; i++) {
            struct cinf_event event = { CINF_EVENT };
            /* With a timeout of 0 the call returns immediately. */
            while (requests[i] && cinf_request_next(requests[i], 0, &event) == CINF_OK) {
                if (event.kind != CINF_EVENT_END)
                    continue; /* event.text goes to its client here */
                reports[i] = (struct cinf_report){ CINF_REPORT };
                cinf_request_report(requests[i], &reports[i]);
                paid_ns += reports[i].device_ns;
                latency_ns += reports[i].latency_ns;
                cinf_request_free(requests[i]);
                requests[i] = NULL;
                running--;
            }
        }
    }
    uint32_t tokens = 0;
    for (int i = 0; i < REQUESTS; i++)
        tokens += reports[i].output_tokens;
    printf("%d requests, %" PRIu32 " tokens: latencies of %.1f ms in all, and %.1f ms to pay for\n", REQUESTS,
           tokens, (double)latency_ns / 1e6, (double)paid_ns / 1e6);
    sem_destroy(&ready);
    cinf_model_release(model);
    cinf_engine_close(engine);
}
