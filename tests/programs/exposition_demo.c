/* exposition_demo.c - prints a page of metrics for exposition_check.py.
 *
 *     exposition_demo text|openmetrics new|used MODEL...
 *
 * new: the models were added and nothing else has happened.  used: every family has a value.  The clock is
 * fake, so that both formats show the same figures.  The exit status is 1 if a name is refused. */
#include <costinfer/exposition.h>

#include <locale.h>
#include <stdio.h>
#include <string.h>

static uint64_t clock_ns(void *context)
{
    return *(const uint64_t *)context;
}

static struct cinf_bill *running[1024]; /* [model]: a request that has not ended when the page is printed */

static int use(struct cinf_meter *meter, uint32_t model, uint64_t *now_ns)
{
    struct cinf_bill *long_one, *short_one, *never;
    if (cinf_bill_open(&long_one, meter, model, 0) != CINF_OK ||
        cinf_bill_open(&short_one, meter, model, 1) != CINF_OK ||
        cinf_bill_open(&never, meter, model, 1) != CINF_OK)
        return 1;
    cinf_meter_set_loaded(meter, model, true);
    cinf_meter_busy(meter);
    *now_ns += 1234567891;
    cinf_meter_charge_load(meter, model);
    for (uint32_t step = 0; step < 60; step++) {
        struct cinf_share shares[2] = {
            { .bill = long_one, .decode_weight = 7, .output_tokens = 1 },
            { .bill = short_one, .decode_weight = 3, .output_tokens = 1 },
        };
        if (step == 0) {
            shares[0].prefill_weight = 977;
            shares[0].input_tokens = 300;
            shares[0].cached_tokens = 20;
        }
        *now_ns += (uint64_t)step * step * step * 100003 + model + 1;
        cinf_meter_charge(meter, shares, step < 20 ? 2 : 1);
    }
    int failed = cinf_meter_set_price(meter, model % 3 == 0   ? "2.50"
                                             : model % 3 == 1 ? NULL
                                                              : "0.000000001") != CINF_OK;
    cinf_meter_idle(meter);
    cinf_meter_count_error(meter, model, CINF_ERROR_QUEUE_FULL);
    cinf_bill_close(short_one, CINF_FINISH_STOP);
    cinf_bill_close(never, CINF_FINISH_CANCELLED);
    cinf_bill_free(short_one);
    cinf_bill_free(never);
    if (model % 2 == 0)
        cinf_bill_close(long_one, CINF_FINISH_LENGTH);
    running[model] = long_one;
    *now_ns += 3600000000000;
    return failed;
}

static int print(enum cinf_exposition_format format, const struct cinf_meter *meter)
{
    struct cinf_exposition *page;
    const char *text;
    size_t length;
    if (cinf_exposition_new(&page, format) != CINF_OK)
        return 1;
    int failed = cinf_exposition_meter(page, meter) != CINF_OK ||
                 cinf_exposition_finish(page, &text, &length) != CINF_OK;
    if (!failed)
        failed = fwrite(text, 1, length, stdout) != length;
    cinf_exposition_free(page);
    return failed;
}

int main(int argc, char **argv)
{
    uint64_t now_ns = 987654321;
    struct cinf_meter *meter;
    const char *const endpoints[] = { "/v1/generate", "/v1/\"odd\"\\" };
    struct cinf_meter_options options = { CINF_METER_OPTIONS,         .device = "cpu \"0\"",
                                          .dollars_per_hour = "0.10", .endpoints = endpoints,
                                          .n_endpoints = 2,           .clock_ns = clock_ns,
                                          .clock_context = &now_ns };
    setlocale(LC_ALL, "");
    if (argc < 3 || cinf_meter_new(&meter, &options) != CINF_OK)
        return 2;
    int failed = 0;
    for (int i = 3; i < argc && !failed; i++) {
        uint32_t model;
        failed = cinf_meter_add_model(meter, argv[i], &model) != CINF_OK;
        if (!failed && strcmp(argv[2], "used") == 0)
            failed = use(meter, model, &now_ns);
    }
    if (strcmp(argv[2], "used") == 0) {
        cinf_meter_set_gpu_memory(meter, 1234567890123, 3000000000000);
        cinf_meter_set_gpu_taken(meter, 2000000000000);
        cinf_meter_set_split(meter, 125000, 83333333);
    }
    if (!failed)
        failed =
            print(strcmp(argv[1], "text") == 0 ? CINF_EXPOSITION_TEXT : CINF_EXPOSITION_OPENMETRICS, meter);
    for (int i = 0; i < 1024; i++) {
        if (running[i])
            cinf_bill_close(running[i], CINF_FINISH_CANCELLED); /* has no effect on those that have ended */
        cinf_bill_free(running[i]);
    }
    cinf_meter_free(meter);
    return failed;
}
