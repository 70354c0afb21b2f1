/* 01_hello.c - load a model, generate, print what it cost.
 *
 * There are three objects.  An engine is one device (here the CPU) and its accounts; a model belongs to an
 * engine; a result is a finished text with its report.  Every call that can fail returns a status and hands
 * its result through the first parameter; cinf_last_error() is the one line that says why.
 *
 * A request costs its time on the device at the machine's rate:
 *
 *     cost = device time x hourly rate / 3600
 *
 * A request that is alone on the device pays for its whole latency.  Lesson 4 shows how several share a
 * second.
 *
 *     cc 01_hello.c $(pkg-config --cflags --libs libcostinfer) -o hello
 *     ./hello /usr/share/costinfer/models/stories-small */
#include <costinfer/costinfer.h>
#include <stdio.h>

int main(int argc, char *argv[])
{
    struct cinf_engine *engine = NULL;
    struct cinf_model *model = NULL;
    struct cinf_result *result = NULL;
    char cost[CINF_COST_TEXT_MAX];
    int code = 1;

    /* Options structs are zero by default; the macro fills in their size, so that a program keeps working
     * with a later library whose structs have grown. */
    if (cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS,
                                                                 .dollars_per_hour = "2.50" }) == CINF_OK &&
        cinf_model_load(&model, engine,
                        &(struct cinf_model_options){
                            CINF_MODEL_OPTIONS,
                            .folder = argc > 1 ? argv[1] : "examples/models/stories-small" }) == CINF_OK &&
        cinf_generate(&result, model,
                      &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = "Once upon a time",
                                                      .max_tokens = 20 },
                      NULL, NULL) == CINF_OK) {
        printf("Once upon a time%s\n\n", result->choices[0].text);
        printf("%u tokens in, %u out, %.6f s on the device, $%s\n", result->report.input_tokens,
               result->report.output_tokens, (double)result->report.device_ns / 1e9,
               cinf_cost_format(cost, result->report.cost));
        code = 0;
    } else {
        fprintf(stderr, "%s\n", cinf_last_error());
    }
    /* All of these accept NULL and may be called in any order. */
    cinf_result_free(result);
    cinf_model_release(model);
    cinf_engine_close(engine);
    return code;
}
