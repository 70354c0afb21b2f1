/* opencl_step.h - running a prepared program. */
#ifndef OPENCL_STEP_H
#define OPENCL_STEP_H

#include "backend.h"

enum cinf_status opencl_prepare_more(struct prepared *prepared, bool *done);
enum cinf_status opencl_run(struct prepared *prepared, const struct batch *batch);
enum cinf_status opencl_wait(struct prepared *prepared);
enum cinf_status opencl_logits(struct prepared *prepared, uint32_t i, const float **out);
enum cinf_status opencl_allow(struct prepared *prepared, const uint8_t *allowed);
enum cinf_status opencl_top_k(struct prepared *prepared, uint32_t i, struct top_k *out);

#endif
