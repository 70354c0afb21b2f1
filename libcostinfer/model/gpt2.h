/* gpt2.h - GPT-2 (Radford et al. 2019: pre-norm transformer, learned positions, tied head). */
#ifndef GPT2_H
#define GPT2_H

#include "architecture.h"

extern const struct architecture architecture_gpt2;

#endif
