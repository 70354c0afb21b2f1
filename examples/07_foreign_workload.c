/* 07_foreign_workload.c - billing your own inference engine, with meter.h alone.
 *
 * Suppose you run models with another library, or work that is not a language model, and want to know who
 * used the machine.  The program tells the meter three things: when the device becomes busy, which requests
 * each interval served, and when the device becomes idle.
 *
 * A charge splits the time T since the last boundary over the shares, in proportion to their weights:
 *
 *     part_i = T x weight_i / sum of weights         (whole nanoseconds, largest remainder: they add up to T)
 *
 * The weight is what the work would have taken alone, in any unit: tokens, FLOP, pages, frames.  Only ratios
 * count. This program's workload sums numbers, and a request's weight is their count. */
#include <costinfer/meter.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void check(enum cinf_status status)
{
    if (status != CINF_OK) {
        fprintf(stderr, "%s: %s\n", cinf_status_name(status), cinf_last_error());
        exit(1);
    }
}

static volatile double sink;

static void work(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        sink = sink + i;
}

int main(void)
{
    struct cinf_meter *meter;
    struct cinf_bill *bills[2];
    uint32_t adder;
    const unsigned sizes[2] = { 3000000, 1000000 };
    check(cinf_meter_new(&meter, &(struct cinf_meter_options){ CINF_METER_OPTIONS, .device = "abacus",
                                                               .dollars_per_hour = "2.50" }));
    check(cinf_meter_add_model(meter, "adder", &adder));

    /* Two requests arrive and begin to wait. */
    for (int i = 0; i < 2; i++)
        check(cinf_bill_open(&bills[i], meter, adder, 0));

    cinf_meter_busy(meter);
    work(sizes[0] + sizes[1]); /* one batch for both, 3 to 1 */
    uint64_t batch_ns = cinf_meter_charge(
        meter,
        (struct cinf_share[]){ { .bill = bills[0], .prefill_weight = sizes[0], .input_tokens = 30 },
                               { .bill = bills[1], .prefill_weight = sizes[1], .input_tokens = 10 } },
        2);
    work(sizes[0]); /* then the first one continues alone, and pays alone */
    uint64_t alone_ns = cinf_meter_charge(
        meter, (struct cinf_share[]){ { .bill = bills[0], .decode_weight = 1, .output_tokens = 1 } }, 1);
    cinf_meter_idle(meter);

    printf("a batch of %" PRIu64 " ns, then %" PRIu64 " ns\n", batch_ns, alone_ns);
    for (int i = 0; i < 2; i++) {
        char cost[CINF_COST_TEXT_MAX];
        struct cinf_report report = { CINF_REPORT };
        cinf_bill_close(bills[i], CINF_FINISH_STOP);
        cinf_bill_read(bills[i], &report);
        printf("request %d: %" PRIu64 " ns, $%s\n", i, report.device_ns, cinf_cost_format(cost, report.cost));
        cinf_bill_free(bills[i]);
    }
    struct cinf_snapshot books = { CINF_SNAPSHOT };
    check(cinf_meter_snapshot(&books, meter));
    printf("serve %" PRIu64 " + idle %" PRIu64 " = %" PRIu64 " ns on the %s\n", books.serve_ns, books.idle_ns,
           books.as_of_ns, books.device);
    cinf_snapshot_free(&books);
    cinf_meter_free(meter);
}
