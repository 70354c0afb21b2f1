/* 05_cost_per_token.c - what does a token cost, in and out?
 *
 * A price list says "x dollars per million tokens".  On a rented machine you can measure that price:
 *
 *     dollars per million output tokens = decode_ns / output_tokens x rate / 3600e9 x 1e6
 *     dollars per million input tokens  = prefill_ns / (input_tokens - cached_tokens) x rate / 3600e9 x 1e6
 *
 * Input is cheaper than output, because the device computes a prompt's tokens together but generates output
 * one token at a time.  Output becomes cheaper when requests share their steps, which this program shows. The
 * common beginning of a prompt and an earlier one is copied, not computed: such cached tokens cost almost
 * nothing.
 *
 * The worked example of the documentation: 0.8 s at $2.50 an hour is 0.8 x 2.50 / 3600 = $0.000555555556. */
#include <costinfer/costinfer.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 16 };

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "%s: %s\n", cinf_status_name(status), cinf_last_error());
        exit(1);
    }
}

/* Serves n equal requests concurrently and sums their reports. */
static struct cinf_report serve(struct cinf_model *model, int n)
{
    struct cinf_request *requests[MOST];
    struct cinf_report sum = { CINF_REPORT };
    for (int i = 0; i < n; i++)
        check(cinf_request_submit(
            &requests[i], model,
            &(struct cinf_request_options){
                CINF_REQUEST_OPTIONS, .max_tokens = 64, .ignore_eos = true,
                .prompt = "Long ago, a big bear named Rosa lived in a brick house next to the pond." }));
    for (int i = 0; i < n; i++) {
        struct cinf_event event = { CINF_EVENT };
        struct cinf_report report = { CINF_REPORT };
        do
            check(cinf_request_next(requests[i], UINT64_MAX, &event));
        while (event.kind != CINF_EVENT_END);
        cinf_request_report(requests[i], &report);
        cinf_request_free(requests[i]);
        sum.input_tokens += report.input_tokens - report.cached_tokens;
        sum.output_tokens += report.output_tokens;
        sum.prefill_ns += report.prefill_ns;
        sum.decode_ns += report.decode_ns;
        sum.cost = cinf_cost_add(sum.cost, report.cost);
    }
    return sum;
}

int main(int argc, char *argv[])
{
    const char *folder = argc > 1 ? argv[1] : "examples/models/stories-small";
    struct cinf_engine *engine;
    struct cinf_model *model;
    uint64_t price;
    char cost[CINF_COST_TEXT_MAX];
    check(cinf_price_parse(&price, "2.50"));
    printf("0.8 s at $2.50 an hour: $%s\n", cinf_cost_format(cost, cinf_cost_of(800000000, price)));

    /* Prefixes are not reused, so that every prompt is computed and the rows are comparable. */
    check(
        cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .no_prefix_reuse = true,
                                                                 .dollars_per_hour = "2.50" }));
    check(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));
    serve(model, 1); /* the first run warms the caches and is not shown */
    puts("requests  $/million in   $/million out   all of them");
    for (int n = 1; n <= MOST; n *= 4) {
        struct cinf_report r = serve(model, n);
        /* A million tokens of t ns each cost t x 1e6 ns x the rate. */
        double in = cinf_cost_dollars(cinf_cost_of(r.prefill_ns, price)) * 1e6 / r.input_tokens;
        double out = cinf_cost_dollars(cinf_cost_of(r.decode_ns, price)) * 1e6 / r.output_tokens;
        printf("%7d   %12.6f   %13.6f   $%s\n", n, in, out, cinf_cost_format(cost, r.cost));
    }
    cinf_model_release(model);
    cinf_engine_close(engine);
}
