/* 02_streaming.c - receiving text as it is generated, and cancelling it.
 *
 * There are two ways to get text early.  A callback for cinf_generate() is the shorter one: it runs on your
 * own thread, and returning false cancels.  The other is to pull events: cinf_request_submit() returns
 * immediately, and cinf_request_next() waits for the next event as long as you like.  The engine keeps all
 * events from the moment of submission, so a slow reader never delays the device.
 *
 * A token is not a character: "é" may be two tokens, and a token may end in the middle of a character.  The
 * text of an event is always whole UTF-8; incomplete characters come with a later event.  Text that might
 * begin a stop string is held back as well.
 *
 * A request that is cancelled pays only for the steps it took part in:
 *
 *     cost of a cancelled request = (steps until the cancellation) x rate */
#include <costinfer/costinfer.h>
#include <stdio.h>
#include <stdlib.h>

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "%s: %s\n", cinf_status_name(status), cinf_last_error());
        exit(1);
    }
}

static bool print_text(void *context, uint32_t choice, const char *text, size_t n)
{
    (void)context, (void)choice;
    fwrite(text, 1, n, stdout);
    fflush(stdout);
    return true; /* false would cancel */
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

    puts("By callback:");
    struct cinf_result *result;
    check(cinf_generate(&result, model,
                        &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = "Once upon a time",
                                                        .max_tokens = 15 },
                        print_text, NULL));
    printf(" [%s]\n\n", cinf_finish_name(result->choices[0].finish));
    cinf_result_free(result);

    puts("By events, until ten tokens are there:");
    struct cinf_request *request;
    struct cinf_event event = { CINF_EVENT };
    unsigned n_tokens = 0;
    check(cinf_request_submit(&request, model,
                              &(struct cinf_request_options){ CINF_REQUEST_OPTIONS,
                                                              .prompt = "Once upon a time", .max_tokens = 200,
                                                              .ignore_eos = true }));
    do {
        check(cinf_request_next(request, UINT64_MAX, &event)); /* waits; with 0 it would return immediately */
        if (event.kind == CINF_EVENT_TOKEN && ++n_tokens <= 10)
            fwrite(event.text, 1, event.text_bytes, stdout);
        if (n_tokens == 10)
            cinf_request_cancel(request, CINF_FINISH_CANCELLED); /* further calls have no effect */
    } while (event.kind != CINF_EVENT_END);

    struct cinf_report report = { CINF_REPORT };
    char cost[CINF_COST_TEXT_MAX];
    cinf_request_report(request, &report);
    /* More than ten: the device does not wait for us, and a small model is fast. */
    printf(" [%s]\n%u tokens were sampled and paid for: $%s\n", cinf_finish_name(event.finish),
           report.output_tokens, cinf_cost_format(cost, report.cost));
    cinf_request_free(request);

    cinf_model_release(model);
    cinf_engine_close(engine);
}
