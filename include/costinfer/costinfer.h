/* costinfer.h - GPT-2 inference that knows what it costs.
 *
 *     #include <costinfer/costinfer.h>
 *     #include <stdio.h>
 *
 *     static bool print_text(void *context, uint32_t choice, const char *text, size_t n)
 *     {
 *         (void)context, (void)choice;
 *         fwrite(text, 1, n, stdout);
 *         return true;
 *     }
 *
 *     int main(void)
 *     {
 *         struct cinf_engine *engine = NULL;
 *         struct cinf_model *model = NULL;
 *         struct cinf_result *result = NULL;
 *         char cost[CINF_COST_TEXT_MAX];
 *
 *         if (cinf_engine_open(&engine, &(struct cinf_engine_options){
 *                 CINF_ENGINE_OPTIONS, .dollars_per_hour = "0.10" }) == CINF_OK &&
 *             cinf_model_load(&model, engine, &(struct cinf_model_options){
 *                 CINF_MODEL_OPTIONS, .folder = "examples/models/stories-small" }) == CINF_OK &&
 *             cinf_generate(&result, model, &(struct cinf_request_options){
 *                 CINF_REQUEST_OPTIONS, .prompt = "Once upon a time", .max_tokens = 40 },
 *                 print_text, NULL) == CINF_OK)
 *             printf("\n%u tokens, $%s\n", result->report.output_tokens,
 *                    cinf_cost_format(cost, result->report.cost));
 *         else
 *             fprintf(stderr, "%s\n", cinf_last_error());
 *         cinf_result_free(result);
 *         cinf_model_release(model);
 *         cinf_engine_close(engine);
 *     }
 *
 * The headers, in reading order:
 *
 *     status.h      how calls report success and failure
 *     engine.h      a device and the models on it
 *     request.h     generating: blocking, by events, scoring
 *     meter.h       who used the machine: timelines, bills, prices; usable without the engine
 *     ledger.h      a meter's books in a file, and the bill of any period
 *     exposition.h  metrics as text for Prometheus
 *     tokenizer.h   text to tokens and back
 *     checkpoint.h  a model's files as tensors and a configuration */
#ifndef COSTINFER_COSTINFER_H
#define COSTINFER_COSTINFER_H

#include <costinfer/checkpoint.h>
#include <costinfer/engine.h>
#include <costinfer/exposition.h>
#include <costinfer/ledger.h>
#include <costinfer/meter.h>
#include <costinfer/request.h>
#include <costinfer/status.h>
#include <costinfer/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CINF_VERSION "0.1.0" /* of these headers */

/* The version of the library that is running, which may differ from CINF_VERSION of this header. */
CINF_API const char *cinf_version(void);

#ifdef __cplusplus
}
#endif
#endif
